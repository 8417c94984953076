"""Report the collector's health at regular times, through the outbox like everything else."""

import socket
from collections.abc import Collection, Mapping

from aitrail.health import Vitals, report
from aitrail.runtime.assemble import STORE, Runtime
from aitrail.spool import Intake, states
from aitrail.spool.states import DestinationState, SourceState
from aitrail.streams import encoded

# The name of the source under which the collector's own events are in the outbox.
SOURCE = "aitrail"


class HealthReports:
    """Looks at the clock; commits a report when it is time and somebody takes it.

    Args:
        runtime: the open store.
        receivers: what is pushed to in this process; reported as sources that are never read, so never late for that.
    """

    def __init__(self, runtime: Runtime, receivers: Collection[str] = ()) -> None:
        self._runtime = runtime
        self._receivers = tuple(receivers)
        self._settings = runtime.config.health
        self._collector = self._settings.collector or socket.gethostname().lower()
        chooser = runtime.spool.chooser
        self._takers = chooser.takers("health") if chooser is not None else []
        self._reported = float("-inf")

    def keep(self, sources: Mapping[str, SourceState], held: str) -> bool:
        """Report when the interval is over; says whether it did. Raises ``TransientError`` when the disk is full."""
        now = self._runtime.clock.monotonic()
        if not (self._takers and self._settings.interval) or now - self._reported < self._settings.interval:
            return False
        self._reported = now
        events = [encoded(one) for one in report(self._vitals(sources, held))]
        self._runtime.spool.commit(Intake(SOURCE, self._takers, events, {}))
        for shipper in self._runtime.shippers:
            shipper.wake()
        return True

    def _pushed(self) -> dict[str, SourceState]:
        known = states.load(self._runtime.spool.database, SourceState) if self._receivers else {}
        return {name: known.get(name, SourceState()) for name in self._receivers}

    def _vitals(self, sources: Mapping[str, SourceState], held: str) -> Vitals:
        spool = self._runtime.spool
        names = [STORE, *(shipper.name for shipper in self._runtime.shippers)]
        return Vitals(
            collector=self._collector,
            now=self._runtime.clock.now(),
            late_seconds=self._settings.late_seconds,
            sources=self._pushed() | dict(sources),
            counters=spool.counters(),
            destinations=states.load(spool.database, DestinationState),
            backlogs={name: spool.backlog(name) for name in names},
            outbox_bytes=spool.outbox_bytes,
            held=held,
            unproven=states.unproven(spool.database, self._runtime.clock.now()),
        )
