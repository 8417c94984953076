"""Kong Gateway's log serializer with the AI plugins' part (http-log, file-log, tcp-log, udp-log).

Names: Kong 3.10 (``kong.log.serialize``, ``ai-proxy`` and its relatives): ``ai.<plugin>.{meta,usage,payload,cache}``,
where the plugin is ``proxy`` now and ``ai-proxy`` before. Payloads are JSON in texts and only there with
``log_payloads``. ai-prompt-guard denies with 400 and writes no verdict: such a request is an error here, not a block.
"""

from collections.abc import Sequence
from typing import Any

from aitrail.event import AccessEvent
from aitrail.normalize.common import split_address
from aitrail.normalize.loose import (
    Object,
    amount,
    close,
    count,
    dig,
    fill_chat,
    fill_claims,
    fill_status,
    fill_total,
    first,
    header_claims,
    inner,
    moment,
    read,
    start,
    text,
)
from aitrail.normalize.outcome import Content, Context, Outcome, Rejected
from aitrail.normalize.vocabulary import name_model

SOURCE = "kong"
_IDENTITY = (b'"consumer"', b'"authenticated_entity"')
# Ends of paths of model APIs: a request that an AI plugin refused has no ``ai`` part, but is an access all the same.
AI_PATHS = ("/chat/completions", "/completions", "/embeddings", "/responses", "/messages", "/images/generations")


def normalize(raw: bytes, context: Context) -> Sequence[Outcome]:
    """Turn one logged request into one event for each AI plugin that called a model; total, pure."""
    record = read(raw, SOURCE, _IDENTITY)
    if isinstance(record, Rejected):
        return (record,)
    calls = {name: part for name, part in inner(record, "ai").items() if isinstance(part, dict) and part}
    if not calls:
        if not _path(record).endswith(AI_PATHS):
            return (Rejected("not_ai_related", "", SOURCE),)
        return (_event(raw, record, "", {}, context, several=False),)
    return [_event(raw, record, name, part, context, several=len(calls) > 1) for name, part in calls.items()]


def _path(record: Object) -> str:
    uri = text(dig(record, "request", "uri")) or text(dig(record, "request", "url"))
    return uri.partition("?")[0].rstrip("/").lower()


def _event(raw: bytes, record: Object, plugin: str, part: Object, context: Context, *, several: bool) -> Outcome:
    one = text(dig(record, "request", "id"))
    began = text(record.get("started_at"))
    upstream = f"{one}|{began}" if one else ""
    if several:
        upstream = f"{upstream}|{plugin}"
    event = start(raw, SOURCE, context, moment(record.get("started_at"), 1000.0), "started_at", upstream)
    if isinstance(event, Rejected):
        return event
    event.service = "kong"
    event.request_id = event.source_event_id = one
    event.action, event.action_kind = _path(record).rpartition("/v1/")[2] or "request", "inference"
    _fill_caller(event, record, context)
    _fill_call(event, record, part)
    fill_status(event, count(dig(record, "response", "status")))
    event.latency_ms = amount(dig(record, "latencies", "request"))
    payload = inner(part, "payload")
    content = fill_chat(event, payload.get("request"), payload.get("response")) if payload else Content()
    fill_total(event)
    return close(event, content)


def _fill_caller(event: AccessEvent, record: Object, context: Context) -> None:
    consumer = inner(record, "consumer")
    event.user_id = first(consumer, "custom_id", "username", "id").lower()
    event.user_name = first(consumer, "username").lower()
    event.credential_id = text(dig(record, "authenticated_entity", "id"))
    headers = dig(record, "request", "headers")
    fill_claims(event, header_claims(headers, context), context)
    event.user_agent = _one(dig(headers, "user-agent"))
    event.src_ip, event.src_host = split_address(text(record.get("client_ip")))
    event.app = (text(dig(record, "route", "name")) or text(dig(record, "service", "name"))).lower()
    event.cloud_account = text(record.get("workspace_name") or record.get("workspace")).lower()


def _fill_call(event: AccessEvent, record: Object, part: Object) -> None:
    meta, usage = inner(part, "meta"), inner(part, "usage")
    event.model_provider, event.model, event.model_version = name_model(
        first(meta, "provider_name").lower(),
        first(meta, "request_model").lower(),
        first(meta, "response_model").lower(),
    )
    event.resource_type = "service" if dig(record, "service") else ""
    event.resource_id = text(dig(record, "service", "name")) or text(dig(record, "service", "id"))
    event.prompt_tokens, event.completion_tokens = (
        count(usage.get("prompt_tokens")),
        count(usage.get("completion_tokens")),
    )
    event.token_count = count(usage.get("total_tokens"))
    event.cost_usd = amount(usage.get("cost"))
    if first(inner(part, "cache"), "cache_status").lower() == "hit":
        event.flags = (*event.flags, "cache_hit")


def _one(value: Any) -> str:
    return text(value[0] if isinstance(value, list) and value else value)
