"""A generated month: quiet weekends, every incident once in two weeks, look-alikes that no manifest names."""

import importlib
import sys
from collections import Counter
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from aitrail.demo.day import SATURDAY, WORKDAY, plan, rhythm, weight
from aitrail.demo.incidents import INCIDENTS
from aitrail.demo.lookalikes import LOOKALIKES
from aitrail.demo.period import period
from aitrail.demo.scene import Scene
from aitrail.demo.writer import generate

ROOT = Path(__file__).parents[2]
MONTH = period(1, "2026-11-20", 30, 60_000)


def test_days_and_weekends() -> None:
    assert [MONTH[0].day, MONTH[-1].day, len(MONTH)] == ["2026-10-22", "2026-11-20", 30]
    for day in MONTH:
        weekend = date.fromisoformat(day.day).weekday() > 4
        assert (day.rhythm is WORKDAY) == (not weekend)
        assert not (weekend and (day.incidents or day.lookalikes))
    assert weight(WORKDAY) == pytest.approx(1.0)
    assert 0.2 < weight(SATURDAY) < 0.7
    busy, quiet = plan(1000), plan(1000, SATURDAY)
    assert quiet["deal-desk"] < busy["deal-desk"] / 4
    assert quiet["nightly-embed"] == busy["nightly-embed"]


def test_events_add_up() -> None:
    total = sum(day.events * weight(day.rhythm) for day in MONTH)
    assert total == pytest.approx(60_000, rel=0.01)


def test_every_incident_twice_and_every_lookalike_three_times() -> None:
    real = Counter(name for day in MONTH for name in day.incidents or ())
    assert real == dict.fromkeys((one.name for one in INCIDENTS), 2)
    alike = Counter(name for day in MONTH for name in day.lookalikes)
    assert alike == dict.fromkeys(LOOKALIKES, 3)
    assert period(1, "2026-11-20", 30, 60_000) == MONTH
    assert period(2, "2026-11-20", 30, 60_000) != MONTH


def test_a_weekend_alone() -> None:
    days = period(1, "2026-11-22", 2, 1_000)
    assert [rhythm(day.day) is WORKDAY for day in days] == [False, False]
    assert {name for day in days for name in day.incidents or ()} == {one.name for one in INCIDENTS}


@pytest.mark.parametrize("name", LOOKALIKES)
def test_lookalikes_write_records(name: str) -> None:
    scenes = [Scene(1, "2026-11-20", name) for _ in range(2)]
    for scene in scenes:
        LOOKALIKES[name](scene)
    assert scenes[0].records
    assert [one.data for one in scenes[0].records] == [one.data for one in scenes[1].records]


def test_the_manifest_names_the_incidents_of_each_day(tmp_path: Path) -> None:
    made = generate(tmp_path, days=6, events=1_500)
    assert len(made.days) == 6
    assert sorted(one.name for one in made.incidents) == sorted(one.name for one in INCIDENTS)
    days = {datetime.fromtimestamp(one.first, UTC).date().isoformat() for one in made.incidents}
    assert len(days) > 2
    assert days <= set(made.days)
    with pytest.raises(ValueError, match="positive"):
        generate(tmp_path, days=0)


def test_the_report_says_what_was_found_and_what_was_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    bench = importlib.import_module("detections")
    try:
        report = bench.measure(tmp_path, 4, 600, 1)
        page = bench.markdown(report)
    finally:
        sys.modules.pop("detections", None)
    assert report.events > 600
    assert 0 < report.person_days < report.user_days
    found = [number for number in range(len(report.made.incidents)) if report.caught_by(number)]
    assert len(found) >= 9, "a scripted incident is missed"
    weights = next(one for one in report.rules if one.rule.name == "weights_bulk_read")
    assert (weights.alerts, weights.right, weights.wrong) == (1, 1, 0)
    changed = next(one for one in report.rules if one.rule.name == "bedrock_guardrail_changed")
    assert changed.wrong >= 1
    assert "| incidents found |" in page
    assert "`weights_bulk_read`" in page
