"""Field names in each standard, and for OCSF and ECS the example event as the export writes it."""

import json
from collections.abc import Callable
from typing import Any

from aitrail.event import AccessEvent
from aitrail.schema.catalog import Standard, example_event, fields
from aitrail.schema.ecs import ECS_VERSION, to_ecs
from aitrail.schema.ocsf import OCSF_VERSION, to_ocsf

_ABOUT: dict[Standard, str] = {
    "ocsf": f"OCSF {OCSF_VERSION}, API Activity 6003",
    "ecs": f"Elastic Common Schema {ECS_VERSION}; own fields under ai_audit",
    "otel": "OpenTelemetry semantic conventions, GenAI (development)",
    "cim": "Splunk Common Information Model, Data_Access and Change",
    "asim": "Microsoft Sentinel ASIM AgentEvent 1.0.0",
}


def _mapping(standard: Standard, export: Callable[[AccessEvent], dict[str, Any]] | None = None) -> str:
    document: dict[str, Any] = {"standard": _ABOUT[standard], "fields": {}}
    for field in fields():
        name, exact = field.name_in(standard), field.exact_in(standard)
        if name:
            document["fields"][field.name] = {"name": name} if exact == name else {"name": name, "exact": exact}
    if export is not None:
        document["example"] = export(example_event())
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def ocsf() -> str:
    """Where each field goes in OCSF, with the example event exported."""
    return _mapping("ocsf", to_ocsf)


def ecs() -> str:
    """Where each field goes in ECS, with the example event exported."""
    return _mapping("ecs", to_ecs)


def otel() -> str:
    """The OpenTelemetry attribute that says the same as each field."""
    return _mapping("otel")


def cim() -> str:
    """The Splunk CIM field that says the same as each field."""
    return _mapping("cim")


def asim() -> str:
    """The ASIM AgentEvent column that says the same as each field."""
    return _mapping("asim")
