"""Every KQL query of the compiler binds against our tables in Microsoft's own analyser, without a diagnostic."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aitrail.compiler import behavior_schedule, behavior_targets, schedule, targets
from aitrail.compiler.behavior_yaml import load_behaviors
from aitrail.compiler.dashboard_yaml import load_dashboards
from aitrail.compiler.dialects import metrics_kql
from aitrail.compiler.dialects.scope import Scope
from aitrail.compiler.load import load
from aitrail.compiler.metric import catalog
from aitrail.contentdir import content_path
from aitrail.destinations.sentinel_rows import STREAMS, record_table
from aitrail.schema.views.kusto import TABLE, columns
from parity.node_packages import package

# What a workbook puts in the place of its parameters.
_PARAMETERS = ((r"\{TimeRange:(?:start|end)\}", "datetime(2026-11-01T00:00:00Z)"), (r"\{\w+:base64\}", "cmV0YWls"))
_MUTANTS = {
    "an unknown column": "AIAudit_CL | where Actor == 'x'",
    "an unknown table": "AIAudits_CL | take 1",
    "a comparison that its type has not": "AIAudit_CL | where Mfa =~ true",
    "an unknown function": "AIAudit_CL | where isempti(UserId)",
    "a torn query": "AIAudit_CL | where UserId ==",
    "a column that the result has not": "AIAudit_CL | summarize n = count() by UserId | where EventTime > ago(1h)",
}


def rules() -> Iterator[tuple[str, str, set[str]]]:
    """Name, query and the columns that its alerts need."""
    for rule in load(content_path("detections")).shipped():
        plan = schedule.plan(rule)
        known = catalog(rule.dataset)
        needed = {known[field].name_in("sentinel") for field in plan.fields}
        query = targets.TARGETS["kql"](rule).text
        yield f"rule {rule.meta.name}", f"{query}\n{schedule.sentinel(plan).fresh}", needed
    for behavior in load_behaviors(content_path("behaviors")):
        query = behavior_targets.TARGETS["kql"](behavior)
        fresh = schedule.sentinel(behavior_schedule.plan(behavior)).fresh
        yield f"behavior {behavior.meta.name}", f"{query.text}\n{fresh}", {"EventUid", "EventTime"}


def panels() -> Iterator[tuple[str, str, set[str]]]:
    for board in load_dashboards(content_path("dashboards")):
        filters = tuple(field.name for field in board.filters)
        shown = [panel for section in board.sections for panel in section.panels if panel.query is not None]
        for number, panel in enumerate(shown):
            # The range before differs in two lines that are the same in all: one panel per board shows it.
            for previous in (0, 1) if number == 0 else (0,):
                text = metrics_kql.render(panel.query, Scope(filters=filters, previous=previous))
                for pattern, value in _PARAMETERS:
                    text = re.sub(pattern, value, text)
                yield f"panel {board.name}/{panel.id}/{previous}", text, set()


def tables() -> dict[str, list[tuple[str, str]]]:
    found = {TABLE: [(column, kind) for _, column, kind in columns()]}
    for stream in ("finding", "health", "checkpoint"):
        found[STREAMS[stream].table] = [(column, kind) for _, column, kind in record_table(stream)]
    return found


@pytest.fixture(scope="module")
def answers() -> dict[str, Any]:
    folder = package("@kusto/language-service-next", runs=True)
    queries = [*rules(), *panels(), *((f"mutant {name}", text, set()) for name, text in _MUTANTS.items())]
    given = {
        "package": str(folder),
        "tables": tables(),
        "queries": [{"name": name, "text": text} for name, text, _ in queries],
    }
    script = Path(__file__).with_name("kusto_bind.mjs")
    run = subprocess.run(
        ["node", str(script)], input=json.dumps(given).encode(), capture_output=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stderr.decode(errors="replace")[-1500:]
    found = {answer["name"]: answer for answer in json.loads(run.stdout)}
    assert len(found) == len(queries)
    for name, _, needed in queries:
        found[name]["needed"] = needed
    return found


def _of(answers: dict[str, Any], kind: str) -> list[Any]:
    return [answer for name, answer in answers.items() if name.startswith(kind)]


@pytest.mark.parametrize("kind", ["rule", "behavior", "panel"])
def test_no_diagnostics(answers: dict[str, Any], kind: str) -> None:
    found = _of(answers, kind)
    assert len(found) >= {"rule": 85, "behavior": 0, "panel": 40}[kind]
    assert [(one["name"], one["diagnostics"]) for one in found if one["diagnostics"]] == []


@pytest.mark.parametrize("kind", ["rule", "behavior"])
def test_what_names_an_alert_is_in_the_result(answers: dict[str, Any], kind: str) -> None:
    for one in _of(answers, kind):
        assert one["needed"] <= {name for name, _ in one["columns"]}, one["name"]


@pytest.mark.parametrize("name", _MUTANTS)
def test_a_wrong_query_is_reported(answers: dict[str, Any], name: str) -> None:
    assert answers[f"mutant {name}"]["diagnostics"], name
