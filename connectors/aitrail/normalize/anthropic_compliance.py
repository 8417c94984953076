"""Anthropic's compliance activities (``GET /v1/compliance/activities``): who did what in the organization.

No content: chats are a separate export. Names: Anthropic's documentation of the Compliance API. An activity's further
fields are named after what it concerns (``claude_chat_id``, ``claude_project_id`` ...).
"""

from collections.abc import Sequence

from aitrail.event import AccessEvent, ActionKind
from aitrail.normalize.common import split_address
from aitrail.normalize.loose import Object, close, first, inner, moment, read, start, text
from aitrail.normalize.outcome import Context, Outcome, Rejected

SOURCE = "anthropic_compliance"
_IDENTITY = (b'"actor"', b'"email_address"')
# Words of the type, in this order -> kind of access; everything else is administration.
_KINDS: tuple[tuple[tuple[str, ...], ActionKind], ...] = (
    (
        ("sign_in", "sign_out", "login", "logout", "sso", "scim", "api_key", "role", "invite", "user_", "session"),
        "auth",
    ),
    (("chat", "message", "artifact", "skill_run"), "inference"),
    (("file", "document", "project_doc", "integration", "connector", "export"), "data"),
)
_RESOURCES = (
    "claude_chat_id",
    "claude_project_id",
    "claude_file_id",
    "claude_artifact_id",
    "api_key_id",
    "workspace_id",
)


def normalize(raw: bytes, context: Context) -> Sequence[Outcome]:
    """Turn one activity into one event; total, pure."""
    record = read(raw, SOURCE, _IDENTITY)
    if isinstance(record, Rejected):
        return (record,)
    kind = text(record.get("type")).lower()
    if not kind:
        return (Rejected("field_missing", "type", SOURCE),)
    event = start(raw, SOURCE, context, moment(record.get("created_at")), "created_at", first(record, "id"))
    if isinstance(event, Rejected):
        return (event,)
    event.service, event.model_provider = "anthropic", "anthropic"
    event.action = kind
    event.action_kind = next((found for words, found in _KINDS if any(word in kind for word in words)), "admin")
    event.read_only = True if kind.endswith(("_viewed", "_accessed", "_downloaded")) else None
    refused = any(word in kind for word in ("failed", "denied", "rejected"))
    event.outcome_status = "denied" if refused else "success"
    event.cloud_account = first(record, "organization_id", "organization_uuid").lower()
    event.session_id = first(record, "claude_chat_id")
    for name in _RESOURCES:
        if first(record, name):
            event.resource_type, event.resource_id = name.removesuffix("_id"), first(record, name)
            break
    _fill_actor(event, inner(record, "actor"))
    return (close(event, person="user_claimed" not in event.flags),)


def _fill_actor(event: AccessEvent, actor: Object) -> None:
    kind = first(actor, "type").lower()
    event.user_email = first(actor, "email_address").lower()
    event.user_id = event.user_email or first(actor, "user_id").lower()
    event.credential_id = first(actor, "api_key_id", "admin_api_key_id")
    service = first(actor, "service_account_id").lower()
    if service or "service" in kind or (event.credential_id and not event.user_id):
        event.principal_type = "service"
        event.user_id = event.user_id or service
    if not event.user_id:
        claimed = first(actor, "unauthenticated_email_address").lower()
        if claimed:  # somebody typed it in: it proves nothing
            event.user_id = event.user_email = claimed
            event.principal_type = "unknown"
            event.flags = (*event.flags, "user_claimed")
    event.src_ip, event.src_host = split_address(first(actor, "ip_address"))
    event.user_agent = first(actor, "user_agent")
