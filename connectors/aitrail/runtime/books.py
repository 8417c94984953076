"""What the collector writes down about itself, its sources and destinations, so that others can look (``status``)."""

import os
import socket
from collections import Counter
from collections.abc import Mapping

from aitrail import __version__
from aitrail.delivery import Delivered
from aitrail.runtime.assemble import STORE, Runtime
from aitrail.runtime.schedule import Schedule
from aitrail.spool import states
from aitrail.spool.states import VERDICTS, CollectorState, DestinationState, SourceState

# How often it is written down when nothing happens: the heartbeat. What goes wrong is written down within a second.
HEARTBEAT_SECONDS = 10.0
_SOON_SECONDS = 1.0
COLLECTOR = "collector"


class Books:
    """Keeps the states of one process up to date in the store."""

    def __init__(self, runtime: Runtime, mode: str) -> None:
        self._runtime = runtime
        self._clock = runtime.clock
        self._database = runtime.spool.database
        now = self._clock.now()
        self._collector = CollectorState(
            pid=os.getpid(), host=socket.gethostname(), version=__version__, mode=mode, started=now, heartbeat=now
        )
        states.forget(self._database, SourceState, runtime.config.sources)
        states.forget(self._database, DestinationState, {STORE, *(shipper.name for shipper in runtime.shippers)})
        self._sources = states.load(self._database, SourceState)
        self._destinations = states.load(self._database, DestinationState)
        self._started = {name: _verdicts(state) for name, state in self._destinations.items()}
        self._written = float("-inf")
        self._news = True

    def source(self, name: str) -> SourceState:
        """The state of a source as it was left."""
        state = self._sources.get(name, SourceState())
        state.state, state.oldest_open, state.next_due = "idle", 0.0, 0.0
        return state

    # --- what happened

    def due(self, state: SourceState, schedule: Schedule) -> None:
        """A source is read again at the time that ``schedule`` says."""
        state.next_due = self._clock.now() + max(0.0, schedule.due - self._clock.monotonic())
        state.failures = schedule.failures

    def succeeded(self, state: SourceState, schedule: Schedule) -> None:
        """A turn went well."""
        self._news |= bool(state.failures)
        state.state, state.last_success, state.last_error = "idle", self._clock.now(), ""
        self.due(state, schedule)

    def failed(self, state: SourceState, schedule: Schedule, error: str) -> None:
        """A turn failed."""
        state.state, state.last_error, state.error_at = "waiting", error, self._clock.now()
        self.due(state, schedule)
        self._news = True

    # --- writing it down

    def keep(self, sources: Mapping[str, SourceState]) -> None:
        """Write it down when it is time to."""
        self._news |= any(
            shipper.courier.state.last_error != self._destinations.get(shipper.name, DestinationState()).last_error
            for shipper in self._runtime.shippers
        )
        since = self._clock.monotonic() - self._written
        if since >= HEARTBEAT_SECONDS or (self._news and since >= _SOON_SECONDS):
            self._write(sources)

    def close(self, sources: Mapping[str, SourceState]) -> None:
        """Write down that the process ends in order."""
        self._collector.stopped = self._clock.now()
        for state in sources.values():
            state.next_due = 0.0
            state.state = "waiting" if state.failures else "idle"
        self._write(sources)

    def _write(self, sources: Mapping[str, SourceState]) -> None:
        self._written = self._clock.monotonic()
        self._news = False
        self._collector.heartbeat = self._clock.now()
        couriers = {shipper.name: shipper.courier for shipper in self._runtime.shippers}
        couriers[STORE] = self._runtime.courier
        destinations = [(name, self._destination(name, courier.state)) for name, courier in couriers.items()]
        states.save(self._database, [(COLLECTOR, self._collector), *sources.items(), *destinations])

    def _destination(self, name: str, now: Delivered) -> DestinationState:
        """The counts of former processes and of this one, and what is in the way now."""
        state = self._destinations.setdefault(name, DestinationState())
        counts = {kind: self._started.get(name, Counter())[kind] + now.verdicts[kind] for kind in VERDICTS}
        fresh = now.last_error and now.last_error != state.last_error
        state = DestinationState(
            **counts,
            last_error=now.last_error,
            error_at=self._clock.now() if fresh else state.error_at,
            waiting_until=now.waiting_until,
        )
        self._destinations[name] = state
        return state


def _verdicts(state: DestinationState) -> Counter[str]:
    return Counter({kind: getattr(state, kind) for kind in VERDICTS})
