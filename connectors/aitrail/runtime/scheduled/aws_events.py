"""What AWS hands to a function, told by its shape; pure, but for the objects that a message names.

Shapes: Lambda developer guide, "Using AWS Lambda with Amazon SQS / Kinesis / CloudWatch Logs / SNS / S3"; EventBridge
user guide, "Events from AWS services"; Lambda developer guide, "Capturing records of asynchronous invocations" (what
lies in a failure destination is a whole event again, in ``requestPayload``).
"""

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from aitrail.errors import CorruptInputError, TransientError
from aitrail.ports import RawBatch, RawRecord
from aitrail.printing import printable
from aitrail.runtime.scheduled.direct import Item
from aitrail.sources._s3_messages import told
from aitrail.sources._s3_objects import S3Object
from aitrail.sources.cloudwatch_subscription import Pushed, pushed
from aitrail.sources.sqs_messages import records_of, unwrapped

Kind = Literal["poll", "queue", "stream", "logs", "urgent", "objects", "nothing", "unknown"]
# How an invocation of each kind is told what is not settled: by a list of items, by an error, or not at all (poll).
BY_ITEMS: frozenset[Kind] = frozenset({"queue", "stream"})

_encode = msgspec.json.Encoder().encode
_RECORDS: Mapping[str, Kind] = {
    "aws:sqs": "queue",
    "aws:kinesis": "stream",
    "aws:sns": "objects",
    "aws:s3": "objects",
}
_MOST_DEEP = 3

Objects = Callable[[S3Object], Iterator[RawBatch]]


class Event(Struct, frozen=True):
    """An event: what it is, and its body without what was put around it."""

    kind: Kind
    body: Any = None


def told_apart(event: Any) -> Event:
    """Say what an event is; total."""
    for _ in range(_MOST_DEEP):
        if isinstance(event, dict) and "requestPayload" in event and "requestContext" in event:
            event = event["requestPayload"]  # sent again by hand, from the failure destination
    if not event or not isinstance(event, dict):
        return Event("nothing" if not event else "unknown", event)
    if isinstance(event.get("awslogs"), dict):
        return Event("logs", event)
    records = event.get("Records")
    if isinstance(records, list):
        return Event(_of_records(records), event)
    if event.get("aitrail") == "poll" or (event.get("detail-type") == "Scheduled Event"):
        return Event("poll", event)
    if isinstance(event.get("detail-type"), str) and isinstance(event.get("detail"), dict):
        return Event("urgent" if "via CloudTrail" in event["detail-type"] else "objects", event)
    if event.get("Event") == "s3:TestEvent":
        return Event("nothing", event)
    return Event("unknown", event)


def _of_records(records: list[Any]) -> Kind:
    if not records:
        return "nothing"
    first = records[0]
    if not isinstance(first, dict):
        return "unknown"
    return _RECORDS.get(str(first.get("eventSource") or first.get("EventSource")), "unknown")


