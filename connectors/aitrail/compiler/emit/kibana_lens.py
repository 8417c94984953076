"""Panels as Lens visualizations over ES|QL: what is drawn, and from which columns.

A dimension has the name of the document's field in the result, so that a click on a value filters the whole dashboard
by it; what is absent shows as "(none)", which no filter finds. Lens has no sankey: a matrix of numbers from one
dimension to the other stands in.
"""

from collections.abc import Callable
from typing import Any

from aitrail.compiler.boards import label
from aitrail.compiler.dashboard import Form, Panel
from aitrail.compiler.dialects.esql import column
from aitrail.compiler.dialects.metrics_esql import render
from aitrail.compiler.dialects.scope import Scope, buckets
from aitrail.compiler.emit.kibana_numbers import adhoc, form, number
from aitrail.compiler.emit.kibana_objects import Json
from aitrail.compiler.metric import Aggregate, Listing, Metric
from aitrail.schema.catalog import FieldInfo

# What stands for a form that Lens does not have.
STANDS_IN: dict[Form, str] = {"sankey": "lnsHeatmap", "events": "lnsDatatable"}
LAYER = "main"
RANGE = "WHERE @timestamp >= ?_tstart AND @timestamp <= ?_tend"
# Kibana narrows an ES|QL panel by the dashboard's filters itself.
SCOPE = Scope(filters=())
_TYPES = {"time": ("date", "date"), "integer": ("number", "long"), "number": ("number", "double")}
_HOURS = ("day_of_week", "hour_of_day")
_DAYS = ("1 Mon", "2 Tue", "3 Wed", "4 Thu", "5 Fri", "6 Sat", "7 Sun")
_HEAT = ("#e8f1ff", "#bfdbff", "#94c3ff", "#61a2ff", "#2f6fd6")


def lens(panel: Panel) -> Json:
    """Lens's attributes of a panel that has a query."""
    assert panel.query is not None
    drawn = number(panel) if panel.form == "single" else _esql(panel, panel.query)
    return {"title": panel.title, "description": described(panel), "type": "lens", **drawn}


def described(panel: Panel) -> str:
    """How to read a panel, and what it means when it is empty."""
    known = {field.name for field in Scope().fields(panel.query.dataset)} if panel.query else set()
    missing = [label(name).lower() for name in Scope().filters if panel.query and name not in known]
    parts = [panel.help, f"When empty: {panel.empty}" if panel.empty else ""]
    if missing:
        parts.append(f"These records have no {' and no '.join(missing)}: choosing one above leaves nothing here.")
    return " ".join(part.strip() for part in parts if part)


def query(panel: Panel) -> str:
    """The ES|QL of a panel that is not one number."""
    assert panel.query is not None
    text = render(panel.query, SCOPE)
    if "?_tstart" in text:
        # Kibana takes the field that it compares these with for the time field of the panel.
        source, _, rest = text.partition("\n| ")
        text = f"{source}\n| {RANGE}\n| {rest}"
    lines = [text]
    if isinstance(panel.query, Metric):
        lines += _read(panel.query)
        renamed = [f"{field.name} AS {column(field)}" for field in panel.query.by if field.name != column(field)]
        lines += [f"RENAME {', '.join(renamed)}"] if renamed else []
    return "\n| ".join(lines)


def _read(of: Metric) -> list[str]:
    """Hours and days as texts: they are categories, in the order of their names."""
    found = []
    if "hour_of_day" in buckets(of):
        padded = 'CASE(hour_of_day < 10, CONCAT("0", TO_STRING(hour_of_day)), TO_STRING(hour_of_day))'
        found.append(f"EVAL hour_of_day = {padded}")
    if "day_of_week" in buckets(of):
        cases = ", ".join(f'day_of_week == {place}, "{name}"' for place, name in enumerate(_DAYS, 1))
        found.append(f"EVAL day_of_week = CASE({cases})")
    return found


def _esql(panel: Panel, of: Metric | Listing) -> Json:
    text = query(panel)
    view = adhoc(of.dataset, "esql")
    fields = [_field(field) for field in of.fields] if isinstance(of, Listing) else _columns(of)
    kind, drawn = _FORMS[panel.form](panel, of)
    return {
        "visualizationType": kind,
        "references": [],
        "state": {
            "adHocDataViews": {view["id"]: view},
            "datasourceStates": {
                "textBased": {
                    "layers": {
                        LAYER: {
                            "columns": fields,
                            "index": view["id"],
                            "query": {"esql": text},
                            "timeField": "@timestamp",
                        }
                    }
                }
            },
            "filters": [],
            "internalReferences": [
                {"id": view["id"], "name": f"textBasedLanguages-datasource-layer-{LAYER}", "type": "index-pattern"}
            ],
            "needsRefresh": False,
            "query": {"esql": text},
            "visualization": drawn,
        },
    }


# --- columns


def _columns(of: Metric) -> list[Json]:
    times = [
        _named(name, "string" if name in _HOURS else "date", "keyword" if name in _HOURS else "date")
        for name in buckets(of)
    ]
    values = [
        _named(
            one.name,
            "number",
            _number(one),
            one.label or label(one.name),
            form(one),
        )
        for one in of.values
    ]
    dimensions = [_named(column(field), "string", "keyword", label(field.name)) for field in of.by]
    return [*times, *dimensions, *values]


def _number(value: Aggregate) -> str:
    whole = value.function in ("count", "dcount") or (
        value.field is not None and value.field.kind == "integer" and value.function in ("sum", "min", "max")
    )
    return "long" if whole else "double"


