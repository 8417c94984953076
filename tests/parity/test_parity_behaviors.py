"""Behavior rules mean the same everywhere: random rules over random histories, and the shipped rules over their tests.

DuckDB is compared with the reference event by event. The queries of the SIEMs judge only what is news at the time of a
run, so they are run at times at which something has just happened, and must give exactly what the reference gives for
the events up to then.
"""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aitrail.clock import iso_ms
from aitrail.compiler import behavior_reference as reference
from aitrail.compiler import behavior_schedule
from aitrail.compiler.behavior import BEHAVIORS, Behavior
from aitrail.compiler.behavior_examples import located, with_places
from aitrail.compiler.behavior_targets import TARGETS
from aitrail.compiler.behavior_yaml import load_behaviors
from aitrail.compiler.dialects import behavior_duckdb, behavior_esql, behavior_kql, behavior_spl
from aitrail.compiler.examples import ALL_TIME, connect, events_of
from aitrail.compiler.problems import Unsupported
from aitrail.contentdir import content_path
from aitrail.schema.catalog import by_name
from parity import behavior_fuzz as fuzz
from parity.siem_behaviors import esql, spl
from parity.splunk_engine import indexed
from parity.test_parity_esql import documents
from parity.test_parity_kql import table

Events = list[dict[str, Any]]
# What an engine says: (key, value, bucket), where travel has the event's id for a value.
Answer = set[tuple[tuple[str, ...], str, int]]
SHIPPED = {rule.meta.name: rule for rule in load_behaviors(content_path("behaviors"))}
# duckdb-kql has no networks (ipv4_is_in_range), no prev and no places; Microsoft's own parser binds these queries.
NOT_IN_KQL = ("credential_new_network", "impossible_travel")
FIRSTS = ("first_seen", "rare_in_peer")


def milliseconds(event: dict[str, Any]) -> int:
    return round(datetime.fromisoformat(event["timestamp"]).timestamp() * 1000)


# --- DuckDB


@pytest.mark.parametrize("kind", BEHAVIORS)
def test_duckdb(kind: str) -> None:
    fired = 0
    for seed in range(8):
        rng = random.Random(seed)
        rule = fuzz.rule(kind, rng)
        events = fuzz.history(rng, rule)
        expected = {
            (event_id, fired[1] if kind in FIRSTS else "") for fired, event_id in _reference(rule, events).items()
        }
        with with_places(connect(events), fuzz.PLACES) as connection:
            rows = connection.execute(behavior_duckdb.compile_behavior(rule).text, ALL_TIME).fetchall()
        width = len(rule.grouped)
        found = [(row[0], row[3 + width] if kind in FIRSTS else "") for row in rows]
        assert len(found) == len(set(found))
        assert set(found) == expected, (seed, rule.meta.raw["behavior"])
        assert [row[1] for row in rows] == sorted(row[1] for row in rows)
        assert all(row[0] in row[2 + width] for row in rows)
        fired += len(expected)
    assert fired > 20


def _reference(rule: Behavior, events: Events) -> dict[reference.Fired, str]:
    return reference.fires(rule, events, fuzz.PLACES)


@pytest.mark.parametrize("kind", BEHAVIORS)
def test_windows_are_exact_across_runs(kind: str) -> None:
    """A run that sees only its look-back gives what a run over everything gives for its range."""
    rng = random.Random(99)
    rule = fuzz.rule(kind, rng)
    events = fuzz.history(rng, rule, 160)
    query = behavior_duckdb.compile_behavior(rule)
    with with_places(connect(events), fuzz.PLACES) as connection:
        whole = connection.execute(query.text, ALL_TIME).fetchall()
        assert whole
        pieces = []
        start = fuzz.START.replace(tzinfo=None)
        for number in range(18):
            since = start + timedelta(seconds=number * rule.bucket / 2.3)
            until = start + timedelta(seconds=(number + 1) * rule.bucket / 2.3)
            bound = {"since": since - timedelta(seconds=query.lookback), "until": until}
            pieces += [row for row in connection.execute(query.text, bound).fetchall() if row[1] >= since]
    assert sorted(pieces) == sorted(row for row in whole if row[1] < until)


# --- what a run at some time must say


def expected_at(rule: Behavior, events: Events, now: int, places: reference.Places) -> Answer:
    """What is news at ``now`` (ms) of what the reference finds in the events up to then."""
    so_far = [event for event in events if milliseconds(event) <= now]
    times = {event["event_id"]: milliseconds(event) for event in so_far}
    last: dict[tuple[tuple[str, ...], int], int] = {}
    for row in reference._rows(rule, so_far):
        last[row.key, row.bucket] = max(last.get((row.key, row.bucket), 0), row.time)
    since = now - behavior_schedule.recent(rule) * 1000
    whole = rule.kind in ("deviation", "fan_out")
    return {
        fired
        for fired, event_id in reference.fires(rule, so_far, places).items()
        if (last[fired[0], fired[2]] if whole else times[event_id]) >= since
    }


def moments(rule: Behavior, events: Events, places: reference.Places, rng: random.Random, count: int) -> list[int]:
    """Times at which the rule has just fired, and others."""
    times = {event["event_id"]: milliseconds(event) for event in events}
    fired = sorted(set(reference.fires(rule, events, places).values()))
    chosen = rng.sample(fired, min(count, len(fired)))
    wait = behavior_schedule.recent(rule) * 1000
    return [times[one] + rng.choice([0, 1000, wait, wait + 1]) for one in chosen] + [
        times[rng.choice(events)["event_id"]]
    ]


