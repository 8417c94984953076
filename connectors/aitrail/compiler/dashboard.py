"""Dashboards as typed objects: what ``content/dashboards/*.yml`` says and every platform draws.

A panel says what it measures and what form fits it; where a platform lacks the form, its emitter names what stands in.
"""

from pathlib import Path
from typing import Literal, get_args

from msgspec import Struct

from aitrail.compiler.metric import Listing, Metric
from aitrail.schema.catalog import FieldInfo

Form = Literal[
    "single",  # one number, with its course as a sparkline and the change against the range before
    "line",
    "area",
    "column",
    "bar",  # horizontal, per dimension
    "pie",
    "table",  # of a metric
    "heatmap",  # first dimension or hour_of_day by day_of_week
    "sankey",  # from the first dimension to the second
    "matrix",  # first dimension by second, numbers in cells
    "events",  # a Listing
    "text",
]
FORMS: tuple[Form, ...] = get_args(Form)
Tone = Literal["", "good_low", "good_high"]
# What every dashboard can be narrowed by; the time range is always there.
FILTERS = ("tenant_id", "department", "model", "user_id")
GRID_COLUMNS = 12


class Drill(Struct, frozen=True):
    """Where a click leads: to the events behind the mark, or to another dashboard.

    Attributes:
        to: ``events``, or the name of a dashboard.
        carry: dimensions of the panel whose clicked value narrows the goal; the time of the mark always does.
    """

    to: str = "events"
    carry: tuple[str, ...] = ()


class Panel(Struct, frozen=True):
    """One panel.

    Attributes:
        id: snake_case, unique in the dashboard.
        width: of 12 columns; height: in rows of about 80 px.
        query: None for ``text``.
        value: the value that a form with one number draws; the first when empty.
        stacked: whether the series of area and column are stacked.
        tone: whether a low or a high number is good, for colour.
        thresholds: where the colour turns to warning and to alarm; none when empty.
        help: how to read it, one or two sentences; never empty.
        empty: what an empty panel means ("no leak was found", not "no data").
        text: Markdown, for ``text``.
    """

    id: str
    title: str
    form: Form
    help: str
    width: int = 4
    height: int = 3
    query: Metric | Listing | None = None
    value: str = ""
    stacked: bool = False
    tone: Tone = ""
    thresholds: tuple[float, ...] = ()
    drill: Drill | None = None
    empty: str = ""
    text: str = ""


class Section(Struct, frozen=True):
    """Panels under a heading, laid out row by row from the left."""

    title: str
    panels: tuple[Panel, ...]


class Dashboard(Struct, frozen=True):
    """One page.

    Attributes:
        name: snake_case; in the order of ``number``.
        description: a text that says what the page answers and how to read it.
        range: what it shows first, in seconds back from now.
        filters: fields of the data set that it can be narrowed by.
    """

    name: str
    number: int
    title: str
    description: str
    sections: tuple[Section, ...]
    range: int = 86400 * 7
    filters: tuple[FieldInfo, ...] = ()
    path: Path = Path()

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All panels in reading order."""
        return tuple(panel for section in self.sections for panel in section.panels)
