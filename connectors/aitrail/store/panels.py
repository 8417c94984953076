"""Run the panels of the dashboards on a store: statements are constants of the content, every value is bound."""

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct

from aitrail.store.boards import Behind, Board, Column, Panel, Query, auto_seconds, load
from aitrail.store.queries import Connection, Rows, fetch

__all__ = ["Board", "Column", "Panel", "PanelResult", "auto_seconds", "behind", "load", "run", "run_all"]

# More rows than a page can show; the statements of the shipped dashboards give far fewer.
MOST_ROWS = 5_000
# The present state of collectors is not of any range: it is always shown.
_ALWAYS = (datetime(1970, 1, 1), datetime(9999, 1, 1))  # noqa: DTZ001  (naive UTC, as all times of the store)

Filters = Mapping[str, Sequence[str]]


class PanelResult(Struct, frozen=True):
    """What a panel shows.

    Attributes:
        columns: of ``rows``.
        rows: at most ``MOST_ROWS``; ``truncated`` says that there were more.
        bucket_seconds: width of the buckets of ``rows`` and ``trend``; 0 without buckets of time.
        trend: of a ``single``: ``(time, values...)`` by ``trend_columns``; buckets without rows are not there.
        before: of a ``single``: the value in the range before; None when there is none.
        ignored: filters that were set and that the panel's data set does not have.
        present_state: the rows are the present state, whatever the range.
        milliseconds: what it took.
    """

    columns: tuple[Column, ...]
    rows: list[tuple[Any, ...]]
    truncated: bool = False
    bucket_seconds: int = 0
    trend_columns: tuple[str, ...] = ()
    trend: list[tuple[Any, ...]] = []
    before: Any = None
    ignored: tuple[str, ...] = ()
    present_state: bool = False
    milliseconds: float = 0.0

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show: no row, or a single that counted nothing."""
        return not any(value for row in self.rows for value in row)

    def value(self, name: str) -> Any:
        """The number ``name`` of the first row; None without rows."""
        place = next(number for number, column in enumerate(self.columns) if column.name == name)
        return self.rows[0][place] if self.rows else None

    def dicts(self) -> list[dict[str, Any]]:
        """The rows by column name."""
        names = [column.name for column in self.columns]
        return [dict(zip(names, row, strict=True)) for row in self.rows]


def run(connection: Connection, panel: Panel, filters: Filters, since: datetime, until: datetime) -> PanelResult:
    """Run one panel.

    Args:
        connection: of ``StoreReader.connect``.
        panel: of ``load()``.
        filters: values by field (any of the board's filters); a row passes that has one of them, ``""`` is a missing
            value. Values compare as they are stored: lower-case where the catalog says so.
        since: start of the range, naive UTC.
        until: its end, itself not included.

    Raises:
        QueryError, duckdb.Error: as the connection does.
    """
    started = time.perf_counter()
    if panel.rows is None:
        return PanelResult((), [])
    state = panel.dataset == "health"
    if state:
        since, until = _ALWAYS
    width = auto_seconds((until - since).total_seconds())
    bound = {"since": since, "until": until, "bucket": width}
    trend = _ask(connection, panel.trend, filters, bound) if panel.trend else Rows((), [])
    if panel.trend:
        found = Rows((), [row[1:] for row in trend.rows if row[0] is None])
    else:
        found = _ask(connection, panel.rows, filters, bound)
    before = _ask(connection, panel.before, filters, bound) if panel.before else None
    timed = panel.trend is not None or "bucket" in panel.rows.parameters
    return PanelResult(
        columns=panel.columns,
        rows=found.rows[:MOST_ROWS],
        truncated=len(found.rows) > MOST_ROWS,
        bucket_seconds=width if timed else 0,
        trend_columns=trend.columns,
        trend=[row for row in trend.rows if row[0] is not None],
        before=_number(before, panel.value),
        ignored=tuple(name for name, values in filters.items() if values and name not in panel.rows.filters),
        present_state=state,
        milliseconds=round((time.perf_counter() - started) * 1000, 3),
    )


def run_all(
    connection: Connection, board: Board, filters: Filters, since: datetime, until: datetime
) -> Iterator[tuple[Panel, PanelResult]]:
    """Run the panels of a page in reading order."""
    for panel in board.panels:
        yield panel, run(connection, panel, filters, since, until)


def _ask(connection: Connection, query: Query, filters: Filters, bound: Mapping[str, Any]) -> Rows:
    chosen = {name: list(filters[name]) for name in query.filters if filters.get(name)}
    values = {name: bound[name] for name in query.parameters}
    if not chosen:
        return fetch(connection, query.text, values)
    return fetch(connection, query.filtered, values | {name: chosen.get(name, []) for name in query.filters})


def _number(found: Rows | None, name: str) -> Any:
    if found is None or not found.rows:
        return None
    return found.rows[0][found.columns.index(name)]


# --- the rows behind a mark


class Condition(Struct, frozen=True):
    """A condition over ``relation`` and the values that it takes."""

    relation: str
    sql: str
    values: dict[str, Any]


def behind(
    panel: Panel,
    filters: Filters,
    since: datetime | None,
    until: datetime | None,
    *,
    value: str = "",
    picked: Mapping[str, Any] | None = None,
) -> Condition:
    """Give the condition for the rows behind a mark of ``panel``.

    Args:
        panel: of ``load()``; not a ``text``.
        filters: as of ``run``.
        since: start of the range, or of the mark; None: no bound. Ignored where the panel shows the present state.
        until: its end.
        value: the value that was clicked; its own condition is added.
        picked: the clicked value of dimensions (``""``: a missing one), and ``hour_of_day`` or ``day_of_week``.

    Raises:
        KeyError: the panel does not have that dimension.
        ValueError: the panel is a ``text``.
    """
    if panel.behind is None:
        raise ValueError(f"{panel.id}: there are no rows behind a text")
    rows: Behind = panel.behind
    tests: list[str] = []
    values: dict[str, Any] = {}
    state = panel.dataset == "health"
    for name, moment, sign in (("since", since, ">="), ("until", until, "<")):
        if moment is not None and not state:
            tests.append(f"timestamp {sign} ${name}::TIMESTAMP")
            values[name] = moment
    for name, text in rows.filters.items():
        if filters.get(name):
            tests.append(text)
            values[name] = list(filters[name])
    tests += [text for text in (rows.where, rows.values.get(value, "")) if text]
    for name, one in (picked or {}).items():
        tests.append(rows.picks[name])
        values[f"pick_{name}"] = one
    return Condition(rows.relation, " AND ".join(tests) or "true", values)


def mark_range(result: PanelResult, moment: datetime, since: datetime, until: datetime) -> tuple[datetime, datetime]:
    """The range of one bucket, cut to the range that is looked at."""
    return max(since, moment), min(until, moment + timedelta(seconds=result.bucket_seconds))
