"""Findings in the lake as OCSF Detection Finding, and its compaction while the collector runs."""

import json
import os
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import jsonschema
import msgspec
import ocsf_json_schema
import pytest

from aitrail.config import load
from aitrail.destinations._lake_schema import shape
from aitrail.destinations._lake_settings import LakeSettings
from aitrail.destinations.lake import LakeDestination
from aitrail.errors import ConfigError, TransientError
from aitrail.ports import EncodedEvent
from aitrail.registry import make_route
from aitrail.routing.by_stream import upkeep
from aitrail.runtime.shipping import Shipper
from aitrail.schema.ocsf_finding import FINDING_CLASS_UID, finding_to_ocsf
from aitrail.secrets import Secrets
from aitrail.spool import Intake, Spool
from aitrail.streams import SEVERITIES, Finding, encoded, example_finding, finding_id
from aitrail.testing.events import make_event


@cache
def validator() -> jsonschema.Draft202012Validator:
    known = ocsf_json_schema.get_ocsf_schema("1.8.0")
    schema = ocsf_json_schema.OcsfJsonSchemaEmbedded(known).get_class_schema("detection_finding", [])
    return jsonschema.Draft202012Validator(schema)


def valid(finding: Finding) -> dict[str, Any]:
    out: dict[str, Any] = json.loads(msgspec.json.encode(finding_to_ocsf(finding)))
    assert not [error.message[:150] for error in validator().iter_errors(out)]
    return out


def test_a_finding_is_a_valid_detection_finding_and_nothing_is_lost() -> None:
    finding = example_finding()
    out = valid(finding)
    assert (out["class_uid"], out["type_uid"], out["severity"]) == (2004, 200401, "High")
    assert out["finding_info"]["related_events"] == [{"uid": finding.evidence_ids[0]}]
    assert out["finding_info"]["attacks"][0]["technique"]["uid"] == "AML.T0051"
    assert {"name": "ip", "value": "203.0.113.9", "type_id": 2, "type": "IP Address"} in out["observables"]
    text = json.dumps(out)
    for value in msgspec.structs.asdict(finding).values():
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, str) and not one.startswith("2026-"):
                plain = one.partition(":")[2] if one in finding.entities else one
                assert plain in text or plain.capitalize() in text, one


@pytest.mark.parametrize("severity", SEVERITIES)
def test_a_finding_with_nothing_else_is_valid(severity: str) -> None:
    valid(Finding(event_id="1", timestamp="2026-11-23T09:00:00.000Z", tenant_id="t", rule_id="r", severity=severity))  # type: ignore[arg-type]
    valid(
        Finding(
            event_id="1",
            timestamp="2026-11-23T09:00:00.000Z",
            tenant_id="t",
            rule_id="r",
            severity="low",
            entities=("odd",),
        )
    )


def test_the_same_finding_made_again_has_the_same_id() -> None:
    one = finding_id("acme", "r", "user:a", "w")
    assert one == finding_id("acme", "r", "user:a", "w")
    assert len({one, finding_id("acme", "r", "user:", "aw"), finding_id("acme", "ru", "ser:a", "w")}) == 3


def test_findings_and_accesses_lie_in_their_classes(tmp_path: Path) -> None:
    config = tmp_path / "a.toml"
    config.write_text(f'[destinations.lake]\ntype = "lake"\ndirectory = "{tmp_path}/lake"\ncontent = "hash"\n')
    route = make_route("lake", load(config), Secrets(), lambda event: None)
    assert route.rule.streams == {"access", "finding"}
    assert route.destination.check() == []
    odd = EncodedEvent("x", "2026-11-23T09:00:00.000Z", b'{"stream":"finding","event_id":"y"}')
    batch = [make_event(1), encoded(example_finding()), odd]
    assert [one.status for one in route.destination.send(batch, 0.0).verdicts] == ["delivered", "delivered", "rejected"]
    assert [one.status for one in route.destination.send(batch[1:2], 0.0).verdicts] == ["duplicate"]
    route.destination.close()
    with duckdb.connect() as engine:
        findings = f"read_parquet('{tmp_path}/lake/class_uid={FINDING_CLASS_UID}/**/*.parquet', hive_partitioning=true)"
        row = engine.execute(f"SELECT metadata.uid, finding_info.title, severity_id, day FROM {findings}").fetchone()
        columns = [one[0] for one in engine.execute(f"DESCRIBE SELECT * FROM {findings}").fetchall()]
    assert row is not None
    assert row[:3] == (example_finding().event_id, "Prompt injection that went through", 4)
    assert set(shape(FINDING_CLASS_UID)) <= set(columns)
    assert len(list((tmp_path / "lake").rglob("class_uid=6003/**/*.parquet"))) == 1


