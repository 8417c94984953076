"""OCSF and ECS exports: valid by the standards' own schemas, complete, and translated as documented."""

import json
import string
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import get_args

import jsonschema
import msgspec
import ocsf_json_schema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aitrail import event as event_module
from aitrail.event import FIELD_NAMES, AccessEvent
from aitrail.schema.catalog import example_event, fields
from aitrail.schema.ecs import DERIVED, to_ecs
from aitrail.schema.ocsf import attack_parts, to_ocsf
from aitrail.schema.views import elastic

ROOT = Path(__file__).parents[2]
ECS = json.loads((ROOT / "tests/data/ecs_9_5.json").read_text())
GOLDEN = sorted((ROOT / "tests/golden").glob("*/*.json"))
OCSF = ocsf_json_schema.get_ocsf_schema("1.8.0")


@cache
def _validator(profiles: tuple[str, ...]) -> jsonschema.Draft202012Validator:
    schema = ocsf_json_schema.OcsfJsonSchemaEmbedded(OCSF).get_class_schema("api_activity", list(profiles))
    return jsonschema.Draft202012Validator(schema)


def _valid_ocsf(event: AccessEvent) -> dict:
    out = json.loads(msgspec.json.encode(to_ocsf(event)))
    errors = [
        f"{'.'.join(map(str, error.path))}: {error.validator} {str(error.message)[:120]}"
        for error in _validator(tuple(sorted(out["metadata"]["profiles"]))).iter_errors(out)
    ]
    assert not errors, errors
    return out


def _leaves(node: dict, prefix: str = "") -> dict:
    found = {}
    for key, value in node.items():
        name = f"{prefix}{key}"
        found.update(_leaves(value, f"{name}.") if isinstance(value, dict) else {name: value})
    return found


def _valid_ecs(event: AccessEvent) -> dict:
    out = json.loads(msgspec.json.encode(to_ecs(event)))
    leaves = _leaves(out)
    assert set(leaves) <= set(elastic.leaf_types()), "every name has a mapping"
    for name, value in leaves.items():
        if ECS["fields"].get(name, ["", False])[1]:
            assert isinstance(value, list), f"{name} is an array in ECS"
    allowed = [set(ECS["event_category"][category]) for category in out["event"]["category"]]
    assert set(out["event"]["type"]) <= set.intersection(*allowed), (out["event"]["category"], out["event"]["type"])
    return out


def _event(**values) -> AccessEvent:
    base = {"event_id": "a" * 32, "timestamp": "2026-11-23T09:14:05.120Z", "tenant_id": "acme", "source": "litellm"}
    return AccessEvent(**{**base, **values})


# --- every event that the normalizers give, and any event at all


def _golden_events() -> list:
    found = []
    for path in GOLDEN:
        for number, outcome in enumerate(json.loads(path.read_text())):
            if "event" in outcome:
                name = f"{path.parent.name}/{path.stem}[{number}]"
                found.append(pytest.param(msgspec.convert(outcome["event"], AccessEvent, strict=False), id=name))
    return found


@pytest.mark.parametrize("event", _golden_events())
def test_golden_events_export(event) -> None:
    _valid_ocsf(event)
    _valid_ecs(event)


def test_there_are_golden_events() -> None:
    assert len(_golden_events()) >= 20


