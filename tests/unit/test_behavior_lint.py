"""Bad behavior rules: the linter names the file, the line, the reason and the fix, and finds every problem."""

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from aitrail.compiler import behavior_examples
from aitrail.compiler.behavior_lint import lint_behaviors
from aitrail.compiler.behavior_yaml import load_behaviors
from aitrail.compiler.build import read_all
from aitrail.compiler.problems import ContentError
from aitrail.contentdir import content_path
from aitrail.runtime.cli import cli


def text_of(name: str) -> str:
    return content_path("behaviors", f"{name}.yml").read_text(encoding="utf-8")


DEVIATION, FIRST = "user_tokens_off_baseline", "user_first_model"
RARE, FAN, TRAVEL = "rare_admin_in_department", "user_many_models", "impossible_travel"
# name: (rule, what is replaced, by what, line of the problem, part of the reason or fix)
CASES = {
    "unknown kind": (DEVIATION, "kind: deviation", "kind: deviatoin", "kind:", "known: first_seen"),
    "unknown field in the selector": (DEVIATION, "action_kind:", "action_knd:", "selector:", "mean 'action_kind'"),
    "not portable": (
        DEVIATION,
        "{action_kind: inference, user_id|exists: true}",
        "{app|re: '(?=x)'}",
        "selector:",
        "invalid perl",
    ),
    "unknown field of the entity": (
        DEVIATION,
        "entity: [user_id]",
        "entity: [user]",
        "entity:",
        "unknown field 'user'",
    ),
    "entity of numbers": (DEVIATION, "entity: [user_id]", "entity: [token_count]", "entity:", "is a integer"),
    "no entity": (DEVIATION, "entity: [user_id]", "entity: []", "entity:", "entity: [user_id]"),
    "unknown metric": (DEVIATION, "metric: sum token_count", "metric: total x", "metric:", "unknown function 'total'"),
    "metric of a text": (DEVIATION, "metric: sum token_count", "metric: sum model", "metric:", "model is a string"),
    "metric that may fall": (
        DEVIATION,
        "metric: sum token_count",
        "metric: avg token_count",
        "metric:",
        "may only grow",
    ),
    "percentile": (
        DEVIATION,
        "metric: sum token_count",
        "metric: p95 latency_ms",
        "metric:",
        "use one of count, dcount",
    ),
    "no metric": (DEVIATION, "  metric: sum token_count\n", "", "behavior:", "deviation needs metric"),
    "another kind's key": (DEVIATION, "  metric:", "  value: [model]\n  metric:", "value:", "does not take 'value'"),
    "bucket": (DEVIATION, "bucket: 1d", "bucket: 7d", "bucket:", "known: 1h, 1d"),
    "span without a unit": (DEVIATION, "span: 12d", "span: 12", "baseline:", "no time span"),
    "half a bucket": (DEVIATION, "span: 12d", "span: 36h", "baseline:", "whole buckets"),
    "longer than Sentinel looks back": (DEVIATION, "span: 12d", "span: 14d", "name:", "at most 14 days"),
    "no least number": (DEVIATION, ", min_buckets: 4", "", "baseline:", "min_buckets is missing"),
    "more than there are": (DEVIATION, "min_buckets: 4", "min_buckets: 13", "baseline:", "has 12 buckets"),
    "members for a deviation": (
        DEVIATION,
        "min_buckets: 4",
        "min_members: 4",
        "baseline:",
        "does not take 'min_members'",
    ),
    "threshold of words": (DEVIATION, "threshold: 4", "threshold: much", "threshold:", "threshold is a number"),
    "negative floor": (DEVIATION, "floor: 200000", "floor: -1", "floor:", "0 or more"),
    "an alert named by what it does not know": (
        DEVIATION,
        "by: [user_id]",
        "by: [model]",
        "name:",
        "does not know 'model'",
    ),
    "no suppression": (DEVIATION, "for: 1d", "for: 0s", "name:", "x_suppress is missing"),
    "part": (DEVIATION, "x_kind: detection", "x_kind: part", "name:", "no part of a correlation"),
    "invented tag": (DEVIATION, "atlas.aml.t0034.000", "atlas.aml.t9934", "name:", "not in content/taxonomy"),
    "bad id": (DEVIATION, "id: ", "id: x", "name:", "UUID"),
    "no title": (DEVIATION, "title: ", "titel: ", "", "title is missing"),
    "two values": (FIRST, "value: [model]", "value: [model, app]", "value:", "a list of one field"),
    "value of a number": (FIRST, "value: [model]", "value: [token_count]", "value:", "is a integer"),
    "network of a text": (FIRST, "value: [model]", "value: [network model]", "value:", "model is a string"),
    "unknown part": (FIRST, "value: [model]", "value: [half model]", "value:", "network, folder, each, product"),
    "count of what is new": (FAN, "metric: dcount model", "metric: count", "metric:", "counts distinct values"),
    "share": (RARE, "threshold: 0.05", "threshold: 5", "threshold:", "share of the peers"),
    "two members": (RARE, "entity: [user_id]", "entity: [user_id, app]", "entity:", "named by one field"),
    "unknown peer": (RARE, "peer: department", "peer: team", "peer:", "unknown field 'team'"),
    "too many for Elastic": (RARE, "by: [user_id]", "by: [user_id, action, department]", "name:", "at most 3"),
    "no places": (TRAVEL, "  places:", "  somewhere:", "name:", "x_tests.places is missing"),
    "no place": (TRAVEL, "latitude: 52.52", "latitude: north", "places:", "no place"),
    "buckets of travel": (TRAVEL, "  threshold:", "  bucket: 1h\n  threshold:", "bucket:", "does not take 'bucket'"),
    "time in a test": (DEVIATION, "at: 8d", "at: soon", "- name: thirty times", "'soon' is no time"),
    "repeat in a test": (DEVIATION, "repeat: 8", "repeat: 0", "- name: thirty times", "no count from 1"),
    "unknown field in a test": (DEVIATION, "token_count: 10000", "tokens: 10000", "name:", "unknown field 'tokens'"),
}


