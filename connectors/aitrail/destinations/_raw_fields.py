"""The fields of canonical bytes as raw JSON: what destinations build their own documents from.

Documents are made by filling the holes of a template with these pieces; a template depends on which fields are there,
and few combinations exist, so it is made once and kept.
"""

from collections.abc import Callable

import msgspec

from aitrail.event import AccessEvent, decode, encode
from aitrail.ports import EncodedEvent
from aitrail.streams import decoded as decoded_record
from aitrail.streams import encoded as encoded_record

# Reason code of an event whose bytes are no AccessEvent: it is rejected, the rest of its batch goes on.
UNENCODABLE_CODE = "unencodable"

Fields = dict[str, msgspec.Raw]
Shape = tuple[str, ...]

split: Callable[[bytes], Fields] = msgspec.json.Decoder(Fields).decode


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
