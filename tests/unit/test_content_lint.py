"""Bad rules: the linter names the file, the line, the reason and the fix, and finds every problem."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from aitrail.compiler.examples import run
from aitrail.compiler.lint import lint
from aitrail.compiler.load import load
from aitrail.compiler.problems import ContentError
from aitrail.contentdir import content_path
from aitrail.runtime.cli import cli

GOOD = content_path("detections", "bedrock_guardrail_weakened.yml").read_text(encoding="utf-8")

# name: (what is replaced, by what, line of the problem or 0 for the name's, part of the reason)
CASES = {
    "unknown field": ("    action:", "    acton:", "acton", "unknown field 'acton'; did you mean 'action'?"),
    "wrong type": ("outcome_status: success\n  condition", "token_count: many\n  condition", "token_count", "integer"),
    "case of a lower field": ("    service: bedrock", "    service: Bedrock", "service:", "always lower-case"),
    "wildcard inside": ("- deleteguardrail", "- delete*rail", "action:", "a wildcard inside a value"),
    "look-around": ("    service: b", "    service|re: (?=b", "detection", "invalid perl operator"),
    "not portable class": ("    service: b", "    service|re: \\db", "service|re", "write the class"),
    "null": ("    service: bedrock.amazonaws.com", "    service: null", "service", "exists: false"),
    "keywords": ("  condition: change", "  words: [a, b]\n  condition: words", "detection", "keywords"),
    "unknown selection": ("  condition: change", "  condition: chnge", "detection", "not a Sigma rule"),
    "invented tag": ("atlas.aml.t0054", "atlas.aml.t9954", "name:", "not in content/taxonomy"),
    "unknown namespace": ("atlas.aml.t0054", "mitre.t1", "name:", "unknown namespace"),
    "bad id": ("5d0c5e0a-6a5f-4a58-9f6a-6a1d0f3b7a01", "x17", "detection", "UUID"),
    "no level": ("level: high\n", "", "", "level is missing"),
    "level": ("level: high\n", "level: severe\n", "", "severe"),
    "unknown playbook": ("playbook: aws_change", "playbook: aws_chang", "x_response", "unknown playbook"),
    "time span": ("for: 1h", "for: soon", "x_suppress", "no time span"),
    "test with an unknown field": ("user_id: mallory", "user: mallory", "name:", "unknown field 'user'"),
    "test with a wrong type": ("user_id: mallory", "token_count: x", "name:", "token_count"),
    "a key twice": ("level: high\n", "level: high\nlevel: low\n", "level: low", "there twice"),
    "not YAML": ("title: B", "title: {B", "", "not YAML"),
    "log source": ("service: access", "service: proxy", "logsource", "the log source must be"),
    "unknown record type": ("any_of: [cloudtrail]", "any_of: [cloudtrial]", "name:", "unknown record type"),
}


def problems(folder: Path) -> list[str]:
    try:
        return [str(problem) for problem in lint(list(load(folder).by_name.values()))]
    except ContentError as error:
        return [str(problem) for problem in error.problems]


@pytest.mark.parametrize("case", CASES)
def test_problem_names_file_line_reason_and_fix(case: str, tmp_path: Path) -> None:
    old, new, at, reason = CASES[case]
    assert GOOD.count(old) >= 1
    text = GOOD.replace(old, new, 1)
    path = tmp_path / "rule.yml"
    path.write_text(text, encoding="utf-8")
    found = problems(tmp_path)
    assert any(reason in problem for problem in found), found
    assert all(problem.startswith(f"{path}:") for problem in found)
    if at:
        lines = [number for number, line in enumerate(text.splitlines(), 1) if at in line]
        assert any(f"{path}:{number}:" in problem for problem in found for number in lines), (lines, found)
    result = CliRunner().invoke(cli, ["content", "lint", "--rules", str(tmp_path)], standalone_mode=False)
    assert result.return_value == 1


def test_the_same_id_twice(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(GOOD, encoding="utf-8")
    (tmp_path / "b.yml").write_text(GOOD.replace("name: bedrock_g", "name: other_g"), encoding="utf-8")
    assert any("the id is that of" in problem for problem in problems(tmp_path))


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(GOOD.replace("    action:", "    acton:"), encoding="utf-8")
    (tmp_path / "b.yml").write_text(GOOD.replace("    service:", "    srvice:"), encoding="utf-8")
    assert len(problems(tmp_path)) == 2


def test_a_broken_example_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(
        GOOD.replace("outcome_status: denied}", "outcome_status: success}"), encoding="utf-8"
    )
    [rule] = load(tmp_path).shipped()
    told = [str(problem) for problem in run(rule)]
    assert len(told) == 2
    assert "raises the rule in duckdb" in told[0]


def test_shipped_rules_are_right() -> None:
    rules = load(content_path("detections"))
    assert lint(list(rules.by_name.values())) == []
    assert [problem for rule in rules.shipped() for problem in run(rule)] == []
