"""OTLP/JSON exports of GenAI spans and log records, in the four dialects of ``otel_dialects``.

One record is one ExportTraceServiceRequest or ExportLogsServiceRequest and gives one outcome per span or log record; a
single span or log record with its own resource, as stores flatten them, is read as well. A span and the log records
that carry its content are ``Fragment``s of one group; what is whole in itself is ``Normalized``.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from aitrail.event import AccessEvent, make_event_id
from aitrail.normalize.common import decode, epoch_to_time
from aitrail.normalize.otel_content import Texts, read_attributes, read_message_event
from aitrail.normalize.otel_dialects import DETAILS_EVENT, JOINED, MESSAGE_EVENTS, TABLES, dialect_of, first
from aitrail.normalize.otel_event import fill_event, fill_outcome, operation_of
from aitrail.normalize.otel_values import Export, Holder, LogRecord, Span, attributes_of, body_of, identifier, whole
from aitrail.normalize.outcome import Context, Fragment, Normalized, Outcome, Rejected

SOURCE = "otel_genai"

_export = msgspec.json.Decoder(Export)
_span = msgspec.json.Decoder(Span)
_log = msgspec.json.Decoder(LogRecord)

_NOT_AI = Rejected("not_ai_related", "", SOURCE)
# Events inside a span that hold a text in one attribute (Azure AI inference, older OpenLLMetry and Spring AI).
_EVENT_CONTENT = "gen_ai.event.content"
_CONTENT_EVENTS = {"gen_ai.content.prompt": "gen_ai.prompt", "gen_ai.content.completion": "gen_ai.completion"}


def normalize(raw: bytes, context: Context) -> Sequence[Outcome]:
    """Turn one export into one outcome per span or log record; total, pure."""
    export = decode(_export, raw, SOURCE)
    if isinstance(export, Rejected):
        return (export,)
    if export.resourceSpans is None and export.resourceLogs is None:
        if export.resourceMetrics is not None:
            return (Rejected("type_unsupported", "resourceMetrics", SOURCE),)
        return (_flat(raw, context),)
    return [*_spans(export, context), *_logs(export, context)] or [_NOT_AI]


def _flat(raw: bytes, context: Context) -> Outcome:
    """A single span, or (it has a body or no start) a single log record."""
    span = decode(_span, raw, SOURCE)
    if isinstance(span, Rejected):
        return span
    if span.startTimeUnixNano is None:
        record = decode(_log, raw, SOURCE)
        if isinstance(record, Rejected):
            return record
        return _log_outcome(record, _resource(record.resource), {}, context)
    return _span_outcome(span, _resource(span.resource), context)


def _resource(holder: Holder | None) -> dict[str, Any]:
    return attributes_of(holder.attributes) if holder is not None else {}


def _spans(export: Export, context: Context) -> Iterator[Outcome]:
    for group in export.resourceSpans or ():
        resource = _resource(group.resource)
        for scope in [*(group.scopeSpans or ()), *(group.instrumentationLibrarySpans or ())]:
            for span in scope.spans or ():
                yield _span_outcome(span, resource, context)


def _logs(export: Export, context: Context) -> Iterator[Outcome]:
    taken: dict[tuple[str, int], int] = {}
    for group in export.resourceLogs or ():
        resource = _resource(group.resource)
        for scope in group.scopeLogs or ():
            for record in scope.logRecords or ():
                yield _log_outcome(record, resource, taken, context)


def _span_outcome(span: Span, resource: dict[str, Any], context: Context) -> Outcome:
    attributes = attributes_of(span.attributes)
    dialect = dialect_of(attributes)
    if not dialect:
        return _NOT_AI
    table = TABLES[dialect]
    operation = operation_of(attributes, table, span.name or "")
    if not operation:
        return _NOT_AI
    trace_id, span_id = identifier(span.traceId or "", 16), identifier(span.spanId or "", 8)
    if not trace_id or not span_id:
        return Rejected("field_missing", "spanId" if trace_id else "traceId", SOURCE)
    start, end = whole(span.startTimeUnixNano), whole(span.endTimeUnixNano)
    timestamp = epoch_to_time(start / 1e9) if start else ""
    if not timestamp:
        return Rejected("time_invalid" if start else "field_missing", "startTimeUnixNano", SOURCE)
    event = _new_event(trace_id, span_id, timestamp, resource, context)
    event.action = operation
    fill_event(event, attributes, resource, table, context)
    if start and end and end >= start:
        event.latency_ms = round((end - start) / 1e6, 3)
    texts = Texts()
    read_attributes(attributes, table, texts)
    error = _span_events(span, texts)
    content = texts.content()
    fill_outcome(event, attributes, table, texts.answer, ended=bool(end), status=span.status, exception=error)
    if content is None and dialect in ("legacy", "current") and operation in JOINED:
        return Fragment("otel_content", f"{trace_id}:{span_id}", "span", event)
    return Normalized(event, content)


def _new_event(trace_id: str, span_id: str, timestamp: str, resource: dict[str, Any], context: Context) -> AccessEvent:
    """Start the event. Only the resource may name another tenant, so that a span and its log records always agree."""
    identity = f"{trace_id}:{span_id}"
    named = first(resource, context.tenant_keys) if context.tenant_keys else None
    tenant = named.lower() if isinstance(named, str) else context.tenant_id
    event = AccessEvent(
        event_id=make_event_id(tenant, SOURCE, identity), timestamp=timestamp, tenant_id=tenant, source=SOURCE
    )
    event.source_event_id = identity
    event.trace_id = trace_id
    return event


def _span_events(span: Span, texts: Texts) -> str:
    """Collect texts from the span's events; gives the type of an exception that was recorded."""
    error = ""
    for item in span.events or ():
        name = item.name or ""
        if name == "exception":
            kind = attributes_of(item.attributes).get("exception.type")
            error = kind if isinstance(kind, str) else error
        elif name == DETAILS_EVENT or name in _CONTENT_EVENTS:
            read_attributes(attributes_of(item.attributes), TABLES["current"], texts)
        elif name in MESSAGE_EVENTS:
            attributes = attributes_of(item.attributes)
            read_message_event(name, attributes.get(_EVENT_CONTENT, attributes), texts)
    return error


