"""Polling a log by time without losing what comes late: windows that overlap, in tiers, and a memory of ids.

Each poll reads from the newest event time that is known, minus 15 minutes, to now; every 30 minutes from two hours
back; once a day from 24 hours back. (CloudTrail delivers most events within 15 minutes and some after an hour; a log
group takes events that are up to 14 days old, usually seconds.) What the overlap brings again is recognised by a memory
of ids that reaches back 25 hours, and, where that is full or lost, by the event_id.

A window is cut into slices, oldest first; only a slice that was paged to its end moves the cursor. How pages are
ordered inside a slice does not matter. A slice with too many pages, or one that the budget cut off, is halved; a page
token that has expired or that comes again makes the slice start anew.
"""

import hashlib
from collections.abc import Generator, Iterator
from typing import Literal, Protocol

import msgspec
from msgspec import Struct

from aitrail.clock import Clock
from aitrail.errors import TransientError
from aitrail.ports import Cursors, RawBatch, RawRecord
from aitrail.sources._aws_seen import HOUR, Ring
from aitrail.sources._caps import BATCH_RECORDS
from aitrail.sources._meter import Meter

DAY = 24 * HOUR
OVERLAP = 15 * 60
MEMORY_HOURS = 26
# (seconds back, at most every so many seconds), longest first.
TIERS = ((DAY, DAY), (2 * HOUR, 30 * 60))
_MOST_PAGES = 100
_MOST_EMPTY_PAGES = 1_000
_MOST_RESTARTS = 3
_FEW_PAGES = 25
_SHORTEST = 1.0


class Item(Struct, frozen=True, gc=False):
    """One event of a page: its id, its time (epoch seconds) and its bytes."""

    id: str
    time: float
    data: bytes


class Page(Struct, frozen=True):
    """One page; ``token`` is empty on the last one."""

    items: list[Item]
    token: str = ""


class StaleTokenError(Exception):
    """The service does not know a page token any more."""


class Pager(Protocol):
    """Reads pages of [start, end] (epoch seconds, both ends included)."""

    def __call__(self, start: float, end: float, token: str) -> Page:
        """One page; raises ``StaleTokenError``, ``AuthError`` or ``TransientError``."""
        ...


class State(Struct, omit_defaults=True):
    """Where a target stands.

    Attributes:
        newest: time of the newest event that was read.
        done: end of the last window that was read to its end; 0 before the first.
        at, end: the window that is being read: everything before ``at`` is read. ``end`` 0: none.
        step: seconds of one slice.
        swept: when each tier was read last.
    """

    newest: float = 0.0
    done: float = 0.0
    at: float = 0.0
    end: float = 0.0
    step: float = DAY
    swept: list[float] = msgspec.field(default_factory=lambda: [0.0] * len(TIERS))
    v: int = 1


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(State).decode
_Ended = Literal["small", "normal", "large", "spent"]


class Target(Struct, frozen=True):
    """What is polled: the name of its cursors, the origin of its records, and how fine its positions are."""

    name: str
    origin: str
    pager: Pager
    positions_per_second: int = 1
    record_type: str = ""


class Tally(Struct):
    """How many events came, and how many of them were known already."""

    read: int = 0
    again: int = 0


