"""The dashboards as they run on a store: ``content/compiled/dashboards.json``, typed.

They are made of ``content/dashboards`` by ``aitrail content build``. Every statement is a constant of the content;
what a viewer chooses is only ever a bound parameter (``aitrail.store.panels`` runs them).
"""

from functools import lru_cache
from typing import Literal

import msgspec
from msgspec import Struct

from aitrail.contentdir import content_path

FILE = "dashboards.json"
# Widths of an automatic bucket, in seconds: no step is more than fourfold, so that there are 30 to 120 buckets in any
# range from five minutes to a century (weeks instead of months: buckets are aligned to the epoch).
_DAY = 86_400
LADDER = (
    *(10, 30, 60, 120, 300, 900, 1800, 3600, 10_800, 21_600, 43_200),
    *(_DAY, 3 * _DAY, 7 * _DAY, 14 * _DAY, 28 * _DAY, 91 * _DAY, 364 * _DAY),
)
BUCKETS_AT_MOST = 120
Dataset = Literal["access", "finding", "health"]
Role = Literal["id", "time", "hour", "day", "dimension", "value", "field"]


class Column(Struct, frozen=True, omit_defaults=True):
    """One column of a panel's rows.

    Attributes:
        name: as in the rows.
        role: ``id`` names the row's event or finding and is not shown; ``time`` is the start of a bucket (naive UTC);
            ``hour`` 0-23 and ``day`` 1 (Monday) - 7 are what the range is folded by; ``dimension`` is a text, empty
            where the event has none; ``value`` is a number or None; ``field`` is a field of a listed event.
        label: for people.
        unit: ``ms``, ``s``, ``USD``, ``tokens``, ``bytes``, ``points``, ``%`` (a ratio: shown times 100), or nothing.
        kind: of the field it shows (``string``, ``time``, ``integer``, ``list`` ...); ``number`` for values.
    """

    name: str
    role: Role
    label: str
    unit: str = ""
    kind: str = "string"


class Query(Struct, frozen=True, omit_defaults=True):
    """One statement.

    Attributes:
        text: for when nothing is filtered.
        filtered: the same with the filters; the same text when there are none in its data set.
        parameters: the names that ``text`` takes; ``filtered`` also takes the filters.
        filters: the filters that its data set has.
    """

    text: str
    filtered: str
    parameters: tuple[str, ...]
    filters: tuple[str, ...] = ()


class Behind(Struct, frozen=True, omit_defaults=True):
    """What makes the rows behind a mark: conditions over the data set's relation.

    Attributes:
        relation: the view or table.
        where: of the panel; empty for all rows.
        values: by value of the panel, its own condition, where it has one.
        picks: by dimension, the condition that takes ``$pick_<name>``.
        filters: by filter, the condition that takes ``$<name>``, a list of texts.
    """

    relation: str
    where: str = ""
    values: dict[str, str] = {}
    picks: dict[str, str] = {}
    filters: dict[str, str] = {}


class Drill(Struct, frozen=True, omit_defaults=True):
    """Where a click leads: ``events`` or the name of a dashboard, and which clicked dimensions go along."""

    to: str = "events"
    carry: tuple[str, ...] = ()


class Panel(Struct, frozen=True, omit_defaults=True):
    """One panel; the attributes that the specification has mean the same (``content/dashboards/README.md``).

    Attributes:
        value: the value that a form with one number draws.
        columns: of ``rows``, in order.
        rows: what the panel shows; None for ``text``.
        trend: of a ``single``: columns ``time`` and the values; a last row without a time is the whole range, so that
            ``rows`` need not be asked for.
        before: of a ``single``: the same number in the range before.
        behind: the events behind a mark; None for ``text``.
    """

    id: str
    title: str
    form: str
    help: str
    width: int
    height: int
    value: str = ""
    stacked: bool = False
    tone: str = ""
    thresholds: tuple[float, ...] = ()
    drill: Drill | None = None
    empty: str = ""
    text: str = ""
    dataset: Dataset = "access"
    bucket: str = ""
    columns: tuple[Column, ...] = ()
    rows: Query | None = None
    trend: Query | None = None
    before: Query | None = None
    behind: Behind | None = None


class Section(Struct, frozen=True):
    """Panels under a heading, laid out row by row from the left on 12 columns."""

    title: str
    panels: tuple[Panel, ...]


class Board(Struct, frozen=True):
    """One page; ``range`` is in seconds back from now."""

    name: str
    number: int
    title: str
    description: str
    range: int
    filters: tuple[str, ...]
    sections: tuple[Section, ...]

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All panels in reading order."""
        return tuple(panel for section in self.sections for panel in section.panels)

    def panel(self, name: str) -> Panel | None:
        """The panel with that id."""
        return next((panel for panel in self.panels if panel.id == name), None)


def auto_seconds(seconds: float) -> int:
    """The width of an automatic bucket for a range of so many seconds."""
    return next((width for width in LADDER if seconds <= width * BUCKETS_AT_MOST), LADDER[-1])


@lru_cache(maxsize=1)
def load() -> tuple[Board, ...]:
    """Read the shipped dashboards, in the order of their numbers."""
    return read(content_path("compiled", FILE).read_bytes())


def read(data: bytes) -> tuple[Board, ...]:
    """Read compiled dashboards; raises ``msgspec.MsgspecError`` when the bytes are none."""
    return msgspec.json.decode(data, type=tuple[Board, ...])
