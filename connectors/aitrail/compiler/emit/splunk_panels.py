"""One panel as a Dashboard Studio visualization with its searches and where a click leads.

What the preset lacks: heat map and matrix. A heat map is a punch card (size for colour), a matrix a table with a column
per value of the second dimension. Dimensions keep their names, so that a click's tokens (``row.NAME.value``) are
theirs; values get the names that people read.
"""

import re
from typing import Any

import msgspec
from msgspec import Struct

from aitrail.compiler.boards import label
from aitrail.compiler.dashboard import Drill, Form, Panel
from aitrail.compiler.dialects.metrics_spl import render, without_gaps
from aitrail.compiler.dialects.scope import NONE, Scope, buckets, columns
from aitrail.compiler.dialects.spl_conditions import literal, name
from aitrail.compiler.metric import Aggregate, Dataset, Listing, Metric, catalog

APP = "aitrail"
# What stands for a form that the preset does not have.
STANDS_IN: dict[Form, str] = {"heatmap": "splunk.punchcard", "matrix": "splunk.table", "events": "splunk.table"}
GOOD, WARN, BAD, PLAIN = "#4fa484", "#f1813f", "#dc4e41", "#7b9cf0"
_COLOURS = [
    "#7b9cf0",
    "#4fa484",
    "#f1b10e",
    "#b07bd8",
    "#f1813f",
    "#3fb6c6",
    "#e37aa8",
    "#9aa5b8",
    "#c8d46a",
    "#dc4e41",
]
_SHOWN: dict[Dataset, tuple[str, ...]] = {
    "access": ("timestamp", "user_id", "app", "model", "action", "outcome_status", "injection_tier", "leakage_types",
               "prompt_text"),
    "finding": ("timestamp", "severity", "rule_name", "user_id", "summary", "evidence_count"),
    "health": ("timestamp", "collector", "kind", "name", "status", "reason", "lag_seconds"),
}  # fmt: skip
# Of a text a table shows the beginning: the click leads to all of it.
_TEXT_SHOWN = 200
# Beside a number; and below it, because "n/a" has no unit.
_UNITS = {"USD": "$", "%": "%"}
_UNDER = {"s": "seconds", "ms": "milliseconds"}
_DECIMALS = {"ms": 0, "USD": 2, "%": 1, "s": 0}


class Drawn(Struct, frozen=True):
    """A visualization, and its searches by the name that it calls them."""

    visualization: dict[str, Any]
    searches: dict[str, str]


def draw(panel: Panel, scope: Scope) -> Drawn:
    """Draw one panel."""
    if panel.query is None:
        return Drawn({"type": "splunk.markdown", "options": {"markdown": panel.text}}, {})
    make = {"single": _single, "events": _events}.get(panel.form, _chart)
    drawn = make(panel, scope)
    handlers = _handlers(panel, scope)
    about = {"title": panel.title, **({"description": line} if (line := _fitting(panel)) else {})}
    return Drawn({**drawn.visualization, **about, **handlers}, drawn.searches)


# Studio shows one line of a description and cuts the rest off: characters by columns of the grid, with room to spare.
_PER_COLUMN, _MARGIN = 19, 4


def _fitting(panel: Panel) -> str:
    """As many whole sentences of the panel's help as one line takes: all of it is at the end of the page."""
    room = panel.width * _PER_COLUMN - _MARGIN
    fits = ""
    for end in re.finditer(r"[.?!](?= |$)", panel.help):
        if end.end() > room:
            break
        fits = panel.help[: end.end()]
    return fits


def reading(panel: Panel) -> str:
    """How to read the panel, and what it means when it is empty (Studio has no text of one's own for that)."""
    empty = f" *When empty:* {panel.empty}" if panel.empty else ""
    return f"**{panel.title}.** {panel.help}{empty}"


# --- values


def _shown(value: Aggregate) -> str:
    """A value's name for people, with its unit."""
    name = value.label or label(value.name)
    unit = value.unit or _field_unit(value)
    return f"{name} ({unit})" if unit and unit not in name.lower() and unit in _DECIMALS else name


