"""``to_ocsf``: an AccessEvent as OCSF 1.8.0 API Activity (class 6003).

Profiles: ``ai_operation`` and ``security_control`` always, ``cloud``, ``trace`` and ``data_classification`` when the
event has those facts; ``metadata.profiles`` names them. Plain fields go where their metadata says; what OCSF keeps as
an enumeration is translated here, and its unchanged value stays beside it (mostly in ``unmapped``). Facts: OCSF 1.8.0
schema, class ``api_activity``, objects ``actor``, ``ai_model``, ``message_context``, ``resource_details``, ``attack``.

Datastore Activity 6005 is not used: in 1.8.0 it has no ``resources`` and demands a database, bucket or table, which
half of the data accesses (feature stores, knowledge bases, training jobs) do not name.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec

from aitrail import __version__
from aitrail.event import AccessEvent
from aitrail.schema.place import exact_places, nest

OCSF_VERSION = "1.8.0"
CLASS_UID = 6003
CATEGORY_UID = 6
# OCSF's own caption for what the record does not say; used only where the class demands a value.
UNKNOWN = "Unknown"

_EMAIL = re.compile(r"[a-zA-Z0-9!#$%&'*+\-/=?^_`{|}~.,]+@[a-zA-Z0-9-]+\.[a-zA-Z0-9.-]+")  # narrower than OCSF's email_t
_MAX_IP = 40  # OCSF ip_t max_len

ACTIVITIES: Mapping[int, str] = {0: "Unknown", 1: "Create", 2: "Read", 3: "Update", 4: "Delete", 99: "Other"}
# First words of operation names (lower-case) by what they do; the longest fitting word decides.
_VERBS: Mapping[str, int] = {
    **dict.fromkeys(("create", "import", "register", "start", "copy", "upload", "add", "issue", "generate", "new"), 1),
    **dict.fromkeys(("get", "list", "describe", "search", "query", "retrieve", "read", "invoke", "batchget"), 2),
    **dict.fromkeys(("update", "put", "modify", "set", "associate", "attach", "tag", "enable", "ingest", "write"), 3),
    **dict.fromkeys(("patch", "batchput", "batchwrite", "rotate", "regenerate", "untag", "send", "publish"), 3),
    **dict.fromkeys(("stop", "disable", "disassociate", "detach"), 3),
    **dict.fromkeys(("delete", "remove", "deregister", "revoke", "batchdelete"), 4),
}
_VERB_ORDER = sorted(_VERBS, key=len, reverse=True)

_USER_TYPES: Mapping[str, int] = {"unknown": 0, "human": 1, "service": 4, "agent": 99}
_USER_TYPE_NAMES: Mapping[int, str] = {0: "Unknown", 1: "User", 4: "Service", 99: "Agent"}
# outcome_status -> (status_id, status, action_id, disposition_id, disposition)
_OUTCOMES: Mapping[str, tuple[int, str, int, int, str]] = {
    "success": (1, "Success", 1, 1, "Allowed"),
    "blocked": (2, "Failure", 2, 2, "Blocked"),
    "denied": (2, "Failure", 2, 26, "Unauthorized"),
    "throttled": (2, "Failure", 2, 99, "Throttled"),
    "error": (2, "Failure", 0, 27, "Error"),
    "unknown": (0, "Unknown", 0, 0, "Unknown"),
}
# What a guardrail did to a call that went through: (action_id, disposition_id, disposition).
_GUARDRAILS: Mapping[str, tuple[int, int, str]] = {
    "flagged": (3, 15, "Detected"),
    "masked": (4, 99, "Masked"),
}
_ACTION_NAMES: Mapping[int, str] = {0: "Unknown", 1: "Allowed", 2: "Denied", 3: "Observed", 4: "Modified"}
# risk_score from -> (severity_id, severity, risk_level_id, risk_level)
_LEVELS: tuple[tuple[int, tuple[int, str, int, str]], ...] = (
    (90, (5, "Critical", 4, "Critical")),
    (70, (4, "High", 3, "High")),
    (40, (3, "Medium", 2, "Medium")),
    (20, (2, "Low", 1, "Low")),
)
_NO_RISK = (1, "Informational", 0, "Info")
# Classification -> data_classification.category_id and its caption; what is no class of data is "Other".
_DATA_CLASSES: Mapping[str, tuple[int, str]] = {
    "pii": (1, "Personal"),
    "financial": (3, "Financial"),
    "secret": (6, "Security"),
}


def to_ocsf(event: AccessEvent) -> dict[str, Any]:
    """Give ``event`` as one API Activity 6003 object, ready for JSON.

    Promised: it validates against OCSF 1.8.0 with the profiles in ``metadata.profiles``; no field of the event is
    lost; ``time`` and ``metadata.logged_time`` are milliseconds since the epoch, ``duration`` is milliseconds.
    """
    out = nest(msgspec.to_builtins(event), exact_places("ocsf"))
    out |= {"category_uid": CATEGORY_UID, "class_uid": CLASS_UID, "class_name": "API Activity"}
    if "cloud" in out:
        out["cloud"].setdefault("provider", UNKNOWN)
    for step in _STEPS:
        step(event, out)
    return out


def _metadata(event: AccessEvent, out: dict[str, Any]) -> None:
    metadata = out["metadata"]
    metadata["version"] = OCSF_VERSION
    metadata["product"] = {"name": "aitrail", "vendor_name": "aitrail", "version": __version__}
    metadata["profiles"] = ["ai_operation", "security_control", *(name for name in ("cloud", "trace") if name in out)]
    if "resources" in out and "data_classifications" in out["resources"][0]:
        metadata["profiles"].append("data_classification")
    if event.request_id:
        metadata["correlation_uid"] = event.request_id
    if event.ingested_at:
        metadata["logged_time"] = epoch_ms(event.ingested_at)
    labels = [f"{key}:{value}" for key, value in (("purpose", event.purpose), ("ticket", event.ticket)) if value]
    if labels:
        metadata["labels"] = labels
    out["time"] = epoch_ms(event.timestamp)


def _activity(event: AccessEvent, out: dict[str, Any]) -> None:
    number = activity(event)
    out["activity_id"] = number
    out["activity_name"] = event.action if number == 99 else ACTIVITIES[number]
    out["type_uid"] = CLASS_UID * 100 + number
    out["type_name"] = f"API Activity: {ACTIVITIES[number]}"
    out.setdefault("api", {}).setdefault("operation", UNKNOWN)


def activity(event: AccessEvent) -> int:
    """The OCSF activity (a key of ``ACTIVITIES``): reading, or what the operation's name says it does."""
    return 2 if event.read_only or event.action_kind == "inference" else _verb(event.action)