def test_security_lake_wants_one_class_per_source(tmp_path: Path) -> None:
    config = tmp_path / "a.toml"
    base = f'[destinations.lake]\ntype = "lake"\ndirectory = "{tmp_path}/lake"\nlayout = "security_lake"\n'
    config.write_text(base)
    with pytest.raises(ConfigError, match="one class") as caught:
        make_route("lake", load(config), Secrets(), lambda event: None)
    assert 'streams = ["access"]' in caught.value.hint
    config.write_text(f'{base}findings = "{tmp_path}/findings"\n')
    route = make_route("lake", load(config), Secrets(), lambda event: None)
    route.destination.send([encoded(example_finding()), make_event(1)], 0.0)
    route.destination.close()
    assert len(list((tmp_path / "findings").rglob("*.parquet"))) == 1
    assert len(list((tmp_path / "lake").rglob("*.parquet"))) == 1


class Clock:
    def __init__(self) -> None:
        self.time = time.time()

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def parquet(root: Path) -> list[Path]:
    return sorted(root.rglob("*.parquet"))


def test_the_collector_compacts_when_it_is_time_to(tmp_path: Path) -> None:
    clock = Clock()
    settings = LakeSettings(directory=str(tmp_path), compact_after_seconds=60.0, compact_every_seconds=3600.0)
    lake = LakeDestination(settings, clock=clock)
    for number in range(4):
        lake.send([make_event(number), make_event(100)], 0.0)
    for path in parquet(tmp_path):
        os.utime(path, (clock.time, clock.time))
    assert len(parquet(tmp_path)) == 4
    upkeep(lake)
    clock.sleep(500)
    upkeep(lake)
    assert len(parquet(tmp_path)) == 4  # the first one comes ten minutes after the start
    clock.sleep(200)
    upkeep(lake)
    assert len(parquet(tmp_path)) == 1
    with duckdb.connect() as engine:
        found = engine.execute(f"SELECT count(*) FROM read_parquet('{tmp_path}/**/*.parquet')").fetchone()
    assert found == (5,)  # each event once
    lake.send([make_event(200), make_event(201)], 0.0)
    upkeep(lake)
    assert len(parquet(tmp_path)) == 2  # and the next one an hour later
    lake.close()


def test_without_an_interval_nothing_is_compacted(tmp_path: Path) -> None:
    clock = Clock()
    settings = LakeSettings(directory=str(tmp_path), compact_after_seconds=0.0, compact_every_seconds=0.0)
    lake = LakeDestination(settings, clock=clock)
    lake.send([make_event(1)], 0.0)
    lake.send([make_event(2)], 0.0)
    clock.sleep(100_000)
    upkeep(lake)
    assert len(parquet(tmp_path)) == 2
    lake.close()


def test_failing_upkeep_does_not_stop_shipping(tmp_path: Path) -> None:
    class Lake(LakeDestination):
        def upkeep(self) -> None:
            tended.set()
            raise TransientError("the bucket is away")

    tended = threading.Event()
    clock = Clock()
    with Spool.open(tmp_path / "store", clock) as spool:
        shipper = Shipper(spool, Lake(LakeSettings(directory=str(tmp_path / "lake"))), clock)
        shipper.start()
        assert tended.wait(30)
        spool.commit(Intake("s", ["lake"], [make_event(1)], {}))
        shipper.wake()
        shipper.stop(30)
        assert spool.backlog("lake").events == 0
    assert len(parquet(tmp_path / "lake")) == 1
