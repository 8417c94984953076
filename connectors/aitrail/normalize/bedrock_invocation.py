"""The Bedrock model invocation log (schemaType ModelInvocationLog 1.0; S3 objects and CloudWatch Logs events).

Sources: Bedrock user guide, "Monitor model invocation using CloudWatch Logs and Amazon S3"; API reference,
"LoggingConfig". Bodies above 100 kB are written to another object and only their path is logged: the path is text of
the log's writer, so it is noted (``body_offloaded``) and never followed from here.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from aitrail.event import AccessEvent, make_event_id
from aitrail.normalize.aws_actions import DEFAULT_TABLE
from aitrail.normalize.aws_common import apply_metadata, model_of, tenant_of
from aitrail.normalize.aws_identity import identity_of_arn
from aitrail.normalize.bedrock_answers import Answer, count, read_response
from aitrail.normalize.bedrock_bodies import read_request
from aitrail.normalize.bedrock_guardrail import read_verdict
from aitrail.normalize.common import decode, has_duplicate_key, parse_time
from aitrail.normalize.outcome import Content, Context, Normalized, Outcome, Rejected

RECORD_TYPE = "bedrock_invocation"
_SERVICE = "bedrock.amazonaws.com"
_IDENTIFYING = (b'"requestId"', b'"timestamp"', b'"identity"', b'"modelId"', b'"accountId"', b'"operation"',
                b'"inputBodyJson"', b'"outputBodyJson"')  # fmt: skip
_FILTERED = frozenset({"content_filtered", "content_filter"})  # the model vendor's own filter
_MAX_TOOLS = 1024
_SHORT_BODY = 64
_NULL = msgspec.Raw(b"null")


class _Identity(msgspec.Struct, gc=False):
    arn: str | None = None


class _Input(msgspec.Struct, gc=False, rename="camel"):
    input_body_json: msgspec.Raw = _NULL
    input_body_s3_path: str | None = msgspec.field(name="inputBodyS3Path", default=None)
    input_token_count: Any = None
    cache_read_input_token_count: Any = None
    cache_write_input_token_count: Any = None


class _Output(msgspec.Struct, gc=False, rename="camel"):
    output_body_json: msgspec.Raw = _NULL
    output_body_s3_path: str | None = msgspec.field(name="outputBodyS3Path", default=None)
    output_token_count: Any = None


class _Record(msgspec.Struct, gc=False, rename="camel"):
    timestamp: str = ""
    account_id: str | None = None
    identity: _Identity | None = None
    region: str | None = None
    inference_region: str | None = None
    request_id: str = ""
    operation: str | None = None
    model_id: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    request_metadata: dict[str, Any] | None = None
    input: _Input | None = None
    output: _Output | None = None
    schema_type: str | None = None


_decoder = msgspec.json.Decoder(_Record)
_any_decoder = msgspec.json.Decoder()


def normalize(raw: bytes, context: Context) -> Sequence[Outcome]:
    """Turn one line of the log into one event or one rejection."""
    record = decode(_decoder, raw, RECORD_TYPE)
    if isinstance(record, Rejected):
        return (record,)
    if record.schema_type is not None and record.schema_type != "ModelInvocationLog":
        return (Rejected("type_unsupported", "schemaType", RECORD_TYPE),)
    if not record.request_id or not record.timestamp:
        return (Rejected("field_missing", "timestamp" if record.request_id else "requestId", RECORD_TYPE),)
    sent, received = record.input or _Input(), record.output or _Output()
    bodies = bytes(sent.input_body_json), bytes(received.output_body_json)
    if has_duplicate_key(_outline(raw, bodies), _IDENTIFYING):
        return (Rejected("json_duplicate_key", "", RECORD_TYPE),)
    texts: list[Any] = []
    for name, body in zip(("input.inputBodyJson", "output.outputBodyJson"), bodies, strict=True):
        value = decode(_any_decoder, body, RECORD_TYPE)
        if isinstance(value, Rejected):
            return (Rejected(value.code, name, RECORD_TYPE),)
        texts.append(_body(value))
    timestamp, problem = parse_time(record.timestamp, assume_utc=True)
    if not timestamp:
        return (Rejected(problem, "timestamp", RECORD_TYPE),)
    event = _event(record, timestamp, [problem] if problem else [], context)
    return (_normalized(record, event, texts[0], texts[1]),)


def _outline(raw: bytes, bodies: tuple[bytes, bytes]) -> bytes:
    """The record with its bodies replaced by null: keys are looked for there, not in kilobytes of conversation.

    Only a body that stands at the first place of its key is taken out; else (the key is there twice, or written in
    another way) the whole record is searched.
    """
    for key, body in zip((b'"inputBodyJson":', b'"outputBodyJson":'), bodies, strict=True):
        if len(body) > _SHORT_BODY:
            start = raw.find(key) + len(key)
            if start >= len(key) and raw.startswith(body, start):
                raw = raw[:start] + b"null" + raw[start + len(body) :]
    return raw


def _normalized(record: _Record, event: AccessEvent, request: Any, response: Any) -> Normalized:
    sent, received = record.input or _Input(), record.output or _Output()
    flags = list(event.flags)
    answer = read_response(response)
    _set_answer(event, sent, received, answer)
    _set_verdict(event, record, request, response, answer)
    content = Content(read_request(request), "\n".join(answer.texts), answer.arguments)
    empty = not (content.messages or content.response or content.tool_calls)
    if sent.input_body_s3_path or received.output_body_s3_path:
        flags.append("body_offloaded")
    elif request is None and response is None:
        flags.append("metadata_only")
    event.flags = tuple(flags)
    upstream = f"{record.request_id}\x00{record.timestamp}"
    event.event_id = make_event_id(event.tenant_id, RECORD_TYPE, upstream)
    return Normalized(event, None if empty else content)


def _body(value: Any) -> Any:
    """A body is JSON; some writers log it as a string of JSON."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return _any_decoder.decode(value)
        except (msgspec.DecodeError, RecursionError, ValueError):
            return value
    return value if value != {} else None


