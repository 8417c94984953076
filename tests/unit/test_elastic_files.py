"""What Elasticsearch is given: templates that fit together, a pipeline run on documents, transforms."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aitrail.compiler.emit import elastic_files, kibana
from aitrail.compiler.emit.kibana_rules import types
from aitrail.compiler.emit.packs import source_tree
from aitrail.destinations.elastic_install import TEMPLATE_VERSION, artefacts
from aitrail.event import AccessEvent
from aitrail.schema.ecs import to_ecs
from aitrail.streams import STREAMS
from parity import ingest_engine

ROOT = source_tree() or Path()
FILES = {
    path.relative_to(ROOT / kibana.FOLDER / "elasticsearch").as_posix().removesuffix(".json"): json.loads(
        path.read_text(encoding="utf-8")
    )
    for path in sorted((ROOT / kibana.FOLDER / "elasticsearch").rglob("*.json"))
}
PIPELINE = FILES[f"_ingest/pipeline/{elastic_files.PIPELINE}"]
Json = dict[str, Any]


def leaves(properties: Json, before: str = "") -> dict[str, Json]:
    found: dict[str, Json] = {}
    for name, inner in properties.items():
        if "properties" in inner:
            assert set(inner) == {"properties"}
            found |= leaves(inner["properties"], f"{before}{name}.")
        else:
            found[before + name] = inner
    return found


def composed(template: Json) -> tuple[dict[str, Json], Json]:
    """Fields and index settings of a template with its components, as Elasticsearch joins them."""
    found: dict[str, Json] = {}
    settings: Json = {}
    for name in template["composed_of"]:
        component = FILES.get(f"_component_template/{name}")
        if component is None:
            assert name in template["ignore_missing_component_templates"]
            continue
        own = leaves(component["template"].get("mappings", {}).get("properties", {}))
        for field, mapped in own.items():
            assert found.setdefault(field, mapped) == mapped, field
        settings |= component["template"].get("settings", {}).get("index", {})
    for field in found:
        assert not any(other.startswith(f"{field}.") for other in found), field
    return found, settings


ACCESS, SETTINGS = composed(FILES["_index_template/logs-ai_audit.access"])


def test_templates_are_those_of_the_destination() -> None:
    for path, body in artefacts().items():
        assert FILES[path[1:]] == body
    assert TEMPLATE_VERSION == 3
    for stream in STREAMS:
        template = FILES[f"_index_template/logs-ai_audit.{stream}"]
        assert template["priority"] == 501
        composed(template)


def test_everything_that_is_read_is_mapped() -> None:
    there = dict(ACCESS)
    for stream in ("finding", "health"):
        there |= composed(FILES[f"_index_template/logs-ai_audit.{stream}"])[0]
    for name, kind in types().items():
        assert there[name]["type"] == kind, name
    assert {"type": "constant_keyword", "value": "ai_audit.access"}.items() <= ACCESS["data_stream.dataset"].items()


def test_aliases_lead_to_fields_and_hide_none() -> None:
    aliases = {name: mapped["path"] for name, mapped in ACCESS.items() if mapped["type"] == "alias"}
    assert aliases == elastic_files.ALIASES
    for name, path in aliases.items():
        assert ACCESS[path]["type"] != "alias", name
    # Elasticsearch checks a component by itself.
    own = leaves(FILES["_component_template/logs-ai_audit.access@enrichment"]["template"]["mappings"]["properties"])
    assert set(aliases.values()) <= set(own)
    assert "gen_ai.request.model.id" not in ACCESS


# Of the field sets geo and as where ``source`` reuses them (ECS, generated component template ``source``).
_REUSED = {"source.geo.location": "geo_point", "source.as.number": "long"}


def test_written_fields_have_the_types_of_ecs() -> None:
    known = json.loads((ROOT / "tests" / "data" / "ecs_9_5.json").read_text(encoding="utf-8"))["fields"]
    compared = 0
    for name, mapped in elastic_files.WRITTEN.items():
        if name in known:
            assert mapped["type"] == known[name][0], name
            compared += 1
        elif name.startswith(("source.geo.", "source.as.")):
            assert mapped["type"] == _REUSED.get(name, "keyword"), name
        else:
            assert name.startswith("gen_ai."), name
    assert compared == 7


def test_the_pipeline_is_switched_on_by_its_component_alone() -> None:
    assert SETTINGS["default_pipeline"] == elastic_files.PIPELINE
    for stream in ("finding", "health", "checkpoint"):
        assert "default_pipeline" not in composed(FILES[f"_index_template/logs-ai_audit.{stream}"])[1]
    assert SETTINGS["lifecycle"] == {"name": elastic_files.POLICY, "prefer_ilm": True}
    assert f"_ilm/policy/{elastic_files.POLICY}" in FILES


# --- the pipeline, run


def document(**fields: Any) -> Json:
    base = {"event_id": "e1", "timestamp": "2026-11-23T10:00:00.000Z", "tenant_id": "acme", "source": "litellm"}
    return to_ecs(msgspec.convert(base | fields, AccessEvent))


def test_every_processor_has_a_tag_of_its_own() -> None:
    tags = [settings["tag"] for one in PIPELINE["processors"] + PIPELINE["on_failure"] for settings in one.values()]
    assert len(tags) == len(set(tags)) == 11


def test_places_networks_and_clients_are_added() -> None:
    before = document(src_ip="203.0.113.7", user_agent="Mozilla/5.0 (Example)", user_id="ines")
    found = ingest_engine.run(PIPELINE, before)
    assert found["source"]["ip"] == "203.0.113.7"
    assert found["source"]["geo"]["country_iso_code"] == "CH"
    assert found["source"]["as"] == {"number": 64500, "organization": {"name": "Example Net"}}
    assert found["user_agent"] == {"name": "Example", "version": "5.0", "original": "Mozilla/5.0 (Example)"}
    assert found["event"]["ingested"] == ingest_engine.NOW
    assert "detected" not in found.get("gen_ai", {}).get("threat", {})
    assert "source" not in {key for key in before if before[key] != found[key]} - {"source", "user_agent", "event"}


@pytest.mark.parametrize(
    ("fields", "violated", "attacked"),
    [
        ({}, None, None),
        ({"outcome_status": "blocked"}, True, None),
        ({"guardrail_categories": ["jailbreak"]}, True, None),
        ({"guardrail_action": "blocked"}, True, None),
        ({"guardrail_action": "allowed", "prompt_classification": "clean"}, None, None),
        ({"injection_tier": "suspicious"}, None, True),
        ({"injection_tier": "high", "outcome_status": "blocked"}, True, True),
    ],
)
def test_verdicts_have_the_names_of_elastics_rules(fields: Json, violated: bool | None, attacked: bool | None) -> None:
    found = ingest_engine.run(PIPELINE, document(**fields))
    assert ingest_engine.value(found, "gen_ai.compliance.violation_detected") is violated
    assert ingest_engine.value(found, "gen_ai.threat.detected") is attacked


def test_nothing_is_lost_without_an_address_and_nothing_changes_twice() -> None:
    before = document(ingested_at="2026-11-23T10:00:05.000Z", model="gpt-4o")
    assert ingest_engine.run(PIPELINE, before) == before


def test_a_failure_is_said_in_the_document_which_is_kept() -> None:
    before = document(user_id="ines")
    before["source"] = {"ip": 7}
    found = ingest_engine.run(PIPELINE, before)
    assert found["event"]["kind"] == "pipeline_error"
    (said,) = found["error"]["message"]
    assert said.startswith("Processor geoip with tag geo in pipeline test failed: field [source.ip]")
    assert found["user"] == before["user"]


def test_what_is_written_is_mapped() -> None:
    event = document(
        src_ip="203.0.113.7", user_agent="Mozilla/5.0 (Example)", injection_tier="high", outcome_status="blocked"
    )
    found = ingest_engine.run(PIPELINE, event)
    names: set[str] = set()

    def walk(tree: Json, before: str) -> None:
        for key, inner in tree.items():
            if isinstance(inner, dict):
                walk(inner, f"{before}{key}.")
            else:
                names.add(before + key)

    walk(found, "")
    assert names <= set(ACCESS)


# --- transforms and the policy

_NUMERIC = {"long", "double", "float"}
TRANSFORMS = {path.rpartition("/")[2]: body for path, body in FILES.items() if path.startswith("_transform/")}


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
def test_transforms_read_what_is_mapped_and_write_what_their_template_maps(name: str) -> None:
    body = TRANSFORMS[name]
    template = FILES[f"_index_template/{elastic_files.DAILY}"]
    written = template["template"]["mappings"]["properties"]
    assert body["dest"]["index"] in template["index_patterns"]
    pivot = body["pivot"]
    assert set(pivot["group_by"]) & set(pivot["aggregations"]) == set()
    for key, group in pivot["group_by"].items():
        ((kind, settings),) = group.items()
        assert ACCESS[settings["field"]]["type"] == {"terms": "keyword", "date_histogram": "date"}[kind]
        assert written[key]["type"] == {"terms": "keyword", "date_histogram": "date"}[kind]
    for key, number in pivot["aggregations"].items():
        ((kind, settings),) = number.items()
        if kind == "filter":
            ((_, test),) = settings.items()
            field = test["field"] if "field" in test else next(iter(test))
            assert written[key]["type"] == "long"
        else:
            field = settings["field"]
            if kind in ("sum", "max", "percentiles"):
                assert ACCESS[field]["type"] in _NUMERIC, field
        assert field in ACCESS, field
        if kind == "percentiles":
            assert set(written[key]["properties"]) == {str(part) for part in settings["percents"]}
        else:
            assert written[key]["type"] in _NUMERIC
    assert ACCESS[body["sync"]["time"]["field"]]["type"] == "date"
    assert body["retention_policy"]["time"]["field"] in pivot["group_by"]


def test_the_policy_goes_from_hot_to_the_end() -> None:
    phases = FILES[f"_ilm/policy/{elastic_files.POLICY}"]["policy"]["phases"]
    assert list(phases) == ["hot", "warm", "cold", "delete"]
    ages = [int(phase["min_age"].rstrip("dms")) for phase in phases.values()]
    assert ages == sorted(set(ages))
    assert "rollover" in phases["hot"]["actions"]
    assert ages[-1] >= 365
