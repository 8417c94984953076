"""LiteLLM's StandardAuditLogPayload: a change of a key, user, team, model or setting of the gateway itself."""

from collections.abc import Sequence

import msgspec

from aitrail.event import AccessEvent, ActionKind, make_event_id
from aitrail.normalize.common import decode, epoch_to_time
from aitrail.normalize.litellm_identity import DEFAULT_USER
from aitrail.normalize.litellm_types import Audit
from aitrail.normalize.litellm_values import moment
from aitrail.normalize.outcome import Context, Normalized, Outcome, Rejected

SOURCE = "litellm"
_decoder = msgspec.json.Decoder(Audit)

# Table -> what is in it and what kind of access a change of it is (litellm/proxy/_types.py: LitellmTableNames).
_TABLES: dict[str, tuple[str, ActionKind]] = {
    "litellm_verificationtoken": ("key", "auth"),
    "litellm_usertable": ("user", "auth"),
    "litellm_teamtable": ("team", "auth"),
    "litellm_organizationtable": ("organization", "auth"),
    "litellm_ssoconfig": ("sso_config", "auth"),
    "litellm_proxymodeltable": ("model", "admin"),
    "litellm_agentstable": ("agent", "admin"),
    "litellm_tooltable": ("tool", "admin"),
    "litellm_cacheconfig": ("cache_config", "admin"),
    "litellm_config": ("config", "admin"),
    "litellm_configoverrides": ("config_override", "admin"),
    "litellm_uisettings": ("ui_settings", "admin"),
    "litellm_managedfiletable": ("file", "data"),
    "litellm_guardrailstable": ("guardrail", "guardrail"),
}


def normalize_audit(raw: bytes, context: Context) -> Sequence[Outcome]:
    """Turn one admin audit record into one event; it is written after the change, so the outcome is success."""
    record = decode(_decoder, raw, SOURCE)
    if isinstance(record, Rejected):
        return (record,)
    when = moment(record.updated_at)
    timestamp = epoch_to_time(when.epoch) if when.epoch is not None else ""
    if not timestamp:
        code = "field_missing" if record.updated_at is None else "time_invalid"
        return (Rejected(code, "updated_at", SOURCE),)
    if not record.id:
        return (Rejected("field_missing", "id", SOURCE),)
    noun, kind = _TABLES.get(record.table_name.lower(), (record.table_name.lower(), "admin"))
    user = (record.changed_by or "").lower()
    known = user not in ("", DEFAULT_USER)
    flags = ("time_zone_assumed",) if when.assumed else ()
    event = AccessEvent(
        event_id=make_event_id(context.tenant_id, SOURCE, f"audit|{record.id}"),
        timestamp=timestamp,
        tenant_id=context.tenant_id,
        source=SOURCE,
        source_event_id=record.id,
        flags=flags if known else (*flags, "identity_missing"),
        principal_type="human" if known else "unknown",
        user_id=user,
        user_email=user if "@" in user else "",
        credential_id=record.changed_by_api_key or "",
        action=f"{noun}.{record.action.lower()}",
        action_kind=kind,
        service="litellm",
        read_only=False,
        resource_type=noun,
        resource_id=record.object_id or "",
        outcome_status="success",
    )
    return (Normalized(event),)
