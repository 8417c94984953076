"""Rules and hunts as Sentinel takes them: YAML as in its public repository, and the properties of ARM resources.

Facts (Microsoft Learn, "Alert Rules - Create Or Update"; "Map data fields to entities"; "Surface custom event details";
"Customize alert details"): an entity needs one strong or weak identifier; custom details have at most 20 keys of 20
characters; an alert's name takes at most 3 columns and 256 characters. What names an alert groups alerts into
incidents: an entity where the field is one, else a custom detail. Suppression stays off, see ``compiler.schedule``.
"""

from typing import Any

from aitrail.compiler.behavior import Behavior
from aitrail.compiler.dialects.kql import TABLES
from aitrail.compiler.emit.sentinel_attack import attack, frameworks
from aitrail.compiler.emit.sentinel_facts import CONTENT_VERSION, FUNCTION_CONNECTOR, PUSH_CONNECTOR
from aitrail.compiler.emit.sentinel_queries import dataset, named, near_real_time, plan, told
from aitrail.compiler.load import PHASES
from aitrail.compiler.rule import OWNERS, Detection, Severity
from aitrail.compiler.schedule import DAY, HOUR, MINUTE, Sentinel, sentinel

Rules = Detection | Behavior
SEVERITIES: dict[Severity, str] = {
    "informational": "Informational",
    "low": "Low",
    "medium": "Medium",
    "high": "High",
    "critical": "High",
}
# Kind of entity of a rule -> Sentinel's type, identifier, and the column where it is not the field's own.
_ENTITIES: dict[str, tuple[str, str, str]] = {
    "user": ("Account", "FullName", ""),
    "ip": ("IP", "Address", ""),
    "host": ("Host", "HostName", ""),
    "application": ("CloudApplication", "Name", ""),
    "model": ("CloudApplication", "Name", ""),
    "resource": ("AzureResource", "ResourceId", "AzureResourceId"),
}
_MOST_ENTITIES = 5
# Column -> its key among the custom details.
_DETAILS = {
    "AITenantId": "Tenant",
    "EventUid": "Event",
    "Events": "Events",
    "FirstTime": "FirstTime",
    "EvidenceIds": "Evidence",
    "Department": "Department",
    "SessionId": "Session",
    "ResourceId": "Resource",
    "Name": "Resource",
    "CloudAccount": "CloudAccount",
    "CloudRegion": "CloudRegion",
    "CredentialId": "Credential",
    "Model": "Model",
    "Value": "Value",
    "Measured": "Measured",
    "Usual": "Usual",
    "Speed": "KmPerHour",
    "Atlas": "Atlas",
    "Owasp": "Owasp",
}
_LIVE_SUPPRESSION = "PT5H"
NAME_LONGEST = 256
DESCRIPTION_LONGEST = 5000


def title(rule: Rules) -> str:
    """Its name."""
    return f"AI access: {rule.meta.title}"


def file_name(rule: Rules) -> str:
    """Its file, without a folder."""
    return "".join(word.capitalize() for word in rule.meta.name.split("_")) + ".yaml"


def short(rule: Rules) -> str:
    """The description in one line."""
    return " ".join(rule.meta.description.split())


def description(rule: Rules) -> str:
    """What it finds, what it needs, and what to do: Sentinel has no other place for the steps."""
    meta = rule.meta
    parts = [short(rule), f"Needs: {', '.join(meta.needs.any_of)}. {meta.needs.without}"]
    parts += [f"False positive: {reason}" for reason in meta.false_positives]
    parts += [f"{phase.capitalize()}: {' '.join(getattr(meta.response, phase))}" for phase in PHASES]
    return "\n".join(" ".join(part.split()) for part in parts)


def entity_mappings(rule: Rules) -> list[dict[str, Any]]:
    """At most five, each of a column of the result; the first of a kind and column."""
    have = told(rule).columns
    found = []
    for kind, field in rule.meta.entities.items():
        if kind not in _ENTITIES:
            continue
        entity, identifier, instead = _ENTITIES[kind]
        column = instead or named(rule, field)
        if column in have:
            found.append(_mapping(entity, identifier, column))
    # Nobody is named: the tenant is, as the application that everything of it belongs to.
    return found[:_MOST_ENTITIES] or [_mapping("CloudApplication", "Name", named(rule, OWNERS[plan(rule).dataset]))]


def _mapping(entity: str, identifier: str, column: str) -> dict[str, Any]:
    return {"entityType": entity, "fieldMappings": [{"identifier": identifier, "columnName": column}]}


def custom_details(rule: Rules) -> dict[str, str]:
    """Key -> column, of what the result has."""
    have = told(rule).columns
    own = {key: column for column, key in _DETAILS.items() if column in have}
    mapped = {field["columnName"] for one in entity_mappings(rule) for field in one["fieldMappings"]}
    fields = [field for field in plan(rule).fields if field != "event_id"]
    rest = {named(rule, field) for field in fields} - mapped - set(own.values())
    return {**own, **{column[:20]: column for column in sorted(rest) if column in have}}