def _log_outcome(
    record: LogRecord, resource: dict[str, Any], taken: dict[tuple[str, int], int], context: Context
) -> Outcome:
    """The part that one log record is; ``taken`` counts records of equal group and time within this export."""
    attributes = attributes_of(record.attributes)
    name = record.eventName or attributes.get("event.name") or ""
    if not isinstance(name, str) or (name != DETAILS_EVENT and name not in MESSAGE_EVENTS):
        return _NOT_AI
    trace_id, span_id = identifier(record.traceId or "", 16), identifier(record.spanId or "", 8)
    if not trace_id or not span_id:
        return Rejected("field_missing", "spanId" if trace_id else "traceId", SOURCE)
    nanos = whole(record.timeUnixNano) or whole(record.observedTimeUnixNano) or 0
    timestamp = epoch_to_time(nanos / 1e9)
    if not timestamp:
        return Rejected("time_invalid" if nanos else "field_missing", "timeUnixNano", SOURCE)
    table = TABLES[dialect_of(attributes) or "legacy"]
    event = _new_event(trace_id, span_id, timestamp, resource, context)
    event.action = operation_of(attributes, table, "chat")
    fill_event(event, attributes, resource, table, context)
    event.flags = ()  # whether the caller is known is for the span to say
    texts = Texts()
    body = body_of(record.body)
    if name == DETAILS_EVENT:
        read_attributes(attributes, table, texts)
        if isinstance(body, dict):
            read_attributes(body, table, texts)
    else:
        read_message_event(name, body, texts)
    fill_outcome(event, attributes, table, texts.answer, ended=False)
    group = f"{trace_id}:{span_id}"
    turn = taken.get((group, nanos), 0)
    taken[group, nanos] = turn + 1
    # The time places a record among its siblings, in whatever export they come; the turn tells equal times apart.
    part = f"log:{nanos}.{turn}.{name.removeprefix('gen_ai.')}"
    return Fragment("otel_content", group, part, event, order=nanos + turn, content=texts.content())