@lru_cache(maxsize=4096)
def _verb(action: str) -> int:
    """The activity of an operation name, such as ``putguardrail`` or ``microsoft.x/accounts/write``."""
    if not action:
        return 0
    word = action.rsplit("/", 1)[-1].rsplit(".", 1)[-1].rsplit(":", 1)[-1]
    for verb in _VERB_ORDER:
        if word.startswith(verb):
            return _VERBS[verb]
    return 99


def _actor(event: AccessEvent, out: dict[str, Any]) -> None:
    user = out.setdefault("actor", {}).setdefault("user", {})
    number = _USER_TYPES.get(event.principal_type, 0)
    user["type_id"] = number
    user["type"] = _USER_TYPE_NAMES[number]
    groups = [{"uid": event.role, "type": "role"}] if event.role else []
    if event.department:
        groups.append({"name": event.department, "type": "department"})
    if groups:
        user["groups"] = groups
    email = user.get("email_addr")
    if email and not _EMAIL.fullmatch(email):
        out.setdefault("unmapped", {})["user_email"] = user.pop("email_addr")
    if "uid" not in user and "name" not in user:
        user["name"] = email or UNKNOWN


def _endpoint(event: AccessEvent, out: dict[str, Any]) -> None:
    endpoint = out.setdefault("src_endpoint", {})
    if len(event.src_ip) > _MAX_IP:
        out.setdefault("unmapped", {})["src_ip"] = endpoint.pop("ip")
    if not endpoint:
        endpoint["name"] = UNKNOWN


