"""The shipped dashboards on the demo's store: every panel runs, numbers are those of plain Python, clicks get there."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from click.testing import CliRunner

from aitrail.compiler import boards as compiling
from aitrail.compiler.dashboard_yaml import load_dashboards
from aitrail.compiler.dialects import metrics_duckdb
from aitrail.compiler.located import read
from aitrail.compiler.metric import Metric
from aitrail.contentdir import content_path
from aitrail.event import AccessEvent
from aitrail.runtime import present
from aitrail.runtime.cli import cli
from aitrail.store import boards, panels, records
from aitrail.store.queries import fetch
from aitrail.store.reader import StoreReader, canonical_time
from aitrail.store.sandbox import GuardedConnection, QueryError
from parity.metrics_reference import Look, Percentile, evaluate, rows

FOLDER = content_path("dashboards")
BOARDS = boards.load()
PANELS = {f"{board.name}/{panel.id}": panel for board in BOARDS for panel in board.panels}
# YAML data of each panel's query, as people wrote it.
QUERIES: dict[str, dict[str, Any]] = {
    f"{document.data['name']}/{panel['id']}": panel["query"]
    for path in sorted(FOLDER.glob("*.yml"))
    for document in read(path)
    for section in document.data["sections"]
    for panel in section["panels"]
}
# What the demo has nothing for: it polls no source, ships to no destination and has no dead letters, and the one text
# that crosses a barrier there is reworded on its way.
EMPTY = {
    "departments/barrier_findings",
    "departments/same_text",
    "departments/shared_sessions",
    "health/dead",
    "health/lag",
    "health/not_well",
    "health/waiting",
}


class Demo(NamedTuple):
    store: Path
    connection: GuardedConnection
    events: list[dict[str, Any]]
    findings: list[dict[str, Any]]
    since: datetime
    until: datetime


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """A small demo, with the default day's incidents."""
    folder = tmp_path_factory.mktemp("demo")
    done = CliRunner().invoke(cli, ["demo", "--dir", str(folder), "--events", "900"])
    assert done.exit_code == 0, done.output
    store = folder / "store"
    connection = StoreReader(store, health=present.of(store)).connect()
    events = [_event(row) for row in fetch(connection, "SELECT * FROM events").dicts()]
    findings = [_plain(row) for row in fetch(connection, "SELECT * FROM finding_records").dicts()]
    newest = max(event["timestamp"] for event in events)
    until = datetime.fromisoformat(newest).replace(tzinfo=None) + timedelta(milliseconds=1)
    return Demo(store, connection, events, findings, until - timedelta(days=2), until)


def _event(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in _plain(row).items() if name in AccessEvent.__struct_fields__}


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: canonical_time(value) if isinstance(value, datetime) else value for name, value in row.items()}


def shown(demo: Demo, name: str, **filters: list[str]) -> panels.PanelResult:
    return panels.run(demo.connection, PANELS[name], filters, demo.since, demo.until)


def judged(demo: Demo, name: str, chosen: dict[str, list[str]] | None = None) -> list[dict[str, Any]]:
    """What the panel should show, by plain Python over the store's events."""
    query, panel = dict(QUERIES[name]), PANELS[name]
    if panel.form == "single":
        query.pop("bucket", None)
    width = boards.auto_seconds((demo.until - demo.since).total_seconds())
    since, until = (moment.replace(tzinfo=UTC).timestamp() for moment in (demo.since, demo.until))
    look = Look(since, until, chosen or {}, width, "")
    data = demo.findings if panel.dataset == "finding" else demo.events
    return rows(query, data, look) if "list" in query else evaluate(query, data, look)


def same(actual: Any, expected: Any) -> bool:
    if isinstance(expected, Percentile):
        expected = expected.value
    if isinstance(actual, datetime) and not isinstance(expected, str):
        actual = actual.replace(tzinfo=UTC).timestamp()
    elif isinstance(actual, datetime):
        actual = canonical_time(actual)
    if isinstance(actual, float) or isinstance(expected, float):
        return actual == pytest.approx(expected, rel=1e-9)
    return list(actual) == list(expected) if isinstance(actual, list | tuple) else actual == expected


# --- what is shown


