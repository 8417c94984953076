"""How long parts of a call wait for one another where somebody waits for the answer."""

from pathlib import Path

import pytest

from aitrail.normalize.join import Joiner
from aitrail.normalize.otel_genai import normalize
from aitrail.normalize.outcome import Context, Fragment

FIXTURES = Path(__file__).parents[1] / "fixtures" / "otel_genai"
WAIT = 8.0


def parts(name: str) -> list[Fragment]:
    found = normalize((FIXTURES / f"{name}.json").read_bytes(), Context())
    return [one for one in found if isinstance(one, Fragment)]


def given_out_after(names: list[str], max_wait: float) -> float:
    """Seconds after which the group of these parts is given out, to a tenth."""
    joiner = Joiner(max_wait=max_wait)
    for name in names:
        for part in parts(name):
            joiner.add(part, name, now=100.0)
    for tenth in range(200):
        now = 100.0 + tenth / 10
        if joiner.flush(now - WAIT):
            return tenth / 10
    raise AssertionError("never")


@pytest.mark.parametrize(
    ("names", "seconds"),
    [
        (["legacy_span_waits_for_its_logs"], 2.1),  # perhaps nothing else comes
        (["legacy_logs_of_one_span"], 8.1),  # its span must come
        (["current_span_waits_for_its_log"], 2.1),
    ],
)
def test_patience(names: list[str], seconds: float) -> None:
    assert given_out_after(names, WAIT) == pytest.approx(seconds, abs=0.11)
    assert given_out_after(names, 0.0) == pytest.approx(8.1, abs=0.11)  # where nobody waits, all wait equally


def test_a_span_with_its_answer_waits_no_longer() -> None:
    logs = parts("legacy_logs_of_one_span")
    assert any(part.part.endswith(".choice") for part in logs)
    (span,) = parts("legacy_span_waits_for_its_logs")
    span.group = logs[0].group
    joiner = Joiner(max_wait=WAIT)
    for part in (*logs, span):
        joiner.add(part, None, now=100.0)
    assert joiner.flush(100.0 - WAIT) == []
    ((joined, tokens),) = joiner.flush(100.3 - WAIT)
    assert len(tokens) == len(logs) + 1
    assert joined.event is not None
    assert "late_part" not in joined.event.flags
