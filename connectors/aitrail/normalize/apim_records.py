"""Rows of API Management's two logs, in both forms, under one set of names (see ``normalize.apim``). Pure and total."""

from typing import Any, Literal, cast

import msgspec

from aitrail.normalize.azure_common import Number
from aitrail.normalize.common import decode, has_duplicate_key
from aitrail.normalize.outcome import Rejected

SOURCE = "apim"
Text = str | None
Headers = dict[str, Any] | str | None
_NOTHING = msgspec.Raw(b"")


class _LastError(msgspec.Struct, gc=False):
    source: Text = None
    reason: Text = None


class Row(msgspec.Struct, gc=False):
    """What both logs say, under one name each; ``_Camel`` and ``_Pascal`` spell it as the two forms do."""

    api_id: Text = None
    apim_subscription_id: Text = None
    backend_request_body: Any = None
    backend_request_headers: Headers = None
    backend_response_body: Any = None
    backend_response_headers: Headers = None
    backend_url: Text = None
    caller_ip_address: Text = None
    category: Text = None
    completion_tokens: Number = None
    correlation_id: Text = None
    deployment_name: Text = None
    is_request_success: bool | None = None
    last_error: _LastError | None = None
    last_error_reason: Text = None
    last_error_source: Text = None
    model_name: Text = None
    operation_id: Text = None
    operation_name: Text = None
    product_id: Text = None
    prompt_cached_tokens: Number = None
    prompt_tokens: Number = None
    region: Text = None
    request_body: Any = None
    request_headers: Headers = None
    request_id: Text = None
    request_messages: msgspec.Raw = _NOTHING
    response_body: Any = None
    response_code: Number = None
    response_headers: Headers = None
    response_messages: msgspec.Raw = _NOTHING
    sequence_number: Number = None
    time_generated: Text = None
    total_time: Number = None
    total_tokens: Number = None
    type: Text = None
    url: Text = None
    user_id: Text = None


def _spelled(rename: Literal["camel", "pascal"], **more: str) -> type[Row]:
    """The same fields under another spelling of the keys."""
    fields = [(field.name, field.type, field.default) for field in msgspec.structs.fields(Row)]
    extra = [(name, Text, msgspec.field(name=key, default=None)) for name, key in more.items()]
    made = msgspec.defstruct(f"_{rename}", [*fields, *extra], bases=(Row,), rename=rename, gc=False)
    return cast("type[Row]", made)


_Camel = _spelled("camel")
_Pascal = _spelled("pascal", resource_id="_ResourceId")


class _Record(msgspec.Struct, gc=False, rename="camel"):
    time: Text = None
    category: Text = None
    caller_ip_address: Text = None
    correlation_id: Text = None
    duration_ms: Number = None
    is_request_success: bool | None = None
    location: Text = None
    resource_id: Text = None
    properties: msgspec.Raw = _NOTHING


_record = msgspec.json.Decoder(_Record)
_camel: msgspec.json.Decoder[Row] = msgspec.json.Decoder(_Camel)
_pascal: msgspec.json.Decoder[Row] = msgspec.json.Decoder(_Pascal)
_text = msgspec.json.Decoder(str)
# Who made the call: keys about which two parsers must not disagree.
_KEYS = (b'"callerIpAddress"', b'"apimSubscriptionId"')
_COLUMN_KEYS = (b'"CallerIpAddress"', b'"ApimSubscriptionId"')


def read_row(raw: bytes) -> tuple[Row, str] | Rejected:
    """The row and the id of the gateway resource, from either form."""
    record = decode(_record, raw, SOURCE)
    if isinstance(record, Rejected):
        return record
    if record.category is None:
        row = decode(_pascal, raw, SOURCE)
        if isinstance(row, Rejected):
            return row
        if has_duplicate_key(raw, _COLUMN_KEYS):
            return Rejected("json_duplicate_key", "", SOURCE)
        return row, getattr(row, "resource_id", None) or ""
    if has_duplicate_key(raw, _KEYS):
        return Rejected("json_duplicate_key", "", SOURCE)
    row = _properties(bytes(record.properties))
    if isinstance(row, Rejected):
        row.field = f"properties.{row.field}" if row.field else "properties"
        return row
    row.category = record.category
    row.time_generated = record.time
    row.correlation_id = record.correlation_id or row.correlation_id
    row.caller_ip_address = record.caller_ip_address or row.caller_ip_address
    row.total_time = record.duration_ms if record.duration_ms is not None else row.total_time
    row.region = record.location or row.region
    if row.is_request_success is None:
        row.is_request_success = record.is_request_success
    return row, record.resource_id or ""


def _properties(data: bytes) -> Row | Rejected:
    """``properties``: an object, or its JSON text."""
    if data[:1] == b'"':
        text = decode(_text, data, SOURCE)
        if isinstance(text, Rejected):
            return text
        data = text.encode()
    return decode(_camel, b"{}" if data in (b"", b"null") else data, SOURCE)


def piece_of(value: msgspec.Raw) -> str:
    """Messages as a piece of JSON text: a string is the piece itself, an array is its own text; empty for none."""
    data = bytes(value)
    if data[:1] == b'"':
        text = decode(_text, data, SOURCE)
        return text if isinstance(text, str) else data.decode("utf-8", "replace")
    return "" if data in (b"", b"null", b"[]") else data.decode("utf-8", "replace")
