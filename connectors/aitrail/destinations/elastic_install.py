"""What ``aitrail elastic install`` puts into Elasticsearch: templates for the data streams, derived from the catalog.

For each kind of events a component template (mappings) and an index template, and one component template with the
settings of all. Rollover and retention are the data stream lifecycle's, so neither an ILM policy nor a cron job is
needed (Elastic, "Data stream lifecycle", 8.11 and newer, also Serverless). Priority 501 is above Elastic's own ``logs``
template (100) and those of integrations (200).
"""

from collections.abc import Callable, Mapping
from typing import Any

from aitrail.destinations._elastic_settings import ElasticSettings
from aitrail.destinations.elastic_documents import DataStream
from aitrail.destinations.elastic_records import record_mapping
from aitrail.event import SCHEMA_VERSION
from aitrail.schema.catalog import fields
from aitrail.schema.ecs import ECS_VERSION
from aitrail.schema.views.elastic import mapping
from aitrail.streams import STREAMS, Stream

SETTINGS_NAME = "logs-ai_audit@settings"
# Components that the Elastic pack brings (kibana_dashboards/) and no data stream needs: what the ingest pipeline of
# accesses writes, and a policy of ILM in the place of the data stream's own lifecycle.
ENRICHMENT = "logs-ai_audit.access@enrichment"
LIFECYCLE_NAME = "logs-ai_audit@lifecycle"
# Raise it with every change of what is put; ``check`` compares.
TEMPLATE_VERSION = 3

_PRIORITY = 501
_META = {"managed_by": "aitrail", "schema": SCHEMA_VERSION, "ecs": ECS_VERSION}

Put = Callable[[str, str, dict[str, Any]], object]


def mappings_template(stream: Stream = "access", dataset: str = "ai_audit.access") -> dict[str, Any]:
    """The component template of the fields: the catalog's or the record's, and the data stream's own."""
    mapped = mapping() if stream == "access" else record_mapping(stream)
    mapped["properties"]["data_stream"] = {
        "properties": {
            "type": {"type": "constant_keyword", "value": DataStream().type},
            "dataset": {"type": "constant_keyword", "value": dataset},
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


def index_template(retention: str = "", dataset: str = "ai_audit.access") -> dict[str, Any]:
    """The index template of a dataset, for all namespaces.

    Args:
        retention: how long events are kept, e.g. ``365d``; empty: as long as nobody deletes them.
        dataset: the middle part of the data stream's name.
    """
    lifecycle: dict[str, Any] = {"enabled": True} | ({"data_retention": retention} if retention else {})
    name = DataStream(dataset=dataset).template
    optional = [f"{name}@enrichment", LIFECYCLE_NAME]
    return {
        "index_patterns": [f"{name}-*"],
        "priority": _PRIORITY,
        "data_stream": {},
        "allow_auto_create": True,
        "composed_of": [f"{name}@mappings", SETTINGS_NAME, *optional],
        "ignore_missing_component_templates": optional,
        "template": {"lifecycle": lifecycle},
        "version": TEMPLATE_VERSION,
        "_meta": _META,
    }


def artefacts(retention: str = "", datasets: Mapping[Stream, str] | None = None) -> Mapping[str, dict[str, Any]]:
    """What is put, by its path, in the order in which it has to be put.

    Args:
        retention: see ``index_template``.
        datasets: of each stream; those that are left out have their usual ones.
    """
    found = {f"/_component_template/{SETTINGS_NAME}": settings_template()}
    for stream in STREAMS:
        dataset = (datasets or {}).get(stream) or f"ai_audit.{stream}"
        name = DataStream(dataset=dataset).template
        found[f"/_component_template/{name}@mappings"] = mappings_template(stream, dataset)
        found[f"/_index_template/{name}"] = index_template(retention, dataset)
    return found


def install(put: Put, settings: ElasticSettings) -> list[str]:
    """Put all templates; doing it again changes nothing. Gives the paths.

    Args:
        put: makes one call that has to succeed: method, path, body.
        settings: datasets and retention.
    """
    done = []
    for path, body in artefacts(settings.retention, settings.datasets).items():
        put("PUT", path, body)
        done.append(path)
    return done
