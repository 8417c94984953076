"""What Elasticsearch is given beside events: templates, the ingest pipeline, lifecycle, transforms; one file a request.

A file's path is the request's: ``elasticsearch/_component_template/NAME.json`` is the body of
``PUT /_component_template/NAME``. Templates of the data streams are those of ``aitrail elastic install``; the pipeline
comes with a component template that they name and do not need.
"""

from typing import Any

from aitrail.compiler.dialects.behavior_esql import COUNTRY
from aitrail.compiler.emit.kibana_objects import Json, pretty
from aitrail.destinations.elastic_install import ENRICHMENT, LIFECYCLE_NAME, artefacts
from aitrail.schema.views.elastic import leaf_types

PIPELINE = "logs-ai_audit.access@enrichment"
POLICY = "logs-ai_audit"
SOURCE = "logs-ai_audit.access-*"
DAILY = "ai_audit-daily"
_VERSION = 1
_META = {"managed_by": "aitrail"}
_KEYWORD = {"type": "keyword", "ignore_above": 1024}


def files() -> dict[str, bytes]:
    """All files by path below the pack."""
    bodies = {
        f"/_ingest/pipeline/{PIPELINE}": pipeline(),
        f"/_ilm/policy/{POLICY}": policy(),
        **artefacts(),
        f"/_component_template/{ENRICHMENT}": enrichment(),
        f"/_component_template/{LIFECYCLE_NAME}": lifecycle(),
        f"/_index_template/{DAILY}": daily(),
        **{f"/_transform/{name}": body for name, body in transforms().items()},
    }
    return {f"elasticsearch{path}.json": pretty(body) for path, body in bodies.items()}


# --- the pipeline

# Names that Elastic's own rules for LLMs read, and where the same stands in our documents: an alias costs nothing.
# (integrations/aws_bedrock, README; detection-rules, rules/integrations/aws_bedrock.)
ALIASES = {
    "gen_ai.completion": "ai_audit.response.text",
    "gen_ai.guardrail_id": "gen_ai.policy.name",
    "gen_ai.owasp.id": "ai_audit.owasp",
    "gen_ai.prompt": "ai_audit.prompt.text",
    "gen_ai.response.error_code": "error.code",
    "gen_ai.security.prompt_injection_score": "ai_audit.injection.score",
    "gen_ai.threat.risk_score": "event.risk_score",
    "gen_ai.usage.completion_tokens": "gen_ai.usage.output_tokens",
    "gen_ai.usage.prompt_tokens": "gen_ai.usage.input_tokens",
    "gen_ai.user.id": "user.id",
}
# What the processors write.
WRITTEN: dict[str, Json] = {
    "error.message": {"type": "match_only_text"},
    "gen_ai.compliance.violation_detected": {"type": "boolean"},
    "gen_ai.threat.detected": {"type": "boolean"},
    "source.as.number": {"type": "long"},
    "source.as.organization.name": _KEYWORD,
    "source.geo.city_name": _KEYWORD,
    "source.geo.continent_name": _KEYWORD,
    COUNTRY: _KEYWORD,
    "source.geo.country_name": _KEYWORD,
    "source.geo.location": {"type": "geo_point"},
    "source.geo.region_iso_code": _KEYWORD,
    "source.geo.region_name": _KEYWORD,
    "user_agent.device.name": _KEYWORD,
    "user_agent.name": _KEYWORD,
    "user_agent.os.full": _KEYWORD,
    "user_agent.os.name": _KEYWORD,
    "user_agent.os.version": _KEYWORD,
    "user_agent.version": _KEYWORD,
}


