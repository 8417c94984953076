"""What a count at the destination found: expected events against those that are there, over a range of time.

Both sides are asked slice by slice, so that memory and answers stay bounded however long the range is. A slice whose
answer would not fit is halved; one that was small lets the next ones grow.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from msgspec import Struct, field

FIRST_SLICE_MS = 3_600_000
LONGEST_SLICE_MS = 24 * 3_600_000
# Below so many events in a slice the next one may be twice as long.
_FEW = 2_000
_KEPT = 1_000

# How often each event id is there in [start, end), epoch milliseconds by the event's own time; None: too many to say.
Counts = Callable[[int, int], Mapping[str, int] | None]
# Which event ids should be there in [start, end).
Expected = Callable[[int, int], Iterable[str]]


class TooDense(Exception):  # noqa: N818 - says what the data are
    """One millisecond holds more events than the destination can list."""


class Verified(Struct):
    """What was expected, and what is there. Lists hold the first 1,000 ids, the numbers count all.

    Attributes:
        expected: events that should be there.
        found: those of them that are, once or more often.
        missing: how many are not.
        repeated: how many are there more than once.
        extra: how many are there that nobody expected.
        missing_ids, repeated_ids, extra_ids: which; of the repeated ones how often.
    """

    expected: int = 0
    found: int = 0
    missing: int = 0
    repeated: int = 0
    extra: int = 0
    missing_ids: list[str] = field(default_factory=list)
    repeated_ids: dict[str, int] = field(default_factory=dict)
    extra_ids: list[str] = field(default_factory=list)

    def add(self, expected: Iterable[str], counted: Mapping[str, int]) -> None:
        """Take one slice in."""
        wanted = set(expected)
        missing = sorted(wanted - counted.keys())
        extra = sorted(counted.keys() - wanted)
        repeated = {one: counted[one] for one in sorted(wanted & counted.keys()) if counted[one] > 1}
        self.expected += len(wanted)
        self.found += len(wanted) - len(missing)
        self.missing += len(missing)
        self.extra += len(extra)
        self.repeated += len(repeated)
        self.missing_ids += missing[: _KEPT - len(self.missing_ids)]
        self.extra_ids += extra[: _KEPT - len(self.extra_ids)]
        room = _KEPT - len(self.repeated_ids)
        self.repeated_ids |= dict(list(repeated.items())[:room])

    @property
    def complete(self) -> bool:
        """Whether everything is there."""
        return not self.missing


def compare(expected: Expected, counts: Counts, start: int, end: int) -> Verified:
    """Compare what should be there with what is, for events of [start, end) in epoch milliseconds.

    Raises:
        TooDense: more events in one millisecond than the destination lists.
        AuthError, ConfigError, TransientError: from ``counts``.
    """
    found = Verified()
    for first, behind, counted in counted_slices(counts, start, end):
        found.add(expected(first, behind), counted)
    return found


def counted_slices(counts: Counts, start: int, end: int) -> Iterator[tuple[int, int, Mapping[str, int]]]:
    """Count in slices as long as answers allow; gives start, end and counts of each."""
    length = FIRST_SLICE_MS
    at = start
    while at < end:
        behind = min(at + length, end)
        counted = counts(at, behind)
        if counted is None:
            if behind - at <= 1:
                raise TooDense
            length = max(1, (behind - at) // 2)
            continue
        yield at, behind, counted
        at = behind
        if len(counted) < _FEW:
            length = min(length * 2, LONGEST_SLICE_MS)
