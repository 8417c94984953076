"""The published SQLite backend of pySigma as a second judge, where it applies: random rules, groups of correlations.

It is no part of aitrail. Lists are left out (it knows none). Where it disagrees with the reference, the reason is
one that is known of it and named here; anything else fails.
"""

import json
import random
import re
import sqlite3
from typing import Any

import pytest
from sigma.backends.sqlite import sqliteBackend
from sigma.backends.sqlite.runtime import execute_plan
from sigma.collection import SigmaCollection

from aitrail.compiler import reference
from aitrail.compiler.load import load
from aitrail.compiler.rule import Rule
from aitrail.contentdir import content_path
from aitrail.schema.catalog import by_name
from parity import fuzz
from parity.test_parity_duckdb import KINDS, PARTS, compiled, correlation

NAMES = list(by_name())
_LISTS = [name for name, field in by_name().items() if field.kind == "list"]


def table(events: list[dict[str, Any]]) -> sqlite3.Connection:
    """The events with missing strings as NULL, which is how that backend tells that there is nothing."""
    connection = sqlite3.connect(":memory:")
    connection.create_function("REGEXP", 2, lambda pattern, text: text is not None and bool(re.search(pattern, text)))
    connection.execute(f"CREATE TABLE logs ({', '.join(map(_quoted, NAMES))})")
    places = ", ".join("?" * len(NAMES))
    rows = [[_value(event.get(name)) for name in NAMES] for event in events]
    connection.executemany(f"INSERT INTO logs VALUES ({places})", rows)
    return connection


def _quoted(name: str) -> str:
    return f'"{name}"'


def _value(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    return None if value == "" or isinstance(value, tuple | list) else value


def backend() -> Any:
    return sqliteBackend(collate_nocase=True, table="logs", timestamp_field="timestamp", event_id_field="event_id")


def document(name: str, detection: dict[str, Any]) -> dict[str, Any]:
    return {"title": name, "name": name, "logsource": {"product": "x"}, "detection": detection, "level": "low"}


def hits(connection: sqlite3.Connection, detection: dict[str, Any]) -> set[str]:
    [query] = backend().convert(SigmaCollection.from_dicts([document("r", detection)]))
    return {row[NAMES.index("event_id")] for row in connection.execute(query).fetchall()}


def reads_lists(detection: Any) -> bool:
    text = repr(detection)
    return any(f"'{name}'" in text or f"'{name}|" in text for name in _LISTS)


def known(detection: Any) -> str:
    """Why that backend may be wrong about a rule; empty: it must be right."""
    # It compares addresses as texts: the network of all version 4 addresses becomes LIKE '%', any text.
    return "0.0.0.0/0 takes IPv6 addresses, too" if "0.0.0.0/0" in repr(detection) else ""


def test_single_events() -> None:
    rng = random.Random(20261123)
    events = [fuzz.event(rng, number) for number in range(300)]
    connection = table(events)
    compared, disagreed = 0, []
    for seed in range(250):
        rng = random.Random(seed)
        detection = fuzz.fixed(fuzz.rule(rng), rng)
        if reads_lists(detection):
            continue
        expected = {event["event_id"] for event in events if reference.matches({"detection": detection}, event)}
        compared += 1
        if hits(connection, detection) != expected:
            disagreed.append(known(detection))
            assert known(detection), detection
    assert compared >= 110
    assert len(disagreed) <= 10


def test_shipped_rules_over_single_events() -> None:
    """Their own events and random ones."""
    rng = random.Random(7)
    events = [fuzz.event(rng, number) for number in range(100)]
    rules = [rule for rule in load(content_path("detections")).shipped() if isinstance(rule, Rule)]
    compared = 0
    for rule in rules:
        detection = rule.meta.raw["detection"]
        if rule.dataset != "access" or reads_lists(detection):
            continue
        own = [event for example in (*rule.meta.hits, *rule.meta.misses) for event in example.events]
        all_events = [*events, *({"event_id": f"own{number}", **event} for number, event in enumerate(own))]
        expected = {event["event_id"] for event in all_events if reference.matches(rule.meta.raw, event)}
        assert hits(table(all_events), detection) == expected, rule.meta.name
        compared += 1
    assert compared >= 30


@pytest.mark.parametrize("kind", KINDS)
def test_groups_of_correlations(kind: str) -> None:
    for seed in range(3):
        rng = random.Random(seed)
        events = [fuzz.event(rng, number) for number in range(100)]
        wanted = correlation(kind, rng)
        keys = ["tenant_id", *wanted["group-by"]]
        documents = [document(name, PARTS[name]) for name in wanted["rules"]]
        rule = {"title": "c", "name": "c", "level": "low", "correlation": {**wanted, "group-by": keys}}
        collection = SigmaCollection.from_dicts([*documents, rule])
        made = json.loads(backend().convert(collection, output_format="zircolite"))
        [plan] = [one for one in made if one["title"] == "c"]
        alerts, _ = execute_plan(table(events), plan["correlation_plan"])
        found = {tuple(str(alert["group_keys"].get(key)).lower() for key in keys) for alert in alerts}
        parts = {name: {"detection": detection} for name, detection in PARTS.items()}
        at = reference.completes(wanted, parts, events, compiled(wanted).seconds)
        expected = {tuple(str(event[key]).lower() for key in keys) for event in events if event["event_id"] in at}
        if kind == "temporal_ordered":
            # It asks for an event of its own for each part; here one event may stand for several.
            assert found <= expected, wanted
        else:
            assert found == expected, wanted
