"""Fields of the Common Information Model: what props.conf says, applied to events as Splunk applies it."""

import json
import re
from typing import Any

import msgspec
import pytest

from aitrail.compiler.emit import splunk_cim as cim
from aitrail.schema.catalog import by_name, example_event, fields
from aitrail.streams import KINDS, encoded, example_finding
from parity import splunk_engine as engine

# What each data model asks for: Common Information Model add-on, "Data models"; the tags that put an event into one.
MODELS = {
    "Web": (
        {"web"},
        "action bytes_in bytes_out category dest http_method http_user_agent src status url user vendor_product",
    ),
    "Data_Access": ({"data", "access"}, "action app dest object object_category object_id src user vendor_account"),
    "DLP": ({"dlp", "incident"}, "action app category dlp_type dvc object severity signature src_user"),
    "Intrusion_Detection": ({"ids", "attack"}, "action category dvc ids_type severity signature src user"),
    "Change": (
        {"change"},
        "action change_type command dest object object_category object_id result src status user vendor_product",
    ),
    "Authentication": ({"authentication"}, "action app dest src user"),
    "Alerts": ({"alert"}, "app description dest id severity signature src type user"),
}
PROPS, TYPES, TAGS = cim.props(), cim.eventtypes(), cim.tags()


def extracted(raw: dict[str, Any], sourcetype: str) -> engine.Row:
    """Splunk's order: extractions, JSON, aliases (ASNEW: only where nothing is), calculated fields all at once."""
    keys = PROPS[sourcetype]
    row = engine.indexed(raw, 1.0, sourcetype)
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
    "Authentication": access(action_kind="auth"),
    "Alerts": extracted(json.loads(encoded(example_finding()).body), "ai:access:alert"),
}


@pytest.mark.parametrize("model", sorted(MODELS))
def test_an_event_has_the_tags_and_fields_of_its_model(model: str) -> None:
    tags, wanted = MODELS[model]
    row = EVENTS[model]
    assert tags <= tagged(row)
    assert {name for name in wanted.split() if row.get(name) in (None, "")} == set()


def test_an_event_that_says_little_has_them_too() -> None:
    event = example_event()
    bare = {"event_id": event.event_id, "timestamp": event.timestamp, "tenant_id": "acme", "source": "litellm"}
    row = extracted({**bare, "action_kind": "inference", "outcome_status": "success"}, "ai:access:audit")
    for model in ("Data_Access", "DLP", "Intrusion_Detection"):
        missing = {name for name in MODELS[model][1].split() if row.get(name) in (None, "")}
        assert missing <= {"action", "app", "dlp_type"}, model
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
    assert made & set(by_name()) == set()
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
