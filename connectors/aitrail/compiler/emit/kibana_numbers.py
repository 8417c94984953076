"""One number, against the range before it and with its course: Lens's metric over fields and KQL.

ES|QL has neither a range before nor a course in this visualization, so these panels are ``formBased``: a column per
value, the same shifted to the ``previous`` range, and a linked layer over time. A share is a formula, saved with the
columns that Lens makes of it.
"""

from typing import Any

from aitrail.compiler.boards import label
from aitrail.compiler.dashboard import Panel
from aitrail.compiler.dialects import kuery
from aitrail.compiler.dialects.esql import column
from aitrail.compiler.dialects.metrics_esql import SOURCES
from aitrail.compiler.dialects.scope import shipped
from aitrail.compiler.emit.kibana_objects import Json
from aitrail.compiler.metric import Aggregate, Dataset, Metric

MAIN, TREND = "main", "course"
GOOD, WARN, BAD, PLAIN = "#24c292", "#fcd883", "#f6726a", "#61a2ff"
_OPERATIONS = {
    "count": "count",
    "dcount": "unique_count",
    "sum": "sum",
    "avg": "average",
    "min": "min",
    "max": "max",
    "percentile": "percentile",
}
_PREVIOUS = "previous"


def number(panel: Panel) -> Json:
    """Lens's attributes without title: what it draws, and from what."""
    assert isinstance(panel.query, Metric)
    query = shipped(panel.query)
    value = next(one for one in query.values if one.name == (panel.value or query.values[0].name))
    main = {**_columns(query, value, "now", ""), **_columns(query, value, "before", _PREVIOUS)}
    layers = {MAIN: _layer(main)}
    drawn: Json = {
        "layerId": MAIN,
        "layerType": "data",
        "metricAccessor": "now",
        "secondaryMetricAccessor": "before",
        # Named anew in 9.2.
        "secondaryLabel": "before",
        "secondaryPrefix": "before",
        "secondaryTrend": _trend(panel),
        "showBar": False,
        "subtitle": _under(value),
        **_colour(panel),
    }
    if query.bucket:
        layers[TREND] = _layer({"moment": _moment(), **_columns(query, value, "course", "")}, linked=MAIN)
        drawn |= {
            "trendlineLayerId": TREND,
            "trendlineLayerType": "metricTrendline",
            "trendlineTimeAccessor": "moment",
            "trendlineMetricAccessor": "course",
        }
    view = adhoc(query.dataset)
    where = kuery.render(query.where) if query.where else ""
    return {
        "visualizationType": "lnsMetric",
        "references": [],
        "state": {
            "adHocDataViews": {view["id"]: view},
            "datasourceStates": {"formBased": {"layers": layers}},
            "filters": [],
            "internalReferences": [
                {"id": view["id"], "name": f"indexpattern-datasource-layer-{name}", "type": "index-pattern"}
                for name in layers
            ],
            "query": {"language": "kuery", "query": where},
            "visualization": drawn,
        },
    }


def adhoc(dataset: Dataset, kind: str = "") -> Json:
    """A data view that lives in the panel alone, so that the panel needs nothing beside it."""
    return {
        "allowHidden": False,
        "allowNoIndex": False,
        "fieldFormats": {},
        "id": f"aitrail-{kind + '-' if kind else ''}{dataset}",
        "name": SOURCES[dataset],
        "runtimeFieldMap": {},
        "sourceFilters": [],
        "timeFieldName": "@timestamp",
        "title": SOURCES[dataset],
        **({"type": kind} if kind else {}),
    }


def form(value: Aggregate) -> Json:
    """How Lens writes a value."""
    unit = value.unit or (value.field.unit if value.field and value.function not in ("dcount", "count") else "")
    if unit == "%" and value.function == "ratio":
        return {"id": "percent", "params": {"decimals": 1}}
    if unit == "USD":
        return {"id": "number", "params": {"decimals": 2, "suffix": " USD"}}
    if unit == "ms":
        return {"id": "number", "params": {"decimals": 0, "suffix": " ms"}}
    if unit in ("s", "seconds"):
        return {
            "id": "duration",
            "params": {"decimals": 1, "fromUnit": "seconds", "suffix": "", "toUnit": "humanizePrecise"},
        }
    digits = 2 if value.function in ("ratio", "avg") else 0
    return {"id": "number", "params": {"compact": False, "decimals": digits}}


def _under(value: Aggregate) -> str:
    return "tokens" if value.unit == "tokens" else ""


def _layer(columns: Json, linked: str = "") -> Json:
    order = sorted(columns, key=lambda name: not columns[name]["isBucketed"])
    made: Json = {
        "columnOrder": order,
        "columns": columns,
        "ignoreGlobalFilters": False,
        "incompleteColumns": {},
        "sampling": 1,
    }
    return made | ({"linkToLayers": [linked]} if linked else {})


