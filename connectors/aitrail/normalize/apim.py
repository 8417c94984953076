"""Azure API Management: ``GatewayLogs`` (who, from where, how it ended) and ``GatewayLlmLogs`` (what, in pieces).

Forms: the diagnostic record of Event Hub and Blob (camelCase, ``properties``) and rows of the Log Analytics tables
``ApiManagementGatewayLogs`` and ``ApiManagementGatewayLlmLog``. Rows of one request share ``CorrelationId``; the LLM
log has no caller, so that rows become fragments which ``normalize.join`` puts together.

Facts: Azure Monitor table reference, "Log token usage, prompts, and completions for LLM APIs" (32 KB pieces, ordered by
``SequenceNumber``), API Management resource log schema. ``promptCachedTokens`` is in the Event Hub record only.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from aitrail.event import AccessEvent, make_event_id
from aitrail.normalize import azure_openai
from aitrail.normalize.apim_caller import GUARDRAILS, Call, call_of, provider_of, set_caller
from aitrail.normalize.apim_records import SOURCE, Row, piece_of, read_row
from aitrail.normalize.azure_common import (
    azure_time,
    digest_of,
    latency_of,
    outcome_of_status,
    region_of,
    resource_of,
    whole,
)
from aitrail.normalize.openai_chat import Answer, integer, loads, read_response, request_messages
from aitrail.normalize.outcome import Content, Context, Fragment, Message, Normalized, Outcome, Rejected

_FILTER = "azure-content-filter"
_DATED = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|20\d{6})\Z")


def normalize(raw: bytes, context: Context) -> Sequence[Outcome]:
    """Turn one row of either log into a ``Fragment``; calls that concern no model are ``not_ai_related``."""
    found = read_row(raw)
    if isinstance(found, Rejected):
        return (found,)
    row, resource_id = found
    handler = _CATEGORIES.get((row.category or row.type or "").rpartition("/")[2].lower())
    if handler is None:
        return (Rejected("type_unsupported" if row.category or row.type else "field_missing", "category", SOURCE),)
    timestamp, code = azure_time(row.time_generated or "")
    if code:
        return (Rejected(code if row.time_generated else "field_missing", "time", SOURCE),)
    event = AccessEvent(event_id="", timestamp=timestamp, tenant_id=context.tenant_id, source=SOURCE)
    event.source_event_id = row.correlation_id or ""
    event.cloud_provider = "azure"
    event.cloud_account = resource_of(resource_id).subscription
    event.cloud_region = region_of(row.region or "")
    event.service = "microsoft.apimanagement"
    event.resource_type = "api"
    event.resource_id = f"{resource_id}/apis/{row.api_id}" if row.api_id else resource_id
    return (handler(row, event, raw, context),)


# --- GatewayLogs


def _gateway(row: Row, event: AccessEvent, raw: bytes, context: Context) -> Outcome:
    """One call: a fragment when the LLM log may say more about it, else an event."""
    request = _body(row.request_body, row.backend_request_body)
    response = _body(row.response_body, row.backend_response_body)
    call = call_of(row.url or "", row.backend_url or "", row.operation_id or "")
    asked = loads(request)
    if call is None and isinstance(asked, dict) and isinstance(asked.get("messages"), list):
        call = Call("", "inference", join=True)
    if call is None:
        said = row.url or row.backend_url or row.operation_id
        return Rejected("not_ai_related" if said else "field_missing", "url", SOURCE)
    answer = read_response(response) if response else Answer()
    event.action = (row.operation_id or row.operation_name or "gatewaylogs").lower()[:256]
    event.action_kind = call.kind
    event.read_only = False if call.kind == "inference" else None
    event.model_provider = provider_of(row.backend_url or "")
    named = asked.get("model") if isinstance(asked, dict) else None
    deployment = deployment_of(row.url or "") or deployment_of(row.backend_url or "")
    event.model, event.model_version = _model_of(answer.model)
    event.model = event.model or (deployment or (named if isinstance(named, str) else "")).lower()
    set_caller(row, event, context)
    _result(row, event, answer)
    content = _content(request, asked, response, answer, event)
    if not row.correlation_id:
        event.event_id = make_event_id(event.tenant_id, SOURCE, f"gateway/{digest_of(raw.decode('utf-8', 'replace'))}")
        return Normalized(event, content)
    if not call.join:
        event.event_id = make_event_id(event.tenant_id, SOURCE, f"gateway/{row.correlation_id}")
        return Normalized(event, content)
    return Fragment("apim", row.correlation_id, "gateway", event, content=content)


def _body(*bodies: Any) -> Any:
    """The first body that is there; the client's side comes before the backend's."""
    return next((body for body in bodies if body), None)


@lru_cache(maxsize=1024)
def _model_of(name: str) -> tuple[str, str]:
    """``("gpt-4o", "gpt-4o-2024-11-20")``: the model, and exactly which one answered."""
    name = name.lower()
    return _DATED.sub("", name), name


@lru_cache(maxsize=4096)
def deployment_of(url: str) -> str:
    """``gpt-4o`` of ``.../deployments/gpt-4o/chat/completions``."""
    return url.partition("?")[0].partition("/deployments/")[2].partition("/")[0]


def _result(row: Row, event: AccessEvent, answer: Answer) -> None:
    """How the call ended; a filter's refusal arrives as 400 and is ``blocked``."""
    status = whole(row.response_code)
    event.http_status = status if status is not None and 100 <= status < 600 else None
    event.outcome_status = outcome_of_status(event.http_status)
    if event.outcome_status == "unknown" and row.is_request_success is False:
        event.outcome_status = "error"
    event.latency_ms, wrong = latency_of(None, None, row.total_time)
    if wrong:
        event.flags = (*event.flags, "latency_invalid")
    reason = (row.last_error.reason if row.last_error else row.last_error_reason) or ""
    source = ((row.last_error.source if row.last_error else row.last_error_source) or "").lower()
    event.error_code = answer.error_code or ("" if event.outcome_status == "success" else reason.lower()[:128])
    _read_answer(event, answer)
    for text, name in GUARDRAILS.items():
        if text in source and event.outcome_status != "success":
            event.guardrail_action, event.guardrail_name, event.outcome_status = "blocked", name, "blocked"


