"""What the polling sources of AWS have in common: several targets, one after the other, none in the way of the rest."""

from collections.abc import Callable, Iterator, Sequence

from aitrail.clock import Clock
from aitrail.errors import AuthError, TransientError
from aitrail.ports import Budget, Cursors, RawBatch, Workload
from aitrail.sources._aws_calls import Access, Aws
from aitrail.sources._aws_settings import ManyRoles
from aitrail.sources._aws_windows import Tally, Target, Windows, find
from aitrail.sources._meter import Meter


class Accounts:
    """One ``Aws`` per role; the process's own identity without any."""

    def __init__(self, settings: ManyRoles, clock: Clock) -> None:
        self.all = [Aws(Access.of(settings, role), clock) for role in settings.roles or ("",)]
        self._settings = settings

    def places(self) -> Iterator[tuple[Aws, str]]:
        """Every account and region; raises ``AuthError`` when the process has no identity."""
        for aws in self.all:
            for region in self._settings.regions or (self._settings.region,):
                yield aws, aws.region(region)

    def close(self) -> None:
        """Give back connections."""
        for aws in self.all:
            aws.close()


class Poll:
    """Polls targets by time; see ``_aws_windows``."""

    def __init__(self, clock: Clock, key: bytes, start: float, only: tuple[float, float] | None) -> None:
        self._clock = clock
        self._key = key
        self._start = start
        self._only = only
        self.tally = Tally()

    def fetch(
        self,
        targets: Sequence[Target],
        cursors: Cursors,
        budget: Budget,
        change: Callable[[RawBatch], RawBatch] = lambda batch: batch,
    ) -> Iterator[RawBatch]:
        """Yield what is new of each target; raises the first error when the others were read."""
        meter = Meter(budget, self._clock)
        trouble: AuthError | TransientError | None = None
        for target in targets:
            windows = Windows(
                target, cursors, self._clock, self._key, start=self._start, only=self._only, tally=self.tally
            )
            try:
                for batch in windows.batches(meter):
                    yield change(batch)
            except (AuthError, TransientError) as error:
                trouble = trouble or error
            if meter.spent:
                break
        if trouble is not None:
            raise trouble

    def reread(self, targets: Sequence[Target], origin: str, position: int, index: int) -> bytes | None:
        """Find one event again."""
        for target in targets:
            if target.origin == origin:
                unit = 1 / target.positions_per_second
                try:
                    return find(target.pager, position * unit, index, unit)
                except (AuthError, TransientError):
                    return None
        return None


def unknown_workload(targets: Sequence[Target]) -> Workload:
    """A log does not say how much there is."""
    return Workload(len(targets), None)
