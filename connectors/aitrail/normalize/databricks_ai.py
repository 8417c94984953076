"""Databricks AI Gateway: rows of inference tables, and of ``system.ai_gateway.usage``, as JSON objects.

From files (exports) or from the SQL interface, which gives every value as a text. ``requester`` is the person's address
or the id of a service principal; departments and tickets come only as request tags. A table with ``sampling_fraction``
below 1 does not hold every call: flagged ``sampled``.
"""

import re
from collections.abc import Sequence

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
from aitrail.normalize.openai_chat import loads
from aitrail.normalize.outcome import Context, Outcome, Rejected
from aitrail.normalize.vocabulary import name_model

SOURCE = "databricks_ai"
_IDENTITY = (b'"requester"',)
_SERVICE_PRINCIPAL = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def normalize(raw: bytes, context: Context) -> Sequence[Outcome]:
    """Turn one row into one event; total, pure."""
    row = read(raw, SOURCE, _IDENTITY)
    if isinstance(row, Rejected):
        return (row,)
    return (_usage(raw, row, context) if "event_time" in row else _inference(raw, row, context),)


def _inference(raw: bytes, row: Object, context: Context) -> Outcome:
    path, when = "request_time", moment(row.get("request_time"), 1000.0)
    if row.get("request_time") is None and row.get("timestamp_ms") is not None:  # the older table
        path, when = "timestamp_ms", moment(row.get("timestamp_ms"), 1000.0)
    event = start(raw, SOURCE, context, when, path, first(row, "databricks_request_id"))
    if isinstance(event, Rejected):
        return event
    event.request_id = first(row, "client_request_id", "databricks_request_id")
    event.action, event.resource_type = "inference", "served_entity"
    event.resource_id = first(row, "served_entity_id")
    event.app = first(inner(row, "request_metadata"), "endpoint_name").lower()
    fill_status(event, count(row.get("status_code")))
    event.latency_ms = amount(row.get("execution_duration_ms"))
    if event.latency_ms is None:
        event.latency_ms = amount(row.get("execution_time_ms"))
    sampled = amount(row.get("sampling_fraction"))
    if sampled is not None and sampled < 1:
        event.flags = (*event.flags, "sampled")
    request = inner(row, "request")
    _fill_who(event, row, context)
    fill_claims(event, inner(request, "usage_context"), context)
    content = fill_chat(event, row.get("request"), row.get("response"))
    event.model = first(request, "model").lower() or event.model_version
    if event.outcome_status not in ("success", "unknown") and not event.error_code:
        codes = loads(row.get("logging_error_codes"))
        said = text(codes[0]) if isinstance(codes, list) and codes else ""
        event.error_code = (first(inner(row, "response"), "error_code") or said).lower()
    fill_total(event)
    return close(event, content)


def _usage(raw: bytes, row: Object, context: Context) -> Outcome:
    one = first(row, "event_id", "databricks_request_id", "request_id")
    event = start(raw, SOURCE, context, moment(row.get("event_time"), 1000.0), "event_time", one)
    if isinstance(event, Rejected):
        return event
    event.request_id = first(row, "request_id", "client_request_id")
    event.action = (first(row, "api_type") or "inference").lower()
    event.app = first(row, "endpoint_name", "service_name", "service_type").lower()
    event.resource_type, event.resource_id = "endpoint", first(row, "endpoint_name", "endpoint_id", "url")
    provider, model = first(row, "destination_type").lower(), first(row, "destination_model", "model")
    event.model_provider, event.model, event.model_version = name_model(provider, model.lower(), "")
    event.prompt_tokens, event.completion_tokens = count(row.get("input_tokens")), count(row.get("output_tokens"))
    event.token_count = count(row.get("total_tokens"))
    event.latency_ms = amount(row.get("latency_ms"))
    event.first_token_ms = amount(row.get("time_to_first_byte_ms"))
    fill_status(event, count(row.get("status_code")))
    event.user_agent = first(row, "user_agent")
    _fill_who(event, row, context)
    fill_claims(event, inner(row, "request_tags"), context)
    fill_total(event)
    event.flags = (*event.flags, "metadata_only")
    return close(event)


def _fill_who(event: AccessEvent, row: Object, context: Context) -> None:
    event.service, event.action_kind = "databricks", "inference"
    event.user_id = first(row, "requester").lower()
    if _SERVICE_PRINCIPAL.fullmatch(event.user_id):
        event.principal_type = "service"
    event.cloud_account = first(row, "workspace_id", "account_id").lower()
    fill_claims(event, inner(row, "request_tags"), context)