_TEXT = st.text(max_size=12) | st.sampled_from(
    ["", "a", "arn:aws:iam::111122223333:role/x", "x" * 300, "é@example.com"]
)
_IPS = st.just("") | st.ip_addresses().map(str) | st.sampled_from(["::ffff:203.0.113.9", "fe80::1%" + "e" * 40])
_TIMES = st.datetimes(
    min_value=datetime(2000, 1, 1),  # noqa: DTZ001  (hypothesis wants naive bounds)
    max_value=datetime(2099, 12, 31),  # noqa: DTZ001
).map(lambda moment: f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z")
_BY_KIND = {
    "string": _TEXT,
    "time": _TIMES,
    "ip": _IPS,
    "text": _TEXT,
    "integer": st.none() | st.integers(0, 2**53),
    "number": st.none() | st.floats(0, 1e9, allow_nan=False),
    "boolean": st.none() | st.booleans(),
    "list": st.lists(_TEXT | st.sampled_from(["aml.t0051.000@5.6.0", "aml.t0054", "llm01:2025"]), max_size=3).map(
        tuple
    ),
}
_SPECIAL = {
    "event_id": st.text(string.hexdigits.lower(), min_size=32, max_size=32),
    "tenant_id": st.text(string.ascii_lowercase, min_size=1, max_size=5),
    "source": st.text(string.ascii_lowercase, min_size=1, max_size=5),
    "injection_score": st.none() | st.floats(0, 1),
    "risk_score": st.none() | st.integers(0, 100),
    "latency_ms": st.none() | st.floats(0, 1e9),
    "action": _TEXT | st.sampled_from(["createguardrail", "microsoft.cognitiveservices/accounts/write", "x.y/delete"]),
    "guardrail_action": st.sampled_from(["", "blocked", "flagged", "masked", "allowed", "failed"]),
}
_EVENTS = st.builds(
    AccessEvent,
    **{
        field.name: _SPECIAL.get(field.name, st.sampled_from(field.enum) if field.enum else _BY_KIND[field.kind])
        for field in fields()
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(_EVENTS)
def test_any_event_exports(event) -> None:
    _valid_ocsf(event)
    _valid_ecs(event)


# --- nothing is lost: each field set alone shows up where the catalog says


@pytest.mark.parametrize("field", fields(), ids=[field.name for field in fields()])
def test_value_is_where_the_catalog_says(field) -> None:
    event = _event(**{field.name: getattr(example_event(), field.name)})
    for standard, out in (("ocsf", _valid_ocsf(event)), ("ecs", _valid_ecs(event))):
        for name in {field.name_in(standard), field.exact_in(standard)}:
            node, value = [out], None
            for part in name.split("."):
                node = [member[part.removesuffix("[]")] for member in node if part.removesuffix("[]") in member]
                node = [leaf for member in node for leaf in (member if part.endswith("[]") else [member])]
            assert node, f"{standard} {name} is missing"
            if name == field.exact_in(standard) and "[]" not in name and field.kind != "time":
                value = node[0]
                expected = json.loads(msgspec.json.encode(field.example))
                assert value in (expected, [expected]), f"{standard} {name}"


def test_the_least_event_exports() -> None:
    out = _valid_ocsf(_event())
    assert out["metadata"]["profiles"] == ["ai_operation", "security_control"]
    assert out["src_endpoint"] == {"name": "Unknown"}
    assert out["actor"]["user"]["name"] == "Unknown"
    assert out["api"]["operation"] == "Unknown"
    assert "ai_model" not in out
    assert "cloud" not in out


# --- OCSF translations


@pytest.mark.parametrize(
    ("values", "activity"),
    [
        ({"action": "invokemodel", "action_kind": "inference"}, 2),
        ({"action": "createendpoint", "action_kind": "inference"}, 2),
        ({"action": "createguardrail", "action_kind": "guardrail", "read_only": False}, 1),
        ({"action": "putmodelinvocationloggingconfiguration", "action_kind": "guardrail"}, 3),
        ({"action": "deleteguardrail", "action_kind": "guardrail"}, 4),
        ({"action": "listfoundationmodels", "action_kind": "admin", "read_only": True}, 2),
        ({"action": "getobject", "action_kind": "weights"}, 2),
        ({"action": "microsoft.cognitiveservices/accounts/write", "action_kind": "admin"}, 3),
        ({"action": "microsoft.cognitiveservices/accounts/delete", "action_kind": "admin"}, 4),
        ({"action": "frobnicate", "action_kind": "admin"}, 99),
        ({}, 0),
    ],
)
def test_ocsf_activity(values, activity) -> None:
    out = _valid_ocsf(_event(**values))
    assert out["activity_id"] == activity
    assert out["type_uid"] == 600300 + activity
    if activity == 99:
        assert out["activity_name"] == "frobnicate"


@pytest.mark.parametrize(
    ("outcome", "guardrail", "status_id", "action_id", "disposition_id"),
    [
        ("success", "", 1, 1, 1),
        ("success", "allowed", 1, 1, 1),
        ("success", "flagged", 1, 3, 15),
        ("success", "masked", 1, 4, 99),
        ("blocked", "blocked", 2, 2, 2),
        ("denied", "", 2, 2, 26),
        ("throttled", "", 2, 2, 99),
        ("error", "", 2, 0, 27),
        ("unknown", "", 0, 0, 0),
    ],
)
def test_ocsf_outcome(outcome, guardrail, status_id, action_id, disposition_id) -> None:
    out = _valid_ocsf(_event(outcome_status=outcome, guardrail_action=guardrail))
    assert (out["status_id"], out["action_id"], out["disposition_id"]) == (status_id, action_id, disposition_id)
    assert out["status_detail"] == outcome
    names = OCSF["classes"]["api_activity"]["attributes"]["disposition_id"]["enum"]
    assert disposition_id == 99 or names[str(disposition_id)]["caption"] == out["disposition"]


def test_every_outcome_and_kind_is_covered() -> None:
    for outcome in get_args(event_module.OutcomeStatus):
        for kind in (*get_args(event_module.ActionKind), ""):
            for action in ("createx", "getx", "deletex", "frobnicate", ""):
                event = _event(outcome_status=outcome, action_kind=kind, action=action)
                _valid_ocsf(event)
                _valid_ecs(event)


@pytest.mark.parametrize(
    ("risk", "severity", "level"),
    [(None, 1, None), (0, 1, 0), (19, 1, 0), (20, 2, 1), (40, 3, 2), (70, 4, 3), (89, 4, 3), (90, 5, 4), (100, 5, 4)],
)
def test_ocsf_severity(risk, severity, level) -> None:
    out = _valid_ocsf(_event(risk_score=risk))
    assert out["severity_id"] == severity
    assert out.get("risk_level_id") == level


def test_ocsf_identity_and_address_that_do_not_fit_are_kept() -> None:
    out = _valid_ocsf(_event(user_email="josé@exämple", src_ip="fe80::1%" + "e" * 40))
    assert "email_addr" not in out["actor"]["user"]
    assert out["unmapped"]["user_email"] == "josé@exämple"
    assert out["unmapped"]["src_ip"].startswith("fe80::1%")
    assert out["src_endpoint"] == {"name": "Unknown"}


def test_ocsf_classifications_are_data_classes_of_the_resource() -> None:
    out = _valid_ocsf(_event(model="m", prompt_classification="clean", response_classification="financial"))
    (found,) = out["resources"][0]["data_classifications"]
    assert (found["category_id"], found["category"], found["classifier_details"]["type"]) == (
        3,
        "Financial",
        "response",
    )
    assert "data_classification" in out["metadata"]["profiles"]
    assert out["unmapped"]["prompt_classification"] == "clean"
    assert "resources" not in _valid_ocsf(_event(model="m", prompt_classification="clean"))


def test_ocsf_time_and_labels() -> None:
    out = _valid_ocsf(_event(ingested_at="2026-11-23T09:19:44.002Z", purpose="kyc", ticket="inc-1", latency_ms=12.6))
    assert out["time"] == 1_795_425_245_120
    assert out["metadata"]["logged_time"] == 1_795_425_584_002
    assert out["metadata"]["labels"] == ["purpose:kyc", "ticket:inc-1"]
    assert out["duration"] == 13


@pytest.mark.parametrize(
    ("entry", "parts"),
    [
        ("aml.t0051.000@5.6.0", ("AML.T0051", "AML.T0051.000", "5.6.0")),
        ("aml.t0051@5.6.0", ("AML.T0051", "", "5.6.0")),
        ("t1562.008", ("T1562", "T1562.008", "")),
        ("", ("", "", "")),
    ],
)
def test_attack_parts(entry, parts) -> None:
    assert attack_parts(entry) == parts


# --- ECS translations


def test_ecs_duration_is_in_nanoseconds() -> None:
    out = _valid_ecs(_event(latency_ms=1840.5))
    assert out["event"]["duration"] == 1_840_500_000
    assert out["ai_audit"]["latency_ms"] == 1840.5


@pytest.mark.parametrize(
    ("values", "category", "types", "outcome"),
    [
        ({"action_kind": "inference", "outcome_status": "success"}, ["api"], ["access", "allowed"], "success"),
        ({"action_kind": "inference", "outcome_status": "denied"}, ["api"], ["access", "denied"], "failure"),
        (
            {"action_kind": "inference", "outcome_status": "blocked"},
            ["api", "intrusion_detection"],
            ["denied"],
            "failure",
        ),
        ({"action_kind": "inference"}, ["api"], ["access"], "unknown"),
        (
            {"action_kind": "guardrail", "action": "deleteguardrail", "outcome_status": "success"},
            ["configuration"],
            ["deletion"],
            "success",
        ),
        ({"action_kind": "admin", "action": "createendpoint"}, ["configuration"], ["creation"], "unknown"),
        (
            {"action_kind": "auth", "action": "createapikey", "outcome_status": "error"},
            ["iam"],
            ["creation"],
            "failure",
        ),
        ({"action_kind": "admin", "action": "listx", "read_only": True}, ["api"], ["access"], "unknown"),
        (
            {"action_kind": "weights", "action": "getobject", "outcome_status": "success"},
            ["api"],
            ["access", "allowed"],
            "success",
        ),
    ],
)
def test_ecs_categorization(values, category, types, outcome) -> None:
    out = _valid_ecs(_event(**values))["event"]
    assert (out["category"], out["type"], out["outcome"]) == (category, types, outcome)


def test_ecs_threat_tags_and_related() -> None:
    out = _valid_ecs(
        _event(
            atlas=("aml.t0051.000@5.6.0", "aml.t0054@5.6.0"),
            owasp=("llm01:2025",),
            user_id="ines",
            user_name="ines",
            src_ip="203.0.113.9",
            prompt_hash="hmac-sha256:k1:00",
            role="Analyst",
        )
    )
    assert out["threat"]["technique"] == {
        "id": ["AML.T0051", "AML.T0054"],
        "subtechnique": {"id": ["AML.T0051.000"]},
    }
    assert out["tags"] == ["owasp.llm01-2025"]
    assert out["related"] == {"user": ["ines"], "ip": ["203.0.113.9"], "hash": ["hmac-sha256:k1:00"]}
    assert out["user"]["roles"] == ["Analyst"]


def test_exports_leave_the_event_alone() -> None:
    event, same = example_event(), example_event()
    to_ocsf(event)
    to_ecs(event)
    assert event == same


def test_derived_names_are_ecs() -> None:
    for name, kind in DERIVED.items():
        assert name in ECS["fields"], name
        assert ECS["fields"][name][0] == kind
    assert set(_leaves(to_ecs(example_event()))) == set(elastic.leaf_types()), "the example fills every mapped name"
    assert FIELD_NAMES
