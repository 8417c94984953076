"""The detection rules of the Elastic pack: complete, with fields that exist, scheduled as the compiler says."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import eql
import pytest
from eql.parser import allow_runs, elasticsearch_syntax, parse_query

from aitrail.compiler import schedule
from aitrail.compiler.behavior import Behavior
from aitrail.compiler.build import content
from aitrail.compiler.emit import Content, kibana, kibana_rules
from aitrail.compiler.emit.packs import source_tree
from aitrail.contentdir import content_path
from parity import elastic_engine
from parity.expressions import stages

ROOT = source_tree() or Path()
PACK = ROOT / kibana.FOLDER
RULES: list[dict[str, Any]] = [
    json.loads(line) for line in (PACK / "import" / "rules.ndjson").read_text(encoding="utf-8").splitlines()
]
_PERIOD = re.compile(r"now-(\d+)([mhd])")
_MINUTES = {"m": 1, "h": 60, "d": 1440}
# Of a rule file (detection-rules, "What a rule file needs").
_NEEDED = {
    "author", "description", "enabled", "false_positives", "from", "interval", "investigation_fields", "language",
    "license", "name", "note", "query", "references", "required_fields", "risk_score", "rule_id", "setup", "severity",
    "tags", "threat", "to", "type", "version",
}  # fmt: skip


@pytest.fixture(scope="module")
def of() -> Content:
    return content(content_path("detections"))


def kept(query: str) -> set[str]:
    """The columns of an ES|QL query."""
    command, _, names = stages(query)[-1].partition(" ")
    assert command == "KEEP"
    return {name.strip() for name in names.split(",")}


def test_every_detection_is_a_rule_and_every_hunt_is_there(of: Content) -> None:
    everything = {rule.meta.id: rule for rule in (*of.detections, *of.behaviors)}
    ids = [one["rule_id"] for one in RULES]
    assert len(ids) == len(set(ids))
    assert len({one["name"] for one in RULES}) == len(RULES)
    detections = {key for key, rule in everything.items() if rule.meta.kind == "detection"}
    assert detections <= set(ids)
    hunts = [json.loads(line) for line in (PACK / "import" / "hunts.ndjson").read_text(encoding="utf-8").splitlines()]
    sessions = [one for one in hunts if one["type"] == "search"]
    assert len(ids) + len(sessions) == len(everything)
    for one in sessions:
        source = json.loads(one["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"])
        assert source["query"]["esql"].startswith(f"FROM {source['index']['title']}")
        assert {ref["id"] for ref in one["references"]} <= {other["id"] for other in hunts}


@pytest.mark.parametrize("one", [pytest.param(one, id=one["rule_id"]) for one in RULES])
def test_a_rule_is_complete(one: dict[str, Any]) -> None:
    assert set(one) >= _NEEDED
    assert not [key for key in _NEEDED - {"enabled", "false_positives"} if not one[key]]
    assert one["enabled"] is False
    assert one["severity"] in ("low", "medium", "high", "critical")
    assert 1 <= one["risk_score"] <= 100
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", one["rule_id"])
    phases = re.findall(r"^### (\w+)", one["note"], re.MULTILINE)
    assert phases[:4] == ["Validate", "Contain", "Investigate", "Remediate"]
    assert one["investigation_fields"]["field_names"]
    assert {field["name"] for field in one["required_fields"]} >= set(one["alert_suppression"]["group_by"]) - {
        "event.id"
    }
    known = kibana_rules.types()
    assert {field["name"]: field["type"] for field in one["required_fields"]}.items() <= known.items()
    assert set(one["investigation_fields"]["field_names"]) <= set(known)


@pytest.mark.parametrize("one", [pytest.param(one, id=one["rule_id"]) for one in RULES])
def test_a_rule_is_suppressed_by_what_its_alerts_have(one: dict[str, Any]) -> None:
    by = one["alert_suppression"]["group_by"]
    assert 1 <= len(by) <= schedule.ELASTIC_MOST_FIELDS
    if one["language"] == "eql":
        assert one["index"] == ["logs-ai_audit.access-*"]
        assert f"sequence by {', '.join(by)} " in one["query"]
        with elasticsearch_syntax, allow_runs, eql.Schema({}, allow_any=True, allow_generic=True, allow_missing=True):
            parse_query(one["query"])
    else:
        assert "index" not in one
        assert set(by) <= kept(one["query"])
        if not re.search(r"^\| (INLINE)?STATS", one["query"], re.MULTILINE):
            assert " METADATA _id, _index, _version\n" in one["query"]
            assert {"_id", "_index", "_version"} <= kept(one["query"])


def test_rules_run_when_the_compiler_says(of: Content) -> None:
    known = {one["rule_id"]: one for one in RULES}
    compared = 0
    for rule in (*of.detections, *of.behaviors):
        if rule.meta.kind != "detection":
            continue
        one, plan = known[rule.meta.id], kibana_rules.plan(rule)
        wanted = schedule.elastic(plan)
        assert (one["interval"], one["from"]) == (wanted.interval, wanted.since)
        assert tuple(one["alert_suppression"]["group_by"]) == wanted.suppress_fields
        match = _PERIOD.fullmatch(one["from"])
        assert match
        # What a run sees covers the window and everything since the last run.
        assert int(match[1]) * _MINUTES[match[2]] * 60 >= plan.window + plan.every
        compared += 1
    assert compared == 116


def test_single_event_rules_find_their_own_examples(of: Content) -> None:
    """The text that is shipped is the one that the parity tests judge: it hits an example's document."""
    from aitrail.compiler.examples import events_of
    from aitrail.compiler.rule import Rule
    from parity.test_parity_esql import documents

    known = {one["rule_id"]: one for one in RULES}
    found = 0
    for rule in of.detections:
        one = known.get(rule.meta.id)
        if one is None or not isinstance(rule, Rule) or rule.dataset != "access":
            continue
        for example in rule.meta.hits:
            assert elastic_engine.esql(one["query"], documents(events_of(example))), one["name"]
            found += 1
    assert found > 60


