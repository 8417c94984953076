"""Fields of the Common Information Model: what props.conf says, applied to events as Splunk applies it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aitrail.compiler.dialects import spl_conditions
from aitrail.compiler.emit import splunk_cim as cim
from aitrail.schema.catalog import by_name, example_event, fields
from aitrail.streams import KINDS, encoded, example_finding
from parity import splunk_engine as engine

# What each data model asks for (Common Information Model add-on, "Data models"): the tags that put an event into one,
# the fields that are required, and the words that are prescribed.
MODELS = {
    "Web": (
        {"web"},
        (
            "action bytes bytes_in bytes_out category dest http_method http_user_agent http_user_agent_length src "
            "status url url_domain user vendor_product"
        ),
    ),
    "Data_Access": (
        {"data", "access"},
        (
            "action app dest object object_attrs object_category object_id src user user_name vendor_account "
            "vendor_product"
        ),
    ),
    "DLP": (
        {"dlp", "incident"},
        (
            "action app category dest dlp_type dvc object object_category object_path severity signature src_user "
            "vendor_product"
        ),
    ),
    "Intrusion_Detection": (
        {"ids", "attack"},
        "action category dvc ids_type severity signature src user vendor_product",
    ),
    "Change": (
        {"change"},
        (
            "action change_type command dest dvc object object_attrs object_category object_id result src status user "
            "vendor_product"
        ),
    ),
    "Authentication": ({"authentication"}, "action app dest src user"),
    "Alerts": ({"alert"}, "app description dest id severity signature signature_id src type user"),
}
# Asked for as well, and in no record of any source: Web.dest_port, Data_Access.object_size.
_SEVERITIES = {"critical", "high", "medium", "low", "informational"}
PRESCRIBED = {
    "Web": {"http_method": {"GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS", "CONNECT", "TRACE"},
            "status": {str(code) for code in range(100, 600)}},
    "Data_Access": {},
    "DLP": {"severity": _SEVERITIES},
    "Intrusion_Detection": {"action": {"allowed", "blocked"}, "severity": _SEVERITIES,
                            "ids_type": {"network", "host", "application", "wireless"}},
    "Change": {"status": {"success", "failure"},
               "action": {"acl_modified", "cleared", "created", "deleted", "modified", "read", "stopped", "updated"}},
    "Authentication": {"action": {"success", "failure", "pending", "error"}},
    "Alerts": {"severity": _SEVERITIES, "type": {"alarm", "alert", "event", "task", "warning"}},
}  # fmt: skip
PROPS, TYPES, TAGS = cim.props(), cim.eventtypes(), cim.tags()


def extracted(raw: dict[str, Any], sourcetype: str) -> engine.Row:
    """Splunk's order: extractions, JSON, aliases (ASNEW: only where nothing is), calculated fields all at once."""
    keys = PROPS[sourcetype]
    row = engine.indexed(raw, 1.0, sourcetype)
    for name in ("vendor_action", "event_source", "action"):
        row.pop(name, None)
    if "action" in raw:
        row["action"] = engine.Extracted(raw["action"])
    for key, value in keys.items():
        if key.startswith("EXTRACT-") and (match := re.search(str(value).replace("(?<", "(?P<"), json.dumps(raw))):
            row |= {name: engine.Extracted(text) for name, text in match.groupdict().items()}
    for one, alias in re.findall(r'"?([\w{}]+)"? ASNEW (\w+)', str(keys.get("FIELDALIAS-cim", ""))):
        if one in row:
            row.setdefault(alias, row[one])
    before = dict(row)
    for key, value in keys.items():
        if key.startswith("EVAL-"):
            row[key.removeprefix("EVAL-")] = engine.value(engine.parser(str(value)).expression(), before)
    return row


def tagged(row: engine.Row) -> set[str]:
    found: set[str] = set()
    for name, keys in TYPES.items():
        if engine.spl(str(keys["search"]).replace(f'sourcetype="{row["sourcetype"]}"', "_time=*", 1), [row]):
            found |= set(TAGS[f"eventtype={name}"])
    return found


def access(**changes: Any) -> engine.Row:
    raw = json.loads(json.dumps({field.name: field.example for field in fields()})) | changes
    return extracted({name: value for name, value in raw.items() if value is not None}, "ai:access:audit")


