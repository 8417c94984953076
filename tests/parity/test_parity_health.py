"""Rules about the collector itself: every engine gives what they say, over records as each platform is sent them.

A field that has its default is not sent: ``status`` is absent when it is ok.
"""

import random
from typing import Any

import duckdb_kql
import msgspec
import pytest

from aitrail.compiler import reference, targets
from aitrail.compiler.examples import ALL_TIME, connect_health, events_of
from aitrail.compiler.load import load
from aitrail.compiler.rule import Rule
from aitrail.contentdir import content_path
from aitrail.destinations.elastic_documents import DataStream
from aitrail.destinations.elastic_records import RecordDocuments
from aitrail.destinations.sentinel_rows import STREAMS, RecordRows, record_table
from aitrail.streams import Health, encoded
from parity.elastic_engine import document
from parity.elastic_engine import esql as run_esql
from parity.splunk_engine import indexed
from parity.splunk_engine import spl as run_spl
from parity.test_parity_esql import milliseconds, shipped

RULES: dict[str, Rule] = {
    rule.meta.name: rule for rule in shipped() if isinstance(rule, Rule) and rule.dataset == "health"
}
_TYPES = {"string": "VARCHAR", "datetime": "TIMESTAMP", "long": "BIGINT", "real": "DOUBLE", "dynamic": "JSON"}


def _records(reports: list[dict[str, Any]]) -> list[Health]:
    return [msgspec.convert(report, Health) for report in reports]


def duckdb_hits(rule: Rule, reports: list[dict[str, Any]]) -> set[str]:
    with connect_health(reports) as connection:
        return {row[0] for row in connection.execute(targets.TARGETS["duckdb"](rule).text, ALL_TIME).fetchall()}


def spl_hits(rule: Rule, reports: list[dict[str, Any]]) -> set[str]:
    rows = [
        indexed(msgspec.json.decode(encoded(one).body), milliseconds(report) / 1000, "ai:access:health")
        for one, report in zip(_records(reports), reports, strict=True)
    ]
    return {row["event_id"] for row in run_spl(targets.TARGETS["spl"](rule).text, rows)}


def esql_hits(rule: Rule, reports: list[dict[str, Any]]) -> set[str]:
    make = RecordDocuments(DataStream(dataset="ai_audit.health"), "health").document
    rows = [
        document(msgspec.json.decode(make(encoded(one))), milliseconds(report))
        for one, report in zip(_records(reports), reports, strict=True)
    ]
    return {row["event.id"] for row in run_esql(targets.TARGETS["esql"](rule).text, rows)}


def kql_hits(rule: Rule, reports: list[dict[str, Any]]) -> set[str]:
    columns = [(column, _TYPES[kind]) for _, column, kind in record_table("health")]
    shape = msgspec.json.encode([dict(columns)]).decode()
    rows = [msgspec.json.decode(RecordRows("health").row(encoded(one))) for one in _records(reports)]
    with duckdb_kql.connect() as connection:
        table = STREAMS["health"].table
        connection.execute(
            f"CREATE TABLE {table} AS SELECT r.* FROM (SELECT unnest(from_json(?::JSON, '{shape}')) AS r)",
            [msgspec.json.encode(rows).decode()],
        )
        found = duckdb_kql.kql(connection, targets.TARGETS["kql"](rule).text).fetchall()
    return {row[0] for row in found}


ENGINES = {"duckdb": duckdb_hits, "spl": spl_hits, "esql": esql_hits, "kql": kql_hits}


def fuzzed(count: int) -> list[dict[str, Any]]:
    rng = random.Random(20261123)
    made = []
    for number in range(count):
        report = Health(
            event_id=f"{number:032x}",
            timestamp=f"2026-11-23T09:{number % 60:02d}:00.000Z",
            collector=rng.choice(["edge-1", "edge-2"]),
            kind=rng.choice(["source", "destination", "outbox", "ledger", "Source"]),
            name=rng.choice(["cloudtrail", "splunk", "a b"]),
            status=rng.choice(["ok", "late", "failing", "paused"]),  # type: ignore[arg-type]
            reason=rng.choice(["", "not read for 7,300 s"]),
            rejected=rng.choice([None, 0, 1, 9]),
            unproven=rng.choice([None, 0, 1]),
        )
        made.append(msgspec.to_builtins(report))
    whole = {"status": "ok", "reason": ""}
    return [{**whole, **{key: value for key, value in one.items() if key != "stream"}} for one in made]


def test_there_are_rules_about_the_collector() -> None:
    assert len(RULES) >= 6
    assert len(load(content_path("detections")).by_name) > len(RULES)


@pytest.mark.parametrize("engine", ENGINES)
def test_all_engines_agree(engine: str) -> None:
    reports = fuzzed(150)
    for name, rule in RULES.items():
        expected = {report["event_id"] for report in reports if reference.matches(rule.meta.raw, report)}
        assert expected, name
        assert ENGINES[engine](rule, reports) == expected, name


@pytest.mark.parametrize("engine", ["spl", "esql"])
def test_their_own_tests(engine: str) -> None:
    """DuckDB runs them in `aitrail content test`; KQL's executor takes a second for each."""
    for name, rule in RULES.items():
        for wanted, examples in ((True, rule.meta.hits), (False, rule.meta.misses)):
            for example in examples:
                found = ENGINES[engine](rule, events_of(example, "health"))
                assert bool(found) == wanted, (name, example.name)