def _field_unit(value: Aggregate) -> str:
    return value.field.unit if value.field and value.function not in ("dcount", "count") else ""


def _readable(names: tuple[Aggregate, ...]) -> list[str]:
    """Rounded, a share times 100, and named for people."""
    made = []
    for value in names:
        unit = value.unit or _field_unit(value)
        if unit == "%" or value.function in ("ratio", "avg") or unit in _DECIMALS:
            factor = "100 * " if unit == "%" and value.function == "ratio" else ""
            made.append(f"{value.name}=round({factor}{value.name}, {_DECIMALS.get(unit, 2)})")
    renamed = [f'{value.name} AS "{_shown(value)}"' for value in names if _shown(value) != value.name]
    return [
        *([f"eval {', '.join(made)}"] if made else []),
        *([f"rename {', '.join(renamed)}"] if renamed else []),
    ]


def _piped(*stages: str) -> str:
    return "\n| ".join(stages)


def _main(panel: Panel, query: Metric) -> Aggregate:
    return next(value for value in query.values if value.name == (panel.value or query.values[0].name))


# --- forms


def _single(panel: Panel, scope: Scope) -> Drawn:
    """The range's value; against the same length before it; its course below."""
    assert isinstance(panel.query, Metric)
    query, value = panel.query, _main(panel, panel.query)
    whole = msgspec.structs.replace(query, bucket="")
    unit = value.unit or _field_unit(value)
    factor = "100 * " if unit == "%" and value.function == "ratio" else ""
    digits = _DECIMALS.get(unit, 2 if value.function in ("ratio", "avg") else 0)
    before = render(whole, msgspec.structs.replace(scope, previous=1))
    now = _piped(
        render(whole, scope),
        f"appendcols [search {before} | table {value.name} | rename {value.name} AS z_before]".replace("\n", " "),
        f"eval value=round({factor}{value.name}, {digits}), change=value - round({factor}z_before, {digits})",
        'eval value=coalesce(value, "n/a")',
        "table value, change",
    )
    searches = {"primary": now}
    options: dict[str, Any] = {
        "majorValue": "> primary | seriesByName('value') | lastPoint()",
        "trendValue": "> primary | seriesByName('change') | lastPoint()",
        "trendDisplay": "absolute",
        "majorColor": "> majorValue | rangeValue(colours)" if panel.thresholds else PLAIN,
        "unit": _UNITS.get(unit, ""),
        "unitPosition": "before" if unit == "USD" else "after",
        "numberPrecision": digits,
        "showSparklineAreaGraph": True,
        "showSparklineTooltip": True,
        "sparklineNullValueDisplay": _nulls(panel, value),
        "sparklineDisplay": "below" if query.bucket else "off",
        "trendColor": _trend(panel),
        "shouldUseThousandSeparators": True,
    }
    if unit in _UNDER:
        options["underLabel"] = _UNDER[unit]
    if query.bucket:
        searches["course"] = _piped(render(query, scope), *without_gaps(query, value))
        options["sparklineValues"] = f"> course | seriesByName('{value.name}')"
    context: dict[str, Any] = {"colours": _ranges(panel, 100 if factor else 1), "changes": _changes(panel)}
    used = [key for key in context if f"({key})" in str(options)]
    drawn: dict[str, Any] = {"type": "splunk.singlevalue", "options": options}
    if used:
        drawn["context"] = {key: context[key] for key in used}
    return Drawn(drawn, searches)


def _nulls(panel: Panel, value: Aggregate) -> str:
    """Studio makes a null of every 0 (and draws no line of nothing else): 0 again where that can only be good."""
    return "zero" if value.function in ("count", "sum", "dcount") or panel.tone == "good_low" else "gaps"


