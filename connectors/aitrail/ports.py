"""The ports: what the pipeline asks of sources, destinations, secrets and the outbox.

They are Protocols: a third party implements one without importing aitrail, and the conformance suite, not
``isinstance``, says whether it is right. Only the pipeline commits: a source saves nothing, a destination forgets
nothing.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, Protocol, runtime_checkable

import msgspec


class RawRecord(msgspec.Struct, frozen=True, gc=False):
    """One record as the source holds it.

    Attributes:
        data: the record's bytes: one JSON object, not decoded.
        position: byte offset of the record in the decompressed text of its object (0 when it has none).
        index: number of the record in its object, from 0.
        end: offset just behind the record; what is between records belongs to none.
        error: reason code when the bytes could not be framed as a record (``data`` is then empty or partial).
        detail: what there is to say about the error in a few words, never content.
    """

    data: bytes
    position: int = 0
    index: int = 0
    end: int = 0
    error: str = ""
    detail: str = ""


class RawBatch(msgspec.Struct, gc=False):
    """Records of one object, with the cursor that is right once all of them are settled.

    Attributes:
        origin: the object: path, ``s3://bucket/key``, topic/partition. Part of every record's ``source_ref``.
        records: in the object's order.
        cursor_key: which cursor of the source this batch advances.
        cursor: its value once every record of this batch is durable; opaque to the pipeline.
        bytes_read: how many input bytes (as stored, compressed) this batch took, for progress.
        newest: epoch seconds of the object's last change, 0 when unknown; lag is now minus this.
        settled: False while more batches of the same object follow in this fetch.
        receipt: what ``acknowledge`` gets once every record of this batch is durable, e.g. a message's handle.
        record_type: the type of every record, where the source knows it; empty: configured or detected.
        attestation: what is known of the object's integrity, e.g. ``valid``, ``mismatch``; empty: not checked.
        barrier: the cursor speaks of batches of other keys, too: it is committed only once every batch that was
            handed out before it is durable.
    """

    origin: str
    records: Sequence[RawRecord]
    cursor_key: str
    cursor: bytes
    bytes_read: int = 0
    newest: float = 0.0
    settled: bool = False
    receipt: str = ""
    record_type: str = ""
    attestation: str = ""
    barrier: bool = False


class Cursors(Protocol):
    """The durable cursors of one source, read-only."""

    def get(self, key: str) -> bytes | None:
        """Return the committed cursor of ``key``, or None."""
        ...

    def items(self) -> Iterator[tuple[str, bytes]]:
        """All committed cursors of this source."""
        ...


class Budget(msgspec.Struct, frozen=True):
    """How much one fetch may take: records, input bytes, seconds. A source stops at a batch boundary."""

    records: int = 1 << 62
    bytes: int = 1 << 62
    seconds: float = float("inf")


class Workload(msgspec.Struct, frozen=True):
    """What there is to read, as far as the source can tell beforehand; None when it cannot."""

    objects: int = 0
    bytes: int | None = None


class Source(Protocol):
    """Reads records. Stateless: the pipeline hands in the cursors and commits what comes back.

    All methods are called by one thread at a time; ``acknowledge`` between two batches or after the last. What a
    source may have besides: ``acknowledge`` (``Acknowledging``), ``ranged`` (``Ranged``), ``close()`` (called once at
    the end), ``notes`` (sentences about what was left out) and ``gaps`` (how often it found something missing).
    """

    name: str

    def survey(self, cursors: Cursors) -> Workload:
        """Say how much a fetch would read now (for progress and dry runs); reads no content."""
        ...

    def fetch(self, cursors: Cursors, budget: Budget) -> Iterator[RawBatch]:
        """Yield what is new since ``cursors``; raises only ``AuthError`` and ``TransientError``."""
        ...

    def check(self) -> list[str]:
        """Say what is wrong with the set-up, one sentence each with the fix; empty when all is well."""
        ...

    def reread(self, origin: str, position: int, end: int, index: int) -> bytes | None:
        """Fetch one record again by its coordinates; None when it is gone or cannot be read again."""
        ...


@runtime_checkable
class Acknowledging(Protocol):
    """A source whose service keeps what was handed over until it is told (SQS, Kafka, Event Hubs)."""

    def acknowledge(self, receipts: Sequence[str]) -> None:
        """Everything of these batches is durable: let go of it.

        Raises:
            TransientError, AuthError: it was not let go of and comes again; its events are then duplicates.
        """
        ...


@runtime_checkable
class Ranged(Protocol):
    """A source that can read a stretch of the past (``aitrail backfill``)."""

    def ranged(self, start: float, end: float) -> "Source":
        """Give a source of the same settings that reads at least what happened in [start, end) (epoch seconds).

        Its cursors are kept apart from the live ones; ``fetch`` ends when the range is read.
        """
        ...


Delivery = Literal["delivered", "duplicate", "retry", "rejected", "pending"]


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """What became of one event: ``retry`` may carry seconds, ``rejected`` a code, ``pending`` a token to confirm."""

    status: Delivery
    code: str = ""
    retry_after: float | None = None
    token: str = ""


DELIVERED = Verdict("delivered")
DUPLICATE = Verdict("duplicate")


ACCESS = "access"
STREAM_KEY = b'{"stream":"'


class EncodedEvent(msgspec.Struct, frozen=True, gc=False):
    """One event ready to ship: its identity, its time (canonical text) and its canonical bytes."""

    event_id: str
    timestamp: str
    body: bytes

    @property
    def stream(self) -> str:
        """What kind of event this is: ``access``, or what its bytes say first (``aitrail.streams``).

        The bytes say it themselves, so that the outbox, a dead letter and its replay cannot disagree about it.
        """
        body = self.body
        if not body.startswith(STREAM_KEY):
            return ACCESS
        start = len(STREAM_KEY)
        return body[start : body.find(b'"', start)].decode("ascii", "replace")


class Ack(msgspec.Struct, frozen=True, gc=False):
    """One verdict for every event of the batch, in its order."""

    verdicts: Sequence[Verdict]

    @classmethod
    def all_delivered(cls, count: int) -> "Ack":
        """Every one of ``count`` events is delivered."""
        return cls([DELIVERED] * count)


class Limits(msgspec.Struct, frozen=True):
    """What one ``send`` may hold."""

    max_events: int = 1000
    max_batch_bytes: int = 1_000_000
    max_event_bytes: int = 1_000_000


class Destination(Protocol):
    """Delivers events and says for each what became of it. Never claims more than the peer confirmed."""

    name: str
    limits: Limits
    dedupe: Literal["by_id", "none"]

    def check(self) -> list[str]:
        """Say what is wrong with the set-up, one sentence each with the fix; empty when all is well."""
        ...

    def send(self, batch: Sequence[EncodedEvent], deadline: float) -> Ack:
        """Send ``batch`` until ``deadline`` (monotonic seconds).

        Raises:
            ConfigError, AuthError, TransientError: the whole call failed and no event was judged.
        """
        ...

    def confirm(self, token: str) -> Verdict:
        """Ask what became of a ``pending`` event."""
        ...

    def close(self) -> None:
        """Give back connections; sends nothing."""
        ...


class Lease(msgspec.Struct, frozen=True, gc=False):
    """The right to poll one source until ``expires`` (epoch seconds); ``token`` grows with every change of hands."""

    name: str
    owner: str
    token: int
    expires: float


class Leases(Protocol):
    """Who may poll what. Here in SQLite for one store; a shared table or blob makes the same promise for many."""

    owner: str

    def acquire(self, name: str, seconds: float) -> Lease | None:
        """Take the lease when it is free, expired or ours; None when another holds it."""
        ...

    def renew(self, leases: Sequence[Lease], seconds: float) -> list[Lease]:
        """Extend leases and give those that are still ours."""
        ...

    def release(self, leases: Sequence[Lease]) -> None:
        """Give leases back."""
        ...


class SecretResolver(Protocol):
    """Turns a typed reference (``env:NAME``, ``file:/path``, ``aws-sm:...``) into its value, at the time of use."""

    def resolve(self, reference: str) -> str:
        """Return the secret; raises ``ConfigError`` that names the reference, never the value."""
        ...
