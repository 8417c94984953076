"""What ``aitrail elastic install`` puts into Elasticsearch: templates for the data stream, derived from the catalog.

Two component templates (mappings, settings) and one index template. Rollover and retention are the data stream
lifecycle's, so neither an ILM policy nor a cron job is needed (Elastic, "Data stream lifecycle", 8.11 and newer, also
Serverless). Priority 501 is above Elastic's own ``logs`` template (100) and those of integrations (200).
"""

from collections.abc import Callable, Mapping
from typing import Any

from aitrail.destinations.elastic_documents import DataStream
from aitrail.event import SCHEMA_VERSION
from aitrail.schema.catalog import fields
from aitrail.schema.ecs import ECS_VERSION
from aitrail.schema.views.elastic import mapping

TEMPLATE_NAME = "logs-ai_audit.access"
MAPPINGS_NAME = "logs-ai_audit.access@mappings"
SETTINGS_NAME = "logs-ai_audit.access@settings"
# Raise it with every change of what is put; ``check`` compares.
TEMPLATE_VERSION = 1

_PRIORITY = 501
_META = {"managed_by": "aitrail", "schema": SCHEMA_VERSION, "ecs": ECS_VERSION}

Put = Callable[[str, str, dict[str, Any]], object]


def mappings_template() -> dict[str, Any]:
    """The component template of the fields: the catalog's, and the data stream's own."""
    stream = DataStream()
    mapped = mapping()
    mapped["properties"]["data_stream"] = {
        "properties": {
            "type": {"type": "constant_keyword", "value": stream.type},
            "dataset": {"type": "constant_keyword", "value": stream.dataset},
            "namespace": {"type": "constant_keyword"},
        }
    }
    return {"template": {"mappings": mapped}, "version": TEMPLATE_VERSION, "_meta": _META}


def settings_template() -> dict[str, Any]:
    """The component template of the settings."""
    index = {
        "codec": "best_compression",
        "mapping": {"total_fields": {"limit": max(1_000, 8 * len(fields()))}, "ignore_malformed": False},
        "query": {"default_field": ["user.id", "event.action", "gen_ai.request.model", "ai_audit.prompt.text"]},
        "lifecycle": {"prefer_ilm": False},
    }
    return {"template": {"settings": {"index": index}}, "version": TEMPLATE_VERSION, "_meta": _META}


def index_template(retention: str = "") -> dict[str, Any]:
    """The index template of all namespaces.

    Args:
        retention: how long events are kept, e.g. ``365d``; empty: as long as nobody deletes them.
    """
    lifecycle: dict[str, Any] = {"enabled": True} | ({"data_retention": retention} if retention else {})
    stream = DataStream()
    return {
        "index_patterns": [f"{stream.type}-{stream.dataset}-*"],
        "priority": _PRIORITY,
        "data_stream": {},
        "allow_auto_create": True,
        "composed_of": [MAPPINGS_NAME, SETTINGS_NAME],
        "template": {"lifecycle": lifecycle},
        "version": TEMPLATE_VERSION,
        "_meta": _META,
    }


def artefacts(retention: str = "") -> Mapping[str, dict[str, Any]]:
    """What is put, by its path, in the order in which it has to be put."""
    return {
        f"/_component_template/{MAPPINGS_NAME}": mappings_template(),
        f"/_component_template/{SETTINGS_NAME}": settings_template(),
        f"/_index_template/{TEMPLATE_NAME}": index_template(retention),
    }


def install(put: Put, retention: str = "") -> list[str]:
    """Put all templates; doing it again changes nothing. Gives the paths.

    Args:
        put: makes one call that has to succeed: method, path, body.
        retention: see ``index_template``.
    """
    done = []
    for path, body in artefacts(retention).items():
        put("PUT", path, body)
        done.append(path)
    return done
