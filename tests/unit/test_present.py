"""The present state of a collector as rows of a reader's connection, and the store of the console's benchmark."""

import importlib
import sys
from pathlib import Path

import pytest

from aitrail.clock import iso_ms
from aitrail.config import HealthConfig
from aitrail.runtime import present
from aitrail.spool import Spool, states
from aitrail.spool.states import CollectorState, DestinationState, SourceState
from aitrail.store import boards, panels
from aitrail.store.queries import fetch
from aitrail.store.reader import StoreReader

NOW = 1_795_000_000.0
PANELS = {panel.id: panel for board in boards.load() if board.name == "health" for panel in board.panels}


class Clock:
    def now(self) -> float:
        return NOW

    monotonic = now

    def sleep(self, seconds: float) -> None:
        raise AssertionError(seconds)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A collector with a source that fails, one that is well, and a destination that is behind."""
    with Spool.open(tmp_path / "store", Clock()) as spool:
        kept = [
            ("collector", CollectorState(pid=7, host="box", started=NOW - 5000, heartbeat=NOW - 5)),
            ("trail", SourceState(state="waiting", last_error="403 from the bucket", newest_event=NOW - 7200)),
            ("gateway", SourceState(last_success=NOW - 3, newest_event=NOW - 30)),
            ("siem", DestinationState(delivered=5, rejected=2, last_error="refused")),
        ]
        for one in kept:
            states.save(spool.database, [one])
    return tmp_path / "store"


def test_the_states_of_a_collector_are_health_records(store: Path) -> None:
    reports = {one.name: one for one in present.present(store, clock=Clock())}
    assert set(reports) == {"outbox", "trail", "gateway", "siem"}
    assert {one.collector for one in reports.values()} == {"box"}
    assert (reports["trail"].status, reports["trail"].reason) == ("failing", "403 from the bucket")
    assert reports["trail"].lag_seconds == 7200.0
    assert (reports["gateway"].status, reports["gateway"].newest_event) == ("ok", iso_ms(NOW - 30))
    assert (reports["siem"].status, reports["siem"].rejected) == ("failing", 2)


def test_a_name_and_a_patience_of_the_configuration_are_kept(store: Path) -> None:
    with Spool.open(store, Clock()) as spool:
        states.save(spool.database, [("gateway", SourceState(last_success=NOW - 300))])
    settings = HealthConfig(collector="plant-7", late_seconds=60.0)
    reports = {one.name: one for one in present.present(store, settings, Clock())}
    assert reports["gateway"].collector == "plant-7"
    assert reports["gateway"].status == "late"


def test_panels_show_them_whatever_the_range(store: Path) -> None:
    with StoreReader(store, health=lambda: present.present(store, clock=Clock())).connect() as connection:
        [(since, until)] = fetch(connection, "SELECT TIMESTAMP '2020-01-01', TIMESTAMP '2020-01-02'").rows
        shown = {name: panels.run(connection, PANELS[name], {}, since, until) for name in PANELS}
        assert shown["not_well"].value("parts") == 2
        assert shown["lag"].value("lag") == 7200.0
        assert shown["dead"].value("dead") == 2
        assert {(row["kind"], row["name"], row["status"]) for row in shown["parts"].dicts()} == {
            ("outbox", "outbox", "ok"),
            ("source", "trail", "failing"),
            ("source", "gateway", "ok"),
            ("destination", "siem", "failing"),
        }
        condition = panels.behind(PANELS["states"], {}, since, until, picked={"name": "trail", "status": "failing"})
        rows = fetch(
            connection, f"SELECT reason FROM {condition.relation} WHERE {condition.sql}", condition.values
        ).rows
        assert rows == [("403 from the bucket",)]
        with pytest.raises(KeyError):
            panels.behind(PANELS["states"], {}, since, until, picked={"reason": "x"})


def test_the_benchmark_multiplies_a_store(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cli_support import make_store, some_events

    folder = store.parent / "bench"
    make_store(folder, some_events())
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    made = importlib.import_module("console_store").multiply(folder, 5 * len(some_events()), days=3)
    sys.modules.pop("console_store", None)
    assert made == 5 * len(some_events())
    found = StoreReader(folder).query("SELECT count(*), count(DISTINCT event_id), min(length(event_id)) FROM events")
    assert found.rows == [(made, made, 32)]
    days = StoreReader(folder).query("SELECT timestamp::DATE, count(*) FROM events GROUP BY 1 ORDER BY 1").rows
    assert [count // len(some_events()) for _, count in days] == [1, 1, 2, 1]