def _field(field: FieldInfo) -> Json:
    """A field of a listing keeps its own name."""
    kind, inner = _TYPES.get(field.kind, ("string", "keyword"))
    return _named(field.name, kind, inner, label(field.name))


def _named(name: str, kind: str, inner: str, shown: str = "", written: Json | None = None) -> Json:
    made: Json = {"columnId": name, "fieldName": name, "meta": {"esType": inner, "type": kind}}
    if kind == "number":
        made["inMetricDimension"] = True
    made |= {"customLabel": True, "label": shown or label(name)}
    return made | ({"params": {"format": written}} if written else {})


# --- forms


def _course(panel: Panel, of: Metric) -> tuple[str, Json]:
    """One series per value, or per group of one value."""
    series = {"line": "line", "area": "area", "column": "bar"}[panel.form]
    drawn = f"{series}_stacked" if panel.stacked and series != "line" else series
    across = (buckets(of) or (column(of.by[0]),))[0]
    split = of.by[0] if of.by and buckets(of) else None
    accessors = [_main(panel, of).name] if of.by else [one.name for one in of.values]
    layer: Json = {
        "accessors": accessors,
        "layerId": LAYER,
        "layerType": "data",
        "seriesType": drawn,
        "showGridlines": False,
        "xAccessor": across,
    }
    if split:
        layer["splitAccessor"] = column(split)
    return "lnsXY", _xy([layer], drawn, legend=bool(split) or len(accessors) > 1)


def _bars(panel: Panel, of: Metric) -> tuple[str, Json]:
    layer = {
        "accessors": [_main(panel, of).name],
        "layerId": LAYER,
        "layerType": "data",
        "seriesType": "bar_horizontal",
        "showGridlines": False,
        "xAccessor": column(of.by[0]),
    }
    return "lnsXY", _xy([layer], "bar_horizontal", legend=False) | {"valueLabels": "show"}


def _xy(layers: list[Json], series: str, *, legend: bool) -> Json:
    sides = {"x": False, "yLeft": False, "yRight": False}
    return {
        "axisTitlesVisibilitySettings": sides,
        "fittingFunction": "None",
        "gridlinesVisibilitySettings": {**sides, "yLeft": True},
        "layers": layers,
        "legend": {"isVisible": legend, "legendSize": "auto", "position": "right"},
        "preferredSeriesType": series,
        "valueLabels": "hide",
    }


def _pie(panel: Panel, of: Metric) -> tuple[str, Json]:
    layer = {
        "categoryDisplay": "default",
        "layerId": LAYER,
        "layerType": "data",
        "legendDisplay": "show",
        "metrics": [_main(panel, of).name],
        "nestedLegend": False,
        "numberDisplay": "percent",
        "primaryGroups": [column(of.by[0])],
    }
    return "lnsPie", {"layers": [layer], "shape": "donut"}


def _table(_panel: Panel, of: Metric | Listing) -> tuple[str, Json]:
    if isinstance(of, Listing):
        columns: list[Json] = [{"columnId": field.name} for field in of.fields]
    else:
        columns = [{"columnId": column(field), "isMetric": False, "isTransposed": False} for field in of.by]
        columns += [{"alignment": "right", "columnId": one.name, "isMetric": True} for one in of.values]
    return "lnsDatatable", {
        "columns": columns,
        "density": "compact",
        "layerId": LAYER,
        "layerType": "data",
        "paging": {"enabled": True, "size": 20},
        **({"rowHeight": "auto"} if isinstance(of, Listing) else {"rowHeight": "custom", "rowHeightLines": 1}),
    }


def _matrix(panel: Panel, of: Metric) -> tuple[str, Json]:
    down, across = of.by[:2]
    return "lnsHeatmap", _cells(column(across), column(down), _main(panel, of), numbers=True)


def _heat(panel: Panel, of: Metric) -> tuple[str, Json]:
    folded = buckets(of)
    down = column(of.by[0]) if of.by else folded[0]
    return "lnsHeatmap", _cells(folded[-1], down, _main(panel, of), numbers=False)


def _cells(across: str, down: str, value: Aggregate, *, numbers: bool) -> Json:
    share = 100 / len(_HEAT)
    return {
        "gridConfig": {
            "isCellLabelVisible": numbers,
            "isXAxisLabelVisible": True,
            "isXAxisTitleVisible": False,
            "isYAxisLabelVisible": True,
            "isYAxisTitleVisible": False,
            "type": "heatmap_grid",
        },
        "layerId": LAYER,
        "layerType": "data",
        "legend": {"isVisible": not numbers, "position": "right", "type": "heatmap_legend"},
        "palette": {
            "name": "custom",
            "params": {
                "colorStops": [{"color": one, "stop": share * place} for place, one in enumerate(_HEAT)],
                "continuity": "all",
                "maxSteps": 5,
                "name": "custom",
                "progression": "fixed",
                "rangeMax": None,
                "rangeMin": None,
                "rangeType": "percent",
                "reverse": False,
                "steps": len(_HEAT),
                "stops": [{"color": one, "stop": share * (place + 1)} for place, one in enumerate(_HEAT)],
            },
            "type": "palette",
        },
        "shape": "heatmap",
        "valueAccessor": value.name,
        "xAccessor": across,
        "yAccessor": down,
    }


def _main(panel: Panel, of: Metric) -> Aggregate:
    name = panel.value or of.values[0].name
    return next(one for one in of.values if one.name == name)


_FORMS: dict[Form, Callable[[Panel, Any], tuple[str, Json]]] = {
    "line": _course,
    "area": _course,
    "column": _course,
    "bar": _bars,
    "pie": _pie,
    "table": _table,
    "events": _table,
    "matrix": _matrix,
    "heatmap": _heat,
    "sankey": _matrix,
}