def _bucket(rule: Behavior, seconds: float) -> int:
    return int(seconds // rule.bucket)


# --- KQL


def run_kql(rule: Behavior, connection: Any, now: int) -> Answer:
    import duckdb_kql

    moment = datetime.fromtimestamp(now / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    query = behavior_kql.compile_behavior(rule).text.replace("now()", f"datetime({moment})")
    answer = duckdb_kql.kql(connection, query)
    names = [one[0] for one in answer.description]
    found = set()
    for values in answer.fetchall():
        row = dict(zip(names, values, strict=True))
        key = tuple(str(row[by_name()[name].name_in("sentinel")]) for name in rule.watched)
        found.add((key, str(row.get("Value", "")), _bucket(rule, row["EventTime"].replace(tzinfo=UTC).timestamp())))
    return found


# --- SPL


def run_spl(rule: Behavior, rows: Sequence[dict[str, Any]], now: int) -> Answer:
    seen = [row for row in rows if round(row["_time"] * 1000) <= now]
    found = set()
    for row in spl(behavior_spl.compile_behavior(rule).text, seen, now / 1000):
        value = row.get("value", row.get("event_id", "") if rule.kind == "impossible_travel" else "")
        found.add((tuple(str(row[name]) for name in rule.watched), str(value), _bucket(rule, row["_time"])))
    return found


# --- ES|QL


def run_esql(rule: Behavior, held: Sequence[dict[str, Any]], now: int) -> Answer:
    seen = [row for row in held if row["@timestamp"] <= now]
    found = set()
    for row in esql(behavior_esql.compile_behavior(rule).text, seen, now / 1000):
        key = tuple(str(row[by_name()[name].exact_in("ecs")]) for name in rule.watched)
        value = str(row.get("value", ""))
        if rule.value and rule.value.form == "network":
            value = _network(value)
        found.add((key, value, int(row["judged"])))
    return found


def _network(address: str) -> str:
    """The first numbers of a network's address, as the other languages name it."""
    if ":" not in address:
        return address.rpartition(".")[0]
    return reference._network(address)


# --- all of them


def _disagreements(rule: Behavior, events: Events, places: reference.Places, rng: random.Random, count: int) -> int:
    """Run the three at several times; gives how many alerts were compared."""
    # Delivered at least once: some records are there twice, save in Elasticsearch, where the id is the document's.
    twice = [*events, *events[::7]]
    # Translating KQL takes far longer than running it: once per history, when something fires.
    kql_table = table(twice) if rule.meta.name not in NOT_IN_KQL and rule.kind != "impossible_travel" else None
    rows = [indexed(_sparse(event), milliseconds(event) / 1000) for event in twice]
    held = documents(events)
    compared = 0
    for now in moments(rule, events, places, rng, count):
        expected = expected_at(rule, events, now, places)
        context = (rule.meta.name, rule.meta.raw["behavior"], iso_ms(now / 1000))
        assert run_spl(rule, rows, now) == expected, context
        if rule.kind != "impossible_travel":
            assert run_esql(rule, held, now) == expected, context
            if kql_table is not None and expected:
                assert run_kql(rule, kql_table, now) == expected, context
                kql_table = None
        compared += len(expected)
    return compared


def _sparse(event: dict[str, Any]) -> dict[str, Any]:
    """The event as it is on the wire: without what is missing."""
    return {name: item for name, item in event.items() if item not in (None, "", (), [])}


@pytest.mark.parametrize("kind", BEHAVIORS)
def test_siems_on_random_histories(kind: str) -> None:
    compared = 0
    for seed in range(5):
        rng = random.Random(2000 + seed)
        rule = fuzz.rule(kind, rng)
        events = fuzz.history(rng, rule, 80)
        compared += _disagreements(rule, events, fuzz.PLACES, rng, 2)
    assert compared >= 4


@pytest.mark.parametrize("name", SHIPPED)
def test_siems_on_the_tests_of_shipped_rules(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = SHIPPED[name]
    for example in (rule.meta.hits[0], rule.meta.misses[0]):
        events = events_of(example)
        places = located(rule.places, events)
        monkeypatch.setattr("parity.siem_behaviors.PLACES", places)
        compared = _disagreements(rule, events, places, random.Random(1), 1)
        assert (compared > 0) is (example in rule.meta.hits)


def test_every_shipped_rule_has_a_query_or_says_why_not() -> None:
    for rule in SHIPPED.values():
        for target, compile_behavior in TARGETS.items():
            if (target, rule.kind) == ("esql", "impossible_travel"):
                with pytest.raises(Unsupported, match="row before"):
                    compile_behavior(rule)
                continue
            query = compile_behavior(rule)
            assert query.group_by[0] == "tenant_id"
            assert query.lookback == rule.lookback


def test_travel_in_kql_is_written_out() -> None:
    text = behavior_kql.compile_behavior(SHIPPED["impossible_travel"]).text
    for part in ("geo_info_from_ip_address(SrcIp)", "prev(UserId) == UserId", "<= 43200s", "> 900.0"):
        assert part in text
