"""What goes into the spool and what comes out of it."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from aitrail.ports import EncodedEvent, Lease
from aitrail.spool.states import SourceState

Stage = Literal["frame", "normalize", "deliver"]


class DeadLetter(msgspec.Struct, frozen=True, gc=False):
    """A record or event that could not go on, with the reason and the place to find it again.

    Attributes:
        id: deterministic (``dead_letter_id``): meeting the same failure again gives the same row.
        source: name of the source.
        origin: the object that holds the record.
        position: byte offset of the record in the decompressed text of its object.
        end: offset just behind it; 0 when not known.
        index: number of the record in its object.
        code: bounded reason code.
        field: which field was wrong, when one was.
        record_type: the type that the record was taken for.
        stage: where it stopped: ``frame`` (bytes to records), ``normalize`` or ``deliver``.
        destination: who refused it, at stage ``deliver``.
        event_id: the event's id, at stage ``deliver``.
        raw: content, only where the content mode allows it; at stage ``deliver`` the event as it was sent.
        first_seen: epoch seconds.
        resolved: epoch seconds at which it was settled; None while it is open.
    """

    id: str
    source: str
    origin: str
    position: int
    end: int
    index: int
    code: str
    field: str
    record_type: str
    stage: Stage
    destination: str = ""
    event_id: str = ""
    raw: bytes | None = None
    first_seen: float = 0.0
    resolved: float | None = None


def dead_letter_id(
    source: str, origin: str, position: int, index: int, code: str, *, destination: str = "", event_id: str = ""
) -> str:
    """Derive the id of a dead letter: 24 hex digits over its place and reason (and who refused which event)."""
    parts = (source, origin, str(position), str(index), code, destination, event_id)
    key = "\x00".join(parts).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(key, digest_size=12).hexdigest()


class DeadLetterFilter(msgspec.Struct, frozen=True):
    """Which dead letters to list; an empty field does not restrict.

    Attributes:
        resolved: False for open ones, True for settled ones, None for both.
        limit: at most this many, oldest first.
    """

    source: str = ""
    stage: str = ""
    code: str = ""
    destination: str = ""
    record_type: str = ""
    origin: str = ""
    resolved: bool | None = False
    limit: int | None = None


class Intake(msgspec.Struct, gc=False):
    """One step of the flow, to be made durable as a whole.

    Attributes:
        source: name of the source.
        destinations: who shall get the new events.
        events: the events, in their order.
        cursors: the source's cursors that are right once this is durable.
        dead: records that could not go on.
        unless: event_id -> another event_id: drop the event when that other one is already known or comes with it.
        parts: ids of the parts that the events were joined from (``Spool.known_parts``).
        counts: counter name -> increment, kept per source.
        resolved: ids of dead letters that are settled by this.
        namespace: whose cursors these are, when not the source's own (a back-fill).
        lease: refuse all of it unless this is still the newest lease of its name.
        attestations: origin -> what is known of its integrity.
        state: what there is to say about the source once this is durable.
        batches: for each event the number of the batch that it came with, as the pipeline counts them.
    """

    source: str
    destinations: Sequence[str]
    events: Sequence[EncodedEvent]
    cursors: dict[str, bytes]
    dead: Sequence[DeadLetter] = ()
    unless: dict[str, str] = msgspec.field(default_factory=dict)
    parts: Sequence[str] = ()
    counts: dict[str, int] = msgspec.field(default_factory=dict)
    resolved: Sequence[str] = ()
    namespace: str = ""
    lease: Lease | None = None
    attestations: Mapping[str, str] = {}
    state: SourceState | None = None
    batches: Sequence[int] = ()


class Committed(msgspec.Struct, frozen=True, gc=False):
    """What a commit did.

    Attributes:
        new: events that were not known before; ``new + duplicates`` is the number of events handed in.
        duplicates: events that were not taken, because they or their counterpart (``unless``) are known.
        first_seq: running number of the first new event, from 1; the others follow in their order. 0 without new ones.
        superseded: how many of the duplicates were dropped for their counterpart.
        dead: dead letters that were not open before.
    """

    new: int
    duplicates: int
    first_seq: int = 0
    superseded: int = 0
    dead: int = 0


class Part(msgspec.Struct, frozen=True, gc=False):
    """Which events of one stored batch an ``OutboxBatch`` holds; ``places`` are ascending, None means all."""

    batch: int
    count: int
    source: str
    places: tuple[int, ...] | None


class OutboxBatch(msgspec.Struct, frozen=True, gc=False):
    """Events to deliver to one destination.

    Attributes:
        key: opaque; names the stored batches for ``settle``.
        destination: who gets them.
        events: the events, oldest first.
        tokens: for ``Spool.awaiting`` only: the token of each event, in their order.
    """

    key: tuple[Part, ...]
    destination: str
    events: Sequence[EncodedEvent]
    tokens: Sequence[str] = ()


class Cap(msgspec.Struct, frozen=True):
    """How much the outbox may hold before sources pause: bytes on disk and age of the oldest event; 0: no limit.

    Attributes:
        bytes: of the outbox's files.
        seconds: since the oldest waiting event was taken in.
        resume: sources go on below this share of the limit.
    """

    bytes: int = 0
    seconds: float = 0.0
    resume: float = 0.8


class Run(msgspec.Struct, frozen=True):
    """One run of a command: when (epoch seconds) and what it added up to; ``ended`` is None while it lasts."""

    id: int
    command: str
    started: float
    ended: float | None
    totals: dict[str, int]