def _read_answer(event: AccessEvent, answer: Answer) -> None:
    event.finish_reason = answer.finish_reason
    event.tool = ",".join(tool for tool in answer.tools if tool)[:1024]
    usage = answer.usage
    event.prompt_tokens, event.completion_tokens = usage.prompt, usage.completion
    event.token_count, event.cached_tokens = usage.total, usage.cached
    if answer.guardrail.action:
        event.guardrail_name = _FILTER
        event.guardrail_action = answer.guardrail.action
        event.guardrail_categories = answer.guardrail.categories
        if answer.guardrail.action == "blocked":
            event.outcome_status = "blocked"


def _content(request: Any, asked: Any, response: Any, answer: Answer, event: AccessEvent) -> Content | None:
    """Texts of logged bodies; a body that the log cut no longer parses and is kept as one text."""
    messages = request_messages(asked)
    text = answer.text
    if not messages and asked is None and isinstance(request, str) and request.lstrip()[:1] in ("{", "["):
        messages = [Message("user", request)]
        event.flags = (*event.flags, "text_truncated")
    if not text and not answer.known and isinstance(response, str) and response.lstrip()[:1] == "{":
        text = response
        event.flags = (*dict.fromkeys((*event.flags, "text_truncated")),)
    calls = [call for call in answer.tool_calls if call]
    return Content(messages, text, calls) if messages or text or calls else None


# --- GatewayLlmLogs


def _llm(row: Row, event: AccessEvent, raw: bytes, context: Context) -> Outcome:
    """One row of the LLM log: tokens and model, or a piece of the messages. It never names the caller."""
    del context
    event.action = (row.operation_name or "gatewayllmlogs").lower()[:256]
    event.action_kind, event.read_only = "inference", False
    event.model, event.model_version = _model_of(row.model_name or "")
    event.model = event.model or (row.deployment_name or "").lower()
    event.request_id = row.request_id or ""
    event.flags = ("identity_missing",)
    prompt, completion, total = (integer(n) for n in (row.prompt_tokens, row.completion_tokens, row.total_tokens))
    if prompt or completion or total:  # pieces of long messages carry zeros
        event.prompt_tokens, event.completion_tokens = prompt, completion
        event.token_count = total or (prompt or 0) + (completion or 0)
        event.cached_tokens = integer(row.prompt_cached_tokens)
    order = integer(row.sequence_number) or 0
    group = row.correlation_id or f"raw/{digest_of(raw.decode('utf-8', 'replace'))}"
    asked, answered = piece_of(row.request_messages), piece_of(row.response_messages)
    return Fragment("apim", group, f"llm:{order}", event, order, asked, answered)


def _administrative(row: Row, event: AccessEvent, raw: bytes, context: Context) -> Outcome:
    """Activity log of the gateway (keys listed, diagnostic settings removed): one reader for every AI resource."""
    del row, event
    return azure_openai.normalize(raw, context)[0]


_Handler = Callable[[Row, AccessEvent, bytes, Context], Outcome]
_CATEGORIES: dict[str, _Handler] = {
    "gatewaylogs": _gateway,
    "apimanagementgatewaylogs": _gateway,
    "gatewayllmlogs": _llm,
    "apimanagementgatewayllmlog": _llm,
    "administrative": _administrative,
}
