"""``to_ecs``: an AccessEvent as a nested Elastic Common Schema document (ECS 9.5).

Plain fields go where their metadata says: ECS's own names, ``ai_audit.*`` for what ECS has no name for, and a few names
that Elastic's integrations and OpenTelemetry established (``FOREIGN``). What ECS translates (``event.outcome``,
``event.duration`` in nanoseconds, ``threat.*``) is derived here; the unchanged value stays under ``ai_audit``.
Facts: ECS 9.5 field reference, "Event categorization fields".
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from aitrail.event import AccessEvent
from aitrail.schema.ocsf import ACTIVITIES, activity, attack_parts
from aitrail.schema.place import exact_places, nest

ECS_VERSION = "9.5.0"
OWN = "ai_audit."

# Names outside ECS that are in the field already, with who established them.
FOREIGN: Mapping[str, str] = {
    "gen_ai.conversation.id": "OpenTelemetry GenAI",
    "gen_ai.policy.action": "Elastic integration aws_bedrock",
    "gen_ai.policy.name": "Elastic integration aws_bedrock",
    "gen_ai.compliance.violation_code": "Elastic integration aws_bedrock",
    "aws.cloudtrail.user_identity.access_key_id": "Elastic integration aws",
    "aws.cloudtrail.user_identity.session_context.session_issuer.arn": "Elastic integration aws",
    "labels.purpose": "ECS labels (custom keys)",
    "labels.ticket": "ECS labels (custom keys)",
}

# Where ECS 9.5 has a place for a field of another stream (rule.*, event.*, message); a field that accesses have, too,
# stands where it stands there, all others below ``ai_audit.<stream>``.
RECORD_NAMES: Mapping[str, Mapping[str, str]] = {
    "finding": {
        "rule_id": "rule.id",
        "rule_name": "rule.name",
        "rule_version": "rule.version",
        "first_seen": "event.start",
        "detected_at": "event.created",
        "summary": "message",
    },
    "health": {"reason": "message"},
    "checkpoint": {},
}

# What to_ecs adds to the plain fields: name -> Elasticsearch type, for index templates.
DERIVED: Mapping[str, str] = {
    "ecs.version": "keyword",
    "event.kind": "keyword",
    "event.category": "keyword",
    "event.type": "keyword",
    "event.outcome": "keyword",
    "event.module": "keyword",
    "event.duration": "long",
    "observer.vendor": "keyword",
    "observer.product": "keyword",
    "related.user": "keyword",
    "related.ip": "ip",
    "related.hosts": "keyword",
    "related.hash": "keyword",
    "threat.framework": "keyword",
    "threat.technique.id": "keyword",
    "threat.technique.subtechnique.id": "keyword",
    "tags": "keyword",
}

_OUTCOMES: Mapping[str, str] = {
    "success": "success",
    "blocked": "failure",
    "denied": "failure",
    "throttled": "failure",
    "error": "failure",
    "unknown": "unknown",
}
# action_kind -> event.category of an access that changes something, and of one that does not.
_CATEGORIES: Mapping[str, tuple[str, str]] = {
    "inference": ("api", "api"),
    "admin": ("configuration", "api"),
    "guardrail": ("configuration", "api"),
    "auth": ("iam", "api"),
    "data": ("api", "api"),
    "weights": ("api", "api"),
    "": ("api", "api"),
}
# What an operation does -> event.type; every one of these is allowed for api, configuration and iam except `access`,
# which iam does not know (and which only reads get).
_CHANGES: Mapping[str, str] = {"Create": "creation", "Update": "change", "Delete": "deletion"}


def to_ecs(event: AccessEvent) -> dict[str, Any]:
    """Give ``event`` as one ECS document, ready for JSON.

    Promised: ``event.duration`` is in nanoseconds; ``event.category`` and ``event.type`` hold only pairs that ECS
    allows; no field of the event is lost.
    """
    out = nest(msgspec.to_builtins(event), exact_places("ecs"))
    if event.role:
        out["user"]["roles"] = [event.role]  # ECS normalizes this one to an array
    _categorize(event, out["event"])
    _threat(event, out)
    _related(event, out)
    out.setdefault("ai_audit", {}).setdefault("outcome", {})["status"] = event.outcome_status
    out["ecs"] = {"version": ECS_VERSION}
    out["observer"] = {"vendor": "aitrail", "product": "aitrail"}
    return out


def _categorize(event: AccessEvent, target: dict[str, Any]) -> None:
    status = event.outcome_status
    doing = ACTIVITIES[activity(event)]
    change = _CHANGES.get(doing)
    categories = [_CATEGORIES[event.action_kind][0 if change else 1]]
    types = [change] if change else ["access"] if categories == ["api"] else ["info"]
    if status == "blocked":
        # intrusion_detection knows allowed, denied and info only; a document's types must fit all its categories.
        categories, types = ["api", "intrusion_detection"], ["denied"]
    elif status == "denied" and categories == ["api"]:
        types.append("denied")
    elif status == "success" and categories == ["api"]:
        types.append("allowed")
    target["kind"] = "event"
    target["category"] = categories
    target["type"] = types
    target["outcome"] = _OUTCOMES[status]
    target["module"] = "aitrail"
    if event.latency_ms is not None:
        target["duration"] = round(event.latency_ms * 1_000_000)


def _threat(event: AccessEvent, out: dict[str, Any]) -> None:
    if event.owasp:
        out["tags"] = [f"owasp.{entry.replace(':', '-')}" for entry in event.owasp]
    techniques: dict[str, None] = {}
    subtechniques: dict[str, None] = {}
    for entry in event.atlas:
        technique, subtechnique, _ = attack_parts(entry)
        techniques[technique] = None
        if subtechnique:
            subtechniques[subtechnique] = None
    if techniques:
        threat: dict[str, Any] = {"framework": "MITRE ATLAS", "technique": {"id": list(techniques)}}
        if subtechniques:
            threat["technique"]["subtechnique"] = {"id": list(subtechniques)}
        out["threat"] = threat


def _related(event: AccessEvent, out: dict[str, Any]) -> None:
    related: dict[str, list[str]] = {}
    users = _distinct(event.user_id, event.user_name, event.user_email)
    if users:
        related["user"] = users
    if event.src_ip:
        related["ip"] = [event.src_ip]
    if event.src_host:
        related["hosts"] = [event.src_host]
    hashes = _distinct(event.prompt_hash, event.response_hash, event.system_hash)
    if hashes:
        related["hash"] = hashes
    if related:
        out["related"] = related


def _distinct(*values: str) -> list[str]:
    return list(dict.fromkeys([value for value in values if value]))