def _ranges(panel: Panel, factor: int) -> list[dict[str, Any]]:
    """The colour by the thresholds, which are warning and alarm."""
    bounds = [bound * factor for bound in panel.thresholds]
    if not bounds:
        return []
    if panel.tone == "good_high":
        colours = [BAD, WARN, GOOD] if len(bounds) > 1 else [BAD, GOOD]
        bounds = sorted(bounds)
    else:
        colours = [GOOD, WARN, BAD] if len(bounds) > 1 else [GOOD, BAD]
    found: list[dict[str, Any]] = []
    for place, colour in enumerate(colours):
        step: dict[str, Any] = {"value": colour}
        if place:
            step["from"] = bounds[place - 1]
        if place < len(bounds):
            step["to"] = bounds[place]
        found.append(step)
    return found


def _changes(panel: Panel) -> list[dict[str, Any]]:
    low, high = (BAD, GOOD) if panel.tone == "good_high" else (GOOD, BAD)
    return [{"to": 0, "value": low}, {"from": 0, "to": 1e-9, "value": "#9aa5b8"}, {"from": 1e-9, "value": high}]


def _trend(panel: Panel) -> str:
    return "> trendValue | rangeValue(changes)" if panel.tone else "#9aa5b8"


def _events(panel: Panel, scope: Scope) -> Drawn:
    assert isinstance(panel.query, Listing)
    texts = [field.name for field in panel.query.fields if field.kind == "text"]
    short = [f"eval {', '.join(f'{one}=substr({one}, 1, {_TEXT_SHOWN})' for one in texts)}"] if texts else []
    search = _piped(render(panel.query, scope), *short)
    options = _table(panel, [field.name for field in panel.query.fields])
    return Drawn({"type": STANDS_IN["events"], "options": options}, {"primary": search})


# Pixels that a field's values ask for; of others its heading decides.
_WIDE = {
    **dict.fromkeys(("prompt_text", "response_text", "summary"), 460),
    **dict.fromkeys(("resource_id", "role", "passed_role", "destination_uri", "prompt_hash"), 320),
    **dict.fromkeys(("rule_name", "leakage_types", "model", "action", "credential_id", "timestamp"), 220),
    **dict.fromkeys(("flags", "verdict_agreement", "atlas", "owasp"), 220),
    **dict.fromkeys(("user_id", "error_code", "department", "app", "src_ip", "resource_type"), 160),
}
_COLUMN, _BESIDE = 120, 40
_LETTER, _SORT_SIGN = 9, 44


def _table(panel: Panel, headings: list[str]) -> dict[str, Any]:
    """Columns as wide as their values ask for, and no heading broken within a word."""
    least = [max(map(len, one.split())) * _LETTER + _SORT_SIGN for one in headings]
    wanted = [max(0, _WIDE.get(one, 0) - low) for one, low in zip(headings, least, strict=True)]
    room = panel.width * _COLUMN - _BESIDE - sum(least)
    if not headings or room <= 0:
        return {"count": 20, "fontSize": "small"}
    whole = sum(wanted)
    share = min(1.0, room / whole) if whole else 0.0
    even = (room - share * whole) / len(headings)
    widths = [int(low + share * more + even) for low, more in zip(least, wanted, strict=True)]
    return {"count": 20, "columnFormat": {one: {"width": px} for one, px in zip(headings, widths, strict=True)}}


def _chart(panel: Panel, scope: Scope) -> Drawn:
    assert isinstance(panel.query, Metric)
    kind, options, stages = _FORMS[panel.form](panel, panel.query)
    return Drawn({"type": kind, "options": options}, {"primary": _piped(render(panel.query, scope), *stages)})


_Shape = tuple[str, dict[str, Any], list[str]]


def _course(panel: Panel, query: Metric) -> _Shape:
    """One series per value, or per group of one value."""
    options: dict[str, Any] = {
        "legendDisplay": "right" if panel.width >= 8 else "bottom",
        "legendTruncation": "ellipsisOff",
        "xAxisTitleVisibility": "hide",
        "seriesColors": _COLOURS,
    }
    if panel.form in ("area", "column"):
        options["stackMode"] = "stacked" if panel.stacked else "auto"
    if panel.form in ("line", "area"):
        options["nullValueDisplay"] = "zero"
    if not query.by:
        options["yAxisTitleVisibility"] = "hide"
        return f"splunk.{panel.form}", options, _readable(query.values)
    value, over = _main(panel, query), query.by[0].name
    across = (buckets(query, "_time") or (over,))[0]
    options["yAxisTitleText"] = _shown(value)
    return f"splunk.{panel.form}", options, [f"xyseries {across} {over} {value.name}", "fillnull value=0"]


