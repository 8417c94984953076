"""Rules name what the normalizers give: actions of the AWS table, evidence of the patterns, flags, record types."""

import tomllib
from collections.abc import Iterator

import pytest

from aitrail.compiler.expr import And, Expr, Not, OneOf, Or, Text
from aitrail.compiler.load import load
from aitrail.compiler.rule import Correlation, Rule
from aitrail.contentdir import content_path
from aitrail.normalize.aws_actions import TABLE_FILE

RULES = load(content_path("detections"))
PARTS = [rule for rule in RULES.by_name.values() if isinstance(rule, Rule)]


def literals(expr: Expr, field: str) -> Iterator[tuple[str, str]]:
    """Operator and value of every comparison of ``field`` with a text."""
    if isinstance(expr, And | Or):
        for item in expr.items:
            yield from literals(item, field)
    elif isinstance(expr, Not):
        yield from literals(expr.item, field)
    elif isinstance(expr, Text) and expr.field.name == field:
        yield expr.op, expr.value
    elif isinstance(expr, OneOf) and expr.field.name == field:
        for value in expr.values:
            yield "equals", value


def aws_actions() -> tuple[set[str], tuple[str, ...], set[str]]:
    """Names, prefixes, and services that take any action."""
    table = tomllib.loads(TABLE_FILE.read_text(encoding="utf-8"))["services"]
    rows = [row for service in table.values() for row in service.get("actions", ())]
    names = {name.lower() for row in rows for name in row.get("names", ())}
    prefixes = tuple(name.lower() for row in rows for name in row.get("prefixes", ()))
    return names, prefixes, {name for name, service in table.items() if "default" in service}


def needs(rule: Rule) -> set[str]:
    """What the rule needs; a part of a correlation, what that needs."""
    if rule.meta.kind != "part":
        return set(rule.meta.needs.any_of)
    whole = [one for one in RULES.by_name.values() if isinstance(one, Correlation) and rule in one.rules]
    return {source for one in whole for source in one.meta.needs.any_of}


def test_actions_of_cloudtrail_are_in_the_table() -> None:
    names, prefixes, open_services = aws_actions()
    checked = 0
    for rule in PARTS:
        if needs(rule) != {"cloudtrail"}:
            continue
        services = {value for _, value in literals(rule.expr, "service")}
        for operator, action in literals(rule.expr, "action"):
            known = operator != "equals" or action in names or action.startswith(prefixes) or services & open_services
            assert known, f"{rule.meta.name}: no normalizer gives {action!r}"
            checked += 1
    assert checked > 120


def test_evidence_is_what_the_classifier_writes() -> None:
    concepts = {
        concept["name"]
        for path in content_path("patterns", "injection").glob("*.toml")
        for concept in tomllib.loads(path.read_text(encoding="utf-8")).get("concept", ())
    }
    assert {"markdown_exfiltration", "memory_write", "tool_discovery"} <= concepts
    known = concepts | {"canary_echo", "system_prompt_echo"}
    for rule in PARTS:
        for _, value in literals(rule.expr, "evidence"):
            concept, bar, _ = value.partition("|")
            # With a bar in front it is about the layer or the role, not the concept.
            assert concept in known or (bar and not concept), (rule.meta.name, value)


@pytest.mark.parametrize("name", ["unwanted_models", "approved_models", "restricted_terms", "restricted_departments"])
def test_lists_hold_something(name: str) -> None:
    lines = content_path("watchlists", f"{name}.txt").read_text(encoding="utf-8").splitlines()
    values = [line for line in lines if line and not line.startswith("#")]
    assert values
    assert len(values) == len(set(values))
    assert all(value == value.lower().strip() for value in values)
