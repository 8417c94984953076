"""Alerts of Defender for AI: what becomes of them, and that no bytes break the normalizer."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aitrail.classify.contract import Verdict
from aitrail.event import AccessEvent, decode
from aitrail.normalize.defender_alert import normalize
from aitrail.normalize.outcome import Context, Normalized, Rejected
from aitrail.verdicts import compare, merge, score

FIXTURES = Path(__file__).parents[1] / "fixtures" / "defender_alert"


def outcome(case: str) -> Normalized | Rejected:
    (found,) = normalize((FIXTURES / f"{case}.json").read_bytes(), Context(tenant_id="acme"))
    assert isinstance(found, Normalized | Rejected)
    return found


def alert(case: str) -> AccessEvent:
    found = outcome(case)
    assert isinstance(found, Normalized)
    assert found.content is None, "what Defender quotes of a prompt is not read"
    return found.event


def test_a_blocked_jailbreak_of_the_table() -> None:
    event = alert("jailbreak_blocked_table_row")
    assert (event.timestamp, event.user_id, event.src_ip) == (
        "2026-11-23T09:14:05.120Z", "ines.moreau@example.com", "203.0.113.9",
    )  # fmt: skip
    assert (event.guardrail_name, event.guardrail_action, event.outcome_status) == (
        "defender-for-ai",
        "blocked",
        "blocked",
    )
    assert event.cloud_account == "00000000-0000-4000-8000-000000000001"
    assert event.flags == ("alert_only",)


def test_a_detected_one_says_nothing_about_the_outcome() -> None:
    event = alert("jailbreak_detected_export")
    assert (event.guardrail_action, event.outcome_status) == ("flagged", "unknown")
    assert event.resource_id.endswith("/accounts/acme-openai")


def test_the_identifier_may_stand_in_the_name() -> None:
    event = alert("credential_theft_id_in_alert_name")
    assert event.guardrail_categories == ("ai.azure_credentialtheftattempt",)
    assert "identity_missing" in event.flags


def test_entities_that_are_no_json_cost_only_what_they_would_tell() -> None:
    event = alert("bad_entities")
    assert (event.user_id, event.src_ip, event.resource_id) == ("", "", "")


@pytest.mark.parametrize(
    ("case", "code"),
    [("other_plan", "not_ai_related"), ("bad_no_id", "field_missing"), ("bad_time", "time_invalid")],
)
def test_what_is_no_event(case: str, code: str) -> None:
    found = outcome(case)
    assert isinstance(found, Rejected)
    assert found.code == code


def test_its_verdict_is_kept_and_scored() -> None:
    event = alert("jailbreak_blocked_table_row")
    merge(event, Verdict())
    compare(event, Verdict(), (), judged=False)
    score(event)
    assert event.verdict_opinions == ("defender-for-ai|attack|yes",)
    assert event.verdict_agreement == (), "there was no text to have an opinion of our own about"
    assert event.prompt_classification == "jailbreak"
    assert event.risk_reasons == ("provider_attack", "guardrail_blocked")
    assert "aml.t0054@5.6.0" in event.atlas


RAW = (FIXTURES / "jailbreak_blocked_table_row.json").read_bytes()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(key=st.sampled_from(sorted(json.loads(RAW))), value=JSON)
def test_any_value_in_any_field_gives_one_outcome(key: str, value: object) -> None:
    raw = json.dumps({**json.loads(RAW), key: value}).encode()
    (found,) = normalize(raw, Context())
    if isinstance(found, Normalized):
        from aitrail.event import encode

        assert decode(encode(found.event)) == found.event


@settings(max_examples=100, deadline=None)
@given(place=st.integers(0, len(RAW)), insert=st.binary(max_size=6))
def test_any_bytes_give_one_outcome(place: int, insert: bytes) -> None:
    assert len(normalize(RAW[:place] + insert + RAW[place + len(insert) :], Context())) == 1
    assert len(normalize(RAW[:place], Context())) == 1