def _event(record: _Record, timestamp: str, flags: list[str], context: Context) -> AccessEvent:
    """Fill what the log says about who and what; address, client and second factor are only in CloudTrail."""
    identity = identity_of_arn((record.identity.arn if record.identity else "") or "")
    model = model_of(record.model_id or "")
    region = (record.region or "").lower()
    inference_region = (record.inference_region or "").lower()
    event = AccessEvent(
        event_id="",
        timestamp=timestamp,
        tenant_id=tenant_of(record.request_metadata, context),
        source=RECORD_TYPE,
        source_event_id=record.request_id,
        principal_type=identity.principal_type,
        user_id=identity.user_id,
        user_name=identity.user_name,
        user_email=identity.user_email,
        role=identity.role,
        session_issuer=identity.session_issuer,
        request_id=record.request_id,
        action=(record.operation or "").lower(),
        action_kind="inference",
        service=_SERVICE,
        resource_type=model.kind,
        resource_id=record.model_id or "",
        cloud_provider="aws",
        cloud_account=(record.account_id or identity.account).lower(),
        cloud_region=region,
        inference_region=inference_region if inference_region != region else "",
        model_provider=model.provider,
        model=model.model,
        model_version=model.version,
        outcome_status="success",
    )
    if record.request_metadata:
        apply_metadata(event, record.request_metadata, context)
    event.flags = tuple(flags if event.user_id else [*flags, "identity_missing"])
    return event


def _set_answer(event: AccessEvent, sent: _Input, received: _Output, answer: Answer) -> None:
    """Tokens, latency and tools. inputTokenCount leaves cached tokens out: the prompt is the sum of all three."""
    cached = [count(sent.cache_read_input_token_count), count(sent.cache_write_input_token_count)]
    known = [number for number in cached if number is not None]
    fresh = count(sent.input_token_count)
    if fresh is None:
        event.prompt_tokens, event.cached_tokens = answer.prompt_tokens, answer.cached_tokens
    else:
        event.prompt_tokens = fresh + sum(known)
        event.cached_tokens = sum(known) if known else None
    completion = count(received.output_token_count)
    event.completion_tokens = answer.completion_tokens if completion is None else completion
    if event.prompt_tokens is not None or event.completion_tokens is not None:
        event.token_count = (event.prompt_tokens or 0) + (event.completion_tokens or 0)
    event.latency_ms, event.first_token_ms = answer.latency_ms, answer.first_token_ms
    event.finish_reason = answer.finish
    if not event.model_version:  # behind an application profile the answer alone says which model it was
        event.model_version = answer.model.lower()
    event.tool = ",".join(answer.tools)[:_MAX_TOOLS].lower()


def _set_verdict(event: AccessEvent, record: _Record, request: Any, response: Any, answer: Answer) -> None:
    """Outcome and guardrail: an error code first, then what the guardrail did, then the vendor's own filter."""
    if record.error_code:
        event.error_code = record.error_code.lower()
        event.outcome_status = DEFAULT_TABLE.outcome(event.error_code, record.error_message or "")
    verdict = read_verdict(response, answer.finish)
    event.guardrail_action, event.guardrail_categories = verdict.action, verdict.categories
    event.guardrail_name = verdict.name or _configured(request)
    if verdict.action == "blocked" or answer.filtered or answer.finish in _FILTERED:
        event.outcome_status = "blocked"
        event.guardrail_action = "blocked"


def _configured(request: Any) -> str:
    """The guardrail that the request asked for (Converse)."""
    config = request.get("guardrailConfig") if isinstance(request, dict) else None
    name = config.get("guardrailIdentifier") if isinstance(config, dict) else None
    return name[:256].lower() if isinstance(name, str) else ""
