"""OTLP over HTTP (opentelemetry-proto, "OTLP/HTTP"): protobuf to the JSON form that the normalizer reads, and answers.

The conversion is written out instead of taken from protobuf's own JSON mapping, which is several times slower and
writes ids as base64; the result is OTLP/JSON with only the members that the normalizer reads.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from aitrail.web.auth import Refusal

_MAX_DEPTH = 32
PROTOBUF = "application/x-protobuf"
JSON = "application/json"
_encode = msgspec.json.Encoder().encode
# google.rpc.Code of a refusal by HTTP status (the OTLP specification's table of retryable answers uses 429 and 503).
_RPC_CODE = {400: 3, 401: 16, 403: 7, 404: 12, 405: 12, 408: 4, 409: 6, 413: 3, 415: 3, 429: 8, 500: 13, 503: 14}


def media_type(headers: Any) -> str | Refusal:
    """Protobuf or JSON, by the content type."""
    named = headers.get("content-type", "").partition(";")[0].strip().lower()
    if named in (PROTOBUF, JSON):
        return str(named)
    return Refusal(415, "media_type_unknown", f"send Content-Type {PROTOBUF} or {JSON}")


def to_json(body: bytes, signal: str) -> bytes | Refusal:
    """Convert an ExportTraceServiceRequest (``signal`` traces) or ExportLogsServiceRequest (logs) to OTLP/JSON."""
    from google.protobuf.message import DecodeError  # noqa: PLC0415  (an extra)

    try:
        if signal == "traces":
            return _encode({"resourceSpans": [_resource_spans(one) for one in _traces(body)]})
        return _encode({"resourceLogs": [_resource_logs(one) for one in _logs(body)]})
    except (DecodeError, ValueError, UnicodeDecodeError, RecursionError):
        return Refusal(400, "protobuf_invalid", f"the body is no OTLP export of {signal} in protobuf")


def _traces(body: bytes) -> Iterable[Any]:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (  # noqa: PLC0415  (an extra)
        ExportTraceServiceRequest,
    )

    found: Iterable[Any] = ExportTraceServiceRequest.FromString(body).resource_spans
    return found


def _logs(body: bytes) -> Iterable[Any]:
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (  # noqa: PLC0415  (an extra)
        ExportLogsServiceRequest,
    )

    found: Iterable[Any] = ExportLogsServiceRequest.FromString(body).resource_logs
    return found


def _resource_spans(group: Any) -> dict[str, Any]:
    return {
        "resource": _holder(group.resource),
        "scopeSpans": [
            {"scope": {"name": scope.scope.name}, "spans": [_span(span) for span in scope.spans]}
            for scope in group.scope_spans
        ],
    }


def _resource_logs(group: Any) -> dict[str, Any]:
    return {
        "resource": _holder(group.resource),
        "scopeLogs": [
            {"scope": {"name": scope.scope.name}, "logRecords": [_log(record) for record in scope.log_records]}
            for scope in group.scope_logs
        ],
    }


def _holder(resource: Any) -> dict[str, Any]:
    return {"attributes": _attributes(resource.attributes)}


def _span(span: Any) -> dict[str, Any]:
    return {
        "traceId": span.trace_id.hex(),
        "spanId": span.span_id.hex(),
        "parentSpanId": span.parent_span_id.hex(),
        "name": span.name,
        "startTimeUnixNano": str(span.start_time_unix_nano),
        "endTimeUnixNano": str(span.end_time_unix_nano),
        "attributes": _attributes(span.attributes),
        "events": [{"name": event.name, "attributes": _attributes(event.attributes)} for event in span.events],
        "status": {"code": span.status.code},
    }


def _log(record: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "timeUnixNano": str(record.time_unix_nano),
        "observedTimeUnixNano": str(record.observed_time_unix_nano),
        "traceId": record.trace_id.hex(),
        "spanId": record.span_id.hex(),
        "attributes": _attributes(record.attributes),
    }
    if getattr(record, "event_name", ""):
        found["eventName"] = record.event_name
    if record.HasField("body"):
        found["body"] = _value(record.body, 0)
    return found


def _attributes(pairs: Iterable[Any]) -> list[dict[str, Any]]:
    return [{"key": pair.key, "value": _value(pair.value, 0)} for pair in pairs]


def _value(value: Any, depth: int) -> dict[str, Any]:
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return {"stringValue": value.string_value}
    if kind == "int_value":
        return {"intValue": str(value.int_value)}
    if kind == "bool_value":
        return {"boolValue": value.bool_value}
    if kind == "double_value":
        return {"doubleValue": value.double_value}
    if depth > _MAX_DEPTH:
        return {}
    if kind == "array_value":
        return {"arrayValue": {"values": [_value(item, depth + 1) for item in value.array_value.values]}}
    if kind == "kvlist_value":
        pairs = [{"key": pair.key, "value": _value(pair.value, depth + 1)} for pair in value.kvlist_value.values]
        return {"kvlistValue": {"values": pairs}}
    return {}


def success(signal: str, media: str, rejected: int, message: str) -> bytes:
    """The body of an answer 200: empty, or ``partial_success`` with how many were rejected and why."""
    name = "rejectedSpans" if signal == "traces" else "rejectedLogRecords"
    if media == JSON:
        return _encode({"partialSuccess": {name: str(rejected), "errorMessage": message}} if rejected else {})
    if not rejected:
        return b""  # an empty message
    # Field 1 of both responses is partial_success; in it 1 is the number (int64) and 2 the message (string).
    inner = b"\x08" + _varint(rejected) + _field(2, message.encode())
    return _field(1, inner)


def failure(refusal: Refusal, media: str) -> bytes:
    """The body of an answer 4xx or 5xx: a google.rpc.Status."""
    code = _RPC_CODE.get(refusal.status, 2)
    if media == JSON:
        return _encode({"code": code, "message": refusal.message})
    return b"\x08" + _varint(code) + _field(2, refusal.message.encode())


def _field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
