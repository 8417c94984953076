"""The Sentinel solution as it lies in the repository: the rules of the public validators, and that all names resolve.

What queries bind to is in ``tests/parity/test_sentinel_bind.py``.
"""

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

from aitrail.compiler.build import content
from aitrail.compiler.emit import Content, sentinel, sentinel_queries
from aitrail.compiler.emit.packs import present, source_tree
from aitrail.compiler.emit.sentinel_attack import TACTICS
from aitrail.compiler.emit.sentinel_hunts import HUNTS
from aitrail.compiler.emit.sentinel_lists import watchlists
from aitrail.compiler.emit.sentinel_panels import drawn_as
from aitrail.compiler.emit.sentinel_playbooks import query
from aitrail.compiler.emit.sentinel_tables import microsoft_streams, tables
from aitrail.compiler.tags import taxonomy
from aitrail.contentdir import content_path
from aitrail.destinations.sentinel_anomalies import anomaly
from aitrail.destinations.sentinel_rows import asim_layout
from aitrail.schema.catalog import fields
from aitrail.streams import Finding

ROOT = source_tree() or Path()
PACK = ROOT / "sentinel_workbooks"
# Several times as fast where libyaml is there.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MOST = 3_000_000
_IDENTIFIERS = {
    "Account": {"FullName", "Name", "AadUserId", "ObjectGuid", "Sid", "PUID"},
    "IP": {"Address"},
    "Host": {"HostName", "FullName"},
    "CloudApplication": {"Name", "AppId", "InstanceName"},
    "AzureResource": {"ResourceId"},
}
_UNITS = {"m": 60, "h": 3600, "d": 86400}


@pytest.fixture(scope="module")
def of() -> Content:
    return content(content_path("detections"))


def read(path: str) -> Any:
    return json.loads((PACK / path).read_text(encoding="utf-8"))


def yamls(folder: str) -> list[dict[str, Any]]:
    return [yaml.load(path.read_bytes(), Loader=_LOADER) for path in sorted((PACK / folder).glob("*.yaml"))]


def walk(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from walk(one)


RULES = yamls("Analytic Rules")
HUNTED = yamls("Hunting Queries")
WORKBOOKS = sorted((PACK / "Workbooks").glob("Aitrail*.json"))


# --- what is committed is what is made


def test_committed_files_are_what_the_content_gives(of: Content) -> None:
    made, there = sentinel.files(of), present(PACK)
    assert [path for path, data in made.items() if there.get(path) != data] == [], "run: aitrail content build"
    owned = [path for path in there if any(PurePosixPath(path).match(one) for one in sentinel.PACK.owned)]
    assert sorted(owned) == sorted(path for path in made if path in owned)
    by_hand = set(there) - set(made)
    assert by_hand == {"README.md", "ReleaseNotes.md", "Logos/aitrail.svg", "checkov.yaml"}
    assert sum(map(len, there.values())) < MOST


def test_archives_have_the_same_bytes_twice() -> None:
    held = present(PACK)
    first, again = sentinel.archives(held), sentinel.archives(dict(reversed(held.items())))
    assert first == again
    assert [name for name in first if name.endswith(".zip")] == list(first)
    assert all(50_000 < len(data) < MOST for data in first.values())


def test_text_is_clean() -> None:
    for path, data in present(PACK).items():
        text = data.decode("utf-8")
        assert text.isascii(), path
        assert not re.search(r"[ \t]+$", text, re.MULTILINE), path
        assert "\r" not in text, path
        assert not text.endswith("\n\n"), path
        assert "Azure Sentinel" not in text, f"{path}: the product is Microsoft Sentinel"
        assert not re.search(r"learn\.microsoft\.com/[a-z]{2}-[a-z]{2}/", text), f"{path}: a link in one language"


def test_links_to_this_repository_lead_somewhere() -> None:
    linked = set()
    for path, data in present(PACK).items():
        if path != "README.md":
            linked |= set(
                re.findall(r"github\.com/aitrail/aitrail/blob/main/([\w./-]+?)[\s)\"\\.]*(?=[)\s\"\\])", data.decode())
            )
    assert {"docs/install-sentinel.md", "docs/deploy-azure.md", "deploy/azure/azuredeploy.flex.json"} <= linked
    assert [one for one in sorted(linked) if not (ROOT / one).is_file()] == []


# --- rules and hunts


def seconds(span: str) -> int:
    return int(span[:-1]) * _UNITS[span[-1]]


def test_each_rule_is_shipped_once(of: Content) -> None:
    every = (*of.detections, *of.behaviors)
    assert sorted(one["id"] for one in RULES) == sorted(r.meta.id for r in every if r.meta.kind == "detection")
    hunts = [r.meta.id for r in every if r.meta.kind == "hunt"]
    assert sorted(one["id"] for one in HUNTED) == sorted([*hunts, *(hunt.id for hunt in HUNTS)])
    ids = [one["id"] for one in (*RULES, *HUNTED)]
    assert len({str(uuid.UUID(one)) for one in ids}) == len(ids)
    assert len({one["name"] for one in (*RULES, *HUNTED)}) == len(ids)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["name"])
