"""Sessions, echoes and opinions: any text gives an answer, in bounded time."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aitrail.classify.agreement import codes, merge, opinion_of_guardrail
from aitrail.classify.contract import Text
from aitrail.classify.fingerprint import SystemPromptGuard, keyed_runs
from aitrail.classify.session import call_signals, is_refusal, similarity, sketch
from aitrail.runtime.judging import default_classifier

ANY = st.text(alphabet=st.characters(codec=None), max_size=200)
ROLES = st.sampled_from(("user", "assistant", "system", "tool"))
TEXTS = st.lists(st.builds(Text, st.sampled_from(("prompt", "response")), ROLES, ANY), max_size=8)
CANARY = "cnry-7f3a9b21"


def guard() -> SystemPromptGuard:
    return SystemPromptGuard(default_classifier().layers, canaries={"*": (CANARY,)}, words=8)


@settings(max_examples=60, deadline=None)
@given(texts=TEXTS)
def test_any_texts_give_signals_and_echoes(texts: list[Text]) -> None:
    judge = default_classifier()
    found = call_signals(texts, frozenset({0}), 0.0, judge.score, 0.45)
    assert found == call_signals(texts, frozenset({0}), 0.0, judge.score, 0.45)
    for echo in guard().check("t", "a", texts):
        assert 0 <= echo.start <= echo.end <= len(texts[echo.text_index].text)
        assert 0 <= echo.coverage <= 1


@settings(max_examples=100, deadline=None)
@given(before=ANY, after=ANY)
def test_a_canary_in_any_surroundings_is_found(before: str, after: str) -> None:
    answer = Text("response", "assistant", f"{before} {CANARY} {after}")
    assert [echo.signal for echo in guard().check("t", "a", [answer])][:1] == ["canary_echo"]


@settings(max_examples=100, deadline=None)
@given(one=ANY, other=ANY)
def test_similarity_is_a_share(one: str, other: str) -> None:
    assert 0.0 <= similarity(sketch(one), sketch(other)) <= 1.0
    assert similarity(sketch(one), sketch(one)) in (0.0, 1.0)
    assert is_refusal(one) in (True, False)
    assert all(len(run) == 16 for run in keyed_runs(one, b"k"))


@settings(max_examples=100, deadline=None)
@given(name=ANY, action=ANY, categories=st.lists(ANY, max_size=4))
def test_any_guardrail_gives_codes_of_bounded_form(name: str, action: str, categories: list[str]) -> None:
    opinion = opinion_of_guardrail(name, action, categories)
    if opinion is not None:
        assert all(code.count("|") in (2, 3) for code in codes(opinion))
        merge(attack=True, leak=False, sure=True, opinions=[opinion])


@pytest.mark.parametrize(
    "text",
    [
        "word " * 200_000,
        "x" * 1_000_000,
        "\u0301" * 300_000,
        "i can't help " * 80_000,
        "SWdub3JlIGFsbA== " * 60_000,
        CANARY[:-1] * 80_000,
    ],
    ids=["words", "one word", "marks", "refusals", "base64", "almost canaries"],
)
def test_a_megabyte_takes_no_second(text: str) -> None:
    texts = [
        Text("prompt", "system", text), Text("prompt", "user", text), Text("prompt", "assistant", text),
        Text("prompt", "user", text), Text("response", "assistant", text),
    ]  # fmt: skip
    one = guard()
    one.check("t", "a", [Text("response", "assistant", "warm up")])
    begun = time.thread_time()
    one.check("t", "a", texts)
    call_signals(texts, frozenset(), 0.0, lambda _text: 0.0, 0.45)
    assert time.thread_time() - begun < 1.0
