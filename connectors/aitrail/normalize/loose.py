"""What mappers of loosely specified records share: reading values that may be of any type, times, outcomes, callers.

Gateways let their operators name fields and write numbers as text, and SQL interfaces give everything as text: here a
value of the wrong type is no value, and nothing raises.
"""

import hashlib
from functools import lru_cache
from typing import Any

import msgspec

from aitrail.event import AccessEvent, OutcomeStatus, make_event_id
from aitrail.normalize.common import decode, epoch_to_time, has_duplicate_key, parse_time
from aitrail.normalize.openai_chat import integer, loads, read_response, request_messages
from aitrail.normalize.outcome import Content, Context, Normalized, Outcome, Rejected

Object = dict[str, Any]

_object = msgspec.json.Decoder(dict[str, Any])
_MAX_TEXT = 4096
# What writers put where there is nothing (Envoy, nginx, SQL exports).
_NOTHING = frozenset({"", "-", "null", "None", "NULL"})
_BY_STATUS: dict[int, OutcomeStatus] = {401: "denied", 403: "denied", 407: "denied", 429: "throttled", 446: "blocked"}


def read(raw: bytes, source: str, identity: tuple[bytes, ...] = ()) -> Object | Rejected:
    """Decode a record; ``identity`` are keys (as ``b'"user"'``) that must not occur twice in one object."""
    found = decode(_object, raw, source)
    if isinstance(found, dict) and identity and has_duplicate_key(raw, identity):
        return Rejected("json_duplicate_key", "", source)
    return found


def dig(holder: Any, *keys: str) -> Any:
    """The value below ``keys``, one level each; None when a level is missing or no object."""
    for key in keys:
        if not isinstance(holder, dict):
            return None
        holder = holder.get(key)
    return holder


def inner(holder: Any, *keys: str) -> Object:
    """The object below ``keys``; empty when there is none. JSON in a text is read."""
    found = dig(holder, *keys)
    if isinstance(found, str) and found[:1] == "{":
        found = loads(found)
    return found if isinstance(found, dict) else {}


def text(value: Any) -> str:
    """A short text or number as text; empty for everything else and for what stands for nothing."""
    if isinstance(value, str):
        bare = value.strip()
        return "" if bare in _NOTHING else bare[:_MAX_TEXT]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return ""


def first(holder: Any, *keys: str) -> str:
    """The first of ``keys`` that has a text."""
    if isinstance(holder, dict):
        for key in keys:
            found = text(holder.get(key))
            if found:
                return found
    return ""


def count(value: Any) -> int | None:
    """A count: a number or digits in a text."""
    return integer(value)


def amount(value: Any, factor: float = 1.0) -> float | None:
    """A number that is not negative, times ``factor``; a number in a text is one."""
    if isinstance(value, str):
        try:
            value = float(value) if len(value) < 40 else None
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e15:
        return None
    return float(value) if factor == 1.0 else round(float(value) * factor, 9)


def moment(value: Any, per_second: float = 1.0) -> tuple[str, str]:
    """A canonical time from ISO text, or from a number of ``per_second`` units since 1970.

    Returns:
        ``(timestamp, flag)``, or ``("", code)``. A text without a zone is UTC, flagged.
    """
    if isinstance(value, str):
        bare = value.strip()
        if bare in _NOTHING:
            return "", "field_missing"
        try:
            value = float(bare) if len(bare) < 40 else None
        except ValueError:
            # BigQuery and Databricks write "2026-11-23 09:14:05.120 UTC"
            return parse_time(
                bare.removesuffix(" UTC").rstrip() + ("Z" if bare.endswith(" UTC") else ""), assume_utc=True
            )
    if value is None:
        return "", "field_missing"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "", "time_invalid"
    stamp = epoch_to_time(value / per_second) if abs(value) < 1e19 else ""
    return (stamp, "") if stamp else ("", "time_invalid")


def start(
    raw: bytes, source: str, context: Context, when: tuple[str, str], path: str, upstream: str
) -> AccessEvent | Rejected:
    """Begin an event, or say that its time (at ``path``) is missing or wrong.

    Without an id of the writer's the record's own bytes are its identity: the same record again is the same event.
    """
    stamp, flag = when
    if not stamp:
        return Rejected(flag, path, source)
    identity = upstream or "sha256:" + hashlib.sha256(raw).hexdigest()
    event = AccessEvent(
        event_id=make_event_id(context.tenant_id, source, identity),
        timestamp=stamp,
        tenant_id=context.tenant_id,
        source=source,
    )
    event.source_event_id = upstream
    event.flags = (flag,) if flag else ()
    return event


