"""One panel as a group of workbook items: what is drawn, how to read it, and the events behind what is clicked.

Workbooks have no sankey and no matrix of two free dimensions: a table of flows with bars, and a pivoted table with a
heat of each cell, stand in; a heat map is a table with a column per hour.

What was clicked enters a query as the whole row, base64-encoded JSON in a parameter of the panel
(``{Pick_...:base64}``), and is compared as data: no value of an event can leave its literal. ``*`` means nothing was
clicked; the events are only asked for when something was.

Facts (Azure Monitor, "Workbook grid visualizations", "Workbook link actions", "Workbook chart visualizations"):
formatters 1 text, 4 bar, 5 hidden, 7 link, 8 heat map, 9 spark line, 12 big number, 18 thresholds; a query whose
``timeContext`` has no duration sets its range itself.
"""

import re
from collections.abc import Callable
from typing import Any

import msgspec

from aitrail.compiler.boards import label
from aitrail.compiler.dashboard import Drill, Form, Panel
from aitrail.compiler.dialects.kql import column, literal
from aitrail.compiler.dialects.metrics_kql import render
from aitrail.compiler.dialects.scope import NONE, Scope, buckets
from aitrail.compiler.emit import sentinel_tiles as tiles
from aitrail.compiler.emit.sentinel_tiles import bracketed, main, readable, shown
from aitrail.compiler.metric import Aggregate, Dataset, Listing, Metric, catalog, defaults
from aitrail.schema.catalog import FieldInfo

Item = dict[str, Any]
# What stands for a form that workbooks do not have.
STANDS_IN: dict[Form, str] = {
    "heatmap": "table",
    "matrix": "table",
    "sankey": "table",
    "events": "table",
    "bar": "table",
}
NOTHING, _ASKED = "*", "events"
_ROWS = 250
_BEHIND = 200
# Of a text a table shows the beginning; the row's details show all of it.
_TEXT_SHOWN = 200
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_SHOWN: dict[Dataset, tuple[str, ...]] = {
    "access": ("timestamp", "user_id", "app", "model", "action", "outcome_status", "injection_tier", "leakage_types",
               "prompt_text"),
    "finding": ("timestamp", "severity", "rule_name", "user_id", "summary", "evidence_count"),
    "health": ("timestamp", "collector", "kind", "name", "status", "reason", "lag_seconds"),
}  # fmt: skip


def group(panel: Panel, scope: Scope, links: Callable[[str, str], Item]) -> Item:
    """The panel; ``links`` gives a link to another page by its name."""
    width = str(round(100 * panel.width / 12))
    if panel.query is None:
        return _text(panel.id, f"#### {panel.title}\n\n{panel.text}", width)
    items = [_drawn(panel, scope), _text(f"{panel.id} how to read it", f"_{panel.help}_")]
    if panel.drill and panel.drill.to != "events":
        items.append(links(panel.drill.to, panel.id))
    elif panel.drill:
        items += _events_behind(panel, panel.drill, scope)
    return {
        "type": 12,
        "content": {"version": "NotebookGroup/1.0", "groupType": "editable", "items": items},
        "customWidth": width,
        "name": panel.id,
        "styleSettings": {"showBorder": True},
    }


def _text(name: str, text: str, width: str = "") -> Item:
    made: Item = {"type": 1, "content": {"json": text}, "name": name}
    return {**made, "customWidth": width} if width else made


_CHOSEN = re.compile(
    r'\n\| where (z_\w+) == ",," or \1 == ",\*,"'
    r' or \1 contains_cs strcat\(",", iff\(isempty\((\w+)\), "\(none\)", \2\), ","\)'
)
_IN = (
    'let z_in = (z_c: string, z_v: string) { z_c == ",," or z_c == ",*," or z_c contains_cs strcat(",",'
    ' iff(isempty(z_v), "(none)", z_v), ",") };\n'
)


def shorter(text: str) -> str:
    """The same query with its filters said by one function."""
    found, count = _CHOSEN.subn(r"\n| where z_in(\1, \2)", text)
    return _IN + found if count > 1 else text


