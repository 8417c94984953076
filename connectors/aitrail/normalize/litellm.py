"""LiteLLM's StandardLoggingPayload (current and older) and StandardAuditLogPayload.

Delivered by the ``generic_api`` webhook, s3_v2, gcs, sqs, azure_sentinel and others as one JSON object per call. Names:
``litellm/types/utils.py`` of 1.106 and 1.109; the traps named below were measured on a running proxy.

* Identity is ``litellm_call_id`` *and* the start time: the proxy takes that id from the caller's header
  ``x-litellm-call-id``, and retries and fallbacks of one request share it. The id alone would let a caller hide every
  call after the first one as a duplicate.
* ``response_time`` of a stream is the time to its first token; latency is therefore end minus start.
* Times are epoch seconds; older builds write ``YYYY-MM-DD HH:MM:SS.ffffff`` without a zone (UTC assumed and flagged).
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from aitrail.event import AccessEvent, ActionKind, make_event_id
from aitrail.normalize.common import decode, epoch_to_time, has_duplicate_key, split_address
from aitrail.normalize.litellm_audit import normalize_audit
from aitrail.normalize.litellm_content import REDACTED, TRUNCATED, chat_answer, chat_messages
from aitrail.normalize.litellm_identity import fill_identity, tenant_of
from aitrail.normalize.litellm_outcome import PLAIN_SUCCESS, judge
from aitrail.normalize.litellm_types import ChatMessage, ChatResponse, Guardrail, Metadata, Payload, Usage
from aitrail.normalize.litellm_values import amount, count, moment, span_ms
from aitrail.normalize.openai_chat import Answer, read_usage
from aitrail.normalize.outcome import Content, Context, Message, Normalized, Outcome, Rejected
from aitrail.normalize.vocabulary import name_model

SOURCE = "litellm"

_typed = msgspec.json.Decoder(Payload[str | list[ChatMessage], str | ChatResponse])
_loose = msgspec.json.Decoder(Payload[Any, Any])
_USER_KEY = b'"user_api_key_user_id"'

# What a call is, where it is not inference (litellm/types/utils.py: CallTypes; an "a" in front means asynchronous).
_KIND: dict[str, ActionKind] = {
    **dict.fromkeys(
        ("create_file", "file_retrieve", "file_delete", "file_list", "file_content", "vector_store_create",
         "vector_store_file_create", "vector_store_file_delete", "vector_store_search"), "data"),
    **dict.fromkeys(
        ("create_fine_tuning_job", "cancel_fine_tuning_job", "list_fine_tuning_jobs", "retrieve_fine_tuning_job",
         "create_assistants", "delete_assistant", "get_assistants"), "admin"),
}  # fmt: skip
_CLOUD = {
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "sagemaker": "aws",
    "sagemaker_chat": "aws",
    "azure": "azure",
    "azure_ai": "azure",
    "azure_text": "azure",
    "vertex_ai": "gcp",
    "vertex_ai_beta": "gcp",
    "gemini": "gcp",
}
_NO_METADATA = Metadata()


def normalize(raw: bytes, context: Context) -> Sequence[Outcome]:
    """Turn one logged call (or one admin audit record) into one event; total, pure."""
    typed = decode(_typed, raw, SOURCE)
    payload: Payload[Any, Any] | Rejected = typed
    if typed.code == "field_type" if isinstance(typed, Rejected) else _untyped_items(typed.messages):
        payload = decode(_loose, raw, SOURCE)
    if isinstance(payload, Rejected):
        return (payload,)
    if payload.table_name is not None and payload.startTime is None:
        return normalize_audit(raw, context)
    if raw.find(_USER_KEY) != raw.rfind(_USER_KEY) and has_duplicate_key(raw, (_USER_KEY,)):
        return (Rejected("json_duplicate_key", "", SOURCE),)
    return (to_event(payload, SOURCE, context),)


def _untyped_items(messages: Any) -> bool:
    """Whether items of another shape (Responses API: no role) went through the typed decoder unread."""
    if type(messages) is list:
        for message in messages:
            if message.role is None:
                return True
    return False


def to_event(call: Payload[Any, Any], source: str, context: Context) -> Outcome:
    """Build the event of one call; ``litellm_spend`` brings its rows into the same shape first.

    A blank event is copied and its fields are set one by one: for a struct this wide that is three times faster than
    as many keyword arguments.
    """
    begun = moment(call.startTime)
    start = begun.epoch
    timestamp = epoch_to_time(start) if start is not None else ""
    if start is None or not timestamp:
        return Rejected("field_missing" if call.startTime is None else "time_invalid", "startTime", source)
    call_id = call.litellm_call_id or call.id
    if not call_id:
        return Rejected("field_missing", "litellm_call_id" if source == SOURCE else "request_id", source)
    meta = call.metadata or _NO_METADATA
    tenant = tenant_of(meta, context) if context.tenant_keys else context.tenant_id
    event = _copy(_blank(tenant, source))
    event.event_id = make_event_id(tenant, source, f"{call_id}|{round(start * 1e6)}")
    event.timestamp = timestamp
    event.source_event_id = call_id
    if begun.assumed:
        event.flags = ("time_zone_assumed",)
    if call.cache_hit:
        event.flags += ("cache_hit",)
    fill_identity(event, call, meta, context)
    _fill_place(event, call, meta)
    _fill_model(event, call)
    messages, answer = _content(event, call)
    _fill_verdict(event, call, meta, answer)
    _fill_usage(event, call, meta, start)
    if not messages and not answer.text and not answer.tool_calls:
        return Normalized(event)
    return Normalized(event, Content(messages, answer.text, answer.tool_calls))


@lru_cache(maxsize=1024)
def _blank(tenant: str, source: str) -> AccessEvent:
    """What all events of a tenant begin with; copied for each record, never changed."""
    return AccessEvent(event_id="", timestamp="", tenant_id=tenant, source=source, service="litellm")


_copy: Callable[[AccessEvent], AccessEvent] = AccessEvent.__copy__  # type: ignore[attr-defined]  # not in its stub


def _fill_place(event: AccessEvent, call: Payload[Any, Any], meta: Metadata) -> None:
    """Where the call came from and what was called."""
    address = call.requester_ip_address or meta.requester_ip_address
    if address:  # behind proxies this is the whole X-Forwarded-For list: the client is its first entry
        event.src_ip, event.src_host = split_address(address.partition(",")[0])
        if event.src_host:
            event.flags += ("src_ip_invalid",)
    event.request_id = _request_id(call)
    if call.trace_id:
        event.trace_id = call.trace_id.lower()
    event.action, event.action_kind = _action(call.call_type or "")
    if call.model_group:
        event.resource_type = "model_group"
        event.resource_id = call.model_group


@lru_cache(maxsize=512)
def _action(kind: str) -> tuple[str, ActionKind]:
    return kind.lower(), _KIND.get(kind) or _KIND.get(kind[1:]) or "inference"


def _content(event: AccessEvent, call: Payload[Any, Any]) -> tuple[list[Message], Answer]:
    """The texts of the call; marks those that the gateway cut or took out."""
    messages = chat_messages(call.messages)
    answer = chat_answer(call.response)
    redacted = answer.text == REDACTED
    truncated = TRUNCATED in answer.text
    for message in messages:
        if TRUNCATED in message.text:
            truncated = True
        elif message.text == REDACTED:
            redacted = True
    if redacted:
        messages = [message for message in messages if message.text != REDACTED]
        answer.text = "" if answer.text == REDACTED else answer.text
        event.flags += ("content_redacted_upstream",)
    if truncated:
        event.flags += ("text_truncated",)
    return messages, answer


def _fill_verdict(event: AccessEvent, call: Payload[Any, Any], meta: Metadata, answer: Answer) -> None:
    """Outcome, guardrail, error and tools."""
    fields = call.status_fields
    verdict = judge(
        call.status or meta.status or (fields.llm_api_status if fields else None),
        fields.guardrail_status if fields else None,
        _guardrails(call, meta),
        call.error_information or meta.error_information,
        finish_reason=answer.finish_reason,
        provider=event.model_provider,
    )
    event.outcome_status = verdict.outcome
    event.finish_reason = answer.finish_reason
    if verdict is not PLAIN_SUCCESS:
        event.guardrail_action = verdict.guardrail_action
        event.guardrail_name = verdict.guardrail_name
        event.guardrail_categories = verdict.guardrail_categories
        event.error_code = verdict.error_code
        event.http_status = verdict.http_status
        event.flags += verdict.flags
    mcp = meta.mcp_tool_call_metadata
    gateway = (mcp.namespaced_tool_name or mcp.name) if mcp is not None else None
    names = [gateway, *answer.tools] if gateway else answer.tools
    if names:
        event.tool = ",".join(names).lower()


def _fill_usage(event: AccessEvent, call: Payload[Any, Any], meta: Metadata, start: float) -> None:
    """Times, tokens and cost. What has the expected type is taken as it is; the rest is looked at twice."""
    end = call.endTime
    if type(end) is not float:
        end = moment(end).epoch
    event.latency_ms = span_ms(start, end)
    if event.latency_ms is None and not call.stream:
        event.latency_ms = amount(call.response_time, 1000.0)
    if call.stream or call.completionStartTime != call.endTime:
        event.first_token_ms = span_ms(start, moment(call.completionStartTime).epoch)
    event.token_count = count(call.total_tokens)
    event.prompt_tokens = count(call.prompt_tokens)
    event.completion_tokens = count(call.completion_tokens)
    event.cached_tokens = _cached(call, meta)
    event.cost_usd = amount(call.response_cost)


def _fill_model(event: AccessEvent, call: Payload[Any, Any]) -> None:
    """Provider, cloud, model and version. The model group (the alias asked for) is the resource of the event."""
    provider = call.custom_llm_provider
    if not provider and call.error_information is not None:
        provider = call.error_information.llm_provider
    answered = _from_response(call, "model")
    # The router overwrites response.model with the alias that was asked for: then only the deployment's name is exact.
    version = answered if isinstance(answered, str) and answered != call.model_group else None
    if version is None and call.status != "failure" and call.hidden_params is not None:
        version = call.hidden_params.litellm_model_name
    event.model_provider, event.model, event.model_version, event.cloud_provider = _model_names(
        provider or "", call.model or call.model_group or "", version or ""
    )


@lru_cache(maxsize=4096)
def _model_names(provider: str, name: str, version: str) -> tuple[str, str, str, str]:
    """Provider, model, version and cloud in the event's spelling; LiteLLM writes models as ``provider/model``."""
    head, slash, tail = name.partition("/")
    if slash and (not provider or head == provider):
        provider, name = head, tail
    lower = provider.lower()
    return *name_model(lower, name.lower(), version.removeprefix(f"{provider}/").lower()), _CLOUD.get(lower, "")


