"""What a count at the destination found: the answer of every ``verify``."""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct


class Verified(Struct, frozen=True):
    """How many of the events asked for are there.

    Attributes:
        asked: how many distinct event ids were looked for.
        missing: those that were not found.
        repeated: those found more than once, with how often.
    """

    asked: int
    missing: tuple[str, ...] = ()
    repeated: Mapping[str, int] = {}

    @property
    def found(self) -> int:
        """How many of them are there, once or more often."""
        return self.asked - len(self.missing)

    @classmethod
    def of(cls, wanted: Sequence[str], counted: Mapping[str, int]) -> "Verified":
        """Compare ``wanted`` with the counts by event id; ids that were not asked for are left out."""
        distinct = list(dict.fromkeys(wanted))
        return cls(
            asked=len(distinct),
            missing=tuple(one for one in distinct if not counted.get(one)),
            repeated={one: counted[one] for one in distinct if counted.get(one, 0) > 1},
        )


def portions(wanted: Iterable[str], size: int) -> list[list[str]]:
    """Cut the distinct ids into lists of at most ``size``, for queries of bounded length."""
    distinct = list(dict.fromkeys(wanted))
    return [distinct[start : start + size] for start in range(0, len(distinct), size)]
