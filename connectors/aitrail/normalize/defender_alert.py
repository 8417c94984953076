"""Microsoft Defender for Cloud alerts of the plan for AI services: rows of the table SecurityAlert, or exported alerts.

Facts: Azure Monitor reference, table "SecurityAlert"; Security REST API, "Alerts" (alertType names the detection
logic); Defender for Cloud, "Alerts for AI services" for the identifiers, all of which begin with ``AI.``. Which column
holds the identifier is not documented, so it is taken from whichever does. An alert names no request, so it is an event
of its own (flag ``alert_only``): the SIEM joins it to calls by resource, account and time. What Defender quotes of
prompts (``ExtendedProperties``) is content and is not read.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from aitrail.event import AccessEvent, OutcomeStatus, make_event_id
from aitrail.normalize.azure_common import resource_of
from aitrail.normalize.common import decode, has_duplicate_key, parse_time, split_address
from aitrail.normalize.outcome import Context, Normalized, Outcome, Rejected

RECORD_TYPE = "defender_alert"
JUDGE = "defender-for-ai"
_IDENTIFYING = (b'"SystemAlertId"', b'"AlertType"', b'"AlertName"')
_MAX_ENTITIES = 100


class _Alert(msgspec.Struct, gc=False, rename="pascal"):
    system_alert_id: str = ""
    alert_type: str | None = None
    alert_name: str | None = None
    time_generated: str | None = None
    start_time_utc: str | None = None
    start_time: str | None = None
    resource_id: str | None = None
    azure_resource_id: str | None = None
    entities: Any = None


_decoder = msgspec.json.Decoder(_Alert)
_entities = msgspec.json.Decoder(list[dict[str, Any]])


def normalize(raw: bytes, context: Context) -> Sequence[Outcome]:
    """Turn one alert into one event; alerts of other plans are not about AI and are counted only."""
    alert = decode(_decoder, raw, RECORD_TYPE)
    if isinstance(alert, Rejected):
        return (alert,)
    kind = next(
        (text for text in (alert.alert_type, alert.alert_name) if text and text.lower().startswith("ai.")), ""
    ).lower()
    if not kind:
        return (Rejected("not_ai_related", "AlertType", RECORD_TYPE),)
    if not alert.system_alert_id:
        return (Rejected("field_missing", "SystemAlertId", RECORD_TYPE),)
    if has_duplicate_key(raw, _IDENTIFYING):
        return (Rejected("json_duplicate_key", "", RECORD_TYPE),)
    moment = alert.start_time_utc or alert.start_time or alert.time_generated
    if not moment:
        return (Rejected("field_missing", "TimeGenerated", RECORD_TYPE),)
    timestamp, problem = parse_time(moment, assume_utc=True)
    if not timestamp:
        return (Rejected(problem, "TimeGenerated", RECORD_TYPE),)
    return (Normalized(_event(alert, kind, timestamp, problem, context)),)


def _event(alert: _Alert, kind: str, timestamp: str, problem: str, context: Context) -> AccessEvent:
    user, address, resource_id = _who(alert)
    resource_id = alert.azure_resource_id or alert.resource_id or resource_id
    resource = resource_of(resource_id)
    src_ip, src_host = split_address(address)
    # Detected means seen and let pass, or nobody knows; only a blocked attempt says what became of the call.
    blocked = kind.endswith("blockedattempt")
    outcome: OutcomeStatus = "blocked" if blocked else "unknown"
    return AccessEvent(
        event_id=make_event_id(context.tenant_id, RECORD_TYPE, alert.system_alert_id),
        timestamp=timestamp,
        tenant_id=context.tenant_id,
        source=RECORD_TYPE,
        source_event_id=alert.system_alert_id,
        flags=("alert_only", *([] if user else ["identity_missing"]), *([problem] if problem else [])),
        principal_type="unknown",
        user_id=user.lower(),
        src_ip=src_ip,
        src_host=src_host,
        action=kind[:256],
        action_kind="inference",
        service="microsoft.security",
        read_only=True,
        resource_type=resource.type,
        resource_id=resource_id,
        cloud_provider="azure",
        cloud_account=resource.subscription,
        guardrail_action="blocked" if blocked else "flagged",
        guardrail_name=JUDGE,
        guardrail_categories=(kind[:256],),
        outcome_status=outcome,
    )


def _who(alert: _Alert) -> tuple[str, str, str]:
    """Account, address and resource among the alert's entities (a list, or JSON text of one)."""
    listed = alert.entities
    if isinstance(listed, str):
        try:
            listed = _entities.decode(listed)
        except (msgspec.MsgspecError, RecursionError, ValueError):
            listed = []
    account = address = resource = ""
    for item in listed[:_MAX_ENTITIES] if isinstance(listed, list) else ():
        if not isinstance(item, dict):
            continue
        kind = _text(item, "Type").lower()
        if kind == "account" and not account:
            name, suffix = _text(item, "Name"), _text(item, "UPNSuffix")
            account = f"{name}@{suffix}" if name and suffix else name or _text(item, "AadUserId")
        elif kind == "ip" and not address:
            address = _text(item, "Address")
        elif kind == "azure-resource" and not resource:
            resource = _text(item, "ResourceId")
    return account, address, resource


def _text(item: dict[str, Any], key: str) -> str:
    value = item.get(key)
    return value[:1024] if isinstance(value, str) else ""