EVENTS = {
    "Web": access(action_kind="inference"),
    "Data_Access": access(),
    "DLP": access(leakage_types=["response:financial/card_number"], leakage_count=1),
    "Intrusion_Detection": access(injection_tier="high"),
    "Change": access(action_kind="guardrail", read_only=False),
    "Authentication": access(action_kind="auth", action="assumerole"),
    "Alerts": extracted(json.loads(encoded(example_finding()).body), "ai:access:alert"),
}


@pytest.mark.parametrize("model", sorted(MODELS))
def test_an_event_has_the_tags_and_fields_of_its_model(model: str) -> None:
    tags, wanted = MODELS[model]
    row = EVENTS[model]
    assert tags <= tagged(row)
    assert {name for name in wanted.split() if row.get(name) in (None, "")} == set()
    assert prescribed(row, frozenset({model})) == {model}


def prescribed(row: engine.Row, models: frozenset[str] = frozenset(MODELS)) -> set[str]:
    """The models that the event is in; each field that one prescribes words for has one of them, or is absent."""
    tags = tagged(row)
    found = {model for model in models if MODELS[model][0] <= tags}
    for model in found:
        for name, words in PRESCRIBED[model].items():
            if row.get(name) is not None:
                assert str(row[name]) in words, (model, name, row[name], row.get("vendor_action"))
    return found


def test_the_fixtures_of_all_sources_keep_to_the_prescribed_words() -> None:
    counts: dict[str, int] = dict.fromkeys(MODELS, 0)
    for event in golden():
        row = extracted(event, "ai:access:audit")
        models = prescribed(row)
        assert len(models & {"Intrusion_Detection", "Change", "Authentication"}) <= 1
        assert row.get("vendor_action") == event.get("action")
        for model in models:
            counts[model] += 1
    assert counts["Data_Access"] > 200
    assert min(counts[model] for model in ("Web", "Change", "Authentication")) > 2


def golden() -> Iterator[dict[str, Any]]:
    """All events that the fixtures of the normalizers give."""
    for path in sorted((Path(__file__).parents[1] / "golden").rglob("*.json")):
        held = [json.loads(path.read_text(encoding="utf-8"))]
        while held:
            one = held.pop()
            if isinstance(one, dict) and one.get("event_id") and "outcome_status" in one:
                yield {name: value for name, value in one.items() if value not in (None, "", [])}
            else:
                held += one.values() if isinstance(one, dict) else one if isinstance(one, list) else []


@pytest.mark.parametrize(
    ("changes", "action", "status", "kind"),
    [
        ({"action_kind": "auth", "action": "assumerole", "outcome_status": "denied"}, "failure", "200", "auth"),
        ({"action_kind": "auth", "action": "login.failed", "outcome_status": "error"}, "error", "200", "auth"),
        ({"action_kind": "auth", "action": "consolelogin", "outcome_status": "unknown"}, None, "200", "auth"),
        ({"action_kind": "auth", "action": "createloginprofile", "read_only": False}, "created", "success", "change"),
        ({"action_kind": "auth", "action": "attachrolepolicy", "read_only": False}, "acl_modified", "success",
         "change"),
        ({"action_kind": "auth", "action": "regeneratekey", "read_only": False}, "modified", "success", "change"),
        ({"action_kind": "auth", "action": "listkeys", "read_only": True, "injection_tier": None}, "read", "200",
         "use"),
        ({"action_kind": "guardrail", "action": "deleteguardrail", "outcome_status": "denied"}, "deleted", "failure",
         "change"),
        ({"action_kind": "guardrail", "action": "stoplogging", "outcome_status": "unknown"}, "stopped", None, "change"),
        ({"action_kind": "admin", "action": "key/generate", "read_only": None}, "created", "success", "change"),
        ({"action_kind": "admin", "action": "x/deployments/write"}, "modified", "success", "change"),
        ({"action_kind": "admin", "action": "models_list", "read_only": None, "injection_tier": None}, "read", "200",
         "use"),
        ({"action_kind": "weights", "action": "getobject", "read_only": True, "injection_tier": None}, "read", "200",
         "use"),
        ({"outcome_status": "blocked"}, "blocked", "200", "use"),
        ({"outcome_status": "unknown"}, "allowed", "200", "use"),
    ],
)  # fmt: skip
def test_action_is_a_word_of_the_model(changes: dict[str, Any], action: str, status: str, kind: str) -> None:
    row = access(**changes)
    status_now = row.get("status")
    assert (row.get("action"), None if status_now is None else str(status_now)) == (action, status)
    assert row["aitrail_kind"] == {"auth": "authentication"}.get(kind, kind)
    assert row["vendor_action"] == changes.get("action", "invokemodel")
    prescribed(row)


