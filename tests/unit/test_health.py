"""Health events: what a source's, a destination's and the outbox's state mean, and that the daemon sends them."""

import json
from pathlib import Path
from typing import Any

import pytest

from aitrail.clock import iso_ms
from aitrail.config import Config, StoreConfig, load
from aitrail.health import Vitals, report
from aitrail.runtime.assemble import open_runtime
from aitrail.runtime.daemon import Stop, run
from aitrail.runtime.vitals import HealthReports
from aitrail.spool import Backlog, states
from aitrail.spool.states import DestinationState, SourceState
from aitrail.streams import Health, encoded
from aitrail.testing.hec_peer import HecPeer

NOW = 1_795_424_400.0


def look(**changes: Any) -> dict[str, Health]:
    known: dict[str, Any] = {
        "collector": "c1",
        "now": NOW,
        "late_seconds": 3600.0,
        "sources": {},
        "counters": {},
        "destinations": {},
        "backlogs": {},
    }
    return {f"{one.kind}/{one.name}": one for one in report(Vitals(**{**known, **changes}))}


def source(**values: Any) -> Health:
    return look(sources={"s": SourceState(interval=10.0, **values)})["source/s"]


@pytest.mark.parametrize(
    ("values", "status", "reason"),
    [
        ({}, "ok", ""),
        ({"state": "reading", "last_success": NOW - 5}, "ok", ""),
        ({"state": "waiting", "last_error": "the bucket is away"}, "failing", "the bucket is away"),
        ({"state": "held"}, "paused", "too much waits"),
        ({"state": "leased"}, "ok", "another collector"),
        ({"oldest_open": NOW - 3500}, "ok", ""),
        ({"oldest_open": NOW - 4000}, "late", "4,000 s"),
        ({"last_success": NOW - 7200}, "late", "not read for 7,200 s"),
    ],
)
def test_a_source(values: dict[str, Any], status: str, reason: str) -> None:
    one = source(**values)
    assert one.status == status
    assert reason in one.reason


def test_a_source_that_is_read_rarely_is_not_late() -> None:
    state = SourceState(interval=86_400.0, last_success=NOW - 80_000)
    assert look(sources={"s": state})["source/s"].status == "ok"


def test_a_source_says_how_far_it_is_and_what_it_counted() -> None:
    counters = {"s": {"records": 10, "events": 7, "rejected.json_invalid": 2, "rejected.record_torn": 1}}
    one = look(sources={"s": SourceState(newest_event=NOW - 12.5)}, counters=counters)["source/s"]
    assert (one.newest_event, one.lag_seconds) == (iso_ms(NOW - 12.5), 12.5)
    assert (one.records, one.events, one.rejected) == (10, 7, 3)
    assert look(sources={"s": SourceState(newest_event=NOW + 60)})["source/s"].lag_seconds == 0.0


@pytest.mark.parametrize(
    ("state", "backlog", "status", "reason"),
    [
        (DestinationState(delivered=5), Backlog(0, 0, 0.0), "ok", ""),
        (DestinationState(last_error="token refused"), Backlog(9, 900, 20.0), "failing", "token refused"),
        (DestinationState(), Backlog(9, 900, 4000.0), "late", "4,000 s"),
    ],
)
def test_a_destination(state: DestinationState, backlog: Backlog, status: str, reason: str) -> None:
    counters = {"a": {"filtered.d": 4}, "b": {"filtered.d": 1, "filtered.other": 9}}
    one = look(destinations={"d": state}, backlogs={"d": backlog}, counters=counters)["destination/d"]
    assert (one.status, one.reason) == (status, one.reason)
    assert reason in one.reason
    assert (one.backlog_events, one.backlog_bytes, one.filtered) == (backlog.events, backlog.bytes, 5)
    assert one.oldest_seconds == backlog.oldest_seconds


def test_the_outbox_and_the_identity_of_a_report() -> None:
    backlogs = {"d": Backlog(1, 1, 7.0), "e": Backlog(2, 2, 9.0)}
    found = look(backlogs=backlogs, outbox_bytes=123, held="20 bytes wait, 10 may")
    assert found["outbox/outbox"].status == "paused"
    assert (found["outbox/outbox"].backlog_bytes, found["outbox/outbox"].oldest_seconds) == (123, 9.0)
    assert len({one.event_id for one in found.values()}) == 3
    assert [one.event_id for one in look(backlogs=backlogs).values()] == [one.event_id for one in found.values()]
    assert look(backlogs=backlogs, now=NOW + 300)["outbox/outbox"].event_id != found["outbox/outbox"].event_id
    assert json.loads(encoded(found["destination/d"]).body)["stream"] == "health"


@pytest.mark.parametrize("interval", [300, 0])
def test_the_daemon_reports_to_those_who_take_it(tmp_path: Path, interval: int) -> None:
    peer = HecPeer()
    (tmp_path / "in").mkdir()
    (tmp_path / "aitrail.toml").write_text(
        f"""
[store]
dir = "store"
[health]
interval = {interval}
collector = "c1"
[sources.files]
paths = ["in"]
[destinations.splunk]
type = "splunk"
urls = ["{peer.address["url"]}"]
token = "file:{peer.address["token_file"]}"
index = "{peer.address["index"]}"
where = "risk_score > 1000"
[destinations.lake]
type = "lake"
directory = "{tmp_path}/lake"
"""
    )
    try:
        run(load(tmp_path / "aitrail.toml"), Stop(), once=True)
        bodies = [json.loads(body) for one in peer.received() for body in peer.bodies(one)]
        types = {taken.sourcetype for taken in peer.indexed()}
    finally:
        peer.close()
    if not interval:
        assert bodies == []
        return
    assert {(body["stream"], body["collector"]) for body in bodies} == {("health", "c1")}
    named = {(body["kind"], body["name"]) for body in bodies}
    assert named == {
        ("outbox", "outbox"),
        ("source", "files"),
        ("destination", "store"),
        ("destination", "splunk"),
        ("destination", "lake"),
    }
    assert types == {"ai:access:health"}
    assert not list((tmp_path / "lake").rglob("*.parquet"))


def test_what_is_pushed_to_is_a_source_too(tmp_path: Path) -> None:
    with open_runtime(Config(store=StoreConfig(dir=str(tmp_path)))) as runtime:
        states.save(runtime.spool.database, [("gateway", SourceState(newest_event=1_700_000_000.0))])
        reports = HealthReports(runtime, ["gateway", "quiet"])
        found = report(reports._vitals({"files": SourceState()}, ""))
    sources = {one.name: (one.status, one.newest_event) for one in found if one.kind == "source"}
    assert sources == {"files": ("ok", ""), "gateway": ("ok", "2023-11-14T22:13:20.000Z"), "quiet": ("ok", "")}
