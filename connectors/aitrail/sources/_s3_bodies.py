"""Offloaded bodies of Bedrock invocation logs, put back into their records.

Bedrock writes a body above 100 kB beside the log and only names it (``inputBodyS3Path``). That path is text of the
log's writer, so it is followed only into buckets that the settings allow, only to where Bedrock puts bodies, and only
up to a size. What is resolved stands in the record as if it had been logged inline, and its path is taken out; what is
not keeps its path, and the event says ``body_offloaded``.
"""

from collections.abc import Callable, Sequence

import msgspec
from msgspec import Raw

from aitrail.errors import AuthError, CorruptInputError
from aitrail.ports import RawRecord
from aitrail.sources._aws_calls import Aws
from aitrail.sources._caps import Caps
from aitrail.sources._inflate import detect, open_text
from aitrail.sources._s3_keys import is_body
from aitrail.sources._s3_objects import Body, Gone, S3Object

_HINT = b'BodyS3Path"'
_SIDES = (("input", "inputBodyS3Path", "inputBodyJson"), ("output", "outputBodyS3Path", "outputBodyJson"))
_keys = msgspec.json.Decoder(dict[str, Raw]).decode
_text = msgspec.json.Decoder(str).decode
_raw = msgspec.json.Decoder(Raw).decode
_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Bodies:
    """Fetches bodies; ``note`` is told which stay where they are, and why."""

    def __init__(
        self, aws: Aws, region: str, buckets: Sequence[str], most_bytes: int, note: Callable[[str], None]
    ) -> None:
        self._aws = aws
        self._region = region
        self._buckets = frozenset(buckets)
        self._most = most_bytes
        self._note = note

    def resolve(self, records: list[RawRecord]) -> list[RawRecord]:
        """Give the records with their bodies in place; raises ``TransientError``: read the object again later."""
        if not self._buckets or not any(_HINT in record.data for record in records):
            return records
        return [
            msgspec.structs.replace(record, data=self.filled(record.data)) if _HINT in record.data else record
            for record in records
        ]

    def filled(self, data: bytes) -> bytes:
        """One record with its bodies; as it was when it is of another form."""
        try:
            record = _keys(data)
            changed = [self._side(record, *names) for names in _SIDES]
        except (msgspec.DecodeError, RecursionError, ValueError):
            return data
        return _encode(record) if any(changed) else data

    def _side(self, record: dict[str, Raw], side: str, path: str, body: str) -> bool:
        if side not in record:
            return False
        inner = _keys(record[side])
        if path not in inner or bytes(inner.get(body, b"null")) != b"null":
            return False
        found = self._fetch(_text(inner[path]))
        if found is None:
            return False
        del inner[path]
        inner[body] = found
        record[side] = Raw(_encode(inner))
        return True

    def _fetch(self, url: str) -> Raw | None:
        bucket, slash, key = url.removeprefix("s3://").partition("/")
        if not url.startswith("s3://") or not slash or bucket not in self._buckets or not is_body(key):
            self._note("an offloaded body is not in body_buckets; its record keeps the path only")
            return None
        try:
            body = Body(self._aws, self._region, S3Object(bucket, key))
        except Gone:
            self._note("an offloaded body is gone; its record keeps the path only")
            return None
        except AuthError as error:
            self._note(f"an offloaded body is not readable ({error.hint or error}); its record keeps the path only")
            return None
        try:
            text = self._read(body)
        except CorruptInputError:
            text = b""
        finally:
            body.close()
        if not text:
            self._note("an offloaded body is larger than body_bytes, or damaged; its record keeps the path only")
            return None
        return _as_json(text)

    def _read(self, body: Body) -> bytes:
        """The text, empty when it is too large."""
        caps = Caps(text_bytes=self._most)
        text = open_text(body, detect(body.peek()), caps)
        pieces, size = [], 0
        while piece := text.read():
            size += len(piece)
            if size > self._most:
                return b""
            pieces.append(piece)
        return b"".join(pieces)


def _as_json(text: bytes) -> Raw | None:
    """The body as one JSON value; chunks of a stream may stand one to a line."""
    text = text.strip()
    for candidate in (text, b"[" + b",".join(line for line in text.splitlines() if line.strip()) + b"]"):
        try:
            _any(candidate)
            return Raw(bytes(_raw(candidate)))
        except (msgspec.DecodeError, RecursionError, ValueError):
            continue
    return None
