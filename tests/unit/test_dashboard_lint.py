"""Bad dashboards: the linter names the file, the line, the reason and the fix, and finds every problem."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from aitrail.compiler.dashboard import Drill
from aitrail.compiler.dashboard_yaml import load_dashboards, read_dashboards
from aitrail.contentdir import content_path
from aitrail.runtime.cli import cli

GOOD = content_path("dashboards", "1_usage.yml").read_text(encoding="utf-8").replace("{to: departments}", "{to: usage}")
GOOD = GOOD.replace("{to: health}", "{to: usage}")
HELP = "        help: >-\n          People, services"
EMPTY = "        empty: Every prompt that was judged in this range was clean.\n"
LAST = GOOD[GOOD.index("      - id: prompts\n") :]

# name: (what is replaced, by what, what stands in the line of the problem, part of the reason)
CASES = {
    "unknown form": ("form: area", "form: areas", "form: areas", "unknown form 'areas'; known: single, line"),
    "too wide": ("        width: 8\n", "        width: 13\n", "width: 13", "width is a whole number from 1 to 12"),
    "width is no number": ("        width: 8\n", "        width: true\n", "width: true", "a whole number"),
    "row too wide": ("        width: 8\n", "        width: 9\n", "width: 4", "its row is 13 columns wide"),
    "row not full": ("        width: 8\n", "        width: 5\n", "width", "its row is"),
    "heights differ": (
        "        width: 4\n        height: 4",
        "        width: 4\n        height: 3",
        "height: 3",
        "the others of its row have 4",
    ),
    "id twice": ("id: people", "id: calls", "id: calls", "the id 'calls' is there twice"),
    "bad id": ("id: people", "id: People here", "id: People", "cannot name a panel"),
    "drill to nowhere": ("drill: {to: health}", "drill: {to: helth}", "to: helth", "there is no dashboard 'helth'"),
    "carry of no dimension": ("carry: [user_id, department]", "carry: [app]", "carry: [app]", "'app' is no dimension"),
    "carry that the goal cannot filter": (
        "drill: {to: events, carry: [prompt_classification]}",
        "drill: {to: usage, carry: [prompt_classification]}",
        "carry: [prompt",
        "usage cannot be filtered by 'prompt_classification'",
    ),
    "drill is a text": ("drill: {to: health}", "drill: health", "drill: health", "drill says where to"),
    "sankey of one dimension": ("form: pie", "form: sankey", "query:", "a sankey has 2 dimensions, not 1"),
    "single with dimensions": ("form: pie", "form: single", "query:", "a single has 0 dimensions, not 1"),
    "pie over time": ("by: [principal_type]", "by: [principal_type]\n          bucket: 1h", "query:", "no bucket '1h'"),
    "line without time": ("form: pie", "form: line", "query:", "a line has no bucket 'none'; bucket: auto"),
    "heatmap without hours": ("bucket: hour_of_day", "bucket: 1h", "query:", "a heatmap has no bucket '1h'"),
    "table of a listing": ("form: events", "form: table", "query:", "a table needs numbers"),
    "events of a metric": ("form: pie", "form: events", "query:", "events are a listing"),
    "stacked pie": ("form: pie", "form: pie\n        stacked: true", "stacked", "a pie cannot be stacked"),
    "no value chosen": ("        value: share\n", "", "- id: unnamed", "a single draws 1 of 3 values; value: calls"),
    "endless": ("          top: 60\n", "", "query:", "it can have any number of groups; top: 20"),
    "unknown value": ("value: share", "value: shares", "value: shares", "'shares' is none of the values"),
    "one threshold": ("thresholds: [0.05, 0.25]", "thresholds: [1]", "thresholds", "two numbers"),
    "thresholds the wrong way": ("thresholds: [0.05, 0.25]", "thresholds: [3, 1]", "thresholds", "must rise"),
    "thresholds without tone": ("        tone: good_low\n", "", "thresholds", "thresholds need a tone"),
    "unknown tone": ("tone: good_low", "tone: good", "tone: good", "unknown tone 'good'; known: good_low, good_high"),
    "unknown field": ("by: [principal_type]", "by: [principaltype]", "principaltype", "did you mean 'principal_type'"),
    "unknown key": ("        value: share\n", "        vaule: share\n", "vaule", "unknown key 'vaule'"),
    "no query": ("form: pie", "form: text\n        text: Hello.", "query:", "a text has no query"),
    "no help": (HELP, HELP.replace("help", "helf"), "id: principals", "help is missing"),
    "no empty": (EMPTY, "", "id: classes", "empty is missing"),
    "range": ("range: 7d", "range: a week", "range:", "no time span"),
    "filter": ("filters: [tenant_id,", "filters: [tenant,", "filters:", "'tenant' cannot be filtered by"),
    "number": ("number: 1", "number: one", "number:", "number is a whole number"),
    "no description": ("description: >-", "descripton: >-", "descripton", "unknown key 'descripton'"),
    "not YAML": ("title: Who uses which", "title: {Who uses which", "", "not YAML"),
    "a key twice": ("number: 1\n", "number: 1\nnumber: 1\n", "number: 1", "there twice"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_problem_names_file_line_reason_and_fix(case: str, tmp_path: Path) -> None:
    old, new, at, reason = CASES[case]
    # The good page drills to itself, as it stands alone here.
    old = old.replace("{to: health}", "{to: usage}")
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    path = tmp_path / "page.yml"
    path.write_text(text, encoding="utf-8")
    _, problems = read_dashboards(tmp_path)
    found = [problem for problem in problems if reason in f"{problem.reason}; {problem.fix}"]
    assert found, problems
    assert all(problem.path == path for problem in problems)
    lines = text.splitlines()
    assert any(at in lines[problem.line - 1] for problem in found), [lines[problem.line - 1] for problem in found]


def test_the_good_page_is_good(tmp_path: Path) -> None:
    (tmp_path / "page.yml").write_text(GOOD, encoding="utf-8")
    [board] = load_dashboards(tmp_path)
    assert (board.name, len(board.panels), board.range) == ("usage", 14, 604_800)
    drills = {panel.id: panel.drill for panel in board.panels}
    assert drills["department_model"] == Drill("events", ("department", "model"))
    assert drills["users"] == Drill("events", ("user_id", "department"))
    assert drills["prompts"] == Drill("events")


def test_names_and_numbers_are_unique(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(GOOD, encoding="utf-8")
    (tmp_path / "b.yml").write_text(GOOD.replace("name: usage", "name: usages", 1), encoding="utf-8")
    _, problems = read_dashboards(tmp_path)
    assert {problem.reason for problem in problems} == {"the number 1 is taken"}


def test_a_page_has_not_too_few_panels(tmp_path: Path) -> None:
    start = GOOD[: GOOD.index("  - title: Who uses what")] + "  - title: What they ask\n    panels:\n" + LAST
    (tmp_path / "a.yml").write_text(start, encoding="utf-8")
    _, problems = read_dashboards(tmp_path)
    assert [problem.reason for problem in problems] == ["5 panels"]


def test_every_problem_of_every_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(GOOD.replace("form: pie", "form: pies").replace("width: 8", "width: 80"))
    (tmp_path / "b.yml").write_text(GOOD.replace("number: 1", "number: 0").replace("bucket: auto", "bucket: never", 1))
    done = CliRunner().invoke(cli, ["content", "lint", "--dashboards", str(tmp_path)], standalone_mode=False)
    assert done.return_value == 1
    assert done.output.count(f"{tmp_path}/a.yml:") == 2
    assert done.output.count(f"{tmp_path}/b.yml:") == 2