class Reader:
    """Turns an event's parts into items.

    Args:
        objects: reads an object.
        buckets: from which objects may be read.
        prefixes: keys that are read start with one of these; empty: all.
        note: is told what was left out, one sentence each.
        resolve: puts offloaded bodies back into records of a log.
        now: epoch seconds.
    """

    def __init__(
        self,
        objects: Objects,
        buckets: Sequence[str],
        prefixes: tuple[str, ...],
        note: Callable[[str], None],
        resolve: Callable[[list[RawRecord]], list[RawRecord]],
        now: Callable[[], float],
    ) -> None:
        self._objects = objects
        self._buckets = frozenset(buckets)
        self._prefixes = prefixes
        self._note = note
        self._resolve = resolve
        self._now = now

    def items(self, event: Event) -> list[Item]:
        """What the event holds, in its order; nothing is read before it is asked for."""
        make: Mapping[str, Callable[[Any], list[Item]]] = {
            "queue": self._queue,
            "stream": self._stream,
            "logs": lambda body: [Item("logs", self._logs(body["awslogs"].get("data"), "cloudwatch://unknown"))],
            "urgent": lambda body: [Item("event", self._urgent(body))],
            "objects": self._notified,
        }
        return make[event.kind](event.body)

    def _queue(self, body: Any) -> list[Item]:
        items = []
        for number, record in enumerate(body["Records"]):
            one = record if isinstance(record, dict) else {}
            ident = str(one.get("messageId") or number)
            place = f"sqs://{_queue_of(one)}/{printable(ident)}"
            items.append(Item(ident, self._message(str(one.get("body") or ""), place)))
        return items

    def _notified(self, body: Any) -> list[Item]:
        """Notifications without a queue between: of SNS, S3 itself or EventBridge."""
        records = body.get("Records")
        if isinstance(records, list) and records[0].get("EventSource") == "aws:sns":
            texts = [str((one.get("Sns") or {}).get("Message") or "") for one in records if isinstance(one, dict)]
        else:
            texts = [_encode(body).decode()]
        return [Item(str(number), self._message(text, f"notification://{number}")) for number, text in enumerate(texts)]

    def _message(self, body: str, place: str) -> Iterator[RawBatch]:
        """The objects that a message tells of, or the records that it is."""
        said = told(body)
        if said.known:
            for one in said.objects:
                if one.bucket not in self._buckets:
                    self._note(f"s3://{one.bucket}: told of, but not among the buckets that may be read")
                    yield self._error(one.origin, "object_foreign")
                elif not self._prefixes or one.key.startswith(self._prefixes):
                    yield from self._objects(one)
            return
        text = body.encode("utf-8", "surrogatepass")
        if unwrapped(text) == text:
            self._note(f"{place}: a message of no known form")
            yield self._error(place, "message_unknown")
            return
        yield RawBatch(place, records_of(body), "", b"", bytes_read=len(text), newest=self._now(), settled=True)

    def _stream(self, body: Any) -> list[Item]:
        items = []
        for number, record in enumerate(body["Records"]):
            one = record.get("kinesis") if isinstance(record, dict) else None
            one = one if isinstance(one, dict) else {}
            ident = str(one.get("sequenceNumber") or number)
            items.append(Item(ident, self._piece(one.get("data"), f"kinesis://{printable(ident)}")))
        return items

    def _piece(self, data: Any, place: str) -> Iterator[RawBatch]:
        """One record of a stream: what a subscription filter put there, or records as text."""
        try:
            text = base64.b64decode(data if isinstance(data, str) else "", validate=True)
        except (binascii.Error, ValueError):
            yield self._error(place, "message_unknown")
            return
        if text.startswith(b"\x1f\x8b"):
            yield from self._logs(text, place)
        else:
            records = records_of(text.decode("utf-8", "surrogateescape")) if text else []
            yield RawBatch(place, records, "", b"", bytes_read=len(text), newest=self._now(), settled=True)

    def _logs(self, data: Any, place: str) -> Iterator[RawBatch]:
        """What a subscription filter pushed."""
        try:
            found: Pushed = pushed(data if isinstance(data, bytes | str) else b"")
        except CorruptInputError as error:
            self._note(f"{place}: a payload of CloudWatch Logs is damaged ({error.code})")
            yield self._error(place, error.code)
            return
        records = self._resolve(found.records)
        origin = f"cloudwatch://{printable(found.owner)}/{printable(found.group)}"
        yield RawBatch(origin, records, "", b"", bytes_read=len(data), newest=self._now(), settled=True)

    def _urgent(self, body: Any) -> Iterator[RawBatch]:
        """A management event that EventBridge delivers itself: its detail is CloudTrail's record."""
        place = f"eventbridge://{printable(str(body.get('account', '')))}/{printable(str(body.get('region', '')))}"
        record = RawRecord(_encode(body["detail"]))
        yield RawBatch(
            place, [record], "", b"", bytes_read=len(record.data), newest=self._now(), settled=True,
            record_type="cloudtrail",
        )  # fmt: skip

    def _error(self, place: str, code: str) -> RawBatch:
        return RawBatch(place, [RawRecord(b"", 0, 0, 0, code)], "", b"", newest=self._now(), settled=True)


def _queue_of(record: dict[str, Any]) -> str:
    """Region and name of a message's queue."""
    parts = str(record.get("eventSourceARN") or "").split(":")
    return f"{printable(parts[3])}/{printable(parts[5])}" if len(parts) > 5 else "unknown"


def answer(kind: Kind, given_back: Sequence[str], handed: Sequence[Item]) -> dict[str, Any]:
    """What the platform is told: of a stream, the first record that has to come again, and with it all behind it."""
    if kind == "stream" and given_back:
        back = set(given_back)
        given_back = [next(item.key for item in handed if item.key in back)]
    return {"batchItemFailures": [{"itemIdentifier": key} for key in given_back]}


class GivenBackError(TransientError):
    """Something of an event that is not asked about item by item is not settled: the platform has to send it again."""
