"""LiteLLM SpendLogs: the row of the proxy's database, as exported or published (``SpendLogsPayload``).

``metadata``, ``request_tags``, ``messages``, ``response`` and ``proxy_server_request`` are JSON inside strings (objects
in some exports), ``cache_hit`` is the text "True", "False" or "None", and the caller is in ``user``, ``team_id`` and
``api_key``. Newer proxies leave ``messages`` empty and keep the request's body in ``proxy_server_request``.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from aitrail.normalize.common import decode, has_duplicate_key
from aitrail.normalize.litellm import to_event
from aitrail.normalize.litellm_types import ChatResponse, Metadata, Payload, Spend
from aitrail.normalize.openai_chat import loads
from aitrail.normalize.outcome import Context, Outcome, Rejected

SOURCE = "litellm_spend"

_decoder = msgspec.json.Decoder(Spend)
_metadata = msgspec.json.Decoder(Metadata)
_response = msgspec.json.Decoder(ChatResponse)
_IDENTIFYING = (b'"request_id"', b'"startTime"')


def normalize(raw: bytes, context: Context) -> Sequence[Outcome]:
    """Turn one row into one event; total, pure."""
    row = decode(_decoder, raw, SOURCE)
    if isinstance(row, Rejected):
        return (row,)
    if has_duplicate_key(raw, _IDENTIFYING):
        return (Rejected("json_duplicate_key", "", SOURCE),)
    meta = _read_metadata(row.metadata)
    if isinstance(meta, Rejected):
        return (meta,)
    meta.user_api_key_hash = meta.user_api_key_hash or row.api_key
    meta.user_api_key_user_id = meta.user_api_key_user_id or row.user
    meta.user_api_key_team_id = meta.user_api_key_team_id or row.team_id
    meta.user_api_key_org_id = meta.user_api_key_org_id or row.organization_id
    return (to_event(_as_payload(row, meta), SOURCE, context),)


def _as_payload(row: Spend, meta: Metadata) -> Payload[Any, Any]:
    end = row.endTime
    return Payload(
        id=row.litellm_call_id or meta.litellm_call_id or row.request_id,
        litellm_call_id=row.request_id,
        session_id=row.session_id,
        call_type=row.call_type,
        cache_hit=row.cache_hit is True or (isinstance(row.cache_hit, str) and row.cache_hit.lower() == "true"),
        status=row.status,
        custom_llm_provider=row.custom_llm_provider,
        total_tokens=row.total_tokens,
        prompt_tokens=row.prompt_tokens,
        completion_tokens=row.completion_tokens,
        response_cost=row.spend,
        startTime=row.startTime,
        endTime=end,
        completionStartTime=row.completionStartTime if row.completionStartTime is not None else end,
        response_time=row.request_duration_ms / 1000 if row.request_duration_ms is not None else None,
        model=row.model,
        model_group=row.model_group,
        model_id=row.model_id,
        api_base=row.api_base,
        metadata=meta,
        request_tags=_read_tags(row.request_tags),
        end_user=row.end_user,
        requester_ip_address=row.requester_ip_address,
        messages=_first_body(row.messages, row.proxy_server_request),
        response=_read_response(row.response),
    )


def _read_metadata(value: str | dict[str, Any] | None) -> Metadata | Rejected:
    if isinstance(value, dict):
        try:
            return msgspec.convert(value, Metadata)
        except (msgspec.ValidationError, RecursionError):
            return Rejected("field_type", "metadata", SOURCE)
    if not value or value == "None":
        return Metadata()
    found = decode(_metadata, value.encode("utf-8", "surrogatepass"), SOURCE)
    if isinstance(found, Rejected):  # the row itself is whole: what is torn is the text in it
        return Rejected("json_invalid" if found.code == "record_torn" else found.code, "metadata", SOURCE)
    return found


def _read_tags(value: str | list[Any] | None) -> list[Any] | None:
    found = loads(value) if isinstance(value, str) else value
    return found if isinstance(found, list) else None


def _first_body(*values: Any) -> Any:
    """The first value that holds anything; a string may be JSON or the prompt itself."""
    for value in values:
        body = value
        if isinstance(value, str):
            decoded = loads(value) if value[:1] in ("{", "[") else None
            body = decoded if isinstance(decoded, dict | list) else value
        if body and body != "None":
            return body
    return None


def _read_response(value: Any) -> Any:
    """The response, typed where it is a chat completion; other shapes stay as they are."""
    body = value
    if isinstance(value, str) and value[:1] == "{":
        try:
            return _response.decode(value)
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            body = loads(value) or value
    elif isinstance(value, dict):
        try:
            return msgspec.convert(value, ChatResponse)
        except (msgspec.ValidationError, RecursionError):
            return value
    return body if body != "None" else None
