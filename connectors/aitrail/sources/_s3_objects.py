"""S3 objects as text: streamed, never on disk, resumed when the connection breaks, small ones fetched ahead.

An object is its key and its ETag: a request for the rest of it names the ETag, so that an object that is replaced
while it is read is never mixed with its successor.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import botocore.exceptions
import urllib3.exceptions
from msgspec import Struct

from aitrail.errors import AuthError, CorruptInputError, TransientError
from aitrail.ports import RawRecord
from aitrail.printing import printable
from aitrail.sources._aws_calls import Aws, Refused
from aitrail.sources._caps import Caps
from aitrail.sources._framing import Framer
from aitrail.sources._inflate import detect, open_text, refused, skip
from aitrail.sources._meter import Meter
from aitrail.sources._reading import _Batcher, _Prose

GONE = frozenset({"NoSuchKey", "404", "NotFound", "NoSuchVersion"})
_CHANGED = frozenset({"PreconditionFailed", "412"})
_BROKEN: tuple[type[Exception], ...] = (
    botocore.exceptions.ReadTimeoutError,
    botocore.exceptions.ResponseStreamingError,
    botocore.exceptions.IncompleteReadError,
    botocore.exceptions.ConnectionClosedError,
    urllib3.exceptions.HTTPError,
    OSError,
)
_SMALL = 4 << 20
_PIECE = 256 << 10
_RESUMES = 5


class S3Object(Struct, frozen=True, gc=False):
    """One object: ``size`` in bytes and ``modified`` in epoch seconds, 0 when not known; ``etag`` without quotes."""

    bucket: str
    key: str
    etag: str = ""
    size: int = 0
    modified: float = 0.0

    @property
    def origin(self) -> str:
        """Its URL."""
        return f"s3://{self.bucket}/{self.key}"

    @property
    def arn(self) -> str:
        """Its ARN, as permissions name it; printable, for errors only."""
        return printable(f"arn:aws:s3:::{self.bucket}/{self.key}")


class Gone(Exception):  # noqa: N818 - an answer, not a failure
    """The object is not there any more."""


class Body:
    """The stored bytes of one object; what ``_inflate`` reads from. Breaks in the connection are healed here."""

    def __init__(self, aws: Aws, region: str, wanted: S3Object, *, whole: bool = False) -> None:
        """Ask for the object; raises ``Gone``, ``AuthError`` or ``TransientError``.

        Args:
            aws: whose calls.
            region: the bucket's region.
            wanted: the object; with an ``etag`` only that version of it.
            whole: read it into memory now, when it is small.
        """
        self._aws = aws
        self._region = region
        self._wanted = wanted
        self.position = 0
        self._ahead = b""
        self._resumes = 0
        self._taken = 0
        answer = self._get({})
        self.etag = str(answer.get("ETag", "")).strip('"')
        self.size = int(answer.get("ContentLength", 0))
        modified = answer.get("LastModified")
        self.modified = modified.timestamp() if modified is not None else 0.0
        self.metadata: dict[str, str] = dict(answer.get("Metadata", {}))
        self._stream: Any = answer["Body"]
        if whole and self.size <= _SMALL:
            self._ahead = self._rest()

    def read(self, count: int) -> bytes:
        """Return up to ``count`` bytes; empty at the end."""
        if self._ahead:
            data, self._ahead = self._ahead[:count], self._ahead[count:]
        else:
            data = self._pull(count)
        self.position += len(data)
        return data

    def peek(self, count: int = 8) -> bytes:
        """Return the next ``count`` bytes (fewer only at the end) and leave them there."""
        while len(self._ahead) < count:
            more = self._pull(_PIECE)
            if not more:
                break
            self._ahead += more
        return self._ahead[:count]

    def close(self) -> None:
        """Give the connection back."""
        self._stream.close()

    def _rest(self) -> bytes:
        pieces = []
        while piece := self._pull(_PIECE):
            pieces.append(piece)
        self.close()
        return b"".join(pieces)

    def _pull(self, count: int) -> bytes:
        while True:
            try:
                data = bytes(self._stream.read(count)) if self._taken < self.size else b""
                if not data and self._taken < self.size:
                    raise OSError("ended early")
            except _BROKEN as error:
                self._resumes += 1
                if self._resumes > _RESUMES:
                    raise TransientError(
                        f"{self._wanted.arn}: the connection broke {_RESUMES} times ({type(error).__name__})"
                    ) from None
                self._stream.close()
                self._stream = self._get({"Range": f"bytes={self._taken}-", "IfMatch": f'"{self.etag}"'})["Body"]
                continue
            self._taken += len(data)
            return data

    def _get(self, more: dict[str, Any]) -> Any:
        wanted = self._wanted
        if wanted.etag and "IfMatch" not in more:
            more = {**more, "IfMatch": f'"{wanted.etag}"'}
        try:
            return self._aws.call(
                "s3", self._region, "get_object", wanted.arn, expect=GONE | _CHANGED, Bucket=wanted.bucket,
                Key=wanted.key, **more,
            )  # fmt: skip
        except Refused as error:
            if error.code in GONE:
                raise Gone from None
            raise TransientError(f"{wanted.arn}: was replaced while it was read; read again next time") from None


class Place(Struct, frozen=True):
    """Where reading of a text stands (see ``_framing.Run.resume``)."""

    offset: int = 0
    skip: int = 0
    index: int = 0


class Piece(Struct):
    """Records of an object, where to go on behind them, stored bytes they took, and whether the object ends here."""

    records: list[RawRecord]
    place: Place
    bytes_read: int
    last: bool = False


def read_object(body: Body, caps: Caps, meter: Meter, start: Place | None = None) -> Iterator[Piece]:
    """Yield the records of ``body`` behind ``start``; always ends with a piece whose ``last`` is set.

    Damage is a record with an ``error`` at the end. An object is complete when it is there, so a torn end is one too.
    Plain text is one error for the object, as in files.
    """
    place = start or Place()
    known = refused(body.peek())
    if known is not None:
        code = "utf8_invalid" if known[0] == "UTF-16" else "json_invalid"
        yield Piece([RawRecord(b"", 0, 0, body.size, code)], place, body.size, last=True)
        return
    text = open_text(body, detect(body.peek()), caps)
    framer = Framer(caps, offset=place.offset, index=place.index, skip=place.skip)
    batcher = _Batcher(place.offset, place.skip, place.index)
    counted = 0

    def close(*, last: bool = False) -> Piece:
        nonlocal counted
        before, counted = counted, body.position
        at = Place(batcher.offset, batcher.skip, batcher.index)
        return Piece(batcher.take(), at, counted - before, last)

    prose = _Prose("", place.index, fresh=place == Place())
    fault = ""
    try:
        data = skip(text, place.offset) or text.read()
        while data and not prose.hopeless:
            for _ in batcher.add(prose.sift(framer.feed(data), batcher), meter):
                yield close()
            data = text.read()
    except CorruptInputError as error:
        fault = error.code
    if not prose.hopeless:
        runs, tail = framer.finish()
        for _ in batcher.add(prose.sift(runs, batcher), meter):
            yield close()
        if tail.kind and not prose.is_plain(tail.kind, framer.first_of(tail)):
            fault = fault or "record_torn"
            text_end = max(tail.position, text.offset)
            batcher.records.append(RawRecord(b"", tail.position, framer.index, text_end, fault))
        elif fault:
            batcher.records.append(RawRecord(b"", text.offset, framer.index, text.offset, fault))
    if prose.fault:
        prose.tell(batcher, text.offset)
    yield close(last=True)


Opened = Body | Gone | AuthError | TransientError


class ReadAhead:
    """Opens objects in their order, a few at a time: a bucket answers in tens of milliseconds, whatever the size."""

    def __init__(self, aws: Aws, region: Callable[[S3Object], str], depth: int) -> None:
        self._aws = aws
        self._region = region
        self._depth = depth

    def opened(self, objects: Iterable[S3Object]) -> Iterator[tuple[S3Object, Opened]]:
        """Yield each object with its body, or with what went wrong."""
        waiting: deque[tuple[S3Object, Future[Opened]]] = deque()
        with ThreadPoolExecutor(self._depth, thread_name_prefix="aitrail-s3") as pool:
            try:
                for one in objects:
                    waiting.append((one, pool.submit(self.open, one)))
                    if len(waiting) > self._depth:
                        first, future = waiting.popleft()
                        yield first, future.result()
                while waiting:
                    first, future = waiting.popleft()
                    yield first, future.result()
            finally:
                for _, future in waiting:
                    future.cancel()
                    future.add_done_callback(_let_go)

    def open(self, one: S3Object) -> Opened:
        """Open one object; small ones are in memory then."""
        try:
            return Body(self._aws, self._region(one), one, whole=True)
        except (Gone, AuthError, TransientError) as error:
            return error


def _let_go(future: "Future[Opened]") -> None:
    """Close what was opened ahead and is not wanted any more."""
    if not future.cancelled() and future.exception() is None:
        opened = future.result()
        if isinstance(opened, Body):
            opened.close()
