"""Every query of the Sentinel solution, as it lies in the repository, binds in Microsoft's own analyser.

Workbooks with their parameters filled in, functions with their bodies expanded, transformations against the stream that
they read. Columns that entities, details, charts and formats name are in the results.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from aitrail.compiler.build import content
from aitrail.compiler.emit import sentinel_queries, sentinel_rules
from aitrail.compiler.emit.packs import source_tree
from aitrail.compiler.emit.sentinel_hunts import HUNTS
from aitrail.compiler.emit.sentinel_lists import watchlists
from aitrail.compiler.emit.sentinel_panels import NOTHING
from aitrail.compiler.emit.sentinel_parsers import SCHEMA_VERSION
from aitrail.compiler.emit.sentinel_tables import ASIM_TYPES, microsoft_streams, tables
from aitrail.contentdir import content_path
from parity.node_packages import package

PACK = (source_tree() or Path()) / "sentinel_workbooks"
# Several times as fast where libyaml is there.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DATA = Path(__file__).parents[1] / "data"
# Columns of Microsoft's tables that hunts read (Azure Monitor table reference).
_FOREIGN = {
    "IdentityInfo": [("TimeGenerated", "datetime"), ("AccountUPN", "string"), ("Department", "string")],
    "BehaviorAnalytics": [
        ("TimeGenerated", "datetime"),
        ("UserPrincipalName", "string"),
        ("ActivityType", "string"),
        ("InvestigationPriority", "int"),
    ],
    "SecurityAlert": [
        ("TimeGenerated", "datetime"),
        ("StartTime", "datetime"),
        ("SystemAlertId", "string"),
        ("AlertName", "string"),
        ("AlertType", "string"),
        ("Entities", "string"),
    ],
}
# What a workbook puts in the place of its parameters.
_PARAMETERS = (
    (r"\{TimeRange:(?:start|end)\}", "datetime(2026-11-01T00:00:00Z)"),
    (r"\{Pick_\w+:base64\}", "eyJtb2RlbCI6Im0ifQ=="),
    (r"\{\w+:base64\}", "cmV0YWls"),
)
_KINDS = ("rule", "hunt", "function", "workbook", "transform", "page", "playbook")
_LEAST = {"rule": 116, "hunt": 36, "function": 8, "workbook": 150, "transform": 6, "page": 20, "playbook": 1}
_MUTANTS = {
    "a column of another watchlist": "_GetWatchlist_AitrailOwners() | project Restricted",
    "a parameter that a function has not": "vimAgentEventAitrail(user = 'x')",
    "a column that the normal form drops": "ASimAgentEventAitrail | project PromptText",
    "a column that a table has not": "AIAuditFindings_CL | where ingestion_time() > ago(5m) and LedgerIndex > 1",
}


def filled(text: str) -> str:
    """Without parameters and watchlists that only the workspace knows."""
    for pattern, value in _PARAMETERS:
        text = re.sub(pattern, value, text)
    text = re.sub(r"_GetWatchlist\('(\w+)'\)", r"_GetWatchlist_\1()", text)
    assert not re.search(r"\{\w+(?::\w+)?\}|_GetWatchlist\(", text), text
    return text


def documents(folder: str) -> list[dict[str, Any]]:
    return [yaml.load(path.read_bytes(), Loader=_LOADER) for path in sorted((PACK / folder).glob("*.yaml"))]


def walk(value: Any) -> Iterator[dict[str, Any]]:
    """All objects below a value."""
    if isinstance(value, dict):
        yield value
        for one in value.values():
            yield from walk(one)
    elif isinstance(value, list):
        for one in value:
            yield from walk(one)


def mapped(rule: dict[str, Any]) -> set[str]:
    """The columns that a rule's or hunt's own words name."""
    found = {field["columnName"] for one in rule["entityMappings"] for field in one["fieldMappings"]}
    found |= set(rule.get("customDetails", {}).values())
    for text in rule.get("alertDetailsOverride", {}).values():
        found |= set(re.findall(r"\{\{(\w+)\}\}", text))
    return found


def workbook_items(path: Path) -> Iterator[tuple[str, str, set[str]]]:
    """Queries of a workbook and the columns that what draws them names."""
    for number, item in enumerate(walk(json.loads(path.read_text(encoding="utf-8")))):
        given = item.get("content", item)
        if not isinstance(given, dict) or "query" not in given or (item.get("type") == 3) != ("content" in item):
            continue
        chart, grid = given.get("chartSettings", {}), given.get("gridSettings", {})
        needed = {chart[key] for key in ("xAxis", "group") if key in chart} | set(chart.get("yAxis", []))
        needed |= {one["columnId"] for one in grid.get("labelSettings", [])}
        tiles = given.get("tileSettings", {})
        needed |= {one["columnMatch"] for one in tiles.values() if isinstance(one, dict)}
        yield f"workbook {path.stem}/{item.get('name', '')}/{number}", given["query"], needed


def parsers() -> list[dict[str, str]]:
    """Name, parameters and body of the functions, as the workspace gets them."""
    made = []
    for one in documents("Parsers"):
        name = one.get("FunctionName") or one["ParserName"]
        given = one.get("FunctionParams") or [f"{p['Name']}:{p['Type']}={p['Default']}" for p in one["ParserParams"]]
        made.append(
            {"name": name, "parameters": ", ".join(given), "body": one.get("FunctionQuery") or one["ParserQuery"]}
        )
    return made


def functions() -> list[dict[str, str]]:
    lists = [
        {
            "name": f"_GetWatchlist_{one.alias}",
            "parameters": "",
            "body": f"datatable({', '.join(f'{name}:string' for name in (*one.columns, 'SearchKey'))}) []",
        }
        for one in watchlists()
    ]
    return [*lists, *parsers()]


def queries() -> Iterator[tuple[str, str, set[str]]]:
    """Kind and name, text, and the columns that must be in the result."""
    for rule in documents("Analytic Rules"):
        yield f"rule {rule['name']}", rule["query"], mapped(rule) | {"TimeGenerated"}
    for hunt in documents("Hunting Queries"):
        yield f"hunt {hunt['name']}", hunt["query"], mapped(hunt)
    for one in parsers():
        plain = ", ".join(part.replace(":", " = ").split(" = ")[0] + " = " + part.split("=", 1)[1]
                          for part in one["parameters"].split(", "))  # fmt: skip
        yield (
            f"function {one['name']} body",
            re.sub(r"^", f"let f = ({one['parameters']}) {{ ", one["body"]) + " }; f()",
            set(),
        )
        yield f"function {one['name']} call", f"{one['name']}({plain})", set()
    yield "function since", "AIAudit(starttime = ago(1h)) | project EventUid, PromptText", set()
    yield (
        "function union",
        "union ASimAgentEventAitrail(), vimAgentEventAitrail(username_has_any = dynamic(['a']))",
        set(),
    )
    for path in sorted((PACK / "Workbooks").glob("Aitrail*.json")):
        yield from workbook_items(path)
    rule = json.loads((PACK / "deploy" / "collection.json").read_text(encoding="utf-8"))
    every = {**tables(), **microsoft_streams()}
    parts = rule["variables"].items()
    streams = {key: one for name, part in parts if name.startswith("streamDeclarations") for key, one in part.items()}
    flows = [flow for name, part in parts if name.startswith("dataFlows") for flow in part]
    for number, flow in enumerate(flows):
        declared = streams[flow["streams"][0]]["columns"]
        schema = ", ".join(f"{one['name']}:{'bool' if one['type'] == 'boolean' else one['type']}" for one in declared)
        needed = {name for name, _ in every[flow["outputStream"].partition("-")[2]]}
        yield f"transform {number}", f"let source = datatable({schema}) [];\n{flow['transformKql']}", needed
    for path in sorted((PACK / "Data Connectors").rglob("*.json")):
        for number, item in enumerate(walk(json.loads(path.read_text(encoding="utf-8")))):
            for key in ("baseQuery", "query", "lastDataReceivedQuery"):
                if key in item:
                    yield f"page {path.stem}/{number}/{key}", item[key], set()
            if item.get("type") == "IsConnectedQuery":
                yield f"page {path.stem}/{number}/connected", item["value"][0], {"IsConnected"}
    for path in sorted((PACK / "Playbooks").rglob("azuredeploy.json")):
        for item in walk(json.loads(path.read_text(encoding="utf-8"))):
            if item.get("path") == "/queryData":
                text, count = re.subn(r"@\{base64\([^\"]*\)\}", "cmV0YWls", item["body"])
                assert count == 1
                yield f"playbook {path.parent.name}", text, {"UserId"}


@pytest.fixture(scope="module")
def asked() -> list[tuple[str, str, set[str]]]:
    return [*queries(), *((f"mutant {name}", _MUTANTS[name], set()) for name in _MUTANTS)]


@pytest.fixture(scope="module")
def answers(asked: list[tuple[str, str, set[str]]]) -> dict[str, Any]:
    folder = package("@kusto/language-service-next", runs=True)
    texts = {name: filled(text) for name, text, _ in asked}
    assert len(texts) == len(asked), "two queries have the same name"
    # Many panels have the same events behind them.
    once = {text: str(number) for number, text in enumerate(dict.fromkeys(texts.values()))}
    given = {
        "package": str(folder),
        "tables": {**tables(), **_FOREIGN},
        "functions": functions(),
        "queries": [{"name": number, "text": text} for text, number in once.items()],
    }
    script = Path(__file__).with_name("kusto_bind.mjs")
    run = subprocess.run(
        ["node", str(script)], input=json.dumps(given).encode(), capture_output=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stderr.decode(errors="replace")[-1500:]
    found = {one["name"]: one for one in json.loads(run.stdout)}
    assert len(found) == len(once)
    return {name: {**found[once[text]], "name": name} for name, text in texts.items()}


@pytest.mark.parametrize("kind", _KINDS)
def test_no_diagnostics(answers: dict[str, Any], kind: str) -> None:
    found = [answer for name, answer in answers.items() if name.startswith(f"{kind} ")]
    assert len(found) >= _LEAST[kind]
    assert [(one["name"], one["diagnostics"]) for one in found if one["diagnostics"]] == []


@pytest.mark.parametrize("kind", _KINDS)
def test_named_columns_are_in_the_result(
    asked: list[tuple[str, str, set[str]]], answers: dict[str, Any], kind: str
) -> None:
    for name, text, needed in asked:
        if name.startswith(f"{kind} ") and "evaluate pivot" not in text:
            assert needed <= {column for column, _ in answers[name]["columns"]}, name


def test_what_a_query_is_said_to_give_is_all_it_gives(answers: dict[str, Any]) -> None:
    of = content(content_path("detections"))
    for one in (*of.detections, *of.behaviors):
        kind = "rule" if one.meta.kind == "detection" else "hunt"
        told = [column for column, _ in answers[f"{kind} {sentinel_rules.title(one)}"]["columns"]]
        assert sorted(told) == sorted(sentinel_queries.told(one).columns), one.meta.name


def test_transformations_give_exactly_the_table(
    asked: list[tuple[str, str, set[str]]], answers: dict[str, Any]
) -> None:
    found = [answers[name]["columns"] for name, _, _ in asked if name.startswith("transform ")]
    assert [list(map(tuple, columns)) for columns in found] == [*tables().values(), *microsoft_streams().values()]


def test_the_normal_form_is_the_schemas(answers: dict[str, Any]) -> None:
    known = json.loads((_DATA / "asim_agent_event.json").read_text(encoding="utf-8"))
    allowed = {*known["columns"], *known["by_parsers"], "EventResultDetails"}
    for name in ("ASimAgentEventAitrail", "vimAgentEventAitrail"):
        have = dict(answers[f"function {name} call"]["columns"])
        assert have == {column: ASIM_TYPES.get(column, "string") for column in have}
        assert set(have) <= allowed
        mandatory = "EventCount EventStartTime EventEndTime EventVendor EventProduct EventSchema EventSchemaVersion"
        assert {*mandatory.split(), "TimeGenerated", "Type", "EventType", "EventUid"} <= set(have)
        assert not {"EventOriginalRequestDetails", "EventOriginalResultDetails"} & set(have)
    assert SCHEMA_VERSION == "0.1.0"


def test_hunts_of_this_platform_read_what_they_say() -> None:
    for hunt in HUNTS:
        assert [name for name in _FOREIGN if re.search(rf"\b{name}\b", hunt.query)] == list(hunt.tables)


def test_no_value_enters_a_query_as_it_is() -> None:
    """Only times, which have a fixed form, and base64."""
    for path in sorted((PACK / "Workbooks").glob("Aitrail*.json")):
        for name, text, _ in workbook_items(path):
            found = set(re.findall(r"\{[A-Za-z_]\w*(?::\w+)?\}", text))
            allowed = {"{TimeRange:start}", "{TimeRange:end}"}
            assert {one for one in found - allowed if not one.endswith(":base64}")} == set(), name
            for match in re.finditer(r"\{\w+:base64\}", text):
                before, after = text[: match.start()], text[match.end() :]
                assert before.endswith('base64_decode_tostring("'), name
                assert after.startswith('")'), name
    assert NOTHING == "*"


@pytest.mark.parametrize("name", _MUTANTS)
def test_a_wrong_query_is_reported(answers: dict[str, Any], name: str) -> None:
    assert answers[f"mutant {name}"]["diagnostics"], name