def _model(event: AccessEvent, out: dict[str, Any]) -> None:
    if "ai_model" in out:
        out["ai_model"].setdefault("ai_provider", UNKNOWN)
        out["ai_model"].setdefault("name", UNKNOWN)
    if "message_context" in out:
        out["message_context"]["service"] = {"name": event.service or event.source or UNKNOWN}
        if event.app:
            out["message_context"]["application"] = {"name": event.app}


def _resources(event: AccessEvent, out: dict[str, Any]) -> None:
    found = [
        {
            "category_id": number,
            "category": caption,
            "classifier_details": {"type": place, "name": "aitrail", "uid": event.classifier_version or UNKNOWN},
        }
        for place, value in (("prompt", event.prompt_classification), ("response", event.response_classification))
        if value not in ("", "clean")
        for number, caption in (_DATA_CLASSES.get(value, (99, value)),)
    ]
    if not (event.resource_id or event.resource_type or found):
        return
    resource: dict[str, Any] = {"role_id": 1, "role": "Target"}
    if event.resource_id:
        resource["uid"] = event.resource_id
    else:
        resource["name"] = event.model or event.app or event.service or UNKNOWN
    if event.resource_type:
        resource["type"] = event.resource_type
    if found:
        resource["data_classifications"] = found
    out["resources"] = [resource]


def _status(event: AccessEvent, out: dict[str, Any]) -> None:
    status_id, status, action_id, disposition_id, disposition = _OUTCOMES[event.outcome_status]
    if event.outcome_status == "success" and event.guardrail_action in _GUARDRAILS:
        action_id, disposition_id, disposition = _GUARDRAILS[event.guardrail_action]
    out["status_id"], out["status"] = status_id, status
    out["status_detail"] = event.outcome_status
    out["action_id"], out["action"] = action_id, _ACTION_NAMES[action_id]
    out["disposition_id"], out["disposition"] = disposition_id, disposition
    code = event.error_code or (str(event.http_status) if event.http_status is not None else "")
    if code:
        out["status_code"] = code
    if event.http_status is not None:
        out["api"].setdefault("response", {})["code"] = event.http_status
    if event.latency_ms is not None:
        out["duration"] = round(event.latency_ms)


def _risk(event: AccessEvent, out: dict[str, Any]) -> None:
    level = _NO_RISK
    if event.risk_score is not None:
        level = next((levels for floor, levels in _LEVELS if event.risk_score >= floor), _NO_RISK)
        out["risk_level_id"], out["risk_level"] = level[2], level[3]
    out["severity_id"], out["severity"] = level[0], level[1]
    if event.injection_score is not None:
        out["confidence_score"] = round(event.injection_score * 100)
    if event.injection_tier == "high":
        out["is_alert"] = True
    attacks = [attack_entry(entry) for entry in event.atlas]
    if attacks:
        out["attacks"] = attacks


@lru_cache(maxsize=1024)
def attack_parts(entry: str) -> tuple[str, str, str]:
    """``aml.t0051.000@5.6.0`` -> technique, sub-technique, edition; the sub-technique ends in three digits."""
    uid, _, edition = entry.upper().partition("@")
    head, _, tail = uid.rpartition(".")
    is_sub = len(tail) == 3 and tail.isdigit() and head
    return (head if is_sub else uid), (uid if is_sub else ""), edition


def attack_entry(entry: str) -> dict[str, Any]:
    """One technique as an OCSF attack object."""
    technique, sub_technique, edition = attack_parts(entry)
    attack: dict[str, Any] = {"technique": {"uid": technique}}
    if sub_technique:
        attack["sub_technique"] = {"uid": sub_technique}
    if edition:
        attack["version"] = edition
    return attack


@lru_cache(maxsize=4096)
def epoch_ms(timestamp: str) -> int:
    """Turn a canonical timestamp (UTC, three decimals) into milliseconds since the epoch."""
    return round(datetime.fromisoformat(timestamp).timestamp() * 1000)


_STEPS: tuple[Callable[[AccessEvent, dict[str, Any]], None], ...] = (
    _activity,
    _actor,
    _endpoint,
    _model,
    _resources,
    _status,
    _risk,
    _metadata,
)
