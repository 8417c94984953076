"""From the outbox to a destination: one ``Courier`` per destination, so that a slow one never holds up another.

A row leaves the outbox only when the destination says delivered, duplicate or rejected (then it is a dead letter). A
whole-call failure waits with full jitter, or as long as the peer asked, and nothing is judged meanwhile.
"""

import random
from collections import Counter

from msgspec import Struct, field

from aitrail.clock import Clock
from aitrail.errors import TransientError
from aitrail.ports import Destination
from aitrail.spool import Spool

_FIRST_WAIT = 0.5
_LONGEST_WAIT = 60.0
_SEND_SECONDS = 120.0


class Delivered(Struct):
    """What a courier did so far, by verdict, and what it waits for."""

    verdicts: Counter[str] = field(default_factory=Counter)
    waiting_until: float = 0.0
    last_error: str = ""


class Courier:
    """Moves the outbox of one destination.

    Args:
        jitter: gives a number in [0, 1); injected so that tests are exact.
    """

    def __init__(
        self, spool: Spool, destination: Destination, clock: Clock, jitter: random.Random | None = None
    ) -> None:
        self._spool = spool
        self._destination = destination
        self._clock = clock
        self._jitter = jitter or random.Random()  # noqa: S311  (spreads retries, protects nothing)
        self._failures = 0
        self.state = Delivered()

    @property
    def batch_events(self) -> int:
        """How many events fill one send."""
        return self._destination.limits.max_events

    def drain(self, *, at_least: int = 1) -> int:
        """Send what waits while it is at least ``at_least`` events; returns how many left the outbox.

        Stops early, without an error, when the destination cannot be reached: ``state`` says why and until when.
        """
        limits = self._destination.limits
        moved = 0
        while self._clock.now() >= self.state.waiting_until:
            if at_least > 1 and self._spool.backlog(self._destination.name).events < at_least:
                break
            batch = self._spool.pending(self._destination.name, limits.max_events, limits.max_batch_bytes)
            if batch is None:
                break
            try:
                ack = self._destination.send(batch.events, self._clock.monotonic() + _SEND_SECONDS)
                # Settling fails when the disk is full: what was sent is then sent again, under the same ids.
                self._spool.settle(batch, ack, self._clock.now())
            except TransientError as error:
                self._back_off(error)
                break
            self._failures = 0
            self.state.last_error = ""
            verdicts = Counter(verdict.status for verdict in ack.verdicts)
            self.state.verdicts.update(verdicts)
            gone = verdicts["delivered"] + verdicts["duplicate"] + verdicts["rejected"]
            moved += gone
            if not gone:
                break
        return moved

    def _back_off(self, error: TransientError) -> None:
        self._failures += 1
        ceiling = min(_LONGEST_WAIT, _FIRST_WAIT * 2**self._failures)
        wait = error.retry_after if error.retry_after is not None else self._jitter.uniform(0, ceiling)
        self.state.waiting_until = self._clock.now() + min(max(wait, 0.05), 3600.0)
        self.state.last_error = str(error)
