"""How fast a destination is fed: a token bucket for events and one for bytes, a second's worth of burst in each."""

from typing import Annotated

from msgspec import Meta, Struct

from aitrail.clock import Clock


class Rate(Struct, frozen=True, forbid_unknown_fields=True):
    """``rate = { events = 500, bytes = 1_000_000 }``: at most so much per second; 0 does not limit."""

    events: Annotated[float, Meta(description="Events per second.", ge=0)] = 0.0
    bytes: Annotated[float, Meta(description="Bytes of events per second, as the outbox holds them.", ge=0)] = 0.0


class Allowance(Struct, frozen=True):
    """What may be sent now; ``wait`` is the time until something may, 0 when it is now."""

    events: int
    bytes: int
    wait: float = 0.0


class Pace:
    """Counts what was sent against a rate.

    A single event may be larger than a second's worth of bytes: it goes once the bucket is full, and what it takes
    beyond that is waited for afterwards. So the average holds, whatever the sizes.
    """

    def __init__(self, rate: Rate, clock: Clock) -> None:
        self._clock = clock
        self._buckets = [_Bucket(rate.events), _Bucket(rate.bytes)]
        self._at = clock.monotonic()

    def allowance(self, most_events: int, most_bytes: int) -> Allowance:
        """Say how much of a batch of at most this size may be sent now."""
        self._refill()
        wait = max(bucket.wait(most) for bucket, most in zip(self._buckets, (most_events, most_bytes), strict=True))
        events, size = (
            bucket.allowed(most) for bucket, most in zip(self._buckets, (most_events, most_bytes), strict=True)
        )
        return Allowance(max(1, events), max(1, size), wait)

    def sent(self, events: int, size: int) -> None:
        """Take note of a batch that is sent; negative numbers take back one that was not."""
        self._refill()
        for bucket, used in zip(self._buckets, (events, size), strict=True):
            bucket.take(used)

    def _refill(self) -> None:
        now = self._clock.monotonic()
        for bucket in self._buckets:
            bucket.fill(now - self._at)
        self._at = now


class _Bucket:
    """Tokens of one kind; a rate of 0 is no limit."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        # A rate below one event per second still lets one whole event through.
        self._burst = max(rate, 1.0)
        self._level = self._burst

    def fill(self, seconds: float) -> None:
        self._level = min(self._burst, self._level + max(0.0, seconds) * self._rate)

    def take(self, used: int) -> None:
        if self._rate:
            self._level -= used

    def allowed(self, most: int) -> int:
        return min(most, int(self._level)) if self._rate else most

    def wait(self, most: int) -> float:
        """Seconds until a batch is worth sending: half a second's worth, or a whole batch when that is less."""
        if not self._rate:
            return 0.0
        goal = min(float(most), max(1.0, self._burst / 2))
        # A hair's breadth of slack: sums of fractions never quite reach a whole number.
        return 0.0 if self._level >= goal - 1e-6 else (goal - self._level) / self._rate
