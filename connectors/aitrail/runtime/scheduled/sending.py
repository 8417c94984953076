"""One destination gets its share of an intake: sent, asked about, tried again, until all is judged or time is over."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence

from aitrail.clock import Clock
from aitrail.errors import AitrailError, TransientError
from aitrail.ports import EncodedEvent, Verdict
from aitrail.routing.rate import Pace
from aitrail.routing.route import Route

_FIRST_WAIT = 0.2
_LONGEST_WAIT = 20.0
# Between two looks for an acknowledgement.
_CONFIRM_WAITS = (0.1, 0.2, 0.5, 1.0, 2.0)


class Sending:
    """What one destination makes of some events.

    Args:
        route: the destination.
        events: of the intake.
        places: which of them it gets.
        clock: time; ``send`` gets a deadline of its monotonic clock.
        left: seconds that may still be used.

    Attributes:
        open: places that have no final verdict.
        rejected: place -> reason code.
        verdicts: how many of each kind.
        error: what went wrong last, None when nothing did.
    """

    def __init__(
        self,
        route: Route,
        events: Sequence[EncodedEvent],
        places: Sequence[int],
        clock: Clock,
        left: Callable[[], float],
    ) -> None:
        self._destination = route.destination
        self._events = events
        self._clock = clock
        self._left = left
        self._pace = Pace(route.rate, clock)
        self._queue = list(places)
        self._awaited: dict[str, list[int]] = {}
        self._failures = 0
        self.open = set(places)
        self.rejected: dict[int, str] = {}
        self.verdicts: Counter[str] = Counter()
        self.error: AitrailError | None = None

    def run(self) -> None:
        """Do it; raises nothing that a destination may raise: ``error`` says what it was."""
        try:
            while self.open and self._left() > 0:
                if self._queue:
                    self._send()
                else:
                    self._confirm()
        except AitrailError as error:  # refused credentials, a wrong setting: this run cannot mend it
            self.error = error

    def _send(self) -> None:
        batch, wait = self._next()
        if wait:
            self._sleep(wait)
            return
        events = [self._events[place] for place in batch]
        try:
            ack = self._destination.send(events, self._clock.monotonic() + max(self._left(), 0.0))
        except TransientError as error:
            self.error = error
            self._failures += 1
            self._sleep(self._back_off(error.retry_after))
            return
        again: list[int] = []
        waits: list[float] = []
        for place, verdict in zip(batch, ack.verdicts, strict=True):
            if not self._judged(place, verdict):
                again.append(place)
                waits += [verdict.retry_after] if verdict.retry_after is not None else []
        self._queue = [*again, *self._queue[len(batch) :]]
        if again:
            self.error = TransientError(f"{self._destination.name} asks to try again")
            self._failures += 1
            self._sleep(self._back_off(max(waits, default=None)))
        else:
            self._failures = 0
            self.error = None

    def _next(self) -> tuple[list[int], float]:
        """The next places that fit one send, or how long to wait until something may be sent."""
        limits = self._destination.limits
        allowed = self._pace.allowance(limits.max_events, limits.max_batch_bytes)
        if allowed.wait:
            return [], allowed.wait
        batch: list[int] = []
        size = 0
        for place in self._queue:
            more = len(self._events[place].body)
            if batch and (len(batch) >= allowed.events or size + more > allowed.bytes):
                break
            batch.append(place)
            size += more
        self._pace.sent(len(batch), size)
        return batch, 0.0

    def _judged(self, place: int, verdict: Verdict) -> bool:
        """Take note of a verdict; False: the event has to be sent again."""
        if verdict.status == "retry":
            return False
        if verdict.status == "pending":
            self._awaited.setdefault(verdict.token, []).append(place)
            return True
        if verdict.status == "rejected":
            self.rejected[place] = verdict.code or "rejected"
        self.verdicts[verdict.status] += 1
        self.open.discard(place)
        return True

    def _confirm(self) -> None:
        """Ask what became of events that await an acknowledgement, one round."""
        before = len(self._awaited)
        for token, places in list(self._awaited.items()):
            try:
                verdict = self._destination.confirm(token)
            except TransientError as error:
                self.error = error
                break
            if verdict.status == "pending":
                continue
            del self._awaited[token]
            self._queue += [place for place in places if not self._judged(place, verdict)]
        if self._awaited:
            self._failures = 0 if len(self._awaited) < before else self._failures + 1
            self._sleep(_CONFIRM_WAITS[min(self._failures, len(_CONFIRM_WAITS) - 1)])
        else:
            self._failures = 0

    def _back_off(self, asked: float | None) -> float:
        """As long as the peer asks, else exponentially with full jitter."""
        if asked is not None:
            return max(asked, 0.05)
        ceiling = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** min(self._failures, 10))
        return max(0.05, random.uniform(0, ceiling))  # noqa: S311 - spreads retries, protects nothing

    def _sleep(self, seconds: float) -> None:
        """Wait, but not for something that this run will not see: then its time is better given back."""
        left = self._left()
        if seconds >= left:
            raise self.error or TransientError(f"{self._destination.name}: the time of this run is over")
        self._clock.sleep(seconds)


def send_all(work: Sequence[Sending]) -> None:
    """Run all; the first one in this thread, the others beside it, so that a slow one does not make the sum."""
    bugs: list[BaseException] = []

    def guarded(one: Sending) -> None:
        try:
            one.run()
        except BaseException as bug:  # noqa: BLE001 - raised below, in the caller's thread
            bugs.append(bug)

    threads = [threading.Thread(target=guarded, args=(one,), daemon=True) for one in work[1:]]
    for thread in threads:
        thread.start()
    if work:
        guarded(work[0])
    for thread in threads:
        thread.join()
    if bugs:
        raise bugs[0]
