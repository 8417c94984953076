"""The conformance suite for the lake destination, and what query engines make of its files."""

import time

import duckdb
import pytest

from aitrail.destinations._lake_settings import LakeSettings
from aitrail.destinations.lake import LakeDestination
from aitrail.ports import Destination
from aitrail.testing.conformance import run_conformance
from aitrail.testing.events import make_event
from aitrail.testing.lake_peer import LakePeer
from aitrail.testing.peer import Peer


def make(peer: Peer) -> Destination:
    return LakeDestination(LakeSettings(directory=peer.address["directory"], event_bytes=200_000))


def test_the_lake_keeps_the_promise():
    peer = LakePeer()
    try:
        report = run_conformance(make, peer, kills=10)
    finally:
        peer.close()
    assert report.ok, report.problems
    shown = {row.case for row in report.rows if row.outcome == "pass"}
    assert {"F0", "F1", "F3", "F13", "F14", "F15", "F16", "F17", "F25", "F26"} <= shown


@pytest.mark.parametrize("layout", ["hive", "security_lake"])
def test_engines_find_partitions_and_prune_by_them(tmp_path, layout):
    lake = LakeDestination(LakeSettings(directory=str(tmp_path), layout=layout))
    regions = ("eu-west-1", "us-east-1")
    events = [
        make_event(number, cloud_region=regions[number % 2], cloud_account="111122223333", risk_score=number % 100)
        for number in range(500)
    ]
    assert {one.status for one in lake.send(events, time.monotonic() + 30).verdicts} == {"delivered"}
    lake.close()
    account, day = ("account", "day") if layout == "hive" else ("accountId", "eventDay")
    with duckdb.connect() as engine:
        engine.execute(
            f"CREATE VIEW events AS FROM read_parquet('{tmp_path}/**/*.parquet', hive_partitioning=true, "
            f"hive_types={{'{account}': VARCHAR, '{day}': VARCHAR}})"
        )
        found = engine.execute(
            f"SELECT count(*), count(DISTINCT metadata.uid), min(metadata.version), max(class_uid) FROM events "
            f"WHERE region = 'eu-west-1' AND {account} = '111122223333' AND {day} LIKE '2026%'"
        ).fetchone()
        assert found == (250, 250, "1.8.0", 6003)
        users = engine.execute("SELECT actor.user.uid, count(*) FROM events GROUP BY 1 ORDER BY 1").fetchall()
    assert len(users) == 7
    assert sum(count for _, count in users) == 500