def query_item(name: str, title: str, text: str, **rest: Any) -> Item:
    """A query over the workspace that sets its own range."""
    text = shorter(text)
    return {
        "type": 3,
        "content": {
            "version": "KqlItem/1.0",
            "query": text,
            "size": 0,
            "title": title,
            "timeContext": {"durationMs": 0},
            "queryType": 0,
            "resourceType": "microsoft.operationalinsights/workspaces",
            **rest,
        },
        "name": name,
    }


def clickable(panel: Panel) -> bool:
    """Whether a row can be clicked: tables can, charts and tiles have a link instead."""
    return drawn_as(panel) == "table"


def drawn_as(panel: Panel) -> str:
    """The visualization."""
    usual = {
        "single": "tiles",
        "line": "linechart",
        "area": "areachart",
        "column": "barchart" if panel.stacked else "unstackedbar",
        "pie": "piechart",
        "table": "table",
    }
    if panel.form == "column" and isinstance(panel.query, Metric) and "time" not in buckets(panel.query):
        return "categoricalbar"
    return STANDS_IN.get(panel.form) or usual[panel.form]


def pick(panel: Panel) -> str:
    """The parameter that holds the row that was clicked, or that the link was."""
    return f"Pick_{panel.id}"


def _drawn(panel: Panel, scope: Scope) -> Item:
    make = {"single": _single, "events": _events}.get(panel.form, _chart)
    text, rest = make(panel, scope)
    rest["visualization"] = drawn_as(panel)
    if panel.empty:
        rest["noDataMessage"] = panel.empty
        if panel.tone == "good_low":
            # Nothing is good news: green.
            rest["noDataMessageStyle"] = 3
    if rest["visualization"] == "table":
        rest["showExportToExcel"] = True
        if panel.drill and panel.drill.to == "events":
            # No field: the whole row, as JSON.
            rest |= {"exportFieldName": "", "exportParameterName": pick(panel), "exportDefaultValue": NOTHING}
    return query_item(f"{panel.id} drawn", "" if panel.form == "single" else panel.title, text, **rest)


_Made = tuple[str, dict[str, Any]]


def _single(panel: Panel, scope: Scope) -> _Made:
    return tiles.query(panel, scope), {"tileSettings": tiles.settings(panel), "size": 4}


def _events(panel: Panel, scope: Scope) -> _Made:
    assert isinstance(panel.query, Listing)
    return _listing(panel.query, scope)


def _listing(query: Listing, scope: Scope) -> _Made:
    fields = tuple(field for field in query.fields if field.name != "event_id")
    wanted = msgspec.structs.replace(query, fields=(*fields, catalog(query.dataset)["event_id"]))
    stages = [
        f"extend {bracketed(field.name)} = substring({bracketed(field.name)}, 0, {_TEXT_SHOWN})"
        for field in fields
        if field.kind == "text"
    ]
    details = {"linkTarget": "GenericDetails", "linkIsContextBlade": True}
    formatters = [{"columnMatch": "^event_id$", "formatter": 7, "formatOptions": details}]
    return _piped(render(wanted, scope), stages), _grid(formatters, [_named(field) for field in wanted.fields])


def _piped(text: str, stages: list[str]) -> str:
    return "\n| ".join([text, *stages])


def _named(field: FieldInfo) -> tuple[str, str]:
    return field.name, label(field.name)


def _grid(formatters: list[dict[str, Any]], labels: list[tuple[str, str]], rows: int = _ROWS) -> dict[str, Any]:
    return {
        "gridSettings": {
            "formatters": formatters,
            "rowLimit": rows,
            "filter": True,
            "labelSettings": [{"columnId": name, "label": text} for name, text in labels],
        }
    }


def _chart(panel: Panel, scope: Scope) -> _Made:
    assert isinstance(panel.query, Metric)
    stages, rest = _FORMS[panel.form](panel, panel.query)
    return _piped(render(panel.query, scope), stages), rest