def test_a_rule_is_valid(rule: dict[str, Any]) -> None:
    assert len(rule["name"]) <= 256
    assert 20 < len(rule["description"]) <= 5000
    assert rule["severity"] in ("Informational", "Low", "Medium", "High")
    assert re.fullmatch(r"\d+\.\d+\.\d+", rule["version"])
    assert 0 < len(rule["query"]) <= 10_000
    assert not re.search(r"\b(search|union)\s+\*|cluster\(|database\(", rule["query"])
    if rule["kind"] == "NRT":
        assert not {"queryFrequency", "queryPeriod", "triggerOperator", "triggerThreshold"} & set(rule)
        assert "ingestion_time()" not in rule["query"]
    else:
        assert rule["kind"] == "Scheduled"
        every, period = seconds(rule["queryFrequency"]), seconds(rule["queryPeriod"])
        assert 300 <= every <= period <= 14 * 86400
        assert every >= 3600 or period < 2 * 86400, "what looks back two days runs hourly at most"
        assert rule["triggerOperator"] == "gt"
        assert rule["triggerThreshold"] == 0
    mapped(rule)
    attacked(rule)
    details = rule["customDetails"]
    assert 0 < len(details) <= 20
    assert all(re.fullmatch(r"[a-zA-Z]\w{0,19}", key) for key in details)
    assert all(re.fullmatch(r"[a-zA-Z_]\w{0,499}", column) for column in details.values())
    for text in rule["alertDetailsOverride"].values():
        assert len(re.findall(r"\{\{\w+\}\}", text)) <= 3
    assert len(rule["alertDetailsOverride"]["alertDisplayNameFormat"]) <= 256
    grouped = rule["incidentConfiguration"]["groupingConfiguration"]
    assert grouped["matchingMethod"] == "Selected"
    assert grouped["groupByEntities"] or grouped["groupByCustomDetails"]
    assert set(grouped["groupByEntities"]) <= {one["entityType"] for one in rule["entityMappings"]}
    assert set(grouped["groupByCustomDetails"]) <= set(details)


def mapped(one: dict[str, Any]) -> None:
    """Entities: one to five, each with an identifier that its type has."""
    assert 1 <= len(one["entityMappings"]) <= 5
    for entity in one["entityMappings"]:
        assert 1 <= len(entity["fieldMappings"]) <= 3
        assert {field["identifier"] for field in entity["fieldMappings"]} <= _IDENTIFIERS[entity["entityType"]]
    for needed in one["requiredDataConnectors"]:
        assert needed["connectorId"] in ("AitrailPush", "AitrailFunctionApp")
        assert set(needed["dataTypes"]) <= set(tables())


def attacked(one: dict[str, Any]) -> None:
    """ATT&CK as Sentinel's edition has it, no technique without one of its tactics."""
    assert one["tactics"]
    assert set(one["tactics"]) <= set(TACTICS)
    table = taxonomy("attack.toml")
    for technique in one["relevantTechniques"]:
        assert re.fullmatch(r"T\d{4}(\.\d{3})?", technique)
        current = table["revoked"].get(technique, {"by": technique})["by"]
        own = {name.replace(" ", "") for name in table["techniques"][current]["tactics"]}
        own |= {"DefenseEvasion"} if own & {"Stealth", "DefenseImpairment"} else set()
        assert own & set(one["tactics"]), (technique, one["tactics"])


@pytest.mark.parametrize("hunt", HUNTED, ids=lambda hunt: hunt["name"])
def test_a_hunt_is_valid(hunt: dict[str, Any]) -> None:
    assert len(hunt["query"]) <= 10_000
    assert 20 < len(hunt["description"]) <= 5000
    mapped(hunt)
    attacked(hunt)


