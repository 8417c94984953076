"""Whether a dashboard can be shown: forms that fit queries, rows that fill the grid, clicks that lead somewhere."""

from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct

from aitrail.compiler.dashboard import GRID_COLUMNS, Dashboard, Form, Panel, Section
from aitrail.compiler.located import Document, Place
from aitrail.compiler.metric import Listing, Metric
from aitrail.compiler.problems import Problem

PANELS_AT_LEAST, PANELS_AT_MOST = 8, 14
TIMES = ("auto", "15m", "1h", "1d")
_FOLDS = ("hour_of_day", "day_of_week")
# Too short to say how to read a panel.
_SHORTEST_HELP = 30


class Fault(Struct, frozen=True):
    """What is wrong with a panel: at which key, the reason, the fix."""

    key: str
    reason: str
    fix: str


def lint(boards: Sequence[tuple[Document, Dashboard]]) -> list[Problem]:
    """Give every problem of all dashboards, sorted by place."""
    return sorted(problem for document, board in boards for problem in _board(document, board, boards))


def _board(document: Document, board: Dashboard, boards: Sequence[tuple[Document, Dashboard]]) -> Iterator[Problem]:
    others = [other for _, other in boards if other is not board]
    for key, taken in (("name", {one.name for one in others}), ("number", {one.number for one in others})):
        if getattr(board, key) in taken:
            yield document.problem((key,), f"the {key} {getattr(board, key)!r} is taken", f"{key}s are unique")
    count = sum(panel.form != "text" for panel in board.panels)
    if not PANELS_AT_LEAST <= count <= PANELS_AT_MOST:
        fix = f"{PANELS_AT_LEAST} to {PANELS_AT_MOST}: more is not read, less does not answer"
        yield document.problem(("sections",), f"{count} panels", fix)
    filters = {one.name: tuple(field.name for field in one.filters) for _, one in boards}
    seen: set[str] = set()
    for number, section in enumerate(board.sections):
        yield from _rows(document, number, section)
        for index, panel in enumerate(section.panels):
            place = ("sections", number, "panels", index)
            if panel.id in seen:
                yield document.problem((*place, "id"), f"the id {panel.id!r} is there twice", "unique in a page")
            seen.add(panel.id)
            for fault in (*_panel(panel), *_drill(panel, filters)):
                yield document.problem((*place, fault.key), f"{panel.id}: {fault.reason}", fault.fix)


def _rows(document: Document, number: int, section: Section) -> Iterator[Problem]:
    """Panels lie row by row from the left; rows are full, and the panels of a row are of one height."""
    filled, height = 0, 0
    for index, panel in enumerate(section.panels):
        place: Place = ("sections", number, "panels", index, "width")
        if not filled:
            height = panel.height
        elif panel.height != height:
            fix = f"height: {height}"
            yield document.problem((*place[:-1], "height"), f"{panel.id}: the others of its row have {height}", fix)
        filled += panel.width
        if filled > GRID_COLUMNS:
            fix = f"the widths of a row make {GRID_COLUMNS}"
            yield document.problem(place, f"{panel.id}: its row is {filled} columns wide", fix)
        filled = 0 if filled >= GRID_COLUMNS else filled
    if filled:
        place = ("sections", number, "panels", max(0, len(section.panels) - 1), "width")
        yield document.problem(place, f"the last row is {filled} columns wide", f"fill it up to {GRID_COLUMNS}")


def _panel(panel: Panel) -> Iterator[Fault]:
    query = panel.query
    if len(panel.help) < _SHORTEST_HELP:
        yield Fault("help", "the help says too little", "say how to read it and what to do then")
    if panel.stacked and panel.form not in ("area", "column"):
        yield Fault("stacked", f"a {panel.form} cannot be stacked", "remove it")
    if panel.thresholds:
        yield from _thresholds(panel)
    if query is None:
        return
    if panel.form == "events":
        if not isinstance(query, Listing):
            yield Fault("query", "events are a listing", "query: {list: [timestamp, user_id]}")
        if panel.value:
            yield Fault("value", "a listing has no values", "remove it")
        return
    if isinstance(query, Listing):
        yield Fault("query", f"a {panel.form} needs numbers", "query: {values: {calls: count}}, or form: events")
        return
    if panel.value and panel.value not in [value.name for value in query.values]:
        known = ", ".join(value.name for value in query.values)
        yield Fault("value", f"{panel.value!r} is none of the values", f"known: {known}")
    if not query.top and any(not field.enum and field.kind != "boolean" for field in query.by):
        yield Fault("query", "it can have any number of groups", "top: 20")
    if panel.form in FITS:
        yield from FITS[panel.form](panel, query)