def _from_response(call: Payload[Any, Any], key: str) -> Any:
    """One entry of the response, which is a typed completion or any other JSON."""
    response = call.response
    return response.get(key) if isinstance(response, dict) else getattr(response, key, None)


def _guardrails(call: Payload[Any, Any], meta: Metadata) -> list[Guardrail]:
    found = call.guardrail_information or meta.guardrail_information
    if isinstance(found, Guardrail):  # older builds: one object instead of a list
        return [found]
    return found or []


def _request_id(call: Payload[Any, Any]) -> str:
    """The provider's request id, the key into its own logs, where a header kept it; else the id of its answer."""
    headers = call.hidden_params.additional_headers if call.hidden_params is not None else None
    found = headers and (headers.apim or headers.amzn or headers.plain or headers.anthropic)
    if not found and call.error_information is not None:
        found = call.error_information.error_provider_request_id
    return found or call.id or ""


def _cached(call: Payload[Any, Any], meta: Metadata) -> int | None:
    """Tokens read from plus tokens written to the provider's cache."""
    usage = _from_response(call, "usage")
    if isinstance(usage, dict):
        return read_usage(usage).cached
    usage = usage or meta.usage_object
    if not isinstance(usage, Usage):
        return None
    details = usage.prompt_tokens_details
    read = count(details.cached_tokens) if details is not None else None
    if read is None:
        read = count(usage.cache_read_input_tokens)
    written = count(usage.cache_creation_input_tokens)
    return None if read is None and written is None else (read or 0) + (written or 0)
