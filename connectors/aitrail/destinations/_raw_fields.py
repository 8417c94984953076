"""The fields of canonical bytes as raw JSON: what destinations build their own documents from.

Documents are made by filling the holes of a template with these pieces; a template depends on which fields are there,
and few combinations exist, so it is made once and kept.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec

from aitrail.event import AccessEvent, decode, encode
from aitrail.ports import EncodedEvent
from aitrail.schema.catalog import fields as catalog
from aitrail.streams import decoded as decoded_record
from aitrail.streams import encoded as encoded_record

# Reason code of an event whose bytes are no AccessEvent: it is rejected, the rest of its batch goes on.
UNENCODABLE_CODE = "unencodable"

Fields = dict[str, msgspec.Raw]
Shape = tuple[str, ...]

split: Callable[[bytes], Fields] = msgspec.json.Decoder(Fields).decode
_NONE = msgspec.Raw()
_FIRST = b'{"event_id":'


@cache
def _texts() -> tuple[Callable[[bytes], Any], tuple[tuple[str, bytes], ...]]:
    """A decoder of nothing but the free texts, and how each stands in canonical bytes, in catalog order."""
    names = [field.name for field in catalog() if field.kind == "text"]
    kind = msgspec.defstruct("Texts", [(name, msgspec.Raw, _NONE) for name in names], gc=False)
    return msgspec.json.Decoder(kind).decode, tuple((name, b',"%s":' % name.encode()) for name in names)


def texts_last(body: bytes) -> bytes:
    """Give canonical bytes with the free texts (prompt, response) behind all other fields; the same JSON object.

    Bytes that are no canonical event come back as they are. Raises ``msgspec.MsgspecError`` for what is
    not one JSON object.
    """
    decode_texts, keys = _texts()
    found = decode_texts(body)
    moved = []
    rest = body
    for name, key in keys:
        value = bytes(getattr(found, name))
        if not value:
            continue
        # A key with its comma stands never inside a string of JSON, where its quotes would be escaped; a second one
        # is none of an event's.
        start = rest.find(key)
        end = start + len(key) + len(value)
        if start < 0 or not rest.startswith(value, start + len(key)) or rest.find(key, end) >= 0:
            return body
        moved.append(rest[start:end])
        rest = rest[:start] + rest[end:]
    if not moved or rest[:12] != _FIRST or rest[-1:] != b"}":
        return body
    return b"".join((rest[:-1], *moved, b"}"))


class Unencodable(ValueError):  # noqa: N818 - a state of the event, not of the program
    """The bytes are no AccessEvent; the message holds nothing of them."""


def raw_fields(event: EncodedEvent) -> tuple[AccessEvent, Fields]:
    """Give the event, and its fields as raw JSON; unknown fields may be among them.

    Promised of the raw values of known fields: valid JSON of the declared type, in UTF-8, without a line break.

    Raises:
        Unencodable: the bytes are no AccessEvent, or one of another identity.
    """
    body = event.body
    try:
        decoded = decode(body)
        # Canonical bytes have no line break; others are written anew.
        if b"\n" in body:
            body = encode(decoded)
        fields = split(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise Unencodable(UNENCODABLE_CODE) from None
    if decoded.event_id != event.event_id:
        raise Unencodable(UNENCODABLE_CODE)
    return decoded, fields


def record_fields(event: EncodedEvent) -> Fields:
    """Give the fields of a finding, a health record or a checkpoint as raw JSON, without ``stream``.

    Raises:
        Unencodable: the bytes are no such record, or one of another identity.
    """
    try:
        # Written anew: only known fields, of the declared type, without a line break.
        fields = split(encoded_record(decoded_record(event)).body)
    except ValueError:
        raise Unencodable(UNENCODABLE_CODE) from None
    del fields["stream"]
    return fields