def _bars(panel: Panel, query: Metric) -> _Shape:
    value = _main(panel, query)
    stages = [f"table {query.by[0].name}, {value.name}", *_readable((value,))]
    if panel.width < _WIDE_ENOUGH and query.by[0].name in _LONG_NAMES:
        return "splunk.table", _table(panel, [query.by[0].name, _shown(value)]), stages
    options: dict[str, Any] = {
        "xAxisTitleVisibility": "hide",
        "yAxisTitleVisibility": "hide",
        "legendDisplay": "off",
        # A number at each bar; an axis of counts would show tenths.
        "dataValuesDisplay": "all",
        "yAxisLabelVisibility": "hide",
        "showYMajorGridLines": False,
        "seriesColors": _COLOURS,
    }
    return "splunk.bar", options, stages


# Beside a narrow bar Studio cuts the middle out of names longer than some fifteen letters; a table shows them whole.
_WIDE_ENOUGH = 6
_LONG_NAMES = ("atlas", "owasp", "error_code", "flags", "verdict_agreement", "leakage_types")


def _pie(panel: Panel, query: Metric) -> _Shape:
    value = _main(panel, query)
    options = {"labelDisplay": "values", "seriesColors": _COLOURS}
    return "splunk.pie", options, [f"table {query.by[0].name}, {value.name}", *_readable((value,))]


def _numbers(panel: Panel, query: Metric) -> _Shape:
    names = {value.name: _shown(value) for value in query.values}
    headings = [names.get(name, name) for name in columns(query, "_time")]
    return "splunk.table", _table(panel, headings), _readable(query.values)


def _matrix(panel: Panel, query: Metric) -> _Shape:
    rows, across = (field.name for field in query.by[:2])
    options = {"count": 20, "fontSize": "small", "columnFormat": {rows: {"width": _WIDE.get(rows, 140)}}}
    return STANDS_IN["matrix"], options, [f"xyseries {rows} {across} {_main(panel, query).name}", "fillnull value=0"]


def _heat(panel: Panel, query: Metric) -> _Shape:
    value = _main(panel, query)
    folded = buckets(query)
    down = query.by[0].name if query.by else folded[0]
    stages = []
    if down == "day_of_week":
        names = ", ".join(f'day_of_week=={n}, "{n} {day}"' for n, day in enumerate(_DAYS, 1))
        stages.append(f"eval day_of_week=case({names})")
    across = folded[-1]
    if across == "hour_of_day":
        stages += ['eval hour_of_day=if(hour_of_day < 10, "0", "") . hour_of_day', *_all_hours(down, value.name)]
    # The order of rows is the order of what is drawn: hours from the left.
    stages += [f"sort 0 +str({across}), +str({down})", f"table {across}, {down}, {value.name}"]
    options = {
        "category": f"> primary | seriesByName('{down}')",
        "bubbleSizeMethod": "area",
        "showDefaultSort": True,
        "showMaxValuePulsation": False,
        "showDynamicBubbleSize": True,
        "legendDisplay": "off",
        "seriesColors": _COLOURS,
    }
    return STANDS_IN["heatmap"], options, [*stages, *_readable((value,))]