def pipeline() -> Json:
    """Places of addresses, names of clients, and the verdicts under the names that Elastic's rules know.

    Every processor has a tag; one that fails leaves the document as it is and says so in it (package-spec SVR00006,
    SVR00008, SVR00009), because an audit record is never refused for want of a place name.
    """
    hit = (
        "ctx.ai_audit?.outcome?.status == 'blocked' || ctx.gen_ai?.compliance?.violation_code != null"
        " || ctx.gen_ai?.policy?.action == 'blocked'"
    )
    attack = "ctx.ai_audit?.injection?.tier == 'high' || ctx.ai_audit?.injection?.tier == 'suspicious'"
    network = {"source.as.asn": "source.as.number", "source.as.organization_name": "source.as.organization.name"}
    processors: list[Json] = [
        {"geoip": {"field": "source.ip", "ignore_missing": True, "tag": "geo", "target_field": "source.geo"}},
        {
            "geoip": {
                "database_file": "GeoLite2-ASN.mmdb",
                "field": "source.ip",
                "ignore_missing": True,
                "properties": ["asn", "organization_name"],
                "tag": "network",
                "target_field": "source.as",
            }
        },
        *(
            {"rename": {"field": old, "ignore_missing": True, "tag": f"network_{place}", "target_field": new}}
            for place, (old, new) in enumerate(network.items())
        ),
        {"user_agent": {"field": "user_agent.original", "ignore_missing": True, "tag": "client"}},
        {"set": {"field": "gen_ai.compliance.violation_detected", "if": hit, "tag": "violation", "value": True}},
        {"set": {"field": "gen_ai.threat.detected", "if": attack, "tag": "threat", "value": True}},
        {
            "set": {
                "copy_from": "_ingest.timestamp",
                "field": "event.ingested",
                "override": False,
                "tag": "ingested",
            }
        },
        {"pipeline": {"ignore_missing_pipeline": True, "name": "logs-ai_audit.access@custom", "tag": "custom"}},
    ]
    message = (
        "Processor {{{_ingest.on_failure_processor_type}}} with tag {{{_ingest.on_failure_processor_tag}}} in pipeline"
        " {{{_ingest.on_failure_pipeline}}} failed: {{{_ingest.on_failure_message}}}"
    )
    return {
        "description": "aitrail: geo, user agent and verdicts of accesses to AI systems",
        "processors": processors,
        "on_failure": [
            {"set": {"field": "event.kind", "tag": "failed", "value": "pipeline_error"}},
            {"append": {"field": "error.message", "tag": "reason", "value": message}},
        ],
        "version": _VERSION,
        "_meta": _META,
    }


def enrichment() -> Json:
    """The component template that switches the pipeline on, and has the fields that it writes.

    A component is checked by itself, and an alias must refer to a field: so those are here, too.
    """
    fields: dict[str, Json] = WRITTEN | {path: leaf_types()[path] for path in ALIASES.values()}
    fields |= {name: {"type": "alias", "path": path} for name, path in ALIASES.items()}
    root: Json = {"properties": {}}
    for name, mapped in sorted(fields.items()):
        *parents, leaf = name.split(".")
        place = root["properties"]
        for parent in parents:
            place = place.setdefault(parent, {"properties": {}})["properties"]
        place[leaf] = dict(mapped)
    settings = {"index": {"default_pipeline": PIPELINE}}
    return {"template": {"mappings": root, "settings": settings}, "version": _VERSION, "_meta": _META}


# --- lifecycle


def policy() -> Json:
    """For clusters with tiers: rollover, then cheaper storage, then the end of the audit's retention."""
    days = {"warm": 30, "cold": 90, "delete": 400}
    rollover = {"max_age": "30d", "max_primary_shard_size": "50gb"}
    phases: Json = {
        "hot": {"min_age": "0ms", "actions": {"rollover": rollover, "set_priority": {"priority": 100}}},
        "warm": {
            "min_age": f"{days['warm']}d",
            "actions": {"forcemerge": {"max_num_segments": 1}, "set_priority": {"priority": 50}},
        },
        "cold": {"min_age": f"{days['cold']}d", "actions": {"set_priority": {"priority": 0}}},
        "delete": {"min_age": f"{days['delete']}d", "actions": {"delete": {"delete_searchable_snapshot": True}}},
    }
    return {"policy": {"phases": phases, "_meta": _META}}


def lifecycle() -> Json:
    """The component template that puts the policy in the place of the data stream's own lifecycle."""
    index = {"lifecycle": {"name": POLICY, "prefer_ilm": True}}
    return {"template": {"settings": {"index": index}}, "version": _VERSION, "_meta": _META}