def _thresholds(panel: Panel) -> Iterator[Fault]:
    first, second = panel.thresholds
    if panel.form != "single":
        yield Fault("thresholds", f"a {panel.form} has no thresholds", "remove them")
    if not panel.tone:
        yield Fault("thresholds", "thresholds need a tone", "tone: good_low or good_high")
    elif (first >= second) == (panel.tone == "good_low"):
        way = "rise" if panel.tone == "good_low" else "fall"
        yield Fault("thresholds", f"warning and alarm must {way} with tone {panel.tone}", "swap them")


def _drill(panel: Panel, filters: dict[str, tuple[str, ...]]) -> Iterator[Fault]:
    drill = panel.drill
    if drill is None:
        return
    if panel.query is None:
        yield Fault("drill", "a text leads nowhere", "remove it")
        return
    if drill.to != "events" and drill.to not in filters:
        yield Fault("drill", f"there is no dashboard {drill.to!r}", f"known: events, {', '.join(sorted(filters))}")
        return
    fields = panel.query.fields if isinstance(panel.query, Listing) else panel.query.by
    dimensions = [field.name for field in fields]
    for name in drill.carry:
        if name not in dimensions:
            yield Fault("drill", f"{name!r} is no dimension of the panel", f"known: {', '.join(dimensions) or 'none'}")
        elif drill.to != "events" and name not in filters[drill.to]:
            yield Fault("drill", f"{drill.to} cannot be filtered by {name!r}", f"known: {', '.join(filters[drill.to])}")


# --- what fits a form


def _dimensions(panel: Panel, query: Metric, least: int, most: int) -> Iterator[Fault]:
    if not least <= len(query.by) <= most:
        wanted = str(least) if least == most else f"{least} to {most}"
        yield Fault("query", f"a {panel.form} has {wanted} dimensions, not {len(query.by)}", "change `by`")


def _bucket(panel: Panel, query: Metric, known: tuple[str, ...]) -> Iterator[Fault]:
    if query.bucket not in known:
        shown = ", ".join(one or "none" for one in known)
        yield Fault("query", f"a {panel.form} has no bucket {query.bucket or 'none'!r}", f"bucket: {shown}")


def _one_value(panel: Panel, query: Metric) -> Iterator[Fault]:
    if len(query.values) > 1 and not panel.value:
        yield Fault("value", f"a {panel.form} draws 1 of {len(query.values)} values", f"value: {query.values[0].name}")


def _single(panel: Panel, query: Metric) -> Iterator[Fault]:
    yield from _dimensions(panel, query, 0, 0)
    yield from _bucket(panel, query, ("", "auto"))
    yield from _one_value(panel, query)


def _course(panel: Panel, query: Metric) -> Iterator[Fault]:
    yield from _dimensions(panel, query, 0, 1)
    yield from _bucket(panel, query, TIMES)
    if query.by:
        yield from _one_value(panel, query)


def _column(panel: Panel, query: Metric) -> Iterator[Fault]:
    yield from _dimensions(panel, query, 0 if query.bucket else 1, 1)
    yield from _bucket(panel, query, ("", *TIMES, *_FOLDS))
    if query.by and query.bucket:
        yield from _one_value(panel, query)


def _slices(panel: Panel, query: Metric) -> Iterator[Fault]:
    yield from _dimensions(panel, query, 1, 1)
    yield from _bucket(panel, query, ("",))


def _table(panel: Panel, query: Metric) -> Iterator[Fault]:
    yield from _dimensions(panel, query, 1, 3)
    yield from _bucket(panel, query, ("",))


def _heatmap(panel: Panel, query: Metric) -> Iterator[Fault]:
    if query.bucket == "hour_of_week":
        yield from _dimensions(panel, query, 0, 0)
    else:
        yield from _dimensions(panel, query, 1, 1)
        yield from _bucket(panel, query, (*_FOLDS, "hour_of_week"))
    yield from _one_value(panel, query)


def _pairs(panel: Panel, query: Metric) -> Iterator[Fault]:
    yield from _dimensions(panel, query, 2, 2)
    yield from _bucket(panel, query, ("",))
    yield from _one_value(panel, query)


FITS: dict[Form, Callable[[Panel, Metric], Iterator[Fault]]] = {
    "single": _single,
    "line": _course,
    "area": _course,
    "column": _column,
    "bar": _slices,
    "pie": _slices,
    "table": _table,
    "heatmap": _heatmap,
    "sankey": _pairs,
    "matrix": _pairs,
}
