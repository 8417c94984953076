"""SageMaker data capture: what an endpoint got and gave, one JSON line each (eventVersion 0).

Source: SageMaker developer guide, "Capture data from real-time endpoint". The record names neither caller nor endpoint
nor status: the endpoint is in the object's key (``<prefix>/<endpoint>/<variant>/yyyy/mm/dd/hh/<file>.jsonl``), the
caller is unknown (``identity_missing``), and the outcome stays ``unknown``. An InferenceId that the caller set is in
``request_id``: the one exact join to other logs.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from aitrail.event import AccessEvent, make_event_id
from aitrail.normalize.bedrock_answers import Answer, read_response
from aitrail.normalize.bedrock_bodies import read_request
from aitrail.normalize.common import decode, has_duplicate_key, parse_time
from aitrail.normalize.outcome import Content, Context, Message, Normalized, Outcome, Rejected

RECORD_TYPE = "sagemaker_capture"
_IDENTIFYING = (b'"eventMetadata"', b'"eventId"', b'"inferenceTime"', b'"captureData"')
_KEY = re.compile(r"([^/\s]+)/([^/\s]+)/\d{4}/\d{2}/\d{2}/\d{2}/[^/]+$", re.ASCII)
_MAX_TOOLS = 1024


class _Side(msgspec.Struct, gc=False, rename="camel"):
    observed_content_type: str | None = None
    data: str | None = None
    encoding: str | None = None


class _Capture(msgspec.Struct, gc=False, rename="camel"):
    endpoint_input: _Side | None = None
    endpoint_output: _Side | None = None


class _Metadata(msgspec.Struct, gc=False, rename="camel"):
    event_id: str = ""
    inference_time: str = ""
    inference_id: str | None = None
    custom_attributes: list[str] | str | None = None


class _Record(msgspec.Struct, gc=False, rename="camel"):
    capture_data: _Capture | None = None
    event_metadata: _Metadata | None = None


_decoder = msgspec.json.Decoder(_Record)
_any_decoder = msgspec.json.Decoder()


def normalize(raw: bytes, context: Context) -> Sequence[Outcome]:
    """Turn one captured inference into one event or one rejection."""
    record = decode(_decoder, raw, RECORD_TYPE)
    if isinstance(record, Rejected):
        return (record,)
    metadata = record.event_metadata
    if metadata is None or record.capture_data is None:
        missing = "eventMetadata" if metadata is None else "captureData"
        return (Rejected("field_missing", missing, RECORD_TYPE),)
    if not metadata.event_id or not metadata.inference_time:
        missing = "eventId" if not metadata.event_id else "inferenceTime"
        return (Rejected("field_missing", f"eventMetadata.{missing}", RECORD_TYPE),)
    if has_duplicate_key(raw, _IDENTIFYING):
        return (Rejected("json_duplicate_key", "", RECORD_TYPE),)
    timestamp, problem = parse_time(metadata.inference_time, assume_utc=True)
    if not timestamp:
        return (Rejected(problem, "eventMetadata.inferenceTime", RECORD_TYPE),)
    flags = ["identity_missing", *([problem] if problem else [])]
    return (_normalized(record.capture_data, metadata, timestamp, flags, context),)


def _normalized(
    capture: _Capture, metadata: _Metadata, timestamp: str, flags: list[str], context: Context
) -> Normalized:
    key = _KEY.search(context.origin)
    endpoint, variant = key.groups() if key else ("", "")
    answer = Answer()
    messages: list[Message] = []
    binary = False
    if capture.endpoint_input is not None:
        text, opaque = _text(capture.endpoint_input)
        messages = _sent(text)
        binary = opaque
    if capture.endpoint_output is not None:
        text, opaque = _text(capture.endpoint_output)
        answer = _received(text)
        binary = binary or opaque
    if binary:
        flags.append("body_binary")
    if not endpoint:
        flags.append("endpoint_unknown")
    event = AccessEvent(
        event_id=make_event_id(context.tenant_id, RECORD_TYPE, metadata.event_id),
        timestamp=timestamp,
        tenant_id=context.tenant_id,
        source=RECORD_TYPE,
        source_event_id=metadata.event_id,
        flags=tuple(flags),
        principal_type="unknown",
        request_id=metadata.inference_id or "",
        action="invokeendpoint",
        action_kind="inference",
        service="sagemaker.amazonaws.com",
        resource_type="endpoint",
        resource_id=endpoint,
        cloud_provider="aws",
        model=endpoint.lower(),
        model_version=variant.lower(),
        tool=",".join(answer.tools)[:_MAX_TOOLS].lower(),
        finish_reason=answer.finish,
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        cached_tokens=answer.cached_tokens,
        token_count=_total(answer),
    )
    content = Content(messages, "\n".join(answer.texts), answer.arguments)
    return Normalized(event, content if messages or content.response or content.tool_calls else None)


def _total(answer: Answer) -> int | None:
    if answer.prompt_tokens is None and answer.completion_tokens is None:
        return None
    return (answer.prompt_tokens or 0) + (answer.completion_tokens or 0)


def _text(side: _Side) -> tuple[str, bool]:
    """The captured data as text, and whether it is binary (pictures, tensors) and therefore left out.

    ``data`` is base64 unless the content type was configured as CSV or JSON.
    """
    data = side.data or ""
    if (side.encoding or "").upper() != "BASE64":
        return data, False
    try:
        text = base64.b64decode(data, validate=True).decode("utf-8")
    except (binascii.Error, ValueError):  # UnicodeDecodeError is a ValueError
        return "", True
    return text, False


def _json(text: str) -> Any:
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return _any_decoder.decode(text)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return None


def _sent(text: str) -> list[Message]:
    """The messages of a known chat or generation body, else all of it as the user's text (CSV rows, features)."""
    body = _json(text)
    messages = read_request(body) if isinstance(body, dict) else []
    if not messages and text:
        messages = [Message("user", text)]
    return messages


def _received(text: str) -> Answer:
    """The answer of a known body (TGI and DJL answer with a list of one), else all of it as text."""
    body = _json(text)
    if isinstance(body, list) and len(body) == 1 and isinstance(body[0], dict):
        body = body[0]
    answer = read_response(body) if isinstance(body, dict) else Answer()
    if not answer.texts and not answer.arguments and text:
        answer.texts.append(text)
    return answer
