"""One thread per destination, so that a slow or broken one never holds up the others or the reading.

A destination whose credentials or settings are refused is tried again every minute and said so once; its events wait
in the outbox meanwhile, none is dropped.
"""

import threading
import traceback
from pathlib import Path

import structlog

from aitrail.clock import Clock
from aitrail.delivery import Courier
from aitrail.errors import AitrailError, AuthError, ConfigError, TransientError
from aitrail.ports import Ack, Destination
from aitrail.routing.by_stream import upkeep
from aitrail.routing.rate import Rate
from aitrail.spool import Spool

# How often a destination with nothing to do looks into the outbox when nobody wakes it.
_IDLE_SECONDS = 1.0
_REFUSED_SECONDS = 60.0
# At the end: how much longer than asked for a send may take that is under way.
_LAST_SEND_SECONDS = 1.0


def described(error: BaseException) -> str:
    """Kind and place of an unexpected error; not its text, which may hold content of an event."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"


class Shipper:
    """Ships one destination's outbox in a thread of its own; ``parallel`` ones while much waits."""

    def __init__(
        self, spool: Spool, destination: Destination, clock: Clock, *, rate: Rate | None = None, parallel: int = 1
    ) -> None:
        self.name = destination.name
        self.courier = Courier(spool, destination, clock, rate=rate)
        self._spool = spool
        self._destination = destination
        self._clock = clock
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"ship-{self.name}", daemon=True)
        self._log = structlog.get_logger("aitrail.ship").bind(destination=self.name)
        self._said = ""
        self._parallel = parallel

    def start(self) -> None:
        """Start shipping."""
        self._thread.start()

    def wake(self) -> None:
        """There is something new in the outbox."""
        self._wake.set()

    def finish(self) -> None:
        """Ship what waits, then end; returns at once."""
        self._stop.set()
        self._wake.set()

    def stop(self, seconds: float) -> None:
        """Ship what waits for at most ``seconds``, then end. What is left stays in the outbox for the next start."""
        self.finish()
        self._thread.join(seconds)
        self.courier.halted.set()
        self._thread.join(_LAST_SEND_SECONDS)
        self._destination.close()

    def once(self) -> int:
        """Ship what can be shipped now and ask about what is pending; gives how many events left the outbox."""
        try:
            moved = self._drain() + self._confirm()
        except (AuthError, ConfigError) as error:
            self._refused(error.sentence)
            moved = 0
        # What concerns some kinds of events only stops nothing, but is to be seen.
        self.courier.state.last_error = self.courier.state.last_error or str(getattr(self._destination, "trouble", ""))
        self._say(self.courier.state.last_error)
        return moved

    def _run(self) -> None:
        while True:
            stopping = self._stop.is_set()
            try:
                moved = self.once()
            except Exception as error:  # noqa: BLE001  (a bug: it must not end the shipping without a word)
                if self.courier.halted.is_set():
                    return  # the store is closed under a send that did not end in time; it is sent again
                moved = 0
                self._refused(f"a bug in shipping: {described(error)}")
                self._say(self.courier.state.last_error)
            if stopping and not moved:
                return
            if not moved:
                self._upkeep()
                paced = self.courier.state.paced_until - self._clock.monotonic()
                self._wake.wait(paced if 0 < paced < _IDLE_SECONDS else _IDLE_SECONDS)
                self._wake.clear()

    def _refused(self, why: str) -> None:
        self.courier.state.waiting_until = self._clock.now() + _REFUSED_SECONDS
        self.courier.state.last_error = why

    def _drain(self) -> int:
        """Send what waits; by several threads when it is more than one batch."""
        if self._parallel == 1 or self._spool.backlog(self.name).events <= self.courier.batch_events:
            return self.courier.drain()
        moved: list[int] = []
        errors: list[Exception] = []

        def work() -> None:
            try:
                moved.append(self.courier.drain())
            except Exception as error:  # noqa: BLE001  (raised below, in the shipper's own thread)
                errors.append(error)

        # Daemon threads: a send that hangs must not keep the process from ending.
        names = [f"ship-{self.name}-{number}" for number in range(1, self._parallel)]
        threads = [threading.Thread(target=work, name=name, daemon=True) for name in names]
        for thread in threads:
            thread.start()
        work()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return sum(moved)

    def _upkeep(self) -> None:
        """Let the destination look after itself while nothing is to be sent; what fails is tried another time."""
        try:
            upkeep(self._destination)
        except AitrailError as error:
            self._log.warning("upkeep failed", error=error.sentence)

    def _confirm(self) -> int:
        batch = self._spool.awaiting(self.name)
        if batch is None:
            return 0
        answers = {}
        for token in dict.fromkeys(batch.tokens):
            try:
                answers[token] = self._destination.confirm(token)
            except TransientError as error:
                self.courier.state.last_error = error.sentence
                return 0
        verdicts = [answers[token] for token in batch.tokens]
        self._spool.settle(batch, Ack(verdicts), self._clock.now())
        return self.courier.confirmed(verdicts)

    def _say(self, trouble: str) -> None:
        """Log a change of state once, not at every try."""
        if trouble and not self._said:
            self._log.warning("destination cannot be reached; its events wait", error=trouble)
        elif self._said and not trouble:
            self._log.warning("destination works again")
        self._said = trouble
