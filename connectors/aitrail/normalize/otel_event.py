"""The event's fields from the attributes of a GenAI span or log record and of its resource."""

from collections.abc import Iterator
from typing import Any

from aitrail.event import AccessEvent
from aitrail.normalize.common import split_address
from aitrail.normalize.openai_chat import Answer, loads
from aitrail.normalize.otel_dialects import (
    CLOUDS,
    ERRORS,
    FILTERED,
    KINDS,
    OPERATIONS,
    PROPERTIES,
    WRAPPERS,
    Table,
    first,
)
from aitrail.normalize.otel_values import Status, whole
from aitrail.normalize.outcome import Context
from aitrail.normalize.vocabulary import filter_name, name_model

_ERROR_CODES = frozenset({"2", "error", "status_code_error"})
_USER_KEYS = ("user.id", "enduser.id", "gen_ai.user", "llm.user")
_STATUS_KEYS = ("http.response.status_code", "http.status_code")


def operation_of(attributes: dict[str, Any], table: Table, span_name: str) -> str:
    """The operation in the vocabulary of the current conventions; empty when the span is only a wrapper."""
    named = first(attributes, table["operation"])
    name = named.lower() if isinstance(named, str) else ""
    if name in WRAPPERS:
        if first(attributes, table["model"]) is None:
            return ""
        name = "chat"
    if not name:  # e.g. "chat gpt-4o", "openai.chat"
        name = (span_name.split() or ["chat"])[0].rpartition(".")[2].lower()[:64]
    return OPERATIONS.get(name, name)


def fill_event(
    event: AccessEvent, attributes: dict[str, Any], resource: dict[str, Any], table: Table, context: Context
) -> None:
    """Set action kind, model, usage, identity and place from ``event.action`` and attributes."""
    event.action_kind = KINDS.get(event.action, "inference")
    provider = _text(first(attributes, table["provider"])).lower()
    model = _text(first(attributes, table["model"])).lower()
    version = _text(first(attributes, table["response_model"])).lower()
    event.model_provider, event.model, event.model_version = name_model(provider, model, version)
    _fill_usage(event, attributes, table)
    _fill_identity(event, attributes, resource, table, context)
    source = _text(first(attributes, table["data_source"]))
    if source:
        event.resource_type, event.resource_id = "data_source", source
    event.request_id = _text(attributes.get("aws.request_id")) or _text(first(attributes, table["response_id"]))
    event.service = (_text(attributes.get("server.address")) or provider).lower()
    cloud = _text(resource.get("cloud.provider")).lower()
    event.cloud_provider = cloud or next((name for start, name in CLOUDS if provider.startswith(start)), "")
    event.cloud_account = _text(resource.get("cloud.account.id")).lower()
    event.cloud_region = (_text(attributes.get("cloud.region")) or _text(resource.get("cloud.region"))).lower()


def _fill_usage(event: AccessEvent, attributes: dict[str, Any], table: Table) -> None:
    prompt = _count(first(attributes, table["prompt_tokens"]))
    completion = _count(first(attributes, table["completion_tokens"]))
    total = _count(first(attributes, table["total_tokens"]))
    if total is None and (prompt is not None or completion is not None):
        total = (prompt or 0) + (completion or 0)
    event.prompt_tokens, event.completion_tokens, event.token_count = prompt, completion, total
    read = _count(first(attributes, table["cache_read"]))
    written = _count(first(attributes, table["cache_write"]))
    if read is not None or written is not None:
        event.cached_tokens = (read or 0) + (written or 0)
    event.cost_usd = _amount(first(attributes, table["cost"]))
    seconds = _amount(first(attributes, table["first_token_s"]))
    if seconds is not None:
        event.first_token_ms = round(seconds * 1000, 3)


def _fill_identity(
    event: AccessEvent, attributes: dict[str, Any], resource: dict[str, Any], table: Table, context: Context
) -> None:
    places = list(_places(attributes, resource))
    event.user_id = (_find(places, context.user_keys) or _find(places, _USER_KEYS)).lower()
    event.user_email = _find(places, ("user.email",)).lower() or (event.user_id if "@" in event.user_id else "")
    event.user_name = _find(places, ("user.name", "user.full_name")).lower()
    event.department = _find(places, context.department_keys).lower()
    event.purpose = _find(places, context.purpose_keys).lower()
    event.ticket = _find(places, context.ticket_keys).lower()
    event.session_id = _text(first(attributes, table["session"])) or _find(places, context.session_keys)
    event.agent = _text(first(attributes, table["agent"])).lower()
    event.app = _text(resource.get("service.name")).lower()
    event.tool = _text(first(attributes, table["tool"])).lower()
    event.user_agent = _text(attributes.get("user_agent.original"))
    address = _text(attributes.get("client.address"))
    if address:
        event.src_ip, event.src_host = split_address(address)
    if event.user_id or event.user_email:
        event.principal_type = "human"
    elif event.agent:
        event.principal_type = "agent"
    elif event.app:
        event.principal_type = "service"
    if not event.user_id:
        event.flags += ("identity_missing",)


def _places(attributes: dict[str, Any], resource: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Where facts about the caller may be: the span, its association properties, its metadata, the resource."""
    yield attributes
    properties = {key[len(PROPERTIES) :]: value for key, value in attributes.items() if key.startswith(PROPERTIES)}
    if properties:
        yield properties
    metadata = attributes.get("metadata")
    decoded = loads(metadata) if isinstance(metadata, str) else metadata
    if isinstance(decoded, dict):
        yield decoded
    yield resource


def _find(places: list[dict[str, Any]], keys: tuple[str, ...]) -> str:
    for place in places:
        for key in keys:
            if key in place:
                text = _text(place[key])
                if text:
                    return text
    return ""


def fill_outcome(
    event: AccessEvent,
    attributes: dict[str, Any],
    table: Table,
    answer: Answer,
    *,
    ended: bool,
    status: Status | None = None,
    exception: str = "",
) -> None:
    """Set outcome, error, finish reason and called tools; a span that ended without an error succeeded."""
    finish = answer.finish_reason or _finish_reason(first(attributes, table["finish"]))
    event.finish_reason = finish
    if answer.tools:
        event.tool = ",".join(answer.tools).lower()
    http = whole(first(attributes, _STATUS_KEYS))
    event.http_status = http if http is not None and 100 <= http < 600 else None
    error = _text(first(attributes, table["error"])) or exception
    code = str(status.code).lower() if status is not None and status.code is not None else ""
    if error or code in _ERROR_CODES:
        event.error_code = error.lower()[:128]
        short = event.error_code.rpartition(".")[2]
        event.outcome_status = ERRORS.get(short) or ERRORS.get(str(event.http_status)) or "error"
    elif finish in FILTERED:
        event.outcome_status = "blocked"
    elif ended:
        event.outcome_status = "success"
    if event.outcome_status == "blocked":
        event.guardrail_action = "blocked"
        event.guardrail_name = filter_name(event.model_provider)


def _finish_reason(value: Any) -> str:
    """Finish reasons are a list, one per choice; one of them may be a string of JSON."""
    if isinstance(value, str) and value[:1] == "[":
        value = loads(value) or value
    if isinstance(value, list):
        value = value[0] if value else ""
    return value.lower()[:64] if isinstance(value, str) else ""


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return ""


def _count(value: Any) -> int | None:
    number = whole(value)
    return number if number is not None and number >= 0 else None


def _amount(value: Any) -> float | None:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        return None
    return float(value)