def _all_hours(down: str, value: str) -> list[str]:
    """A column for each hour of the day, also of those in which nothing was: gaps look like gaps."""
    hour = 'eval hour_of_day=if(tonumber(z_hour) < 10, "0", "") . z_hour'
    return [
        f"append [| makeresults | eval z_hour=mvrange(0, 24, 1) | mvexpand z_hour | {hour} | table hour_of_day]",
        'eval z_all="all"',
        f"streamstats window=0 last({down}) AS z_down BY z_all",
        f"eval {down}=coalesce({down}, z_down)",
        f"where isnotnull({down})",
        f"stats max({value}) AS {value} BY hour_of_day, {down}",
    ]


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def _sankey(panel: Panel, query: Metric) -> _Shape:
    """Both ends of a link need different names, or it runs in a circle."""
    source, target = (field.name for field in query.by[:2])
    apart = f'eval {target}=if({target}=={literal(NONE)}, "(no {label(target).lower()})", {target})'
    apart += f', {target}=if({target}=={source}, {target} . " ", {target})'
    value = _main(panel, query)
    stages = [apart, f"table {source}, {target}, {value.name}", *_readable((value,))]
    return "splunk.sankey", {"seriesColors": _COLOURS, "colorMode": "categorical"}, stages


_FORMS: dict[str, Any] = {
    "line": _course,
    "area": _course,
    "column": _course,
    "bar": _bars,
    "pie": _pie,
    "table": _numbers,
    "matrix": _matrix,
    "heatmap": _heat,
    "sankey": _sankey,
}


# --- where a click leads


def _handlers(panel: Panel, scope: Scope) -> dict[str, Any]:
    drill = panel.drill
    if drill is None or panel.query is None:
        return {}
    if drill.to != "events":
        same = ["global_time.earliest", "global_time.latest", *(f"form.{name}" for name in scope.filters)]
        tokens = [{"token": one, "value": one.removeprefix("form.")} for one in same]
        options = {"app": APP, "dashboard": f"{APP}_{drill.to}", "newTab": False, "tokens": tokens}
        return {"eventHandlers": [{"type": "drilldown.linkToDashboard", "options": options}]}
    options = {
        "query": behind(panel, drill, scope),
        "earliest": "$global_time.earliest$",
        "latest": "$global_time.latest$",
        "type": "custom",
        "newTab": True,
    }
    return {"eventHandlers": [{"type": "drilldown.linkToSearch", "options": options}]}


def behind(panel: Panel, drill: Drill, scope: Scope) -> str:
    """The search for the events behind a mark: the panel's condition, the page's filters, and what was clicked."""
    query = panel.query
    assert query is not None
    known = catalog(query.dataset)
    carried = [known[name] for name in drill.carry]
    shown = dict.fromkeys([*_SHOWN[query.dataset], *drill.carry, "event_id"])
    listing = Listing(tuple(known[name] for name in shown), query.dataset, query.where, 1000)
    text = render(listing, scope)
    conditions = [_clicked(panel, query, field.name, field.kind == "list") for field in carried]
    if conditions:
        text = text.replace("\n| dedup event_id", f"\n| where {' AND '.join(conditions)}\n| dedup event_id", 1)
    return text


def _clicked(panel: Panel, query: Metric | Listing, field: str, several: bool) -> str:
    """A token is a literal, and what is absent was shown as the text for it."""
    token = _token(panel, query, field)
    own = name(field)
    absent = f"(isnull({own}) AND {token}=={literal(NONE)})"
    if several:
        return f"(isnotnull(mvfilter({own}=={token})) OR {absent})"
    return f"({own}=={token} OR {absent})"


def _token(panel: Panel, query: Metric | Listing, field: str) -> str:
    by = [one.name for one in query.by] if isinstance(query, Metric) else []
    series = panel.form in ("line", "area", "column") and by and field == by[0] and buckets_of(query)
    across = panel.form == "matrix" and len(by) > 1 and field == by[1]
    return "$name|s$" if series or across else f"$row.{field}.value|s$"


def buckets_of(query: Metric | Listing) -> bool:
    """Whether the query has a row per bucket of time."""
    return isinstance(query, Metric) and bool(buckets(query))


def tokens(text: str) -> list[str]:
    """The tokens of a search, without their filters; what is written twice is a dollar sign."""
    return re.findall(r"\$([\w.]+)(?:\|\w+)?\$", text.replace("$$", ""))
