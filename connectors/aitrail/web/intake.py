"""From requests to the outbox: one thread that makes what was posted durable, many requests with one commit.

A request hands over its records and waits. The thread takes all that wait, runs them through the receivers' pipelines,
commits, and only then lets the answers go: 202 means that the records survive a crash. When a commit fails, nothing of
these requests was taken in and all of them are told so; their senders come again, under the same event_ids.
"""

import hashlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import structlog
from msgspec import Struct, field

from aitrail.errors import AitrailError, TransientError
from aitrail.normalize.outcome import Rejected
from aitrail.pipeline import Totals
from aitrail.ports import Budget, Cursors, RawBatch, RawRecord, Workload

# One commit takes at most this much of what waits, so that no answer waits for the whole queue.
_COMMIT_RECORDS = 2_000
_COMMIT_BYTES = 8 << 20
_BUSY_SECONDS = 1.0
_FULL_SECONDS = 5.0
# How often parts that wait for their siblings are looked at while any are held.
_TICK = 0.05


class Answer(Struct):
    """What became of a request: whether its records are durable, which of them are dead letters; or why not."""

    taken: bool
    records: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    code: str = ""
    message: str = ""
    retry_after: float = _BUSY_SECONDS


class Posted(Struct):
    """Records of one request, and what to call when their fate is known (from the committing thread)."""

    receiver: str
    records: Sequence[RawRecord]
    size: int
    done: Callable[[Answer], None]
    record_type: str = ""
    fingerprint: str = ""
    rejected: Counter[str] = field(default_factory=Counter)


class Flow(Protocol):
    """What the committer asks of a pipeline."""

    def run(self, budget: Budget | None = None, *, flush_older_than: float | None = None) -> Totals:
        """Take what the source gives and commit it."""
        ...


MakeFlow = Callable[["PushSource"], Flow]


class PushSource:
    """A source whose records were posted; holds those that are being made durable."""

    def __init__(self, name: str, key: bytes) -> None:
        self.name = name
        self._key = key
        self._queue: deque[Posted] = deque()
        self._open: dict[str, tuple[str, Posted]] = {}
        self._number = 0
        self._by_origin: dict[str, Posted] = {}

    def give(self, posted: Sequence[Posted]) -> None:
        """Take requests to be handed out by the next fetch."""
        self._queue.extend(posted)

    @property
    def held(self) -> int:
        """Requests that wait for the rest of their events."""
        return len(self._open)

    def fetch(self, cursors: Cursors, budget: Budget) -> Iterator[RawBatch]:
        """Give the records of every request that waits."""
        del cursors, budget
        while self._queue:
            posted = self._queue.popleft()
            self._number += 1
            receipt = str(self._number)
            origin = f"{self.name}/{posted.fingerprint}"
            self._open[receipt] = (origin, posted)
            self._by_origin[origin] = posted
            yield RawBatch(
                origin=origin,
                records=posted.records,
                cursor_key="",
                cursor=b"",
                bytes_read=posted.size,
                settled=True,
                receipt=receipt,
                record_type=posted.record_type,
            )

    def acknowledge(self, receipts: Sequence[str]) -> None:
        """These requests are durable: let their answers go."""
        for receipt in receipts:
            origin, posted = self._open.pop(receipt, ("", None))
            if posted is not None:
                self._by_origin.pop(origin, None)
                posted.done(Answer(True, len(posted.records), posted.rejected))

    def refused(self, origin: str, rejected: Rejected) -> None:
        """A record of a request became a dead letter: its answer will say so."""
        posted = self._by_origin.get(origin)
        if posted is not None:
            posted.rejected[rejected.code] += 1

    def fail(self, answer: Answer) -> None:
        """Tell every request in hand that nothing of it was taken in."""
        waiting = [*(posted for _, posted in self._open.values()), *self._queue]
        self._open.clear()
        self._queue.clear()
        self._by_origin.clear()
        for posted in waiting:
            posted.done(answer)

    def survey(self, cursors: Cursors) -> Workload:
        """Nobody knows what will be posted."""
        del cursors
        return Workload()

    def check(self) -> list[str]:
        """A receiver's settings are checked when the server starts."""
        return []

    def reread(self, origin: str, position: int, end: int, index: int) -> bytes | None:
        """What was posted cannot be read again: only its sender has it."""
        del origin, position, end, index
        return None

    def fingerprint(self, body: bytes) -> str:
        """A name for a body that is the same when it is sent again, and tells nothing about it."""
        return hashlib.blake2b(body, digest_size=12, key=self._key[:64]).hexdigest()


class Stats(Struct):
    """What a receiver did since the start, for /metrics."""

    requests: Counter[str] = field(default_factory=Counter)
    records: int = 0
    rejected: int = 0
    bytes: int = 0


class _Lane(Struct):
    """One receiver: its source, how its pipeline is made, and how long its parts may wait for one another."""

    source: PushSource
    make: MakeFlow
    join_seconds: float
    flow: Flow


