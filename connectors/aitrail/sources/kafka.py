"""The Kafka source: a consumer group over topics of any broker that speaks Kafka's protocol, Event Hubs among them.

Promise: a message's offset is committed to the group only after everything in it is durable (``acknowledge``), and only
while the partition is still ours; so a crash or a rebalance repeats messages and loses none, and event_id recognises
the repeats. The group's offsets are the truth about where to go on: collectors of one group share the partitions, and
whoever resets the group's offsets reads again from there.

Where to begin without an offset is said in the settings. What retention removed before it was read is a gap: a dead
letter (``offset_expired``) from the offset that was due to the oldest one there is. Messages that are no records are
dead letters, tombstones are skipped, keys and headers are not looked at.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from msgspec import Struct

from aitrail.clock import Clock
from aitrail.errors import AitrailError, AuthError, TransientError
from aitrail.ports import Budget, Cursors, RawBatch, RawRecord, SecretResolver, Workload
from aitrail.sources._azure_start import EARLIEST, LATEST, start_epoch
from aitrail.sources._caps import BATCH_BYTES, BATCH_RECORDS, Caps
from aitrail.sources._kafka_errors import AUTHENTICATION, POISON, Permissions, explain
from aitrail.sources._kafka_messages import records_of
from aitrail.sources._kafka_settings import KafkaSourceSettings
from aitrail.sources._meter import Meter

_CALL_SECONDS = 10.0
_POLL_SECONDS = 0.1
_POLL_MESSAGES = 500
_MOST_NOTES = 1_000
MakeConsumer = Callable[[dict[str, Any]], Any]


class _Key(NamedTuple):
    topic: str
    partition: int

    @property
    def text(self) -> str:
        return f"{self.topic}/{self.partition}"


class _Part(Struct):
    """A partition that is ours: since which assignment, from where, and which offset is handed out next."""

    epoch: int
    start: int
    next: int
    end_seen: bool = False


class _Gap(Struct, frozen=True):
    """Offsets that were due and are not there any more."""

    key: _Key
    epoch: int
    first: int
    end: int
    why: str


class KafkaSource:
    """Reads topics as a member of a consumer group; a ``ports.Source`` and ``ports.Acknowledging``.

    The consumer lives between two fetches: leaving the group after each would move partitions around all the time. What
    it knows besides is only which partitions are its own; nothing that a crash may not take.

    Attributes:
        notes: what the last fetch found worth telling, one sentence each.
        gaps: how often offsets that were due were not there any more.
    """

    def __init__(
        self,
        settings: KafkaSourceSettings,
        *,
        name: str,
        clock: Clock,
        key: bytes = b"",
        secrets: SecretResolver,
        consumer: MakeConsumer = Consumer,
    ) -> None:
        """Describe the source; nothing is connected yet.

        Args:
            settings: what to read.
            name: the source's name.
            clock: time.
            key: not used: offsets tell nothing about content.
            secrets: resolves the password, each time a connection is made.
            consumer: makes the consumer from its configuration.
        """
        del key
        self.name = name
        self.notes: list[str] = []
        self.gaps = 0
        self._settings, self._clock, self._secrets, self._make = settings, clock, secrets, consumer
        self._caps = Caps(record_bytes=settings.message_bytes)
        self._permissions = Permissions(settings.group, settings.username == "$ConnectionString")
        self._consumer: Any = None
        self._epoch = 0
        self._assigned = False
        self._parts: dict[_Key, _Part] = {}
        self._waiting: deque[tuple[_Key, int, Message]] = deque()
        self._found: list[_Gap] = []
        self._begun: list[TopicPartition] = []
        self._trouble: AitrailError | None = None
        self._renewed = False
        self._down_since = 0.0

    # -- the port

    def survey(self, cursors: Cursors) -> Workload:
        """Say that it cannot be known: joining the group only to count would move partitions around."""
        del cursors
        return Workload(len(self._settings.topics), None)

    def fetch(self, cursors: Cursors, budget: Budget) -> Iterator[RawBatch]:
        """Yield what the partitions that are ours hold, until all their ends are seen or nothing comes.

        Raises:
            AuthError: the brokers refuse the credentials, a topic or the group.
            TransientError: no broker answers, or no partitions were given in time.
        """
        self.notes = []
        meter = Meter(budget, self._clock)
        self._join()
        self._go_back(cursors)
        began = last = self._clock.monotonic()
        while not meter.spent:
            yield from self._gaps(meter)
            batch = self._next_batch()
            if batch is not None:
                meter.add(batch)
                yield batch
                last = self._clock.monotonic()
                continue
            if self._poll():
                continue
            now = self._clock.monotonic()
            if not self._assigned:
                if now - began >= self._settings.join_seconds:
                    hint = "see that the brokers answer and that other members of the group are alive"
                    raise TransientError(f"{self.name}: the group gave no partitions in time", hint=hint)
            elif self._ended():
                break
            elif now - last >= self._settings.idle_seconds:
                self._raise_down()
                break
        yield from self._gaps(meter)

    def acknowledge(self, receipts: Sequence[str]) -> None:
        """Commit the offsets of what is durable, for partitions that are still ours by the same assignment.

        Raises:
            TransientError: the group is moving or the brokers do not answer; the messages come again.
        """
        best: dict[_Key, int] = {}
        for receipt in receipts:
            epoch, partition, offset, topic = receipt.split(":", 3)
            key = _Key(topic, int(partition))
            part = self._parts.get(key)
            if part is not None and part.epoch == int(epoch):
                best[key] = max(best.get(key, 0), int(offset))
        if not best or self._consumer is None:
            return
        try:
            offsets = [TopicPartition(key.topic, key.partition, offset) for key, offset in best.items()]
            done = self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            raise explain(error.args[0], f"{self.name}: committing offsets", self._permissions) from None
        failed = next((one.error for one in done or () if one.error is not None), None)
        if failed is not None:
            raise explain(failed, f"{self.name}: committing offsets", self._permissions)

    def check(self) -> list[str]:
        """Say which topic is missing and which right is: asks for the topics and for the group's offsets."""
        try:
            consumer = self._make(self._config())
        except KafkaException as error:
            return [f"{self.name}: {error.args[0].str()}: correct the TLS or SASL settings"]
        try:
            return self._check(consumer)
        except KafkaException as error:
            found = explain(error.args[0], self.name, self._permissions)
            return [f"{found}: {found.hint}"]
        finally:
            consumer.close()

    def reread(self, origin: str, position: int, end: int, index: int) -> bytes | None:
        """Fetch one record again by partition, offset and number in its message; None when it is gone."""
        del end
        place, _, partition = origin.removeprefix("kafka://").rpartition("/")
        topic = place.rpartition("/")[2]
        if topic not in self._settings.topics or not partition.isdigit():
            return None
        consumer = self._make(self._config())
        try:
            consumer.assign([TopicPartition(topic, int(partition), position)])
            until = self._clock.monotonic() + _CALL_SECONDS
            while self._clock.monotonic() < until:
                for message in consumer.consume(1, 1.0):
                    if message.error() is not None or message.offset() != position or message.value() is None:
                        return None
                    records = records_of(message.value(), position, self._caps)
                    return records[index].data or None if index < len(records) else None
        except KafkaException:
            return None
        finally:
            consumer.close()
        return None

    def close(self) -> None:
        """Leave the group, so that others get the partitions at once; commits nothing."""
        consumer, self._consumer = self._consumer, None
        self._forget(None)
        self._assigned = False
        if consumer is not None:
            consumer.close()

    # -- the group

    def _config(self) -> dict[str, Any]:
        return self._settings.consumer(f"sources.{self.name}", self._secrets)

    def _join(self) -> None:
        if self._consumer is not None:
            return
        self._trouble = None
        try:
            consumer = self._make({**self._config(), "error_cb": self._on_error})
        except KafkaException as error:
            raise AuthError(f"{self.name}: {error.args[0].str()}", hint="correct the TLS or SASL settings") from None
        consumer.subscribe(
            list(self._settings.topics),
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_revoke,
        )
        self._consumer = consumer

    def _on_assign(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        """Take over partitions: say from where each is read, and find what retention has removed."""
        self._epoch += 1
        self._assigned = True
        try:
            known = consumer.committed(partitions, timeout=_CALL_SECONDS) if partitions else []
            for one in known:
                one.offset = self._starting(consumer, one)
                self._parts[_Key(one.topic, one.partition)] = _Part(self._epoch, one.offset, one.offset)
            consumer.assign(known)
        except KafkaException as error:
            # Nothing may be read from an unknown place: give all back, and join anew the next time.
            self._trouble = explain(error.args[0], f"{self.name}: asking for offsets", self._permissions)
            self._forget(None)
            consumer.unassign()

    def _starting(self, consumer: Any, one: TopicPartition) -> int:
        """The offset to begin with; notes a gap when the one that is due is gone."""
        key = _Key(one.topic, one.partition)
        if one.error is not None:
            raise KafkaException(one.error)
        low, high = consumer.get_watermark_offsets(one, timeout=_CALL_SECONDS)
        if one.offset < 0:
            return self._first(consumer, key, low, high)
        if one.offset < low:
            self._found.append(_Gap(key, self._epoch, one.offset, low, "retention removed them"))
            return int(low)
        if one.offset > high:
            self._found.append(_Gap(key, self._epoch, one.offset, low, "the topic was made anew or cut"))
            return int(low)
        return int(one.offset)

    def _first(self, consumer: Any, key: _Key, low: int, high: int) -> int:
        """Where to begin a partition that the group never read; a place that is not the oldest is made durable."""
        start = self._settings.start
        if start == EARLIEST:
            return low
        offset = high
        if start != LATEST:
            wanted = int(start_epoch(start, 0.0) * 1_000)
            found = consumer.offsets_for_times([TopicPartition(*key, wanted)], timeout=_CALL_SECONDS)[0]
            if found.error is not None:
                raise KafkaException(found.error)
            offset = found.offset if found.offset >= 0 else high
        # Else a crash before the first message would begin later, and silently leave out what came meanwhile.
        self._begun.append(TopicPartition(*key, offset))
        return offset

    def _on_revoke(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        """Give partitions up: what was read of them and is not durable is somebody else's now."""
        del consumer
        self._epoch += 1
        self._forget({_Key(one.topic, one.partition) for one in partitions})

    def _forget(self, keys: set[_Key] | None) -> None:
        for key in [key for key in self._parts if keys is None or key in keys]:
            del self._parts[key]
        self._waiting = deque(one for one in self._waiting if one[0] in self._parts)
        self._begun = [one for one in self._begun if _Key(one.topic, one.partition) in self._parts]

    def _on_error(self, error: KafkaError) -> None:
        """Errors that concern no partition; librdkafka reconnects by itself."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001
            self._down_since = self._down_since or self._clock.monotonic()
        elif error.code() in AUTHENTICATION or error.fatal():
            self._trouble = explain(error, self.name, self._permissions)

    # -- reading

    def _poll(self) -> bool:
        """Ask for messages; says whether something came."""
        assert self._consumer is not None
        messages = self._consumer.consume(_POLL_MESSAGES, _POLL_SECONDS)
        self._raise_trouble()
        if self._begun:
            begun, self._begun = self._begun, []
            try:
                self._consumer.commit(offsets=begun, asynchronous=False)
            except KafkaException:
                self._begun = begun
        if messages:
            self._down_since = 0.0
        elif self._down_since and self._clock.monotonic() - self._down_since >= self._settings.down_seconds:
            self._raise_down()
        came = False
        for message in messages:
            key = _Key(message.topic() or "", message.partition() if message.partition() is not None else -1)
            part = self._parts.get(key)
            error = message.error()
            if error is not None:
                self._message_error(error, message, key, part)
            elif part is not None:
                part.end_seen = False
                self._waiting.append((key, part.epoch, message))
                came = True
        return came

    def _message_error(self, error: KafkaError, message: Message, key: _Key, part: _Part | None) -> None:
        code = error.code()
        if code == KafkaError._PARTITION_EOF:  # noqa: SLF001
            if part is not None:
                part.end_seen = True
        elif code == KafkaError._AUTO_OFFSET_RESET and part is not None:  # noqa: SLF001
            self._overtaken(key, part)
        elif code in POISON and part is not None:
            self._waiting.append((key, part.epoch, message))
            self._place({key: (message.offset() or part.next) + 1})
        else:
            found = explain(error, f"{self.name}: {key.text if key.topic else 'reading'}", self._permissions)
            if isinstance(found, AuthError):
                raise found
            self._note(str(found))

    def _overtaken(self, key: _Key, part: _Part) -> None:
        """Retention has removed what comes next, while we were reading."""
        try:
            low, _ = self._consumer.get_watermark_offsets(TopicPartition(*key), timeout=_CALL_SECONDS)
        except KafkaException as error:
            raise explain(error.args[0], f"{self.name}: asking for offsets", self._permissions) from None
        self._found.append(_Gap(key, part.epoch, self._due(key), low, "retention removed them"))
        self._place({key: low})
        part.end_seen = False

    def _due(self, key: _Key) -> int:
        """The offset behind everything of a partition that came."""
        came = [(message.offset() or 0) + 1 for one, _, message in self._waiting if one == key]
        return max([self._parts[key].next, *came])

    def _place(self, places: dict[_Key, int]) -> None:
        """Read on at other offsets, the other partitions where they are. A seek fails where reading has stopped."""
        self._consumer.assign([TopicPartition(*key, places.get(key, self._due(key))) for key in self._parts])

    def _raise_down(self) -> None:
        """Say that no broker answers, if that is why nothing comes; librdkafka goes on trying."""
        if self._down_since:
            self._down_since = 0.0
            hint = "see that the brokers run, and `message_bytes`; nothing is lost"
            raise TransientError(f"{self.name}: no broker answers as it should", hint=hint)

    def _raise_trouble(self) -> None:
        trouble, self._trouble = self._trouble, None
        if trouble is None:
            return
        if isinstance(trouble, AuthError):
            # The next connection reads the secret anew: once at once, then with the pauses of the caller.
            self.close()
            if not self._renewed:
                self._renewed = True
                self._join()
                return
        raise trouble

    def _next_batch(self) -> RawBatch | None:
        """Whole messages of one partition, as they came."""
        if not self._waiting:
            return None
        key, epoch, _ = self._waiting[0]
        records: list[RawRecord] = []
        size, newest, offset = 0, 0, 0
        while self._waiting and self._waiting[0][0] == key and len(records) < BATCH_RECORDS and size < BATCH_BYTES:
            message = self._waiting.popleft()[2]
            offset = message.offset() or 0
            newest = max(newest, message.timestamp()[1])
            value = message.value()
            if message.error() is not None:
                records.append(RawRecord(b"", offset, 0, offset + 1, "message_unknown"))
            elif value:
                size += len(value)
                records += records_of(value, offset, self._caps)
        self._parts[key].next = offset + 1
        self._renewed = False
        return RawBatch(
            self._origin(key),
            records,
            key.text,
            str(offset + 1).encode(),
            size,
            newest=newest / 1_000,
            receipt=f"{epoch}:{key.partition}:{offset + 1}:{key.topic}",
        )

    def _gaps(self, meter: Meter) -> Iterator[RawBatch]:
        """One dead letter per gap: which offsets, and why."""
        found, self._found = self._found, []
        for gap in found:
            self.gaps += 1
            self._note(f"{gap.key.text}: offsets {gap.first} to {gap.end} are gone: {gap.why}")
            record = RawRecord(b"", gap.first, 0, gap.end, "offset_expired")
            receipt = f"{gap.epoch}:{gap.key.partition}:{gap.end}:{gap.key.topic}"
            batch = RawBatch(
                self._origin(gap.key), (record,), gap.key.text, str(gap.end).encode(), settled=True, receipt=receipt
            )
            meter.add(batch)
            yield batch

    def _go_back(self, cursors: Cursors) -> None:
        """Hand out again what this process handed out to a pipeline that did not keep it."""
        back: dict[_Key, int] = {}
        for key, part in self._parts.items():
            committed = cursors.get(key.text)
            kept = max(part.start, int(committed) if committed is not None and committed.isdigit() else 0)
            if kept < part.next:
                self._waiting = deque(one for one in self._waiting if one[0] != key)
                part.next = back[key] = kept
                part.end_seen = False
        if back:
            self._place(back)

    def _ended(self) -> bool:
        return not self._waiting and all(part.end_seen for part in self._parts.values())

    def _origin(self, key: _Key) -> str:
        return f"kafka://{self._settings.brokers[0]}/{key.topic}/{key.partition}"

    def _check(self, consumer: Any) -> list[str]:
        problems: list[str] = []
        partitions: list[TopicPartition] = []
        for topic in self._settings.topics:
            found = consumer.list_topics(topic, timeout=_CALL_SECONDS).topics.get(topic)
            if found is None or found.error is not None or not found.partitions:
                code = found.error if found is not None and found.error is not None else KafkaError(3)
                problem = explain(code, f"{self.name}: topic {topic}", self._permissions)
                problems.append(f"{problem}: {problem.hint}")
            else:
                partitions += [TopicPartition(topic, number) for number in found.partitions]
        for one in consumer.committed(partitions, timeout=_CALL_SECONDS) if partitions else ():
            if one.error is not None:
                problem = explain(one.error, f"{self.name}: group {self._settings.group}", self._permissions)
                return [*problems, f"{problem}: {problem.hint}"]
        return problems

    def _note(self, what: str) -> None:
        if len(self.notes) < _MOST_NOTES:
            self.notes.append(what)