def _readable(query: Metric) -> list[str]:
    made = [
        f"{bracketed(value.name)} = {readable(value)}"
        for value in query.values
        if readable(value) != bracketed(value.name)
    ]
    return [f"extend {', '.join(made)}"] if made else []


_Shape = tuple[list[str], dict[str, Any]]


def _course(panel: Panel, query: Metric) -> _Shape:
    """One series per value, or per group of one value."""
    across = (buckets(query) or (query.by[0].name,))[0]
    values = [main(panel, query)] if query.by and buckets(query) else list(query.values)
    settings: dict[str, Any] = {
        "xAxis": across,
        "yAxis": [value.name for value in values],
        "seriesLabelSettings": [{"seriesName": value.name, "label": shown(value)} for value in values],
    }
    if query.by and buckets(query):
        settings["group"] = query.by[0].name
        settings.pop("seriesLabelSettings")
    return _readable(query), {"chartSettings": settings}


def _pie(panel: Panel, query: Metric) -> _Shape:
    value = main(panel, query)
    return [*_readable(query), f"project {bracketed(query.by[0].name)}, {bracketed(value.name)}"], {}


def _bar_format(name: str) -> dict[str, Any]:
    return {"columnMatch": f"^{name}$", "formatter": 4, "formatOptions": {"palette": "blue", "min": 0}}


def _labels(query: Metric, *values: Aggregate) -> list[tuple[str, str]]:
    return [*map(_named, query.by), *((value.name, shown(value)) for value in values or query.values)]


def _numbers(panel: Panel, query: Metric) -> _Shape:
    """A table; the value that sorts has bars."""
    bars = main(panel, query).name if panel.value else (query.order or query.values[0].name)
    return _readable(query), _grid([_bar_format(bars)], _labels(query))


def _bars(panel: Panel, query: Metric) -> _Shape:
    """Groups by one value, as a table with bars."""
    value = main(panel, query)
    keep = f"project {bracketed(query.by[0].name)}, {bracketed(value.name)}"
    return [*_readable(query), keep], _grid([_bar_format(value.name)], _labels(query, value))


def _flows(panel: Panel, query: Metric) -> _Shape:
    """From, to and how much."""
    value = main(panel, query)
    names = ", ".join(bracketed(field.name) for field in query.by[:2])
    stages = [*_readable(query), f"project {names}, {bracketed(value.name)}"]
    return stages, _grid([_bar_format(value.name)], _labels(query, value))


def _matrix(panel: Panel, query: Metric) -> _Shape:
    """A row per value of the first dimension, a column per value of the second."""
    rows, across = (field.name for field in query.by[:2])
    value = main(panel, query)
    stages = [
        *_readable(query),
        f"evaluate pivot({bracketed(across)}, sum({bracketed(value.name)}), {bracketed(rows)})",
        f"sort by {bracketed(rows)} asc",
    ]
    plain = {"columnMatch": f"^{rows}$", "formatter": 1}
    heat = {"columnMatch": ".*", "formatter": 8, "formatOptions": {"palette": "blue", "min": 0}}
    return stages, _grid([plain, heat], [_named(query.by[0])])


def _heat(panel: Panel, query: Metric) -> _Shape:
    """A row per group or day, a column per hour."""
    folded = buckets(query)
    value = main(panel, query)
    down = query.by[0].name if query.by else folded[0]
    across = folded[-1]
    columns = [f"h{hour:02}" for hour in range(24)] if across == "hour_of_day" else [f"d{day}" for day in range(1, 8)]
    start = 0 if across == "hour_of_day" else 1
    sums = ", ".join(
        f"{name} = sumif({bracketed(value.name)}, {across} == {number})" for number, name in enumerate(columns, start)
    )
    total = f"z_total = sum({bracketed(value.name)})"
    stages = [*_readable(query), f"summarize {sums}, {total} by {bracketed(down)}"]
    if down == "day_of_week":
        names = f"dynamic([{', '.join(map(literal, _DAYS))}])"
        stages += ["sort by day_of_week asc", f"extend day_of_week = tostring({names}[day_of_week - 1])"]
    else:
        stages.append(f"sort by z_total desc, {bracketed(down)} asc")
    stages.append("project-away z_total")
    plain = {"columnMatch": f"^{down}$", "formatter": 1}
    heat = {"columnMatch": "^[hd][0-9]+$", "formatter": 8, "formatOptions": {"palette": "blue", "min": 0}}
    names_of = [(name, name[1:] if name[0] == "h" else _DAYS[int(name[1:]) - 1]) for name in columns]
    return stages, _grid([plain, heat], [(down, label(down)), *names_of])


