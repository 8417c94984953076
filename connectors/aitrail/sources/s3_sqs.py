"""The ``s3_sqs`` source: objects of S3, each read when an SQS message tells of it.

Promise: a message is deleted only when every record of every object that it names is durable. Until then it comes
again; what is read twice is recognised. What can never be read does not stand in the way: an object of a bucket that
is not allowed, or that is deleted, is a dead letter with its reason; a message that nobody understands is a dead
letter and is left to the queue's redrive policy (and deleted after ``give_up_after`` receives). An object that may not
be read now keeps its message, and the source says which permission is missing.
"""

import contextlib
from collections.abc import Generator, Iterator, Sequence
from functools import partial

from aitrail.clock import Clock
from aitrail.errors import AuthError, TransientError
from aitrail.ports import Budget, Cursors, RawBatch, RawRecord, SecretResolver, Workload
from aitrail.sources._aws_calls import Access, Aws, Refused, finding
from aitrail.sources._aws_seen import Ring
from aitrail.sources._aws_settings import S3SqsSettings
from aitrail.sources._cloudtrail_stores import KeyService
from aitrail.sources._meter import Meter
from aitrail.sources._s3_attest import UNVERIFIED, Attestor
from aitrail.sources._s3_batches import Notes, Objects, split
from aitrail.sources._s3_keys import describe
from aitrail.sources._s3_messages import told
from aitrail.sources._s3_objects import GONE, Opened, ReadAhead, S3Object
from aitrail.sources._sqs_queue import Message, Queue, acknowledge

# How long a settled object is remembered, in hours of its key: notifications are repeated within minutes.
_MEMORY_HOURS = 24
_CHECK_KEY = "aitrail-check-no-such-key"


class _Work:
    """One message and what is left of it."""

    def __init__(self, queue: Queue, message: Message, objects: list[S3Object]) -> None:
        self.queue = queue
        self.message = message
        self.left = len(objects)
        self.objects = objects
        self.failed = False
        self.unread = False


class S3SqsSource:
    """Reads objects that messages tell of; a ``ports.Source`` and ``ports.Acknowledging``.

    Attributes:
        notes: what the last fetch left out, one sentence each.
    """

    def __init__(
        self,
        settings: S3SqsSettings,
        *,
        name: str,
        clock: Clock,
        key: bytes = b"",
        secrets: SecretResolver | None = None,
    ) -> None:
        """Describe the source; nothing is called yet. Raises ``ConfigError`` for a wrong key file."""
        del secrets  # AWS tools find credentials themselves
        self.name = name
        self.notes: list[str] = []
        self.gaps = 0
        self._settings = settings
        self._buckets = frozenset(settings.buckets)
        self._clock = clock
        self._key = key
        self._aws = Aws(Access.of(settings, settings.role_arn), clock)
        self._keys = KeyService(self._aws, settings.public_keys) if settings.verify_digests else None
        self._made: list[Queue] = []

    def survey(self, cursors: Cursors) -> Workload:
        """Say how many messages wait, about."""
        del cursors
        waiting = 0
        for queue in self._queues():
            answer = self._aws.call(
                "sqs", queue.region, "get_queue_attributes", queue.arn, QueueUrl=queue.url,
                AttributeNames=["ApproximateNumberOfMessages"],
            )  # fmt: skip
            waiting += int(answer.get("Attributes", {}).get("ApproximateNumberOfMessages", 0))
        return Workload(waiting, None)

    def fetch(self, cursors: Cursors, budget: Budget) -> Iterator[RawBatch]:
        """Yield what the messages tell of, until the queues are empty or the budget is spent.

        Raises:
            AuthError, TransientError: something could not be read; its message comes again, the others were read.
        """
        notes = Notes()
        self.notes = notes.lines
        region = self._aws.region(self._settings.region)
        rings = _Rings(cursors, self._key)
        turn = _Turn(self._aws, region, self._settings, self._keys, self._clock, rings, budget, notes)
        for queue in self._queues():
            yield from turn.drain(queue)
        self.gaps += turn.gaps
        if turn.trouble is not None:
            raise turn.trouble

    def acknowledge(self, receipts: Sequence[str]) -> None:
        """Delete the messages whose objects are durable as a whole."""
        acknowledge(self._queues(), receipts)

    def check(self) -> list[str]:
        """Say which permission is missing: looks at the queues and asks each bucket for a key that is not there."""
        problems: list[str] = []
        with finding(problems):
            for queue in self._queues():
                with finding(problems):
                    problems += queue.problems()
            region = self._aws.region(self._settings.region)
            for bucket in self._settings.buckets:
                with finding(problems):
                    self._probe(bucket, region)
            if self._keys is not None:
                self._keys.keys(region, "", "")
        return problems

    def reread(self, origin: str, position: int, end: int, index: int) -> bytes | None:
        """Fetch one record again from its object; offloaded bodies are put in again."""
        one = split(origin)
        if one is None or one.bucket not in self._buckets:
            return None
        region = self._aws.region(self._settings.region)
        reader = Objects(self._aws, region, self._settings, self._clock, Notes())
        try:
            return reader.record(self._aws, region, one, position, end, index)
        except (AuthError, TransientError):
            return None

    def close(self) -> None:
        """Give back connections."""
        self._aws.close()

    def _probe(self, bucket: str, region: str) -> None:
        """Ask for a key that is not there: "no such key" means that reading is allowed."""
        call = partial(self._aws.call, "s3", region, "get_object", f"arn:aws:s3:::{bucket}/*", expect=GONE)
        with contextlib.suppress(Refused):
            call(Bucket=bucket, Key=_CHECK_KEY)["Body"].close()

    def _queues(self) -> list[Queue]:
        if not self._made:
            settings = self._settings
            region = self._aws.region(settings.region)
            self._made = [
                Queue(
                    self._aws, url, region, self._clock, wait=settings.wait_seconds,
                    visibility=settings.visibility_seconds,
                )
                for url in settings.queue_urls
            ]  # fmt: skip
        return self._made


