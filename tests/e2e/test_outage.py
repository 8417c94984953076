"""F15, F16 by a simulated clock: a destination is down for an hour; nothing is lost, memory and disk are bounded."""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield importlib.import_module("outage")
    sys.modules.pop("outage", None)


def test_an_hour_without_one_destination(outage: Any, tmp_path: Path) -> None:
    found = outage.simulate(tmp_path, rate=10, body_bytes=3_000)
    assert found.made == found.backlog_events == 36_000
    assert found.lost == found.repeats == 0
    assert found.backlog_bytes > 100_000_000
    # What waits lies on disk, compressed; memory holds a batch or two, and SQLite's cache.
    assert found.growth_bytes < 80_000_000
    assert found.disk_bytes < found.backlog_bytes
    assert found.left_bytes == 0
    # The other destination is served in the same step, and the broken one is asked about twice a minute.
    assert found.healthy_lag == 0.0
    assert found.attempts < 250
    assert found.rate_wall > 10 * 10


def test_at_the_cap_the_source_pauses_and_nothing_is_lost(outage: Any, tmp_path: Path) -> None:
    found = outage.simulate(tmp_path, rate=50, seconds=900.0, cap=20_000_000)
    assert 600 < found.paused < 900
    assert found.lost == found.repeats == 0
    # One commit may go over the cap: it is looked at before the source is read.
    assert found.backlog_bytes < 20_000_000 + 50 * 10 * 4_000
    assert found.made == found.backlog_events
    assert found.left_bytes == 0