def test_what_the_source_called_it_survives_the_text_of_a_prompt() -> None:
    row = access(prompt_text='"action": "x", {\\"action\\": \\"y\\"}', action='a"b')
    assert row["vendor_action"] == 'a\\"b'


def test_a_finding_about_an_injection_is_an_attack_as_well() -> None:
    assert tagged(EVENTS["Alerts"]) == {"alert", "ids", "attack"}
    prescribed(EVENTS["Alerts"], frozenset({"Intrusion_Detection"}))
    assert {name for name in MODELS["Intrusion_Detection"][1].split() if not EVENTS["Alerts"].get(name)} == set()
    other = json.loads(encoded(example_finding()).body) | {"owasp": ["llm02:2025"], "entities": ["user:a"]}
    assert tagged(extracted(other, "ai:access:alert")) == {"alert"}
    assert extracted(other, "ai:access:alert")["src"] == "unknown"


def test_an_event_that_says_little_has_them_too() -> None:
    event = example_event()
    bare = {"event_id": event.event_id, "timestamp": event.timestamp, "tenant_id": "acme", "source": "litellm"}
    row = extracted({**bare, "action_kind": "inference", "outcome_status": "success"}, "ai:access:audit")
    for model in ("Data_Access", "DLP", "Intrusion_Detection"):
        missing = {name for name in MODELS[model][1].split() if row.get(name) in (None, "")}
        assert missing <= {"app", "dlp_type", "user_name"}, model
    assert tagged(row) == {"data", "access", "web"}
    assert (row["severity"], row["user"], row["event_source"]) == ("informational", "unknown", "litellm")


@pytest.mark.parametrize(
    ("changes", "severity", "category", "signature"),
    [
        ({"injection_tier": "high", "prompt_classification": "jailbreak"}, "high", "jailbreak", "prompt injection"),
        ({"injection_tier": "suspicious"}, "medium", "prompt_injection", "prompt injection"),
        ({"leakage_count": 1, "prompt_classification": "clean"}, "high", "financial", "data leakage"),
        ({"guardrail_name": "shield", "prompt_classification": "clean", "response_classification": "clean"},
         "informational", "guardrail", "shield"),
    ],
)  # fmt: skip
def test_verdicts_become_the_words_of_the_models(
    changes: dict[str, Any], severity: str, category: str, signature: str
) -> None:
    unset = dict.fromkeys(("injection_tier", "leakage_count", "guardrail_name"))
    row = access(**{**unset, **changes})
    assert (row["severity"], row["category"], row["signature"]) == (severity, category, signature)


def test_no_field_of_an_event_is_given_another_meaning() -> None:
    """Rules and pages search for those names."""
    made = {key.removeprefix("EVAL-") for key in PROPS["ai:access:audit"] if key.startswith("EVAL-")}
    assert made & set(by_name()) == {"action"}
    assert spl_conditions.HIDDEN["action"] == "vendor_action"
    assert {alias for _, alias in cim.aliases()} & (set(by_name()) | made) == set()
    own = {field.encode_name for field in msgspec.structs.fields(KINDS["finding"])}
    assert {key.removeprefix("EVAL-") for key in PROPS["ai:access:alert"] if key.startswith("EVAL-")} & own == set()


def test_aliases_are_those_of_the_catalog() -> None:
    known = by_name()
    for one, alias in cim.aliases():
        field = known[one.strip('"').removesuffix("{}")]
        assert field.names.get("cim") == alias or (one, alias) == ("user_agent", "http_user_agent")
        assert (field.kind == "list") is one.endswith('{}"')


def test_every_tag_has_its_event_type_and_every_event_type_a_tag() -> None:
    assert set(TAGS) == {f"eventtype={name}" for name in TYPES}
    assert all(TAGS.values())