def problems(folder: Path) -> list[str]:
    try:
        return [str(problem) for problem in lint_behaviors(load_behaviors(folder))]
    except ContentError as error:
        return [str(problem) for problem in error.problems]


@pytest.mark.parametrize("case", CASES)
def test_problem_names_file_line_reason_and_fix(case: str, tmp_path: Path) -> None:
    name, old, new, at, reason = CASES[case]
    good = text_of(name)
    assert old in good
    text = good.replace(old, new, 1)
    path = tmp_path / "rule.yml"
    path.write_text(text, encoding="utf-8")
    found = problems(tmp_path)
    assert any(reason in problem for problem in found), found
    assert all(problem.startswith(f"{path}:") for problem in found)
    if at:
        lines = [number for number, line in enumerate(text.splitlines(), 1) if at in line]
        assert any(f"{path}:{number}:" in problem for problem in found for number in lines), (lines, found)


def test_the_command_line_says_it_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(text_of(DEVIATION).replace("sum token_count", "sum tokens"), encoding="utf-8")
    (tmp_path / "b.yml").write_text(text_of(FIRST).replace("value: [model]", "value: [models]"), encoding="utf-8")
    run = CliRunner()
    told = run.invoke(cli, ["content", "lint", "--rules", str(tmp_path)], standalone_mode=False)
    assert told.return_value == 1
    assert "a.yml:" in told.output
    assert "b.yml:" in told.output
    out = tmp_path / "out"
    built = run.invoke(cli, ["content", "build", "--rules", str(tmp_path), "--out", str(out)], standalone_mode=False)
    assert built.return_value == 1
    assert not out.exists()


def test_names_and_ids_are_unique_over_detections_and_behaviors(tmp_path: Path) -> None:
    detection = content_path("detections", "azure_keys_listed.yml").read_text(encoding="utf-8")
    (tmp_path / "detection.yml").write_text(detection, encoding="utf-8")
    taken = msgspec.yaml.decode(detection)
    good = text_of(DEVIATION)
    own = msgspec.yaml.decode(good)
    (tmp_path / "behavior.yml").write_text(good.replace(own["id"], taken["id"]), encoding="utf-8")
    with pytest.raises(ContentError, match="the id is that of azure_keys_listed too"):
        read_all(tmp_path)
    same = good.replace(f"name: {own['name']}", f"name: {taken['name']}")
    (tmp_path / "behavior.yml").write_text(same, encoding="utf-8")
    with pytest.raises(ContentError, match="the name is that of a detection too"):
        read_all(tmp_path)
    (tmp_path / "behavior.yml").write_text(good, encoding="utf-8")
    (tmp_path / "again.yml").write_text(good, encoding="utf-8")
    with pytest.raises(ContentError, match="is taken"):
        read_all(tmp_path)


def test_a_broken_example_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(text_of(DEVIATION).replace("floor: 200000", "floor: 900000"), encoding="utf-8")
    [rule] = load_behaviors(tmp_path)
    told = [str(problem) for problem in behavior_examples.run(rule)]
    assert len(told) == 2
    assert "test 'thirty times as much' does not raise the rule in duckdb" in told[0]


def test_shipped_rules_are_right() -> None:
    rules = load_behaviors(content_path("behaviors"))
    assert len(rules) >= 14
    assert {rule.kind for rule in rules} == {"first_seen", "deviation", "fan_out", "rare_in_peer", "impossible_travel"}
    assert lint_behaviors(rules) == []
    assert [problem for rule in rules for problem in behavior_examples.run(rule)] == []


def test_explain_shows_every_platform() -> None:
    run = CliRunner()
    told = run.invoke(cli, ["content", "explain", "user_many_models"], standalone_mode=False).output
    for part in (
        "duckdb: exact: buckets of PT1H (UTC), each against the 288 before it",
        "spl:",
        "kql:",
        "esql:",
        "cron ",
    ):
        assert part in told
    travel = run.invoke(cli, ["content", "explain", TRAVEL], standalone_mode=False).output
    assert "a stand-in, because esql cannot express impossible travel" in travel
    assert "source.geo.country_iso_code" in travel
