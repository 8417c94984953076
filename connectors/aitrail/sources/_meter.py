"""How much of its budget a fetch has taken; apart from ``_reading``, because polls decompress nothing."""

from aitrail.clock import Clock
from aitrail.ports import Budget, RawBatch
from aitrail.sources._caps import BATCH_RECORDS


class Meter:
    """Counts against the budget of one fetch."""

    def __init__(self, budget: Budget, clock: Clock) -> None:
        self._records = budget.records
        self._bytes = budget.bytes
        self._clock = clock
        self._deadline = clock.monotonic() + budget.seconds

    @property
    def spent(self) -> bool:
        """Whether nothing more may be taken."""
        return self._records <= 0 or self._bytes <= 0 or self._clock.monotonic() >= self._deadline

    @property
    def room(self) -> int:
        """How many records a batch may hold."""
        return max(1, min(BATCH_RECORDS, self._records))

    def add(self, batch: RawBatch) -> None:
        """Count what ``batch`` took; the last one that fits is the end of the fetch, so it is settled."""
        self._records -= len(batch.records)
        self._bytes -= batch.bytes_read
        batch.settled = batch.settled or self.spent