class Windows:
    """Polls one target.

    Args:
        target: what to poll.
        cursors: where it stands.
        clock: now.
        key: secret of the remembered hashes.
        start: where the first window begins (epoch seconds; 0: 24 hours ago).
        only: read just this range, once.
        tally: counts.
    """

    def __init__(
        self, target: Target, cursors: Cursors, clock: Clock, key: bytes, *, start: float = 0.0,
        only: tuple[float, float] | None = None, tally: Tally | None = None,
    ) -> None:  # fmt: skip
        self._target = target
        self._clock = clock
        self._start = start
        self._only = only
        self._ring = Ring(cursors, target.name, MEMORY_HOURS, key)
        self._state = load(cursors.get(target.name))
        self._tally = tally or Tally()

    def batches(self, meter: Meter) -> Iterator[RawBatch]:
        """Yield what is new; raises ``AuthError`` and ``TransientError``."""
        state = self._state
        if not state.end and not self._open():
            return
        while state.at < state.end:
            stop = min(state.end, state.at + state.step)
            ended = yield from self._slice(state.at, stop, meter)
            if ended in ("large", "spent"):
                state.step = max(_SHORTEST, (stop - state.at) / 2)
            else:
                state.at = stop
                if ended == "small":
                    state.step = min(state.step * 2, 366.0 * DAY)
            if state.at >= state.end:
                self._close()
            yield self._place(settled=not state.end or meter.spent)
            if ended == "spent" or meter.spent:
                return

    def _open(self) -> bool:
        """Decide on the next window."""
        state, now = self._state, self._clock.now()
        if self._only is not None:
            state.at, state.end = self._only
            return state.done < state.end
        if not state.done:
            state.at, state.end = self._start or now - DAY, now
            return state.at < state.end
        known = min(state.done, now)
        begin = max(min(state.newest, known), known - DAY) - OVERLAP
        for place, (back, every) in enumerate(TIERS):
            if now - state.swept[place] >= every:
                begin = min(begin, known - back)
        state.at, state.end = begin, now
        return begin < now

    def _close(self) -> None:
        """The window is read to its end."""
        state = self._state
        begin_known = min(state.done or state.end, state.end)
        state.swept = [
            state.end if not state.done or state.end - swept >= every else swept
            for swept, (_, every) in zip(state.swept, TIERS, strict=True)
        ]
        state.done = max(begin_known, state.end)
        state.at = state.end = 0.0

    def _slice(self, start: float, stop: float, meter: Meter) -> Generator[RawBatch, None, _Ended]:
        tokens: set[str] = set()
        token, pages, empty, restarts = "", 0, 0, 0
        while True:
            try:
                page = self._target.pager(start, stop, token)
                turned = page.token in tokens
            except StaleTokenError:
                page, turned = Page([]), True
            yield from self._page(page, meter)
            pages += 1
            empty = 0 if page.items else empty + 1
            if turned:
                restarts += 1
                if restarts > _MOST_RESTARTS:
                    raise TransientError(f"{self._target.origin}: its pages turn in circles; read again next time")
                token = ""
                tokens.clear()
            elif not page.token:
                return "small" if pages <= _FEW_PAGES else "normal"
            else:
                token = page.token
                tokens.add(token)
            if meter.spent:
                return "spent"
            if empty >= _MOST_EMPTY_PAGES:
                raise TransientError(f"{self._target.origin}: {empty} empty pages in a row; read again next time")
            if pages >= _MOST_PAGES and stop - start > _SHORTEST:
                return "large"

    def _page(self, page: Page, meter: Meter) -> Iterator[RawBatch]:
        """Yield what of a page is new: a batch has one cursor, and the memory has one per hour."""
        fresh: dict[int, dict[bytes, Item]] = {}
        self._tally.read += len(page.items)
        for item in page.items:
            hour, ident = int(item.time) // HOUR, self._ring.ident(item.id)
            if self._ring.has(hour, ident) or ident in fresh.get(hour, ()):
                self._tally.again += 1
            else:
                fresh.setdefault(hour, {})[ident] = item
        for hour, items in sorted(fresh.items()):
            idents = list(items)
            for at in range(0, len(idents), BATCH_RECORDS):
                yield self._batch(hour, items, idents[at : at + BATCH_RECORDS], meter)

    def _batch(self, hour: int, items: dict[bytes, Item], idents: list[bytes], meter: Meter) -> RawBatch:
        target = self._target
        chosen = [items[ident] for ident in idents]
        records = []
        for item in chosen:
            position = int(item.time * target.positions_per_second)
            records.append(RawRecord(item.data, position, number_of(item.id), position))
        newest = max(item.time for item in chosen)
        self._state.newest = max(self._state.newest, min(newest, self._clock.now()))
        key, cursor = self._ring.cursor(hour) if self._ring.add(hour, *idents) else ("", b"")
        batch = RawBatch(
            target.origin,
            records,
            key,
            cursor,
            bytes_read=sum(len(item.data) for item in chosen),
            newest=newest,
            record_type=target.record_type,
        )
        meter.add(batch)
        return batch

    def _place(self, *, settled: bool) -> RawBatch:
        return RawBatch(self._target.origin, [], self._target.name, _encode(self._state), settled=settled)


def load(data: bytes | None) -> State:
    """Read a committed state; a fresh one when there is none, it is damaged or of another version."""
    if data:
        try:
            state = _decode(data)
        except (msgspec.DecodeError, ValueError):
            return State()
        if state.v == 1 and len(state.swept) == len(TIERS):
            return state
    return State()


def number_of(one: str) -> int:
    """A number for an event's id: the ``index`` by which its record is found again."""
    return int.from_bytes(hashlib.blake2b(one.encode("utf-8", "surrogatepass"), digest_size=6).digest())


def find(pager: Pager, time: float, index: int, span: float) -> bytes | None:
    """Read one event again by its time and ``number_of`` its id; None when it is not there any more."""
    token, tokens = "", set[str]()
    while token not in tokens:
        tokens.add(token)
        try:
            page = pager(time, time + span, token)
        except StaleTokenError:
            return None
        for item in page.items:
            if number_of(item.id) == index:
                return item.data
        if not page.token:
            return None
        token = page.token
    return None
