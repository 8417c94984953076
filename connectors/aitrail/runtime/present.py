"""The present state of a store's collector as ``health`` records: what dashboards show where no history is kept.

The same judgement as the reports that a running collector ships (``aitrail.health``), taken from what it has written
down, beside a running one or after it has ended.
"""

from collections.abc import Callable
from pathlib import Path

from aitrail.clock import Clock, SystemClock
from aitrail.config import HealthConfig
from aitrail.health import Vitals, report
from aitrail.runtime.status import COLLECTOR
from aitrail.spool import Spool, states
from aitrail.spool.states import CollectorState, DestinationState, SourceState
from aitrail.streams import Health

# What a command that collected once has left in the counters, without a state of its own.
_ONCE = SourceState()


def present(store: Path, settings: HealthConfig | None = None, clock: Clock | None = None) -> list[Health]:
    """Look at a store: one record for the outbox, one per source, one per destination.

    A source that is not polled (it was collected once) is ``ok`` and has no lag.

    Raises:
        StoreError: there is no store, or of another version.
    """
    settings, clock = settings or HealthConfig(), clock or SystemClock()
    with Spool.open(store, clock, write=False) as spool:
        database = spool.database
        collector = states.load(database, CollectorState).get(COLLECTOR, CollectorState())
        destinations = states.load(database, DestinationState)
        counters = spool.counters()
        sources = {name: _ONCE for name, counts in counters.items() if "records" in counts}
        bytes_waiting = database.rows("SELECT coalesce(sum(bytes), 0) FROM outbox")[0][0]
        return report(
            Vitals(
                collector=settings.collector or collector.host or "aitrail",
                now=clock.now(),
                late_seconds=settings.late_seconds,
                sources=sources | states.load(database, SourceState),
                counters=counters,
                destinations=destinations,
                backlogs={name: spool.backlog(name) for name in destinations},
                outbox_bytes=int(bytes_waiting),
                unproven=states.unproven(database, clock.now()),
            )
        )


def of(store: Path, settings: HealthConfig | None = None, clock: Clock | None = None) -> Callable[[], list[Health]]:
    """Give what ``StoreReader(health=...)`` takes."""
    return lambda: present(store, settings, clock)
