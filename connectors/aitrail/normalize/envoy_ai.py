"""Envoy AI Gateway's access log in JSON.

The operator names the fields; these are the names of the project's own documentation, with Envoy's usual ones. The
tokens are there only with ``llmRequestCosts``; prompts never are (its traces have them: ``otel_genai``), and no user
unless a header is mapped to a name that ``[mapping]`` knows. ``-`` stands for nothing.
"""

from collections.abc import Sequence

from aitrail.event import AccessEvent, OutcomeStatus
from aitrail.normalize.common import split_address
from aitrail.normalize.loose import (
    Object,
    amount,
    close,
    count,
    fill_claims,
    fill_status,
    fill_total,
    first,
    header_claims,
    moment,
    read,
    start,
    text,
)
from aitrail.normalize.outcome import Context, Outcome, Rejected
from aitrail.normalize.vocabulary import name_model

SOURCE = "envoy_ai"
_IDENTITY = (b'"user.id"', b'"x-user-id"')
# Envoy's response flags that say more than the status (access log documentation: RESPONSE_FLAGS).
_FLAGS: dict[str, OutcomeStatus] = {
    "RL": "throttled",
    "UAEX": "denied",
    **dict.fromkeys(("RLSE", "UH", "UF", "UT", "NR", "DC", "UC", "UR"), "error"),
}


def normalize(raw: bytes, context: Context) -> Sequence[Outcome]:
    """Turn one access log line into one event; total, pure."""
    record = read(raw, SOURCE, _IDENTITY)
    if isinstance(record, Rejected):
        return (record,)
    model = first(record, "gen_ai.request.model", "gen_ai.response.model", "x-ai-eg-model")
    method = first(record, "mcp.method.name")
    if not model and not method:
        return (Rejected("not_ai_related", "", SOURCE),)
    began = record.get("start_time", record.get("timestamp"))
    one = first(record, "x-request-id", "request_id")
    # The request id may be the client's own: with the time it stands for one request.
    event = start(raw, SOURCE, context, moment(began, 1000.0), "start_time", f"{one}|{text(began)}" if one else "")
    if isinstance(event, Rejected):
        return (event,)
    event.source_event_id = event.request_id = one
    event.service = "envoy-ai-gateway"
    event.trace_id = first(record, "trace_id", "traceparent").lower()
    path = first(record, "x-envoy-origin-path", "path", ":path").partition("?")[0].rstrip("/")
    event.action = (method or path.rpartition("/v1/")[2] or "chat/completions").lower()
    event.action_kind = "inference"
    _fill_call(event, record, model)
    _fill_caller(event, record, context)
    _fill_outcome(event, record)
    return (close(event),)


def _fill_call(event: AccessEvent, record: Object, model: str) -> None:
    backend = first(record, "gen_ai.provider.name", "x-ai-eg-backend")
    event.resource_type, event.resource_id = ("backend", backend) if backend else ("", "")
    version = first(record, "gen_ai.response.model").lower()
    _, event.model, event.model_version = name_model("", model.lower(), version)
    event.tool = first(record, "mcp.tool.name").lower()
    event.prompt_tokens = count(record.get("gen_ai.usage.input_tokens"))
    event.completion_tokens = count(record.get("gen_ai.usage.output_tokens"))
    event.token_count = count(record.get("gen_ai.usage.total_tokens"))
    event.cached_tokens = count(record.get("gen_ai.usage.cached_input_tokens"))
    fill_total(event)
    event.latency_ms = amount(record.get("duration"))


def _fill_caller(event: AccessEvent, record: Object, context: Context) -> None:
    fill_claims(event, record, context)
    fill_claims(event, header_claims(record, context), context)
    event.session_id = first(record, "session.id", "mcp.session.id") or event.session_id
    event.user_agent = first(record, "user-agent", "user_agent")
    forwarded = first(record, "x-forwarded-for").partition(",")[0]
    event.src_ip, event.src_host = split_address(forwarded or first(record, "downstream_remote_address"))
    event.app = first(record, "route_name", "authority", ":authority").lower()


def _fill_outcome(event: AccessEvent, record: Object) -> None:
    """The status decides; a flag does where it is more precise, and where there is no status (0)."""
    fill_status(event, count(record.get("response_code")))
    details = first(record, "response_code_details").lower()
    if details.startswith(("rbac_access_denied", "ext_authz_denied", "jwt_authn_access_denied")):
        event.outcome_status = "denied"
    for flag in first(record, "response_flags").split(","):
        known = _FLAGS.get(flag.strip())
        if known and event.outcome_status in ("unknown", "error"):
            event.outcome_status = known
        if known:
            event.error_code = event.error_code or flag.strip().lower()
    if not event.error_code and event.outcome_status not in ("success", "unknown"):
        event.error_code = details[:128]
