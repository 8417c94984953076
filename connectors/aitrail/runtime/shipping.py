"""One thread per destination, so that a slow or broken one never holds up the others or the reading.

A destination whose credentials or settings are refused is tried again every minute and said so once; its events wait
in the outbox meanwhile, none is dropped.
"""

import threading

import structlog

from aitrail.clock import Clock
from aitrail.delivery import Courier
from aitrail.errors import AuthError, ConfigError, TransientError
from aitrail.ports import Ack, Destination
from aitrail.spool import Spool

# How often a destination with nothing to do looks into the outbox when nobody wakes it.
_IDLE_SECONDS = 1.0
_REFUSED_SECONDS = 60.0


class Shipper:
    """Ships one destination's outbox in a thread of its own."""

    def __init__(self, spool: Spool, destination: Destination, clock: Clock) -> None:
        self.name = destination.name
        self.courier = Courier(spool, destination, clock)
        self._spool = spool
        self._destination = destination
        self._clock = clock
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"ship-{self.name}", daemon=True)
        self._log = structlog.get_logger("aitrail.ship").bind(destination=self.name)
        self._said = ""

    def start(self) -> None:
        """Start shipping."""
        self._thread.start()

    def wake(self) -> None:
        """There is something new in the outbox."""
        self._wake.set()

    def stop(self, seconds: float) -> None:
        """Ship what waits for at most ``seconds``, then end. What is left stays in the outbox for the next start."""
        self._stop.set()
        self._wake.set()
        self._thread.join(seconds)
        self._destination.close()

    def once(self) -> int:
        """Ship what can be shipped now and ask about what is pending; gives how many events left the outbox."""
        try:
            moved = self.courier.drain() + self._confirm()
        except (AuthError, ConfigError) as error:
            self.courier.state.waiting_until = self._clock.now() + _REFUSED_SECONDS
            self.courier.state.last_error = str(error)
            moved = 0
        self._say(self.courier.state.last_error)
        return moved

    def _run(self) -> None:
        while True:
            stopping = self._stop.is_set()
            moved = self.once()
            if stopping and not moved:
                return
            if not moved:
                self._wake.wait(_IDLE_SECONDS)
                self._wake.clear()

    def _confirm(self) -> int:
        batch = self._spool.awaiting(self.name)
        if batch is None:
            return 0
        answers = {}
        for token in dict.fromkeys(batch.tokens):
            try:
                answers[token] = self._destination.confirm(token)
            except TransientError as error:
                self.courier.state.last_error = str(error)
                return 0
        verdicts = [answers[token] for token in batch.tokens]
        self._spool.settle(batch, Ack(verdicts), self._clock.now())
        return sum(verdict.status in ("delivered", "duplicate", "rejected") for verdict in verdicts)

    def _say(self, trouble: str) -> None:
        """Log a change of state once, not at every try."""
        if trouble and not self._said:
            self._log.warning("destination cannot be reached; its events wait", error=trouble)
        elif self._said and not trouble:
            self._log.warning("destination works again")
        self._said = trouble
