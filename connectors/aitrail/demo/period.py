"""Which days a period has, how much happens on each, and on which of them the scripted incidents are."""

from datetime import date, timedelta

from msgspec import Struct, field

from aitrail.demo.day import WORKDAY, rhythm, weight
from aitrail.demo.incidents import INCIDENTS
from aitrail.demo.lookalikes import LOOKALIKES
from aitrail.demo.rng import Rng

# How often, in days, an incident comes, and what looks like one.
_EVERY = 15
_LOOKALIKE_EVERY = 10


class Day(Struct, frozen=True):
    """One day to write.

    Attributes:
        events: about how many, were it a working day.
        rhythm: how much of a working day's traffic there is, by curve.
        incidents: names of those that happen; None: all.
        lookalikes: names of what only looks like one.
    """

    day: str
    events: int
    rhythm: dict[str, float] = field(default_factory=lambda: WORKDAY)
    incidents: tuple[str, ...] | None = ()
    lookalikes: tuple[str, ...] = ()


def one_day(last: str, events: int, most: int) -> list[Day]:
    """``last`` with all incidents; more than ``most`` events are spread over the working days before."""
    days = working_days(last, max(1, -(-events // most)))
    share = events // len(days)
    return [Day(day, share, incidents=None if day == last else ()) for day in days]


def period(seed: int, last: str, count: int, events: int) -> list[Day]:
    """``count`` days up to ``last`` with about ``events`` events together, fewer at weekends."""
    days = [(date.fromisoformat(last) - timedelta(days=back)).isoformat() for back in range(count - 1, -1, -1)]
    working = [day for day in days if rhythm(day) is WORKDAY] or days
    busy = round(events / sum(weight(rhythm(day)) for day in days))
    names = tuple(incident.name for incident in INCIDENTS)
    real = _spread(Rng(seed, last, "calendar"), names, working, max(1, count // _EVERY))
    alike = _spread(Rng(seed, last, "lookalikes"), tuple(LOOKALIKES), working, max(1, count // _LOOKALIKE_EVERY))
    return [Day(day, max(1, busy), rhythm(day), tuple(real.get(day, ())), tuple(alike.get(day, ()))) for day in days]


def _spread(rng: Rng, names: tuple[str, ...], working: list[str], rounds: int) -> dict[str, list[str]]:
    """Every name once in each of ``rounds`` parts of the working days."""
    found: dict[str, list[str]] = {}
    for number in range(rounds):
        part = working[number * len(working) // rounds : (number + 1) * len(working) // rounds] or working
        first = rng.below(len(part))
        for place, name in enumerate(names):
            found.setdefault(part[(first + place) % len(part)], []).append(name)
    return found


def working_days(last: str, count: int) -> list[str]:
    """``count`` working days up to ``last`` (which is taken as it is), oldest first."""
    days = [date.fromisoformat(last)]
    while len(days) < count:
        before = days[-1] - timedelta(days=1)
        while before.weekday() > 4:
            before -= timedelta(days=1)
        days.append(before)
    return [day.isoformat() for day in reversed(days)]