def test_single_events_are_told_once_and_windows_never_missed(of: Content) -> None:
    """Single events by when they were taken in, windows by when they happened, hunts without a limit."""
    for rule in (*of.detections, *of.behaviors):
        text, plan = sentinel_queries.told(rule).text, sentinel_queries.plan(rule)
        single = isinstance(rule, sentinel_queries.Rule)
        nrt = sentinel_queries.near_real_time(rule)
        assert text.count("ingestion_time() >") == (single and plan.scheduled and not nrt), rule.meta.name
        window = f"| where EventTime > ago({(plan.every + plan.slack) // 60}m)"
        assert (window in text) == (not single and plan.scheduled), rule.meta.name
    assert sum(sentinel_queries.near_real_time(rule) for rule in of.detections) == len(sentinel_queries.NRT)


def test_what_a_slower_run_must_see_grows_with_it(of: Content) -> None:
    slower = [rule for rule in of.behaviors if sentinel_queries.plan(rule).every != _usual(rule)]
    assert [rule.meta.name for rule in slower] == [
        "key_calls_off_baseline", "principal_many_regions", "user_many_models",
    ]  # fmt: skip
    for rule in slower:
        plan = sentinel_queries.plan(rule)
        assert plan.every == 3600
        assert f"let Recent = Now - {(3600 + plan.slack) // 60}m;" in sentinel_queries.told(rule).text


def _usual(rule: Any) -> int:
    from aitrail.compiler import behavior_schedule

    return behavior_schedule.plan(rule).every


# --- workbooks


@pytest.mark.parametrize("path", WORKBOOKS, ids=lambda path: path.stem)
def test_a_workbook_holds_together(path: Path, of: Content) -> None:
    book = json.loads(path.read_text(encoding="utf-8"))
    board = next(one for one in of.dashboards if path.stem == f"Aitrail{one.name.capitalize()}")
    assert book["fromTemplateId"] == f"sentinel-{path.stem}"
    assert book["version"] == "Notebook/1.0"
    items = [
        one for one in walk(book) if isinstance(one, dict) and isinstance(one.get("type"), int) and "content" in one
    ]
    names = [one["name"] for one in items]
    assert len(set(names)) == len(names)
    given = [one["name"] for one in book["items"][1]["content"]["parameters"]]
    assert given == ["TimeRange", "TenantId", "Department", "Model", "UserId"]
    panels = {one["name"]: one for one in items if one["type"] == 12 and "customWidth" in one}
    assert list(panels) == [panel.id for panel in board.panels]
    for panel in board.panels:
        assert panels[panel.id]["content"]["items"][1]["content"]["json"] == f"_{panel.help}_"
        drawn = panels[panel.id]["content"]["items"][0]["content"]
        assert drawn["visualization"] == drawn_as(panel)
        assert not panel.empty or drawn["noDataMessage"] == panel.empty
    for one in items:
        if one["type"] == 3:
            assert one["content"]["timeContext"] == {"durationMs": 0}, (
                "a range of the platform would cut the one before"
            )
            assert "timeContextFromParameter" not in one["content"]


@pytest.mark.parametrize("path", WORKBOOKS, ids=lambda path: path.stem)
def test_rows_of_panels_are_full(path: Path, of: Content) -> None:
    board = next(one for one in of.dashboards if path.stem == f"Aitrail{one.name.capitalize()}")
    for section in board.sections:
        width = 0
        for panel in section.panels:
            width += panel.width
            assert width <= 12
            width %= 12
        assert width == 0


@pytest.mark.parametrize("path", WORKBOOKS, ids=lambda path: path.stem)
def test_what_is_shown_on_a_click_is_asked_for_by_one(path: Path) -> None:
    """Each conditional item waits for a parameter that a table exports or a link sets, with what hides it."""
    given, waiting = {}, []
    for one in walk(json.loads(path.read_text(encoding="utf-8"))):
        if isinstance(one, dict):
            if "exportParameterName" in one:
                given[one["exportParameterName"]] = ("isNotEqualTo", one["exportDefaultValue"])
            if one.get("linkTarget") == "parameter":
                given[one["cellValue"]] = ("isEqualTo", one["subTarget"])
            if "conditionalVisibility" in one:
                when = one["conditionalVisibility"]
                waiting.append((when["parameterName"], (when["comparison"], when["value"])))
    assert dict(waiting) == given
    assert len(waiting) == len(given) > 5


