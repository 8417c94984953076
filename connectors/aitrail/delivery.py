"""From the outbox to a destination: one ``Courier`` per destination, so that a slow one never holds up another.

A row leaves the outbox only when the destination says delivered, duplicate or rejected (then it is a dead letter). A
whole-call failure waits with full jitter, or as long as the peer asked, and nothing is judged meanwhile. Several
threads may drain one destination: each takes other events.
"""

import random
import threading
from collections import Counter
from collections.abc import Sequence

from msgspec import Struct, field

from aitrail.clock import Clock
from aitrail.errors import TransientError
from aitrail.ports import Destination, Verdict
from aitrail.routing.rate import Pace, Rate
from aitrail.spool import OutboxBatch, Spool

_FIRST_WAIT = 0.5
_LONGEST_WAIT = 60.0
_SEND_SECONDS = 120.0
_GONE = ("delivered", "duplicate", "rejected")


class Delivered(Struct):
    """What a courier did so far, by verdict, and what it waits for.

    Attributes:
        verdicts: events by verdict.
        waiting_until: epoch seconds until which nothing is tried, because the destination failed or said so.
        last_error: why; empty while all is well.
        paced_until: monotonic seconds at which the rate lets the next batch through.
    """

    verdicts: Counter[str] = field(default_factory=Counter)
    waiting_until: float = 0.0
    last_error: str = ""
    paced_until: float = 0.0


class Courier:
    """Moves the outbox of one destination. Thread-safe.

    Args:
        jitter: gives a number in [0, 1); injected so that tests are exact.
        rate: how fast at most; None: as fast as the destination takes it.

    Attributes:
        state: what it did, and what it waits for.
        halted: once set, no further send begins.
    """

    def __init__(
        self,
        spool: Spool,
        destination: Destination,
        clock: Clock,
        jitter: random.Random | None = None,
        *,
        rate: Rate | None = None,
    ) -> None:
        self._spool = spool
        self._destination = destination
        self._clock = clock
        self._jitter = jitter or random.Random()  # noqa: S311  (spreads retries, protects nothing)
        self._failures = 0
        self._pace = Pace(rate or Rate(), clock)
        self._lock = threading.Lock()
        # Which events are being sent: places by stored batch. After a crash they are simply sent again.
        self._under_way: dict[int, set[int]] = {}
        self._round = 0
        self.halted = threading.Event()
        self.state = Delivered()

    @property
    def batch_events(self) -> int:
        """How many events fill one send."""
        return self._destination.limits.max_events

    def drain(self, *, at_least: int = 1) -> int:
        """Send what waits while it is at least ``at_least`` events; returns how many left the outbox.

        Stops early, without an error, when the destination cannot be reached: ``state`` says why and until when.
        """
        moved = 0
        while self._clock.now() >= self.state.waiting_until and not self.halted.is_set():
            if at_least > 1 and self._spool.backlog(self._destination.name).events < at_least:
                break
            batch = self._take()
            if batch is None:
                break
            gone = self._send(batch)
            moved += gone
            if not gone:
                break
        return moved

    def confirmed(self, verdicts: Sequence[Verdict]) -> int:
        """Count what became of events that awaited an acknowledgement; returns how many left the outbox."""
        counts: Counter[str] = Counter([verdict.status for verdict in verdicts if verdict.status != "pending"])
        with self._lock:
            self.state.verdicts.update(counts)
        return sum(counts[status] for status in _GONE)

    def _take(self) -> OutboxBatch | None:
        """Take the next events that nobody sends yet, as many as limits and rate let through; None without any."""
        limits = self._destination.limits
        with self._lock:
            allowed = self._pace.allowance(limits.max_events, limits.max_batch_bytes)
            if allowed.wait:
                self.state.paced_until = self._clock.monotonic() + allowed.wait
                return None
            batch = self._spool.pending(self._destination.name, allowed.events, allowed.bytes, self._under_way)
            if batch is not None:
                self._mark(batch)
                self._pace.sent(len(batch.events), _bytes_of(batch))
            return batch

    def _send(self, batch: OutboxBatch) -> int:
        """Send and settle one batch; gives how many events left the outbox."""
        round_ = self._round
        settled = False
        try:
            ack = self._destination.send(batch.events, self._clock.monotonic() + _SEND_SECONDS)
            # Settling fails when the disk is full: what was sent is then sent again, under the same ids.
            self._spool.settle(batch, ack, self._clock.now())
            settled = True
        except TransientError as error:
            with self._lock:
                self._back_off(error, round_)
            return 0
        finally:
            with self._lock:
                self._unmark(batch)
                if not settled:
                    self._pace.sent(-len(batch.events), -_bytes_of(batch))
        verdicts: Counter[str] = Counter([verdict.status for verdict in ack.verdicts])
        with self._lock:
            self._failures = 0
            self.state.last_error = ""
            self.state.verdicts.update(verdicts)
        return sum(verdicts[status] for status in _GONE)

    def _mark(self, batch: OutboxBatch) -> None:
        for part in batch.key:
            places = range(part.count) if part.places is None else part.places
            self._under_way.setdefault(part.batch, set()).update(places)

    def _unmark(self, batch: OutboxBatch) -> None:
        for part in batch.key:
            left = self._under_way.get(part.batch, set())
            left.difference_update(range(part.count) if part.places is None else part.places)
            if not left:
                self._under_way.pop(part.batch, None)

    def _back_off(self, error: TransientError, round_: int) -> None:
        """Wait before the next attempt; sends that were under way together and fail together count as one failure."""
        self.state.last_error = error.sentence
        if round_ != self._round and error.retry_after is None:
            return
        if round_ == self._round:
            self._round += 1
            self._failures += 1
        ceiling = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** min(self._failures, 10))
        wait = error.retry_after if error.retry_after is not None else self._jitter.uniform(0, ceiling)
        until = self._clock.now() + min(max(wait, 0.05), 3600.0)
        self.state.waiting_until = max(until, self.state.waiting_until)


def _bytes_of(batch: OutboxBatch) -> int:
    return sum([len(event.body) for event in batch.events])
