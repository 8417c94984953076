"""What a CloudWatch Logs subscription filter pushes, as records; pure, for every way on which it may arrive.

The payload is gzip (base64 around it in Lambda's ``awslogs.data`` and in Kinesis records) of one JSON object with
``messageType`` DATA_MESSAGE or CONTROL_MESSAGE (a probe without records). Source: CloudWatch Logs user guide, "Using
CloudWatch Logs subscription filters".
"""

import base64
import binascii
import zlib
from typing import Any

import msgspec
from msgspec import Struct

from aitrail.errors import CorruptInputError
from aitrail.ports import RawRecord
from aitrail.sources._aws_windows import number_of

_MOST_BYTES = 64 << 20  # decompressed; Lambda and Kinesis carry 6 MB and 1 MB, packed at most 10 to 20 times


class Pushed(Struct, frozen=True):
    """One payload: who owns the log, where it was written, and its events as records.

    ``position`` of a record is its time in milliseconds, ``index`` a number derived from its id.
    """

    owner: str
    group: str
    stream: str
    records: list[RawRecord]

    @property
    def origin(self) -> str:
        """Where the events are from."""
        return f"cloudwatch://{self.owner}/{self.group}"


class _Event(Struct, gc=False):
    id: str
    timestamp: int
    message: str


class _Payload(Struct, rename="camel", gc=False):
    message_type: str
    owner: str = ""
    log_group: str = ""
    log_stream: str = ""
    log_events: list[Any] = []


_decode = msgspec.json.Decoder(_Payload).decode


def pushed(payload: bytes | str) -> Pushed:
    """Read one payload, with or without base64 around it; a control message gives no records.

    Raises:
        CorruptInputError: it is not base64, gzip or JSON of this form, or too large.
    """
    data = _gzip(payload)
    member = zlib.decompressobj(wbits=31)
    try:
        text = member.decompress(data, _MOST_BYTES)
    except zlib.error:
        raise CorruptInputError("gzip_corrupt") from None
    if member.unconsumed_tail:
        raise CorruptInputError("bomb_size")
    if not member.eof:
        raise CorruptInputError("gzip_truncated")
    try:
        found = _decode(text)
    except (msgspec.DecodeError, RecursionError, ValueError):
        raise CorruptInputError("json_invalid") from None
    if found.message_type not in ("DATA_MESSAGE", "CONTROL_MESSAGE"):
        raise CorruptInputError("message_unknown")
    events = found.log_events if found.message_type == "DATA_MESSAGE" else []
    records = [_record(place, event) for place, event in enumerate(events)]
    return Pushed(found.owner, found.log_group, found.log_stream, records)


def _record(place: int, event: Any) -> RawRecord:
    try:
        one = msgspec.convert(event, _Event)
    except msgspec.ValidationError:
        return RawRecord(b"", 0, place, 0, "field_type")
    data = one.message.encode("utf-8", "surrogatepass")
    return RawRecord(data, one.timestamp, number_of(one.id), one.timestamp)


def _gzip(payload: bytes | str) -> bytes:
    data = payload.encode("ascii", "replace") if isinstance(payload, str) else payload
    if data.startswith(b"\x1f\x8b"):
        return data
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error:
        raise CorruptInputError("gzip_corrupt", "neither gzip nor base64") from None
