"""A ``Finding`` as OCSF 1.8 Detection Finding (class 2004).

The events that show it are ``finding_info.related_events`` by their uid, which is ``metadata.uid`` of their rows of API
Activity. What OCSF has no place for is in ``unmapped``. It validates against OCSF 1.8.0 without profiles.
"""

from collections.abc import Mapping
from typing import Any

from aitrail import __version__
from aitrail.schema.ocsf import OCSF_VERSION, attack_entry, epoch_ms
from aitrail.streams import Finding

FINDING_CLASS_UID = 2004
_CATEGORY_UID = 2
_CREATE = 1
# severity -> (severity_id, severity)
_SEVERITIES: Mapping[str, tuple[int, str]] = {
    "informational": (1, "Informational"),
    "low": (2, "Low"),
    "medium": (3, "Medium"),
    "high": (4, "High"),
    "critical": (5, "Critical"),
}
# Kind of an entity -> observable.type_id and its caption; others are 99.
_OBSERVABLES: Mapping[str, tuple[int, str]] = {
    "user": (31, "User Object: uid"),
    "email": (5, "Email Address"),
    "ip": (2, "IP Address"),
    "host": (1, "Hostname"),
    "account": (35, "Account Object: uid"),
    "resource": (10, "Resource UID"),
    "credential": (19, "User Credential ID"),
}
_OTHER = (99, "Other")
_RULE = (1, "Rule")


def finding_to_ocsf(finding: Finding) -> dict[str, Any]:
    """Give ``finding`` as one Detection Finding object, ready for JSON; no field of it is lost."""
    severity_id, severity = _SEVERITIES[finding.severity]
    out: dict[str, Any] = {
        "activity_id": _CREATE,
        "activity_name": "Create",
        "category_uid": _CATEGORY_UID,
        "category_name": "Findings",
        "class_uid": FINDING_CLASS_UID,
        "class_name": "Detection Finding",
        "type_uid": FINDING_CLASS_UID * 100 + _CREATE,
        "type_name": "Detection Finding: Create",
        "time": epoch_ms(finding.timestamp),
        "severity_id": severity_id,
        "severity": severity,
        "status_id": 1,
        "status": "New",
        "is_alert": severity_id >= 4,
        "metadata": _metadata(finding),
        "finding_info": _info(finding),
    }
    if finding.summary:
        out["message"] = finding.summary
    if finding.risk_score is not None:
        out["risk_score"] = finding.risk_score
    observables = [_observable(entity) for entity in finding.entities]
    if finding.user_id:
        observables.insert(0, _observable(f"user:{finding.user_id}"))
    if observables:
        out["observables"] = list({(one["type_id"], one["value"]): one for one in observables}.values())
    unmapped = {"owasp": list(finding.owasp), "user_id": finding.user_id, "atlas": list(finding.atlas)}
    if any(unmapped.values()):
        out["unmapped"] = {name: value for name, value in unmapped.items() if value}
    return out


def _metadata(finding: Finding) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "uid": finding.event_id,
        "version": OCSF_VERSION,
        "tenant_uid": finding.tenant_id,
        "product": {"name": "aitrail", "vendor_name": "aitrail", "version": __version__},
    }
    if finding.detected_at:
        metadata["logged_time"] = epoch_ms(finding.detected_at)
    if finding.tags:
        metadata["labels"] = list(finding.tags)
    return metadata


def _info(finding: Finding) -> dict[str, Any]:
    type_id, kind = _RULE
    analytic = {"uid": finding.rule_id, "type_id": type_id, "type": kind, "name": finding.rule_name}
    analytic["version"] = finding.rule_version
    info: dict[str, Any] = {
        "uid": finding.event_id,
        "title": finding.rule_name or finding.rule_id,
        "analytic": {name: value for name, value in analytic.items() if value},
        "last_seen_time": epoch_ms(finding.timestamp),
    }
    if finding.first_seen:
        info["first_seen_time"] = epoch_ms(finding.first_seen)
    if finding.detected_at:
        info["created_time"] = epoch_ms(finding.detected_at)
    if finding.atlas:
        info["attacks"] = [attack_entry(entry) for entry in finding.atlas]
    if finding.evidence_ids:
        info["related_events"] = [{"uid": one} for one in finding.evidence_ids]
    if finding.evidence_count:
        info["related_events_count"] = finding.evidence_count
    return info


def _observable(entity: str) -> dict[str, Any]:
    kind, colon, value = entity.partition(":")
    type_id, caption = _OBSERVABLES.get(kind, _OTHER) if colon else _OTHER
    return {
        "name": kind if colon else "entity",
        "value": value if colon else entity,
        "type_id": type_id,
        "type": caption,
    }
