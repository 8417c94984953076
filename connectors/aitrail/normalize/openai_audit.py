"""The OpenAI organization audit log (``GET /v1/organization/audit_logs``): who changed keys, users, projects, models.

It holds no prompts. Names: OpenAI's published API description. ``effective_at`` is in seconds; the details of an event
are under a key that is its type.
"""

from collections.abc import Sequence

from aitrail.event import AccessEvent, ActionKind
from aitrail.normalize.common import split_address
from aitrail.normalize.loose import Object, close, dig, first, inner, moment, read, start, text
from aitrail.normalize.outcome import Context, Outcome, Rejected

SOURCE = "openai_audit"
_IDENTITY = (b'"actor"', b'"email"')
# First part of the type -> kind of access; everything else is a change of settings.
_KINDS: dict[str, ActionKind] = {
    **dict.fromkeys(
        ("api_key", "service_account", "user", "invite", "login", "logout", "role", "group", "certificate",
         "certificates", "scim", "external_key"), "auth"),
    **dict.fromkeys(("checkpoint", "checkpoint_permission", "model"), "weights"),
    **dict.fromkeys(("file", "vector_store", "dataset"), "data"),
}  # fmt: skip


def normalize(raw: bytes, context: Context) -> Sequence[Outcome]:
    """Turn one audit record into one event; total, pure."""
    record = read(raw, SOURCE, _IDENTITY)
    if isinstance(record, Rejected):
        return (record,)
    kind = text(record.get("type"))
    if not kind:
        return (Rejected("field_missing", "type", SOURCE),)
    event = start(raw, SOURCE, context, moment(record.get("effective_at")), "effective_at", first(record, "id"))
    if isinstance(event, Rejected):
        return (event,)
    event.service, event.model_provider = "openai", "openai"
    event.action = kind.lower()
    noun = event.action.partition(".")[0]
    event.action_kind = _KINDS.get(noun, "admin")
    event.read_only = noun in ("login", "logout") or None
    # What failed is in the type's name; everything else is written after it took effect.
    event.outcome_status = (
        "denied" if event.action == "login.failed" else "error" if "failed" in event.action else "success"
    )
    project = inner(record, "project")
    event.app = first(project, "name", "id").lower()
    event.cloud_account = first(project, "id").lower()
    details = inner(record, kind)
    event.resource_type = noun
    event.resource_id = first(details, "id", "project_id", "fine_tuned_model_checkpoint") or first(project, "id")
    event.error_code = first(details, "error_code").lower()
    _fill_actor(event, inner(record, "actor"))
    if event.action_kind == "auth" and noun in ("user", "role"):
        event.target_account = first(details, "email") or first(inner(details, "data"), "email")
    return (close(event),)


def _fill_actor(event: AccessEvent, actor: Object) -> None:
    session, key = inner(actor, "session"), inner(actor, "api_key")
    user = inner(session, "user") or inner(key, "user")
    account = inner(key, "service_account")
    event.user_email = first(user, "email").lower()
    event.user_id = event.user_email or first(user, "id").lower() or first(account, "id").lower()
    event.credential_id = first(key, "id")
    if account or first(key, "type") == "service_account":
        event.principal_type = "service"
    event.src_ip, event.src_host = split_address(text(session.get("ip_address")))
    event.user_agent = text(session.get("user_agent"))
    country = text(dig(session, "ip_address_details", "country"))
    if country and not event.src_ip:
        event.src_host = event.src_host or country.lower()