class Committer:
    """The thread between the requests and the outbox.

    Args:
        max_waiting: bytes of bodies that may wait; more are refused at once.
        on_crash: called with what stopped the thread when that is a bug: nothing more will be made durable.
        now: epoch seconds.
    """

    def __init__(
        self, max_waiting: int, on_crash: Callable[[BaseException], None], now: Callable[[], float] = time.time
    ) -> None:
        self._max_waiting = max_waiting
        self._on_crash = on_crash
        self._now = now
        self._lanes: dict[str, _Lane] = {}
        self._inbox: deque[Posted] = deque()
        self._waiting = 0
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._hurried = False
        self._thread = threading.Thread(target=self._run, name="commit-posted", daemon=True)
        self._log = structlog.get_logger("aitrail.serve")
        self.trouble = ""
        self.paused = ""  # set from outside while the outbox is over its limit
        self.commits = 0

    def add(self, source: PushSource, make: MakeFlow, join_seconds: float) -> None:
        """Add a receiver; before ``start``."""
        self._lanes[source.name] = _Lane(source, make, join_seconds, make(source))

    def start(self) -> None:
        """Start making durable."""
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Bytes of bodies that are not durable yet."""
        return self._waiting

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def post(self, posted: Posted) -> Answer | None:
        """Hand over a request; an answer at once when it cannot be taken, else ``posted.done`` is called later."""
        with self._lock:
            if self._stopping:
                return Answer(False, code="stopping", message="the receiver is stopping; send it again")
            if self.paused:
                return Answer(
                    False,
                    code="outbox_full",
                    message="the outbox is over its limit because a destination does not take events; send it again",
                    retry_after=_FULL_SECONDS,
                )
            if self._waiting and self._waiting + posted.size > self._max_waiting:
                return Answer(False, code="busy", message="too much is waiting to be made durable; send it again")
            self._waiting += posted.size
            answer = posted.done

            def done(told: Answer) -> None:
                with self._lock:
                    self._waiting -= posted.size
                answer(told)

            posted.done = done
            self._inbox.append(posted)
        self._wake.set()
        return None

    def hurry(self) -> None:
        """Parts of calls wait for one another no longer: the server is about to stop."""
        self._hurried = True
        self._wake.set()

    def stop(self, seconds: float) -> None:
        """Make durable what was handed over, then end; what cannot be made so in time is refused."""
        with self._lock:
            self._stopping = True
        self._wake.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except BaseException as error:  # noqa: BLE001  (whatever it is, nobody may be told 202 any more)
            self._abandon(error)

    def _turn(self) -> bool:
        """One commit for each receiver that has something; False when it is time to end."""
        held = any(lane.source.held for lane in self._lanes.values())
        self._wake.wait(_TICK if held else 60.0)
        self._wake.clear()
        with self._lock:
            stopping = self._stopping or self._hurried
            batch = self._take()
            more = bool(self._inbox)
        for posted in batch:
            self._lanes[posted.receiver].source.give((posted,))
        names = {posted.receiver for posted in batch}
        for name, lane in self._lanes.items():
            if name in names or lane.source.held:
                self._commit(name, lane, flush_all=stopping and not more)
        if more:
            self._wake.set()
        return more or not self._stopping

    def _take(self) -> list[Posted]:
        batch: list[Posted] = []
        records = size = 0
        while self._inbox and records < _COMMIT_RECORDS and size < _COMMIT_BYTES:
            posted = self._inbox.popleft()
            batch.append(posted)
            records += len(posted.records)
            size += posted.size
        return batch

    def _commit(self, name: str, lane: _Lane, *, flush_all: bool) -> None:
        older = None if flush_all or not lane.join_seconds else lane.join_seconds
        try:
            did = lane.flow.run(flush_older_than=older)
        except AitrailError as error:
            self._failed(name, lane, error)
            return
        self.commits += did.records > 0
        if self.trouble:
            self._log.warning("the store takes records again")
        self.trouble = ""

    def _failed(self, name: str, lane: _Lane, error: AitrailError) -> None:
        """Nothing of these requests is durable: say so, and begin with an empty pipeline."""
        if not self.trouble:
            self._log.warning("nothing can be made durable; senders get 503", receiver=name, error=str(error))
        self.trouble = str(error)
        asked = error.retry_after if isinstance(error, TransientError) else None
        lane.source.fail(
            Answer(
                False,
                code="store_full",
                message="the store cannot take records now; send it again",
                retry_after=asked or _FULL_SECONDS,
            )
        )
        lane.flow = lane.make(lane.source)

    def _abandon(self, error: BaseException) -> None:
        with self._lock:
            self._stopping = True
            left = list(self._inbox)
            self._inbox.clear()
        self._on_crash(error)  # before anybody is told: a sender that comes again meets a server that ends
        answer = Answer(False, code="crashed", message="the receiver has to be restarted; send it again")
        for lane in self._lanes.values():
            lane.source.fail(answer)
        for posted in left:
            posted.done(answer)
