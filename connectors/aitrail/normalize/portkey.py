"""Portkey's exported logs: ``request``, ``response``, ``metadata`` of one call.

HTTP 446 is a request that a guardrail refused, 246 one that it let through with a failed check (Portkey's gateway
source); verdicts are in ``hook_results`` of the response. The list of exported fields is not documented in full: the
names of the log list (``ai_model``, ``total_units``, ``cost``, ``trace_id`` ...) are read too.
"""

from collections.abc import Iterator, Sequence
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
from aitrail.normalize.outcome import Context, Outcome, Rejected
from aitrail.normalize.vocabulary import name_model

SOURCE = "portkey"
_IDENTITY = (b'"_user"',)
_BLOCKED, _FLAGGED = 446, 246
# Portkey counts cost in cents.
_CENTS = 0.01


def normalize(raw: bytes, context: Context) -> Sequence[Outcome]:
    """Turn one exported log into one event; total, pure."""
    record = read(raw, SOURCE, _IDENTITY)
    if isinstance(record, Rejected):
        return (record,)
    when = moment(record.get("created_at", record.get("time_of_generation")), 1000.0)
    event = start(raw, SOURCE, context, when, "created_at", first(record, "id", "log_id"))
    if isinstance(event, Rejected):
        return (event,)
    request, response, metadata = inner(record, "request"), inner(record, "response"), inner(record, "metadata")
    event.service, event.action_kind = "portkey", "inference"
    event.action = text(request.get("url")).partition("?")[0].rpartition("/v1/")[2].lower() or "chat/completions"
    event.request_id = first(record, "request_id", "id")
    event.trace_id = (first(record, "trace_id") or first(metadata, "traceId")).lower()
    _fill_caller(event, record, request, metadata, context)
    body = inner(request, "body")
    event.model_provider, event.model, event.model_version = name_model(
        (text(request.get("provider")) or first(record, "ai_org", "provider")).lower(),
        (first(record, "ai_model") or first(body, "model")).lower(),
        "",
    )
    fill_status(event, count(response.get("status", record.get("response_status_code", record.get("status_code")))))
    event.latency_ms = amount(response.get("response_time", record.get("response_time")))
    event.prompt_tokens, event.completion_tokens = count(record.get("req_units")), count(record.get("res_units"))
    event.token_count = count(record.get("total_units"))
    event.cost_usd = amount(record.get("cost"), _CENTS)
    content = fill_chat(event, request.get("body"), response.get("body"))
    _fill_verdict(event, record, inner(response, "body"))
    fill_total(event)
    return (close(event, content),)


def _fill_caller(event: AccessEvent, record: Object, request: Object, metadata: Object, context: Context) -> None:
    event.user_id = (first(metadata, "_user", "user") or first(record, "user")).lower()
    fill_claims(event, metadata, context)
    fill_claims(event, header_claims(request.get("headers"), context), context)
    event.cloud_account = (
        first(metadata, "organization", "organisation").lower() or first(record, "organisation_id").lower()
    )
    event.credential_id = first(record, "virtual_key", "api_key_id", "virtual_key_slug")
    event.app = first(record, "workspace_slug", "config", "prompt_slug").lower()
    headers = request.get("headers")
    event.user_agent = first(headers, "user-agent", "User-Agent")
    event.src_ip, event.src_host = split_address(
        first(headers, "x-forwarded-for", "cf-connecting-ip").partition(",")[0]
    )


def _fill_verdict(event: AccessEvent, record: Object, body: Object) -> None:
    checks = list(_checks(body.get("hook_results", record.get("hook_results"))))
    failed = tuple(dict.fromkeys(name for name, passed in checks if not passed and name))
    if event.http_status == _BLOCKED:
        event.outcome_status = event.guardrail_action = "blocked"
    elif event.http_status == _FLAGGED or failed:
        event.outcome_status = "success" if event.http_status == _FLAGGED else event.outcome_status
        event.guardrail_action = "flagged"
    elif checks:
        event.guardrail_action = "allowed"
    if event.guardrail_action:
        event.guardrail_name = "portkey"
        event.guardrail_categories = failed or event.guardrail_categories


def _checks(results: Any) -> Iterator[tuple[str, bool]]:
    """Id and verdict of every check of every hook; never what it looked at."""
    for stage in ("before_request_hooks", "after_request_hooks"):
        hooks = dig(results, stage)
        for hook in hooks if isinstance(hooks, list) else ():
            checks = dig(hook, "checks")
            for check in checks if isinstance(checks, list) else ():
                yield first(check, "id").lower()[:64], dig(check, "verdict") is not False