def test_every_panel_runs_and_most_have_something_to_show(demo: Demo) -> None:
    found = {name: shown(demo, name) for name in PANELS}
    assert {name for name, result in found.items() if result.empty} == EMPTY
    for name, result in found.items():
        assert not result.truncated, name
        assert all(len(row) == len(result.columns) for row in result.rows), name


@pytest.mark.parametrize("name", [name for name, panel in PANELS.items() if panel.dataset != "health"])
def test_numbers_are_those_of_plain_python(demo: Demo, name: str) -> None:
    result, expected = shown(demo, name), judged(demo, name)
    found = result.dicts()
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for column, value in other.items():
            assert same(one[column], value), (column, one, other)


@pytest.mark.parametrize("name", ["usage/users", "threats/targets", "departments/unassigned", "cost/models"])
def test_filters_narrow_to_what_plain_python_narrows_to(demo: Demo, name: str) -> None:
    chosen = {"department": ["retail", "engineering"], "model": ["gpt-4o"]}
    found, expected = shown(demo, name, **chosen).dicts(), judged(demo, name, chosen)
    assert len(found) == len(expected)
    assert all(same(one[column], other[column]) for one, other in zip(found, expected, strict=True) for column in other)


def test_a_missing_value_can_be_chosen(demo: Demo) -> None:
    found = shown(demo, "usage/calls", department=[""])
    assert found.value("calls") == sum(
        event["action_kind"] == "inference" and not event["department"] for event in demo.events
    )


@pytest.mark.parametrize(
    "value", ["' OR '1'='1", "retail'; DROP VIEW events; --", "$since", "%", "\\", 'a"b', "\u202e"]
)
def test_a_chosen_value_is_only_ever_a_value(demo: Demo, value: str) -> None:
    for name in ("usage/calls", "usage/hours", "threats/serious_findings"):
        field = "user_id" if name.startswith("threats") else "department"
        found = shown(demo, name, **{field: [value]})
        assert found.empty
        condition = panels.behind(PANELS[name], {field: [value]}, demo.since, demo.until)
        assert value not in condition.sql or value in ("%", "$since")
        assert condition.values[field] == [value]


def test_findings_and_health_say_which_filters_they_do_not_have(demo: Demo) -> None:
    chosen = {"department": ["retail"], "user_id": ["felix.gruber"], "model": []}
    found = shown(demo, "threats/serious_findings", **chosen)
    assert found.ignored == ("department",)
    assert found.value("findings") == sum(
        one["severity"] in ("high", "critical") and one["user_id"] == "felix.gruber" for one in demo.findings
    )
    health = shown(demo, "health/parts", **chosen)
    assert health.ignored == ("department", "user_id")
    assert health.present_state


def test_a_single_has_its_course_and_the_range_before(demo: Demo) -> None:
    middle = demo.until - timedelta(hours=10)
    early = panels.run(demo.connection, PANELS["usage/calls"], {}, middle - timedelta(hours=10), middle)
    late = panels.run(demo.connection, PANELS["usage/calls"], {}, middle, demo.until)
    assert late.before == early.value("calls") > 0
    assert late.trend_columns == ("time", "calls")
    assert sum(row[1] for row in late.trend) == late.value("calls")
    assert late.bucket_seconds == 300
    assert all(row[0].second == 0 and row[0].minute % 5 == 0 for row in late.trend)


def test_a_single_without_events_shows_zero_and_no_course(demo: Demo) -> None:
    later = demo.until + timedelta(days=900)
    found = panels.run(demo.connection, PANELS["usage/unnamed"], {}, later, later + timedelta(days=1))
    assert found.rows == [(0, 0, None)]
    assert found.trend == []
    assert found.empty


# --- what is behind a mark


def _counts() -> list[tuple[str, str]]:
    specified = {f"{board.name}/{panel.id}": panel.query for board in load_dashboards(FOLDER) for panel in board.panels}
    return [
        (name, value.name)
        for name, query in specified.items()
        if isinstance(query, Metric)
        for value in query.values
        if value.function == "count"
    ]


