"""Who made a LiteLLM call, for whom and what for: key, team, request metadata, tags and headers.

Order of trust for the department: what an administrator stored with the key, then what the caller sent along (marked
``department_claimed``: it proves nothing about the caller), then the team's name.
"""

import hashlib
import re
from functools import lru_cache
from typing import Any

from aitrail.event import AccessEvent, PrincipalType
from aitrail.normalize.litellm_types import Metadata, Payload
from aitrail.normalize.outcome import Context

# LiteLLM's name for whoever holds the master key: it says nothing about the person.
DEFAULT_USER = "default_user_id"
# What stands in place of the master key's hash.
MASTER_KEY = "litellm_proxy_master_key"
_HASH = re.compile(r"[0-9a-f]{64}")
_UA_TAG = "User-Agent: "
_EMPTY: dict[str, Any] = {}
_NO_TAGS: tuple[str, dict[str, Any], str] = ("", _EMPTY, "")


def tenant_of(meta: Metadata, context: Context) -> str:
    """The configured tenant, or the one that ``tenant_keys`` find in the record (key metadata first)."""
    for key in context.tenant_keys:
        value = getattr(meta, key, None) if key in Metadata.__struct_fields__ else None
        if not isinstance(value, str) or not value:
            value = _first(meta.user_api_key_auth_metadata or _EMPTY, (key,))
        value = value or _first(meta.requester_metadata or _EMPTY, (key,))
        if value:
            return value.lower()
    return context.tenant_id


def fill_identity(event: AccessEvent, call: Payload[Any, Any], meta: Metadata, context: Context) -> None:
    """Set the event's fields of the groups who and where; never raises."""
    plain_tags, named_tags, tag_agent = _tags(call.request_tags) if call.request_tags else _NO_TAGS
    claimed = _claimed(meta, named_tags, context)
    claimed_user = session = ""
    if claimed:
        claimed_user = _first(claimed, context.user_keys)
        session = _first(claimed, context.session_keys)
        event.purpose = _first(claimed, context.purpose_keys).lower()
        event.ticket = _first(claimed, context.ticket_keys).lower()
    if plain_tags and not event.purpose:
        event.purpose = plain_tags.lower()
    event.session_id = call.session_id or session or call.trace_id or ""
    event.user_agent = call.user_agent or meta.user_agent or tag_agent
    _fill_department(event, meta, claimed, context)

    key = meta.user_api_key_hash or meta.user_api_key
    alias = meta.user_api_key_alias
    email = meta.user_api_key_user_email
    user, kind = _user(call, meta, claimed_user)
    event.user_email = email.lower() if email else user if "@" in user else ""
    event.user_id = user
    stored = meta.user_api_key_auth_metadata
    if (stored and stored.get("service_account_id")) or (not user and (alias or meta.user_api_key_team_id)):
        kind = "service"  # a known key that belongs to nobody; a bare hash may be any string that was presented
    event.principal_type = kind
    event.credential_id = _credential(key) if key else alias or ""
    if alias:
        event.app = alias.lower()
    if not user and not event.credential_id:
        event.flags += ("identity_missing",)


@lru_cache(maxsize=4096)
def _credential(key: str) -> str:
    """Give the key's hash, never the key.

    A key that does not look like one of LiteLLM's is logged as it was presented, in the clear (measured on a 1.106
    proxy): it is hashed here as LiteLLM hashes the others, SHA-256 in hex.
    """
    if key == MASTER_KEY or _HASH.fullmatch(key) or (key.startswith("hashed-") and _HASH.fullmatch(key[-64:])):
        return key
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _claimed(meta: Metadata, named_tags: dict[str, Any], context: Context) -> dict[str, Any]:
    """What the caller says about itself: request metadata, then spend metadata, tags and custom headers."""
    first = meta.requester_metadata or _EMPTY
    headers = _headers(meta.requester_custom_headers, context) if meta.requester_custom_headers else _EMPTY
    if meta.spend_logs_metadata or named_tags or headers:
        return {**headers, **named_tags, **(meta.spend_logs_metadata or _EMPTY), **first}
    return first


def _fill_department(event: AccessEvent, meta: Metadata, claimed: dict[str, Any], context: Context) -> None:
    stored = meta.user_api_key_auth_metadata
    department = _first(stored, context.department_keys) if stored else ""
    if not department and claimed:
        department = _first(claimed, context.department_keys)
        if department:
            event.flags += ("department_claimed",)
    department = department or meta.user_api_key_team_alias or meta.user_api_key_team_id or ""
    event.department = department.lower()


def _user(call: Payload[Any, Any], meta: Metadata, claimed: str) -> tuple[str, PrincipalType]:
    """The key's own user; for a shared key (none, or the master key's placeholder) whom the caller named."""
    owner = meta.user_api_key_user_id
    if owner and owner != DEFAULT_USER:
        return owner.lower(), "human"
    named = claimed or call.end_user or meta.user_api_key_end_user_id or meta.user_api_key_user_email
    if named:
        return named.lower(), "human"
    return owner or "", "unknown"


def _first(place: dict[str, Any], keys: tuple[str, ...]) -> str:
    """The first non-empty text or number that one of ``keys`` has in ``place``."""
    for key in keys:
        if key in place:
            value = place[key]
            if type(value) is str:
                if value:
                    return value
            elif type(value) is int or type(value) is float:
                return str(value)
    return ""


def _tags(tags: list[Any]) -> tuple[str, dict[str, Any], str]:
    """Sort tags into plain ones (joined), ``key:value`` ones, and the client's name (the longest is the whole one)."""
    try:
        return _sorted_tags(tuple(tags))
    except TypeError:  # a list or an object among the tags
        return _sorted_tags(tuple(tag for tag in tags if isinstance(tag, str)))


@lru_cache(maxsize=4096)
def _sorted_tags(tags: tuple[Any, ...]) -> tuple[str, dict[str, Any], str]:
    plain: list[str] = []
    named: dict[str, Any] = {}
    agent = ""
    for tag in tags:
        if not isinstance(tag, str) or not tag:
            continue
        if tag.startswith(_UA_TAG):
            agent = max(agent, tag[len(_UA_TAG) :], key=len)
            continue
        key, colon, value = tag.partition(":")
        if not colon:
            key, colon, value = tag.partition("=")
        if colon and value:
            named[key.strip().lower()] = value.strip()
        else:
            plain.append(tag)
    return ",".join(plain), named, agent


def _headers(headers: dict[str, str], context: Context) -> dict[str, Any]:
    """Custom request headers that carry a fact, under the name that metadata would have."""
    names = _header_names(
        context.user_keys, context.department_keys, context.session_keys, context.purpose_keys, context.ticket_keys
    )
    return {names[name.lower()]: value for name, value in headers.items() if name.lower() in names}


@lru_cache(maxsize=64)
def _header_names(*groups: tuple[str, ...]) -> dict[str, str]:
    """Header -> metadata key: ``x-ticket-id`` is ``ticket_id``."""
    return {f"x-{key.lower().replace('_', '-')}": key for group in groups for key in group}
