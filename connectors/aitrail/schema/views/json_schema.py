"""JSON Schema (2020-12) of the event's canonical bytes."""

import json
from typing import Any

from aitrail.event import SCHEMA_VERSION
from aitrail.schema.catalog import Kind, fields

_TYPES: dict[Kind, dict[str, Any]] = {
    "string": {"type": "string"},
    "time": {
        "type": "string",
        "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$",
    },
    "ip": {"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}, {"const": ""}]},
    "text": {"type": "string"},
    "integer": {"type": ["integer", "null"]},
    "number": {"type": ["number", "null"]},
    "boolean": {"type": ["boolean", "null"]},
    "list": {"type": "array", "items": {"type": "string"}},
}


def schema() -> dict[str, Any]:
    """The schema as a dict."""
    properties: dict[str, Any] = {}
    for field in fields():
        kind = dict(_TYPES[field.kind])
        if field.kind == "time" and not field.required:
            kind["pattern"] = f"^$|{kind['pattern']}"
        if field.enum:
            kind["enum"] = list(field.enum)
        properties[field.name] = {"description": field.description, "examples": [field.example], **kind}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:aitrail:access-event:{SCHEMA_VERSION}",
        "title": "AccessEvent",
        "description": "One access to an AI system; an absent field means the same as an empty one.",
        "type": "object",
        "properties": properties,
        "required": [field.name for field in fields() if field.required],
        "additionalProperties": False,
    }


def document() -> str:
    """The schema as JSON text."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"
