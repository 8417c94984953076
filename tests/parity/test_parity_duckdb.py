"""DuckDB gives the hits that the Sigma specification asks for: random rules and random events, and correlations."""

import random
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import duckdb
import pytest
from sigma.rule import SigmaRule

from aitrail.compiler import reference
from aitrail.compiler.dialects.duckdb import compile_rule, condition
from aitrail.compiler.examples import ALL_TIME, connect
from aitrail.compiler.load import build
from aitrail.compiler.located import Document
from aitrail.compiler.lower import lower
from parity import fuzz

EVENTS = 400
RULES = 300


@pytest.fixture(scope="module")
def world() -> tuple[duckdb.DuckDBPyConnection, list[dict[str, Any]]]:
    rng = random.Random(20261123)
    events = [fuzz.event(rng, number) for number in range(EVENTS)]
    return table(events), events


def table(events: list[dict[str, Any]]) -> duckdb.DuckDBPyConnection:
    """A connection with the view ``events`` as the store gives it."""
    return connect(events)


def expr_of(detection: dict[str, Any]) -> Any:
    rule = SigmaRule.from_dict(
        {"title": "x", "logsource": {"product": "aitrail"}, "detection": detection, "level": "low"}
    )
    return lower(rule.detection.parsed_condition[0].parsed)


@pytest.mark.parametrize("seed", range(RULES))
def test_single_events(world, seed: int) -> None:
    connection, events = world
    rng = random.Random(seed)
    detection = fuzz.fixed(fuzz.rule(rng), rng)
    sql = condition(expr_of(detection))
    found = {row[0] for row in connection.execute(f"SELECT event_id FROM events WHERE {sql}").fetchall()}
    expected = {event["event_id"] for event in events if reference.matches({"detection": detection}, event)}
    assert found == expected, (detection, sql)
    nulls = connection.execute(f"SELECT count(*) FROM events WHERE ({sql}) IS NULL").fetchone()
    assert nulls == (0,)


PART = {"level": "low", "description": "x", "x_kind": "part", "logsource": {"product": "aitrail", "service": "access"}}
PARTS = {
    "big": {"sel": {"token_count|gte": 1}, "condition": "sel"},
    "denied": {"sel": {"outcome_status": "denied"}, "condition": "sel"},
    "written": {"sel": {"read_only": False}, "condition": "sel"},
}
_RESPONSE = {phase: ["x"] for phase in ("validate", "contain", "investigate", "remediate")}


def correlation(kind: str, rng: random.Random) -> dict[str, Any]:
    table: dict[str, Any] = {"type": kind, "timespan": rng.choice(["5m", "30s", "1h", "1d"])}
    table["group-by"] = rng.choice([["user_id"], ["department", "app"], ["src_ip"], []])
    temporal = kind.startswith("temporal")
    table["rules"] = rng.sample(sorted(PARTS), rng.choice([2, 3])) if temporal else rng.sample(sorted(PARTS), 1)
    if not temporal:
        table["condition"] = {rng.choice(["gte", "gt"]): rng.choice([2, 3, 5])}
        field = {"event_count": "", "value_count": rng.choice(["app", "src_ip"])}.get(kind, "token_count")
        if field:
            table["condition"]["field"] = field
        if kind == "value_percentile":
            table["condition"]["percentile"] = rng.choice([50, 90])
    return table


def compiled(table: dict[str, Any]) -> Any:
    documents = [
        {**PART, "id": str(uuid5(NAMESPACE_URL, name)), "name": name, "title": name, "detection": detection}
        for name, detection in PARTS.items()
    ]
    documents.append(
        {
            **PART,
            "id": str(uuid5(NAMESPACE_URL, "c")),
            "name": "c",
            "title": "c",
            "correlation": table,
            "x_kind": "detection",
            "x_needs": {"any_of": [], "without": "x"},
            "x_response": _RESPONSE,
        }
    )
    rules, problems = build([Document(Path("x.yml"), data, {}) for data in documents])
    assert not problems, problems
    return rules.by_name["c"]


KINDS = ["event_count", "value_count", "value_sum", "value_avg", "value_percentile", "temporal", "temporal_ordered"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(8))
def test_correlations(kind: str, seed: int) -> None:
    rng = random.Random(seed)
    events = [fuzz.event(rng, number) for number in range(120)]
    table_ = correlation(kind, rng)
    rule = compiled(table_)
    found = {row[0] for row in table(events).execute(compile_rule(rule).text, ALL_TIME).fetchall()}
    rules = {name: {"detection": detection} for name, detection in PARTS.items()}
    assert found == reference.completes(table_, rules, events, rule.seconds), table_