@pytest.mark.parametrize(("name", "value"), _counts())
def test_a_click_on_a_number_gives_so_many_rows(demo: Demo, name: str, value: str) -> None:
    panel, result = PANELS[name], shown(demo, name)
    roles = {column.name: column.role for column in result.columns}
    marks = [row for row in result.dicts() if row[value]][:2] + [row for row in result.dicts() if not row[value]][:1]
    for row in marks:
        since, until = demo.since, demo.until
        picked = {column: row[column] for column, role in roles.items() if role in ("dimension", "hour", "day")}
        if "time" in row:
            since, until = panels.mark_range(result, row["time"], since, until)
        condition = panels.behind(panel, {}, since, until, value=value, picked=picked)
        [(count,)] = fetch(
            demo.connection, f"SELECT count(*) FROM {condition.relation} WHERE {condition.sql}", condition.values
        ).rows
        assert count == row[value], row


def test_rows_of_a_list_name_their_events(demo: Demo) -> None:
    known = {event["event_id"] for event in demo.events}
    found = shown(demo, "usage/prompts")
    assert [column.role for column in found.columns][:2] == ["id", "field"]
    assert {row[0] for row in found.rows} <= known
    assert {row[0] for row in shown(demo, "threats/latest_findings").rows} <= {one["event_id"] for one in demo.findings}


# --- findings and health as relations


def test_relations_have_the_columns_that_queries_expect() -> None:
    for stream in ("finding", "health"):
        assert records.types(stream) == metrics_duckdb.column_types(stream)
        assert records.RELATIONS[stream] == metrics_duckdb.RELATIONS[stream]


def test_findings_are_the_same_in_both_forms(demo: Demo) -> None:
    old = fetch(demo.connection, "SELECT event_id, severity, title, user_id, evidence FROM findings").rows
    new = fetch(
        demo.connection, "SELECT event_id, severity, rule_name, user_id, evidence_ids FROM finding_records"
    ).rows
    assert sorted(old) == sorted(new)
    assert len(old) > 10


def test_the_demo_is_well_and_says_so(demo: Demo) -> None:
    parts = {row["name"]: row for row in shown(demo, "health/parts").dicts()}
    assert parts["demo"]["status"] == "ok"
    assert parts["demo"]["kind"] == "source"
    reports = fetch(demo.connection, "SELECT records FROM health_records WHERE name = 'demo'").rows
    assert reports[0][0] >= len(demo.events)


def test_without_a_collector_the_relation_is_empty(demo: Demo) -> None:
    with StoreReader(demo.store).connect() as connection:
        assert fetch(connection, "SELECT * FROM health_records").rows == []
        assert panels.run(connection, PANELS["health/parts"], {}, demo.since, demo.until).empty


def test_a_statement_that_was_judged_is_still_only_what_it_was(demo: Demo) -> None:
    with StoreReader(demo.store).connect() as connection:
        for _ in range(2):
            assert connection.execute("SELECT count(*) FROM events").fetchall() == [(len(demo.events),)]
            with pytest.raises(QueryError, match="refused"):
                connection.execute("DROP VIEW events")


# --- the artefact


def test_what_runs_is_what_is_written() -> None:
    assert content_path("compiled", boards.FILE).read_bytes() == compiling.compiled(load_dashboards(FOLDER)), (
        "run aitrail content build"
    )


def test_compiled_dashboards_keep_the_specification() -> None:
    for board, spec in zip(BOARDS, load_dashboards(FOLDER), strict=True):
        assert (board.name, board.number, board.title, board.range) == (spec.name, spec.number, spec.title, spec.range)
        assert board.filters == ("tenant_id", "department", "model", "user_id")
        assert [section.title for section in board.sections] == [section.title for section in spec.sections]
        for one, other in zip(board.panels, spec.panels, strict=True):
            assert (one.id, one.form, one.width, one.help, one.empty) == (
                other.id,
                other.form,
                other.width,
                other.help,
                other.empty,
            )
    assert msgspec.json.decode(msgspec.json.encode(BOARDS), type=tuple[boards.Board, ...]) == BOARDS


def test_nothing_of_the_compiler_is_needed_to_run() -> None:
    code = (
        "import sys, aitrail.store.panels as p; p.load(); "
        "sys.exit(', '.join(m for m in sys.modules if m.startswith(('aitrail.compiler', 'sigma', 'yaml'))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