class _Turn:
    """One fetch: what it has learnt so far."""

    def __init__(
        self,
        aws: Aws,
        region: str,
        settings: S3SqsSettings,
        keys: KeyService | None,
        clock: Clock,
        rings: "_Rings",
        budget: Budget,
        notes: Notes,
    ) -> None:
        self._settings = settings
        self._buckets = frozenset(settings.buckets)
        self._keys = keys
        self._rings = rings
        self._meter = Meter(budget, clock)
        self._notes = notes
        self._region = region
        self._aws = aws
        self._reader = Objects(aws, region, settings, clock, notes)
        self._ahead = ReadAhead(aws, lambda _one: region, settings.read_ahead)
        self.trouble: AuthError | TransientError | None = None
        self.gaps = 0

    def drain(self, queue: Queue) -> Iterator[RawBatch]:
        """Receive and read until the queue is empty, the budget is spent, or something is in the way."""
        wait = True
        while not self._meter.spent:
            try:
                messages = queue.receive(wait=wait)
            except (AuthError, TransientError) as error:
                self.trouble = self.trouble or error
                return
            if not messages:
                return
            wait = False
            yield from self._messages(queue, messages)
            if self.trouble is not None:
                return

    def _messages(self, queue: Queue, messages: list[Message]) -> Iterator[RawBatch]:
        works: list[_Work] = []
        for message in messages:
            said = told(message.body)
            if not said.known:
                yield self._poison(queue, message)
                continue
            wanted: list[S3Object] = []
            for one in said.objects:
                if one.bucket not in self._buckets:
                    self._notes(f"s3://{one.bucket}: told of by {queue.url}, but not among `buckets`; not read")
                    yield self._reader.error(one, "object_foreign")
                elif self._wanted(one.key):
                    wanted.append(one)
            if wanted:
                works.append(_Work(queue, message, wanted))
            else:
                yield RawBatch(_place(queue, message), [], "", b"", settled=True, receipt=queue.receipt(message))
        owners = [work for work in works for _ in work.objects]
        opened = self._ahead.opened([one for work in works for one in work.objects])
        for work, (one, body) in zip(owners, opened, strict=True):
            work.left -= 1
            yield from self._object(work, one, body)
            queue.keep()
        for work in works:
            if work.unread:
                queue.give_back(work.message)
            elif work.failed:
                queue.release(work.message)

    def _object(self, work: _Work, one: S3Object, opened: Opened) -> Iterator[RawBatch]:
        """Read one object; the message's receipt goes with the last batch of its last object."""
        if self._meter.spent:
            work.failed = work.unread = True
            return
        receipt = work.queue.receipt(work.message) if work.left == 0 and not work.failed else ""
        try:
            done = yield from _keeping(self._batches(one, opened, receipt), work.queue)
        except (AuthError, TransientError) as error:
            self.trouble = self.trouble or error
            done = False
        work.failed = work.failed or not done
        work.unread = work.unread or (not done and self.trouble is None)

    def _batches(self, one: S3Object, opened: Opened, receipt: str) -> Generator[RawBatch, None, bool]:
        what = describe(one.key)
        ring = self._rings.of(one)
        if what.kind != "digest":
            attestation = UNVERIFIED if self._keys is not None and what.kind == "cloudtrail" else ""
            return (
                yield from self._reader.batches(
                    one, opened, ring, self._meter, receipt=receipt, attestation=attestation
                )
            )
        assert self._keys is not None
        attestor = Attestor(self._aws, self._keys, self._buckets, self._rings.of, self._notes)
        yield from attestor.batches(one, opened, self._region, receipt=receipt)
        self.gaps += attestor.gaps
        return True

    def _wanted(self, key: str) -> bool:
        kind = describe(key).kind
        prefixes = self._settings.prefixes
        if kind == "skipped" or (kind == "digest" and self._keys is None):
            return False
        return not prefixes or key.startswith(prefixes)

    def _poison(self, queue: Queue, message: Message) -> RawBatch:
        """A message of no known form: noted once, left to the redrive policy, deleted when it comes for ever."""
        done = message.received >= self._settings.give_up_after
        self._notes(f"{queue.url}: a message is of no known form; left to the queue's redrive policy")
        if not done:
            queue.release(message)
        record = RawRecord(b"", 0, 0, 0, "message_unknown")
        receipt = queue.receipt(message) if done else ""
        return RawBatch(_place(queue, message), [record], "", b"", newest=message.sent, settled=True, receipt=receipt)


class _Rings:
    """What was read lately, by bucket and stream."""

    def __init__(self, cursors: Cursors, key: bytes) -> None:
        self._cursors = cursors
        self._key = key
        self._made: dict[str, Ring] = {}

    def of(self, one: S3Object) -> Ring:
        """The ring of an object's stream."""
        name = f"{one.bucket}/{describe(one.key).stream}"
        ring = self._made.get(name)
        if ring is None:
            ring = self._made[name] = Ring(self._cursors, name, _MEMORY_HOURS, self._key)
        return ring


def _keeping(batches: Generator[RawBatch, None, bool], queue: Queue) -> Generator[RawBatch, None, bool]:
    """Pass batches on and keep their message hidden meanwhile."""
    while True:
        try:
            batch = next(batches)
        except StopIteration as end:
            return bool(end.value)
        yield batch
        queue.keep()


def _place(queue: Queue, message: Message) -> str:
    return f"sqs://{queue.region}/{queue.name}/{message.id}"
