"""``aitrail detect``: the same findings in one run or in many, none twice, and late events are not missed."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from aitrail.compiler.emit import packs
from aitrail.destinations.store import StoreDestination
from aitrail.detection import rules as compiled
from aitrail.detection.engine import MOST_EVIDENCE, Covered
from aitrail.event import AccessEvent, encode
from aitrail.ports import EncodedEvent
from aitrail.runtime import detecting
from aitrail.runtime.cli import cli
from aitrail.spool import Intake, Spool
from aitrail.store.reader import StoreReader

START = datetime(2026, 11, 20, 9, 0, tzinfo=UTC).timestamp()


class FixedClock:
    def __init__(self, now: float) -> None:
        self.time = now

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def event(number: int, at: float, **fields: object) -> EncodedEvent:
    moment = datetime.fromtimestamp(START + at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    made = AccessEvent(
        event_id=f"{number:032x}",
        timestamp=moment,
        source="cloudtrail",
        **{"tenant_id": "acme", "service": "bedrock.amazonaws.com", **fields},  # type: ignore[arg-type]
    )
    return EncodedEvent(made.event_id, made.timestamp, encode(made))


def refusal(number: int, at: float, user: str = "ci", tenant: str = "acme") -> EncodedEvent:
    return event(number, at, action="invokemodel", outcome_status="denied", user_id=user, tenant_id=tenant)


class Store:
    """A store whose events come in as the pipeline would bring them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = FixedClock(START + 7200)
        self.spool = Spool.open(directory, self.clock)

    def take(self, *events: EncodedEvent) -> None:
        self.spool.commit(Intake("s", ("store",), list(events), {}))
        destination = StoreDestination(self.spool)
        while (batch := self.spool.pending("store", 1000, 1 << 20)) is not None:
            self.spool.settle(batch, destination.send(batch.events, 0.0), self.clock.now())
        destination.close()

    def run(self, *names: str) -> list[object]:
        return list(detecting.run(self.spool, self.directory, compiled.chosen(names, hunts=False), self.clock).findings)


@pytest.fixture
def store(tmp_path: Path):
    made = Store(tmp_path / "store")
    yield made
    made.spool.close()


def test_one_run_or_many_give_the_same(tmp_path: Path) -> None:
    events = [refusal(n, n * 50) for n in range(40)] + [refusal(100 + n, n * 40, "other") for n in range(12)]
    whole, parts = Store(tmp_path / "whole"), Store(tmp_path / "parts")
    whole.take(*events)
    expected = whole.run("bedrock_denials_burst")
    ordered = sorted(events, key=lambda one: one.timestamp)
    found = []
    for first in range(0, len(ordered), 7):
        parts.take(*ordered[first : first + 7])
        found += parts.run("bedrock_denials_burst")
    assert {one.event_id for one in found} == {one.event_id for one in expected}
    assert len(found) == len(expected) == 2
    for made in (whole, parts):
        made.spool.close()


def test_a_second_run_finds_nothing_twice(store: Store) -> None:
    store.take(*[refusal(n, n) for n in range(10)])
    assert len(store.run("bedrock_denials_burst")) == 1
    assert store.run("bedrock_denials_burst") == []
    rows = StoreReader(store.directory, clock=store.clock).query("SELECT rule, events, user_id FROM findings").rows
    assert rows == [("bedrock_denials_burst", 10, "ci")]


def test_events_that_come_late_complete_a_window(store: Store) -> None:
    store.take(*[refusal(n, n) for n in range(9)])
    assert store.run("bedrock_denials_burst") == []
    store.clock.time += 3600
    store.take(refusal(99, 4.5))
    assert len(store.run("bedrock_denials_burst")) == 1


def test_groups_lie_within_one_tenant(store: Store) -> None:
    store.take(*[refusal(n, n, tenant="acme" if n % 2 else "globex") for n in range(18)])
    assert store.run("bedrock_denials_burst") == []


def test_one_finding_in_the_time_of_suppression(store: Store) -> None:
    """Six hours for this rule: a burst that goes on is one finding, a new one tomorrow is another."""
    store.take(*[refusal(n, n * 30) for n in range(60)], *[refusal(200 + n, 86_400 + n) for n in range(10)])
    store.clock.time += 200_000
    found = store.run("bedrock_denials_burst")
    assert len(found) == 2
    assert found[0].evidence_count >= 50
    assert len(found[0].evidence_ids) <= MOST_EVIDENCE


def test_dry_run_keeps_nothing(store: Store) -> None:
    store.take(*[refusal(n, n) for n in range(10)])
    rules = compiled.chosen((), hunts=True)
    found, made = detecting.look(store.directory, rules, store.clock, Covered())
    assert any(one.tags[0] == "bedrock_denials_burst" for one in found.findings)
    assert len(made) == len(found.findings)
    assert StoreReader(store.directory, clock=store.clock).query("SELECT count(*) FROM findings").rows == [(0,)]


