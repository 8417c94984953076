"""KQL gives the hits that the Sigma specification asks for: executed by duckdb-kql on a table as Sentinel has it.

What duckdb-kql cannot execute (networks: ``ipv4_is_in_range``, ``ipv6_is_in_range``) is counted, not compared.
"""

import random
from typing import Any

import duckdb
import duckdb_kql
import msgspec
import pytest

from aitrail.compiler import reference
from aitrail.compiler.dialects import kql
from aitrail.compiler.examples import connect, events_of
from aitrail.compiler.load import load
from aitrail.compiler.problems import Unsupported
from aitrail.compiler.rule import Rule
from aitrail.contentdir import content_path
from aitrail.schema.views.kusto import TABLE, columns
from parity import fuzz
from parity.test_parity_duckdb import KINDS, PARTS, compiled, correlation, expr_of

_TYPES = {"string": "VARCHAR", "datetime": "TIMESTAMP", "long": "BIGINT", "real": "DOUBLE", "bool": "BOOLEAN"}
COLUMNS = [(field, column, _TYPES.get(kind, "JSON")) for field, column, kind in columns() if field]


def table(events: list[dict[str, Any]]) -> duckdb.DuckDBPyConnection:
    """The Sentinel table, filled as the ingestion does: absent lists are null, absent strings empty."""
    stored = connect(events).execute("SELECT * FROM events")
    place = {described[0]: number for number, described in enumerate(stored.description)}
    rows = [{column: _value(row[place[field]], kind) for field, column, kind in COLUMNS} for row in stored.fetchall()]
    connection = duckdb_kql.connect()
    shape = msgspec.json.encode([{column: "VARCHAR" if kind == "JSON" else kind for _, column, kind in COLUMNS}])
    picks = ", ".join(f'r."{column}"::{kind} AS "{column}"' for _, column, kind in COLUMNS)
    connection.execute(
        f"CREATE TABLE {TABLE} AS SELECT {picks} FROM (SELECT unnest(from_json(?::JSON, '{shape.decode()}')) AS r)",
        [msgspec.json.encode(rows).decode()],
    )
    return connection


def _value(value: Any, kind: str) -> Any:
    if kind == "JSON":
        return msgspec.json.encode(value).decode() if value else None
    return value


def run(connection: duckdb.DuckDBPyConnection, query: str) -> set[str]:
    return {row[0] for row in duckdb_kql.kql(connection, query).fetchall()}


def test_single_events() -> None:
    rng = random.Random(20261123)
    events = [fuzz.event(rng, number) for number in range(300)]
    connection = table(events)
    compared = 0
    for seed in range(100):
        rng = random.Random(seed)
        detection = fuzz.fixed(fuzz.rule(rng), rng)
        query = f"{TABLE} | where {kql.condition(expr_of(detection))} | project EventUid"
        if "is_in_range" in query:
            continue
        found = run(connection, query)
        compared += 1
        expected = {event["event_id"] for event in events if reference.matches({"detection": detection}, event)}
        assert found == expected, (detection, query)
    assert compared >= 60


@pytest.mark.parametrize("kind", KINDS)
def test_correlations(kind: str) -> None:
    for seed in range(2):
        rng = random.Random(seed)
        events = [fuzz.event(rng, number) for number in range(100)]
        wanted = correlation(kind, rng)
        rule = compiled(wanted)
        if kind == "value_percentile":
            with pytest.raises(Unsupported, match="estimates"):
                kql.compile_rule(rule)
            continue
        rules = {name: {"detection": detection} for name, detection in PARTS.items()}
        expected = reference.completes(wanted, rules, events, rule.seconds)
        assert run(table(events), kql.compile_rule(rule).text) == expected, wanted


def test_every_shipped_rule_agrees_with_its_tests() -> None:
    """All tests of all rules in one table, each in a tenant of its own: groups lie within one tenant."""
    wanted: dict[str, dict[str, bool]] = {}
    events: list[dict[str, Any]] = []
    shipped = [rule for rule in load(content_path("detections")).shipped() if rule.dataset == "access"]
    # Conditions are what `test_single_events` is about, and the executor takes a tenth of a second to read a query: of
    # the rules over single events every third one.
    single = [rule for rule in shipped if isinstance(rule, Rule)]
    found = [rule for rule in shipped if rule not in single or single.index(rule) % 3 == 0]
    for rule in found:
        wanted[rule.meta.name] = {}
        for answer, examples in ((True, rule.meta.hits), (False, rule.meta.misses)):
            for number, example in enumerate(examples):
                tenant = f"{rule.meta.name}-{answer}-{number}"
                wanted[rule.meta.name][tenant] = answer
                events += [
                    {**event, "tenant_id": tenant, "event_id": f"{tenant}/{event['event_id']}"}
                    for event in _few(events_of(example))
                ]
    connection = table(events)
    compared = 0
    for rule in found:
        query = kql.compile_rule(rule).text
        assert kql.TABLES[rule.dataset] in query
        if "is_in_range" in query:
            continue
        fired = {event_id.partition("/")[0] for event_id in run(connection, query)}
        for tenant, answer in wanted[rule.meta.name].items():
            if tenant.rpartition("-")[0].rpartition("-")[0] not in LONG:
                assert (tenant in fired) == answer, tenant
                compared += 1
    assert compared > 130


# Their tests take thousands of events, which a self-join squares.
LONG = {"model_extraction_volume"}


def _few(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return events if len(events) < 500 else events[:1]