def _moment() -> Json:
    return {
        "customLabel": False,
        "dataType": "date",
        "isBucketed": True,
        "label": "@timestamp",
        "operationType": "date_histogram",
        "params": {"dropPartials": False, "includeEmptyRows": True, "interval": "auto"},
        "scale": "interval",
        "sourceField": "@timestamp",
    }


def _columns(query: Metric, value: Aggregate, name: str, shift: str) -> Json:
    if value.function == "ratio":
        return _share(query, value, name, shift)
    shown = value.label or label(value.name)
    return {name: _column(value, "Before" if shift else shown, shift, form(value))}


def _column(value: Aggregate, shown: str, shift: str, written: Json | None) -> Json:
    params: Json = {"format": written} if written else {}
    if value.function == "percentile":
        params["percentile"] = value.percentile
    if value.function in ("count", "dcount", "sum"):
        params["emptyAsNull"] = False
    made: Json = {
        "customLabel": True,
        "dataType": "number",
        "isBucketed": False,
        "label": shown,
        "operationType": _OPERATIONS[value.function],
        "params": params,
        "scale": "ratio",
        "sourceField": column(value.field) if value.field else "___records___",
    }
    if value.where:
        made["filter"] = {"language": "kuery", "query": kuery.render(value.where)}
    return made | ({"timeShift": shift} if shift else {})


def _share(query: Metric, value: Aggregate, name: str, shift: str) -> Json:
    """A formula with its parts: Lens draws from the parts and shows the formula to whoever edits it."""
    known = {one.name: one for one in query.values}
    parts = {f"{name}X{place}": known[one] for place, one in enumerate((value.of, value.over))}
    formula = " / ".join(_formula(one, shift) for one in parts.values())
    made = {key: _column(one, f"Part of {name}", shift, None) for key, one in parts.items()}
    made[f"{name}X2"] = {
        "customLabel": True,
        "dataType": "number",
        "isBucketed": False,
        "label": f"Part of {name}",
        "operationType": "math",
        "params": {
            "tinymathAst": {
                "args": list(parts),
                "location": {"max": len(formula), "min": 0},
                "name": "divide",
                "text": formula,
                "type": "function",
            }
        },
        "references": list(parts),
        "scale": "ratio",
    }
    made[name] = {
        "customLabel": True,
        "dataType": "number",
        "isBucketed": False,
        "label": "Before" if shift else value.label or label(value.name),
        "operationType": "formula",
        "params": {"format": form(value), "formula": formula, "isFormulaBroken": False},
        "references": [f"{name}X2"],
        "scale": "ratio",
    }
    return made


def _formula(value: Aggregate, shift: str) -> str:
    """A part of a formula as it is written; a quote in a condition is escaped as the formula's grammar wants it."""
    inner = [column(value.field)] if value.field else []
    if value.where:
        condition = kuery.render(value.where).replace("\\", "\\\\").replace("'", "\\'")
        inner.append(f"kql='{condition}'")
    if shift:
        inner.append(f"shift='{shift}'")
    return f"{_OPERATIONS[value.function]}({', '.join(inner)})"


def _colour(panel: Panel) -> Json:
    if not panel.thresholds:
        return {"color": PLAIN}
    bounds = sorted(panel.thresholds)
    colours = [GOOD, WARN, BAD] if len(bounds) > 1 else [GOOD, BAD]
    if panel.tone == "good_high":
        colours.reverse()
    return {"applyColorTo": "value", "palette": steps(colours, bounds)}


def steps(colours: list[str], bounds: list[float]) -> Json:
    """A palette that changes at ``bounds``: ``colorStops`` name where a colour begins, ``stops`` where it ends."""
    begins: list[Any] = [None, *bounds]
    ends = [*bounds, bounds[-1] + 1]
    return {
        "name": "custom",
        "params": {
            "colorStops": [{"color": one, "stop": at} for one, at in zip(colours, begins, strict=True)],
            "continuity": "all",
            "maxSteps": 5,
            "name": "custom",
            "progression": "fixed",
            "rangeMax": None,
            "rangeMin": None,
            "rangeType": "number",
            "reverse": False,
            "steps": len(colours),
            "stops": [{"color": one, "stop": at} for one, at in zip(colours, ends, strict=True)],
        },
        "type": "palette",
    }


def _trend(panel: Panel) -> Json:
    """The change against the range before, in the colour of what is good."""
    if not panel.tone:
        return {"type": "none"}
    return {
        "baselineValue": "primary",
        "paletteId": "compare_to",
        "reversed": panel.tone == "good_low",
        "type": "dynamic",
        "visuals": "both",
    }