def grouping(rule: Rules) -> dict[str, Any]:
    """Alerts of what has the same name become one incident."""
    mapped = {field["columnName"]: one["entityType"] for one in entity_mappings(rule) for field in one["fieldMappings"]}
    details = {column: key for key, column in custom_details(rule).items()}
    columns = [named(rule, field) for field in plan(rule).fields]
    entities = dict.fromkeys(mapped[one] for one in columns if one in mapped)
    keys = dict.fromkeys(details[one] for one in columns if one not in mapped and one in details)
    return {
        "enabled": True,
        "reopenClosedIncident": False,
        "lookbackDuration": sentinel(plan(rule)).group_lookback,
        "matchingMethod": "Selected",
        "groupByEntities": list(entities),
        "groupByAlertDetails": [],
        "groupByCustomDetails": list(keys),
    }


def alert_details(rule: Rules) -> dict[str, Any]:
    """The name and text of an alert, with who it is about."""
    mapped = [field["columnName"] for one in entity_mappings(rule) for field in one["fieldMappings"]]
    owner = named(rule, OWNERS[plan(rule).dataset])
    name = f": {{{{{mapped[0]}}}}}"
    return {
        "alertDisplayNameFormat": title(rule)[: NAME_LONGEST - len(name)] + name,
        "alertDescriptionFormat": f"{{{{Events}}}} event(s) since {{{{FirstTime}}}} of {{{{{owner}}}}}. {short(rule)}",
    }


def _connectors(rule: Rules) -> list[dict[str, Any]]:
    table = TABLES[dataset(rule)]  # type: ignore[index]
    return [{"connectorId": one, "dataTypes": [table]} for one in (PUSH_CONNECTOR, FUNCTION_CONNECTOR)]


def _tags(rule: Rules) -> list[str]:
    own = frameworks(rule.meta)
    return [one for key in ("Atlas", "Owasp") for one in own[key].split(", ") if one]


# --- YAML


def as_rule(rule: Rules) -> dict[str, Any]:
    """An analytics rule in the form of the public repository."""
    of = plan(rule)
    tactics, techniques = attack(rule.meta)
    timing = {
        "queryFrequency": _short_span(of.every),
        "queryPeriod": _short_span(of.period),
        "triggerOperator": "gt",
        "triggerThreshold": 0,
    }
    nrt = near_real_time(rule)
    return {
        "id": rule.meta.id,
        "name": title(rule),
        "version": CONTENT_VERSION,
        "kind": "NRT" if nrt else "Scheduled",
        "description": description(rule),
        "severity": SEVERITIES[rule.meta.severity],
        "status": "Available",
        "requiredDataConnectors": _connectors(rule),
        **({} if nrt else timing),
        "tactics": tactics,
        "relevantTechniques": techniques,
        "tags": _tags(rule),
        "query": told(rule).text,
        "entityMappings": entity_mappings(rule),
        "customDetails": custom_details(rule),
        "alertDetailsOverride": alert_details(rule),
        "eventGroupingSettings": {"aggregationKind": "AlertPerResult"},
        "incidentConfiguration": {
            "createIncident": rule.meta.severity != "informational",
            "groupingConfiguration": grouping(rule),
        },
    }


def as_hunt(rule: Rules) -> dict[str, Any]:
    """A hunting query in the form of the public repository."""
    tactics, techniques = attack(rule.meta)
    return {
        "id": rule.meta.id,
        "name": title(rule),
        "description": description(rule),
        "requiredDataConnectors": _connectors(rule),
        "tactics": tactics,
        "relevantTechniques": techniques,
        "query": told(rule).text,
        "entityMappings": entity_mappings(rule),
        "tags": _tags(rule),
        "version": CONTENT_VERSION,
    }


def _short_span(seconds: int) -> str:
    for size, unit in ((DAY, "d"), (HOUR, "h")):
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{-(-seconds // MINUTE)}m"


# --- ARM


def properties(rule: Rules) -> dict[str, Any]:
    """The properties of a rule, or of its template; without ``enabled``."""
    of: Sentinel = sentinel(plan(rule))
    tactics, techniques = attack(rule.meta)
    nrt = near_real_time(rule)
    timing = {
        "queryFrequency": of.frequency,
        "queryPeriod": of.period,
        "triggerOperator": "GreaterThan",
        "triggerThreshold": of.threshold,
    }
    subs = [one for one in techniques if "." in one]
    return {
        "displayName": title(rule),
        "description": description(rule),
        "severity": SEVERITIES[rule.meta.severity],
        "query": told(rule).text,
        **({} if nrt else timing),
        "suppressionDuration": _LIVE_SUPPRESSION,
        "suppressionEnabled": of.suppression,
        "tactics": tactics,
        "techniques": sorted({one.partition(".")[0] for one in techniques}),
        **({"subTechniques": subs} if subs else {}),
        "entityMappings": entity_mappings(rule),
        "customDetails": custom_details(rule),
        "alertDetailsOverride": alert_details(rule),
        "eventGroupingSettings": {"aggregationKind": "AlertPerResult"},
        "incidentConfiguration": {
            "createIncident": rule.meta.severity != "informational",
            "groupingConfiguration": grouping(rule),
        },
    }
