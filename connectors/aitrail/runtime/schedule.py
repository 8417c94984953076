"""When a source is read again: intervals with jitter, growing pauses after failures, and what the peer asked for.

All times are monotonic seconds. Pauses after failures are drawn from the whole range up to a growing ceiling (full
jitter), so that many collectors that lost the same service do not come back in the same second.
"""

import random

from msgspec import Struct

LONGEST_PAUSE = 300.0
# What a peer may ask for at most; more is a mistake or an attack ("Retry-After: 31536000").
LONGEST_RETRY_AFTER = 3600.0
_FIRST_PAUSE = 1.0
_SPREAD = 0.1


class Schedule(Struct):
    """One source's times.

    Attributes:
        interval: seconds from the start of one turn to the start of the next.
        due: when the next turn may start.
        failures: how many turns in a row have failed.
    """

    interval: float
    due: float = 0.0
    failures: int = 0

    def succeeded(self, began: float, now: float, random_: random.Random, *, more: bool) -> None:
        """A turn from ``began`` to ``now`` went well; ``more`` is waiting: come back at once."""
        self.failures = 0
        if more:
            self.due = now
            return
        # A long poll may take longer than the interval; a tenth of it is left between two turns in any case.
        spread = self.interval * _SPREAD
        self.due = max(began + self.interval, now + spread) + random_.uniform(-spread, spread) / 2

    def failed(self, now: float, random_: random.Random, retry_after: float | None = None) -> float:
        """A turn failed; gives the seconds until the next."""
        self.failures += 1
        first = max(_FIRST_PAUSE, min(self.interval, LONGEST_PAUSE))
        ceiling = min(LONGEST_PAUSE, first * 2.0 ** min(self.failures, 20))
        if retry_after is None:
            pause = random_.uniform(min(first, ceiling / 2) / 2, ceiling)
        else:
            asked = min(max(retry_after, 0.0), LONGEST_RETRY_AFTER)
            pause = asked + random_.uniform(0.0, max(_SPREAD * asked, 0.1))
        self.due = now + pause
        return pause

    def put_off(self, now: float, seconds: float) -> None:
        """It cannot be read now for no fault of its own."""
        self.due = now + seconds