# --- transforms

_USER = {"tenant": "organization.id", "user": "user.id"}
_MODEL = {"tenant": "organization.id", "department": "user.group.name", "model": "gen_ai.request.model"}
_INFERENCE = {"term": {"ai_audit.action.kind": "inference"}}


def _where(field: str, *values: str) -> Json:
    return {"filter": {"terms": {field: list(values)}}}


_COMMON: dict[str, Json] = {
    "calls": {"filter": _INFERENCE},
    "tokens": {"sum": {"field": "ai_audit.usage.total_tokens"}},
    "cost_usd": {"sum": {"field": "ai_audit.cost.usd"}},
    "blocked": _where("ai_audit.outcome.status", "blocked"),
    "denied": _where("ai_audit.outcome.status", "denied"),
    "failed": _where("ai_audit.outcome.status", "error", "throttled"),
    "attacks": _where("ai_audit.injection.tier", "suspicious", "high"),
    "leaks": {"filter": {"exists": {"field": "ai_audit.leakage.types"}}},
}
_OF_USER: dict[str, Json] = {
    "accesses": {"value_count": {"field": "event.id"}},
    "models": {"cardinality": {"field": "gen_ai.request.model"}},
    "apps": {"cardinality": {"field": "service.name"}},
    "addresses": {"cardinality": {"field": "source.ip"}},
    "changes": {"filter": {"term": {"ai_audit.action.read_only": False}}},
    "highest_risk": {"max": {"field": "event.risk_score"}},
}
_OF_MODEL: dict[str, Json] = {
    "people": {"cardinality": {"field": "user.id"}},
    "latency_ms": {"percentiles": {"field": "ai_audit.latency_ms", "percents": [50, 95]}},
}


def transforms() -> dict[str, Json]:
    """What each user did a day (a baseline to compare with), and each department with each model."""
    return {
        "ai_audit-user-daily": _transform("user", "what each user did, per day", _USER, _COMMON | _OF_USER),
        "ai_audit-model-daily": _transform(
            "model", "what each department did with each model, per day", _MODEL, _COMMON | _OF_MODEL
        ),
    }


def _transform(name: str, about: str, keys: dict[str, str], numbers: dict[str, Json]) -> Json:
    # A department or model that is missing is a group of its own; a user or tenant is not.
    optional = {"department", "model"}
    groups: Json = {"day": {"date_histogram": {"calendar_interval": "1d", "field": "@timestamp"}}}
    for key, field in keys.items():
        missing = {"missing_bucket": True} if key in optional else {}
        groups[key] = {"terms": {"field": field, **missing}}
    return {
        "description": f"aitrail: {about}",
        "dest": {"index": f"ai_audit-{name}-daily"},
        "frequency": "15m",
        "pivot": {"aggregations": numbers, "group_by": groups},
        "retention_policy": {"time": {"field": "day", "max_age": "400d"}},
        "source": {"index": [SOURCE], "query": {"range": {"@timestamp": {"gte": "now-400d"}}}},
        "sync": {"time": {"delay": "120s", "field": "event.ingested"}},
        "_meta": _META,
    }


def daily() -> Json:
    """The template of what the transforms write."""
    names: dict[str, Any] = {"day": {"type": "date"}}
    names |= dict.fromkeys((*_USER, *_MODEL), _KEYWORD)
    for key, number in (_COMMON | _OF_USER | _OF_MODEL).items():
        function = next(iter(number))
        if function == "percentiles":
            parts = number[function]["percents"]
            names[key] = {"properties": {str(part): {"type": "double"} for part in parts}}
        else:
            names[key] = {"type": "double" if function in ("sum", "max") else "long"}
    return {
        "index_patterns": [f"ai_audit-{name}-daily" for name in ("model", "user")],
        "priority": 501,
        "template": {
            "mappings": {"dynamic": False, "properties": dict(sorted(names.items()))},
            "settings": {"index": {"number_of_shards": 1}},
        },
        "version": _VERSION,
        "_meta": _META,
    }