def test_findings_go_to_those_who_take_them(store: Store) -> None:
    class Takes:
        def select(self, events, destinations):
            return {}

        def takers(self, stream):
            return ["siem"] if stream == "finding" else []

    store.take(*[refusal(n, n) for n in range(10)])
    store.spool.chooser = Takes()
    store.run("bedrock_denials_burst")
    batch = store.spool.pending("siem", 10, 1 << 20)
    assert [one.stream for one in batch.events] == ["finding"]
    assert msgspec.json.decode(batch.events[0].body)["severity"] == "medium"


def test_hostile_values_stay_in_their_line(store: Store) -> None:
    store.take(*[refusal(n, n, user="x\n\x1b[31m" + "y" * 900) for n in range(10)])
    [found] = store.run("bedrock_denials_burst")
    assert found.summary.isprintable()
    assert len(found.summary) < 800


def test_every_shipped_rule_runs_on_an_empty_and_on_a_small_store(store: Store) -> None:
    for events in ([], [refusal(1, 0)]):
        if events:
            store.take(*events)
        found, _ = detecting.look(store.directory, compiled.chosen((), hunts=True), store.clock, Covered())
        assert found.rules + len(found.left_out) == len(compiled.shipped()) >= 70
        assert [name for name, _ in found.left_out] == ["impossible_travel"]


def test_command_line(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    store.take(*[refusal(n, n) for n in range(10)])
    store.spool.close()
    run = CliRunner()
    directory = str(store.directory)
    told = run.invoke(cli, ["detect", "--store", directory], standalone_mode=False)
    assert told.exception is None, told.exception
    assert "Bedrock refuses one principal again and again" in told.output
    again = run.invoke(cli, ["detect", "--store", directory, "--format", "json"], standalone_mode=False)
    assert again.stdout == ""
    report = run.invoke(cli, ["report", "--store", directory, "--section", "detections"], standalone_mode=False)
    assert "Bedrock refuses" in report.output
    [row] = StoreReader(store.directory).query("SELECT event_id FROM findings").rows
    explained = run.invoke(cli, ["explain", "--store", directory, row[0][:10]], standalone_mode=False)
    assert "Contain" in explained.output
    wrong = run.invoke(cli, ["detect", "--store", directory, "--rule", "bedrock_denial_burst"], standalone_mode=False)
    assert "bedrock_denials_burst" in str(getattr(wrong.exception, "hint", ""))
    assert "weights_bulk_read" in run.invoke(cli, ["detect", "--list"], standalone_mode=False).output


def test_a_collector_runs_the_rules(tmp_path: Path) -> None:
    record = {
        "eventVersion": "1.11",
        "userIdentity": {"type": "IAMUser", "userName": "ci", "arn": "arn:aws:iam::111122223333:user/ci"},
        "eventSource": "bedrock.amazonaws.com",
        "eventName": "InvokeModel",
        "awsRegion": "eu-west-1",
        "errorCode": "AccessDenied",
        "eventType": "AwsApiCall",
        "recipientAccountId": "111122223333",
    }
    records = [{**record, "eventID": f"id-{n}", "eventTime": f"2026-11-20T09:00:{n:02d}Z"} for n in range(10)]
    (tmp_path / "log.json").write_bytes(msgspec.json.encode({"Records": records}))
    config = tmp_path / "aitrail.toml"
    config.write_text('[sources.logs]\npaths = ["log.json"]\n[detect]\nwithout = ["injection_repeated"]\n')
    told = CliRunner().invoke(cli, ["run", "--once", "-c", str(config)], standalone_mode=False)
    assert told.exception is None, told.exception
    rows = StoreReader(tmp_path / "aitrail-store").query("SELECT rule, user_id FROM findings").rows
    assert rows == [("bedrock_denials_burst", "ci")]
    config.write_text('[sources.logs]\npaths = ["log.json"]\n[detect]\nwithout = ["injection_repeat"]\n')
    wrong = CliRunner().invoke(cli, ["run", "--once", "-c", str(config)], standalone_mode=False)
    assert "injection_repeated" in str(getattr(wrong.exception, "hint", ""))


def test_compiled_rules_are_those_of_the_content() -> None:
    told = CliRunner().invoke(cli, ["content", "build", "--check"], standalone_mode=False)
    assert told.return_value == 0, told.output


def test_a_build_without_a_source_tree_says_why_there_are_no_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "source_tree", lambda: None)
    told = CliRunner().invoke(cli, ["content", "build"], standalone_mode=False, env={"COLUMNS": "200"})
    assert told.return_value == 0, told.output
    assert "no packs" in told.stderr
    assert "pip install -e '.[content]'" in told.stderr
