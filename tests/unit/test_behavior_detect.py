"""Behavior rules on a store: the same findings in one run or in many, and places only where somebody supplies them."""

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from aitrail.clock import iso_ms
from aitrail.destinations.store import StoreDestination
from aitrail.detection import rules as compiled
from aitrail.detection.engine import Covered
from aitrail.errors import ConfigError
from aitrail.event import AccessEvent, encode
from aitrail.ports import EncodedEvent
from aitrail.runtime import detecting
from aitrail.runtime.cli import cli
from aitrail.spool import Intake, Spool
from aitrail.store.places import Places
from aitrail.store.reader import StoreReader

DAY = 86_400
START = 1_793_491_200 + 9 * 3600  # 2026-11-01T09:00:00Z
PLACES = "cidr,latitude,longitude,label\n198.51.100.0/24,52.52,13.40,Berlin\n203.0.113.0/24,1.35,103.82,Singapore\n"


class SetClock:
    def __init__(self) -> None:
        self.time = float(START)

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


class Store:
    """A store whose events come in as the pipeline would bring them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = SetClock()
        self.spool = Spool.open(directory, self.clock)

    def take(self, *events: EncodedEvent) -> None:
        self.spool.commit(Intake("s", ("store",), list(events), {}))
        destination = StoreDestination(self.spool)
        while (batch := self.spool.pending("store", 1000, 1 << 20)) is not None:
            self.spool.settle(batch, destination.send(batch.events, 0.0), self.clock.now())
        destination.close()

    def run(self, *names: str, places: Places | None = None) -> detecting.Found:
        rules = compiled.chosen(names, hunts=False)
        return detecting.run(self.spool, self.directory, rules, self.clock, places)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "store")
    yield made
    made.spool.close()


def event(number: int, at: float, **fields: Any) -> EncodedEvent:
    made = AccessEvent(
        event_id=f"{number:032x}",
        timestamp=iso_ms(START + at),
        source="litellm",
        **{"tenant_id": "acme", "action_kind": "inference", "outcome_status": "success", **fields},
    )
    return EncodedEvent(made.event_id, made.timestamp, encode(made))


def month() -> list[tuple[float, EncodedEvent]]:
    """Two users of quiet days, one loud day each, and a key that is copied."""
    found: list[tuple[float, EncodedEvent]] = []
    for day in range(16):
        for user in ("ines", "omar"):
            at = day * DAY + 60.0
            fields = {
                "user_id": user,
                "token_count": 9_000 + day,
                "credential_id": f"k-{user}",
                "src_ip": "198.51.100.7",
            }
            found.append((at, event(len(found), at, principal_type="service", **fields)))
    for loud, user in ((8, "ines"), (12, "omar")):
        for call in range(6):
            at = loud * DAY + 3600.0 * call
            fields = {"user_id": user, "token_count": 60_000, "credential_id": f"k-{user}", "src_ip": "203.0.113.9"}
            found.append((at, event(len(found), at, principal_type="service", **fields)))
    return sorted(found, key=lambda one: one[0])


NAMES = ("credential_new_network", "user_tokens_off_baseline")


def test_one_run_or_many_give_the_same(tmp_path: Path) -> None:
    whole, parts = Store(tmp_path / "whole"), Store(tmp_path / "parts")
    events = month()
    whole.clock.time += 20 * DAY
    whole.take(*[one for _, one in events])
    expected = whole.run(*NAMES).findings
    found = []
    for first in range(0, len(events), 11):
        chunk = events[first : first + 11]
        parts.clock.time = START + chunk[-1][0] + 30
        parts.take(*[one for _, one in chunk])
        found += parts.run(*NAMES).findings
    assert parts.run(*NAMES).findings == []
    for made in (whole, parts):
        made.spool.close()
    assert [(one.rule_name, one.user_id) for one in expected] == [
        ("A key is used from a network that is new to it", "ines"),
        ("A key is used from a network that is new to it", "omar"),
        ("A user spends many more tokens than on their own days", "ines"),
        ("A user spends many more tokens than on their own days", "omar"),
    ]
    assert {one.event_id for one in found} == {one.event_id for one in expected}
    assert len(found) == len(expected)
    network, _, tokens, _ = expected
    assert network.summary.endswith(", new: 203.0.113")
    assert tokens.first_seen == "2026-11-09T12:00:00.000Z"  # the fourth call is the first over the floor
    assert tokens.evidence_count == len(tokens.evidence_ids) == 5
    days = [9_000.0 + day for day in range(8)] + [0.0] * 4
    usual = round(statistics.fmean(days) + 4 * statistics.pstdev(days), 6)
    assert f", 249,008 where up to {usual:,.10g} is usual" in tokens.summary


def test_events_before_the_look_back_do_not_count(store: Store) -> None:
    """What was seen thirteen days ago is new again; a run over a part of the time says the same."""
    old = event(1, 0, user_id="ines", model="claude", principal_type="human")
    usual = [event(2 + day, day * DAY, user_id="ines", model="gpt-4o", principal_type="human") for day in range(14)]
    again = event(99, 13 * DAY + 60, user_id="ines", model="claude", principal_type="human")
    store.clock.time += 15 * DAY
    store.take(old, *usual, again)
    rules = compiled.chosen(("user_first_model",), hunts=True)
    found, _ = detecting.look(store.directory, rules, store.clock, Covered())
    assert [one.evidence_ids for one in found.findings] == [(f"{99:032x}",)]


def test_travel_is_found_with_places_and_said_to_be_left_out_without(store: Store, tmp_path: Path) -> None:
    fields = {"user_id": "ines", "principal_type": "human"}
    store.take(event(1, 0, src_ip="198.51.100.7", **fields), event(2, 3600, src_ip="203.0.113.9", **fields))
    store.clock.time += 7200
    without = store.run("impossible_travel")
    assert (without.findings, without.rules) == ([], 0)
    [(name, reason)] = without.left_out
    assert name == "impossible_travel"
    assert "no places" in reason
    table = tmp_path / "places.csv"
    table.write_text(PLACES, encoding="utf-8")
    rules = compiled.chosen(("impossible_travel",), hunts=False)
    found, _ = detecting.look(store.directory, rules, store.clock, Covered(), places=Places(table))
    assert found.left_out == ()
    [travel] = found.findings
    assert travel.evidence_ids == (f"{1:032x}", f"{2:032x}")
    assert travel.entities[0] == "user:ines"
    assert travel.summary.endswith(", 9,917 km at 9,917 km/h")
    store.spool.close()
    run = CliRunner()
    arguments = ["detect", "--store", str(store.directory), "--dry-run", "--rule", "impossible_travel"]
    told = run.invoke(cli, arguments, standalone_mode=False)
    assert "not run: impossible_travel: no places" in told.output
    told = run.invoke(cli, [*arguments, "--places", str(table), "--format", "json"], standalone_mode=False)
    assert '"rule_name":"One account, two places, too little time"' in told.output


def test_a_collector_takes_places_from_its_configuration(tmp_path: Path) -> None:
    record = {
        "eventVersion": "1.11",
        "userIdentity": {"type": "IAMUser", "userName": "ines", "arn": "arn:aws:iam::111122223333:user/ines"},
        "eventSource": "bedrock.amazonaws.com",
        "eventName": "InvokeModel",
        "awsRegion": "eu-west-1",
        "eventType": "AwsApiCall",
        "recipientAccountId": "111122223333",
    }
    calls = [("09:00:00", "198.51.100.7"), ("10:00:00", "203.0.113.9")]
    lines = [
        {**record, "eventID": f"id-{time}", "eventTime": f"2026-11-20T{time}Z", "sourceIPAddress": address}
        for time, address in calls
    ]
    (tmp_path / "log.json").write_bytes(msgspec.json.encode({"Records": lines}))
    (tmp_path / "places.csv").write_text(PLACES, encoding="utf-8")
    config = tmp_path / "aitrail.toml"
    config.write_text('[sources.logs]\npaths = ["log.json"]\n[detect]\nplaces = "places.csv"\n', encoding="utf-8")
    told = CliRunner().invoke(cli, ["run", "--once", "-c", str(config)], standalone_mode=False)
    assert told.exception is None, told.exception
    rows = StoreReader(tmp_path / "aitrail-store").query("SELECT rule, user_id FROM findings").rows
    assert ("impossible_travel", "ines") in rows
    config.write_text('[sources.logs]\npaths = ["log.json"]\n[detect]\nplaces = "place.csv"\n', encoding="utf-8")
    wrong = CliRunner().invoke(cli, ["run", "--once", "-c", str(config)], standalone_mode=False)
    assert isinstance(wrong.exception, ConfigError)
    assert "place.csv" in str(wrong.exception)
    checked = CliRunner().invoke(cli, ["check", "-c", str(config)], standalone_mode=False)
    assert "place.csv" in checked.output
    assert checked.return_value == 2


# --- the table of places


def test_the_narrowest_network_counts_and_some_have_no_place(tmp_path: Path) -> None:
    table = tmp_path / "places.csv"
    table.write_text(
        "geoname_id,network,longitude,latitude\n"
        "1,198.51.100.0/24,13.40,52.52\n2,198.51.0.0/16,2.35,48.85\n3,198.51.100.7/32,,\n\n"
        "4,2001:db8::/32,103.82,1.35\n5,203.0.113.9,1,2\n",
        encoding="utf-8",
    )
    places = Places(table)
    asked = [
        "198.51.100.7",
        "198.51.100.8",
        "198.51.7.7",
        "2001:db8:1::1",
        "2001:db9::1",
        "203.0.113.9",
        "nonsense",
        "",
    ]
    assert places.locate(asked) == [
        ("198.51.100.7", 52.52, 13.40, ""),
        ("198.51.100.8", 52.52, 13.40, ""),
        ("198.51.7.7", 48.85, 2.35, ""),
        ("2001:db8:1::1", 1.35, 103.82, ""),
        ("203.0.113.9", 2.0, 1.0, ""),
    ]
    table.write_text("cidr,latitude,longitude,label\n198.51.0.0/16,1,1,new\n# longer than before\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="no network"):
        places.locate(asked)
    table.write_text("cidr,latitude,longitude,label\n198.51.0.0/16,1,1,moved\n", encoding="utf-8")
    assert places.locate(["198.51.100.7"]) == [("198.51.100.7", 1.0, 1.0, "moved")]


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("", 1, "no table of places"),
        ("ip,lat,lon\n", 1, "no table of places"),
        ("cidr,latitude,longitude\n198.51.100.300/24,1,1\n", 2, "no network"),
        ("cidr,latitude,longitude\n10.0.0.0/8,1,1\n198.51.100.0/33,1,1\n", 3, "no network"),
        ("cidr,latitude,longitude\n198.51.100.0/24,north,1\n", 2, "no numbers"),
        ("cidr,latitude,longitude\n198.51.100.0/24,1\n", 2, "no numbers"),
        ("cidr,latitude,longitude\n198.51.100.0/24,91,1\n", 2, "degrees"),
        ("cidr,latitude,longitude\n198.51.100.0/24,nan,1\n", 2, "degrees"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, text: str, line: int, reason: str) -> None:
    table = tmp_path / "places.csv"
    table.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=reason) as told:
        Places(table).locate(["198.51.100.7"])
    assert f"{table}:{line}" in str(told.value)


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Places(tmp_path / "places.csv")
