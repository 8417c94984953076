"""Cloudflare AI Gateway: logs of its REST interface, and records of the Logpush dataset ``ai_gateway_events``.

Logpush encrypts metadata and bodies (``{key, iv, data}``, base64; RSA-OAEP wraps an AES-256-GCM key): such records say
what was called and how it ended, not by whom; they are flagged ``body_encrypted``. The REST logs have the metadata
that the caller sent, and of the bodies only their beginnings. A request that DLP refused has status 424.
"""

from collections.abc import Sequence
from typing import Any

from aitrail.event import AccessEvent
from aitrail.normalize.loose import (
    Object,
    amount,
    close,
    count,
    fill_chat,
    fill_claims,
    fill_status,
    fill_total,
    first,
    inner,
    moment,
    read,
    start,
    text,
)
from aitrail.normalize.outcome import Content, Context, Outcome, Rejected
from aitrail.normalize.vocabulary import name_model

SOURCE = "cloudflare_ai"
_DLP_BLOCKED = 424
_IDENTITY = (b'"metadata"', b'"Metadata"')
# Names of the time in Logpush datasets; its form (RFC 3339, or a number since 1970) is a setting of the job.
_TIMES = ("Datetime", "CreatedAt", "Timestamp", "EventTimestamp", "EdgeStartTimestamp")


def normalize(raw: bytes, context: Context) -> Sequence[Outcome]:
    """Turn one log into one event; total, pure."""
    record = read(raw, SOURCE, _IDENTITY)
    if isinstance(record, Rejected):
        return (record,)
    return (_rest(raw, record, context) if "created_at" in record else _logpush(raw, record, context),)


def _rest(raw: bytes, record: Object, context: Context) -> Outcome:
    event = start(raw, SOURCE, context, moment(record.get("created_at"), 1000.0), "created_at", first(record, "id"))
    if isinstance(event, Rejected):
        return event
    _fill_call(event, first(record, "provider"), first(record, "model"), first(record, "path"))
    event.request_id = first(record, "id")
    event.app = first(record, "gateway", "gateway_id").lower()
    event.resource_type, event.resource_id = ("gateway", event.app) if event.app else ("", "")
    event.latency_ms = amount(record.get("duration"))
    event.prompt_tokens, event.completion_tokens = count(record.get("tokens_in")), count(record.get("tokens_out"))
    event.cost_usd = amount(record.get("cost"))
    _fill_outcome(event, count(record.get("status_code")), record.get("success"), record.get("cached"))
    fill_claims(event, inner(record, "metadata"), context)
    fill_total(event)  # before the body: a cached answer repeats the usage of the first one
    content = fill_chat(event, _whole(record.get("request_head")), _whole(record.get("response_head")))
    if (record.get("request_head") or record.get("response_head")) and not (content.messages or content.response):
        event.flags = (*event.flags, "text_truncated")  # only the beginning of a body is logged
    return close(event, content)


def _logpush(raw: bytes, record: Object, context: Context) -> Outcome:
    name = next((name for name in _TIMES if record.get(name) is not None), _TIMES[0])
    event = start(raw, SOURCE, context, _time(record.get(name)), name, first(record, "LogId", "ID", "RayID"))
    if isinstance(event, Rejected):
        return event
    _fill_call(event, first(record, "Provider"), first(record, "Model"), first(record, "Endpoint"))
    event.request_id = event.source_event_id
    event.app = first(record, "Gateway").lower()
    event.resource_type, event.resource_id = ("gateway", first(record, "Gateway")) if event.app else ("", "")
    event.latency_ms = amount(record.get("Duration"))
    event.prompt_tokens, event.completion_tokens = count(record.get("TokensIn")), count(record.get("TokensOut"))
    _fill_outcome(event, count(record.get("StatusCode")), record.get("Success"), record.get("Cached"))
    metadata, request, response = (record.get(key) for key in ("Metadata", "RequestBody", "ResponseBody"))
    content = Content()
    if any(_encrypted(part) for part in (metadata, request, response)):
        event.flags = (*event.flags, "body_encrypted")
    if not _encrypted(metadata):
        fill_claims(event, inner(record, "Metadata"), context)
    if not _encrypted(request) and not _encrypted(response):
        content = fill_chat(event, _whole(request), _whole(response))
    fill_total(event)
    return close(event, content)


def _time(value: Any) -> tuple[str, str]:
    """RFC 3339, or seconds, or nanoseconds: the job's ``timestamp_format``."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value > 1e14:
        return moment(value, 1e9)
    return moment(value)


def _fill_call(event: AccessEvent, provider: str, model: str, path: str) -> None:
    event.service, event.action_kind = "cloudflare-ai-gateway", "inference"
    event.action = (path.partition("?")[0].strip("/") or "inference").lower()
    event.model_provider, event.model, event.model_version = name_model(provider.lower(), model.lower(), "")


def _fill_outcome(event: AccessEvent, status: int | None, success: Any, cached: Any) -> None:
    fill_status(event, status)
    if status == _DLP_BLOCKED:
        event.outcome_status = event.guardrail_action = "blocked"
        event.guardrail_name = "cloudflare-dlp"
    elif event.outcome_status == "unknown" and isinstance(success, bool):
        event.outcome_status = "success" if success else "error"
    if cached is True or text(cached).lower() in ("true", "hit", "1"):
        event.flags = (*event.flags, "cache_hit")


def _encrypted(value: Any) -> bool:
    if isinstance(value, str) and value[:1] == "{":
        value = inner({"value": value}, "value")
    return isinstance(value, dict) and {"key", "iv", "data"} <= value.keys()


def _whole(value: Any) -> Any:
    """A body, where it is whole; None for a text that is no JSON."""
    return value if isinstance(value, dict | list) or (isinstance(value, str) and value[:1] in ("{", "[")) else None