def test_threats_are_those_of_the_taxonomy() -> None:
    tables = {
        name: tomllib.loads(content_path("taxonomy", f"{name}.toml").read_text(encoding="utf-8"))
        for name in ("attack", "atlas")
    }
    tactics = {
        "MITRE ATT&CK": {key: name for name, key in tables["attack"]["tactics"].items()},
        "MITRE ATLAS": tables["atlas"]["tactics"],
    }
    techniques = {"MITRE ATT&CK": tables["attack"]["techniques"], "MITRE ATLAS": tables["atlas"]["techniques"]}
    with_atlas = 0
    for one in RULES:
        for entry in one["threat"]:
            framework, tactic = entry["framework"], entry["tactic"]
            assert tactics[framework][tactic["id"]] == tactic["name"]
            for technique in entry["technique"]:
                for wanted in technique["subtechnique"]:
                    assert wanted["id"].startswith(technique["id"])
                    assert wanted["id"] in techniques[framework]
                assert technique["subtechnique"] or technique["id"] in techniques[framework]
        with_atlas += any(entry["framework"] == "MITRE ATLAS" for entry in one["threat"])
        assert any(tag.startswith("OWASP: LLM") for tag in one["tags"]) or "owasp." not in one["note"]
        assert len(one["tags"]) == len(set(one["tags"]))
    assert with_atlas > 100
    tags = {tag for one in RULES for tag in one["tags"]}
    assert {"Mitre Atlas: T0051", "OWASP: LLM01:2025", "Domain: LLM"} <= tags


def test_the_package_holds_the_same_rules() -> None:
    found = {}
    for path in sorted((PACK / "package" / "kibana" / "security_rule").glob("*.json")):
        one = json.loads(path.read_text(encoding="utf-8"))
        assert one["type"] == "security-rule"
        assert one["id"] == path.stem == f"{one['attributes']['rule_id']}_{one['attributes']['version']}"
        found[one["attributes"]["rule_id"]] = one["attributes"]
    wanted = {one["rule_id"]: {key: one[key] for key in found[one["rule_id"]]} for one in RULES}
    assert found == wanted
    assert not {"enabled", "immutable", "actions"} & {key for one in found.values() for key in one}


def test_behaviors_are_rules_too(of: Content) -> None:
    tagged = [one for one in RULES if "Rule Type: Behavior" in one["tags"]]
    assert len(tagged) == sum(isinstance(rule, Behavior) and rule.meta.kind == "detection" for rule in of.behaviors)
