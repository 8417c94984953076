"""Every command, function and option in the SPL that the compiler gives is in Splunk's own table of search commands."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aitrail.compiler import behavior_targets, targets
from aitrail.compiler.behavior_yaml import load_behaviors
from aitrail.compiler.dashboard_yaml import load_dashboards
from aitrail.compiler.dialects import metrics_spl
from aitrail.compiler.dialects.scope import Scope
from aitrail.compiler.load import load
from aitrail.contentdir import content_path
from parity.node_packages import package

_FUNCTION = re.compile(r"(?<![\w$])([a-z][a-z0-9_]*)\(")
_OPTION = re.compile(r"(?<![\w$])([a-z_]+)=(?!=)")
# Commands whose "name=" is no option: an assignment, a comparison.
_NO_OPTIONS = ("eval", "where", "search", "stats", "eventstats")
# "Search Reference", "JSON functions" (since 8.1) and "Statistical functions" (percNN, any number): newer than the
# table, or a family of which it lists no member.
_KNOWN = frozenset({"json_extract"})
# "Search Reference", "sort": how a field is compared, written like a function.
_SORTED_AS = frozenset({"auto", "ip", "num", "str"})
_FAMILY = re.compile(r"perc\d+")


@pytest.fixture(scope="module")
def table() -> dict[str, Any]:
    folder = package("@splunk/dashboard-utils", runs=True)
    script = Path(__file__).with_name("spl_syntax.mjs")
    run = subprocess.run(["node", str(script), str(folder)], capture_output=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr.decode(errors="replace")[-1000:]
    found: dict[str, Any] = json.loads(run.stdout)
    assert len(found) > 120
    return found


def queries() -> Iterator[tuple[str, str]]:
    for rule in load(content_path("detections")).shipped():
        yield rule.meta.name, targets.TARGETS["spl"](rule).text
    for behavior in load_behaviors(content_path("behaviors")):
        yield behavior.meta.name, behavior_targets.TARGETS["spl"](behavior).text
    for board in load_dashboards(content_path("dashboards")):
        filters = tuple(field.name for field in board.filters)
        for section in board.sections:
            for panel in section.panels:
                if panel.query is not None:
                    yield f"{board.name}/{panel.id}", metrics_spl.render(panel.query, Scope(filters=filters))


def problems(table: dict[str, Any], text: str) -> list[str]:
    """What of ``text`` is not in the table."""
    bare = re.sub(r"\$[a-z_]+\|s\$", '""', re.sub(r'"(?:[^"\\]|\\.)*"', '""', text))  # texts and tokens
    found = []
    for number, stage in enumerate(re.split(r"[|\[\]]", bare)):
        words = stage.split()
        if not words:
            continue
        # A search begins with terms, or with the macro that says where the events are.
        command = "search" if number == 0 else words[0]
        if command not in table:
            found.append(f"command {command}")
            continue
        functions = set(table[command]["functions"]) | (_SORTED_AS if command == "sort" else _KNOWN)
        for name in _FUNCTION.findall(stage):
            if command != "search" and name not in functions and not _FAMILY.fullmatch(name):
                found.append(f"function {name} in {command}")
        if command not in _NO_OPTIONS:
            options = _OPTION.findall(stage)
            found += [f"option {name} of {command}" for name in options if name not in table[command]["options"]]
    return found


def test_all_is_in_the_table(table: dict[str, Any]) -> None:
    checked = {name: problems(table, text) for name, text in queries()}
    assert len(checked) > 120
    assert {name: found for name, found in checked.items() if found} == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("index=x | stattts count by user_id", "command stattts"),
        ("index=x | where lowr(user_id)==1", "function lowr in where"),
        ("index=x | streamstats windw=0 sum(n) AS m BY user_id", "option windw of streamstats"),
        ("index=x | eval a=ltrim(b), c=notthere(d)", "function notthere in eval"),
        ("index=x | append [search y | statz count]", "command statz"),
    ],
)
def test_a_wrong_search_is_told(table: dict[str, Any], text: str, told: str) -> None:
    assert told in problems(table, text)
