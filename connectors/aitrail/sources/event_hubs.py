"""The Event Hubs source: partitions of one event hub over AMQP, shared among collectors through a checkpoint store.

Promise: a checkpoint is written only after everything up to it is durable (``acknowledge``), and only while the
partition is ours; so a crash or a change of owners repeats messages and loses none; event_id recognises the repeats.
With a checkpoint store (blobs, in the SDK's own layout, so that other tools see how far we are) its checkpoints are the
truth about where to go on; without one, the cursors of the outbox are, and this collector reads all partitions alone.

Where to begin is said in the settings. Sequence numbers of a partition have no holes: one that is missing was removed
by retention before it was read, and is a dead letter (``offset_expired``): from the number that was due to what came.

Facts: Microsoft Learn "Event Hubs features" (offset, sequence number, retention), "Event processor host".
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from azure.core.exceptions import AzureError, ResourceNotFoundError
from azure.eventhub import EventHubConsumerClient, TransportType
from azure.eventhub.exceptions import AuthenticationError, EventHubError, OwnershipLostError
from azure.eventhub.extensions.checkpointstoreblob import BlobCheckpointStore

from aitrail.clock import Clock
from aitrail.errors import AitrailError, AuthError, ConfigError, TransientError
from aitrail.ports import Budget, Cursors, RawBatch, RawRecord, SecretResolver, Workload
from aitrail.sources._azure_calls import Calls
from aitrail.sources._azure_identity import default_credential
from aitrail.sources._azure_start import EARLIEST, LATEST, start_epoch
from aitrail.sources._caps import Caps
from aitrail.sources._event_hubs_receiver import Came, Receiver
from aitrail.sources._event_hubs_settings import EventHubsSettings
from aitrail.sources._kafka_messages import records_of
from aitrail.sources._meter import Meter

_POLL_SECONDS = 0.1
# The storage client's own habits (a minute for an answer, fifteen seconds before it tries again) would hold up reading
# for minutes when one answer is lost. What fails here is tried again by the schedule.
_STORE_OPTIONS: dict[str, Any] = {
    "connection_timeout": 10,
    "read_timeout": 15,
    "retry_total": 2,
    "initial_backoff": 1,
    "increment_base": 2,
    "random_jitter_range": 1,
}
_MOST_NOTES = 1_000
_BEGINNING = "-1"
_HUB_RIGHT = (
    "grant the identity the role Azure Event Hubs Data Receiver on the event hub (Access control (IAM) > Add role "
    "assignment), or use a connection string with Listen (Shared access policies)"
)
_STORE_RIGHT = (
    "grant the identity the role Storage Blob Data Contributor on the container of the checkpoint store "
    "(storage account > Access control (IAM)), and see that the container exists"
)


class HubCursor(msgspec.Struct, frozen=True):
    """How far one partition was handed out: the offset and sequence number of its last message."""

    offset: str
    sequence: int
    v: int = 1


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(HubCursor).decode


class EventHubsSource:
    """Reads an event hub; a ``ports.Source`` and ``ports.Acknowledging``.

    The connection lives between two fetches, as partitions would move around otherwise; what a crash may take with it
    is only which partitions are ours.

    Attributes:
        notes: what the last fetch found worth telling.
        gaps: how often messages that were due were not there any more.
    """

    def __init__(
        self,
        settings: EventHubsSettings,
        *,
        name: str,
        clock: Clock,
        key: bytes = b"",
        secrets: SecretResolver,
        client: Any = EventHubConsumerClient,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Describe the source; nothing is connected yet.

        Args:
            settings: which event hub.
            name: the source's name.
            clock: time.
            key: not used: offsets tell nothing about content.
            secrets: resolves connection strings, each time a connection is made.
            client: the SDK's client class, or one with the same methods.
            options: further arguments for it.
        """
        del key
        self.name = name
        self.notes: list[str] = []
        self.gaps = 0
        self._settings, self._clock, self._secrets = settings, clock, secrets
        self._make, self._options = client, dict(options or {})
        self._caps = Caps()
        self._receiver: Receiver | None = None
        self._store: Any = None
        self._address: dict[str, str] = {}
        self._due: dict[tuple[str, int], int] = {}
        self._handed: dict[str, int] = {}
        self._begun: dict[str, int] = {}
        self._renewed = False
        self._calls = Calls(clock, name, _STORE_RIGHT, lambda: None)

    # -- the port

    def survey(self, cursors: Cursors) -> Workload:
        """Say that it cannot be known: connecting only to count would move partitions around."""
        del cursors
        return Workload(1, None)

    def fetch(self, cursors: Cursors, budget: Budget) -> Iterator[RawBatch]:
        """Yield what the partitions that are ours hold, until all are at their ends or nothing comes.

        Raises:
            AuthError: the hub or the checkpoint store refuses the identity.
            TransientError: the service does not answer.
        """
        self.notes = []
        meter = Meter(budget, self._clock)
        yield from self._start(cursors)
        began = last = self._clock.monotonic()
        while not meter.spent:
            receiver = self._receiver
            if receiver is None or not receiver.running or (receiver.moved and not self._settings.checkpoint_container):
                self._raise_error()
                yield from self._start(cursors, anew=True)
                continue
            came = receiver.next(_POLL_SECONDS)
            if came is not None:
                batch = self._batch(came)
                meter.add(batch)
                yield batch
                last = self._clock.monotonic()
                continue
            self._raise_error()
            now = self._clock.monotonic()
            if receiver.at_ends() or (receiver.owned() and now - last >= self._settings.idle_seconds):
                return
            if not receiver.owned() and now - began >= self._settings.join_seconds:
                self._note("no partition is ours: other collectors of this consumer group hold them all")
                return

    def acknowledge(self, receipts: Sequence[str]) -> None:
        """Write checkpoints of what is durable, for partitions that are still ours by the same ownership.

        Raises:
            AuthError: the checkpoint store refuses the identity.
            TransientError: it does not answer; the messages come again.
        """
        best: dict[str, tuple[int, str]] = {}
        for receipt in receipts:
            partition, epoch, sequence, offset = receipt.split(":", 3)
            if self._receiver is not None and self._receiver.owns(partition, int(epoch)):
                best[partition] = max(best.get(partition, (-1, "")), (int(sequence), offset))
        for partition, (last, place) in best.items():
            self._write(self._store, partition, HubCursor(place, last))

    def check(self) -> list[str]:
        """Say which right is missing: asks the hub for its partitions and lists the checkpoints."""
        try:
            client, store = self._client()
        except ConfigError as error:
            return [f"{error}: {error.hint}"]
        try:
            self._partitions(client)
            if store is not None:
                self._checkpoints(store, self._address_of(client))
        except AitrailError as error:
            return [f"{error}: {error.hint}"]
        finally:
            _close(client, store)
        return []

    def reread(self, origin: str, position: int, end: int, index: int) -> bytes | None:
        """Say None: the AMQP service hands a message out again only to a consumer that takes the partition over."""
        del origin, position, end, index
        return None

    def close(self) -> None:
        """Give the partitions back, so that others get them at once; writes no checkpoint."""
        receiver, self._receiver = self._receiver, None
        store, self._store = self._store, None
        self._due.clear()
        self._begun.clear()
        self._handed.clear()
        if receiver is not None:
            receiver.close()
        _close(None, store)

    # -- connecting

    def _start(self, cursors: Cursors, *, anew: bool = False) -> Iterator[RawBatch]:
        """Connect, unless that is done and nothing was handed out in vain."""
        vain = any(self._cursor(cursors, one).sequence < handed for one, handed in self._handed.items())
        if self._receiver is not None and not anew and not vain:
            return
        self.close()
        client, store = self._client()
        try:
            partitions = self._partitions(client)
            self._address = self._address_of(client)
            known = self._checkpoints(store, self._address) if store is not None else {}
            positions: dict[str, Any] = {}
            for partition in partitions:
                cursor = known.get(partition) or self._cursor(cursors, partition)
                if cursor.sequence < 0:
                    cursor = self._latest(client, partition)
                    if cursor.sequence >= 0:
                        # Where "latest" was must be durable: a start later on would leave out what came meanwhile.
                        self._write(store, partition, cursor)
                        yield RawBatch(self._origin(partition), (), partition, _encode(cursor))
                elif (end := self._end(client, partition)) < cursor.sequence:
                    why = "the event hub was made anew; it is read from its beginning"
                    record = self._gap(partition, cursor.sequence + 1, max(end, -1) + 1, why)
                    cursor = HubCursor(_BEGINNING, -1)
                    self._write(store, partition, cursor)
                    yield RawBatch(self._origin(partition), (record,), partition, _encode(cursor), settled=True)
                self._begun[partition] = cursor.sequence
                positions[partition] = cursor.offset if cursor.sequence >= 0 else self._first()
        except BaseException:
            self._store = None
            _close(client, store)
            raise
        self._store = store
        self._receiver = Receiver(
            client, positions, self._settings.prefetch, len(partitions), self._settings.balance_seconds
        )

    def _client(self) -> tuple[Any, Any]:
        """A client, and the checkpoint store when one is configured."""
        settings = self._settings
        credential = None
        if settings.namespace or settings.checkpoint_url:
            credential = self._options.get("credential") or default_credential(settings.managed_identity)
        store: Any = None
        try:
            if settings.checkpoint_connection_string:
                text = self._secrets.resolve(settings.checkpoint_connection_string)
                store = BlobCheckpointStore.from_connection_string(
                    text, settings.checkpoint_container, **_STORE_OPTIONS
                )
            elif settings.checkpoint_url:
                container = settings.checkpoint_container
                store = BlobCheckpointStore(settings.checkpoint_url, container, credential, **_STORE_OPTIONS)
            options: dict[str, Any] = {
                "consumer_group": settings.consumer_group,
                "eventhub_name": settings.event_hub,
                "checkpoint_store": store,
                "load_balancing_interval": settings.balance_seconds,
                "transport_type": TransportType.AmqpOverWebsocket if settings.websockets else TransportType.Amqp,
                **{name: value for name, value in self._options.items() if name != "credential"},
            }
            if settings.connection_string:
                text = self._secrets.resolve(settings.connection_string)
                return self._make.from_connection_string(text, **options), store
            return self._make(fully_qualified_namespace=settings.namespace, credential=credential, **options), store
        except ValueError:  # its text may hold a part of the secret
            _close(None, store)
            where, hint = f"sources.{self.name}", "copy them from the pages Shared access policies and Access keys"
            raise ConfigError("a connection string is none", where=where, hint=hint) from None

    def _partitions(self, client: Any) -> list[str]:
        try:
            return list(client.get_partition_ids())
        except Exception as error:  # noqa: BLE001 - the SDK lets errors of its libraries through
            raise self._explain(error) from None

    def _latest(self, client: Any, partition: str) -> HubCursor:
        """The last message there is, when reading shall begin behind it; sequence -1 otherwise."""
        if self._settings.start != LATEST:
            return HubCursor(_BEGINNING, -1)
        found = self._properties(client, partition)
        if found["is_empty"]:
            return HubCursor(_BEGINNING, -1)
        return HubCursor(str(found["last_enqueued_offset"]), int(found["last_enqueued_sequence_number"]))

    def _end(self, client: Any, partition: str) -> int:
        """The sequence number of the last message that ever came; -1 for none."""
        return int(self._properties(client, partition)["last_enqueued_sequence_number"])

    def _properties(self, client: Any, partition: str) -> Any:
        try:
            return client.get_partition_properties(partition)
        except Exception as error:  # noqa: BLE001 - as above
            raise self._explain(error) from None

    def _first(self) -> Any:
        """Where to begin a partition that was never read: its beginning, or a time."""
        start = self._settings.start
        if start in (EARLIEST, LATEST):  # the latest of an empty partition is its beginning
            return _BEGINNING
        return datetime.fromtimestamp(start_epoch(start, 0.0), UTC)

    def _address_of(self, client: Any) -> dict[str, str]:
        settings = self._settings
        host = settings.namespace or client._address.hostname  # noqa: SLF001 - the SDK tells it nowhere else
        return {
            "fully_qualified_namespace": host,
            "eventhub_name": settings.event_hub,
            "consumer_group": settings.consumer_group,
        }

    # -- checkpoints

    def _checkpoints(self, store: Any, address: Mapping[str, str]) -> dict[str, HubCursor]:
        """What is checkpointed, by partition."""
        try:
            found = self._calls.run("listing checkpoints", lambda: list(store.list_checkpoints(**address)))
        except ResourceNotFoundError:
            said = f"{self.name}: there is no container {self._settings.checkpoint_container} for checkpoints"
            raise AuthError(said, hint=_STORE_RIGHT) from None
        except AzureError as error:
            raise self._calls.explain(error, "listing checkpoints") from None
        return {one["partition_id"]: HubCursor(str(one["offset"]), int(one["sequence_number"])) for one in found}

    def _write(self, store: Any, partition: str, cursor: HubCursor) -> None:
        """Write a checkpoint, when there is a store."""
        if store is None:
            return
        point = {
            **self._address,
            "partition_id": partition,
            "offset": cursor.offset,
            "sequence_number": cursor.sequence,
        }
        try:
            self._calls.run("writing a checkpoint", lambda: store.update_checkpoint(point))
        except AzureError as error:
            raise self._calls.explain(error, "writing a checkpoint") from None

    def _cursor(self, cursors: Cursors, partition: str) -> HubCursor:
        data = cursors.get(partition)
        if data:
            try:
                cursor = _decode(data)
            except (msgspec.DecodeError, ValueError):
                cursor = None
            if cursor is not None and cursor.v == 1:
                return cursor
        return HubCursor(_BEGINNING, -1)

    # -- reading

    def _batch(self, came: Came) -> RawBatch:
        """One batch of whole messages, with a gap where some that were due are missing."""
        partition, epoch = came.partition, came.epoch
        due = self._next_due(partition, epoch)
        records: list[RawRecord] = []
        size = 0
        for event in came.events:
            sequence = event.sequence_number
            if 0 <= due < sequence:
                records.append(self._gap(partition, due, sequence, "retention removed them"))
            due = sequence + 1
            body = _body(event)
            size += len(body)
            if body:
                records += records_of(body, sequence, self._caps)
        last = came.events[-1]
        cursor = HubCursor(str(last.offset), last.sequence_number)
        self._due[partition, epoch] = last.sequence_number + 1
        self._handed[partition] = last.sequence_number
        self._renewed = False
        enqueued = last.enqueued_time
        return RawBatch(
            self._origin(partition),
            records,
            partition,
            _encode(cursor),
            size,
            newest=enqueued.timestamp() if enqueued is not None else 0.0,
            receipt=f"{partition}:{epoch}:{cursor.sequence}:{cursor.offset}",
        )

    def _next_due(self, partition: str, epoch: int) -> int:
        """The sequence number that comes next, as far as it is known; -1 when reading only begins."""
        due = self._due.get((partition, epoch))
        if due is not None:
            return due
        if self._store is not None:
            known = self._checkpoints(self._store, self._address).get(partition)
            return known.sequence + 1 if known is not None and known.sequence >= 0 else -1
        return self._begun[partition] + 1 if self._begun.get(partition, -1) >= 0 else -1

    def _gap(self, partition: str, due: int, first: int, why: str) -> RawRecord:
        """A dead letter for messages that cannot be read any more."""
        self.gaps += 1
        self._note(f"partition {partition}: sequence numbers {due} to {first} are gone: {why}")
        return RawRecord(b"", due, 0, first, "offset_expired")

    def _raise_error(self) -> None:
        """Raise what the processor met; refused credentials are asked for anew once, at once."""
        error = self._receiver.error() if self._receiver is not None else None
        if error is None or isinstance(error, OwnershipLostError):
            return
        found = self._explain(error)
        if isinstance(found, AuthError) and not self._renewed:
            self._renewed = True
            self.close()
            return
        if isinstance(found, AuthError) or _misplaced(error):
            self.close()  # the next start looks anew at where each partition goes on
        raise found

    def _explain(self, error: Exception) -> AitrailError:
        """Turn an error of the SDK into ours; its text is left out, because it may quote a connection string."""
        if isinstance(error, AitrailError):
            return error
        if isinstance(error, AzureError) and not isinstance(error, EventHubError):
            return self._calls.explain(error, "checkpoint store")
        code = getattr(error, "error", None)
        said = f"{self.name}: {type(error).__name__}{f' ({code})' if code else ''}"
        if isinstance(error, AuthenticationError) or code in ("unauthorized-access", "auth-failed"):
            return AuthError(said, hint=_HUB_RIGHT)
        if code == "not-found":
            return AuthError(said, hint="check the names of event hub and consumer group")
        return TransientError(said, hint="nothing is lost; it is tried again")

    def _origin(self, partition: str) -> str:
        host = self._address.get("fully_qualified_namespace", "")
        return f"eventhub://{host}/{self._settings.event_hub}/{self._settings.consumer_group}/{partition}"

    def _note(self, what: str) -> None:
        if len(self.notes) < _MOST_NOTES:
            self.notes.append(what)


def _misplaced(error: Exception) -> bool:
    """Whether the service says that a position is not in the partition."""
    return str(getattr(error, "error", "") or "").startswith("argument") or "supplied offset" in str(error)


def _body(event: Any) -> bytes:
    """The bytes of a message; data sections are joined, other kinds of bodies (values, sequences) are encoded."""
    body = event.body
    if isinstance(body, bytes):
        return body
    if isinstance(body, str):
        return body.encode("utf-8", "surrogatepass")
    try:
        return b"".join(body)
    except TypeError:
        return b"null"


def _close(client: Any, store: Any) -> None:
    if client is not None:
        client.close()
    if store is not None:
        store.__exit__()
