"""OTLP/JSON as typed structs, and its values as plain Python.

Source: opentelemetry-proto (trace, logs, common v1) and the OTLP specification's JSON mapping: 64-bit integers are
strings, trace and span ids are hex (plain protobuf-JSON writers use base64), enumerations are numbers (or names).
"""

from base64 import b64decode
from functools import lru_cache
from typing import Any

import msgspec

_MAX_DEPTH = 32


class AnyValue(msgspec.Struct, gc=False):
    """One attribute value: exactly one member is set."""

    stringValue: str | None = None
    intValue: int | str | None = None
    doubleValue: float | str | None = None
    boolValue: bool | None = None
    arrayValue: "ArrayValue | None" = None
    kvlistValue: "KeyValues | None" = None


class ArrayValue(msgspec.Struct, gc=False):
    """A list of values."""

    values: list[AnyValue] | None = None


class KeyValue(msgspec.Struct, gc=False):
    """One attribute."""

    key: str = ""
    value: AnyValue | None = None


class KeyValues(msgspec.Struct, gc=False):
    """A map of values."""

    values: list[KeyValue] | None = None


# Exporters write a list of key and value; stores that flatten spans (CloudWatch aws/spans) a plain object.
Attributes = list[KeyValue] | dict[str, Any] | None


class Holder(msgspec.Struct, gc=False):
    """Resource or scope."""

    attributes: Attributes = None
    name: str | None = None
    version: str | None = None


class SpanEvent(msgspec.Struct, gc=False):
    """An event inside a span."""

    name: str | None = None
    attributes: Attributes = None


class Status(msgspec.Struct, gc=False):
    """Outcome of a span; its message may quote content and is not read."""

    code: int | str | None = None


class Span(msgspec.Struct, gc=False):
    """A span, or (flattened by a store) a span or log record with its own resource."""

    traceId: str | None = None
    spanId: str | None = None
    name: str | None = None
    startTimeUnixNano: int | str | None = None
    endTimeUnixNano: int | str | None = None
    attributes: Attributes = None
    events: list[SpanEvent] | None = None
    status: Status | None = None
    resource: Holder | None = None


class LogRecord(msgspec.Struct, gc=False):
    """A log record; GenAI events have a name and belong to a span."""

    timeUnixNano: int | str | None = None
    observedTimeUnixNano: int | str | None = None
    traceId: str | None = None
    spanId: str | None = None
    eventName: str | None = None
    attributes: Attributes = None
    body: Any = None
    resource: Holder | None = None


class ScopeSpans(msgspec.Struct, gc=False):
    """Spans of one instrumentation scope."""

    scope: Holder | None = None
    spans: list[Span] | None = None


class ScopeLogs(msgspec.Struct, gc=False):
    """Log records of one instrumentation scope."""

    scope: Holder | None = None
    logRecords: list[LogRecord] | None = None


class ResourceSpans(msgspec.Struct, gc=False):
    """Spans of one resource (``instrumentationLibrarySpans`` before OTLP 0.15)."""

    resource: Holder | None = None
    scopeSpans: list[ScopeSpans] | None = None
    instrumentationLibrarySpans: list[ScopeSpans] | None = None


class ResourceLogs(msgspec.Struct, gc=False):
    """Log records of one resource."""

    resource: Holder | None = None
    scopeLogs: list[ScopeLogs] | None = None


class Export(msgspec.Struct, gc=False):
    """ExportTraceServiceRequest or ExportLogsServiceRequest."""

    resourceSpans: list[ResourceSpans] | None = None
    resourceLogs: list[ResourceLogs] | None = None
    resourceMetrics: list[Any] | None = None


def attributes_of(attributes: Attributes) -> dict[str, Any]:
    """Attributes as a plain dict; the last of equal keys wins, as in every OTLP reader."""
    if isinstance(attributes, dict):
        return attributes
    return {item.key: plain(item.value) for item in attributes or () if item.value is not None}


def plain(value: AnyValue | None, depth: int = 0) -> Any:
    """One value as str, int, float, bool, list or dict; None for bytes, for nothing, and below 32 levels."""
    if value is None or depth > _MAX_DEPTH:
        return None
    if value.stringValue is not None:
        return value.stringValue
    if value.intValue is not None:
        return whole(value.intValue)
    if value.boolValue is not None:
        return value.boolValue
    if value.doubleValue is not None:
        return value.doubleValue if isinstance(value.doubleValue, float) else None  # "NaN", "Infinity"
    if value.arrayValue is not None:
        return [plain(item, depth + 1) for item in value.arrayValue.values or ()]
    if value.kvlistValue is not None:
        return {item.key: plain(item.value, depth + 1) for item in value.kvlistValue.values or ()}
    return None


def body_of(body: Any) -> Any:
    """A log body: an OTLP value (exporters), or plain JSON (stores that flatten)."""
    if isinstance(body, dict) and len(body) == 1 and next(iter(body)) in AnyValue.__struct_fields__:
        try:
            return plain(msgspec.convert(body, AnyValue))
        except (msgspec.ValidationError, RecursionError):
            return None
    return body


def whole(value: object) -> int | None:
    """A 64-bit integer, given as number or as text; None for everything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        text = value.strip()
        digits = text.removeprefix("-")
        return int(text) if 0 < len(digits) < 20 and digits.isascii() and digits.isdigit() else None
    if isinstance(value, float):
        return int(value) if -9e18 < value < 9e18 else None
    return value if isinstance(value, int) and -(1 << 63) <= value < 1 << 63 else None


@lru_cache(maxsize=4096)
def identifier(text: str, size: int) -> str:
    """A trace (16 bytes) or span (8 bytes) id as lower-case hex; empty when it is none or all zero."""
    value = text.strip().removeprefix("0x")
    if len(value) != size * 2:
        try:
            decoded = b64decode(value + "=" * (-len(value) % 4), validate=True)
        except ValueError:
            return ""
        value = decoded.hex() if len(decoded) == size else ""
    value = value.lower()
    try:
        return value if int(value or "0", 16) and value.isalnum() else ""
    except ValueError:
        return ""