def test_workbooks_name_no_place() -> None:
    for path in WORKBOOKS:
        text = path.read_text(encoding="utf-8")
        assert "/subscriptions/" not in text.replace('startswith \\"/subscriptions/', "")
        allowed = {one["id"] for one in json.loads(text)["items"][1]["content"]["parameters"]}
        assert set(re.findall(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", text)) == allowed


def test_the_gallery_knows_every_workbook() -> None:
    entries = read("Workbooks/WorkbooksMetadata.json")
    keys = {
        "workbookKey",
        "logoFileName",
        "description",
        "dataTypesDependencies",
        "dataConnectorsDependencies",
        "previewImagesFileNames",
        "version",
        "title",
        "templateRelativePath",
        "subtitle",
        "provider",
        "support",
    }
    assert all(set(one) == keys for one in entries)
    assert sorted(one["templateRelativePath"] for one in entries) == [path.name for path in WORKBOOKS]
    assert all((PACK / "Logos" / one["logoFileName"]).stat().st_size <= 5000 for one in entries)


# --- connectors, tables, playbooks, watchlists


def test_connector_pages_say_what_the_hub_asks_for() -> None:
    page = read("Data Connectors/Aitrail_API_FunctionApp.json")
    asked = "id title publisher descriptionMarkdown graphQueries sampleQueries dataTypes connectivityCriterias"
    assert {*asked.split(), "availability", "permissions", "instructionSteps", "metadata"} <= set(page)
    push = read("Data Connectors/AitrailPush_ccf/AitrailPush_connectorDefinition.json")["properties"][
        "connectorUiConfig"
    ]
    for one in (page, push):
        assert re.fullmatch(r"[A-Za-z]+", one["id"])
        assert [kind["name"] for kind in one["dataTypes"]] == list(tables())
        assert all(" " not in kind["name"] for kind in one["dataTypes"])
    assert "deploy-azure.md" in json.dumps(page["instructionSteps"])
    filled = [
        one["parameters"].get("fillWith")
        for one in walk(push)
        if isinstance(one, dict) and one.get("type") == "CopyableLabel"
    ]
    names = ["TenantId", "ApplicationId", "ApplicationSecret", "DataCollectionEndpoint", "DataCollectionRuleId"]
    assert filled == [*([name] for name in names), None]
    connection = read("Data Connectors/AitrailPush_ccf/AitrailPush_dataConnector.json")
    assert connection["properties"]["connectorDefinitionName"] == push["id"]
    rule = read("Data Connectors/AitrailPush_ccf/AitrailPush_DCR.json")[0]["properties"]
    assert connection["properties"]["dcrConfig"]["streamName"] in rule["streamDeclarations"]


def test_tables_and_rule_are_those_of_the_function_app() -> None:
    mine = read("deploy/collection.json")
    theirs = json.loads((ROOT / "deploy" / "azure" / "azuredeploy.flex.json").read_text(encoding="utf-8"))

    def parts(template: Any) -> tuple[dict[str, Any], Any]:
        every = [one for one in walk(template) if isinstance(one, dict) and "apiVersion" in one]
        rule = next(one for one in every if one["type"] == "Microsoft.Insights/dataCollectionRules")
        listed = [one["properties"]["schema"] for one in every if one["type"].endswith("workspaces/tables")]
        return {one["name"]: one["columns"] for one in listed}, rule

    (own, rule), (other, their) = parts(mine), parts(theirs)
    assert own == other
    assert rule["kind"] == their["kind"] == "Direct"
    assert "dataCollectionEndpointId" not in rule["properties"]
    for key in ("streamDeclarations", "dataFlows"):
        assert mine["variables"][key] == their["properties"][key]
        assert rule["properties"][key].startswith(("[union(", "[concat("))
        assert re.findall(r"variables\('([\w-]+)'\)", rule["properties"][key]) == [
            key, f"{key}-ASimAgentEventLogs", f"{key}-Anomalies",
        ]  # fmt: skip
    assert mine["parameters"]["agentEvents"]["defaultValue"] is mine["parameters"]["anomalies"]["defaultValue"] is False
    for name, columns in own.items():
        assert columns[0] == {"name": "TimeGenerated", "type": "datetime"}
        assert len(columns) <= 500
        assert all(len(one["name"]) <= 45 for one in columns), name


def test_rows_for_microsofts_tables_are_declared() -> None:
    """All that the destination writes, and nothing else."""
    declared = {name: dict(listed) for name, listed in microsoft_streams().items()}
    chunks, _ = asim_layout(tuple(field.name for field in fields()), "timestamp")
    text = b"0".join(chunks).decode()
    top = text[: text.index('"AdditionalFields"')] + '"AdditionalFields":0}'
    assert set(re.findall(r'"(\w+)":', top)) == set(declared["ASimAgentEventLogs"])
    known = json.loads((ROOT / "tests" / "data" / "asim_agent_event.json").read_text(encoding="utf-8"))
    assert set(declared["ASimAgentEventLogs"]) <= {*known["columns"], *known["by_parsers"]}
    finding = Finding(
        event_id="f", tenant_id="t", timestamp="2026-11-23T09:00:00.000Z", rule_id="r", rule_name="n", rule_version="1",
        severity="high", user_id="a@example.com", entities=("ip:203.0.113.9",), evidence_ids=("e",), evidence_count=1,
        tags=("attack.impact", "attack.t1485"), risk_score=80, summary="s",
    )  # fmt: skip
    assert set(anomaly(finding)) == set(declared["Anomalies"])


@pytest.mark.parametrize(
    "path", sorted((PACK / "Playbooks").rglob("azuredeploy.json")), ids=lambda path: path.parent.name
)
def test_a_playbook_is_valid(path: Path) -> None:
    made = json.loads(path.read_text(encoding="utf-8"))
    told = made["metadata"]
    assert {"title", "description", "prerequisites", "lastUpdateTime", "entities", "tags", "support", "author"} <= set(
        told
    )
    assert all(one == one.lower() for one in told["entities"])
    assert made["parameters"]["PlaybookName"]["defaultValue"] == path.parent.name
    flows = [one for one in made["resources"] if one["type"] == "Microsoft.Logic/workflows"]
    assert [one["name"] for one in flows] == ["[parameters('PlaybookName')]"]
    assert flows[0]["location"] == "[resourceGroup().location]"
    assert flows[0]["identity"] == {"type": "SystemAssigned"}
    definition = flows[0]["properties"]["definition"]
    given = flows[0]["properties"]["parameters"]
    assert set(given) == set(definition["parameters"])
    text = json.dumps(definition)
    used = set(re.findall(r"parameters\('\$connections'\)\['(\w+)'\]", text))
    assert used == set(given["$connections"]["value"])
    assert set(re.findall(r"@parameters\('(\w+)'\)", text)) == set(given) - {"$connections"}
    actions = {
        name: one
        for block in walk(definition)
        if isinstance(block, dict) and "actions" in block
        for name, one in block["actions"].items()
    }
    for one in actions.values():
        assert set(one.get("runAfter", {})) <= set(actions)
    assert set(re.findall(r"body\('(\w+)'\)", text)) <= set(actions)
    assert not re.search(r"(?i)prompttext|responsetext", text), "texts of prompts and answers stay where they are"


def test_no_entity_enters_a_playbooks_query_as_it_is() -> None:
    found = re.findall(r"@\{[^}]*\}", query())
    assert len(found) == 1
    assert found[0].startswith("@{base64(")
    assert f'base64_decode_tostring("{found[0]}")' in query()


def test_the_address_of_a_notification_is_a_secret() -> None:
    made = read("Playbooks/aitrail-Notify/azuredeploy.json")
    assert made["parameters"]["NotificationUrl"]["type"] == "securestring"
    flow = next(one for one in made["resources"] if one["type"] == "Microsoft.Logic/workflows")["properties"]
    assert flow["definition"]["parameters"]["notificationUrl"] == {"type": "SecureString"}
    post = flow["definition"]["actions"]["Post_notification"]
    assert post["inputs"]["uri"] == "@parameters('notificationUrl')"
    assert post["runtimeConfiguration"]["secureData"]["properties"] == ["inputs"]


def test_watchlists_hold_their_columns() -> None:
    for one in watchlists():
        made = read(f"Watchlists/{one.alias}.json")["resources"][0]["properties"]
        head, *rows = made["rawContent"].splitlines()
        assert head.split(",") == list(one.columns)
        assert made["itemsSearchKey"] == one.columns[0]
        assert len(rows) == len(one.rows) > 0
        assert made["watchlistAlias"] == one.alias
