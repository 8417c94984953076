"""What a panel measures is read as it is meant, and every mistake is named with its line and the way out."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from aitrail.compiler.dialects import metrics_duckdb, metrics_esql, metrics_kql, metrics_spl
from aitrail.compiler.dialects.scope import LADDER, Scope, auto_seconds, columns, wire
from aitrail.compiler.expr import Flag, Not, OneOf, Or, Present, Text
from aitrail.compiler.located import Document, read
from aitrail.compiler.metric import DATASETS, Aggregate, Listing, Metric, catalog, defaults
from aitrail.compiler.metric_yaml import read_query, read_where
from aitrail.compiler.problems import ContentError, Problem
from aitrail.destinations.elastic_records import record_names
from aitrail.destinations.sentinel_rows import record_table
from aitrail.schema.catalog import by_name

GOOD = """\
query:
  dataset: access
  where: {action_kind: inference, injection_tier: [suspicious, high]}
  values:
    calls: count
    users: {is: dcount user_id, label: People}
    p95: {is: p95 latency_ms, unit: ms}
    blocked: {is: count, where: {outcome_status: blocked}}
    share: {is: ratio blocked / calls, unit: "%"}
  by: [department, leakage_types]
  bucket: auto
  top: 10
  order: share
  present: true
"""


def document(folder: Path, text: str) -> Document:
    path = folder / "x.yml"
    path.write_text(text, encoding="utf-8")
    (found,) = read(path)
    return found


def load(folder: Path, text: str) -> Metric | Listing:
    return read_query(document(folder, text), ("query",))


def problems(folder: Path, text: str) -> list[Problem]:
    with pytest.raises(ContentError) as caught:
        load(folder, text)
    return caught.value.problems


def test_a_metric(tmp_path: Path) -> None:
    found = load(tmp_path, GOOD)
    assert isinstance(found, Metric)
    field = by_name()
    assert [value.name for value in found.values] == ["calls", "users", "p95", "blocked", "share"]
    assert found.values[1] == Aggregate("users", "dcount", field["user_id"], label="People")
    assert found.values[2] == Aggregate("p95", "percentile", field["latency_ms"], 95, unit="ms")
    assert found.values[3].where == Text(field["outcome_status"], "equals", "blocked")
    assert found.values[4] == Aggregate("share", "ratio", of="blocked", over="calls", unit="%")
    assert found.by == (field["department"], field["leakage_types"])
    assert (found.bucket, found.top, found.order, found.present) == ("auto", 10, "share", True)
    assert columns(found) == ("time", "department", "leakage_types", "calls", "users", "p95", "blocked", "share")


def test_a_listing_of_findings(tmp_path: Path) -> None:
    found = load(tmp_path, "query: {dataset: finding, list: [timestamp, rule_name], where: {severity: high}}")
    assert isinstance(found, Listing)
    assert (columns(found), found.limit, found.order) == (("timestamp", "rule_name"), 50, "timestamp")
    assert found.where == Text(catalog("finding")["severity"], "equals", "high")


def test_selections_with_a_condition(tmp_path: Path) -> None:
    text = "query: {changed: {mfa: true}, reading: {read_only: true}, condition: changed and not reading}"
    found = read_where(document(tmp_path, text), ("query",))
    assert found.items[1] == Not(Flag(by_name()["read_only"], True))  # type: ignore[union-attr]
    alternatives = read_where(document(tmp_path, "query: [{mfa: true}, {read_only: true}]"), ("query",))
    assert isinstance(alternatives, Or)


WRONG: list[tuple[str, str, int, str]] = [
    ("  bucket: auto", "  buckets: auto", 11, "unknown key 'buckets'"),
    ("bucket: auto", "bucket: week", 11, "unknown bucket 'week'"),
    ("dataset: access", "dataset: events", 2, "unknown data set 'events'"),
    ("dcount user_id", "dcount user", 6, "unknown field 'user' in data set access; did you mean 'user_id'?"),
    ("dcount user_id", "dcount leakage_types", 6, "leakage_types is a list: dcount does not fit it"),
    ("dcount user_id", "dcount latency_ms", 6, "latency_ms is a number"),
    ("p95 latency_ms", "sum user_id", 7, "user_id is a string: sum does not fit it; sum, avg, min, max and pNN take"),
    ("p95 latency_ms", "p95 role", 7, "role is a string: p95 does not fit it"),
    ("p95 latency_ms", "p101 latency_ms", 7, "there is no percentile 101"),
    ("p95 latency_ms", "p0 latency_ms", 7, "there is no percentile 0"),
    ("p95 latency_ms", "median latency_ms", 7, "unknown function 'median'; write count, dcount FIELD"),
    ("p95 latency_ms", "sum", 7, "'sum' is not complete"),
    ("calls: count", "calls: count user_id", 5, "'count user_id' is not complete, or too much"),
    ("calls: count", "calls: 5", 5, "calls does not say what it is"),
    ("calls: count", "calls: {unit: ms}", 5, "calls does not say what it is"),
    ("calls: count", "department: count", 5, "department is a dimension, too"),
    ("calls: count", "where: count", 5, "'where' cannot name a value"),
    ("calls: count", "Calls: count", 5, "'Calls' cannot name a value"),
    ("calls: count", "z_calls: count", 5, "'z_calls' cannot name a value"),
    ("calls: count", "calls: {is: count, wher: {mfa: true}}", 5, "unknown key 'wher'"),
    ("unit: ms", "unit: seconds", 7, "unknown unit 'seconds'"),
    ("label: People", "label: [People]", 6, "a label is a text"),
    (
        "blocked / calls",
        "blocked / all",
        9,
        "share is a ratio of 'all', which is no value before it; known: calls, users",
    ),
    ("blocked / calls", "share / calls", 9, "share is a ratio of 'share'"),
    ('unit: "%"', "where: {mfa: true}", 9, "a ratio is of other values"),
    ("{outcome_status: blocked}", "{outcome: blocked}", 8, "unknown field 'outcome' in data set access"),
    ("{outcome_status: blocked}", "{mfa: blocked}", 8, "mfa is a boolean; a string does not fit it"),
    ("action_kind: inference", "severity: high", 3, "unknown field 'severity' in data set access"),
    ("{action_kind: inference,", "{action_kind: Inference,", 3, "always lower-case"),
    ("  by: [department, leakage_types]\n", "", 11, "top needs dimensions"),
    ("  by: [department, leakage_types]\n", "", 13, "present needs dimensions"),
    ("[department, leakage_types]", "[department, latency_ms]", 10, "latency_ms is a number: it cannot be a dimension"),
    ("[department, leakage_types]", "[department, department]", 10, "department is there twice"),
    ("[department, leakage_types]", "[model, app, role, tool]", 10, "at most 3 dimensions"),
    ("[department, leakage_types]", "department", 10, "by is a list of fields"),
    ("top: 10", "top: 0", 12, "top is a whole number from 1 to 1000"),
    ("top: 10", "top: true", 12, "top is a whole number"),
    ("order: share", "order: shares", 13, "'shares' is none of the values; known: calls"),
    ("present: true", "present: yes please", 14, "present is true or false"),
    ("present: true", "least: 2", 14, "least does not go with a bucket"),
    ("where: {action", "where: [] #", 3, "where is a selection"),
]


@pytest.mark.parametrize(("right", "wrong", "line", "reason"), WRONG)
def test_mistakes(tmp_path: Path, right: str, wrong: str, line: int, reason: str) -> None:
    assert right in GOOD
    found = problems(tmp_path, GOOD.replace(right, wrong, 1))
    assert any(reason in str(problem) and problem.line == line for problem in found), list(map(str, found))


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    text = "query:\n  values:\n    a: sum role\n    b: nothing\n  by: [nobody]\n  order: c\n"
    assert [problem.line for problem in problems(tmp_path, text)] == [3, 4, 5, 6]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("query: [a]", "a query is a mapping"),
        ("query: {}", "values are named numbers"),
        ("query: {values: {}}", "values are named numbers"),
        ("query: {list: []}", "list is a list of fields"),
        ("query: {list: [user_id], limit: 0}", "limit is a whole number from 1 to 1000"),
        ("query: {list: [user_id], order: leakage_types}", "leakage_types is a list: rows cannot be sorted by it"),
        ("query: {list: [user_id], top: 3}", "unknown key 'top'"),
        ("query: {list: [user_id], dataset: health}", "unknown field 'user_id' in data set health"),
        ("query: {list: [user_id], where: {condition: x}}", "not a Sigma selection"),
    ],
)
def test_other_mistakes(tmp_path: Path, text: str, reason: str) -> None:
    assert any(reason in str(problem) for problem in problems(tmp_path, text))


# --- what all renderers share


def test_automatic_buckets_are_30_to_120() -> None:
    for seconds in (300, 3600, 5400, 86_400, 86_401, 7 * 86_400, 30 * 86_400, 365 * 86_400, 3650 * 86_400):
        assert 30 <= seconds / auto_seconds(seconds) <= 120, seconds
    assert auto_seconds(10**12) == LADDER[-1]
    assert all(wide <= 4 * narrow for narrow, wide in itertools.pairwise(LADDER))


@pytest.mark.parametrize("dataset", ["finding", "health"])
def test_the_catalog_has_the_names_that_destinations_write(dataset: Any) -> None:
    known = catalog(dataset)
    assert {name: field.exact_in("ecs") for name, field in known.items()} == dict(record_names(dataset))
    assert {name: field.name_in("sentinel") for name, field in known.items()} == {
        name: column for name, column, _ in record_table(dataset) if name
    }


def test_what_is_absent_is_its_default() -> None:
    assert {dataset: defaults(dataset) for dataset in DATASETS} == {
        "access": {"principal_type": "unknown", "outcome_status": "unknown"},
        "finding": {},
        "health": {"status": "ok"},
    }
    status, other = catalog("health")["status"], by_name()["user_id"]
    absent = Not(Present(status))
    for expr in (
        Text(status, "equals", "ok"),
        Text(status, "startswith", "o"),
        OneOf(status, ("late", "ok")),
        Present(status),
    ):
        assert wire(expr, "health") == Or((expr, absent))
        assert wire(Not(expr), "health") == Not(Or((expr, absent)))
    for expr in (Text(status, "equals", "late"), OneOf(status, ("late",)), Text(other, "equals", "ok")):
        assert wire(expr, "health") == expr


def test_a_dollar_sign_begins_no_token(tmp_path: Path) -> None:
    found = load(tmp_path, "query: {values: {n: count}, where: {role|contains: '$department$'}}")
    assert "$$department$$" in metrics_spl.render(found, Scope(()))


@pytest.mark.parametrize("render", [metrics_duckdb.render, metrics_kql.render, metrics_spl.render, metrics_esql.render])
def test_filters_that_a_data_set_has_not_are_left_out(tmp_path: Path, render: Any) -> None:
    found = load(tmp_path, "query: {dataset: health, values: {n: count}}")
    text = render(found, Scope(("tenant_id", "kind"), none="-"))
    assert "tenant" not in text.lower()
    assert "kind" in text.lower()