def by_status(status: int | None) -> OutcomeStatus:
    """The outcome that an HTTP status alone stands for."""
    if status is None or not 100 <= status < 600:
        return "unknown"
    return _BY_STATUS.get(status) or ("success" if 200 <= status < 400 else "error" if status >= 400 else "unknown")


def fill_status(event: AccessEvent, status: int | None) -> None:
    """Set HTTP status and the outcome that it stands for."""
    event.http_status = status if status is not None and 100 <= status < 600 else None
    event.outcome_status = by_status(status)


def fill_claims(event: AccessEvent, place: Object, context: Context) -> None:
    """Take over what metadata says about the caller, where the event does not know it yet."""
    if not place:
        return
    if not event.user_id:
        event.user_id = first(place, *context.user_keys).lower()
    if not event.department:
        event.department = first(place, *context.department_keys).lower()
    event.session_id = event.session_id or first(place, *context.session_keys)
    event.purpose = event.purpose or first(place, *context.purpose_keys).lower()
    event.ticket = event.ticket or first(place, *context.ticket_keys).lower()


def header_claims(headers: Any, context: Context) -> Object:
    """Facts that request headers carry: ``x-ticket-id`` is ``ticket_id``."""
    if not isinstance(headers, dict):
        return {}
    names = _header_names(
        context.user_keys, context.department_keys, context.session_keys, context.purpose_keys, context.ticket_keys
    )
    found: Object = {}
    for name, value in headers.items():
        key = names.get(name) or names.get(name.lower())
        if key is not None and value is not None:
            found[key] = value[0] if isinstance(value, list) and value else value
    return found


@lru_cache(maxsize=64)
def _header_names(*groups: tuple[str, ...]) -> dict[str, str]:
    """Header, lower-case -> metadata key: as it is, and as a header is usually named."""
    names: dict[str, str] = {}
    for key in (key for group in groups for key in group):
        names[key.lower()] = key
        names["x-" + key.lower().replace("_", "-").replace(".", "-")] = key
    return names


def close(event: AccessEvent, content: Content | None = None, *, person: bool = True) -> Normalized:
    """Finish an event: what follows from who is named in it."""
    if "@" in event.user_id and not event.user_email:
        event.user_email = event.user_id
    if event.principal_type == "unknown" and event.user_id and person:
        event.principal_type = "human"
    if not event.user_id and not event.credential_id:
        event.flags = (*event.flags, "identity_missing")
    return Normalized(event, content if content is not None and _holds(content) else None)


def _holds(content: Content) -> bool:
    return bool(content.messages or content.response or content.tool_calls)


def fill_chat(event: AccessEvent, request: Any, response: Any) -> Content:
    """Read OpenAI-like bodies (decoded, or JSON in a text): texts, and what the event does not know yet."""
    answer = read_response(response)
    usage = answer.usage
    if event.prompt_tokens is None:
        event.prompt_tokens = usage.prompt
    if event.completion_tokens is None:
        event.completion_tokens = usage.completion
    if event.token_count is None:
        event.token_count = usage.total
    if event.cached_tokens is None:
        event.cached_tokens = usage.cached
    event.finish_reason = event.finish_reason or answer.finish_reason
    event.model_version = event.model_version or answer.model.lower()
    if answer.tools:
        event.tool = ",".join(answer.tools).lower()
    if answer.error_code and event.outcome_status in ("error", "unknown"):
        event.error_code = event.error_code or answer.error_code
    if answer.guardrail.action:
        event.guardrail_action = event.guardrail_action or answer.guardrail.action
        event.guardrail_categories = event.guardrail_categories or answer.guardrail.categories
        if answer.guardrail.action == "blocked":
            event.outcome_status = "blocked"
    return Content(request_messages(request), answer.text, [call for call in answer.tool_calls if call])


def fill_total(event: AccessEvent) -> None:
    """Total tokens, where only the parts are known."""
    if event.token_count is None and (event.prompt_tokens is not None or event.completion_tokens is not None):
        event.token_count = (event.prompt_tokens or 0) + (event.completion_tokens or 0)


Outcomes = tuple[Outcome, ...]
