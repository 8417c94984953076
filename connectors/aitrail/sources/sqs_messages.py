"""The ``sqs`` source: messages of SQS queues that are records themselves.

Promise: a message is deleted only when every record in it is durable. A message holds one record, several (JSON lines,
an array, a ``Records`` envelope), or one of them in what AWS puts around it: SNS's notification, and EventBridge's
event "... via CloudTrail", whose ``detail`` is the record. A deleted message cannot be read again: what could not
become an event is a dead letter with its reason and its message's id.
"""

from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Raw

from aitrail.clock import Clock
from aitrail.errors import AuthError, TransientError
from aitrail.ports import Budget, Cursors, RawBatch, RawRecord, SecretResolver, Workload
from aitrail.sources._aws_calls import Access, Aws, finding
from aitrail.sources._aws_settings import SqsSettings
from aitrail.sources._framing import Framer
from aitrail.sources._meter import Meter
from aitrail.sources._sqs_queue import Message, Queue, acknowledge

_keys = msgspec.json.Decoder(dict[str, Raw]).decode
_text = msgspec.json.Decoder(str).decode


class SqsSource:
    """Reads records from queues; a ``ports.Source`` and ``ports.Acknowledging``."""

    def __init__(
        self, settings: SqsSettings, *, name: str, clock: Clock, key: bytes = b"", secrets: SecretResolver | None = None
    ) -> None:
        """Describe the source; nothing is called yet."""
        del key, secrets  # no content in cursors; AWS tools find credentials themselves
        self.name = name
        self._settings = settings
        self._clock = clock
        self._aws = Aws(Access.of(settings, settings.role_arn), clock)
        self._made: list[Queue] = []

    def survey(self, cursors: Cursors) -> Workload:
        """How many queues there are."""
        del cursors
        return Workload(len(self._settings.queue_urls), None)

    def fetch(self, cursors: Cursors, budget: Budget) -> Iterator[RawBatch]:
        """Yield one batch per message until the queues are empty.

        Raises:
            AuthError, TransientError: a queue could not be read; the others were.
        """
        del cursors
        meter = Meter(budget, self._clock)
        trouble: AuthError | TransientError | None = None
        for queue in self._queues():
            try:
                yield from self._drain(queue, meter)
            except (AuthError, TransientError) as error:
                trouble = trouble or error
        if trouble is not None:
            raise trouble

    def acknowledge(self, receipts: Sequence[str]) -> None:
        """Delete the messages whose records are durable."""
        acknowledge(self._queues(), receipts)

    def check(self) -> list[str]:
        """Say which permission is missing."""
        problems: list[str] = []
        with finding(problems):
            for queue in self._queues():
                with finding(problems):
                    problems += queue.problems()
        return problems

    def reread(self, origin: str, position: int, end: int, index: int) -> bytes | None:
        """A message that was deleted is gone."""
        del origin, position, end, index
        return None

    def close(self) -> None:
        """Give back connections."""
        self._aws.close()

    def _drain(self, queue: Queue, meter: Meter) -> Iterator[RawBatch]:
        wait = True
        while not meter.spent:
            messages = queue.receive(wait=wait)
            if not messages:
                return
            wait = False
            yield from self._messages(queue, messages, meter)

    def _messages(self, queue: Queue, messages: list[Message], meter: Meter) -> Iterator[RawBatch]:
        for message in messages:
            if meter.spent:
                queue.give_back(message)
                continue
            batch = self._batch(queue, message)
            meter.add(batch)
            yield batch
            queue.keep()

    def _batch(self, queue: Queue, message: Message) -> RawBatch:
        records = records_of(message.body)
        return RawBatch(
            f"sqs://{queue.region}/{queue.name}/{message.id}",
            records,
            "",
            b"",
            bytes_read=len(message.body),
            newest=message.sent,
            settled=True,
            receipt=queue.receipt(message),
        )

    def _queues(self) -> list[Queue]:
        if not self._made:
            settings = self._settings
            region = self._aws.region(settings.region)
            self._made = [
                Queue(
                    self._aws,
                    url,
                    region,
                    self._clock,
                    wait=settings.wait_seconds,
                    visibility=settings.visibility_seconds,
                )
                for url in settings.queue_urls
            ]
        return self._made


def records_of(body: str) -> list[RawRecord]:
    """The records of one message; total. What cannot be framed is one record with an ``error``."""
    text = unwrapped(body.encode("utf-8", "surrogatepass"))
    framer = Framer()
    runs = framer.feed(text)
    more, tail = framer.finish()
    records = [record for run in (*runs, *more) for record in run.records]
    if tail.kind:
        records.append(RawRecord(b"", tail.position, len(records), tail.position + tail.length, "record_torn"))
    return records


def unwrapped(text: bytes) -> bytes:
    """Take off what SNS and EventBridge put around a record."""
    for _ in range(2):
        if b'"Message"' not in text and b'"detail-type"' not in text:
            return text
        try:
            found = _keys(text)
            if bytes(found.get("Type", b"")) == b'"Notification"' and "Message" in found:
                text = _text(found["Message"]).encode("utf-8", "surrogatepass")
            elif "detail" in found and "via CloudTrail" in _text(found.get("detail-type", Raw(b'""'))):
                return bytes(found["detail"])
            else:
                return text
        except (msgspec.DecodeError, RecursionError, ValueError):
            return text
    return text
