"""A request's body: read with a cap and a time limit, unpacked with caps, cut into records.

Nothing here trusts a length that the sender names, and nothing of a body is in an error.
"""

import asyncio
import io
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import msgspec
from msgspec import Struct

from aitrail.errors import CorruptInputError
from aitrail.ports import RawRecord
from aitrail.sources._caps import HEAD_BYTES, MIB, Caps
from aitrail.sources._framing import Framer
from aitrail.sources._inflate import detect, open_text
from aitrail.web.auth import Refusal

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_ENCODINGS = {"": "plain", "identity": "plain", "gzip": "gzip", "x-gzip": "gzip", "zstd": "zstd"}
_BODY_ERRORS = {
    "gzip_corrupt": "the body is not the {encoding} stream that it says it is; send it again, or unpacked",
    "gzip_truncated": "the packed body ends too early; send it again whole",
    "bomb_ratio": "the body unpacks to more than {ratio} times its size; send it unpacked or in parts",
    "bomb_size": "the body unpacks to more than {text} MiB; send it in parts",
}
_ENVELOPES = (b'"Records"', b'"records"')
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
# What is unpacked on the event loop's own thread; more goes to another one, so that nobody else waits.
SMALL_BODY = 64 << 10


class Limits(Struct, frozen=True):
    """Bounds of one receiver: bytes as sent, bytes unpacked, unpacked per sent byte, seconds to read."""

    body: int
    text: int
    ratio: int
    seconds: float


class Gone(Exception):  # noqa: N818  (no error of ours: the sender hung up)
    """The sender went away in the middle of its body; nothing was taken."""


async def read_body(receive: Receive, headers: Mapping[str, str], limits: Limits) -> bytes | Refusal:
    """Read the body as it was sent.

    Raises:
        Gone: the sender hung up.
    """
    too_large = Refusal(
        413, "body_too_large", f"the body is larger than {limits.body >> 20} MiB; send it in parts, or packed"
    )
    named = headers.get("content-length", "")
    if named.isascii() and named.isdigit() and int(named[:20]) > limits.body:
        return too_large
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Gone
                part = message.get("body", b"")
                size += len(part)
                if size > limits.body:
                    return too_large
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts) if len(parts) > 1 else part
    except TimeoutError:
        return Refusal(408, "body_too_slow", f"the body took longer than {limits.seconds:g} s; nothing was taken")


def encoding_of(headers: Mapping[str, str]) -> str | Refusal:
    """How the body is packed: ``plain``, ``gzip`` or ``zstd``; one encoding at a time."""
    named = headers.get("content-encoding", "").strip().lower()
    encoding = _ENCODINGS.get(named)
    if encoding is None:
        return Refusal(415, "encoding_unknown", "send the body with Content-Encoding gzip or zstd, or plain")
    return encoding


def unpack(body: bytes, encoding: str, limits: Limits) -> bytes | Refusal:
    """Unpack ``body``; a packed body that nothing names as such (``.gz`` uploads) is told by its first bytes."""
    if encoding == "plain":
        encoding = detect(body[:8])
        if encoding == "plain":
            return body
    elif not body or detect(body[:8]) != encoding:
        return Refusal(400, "encoding_wrong", f"Content-Encoding says {encoding}, the body is something else")
    caps = Caps(text_bytes=limits.text, ratio=limits.ratio, ratio_after=MIB, window_bytes=8 * MIB)
    text = open_text(_Stored(body), encoding, caps)
    parts: list[bytes] = []
    try:
        while piece := text.read():
            parts.append(piece)
        too_large = text.offset > limits.text
    except CorruptInputError as error:
        status = 413 if error.code.startswith("bomb") else 400
        told = _BODY_ERRORS[error.code].format(encoding=encoding, ratio=limits.ratio, text=limits.text >> 20)
        return Refusal(status, error.code, told)
    if too_large:
        return Refusal(413, "bomb_size", _BODY_ERRORS["bomb_size"].format(text=limits.text >> 20))
    return b"".join(parts)


class _Stored:
    """A body in memory, read as stored bytes are."""

    def __init__(self, body: bytes) -> None:
        self._body = io.BytesIO(body)

    @property
    def position(self) -> int:
        return self._body.tell()

    def read(self, count: int) -> bytes:
        return self._body.read(count)


def records_of(text: bytes) -> list[RawRecord] | Refusal:
    """Cut a text into records: one object, an array, an envelope or JSON lines.

    A record that is broken in its own place stays among the others: the normalizer says why. A text without any JSON
    object, or one that ends in the middle, is refused whole: it did not arrive as it was meant.
    """
    plain = _plain(text)
    if plain is not None:
        return plain
    framer = Framer(Caps())
    runs = framer.feed(text)
    more, tail = framer.finish()
    records = [record for run in [*runs, *more] for record in run.records]
    if tail.kind:
        return Refusal(
            400,
            "json_torn",
            f"from byte {tail.position} on the body is no JSON object, array or JSON lines; nothing was taken",
        )
    if records and not any(map(_is_object, records)):
        return Refusal(400, "json_invalid", "no JSON object is in the body; send one, an array of them, or JSON lines")
    if not records and not text.strip():
        return Refusal(400, "body_empty", "the body is empty; send JSON objects")
    return records


def _plain(text: bytes) -> list[RawRecord] | None:
    """Records of what most senders post: one object that is no envelope, or an array of objects; None for all else."""
    if text[:1] == b"[":
        try:
            items = [bytes(item) for item in _items(text)]
        except (msgspec.DecodeError, RecursionError, ValueError):
            return None
        records, at = [], 0
        for index, item in enumerate(items):
            if item[:1] != b"{":
                return None
            at = text.find(item, at)
            records.append(RawRecord(item, at, index, at + len(item)))
            at += len(item)
        return records or None
    if text[:1] != b"{" or any(key in text[:HEAD_BYTES] for key in _ENVELOPES):
        return None
    try:
        _members(text)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return None
    return [RawRecord(text, end=len(text))]


def _is_object(record: RawRecord) -> bool:
    try:
        _members(record.data)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return False
    return True