_FORMS: dict[str, Callable[[Panel, Metric], _Shape]] = {
    "line": _course,
    "area": _course,
    "column": _course,
    "bar": _bars,
    "pie": _pie,
    "table": _numbers,
    "matrix": _matrix,
    "heatmap": _heat,
    "sankey": _flows,
}


# --- the events behind what was clicked


def _events_behind(panel: Panel, drill: Drill, scope: Scope) -> list[Item]:
    """A link where no row can be clicked, and the events, which are asked for once something was."""
    text, rest = behind(panel, drill, scope)
    title = f"Events behind: {panel.title}"
    events = query_item(f"{panel.id} events", title, text, visualization="table", showExportToExcel=True, **rest)
    events["content"]["noDataMessage"] = "No event is behind this."
    if clickable(panel):
        events["conditionalVisibility"] = _when(panel, "isNotEqualTo", NOTHING)
        return [_text(f"{panel.id} click", "Click a row for the events behind it."), events]
    events["conditionalVisibility"] = _when(panel, "isEqualTo", _ASKED)
    return [_link(panel), events]


def _when(panel: Panel, comparison: str, value: str) -> dict[str, str]:
    return {"parameterName": pick(panel), "comparison": comparison, "value": value}


def _link(panel: Panel) -> Item:
    one = {
        "id": f"{panel.id}-link",
        "cellValue": pick(panel),
        "linkTarget": "parameter",
        "linkLabel": "Show the events",
        "subTarget": _ASKED,
        "style": "link",
    }
    return {
        "type": 11,
        "content": {"version": "LinkItem/1.0", "style": "list", "links": [one]},
        "name": f"{panel.id} link",
    }


def behind(panel: Panel, drill: Drill, scope: Scope) -> _Made:
    """The panel's condition, the page's filters, and the row that was clicked."""
    query = panel.query
    assert query is not None
    known = catalog(query.dataset)
    names = dict.fromkeys([*_SHOWN[query.dataset], *drill.carry])
    listing = Listing(tuple(known[name] for name in names), query.dataset, query.where, _BEHIND)
    text, rest = _listing(listing, scope)
    if not clickable(panel):
        return text, rest
    drawn = (
        {field.name for field in query.by[: 1 if panel.form == "matrix" else 3]} if isinstance(query, Metric) else set()
    )
    carried = [known[name] for name in drill.carry if name in drawn]
    conditions = [_clicked(field, query.dataset) for field in carried]
    if not conditions:
        return text, rest
    mark = "\n| summarize arg_max(TimeGenerated, *) by EventUid"
    if mark not in text:
        raise ValueError(f"{panel.id}: a listing that does not take each event once")
    given = f'let z_pick = parse_json(base64_decode_tostring("{{{pick(panel)}:base64}}"));\n'
    return given + text.replace(mark, f"\n| where {' and '.join(conditions)}{mark}", 1), rest


def _clicked(field: FieldInfo, dataset: Dataset) -> str:
    """What is absent was shown as the text for it."""
    own, value = column(field), f'tostring(z_pick["{field.name}"])'
    none = defaults(dataset).get(field.name) or NONE
    if field.kind == "list":
        empty = f"(coalesce(array_length({own}), 0) == 0 and {value} == {literal(none)})"
        return f"({empty} or set_has_element({own}, {value}))"
    text = own if field.kind in ("string", "ip", "text") else f"tostring({own})"
    return f"({text} == {value} or (isempty({text}) and {value} == {literal(none)}))"
