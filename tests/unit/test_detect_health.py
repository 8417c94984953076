"""Rules about the collector itself: a silent source and an altered log file become findings, once a day, and end."""

from pathlib import Path

import pytest

from aitrail.detection import rules as compiled
from aitrail.detection.rules import CompiledRule
from aitrail.runtime import detecting, present
from aitrail.spool import Spool, states
from aitrail.spool.states import CollectorState, SourceState
from aitrail.streams import Finding

NOW = 1_795_425_600.0  # 2026-11-23T09:20:00Z
DAY = 86_400.0
HEALTH: list[CompiledRule] = [rule for rule in compiled.shipped() if rule.table == "health_records"]


class Clock:
    def __init__(self) -> None:
        self.time = NOW

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


class Store:
    def __init__(self, directory: Path) -> None:
        self.directory, self.clock = directory, Clock()
        self.spool = Spool.open(directory, self.clock)
        states.save(self.spool.database, [("collector", CollectorState(host="edge-1"))])

    def source(self, **fields: object) -> None:
        state = SourceState(**{"state": "idle", "interval": 60.0, "last_success": self.clock.time, **fields})  # type: ignore[arg-type]
        states.save(self.spool.database, [("trail", state)])

    def attest(self, verdict: str) -> None:
        with self.spool.database.transaction() as db:
            states.attest(db, "trail", {f"s3://logs/{verdict}.json.gz": verdict}, self.clock.time)

    def run(self, *, health: bool = True) -> list[Finding]:
        given = present.of(self.directory, clock=self.clock) if health else None
        return detecting.run(self.spool, self.directory, HEALTH, self.clock, health=given).findings


@pytest.fixture
def store(tmp_path: Path):
    made = Store(tmp_path / "store")
    yield made
    made.spool.close()


def names(found: list[Finding]) -> list[str]:
    return [one.tags[0] for one in found]


def test_a_healthy_collector_finds_nothing(store: Store) -> None:
    store.source()
    store.attest("valid")
    store.attest("unsigned")
    assert store.run() == []


def test_an_altered_log_file_is_one_finding_a_day(store: Store) -> None:
    store.source()
    store.attest("mismatch")
    [found] = store.run()
    assert found.tags[0] == "audit_log_altered"
    assert found.severity == "critical"
    assert found.entities == ("host:edge-1", "resource:trail")
    assert "A log file is altered or gone" in found.summary
    store.clock.time += 600
    store.source()
    assert store.run() == []
    store.clock.time += 2 * DAY  # it was looked into; nothing new since
    store.source()
    assert store.run() == []


@pytest.mark.parametrize(
    ("state", "rule"),
    [
        ({"state": "waiting", "last_error": "forbidden"}, "audit_source_failing"),
        ({"last_success": NOW - 2 * DAY}, "audit_source_silent"),
        ({"state": "held"}, "audit_collector_paused"),
    ],
)
def test_what_a_source_does(store: Store, state: dict[str, object], rule: str) -> None:
    store.source(**state)
    assert names(store.run()) == [rule]
    store.clock.time += 60
    store.source(**state)
    assert store.run() == []


def test_a_new_silence_is_a_new_finding(store: Store) -> None:
    store.source(state="waiting")
    assert len(store.run()) == 1
    store.clock.time += 3 * DAY
    store.source(state="waiting")
    assert len(store.run()) == 1


def test_without_the_state_of_a_collector_nothing_is_said(store: Store) -> None:
    store.source(state="waiting")
    assert store.run(health=False) == []


def test_every_failed_verdict_counts_and_only_those_of_a_day(store: Store) -> None:
    for verdict in (*states.FAILED, "valid", "unsigned", "foreign", "unverified"):
        store.attest(verdict)
    database = store.spool.database
    assert states.unproven(database, NOW) == {"trail": len(states.FAILED)}
    assert states.unproven(database, NOW + DAY + 1) == {}
