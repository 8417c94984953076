"""Every code under which a destination, or the spool before it, may refuse an event has a meaning and a fix."""

import ast
import importlib
from pathlib import Path

import pytest

from aitrail.destinations._hec_codes import CODES
from aitrail.destinations._kafka_codes import RULES
from aitrail.routing import codes
from aitrail.routing.codes import DELIVERY_CODES, ELASTIC_CODES, UNKNOWN, delivery_reason
from aitrail.store import segments

PACKAGE = Path(codes.__file__).parents[1]
# Where verdicts are made; each is looked through for codes.
PLACES = sorted((PACKAGE / "destinations").glob("*.py")) + sorted((PACKAGE / "routing").glob("*.py"))
PLACES += [PACKAGE / "store" / "segments.py", PACKAGE / "spool" / "outbox.py"]
# Functions that refuse an event under the code that they are given as their last argument.
REFUSING = {"isolate"}
# Codes that come out of tables; the tables are held against DELIVERY_CODES below.
FROM_TABLES = {"answer.label", "item.code", "rule.code", "outcome", "code"}


def refused_in(path: Path) -> set[str]:
    """The codes, or the expressions that give them, of every verdict ``rejected`` in a module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name == "Verdict" and node.args and isinstance(node.args[0], ast.Constant):
            if node.args[0].value == "rejected":
                found.update(_text(one.value, path) for one in node.keywords if one.arg == "code")
        elif name in REFUSING:
            found.add(_text(node.args[-1], path))
    return found


def _text(node: ast.expr, path: Path) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.Name) and node.id.isupper():
        module = importlib.import_module("aitrail." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts))
        return str(getattr(module, node.id))
    return ast.unparse(node)


@pytest.mark.parametrize("path", PLACES, ids=lambda path: path.stem)
def test_what_is_refused_in_the_code_is_explained(path: Path) -> None:
    unknown = {code for code in refused_in(path) if code not in DELIVERY_CODES} - FROM_TABLES
    assert not unknown, f"{path.name}: add to aitrail.routing.codes: {unknown}"


def test_the_search_finds_what_it_should() -> None:
    found = set().union(*(refused_in(path) for path in PLACES))
    assert {
        "event_too_large",
        "unencodable",
        "unstorable",
        "timestamp_invalid",
        "not_json",
        "newline_in_event",
    } <= found
    assert {"azure_400", "es_bad_request", "stream_unsupported"} <= found


def test_the_tables_of_protocols_are_explained() -> None:
    named = set(ELASTIC_CODES) | {rule.code for rule in RULES.values() if rule.code} | {"es_failure_store", "es_4xx"}
    named |= {f"hec_{number}" for number, rule in CODES.items() if rule.action == "data"}
    assert named <= set(DELIVERY_CODES)


def test_the_codes_of_the_store_are_explained() -> None:
    returned = {
        str(node.value.value)
        for node in ast.walk(ast.parse(Path(segments.__file__).read_text()))
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }
    assert {"body_invalid", "timestamp_mismatch"} <= returned
    assert {code for code in returned if code} <= set(DELIVERY_CODES)


def test_every_reason_says_what_to_do() -> None:
    assert all(one.meaning and one.fix for one in DELIVERY_CODES.values())
    assert delivery_reason("never_heard_of") is UNKNOWN
