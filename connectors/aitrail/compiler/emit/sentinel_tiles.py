"""A single value as a tile: the number, its change against the range before, its course, and what it means.

The three queries of the metric model become one: the number is a function of its range, called for the range that is
looked at and for the one before. The course has a point for every bucket of the range: where nothing was there is no
row, and a line must not pass over it.
"""

from typing import Any

import msgspec

from aitrail.compiler.boards import label
from aitrail.compiler.dashboard import Panel
from aitrail.compiler.dialects.kql import literal
from aitrail.compiler.dialects.metrics_kql import render
from aitrail.compiler.dialects.scope import Scope
from aitrail.compiler.metric import Aggregate, Metric

_DECIMALS = {"ms": 0, "USD": 2, "%": 1, "s": 0}
# How a threshold is said: a column of words that get a sign (Azure Workbooks, thresholds with icons).
_SIGNS = {"all right": "success", "look at it": "2", "act": "4", "no data": "unknown"}


def bracketed(name: str) -> str:
    """A column whose name may be a word of the language."""
    return f"['{name}']"


def unit(value: Aggregate) -> str:
    """Of a value, its own or its field's."""
    return value.unit or (value.field.unit if value.field and value.function not in ("dcount", "count") else "")


def readable(value: Aggregate, name: str = "") -> str:
    """The expression that people read: rounded, a share times 100."""
    name = name or bracketed(value.name)
    own = unit(value)
    factor = "100 * " if own == "%" and value.function == "ratio" else ""
    if factor or own in _DECIMALS or value.function in ("ratio", "avg", "percentile"):
        return f"round({factor}{name}, {_DECIMALS.get(own, 2)})"
    return name


def shown(value: Aggregate) -> str:
    """A value's name for people, with its unit."""
    name, own = value.label or label(value.name), unit(value)
    return f"{name} ({own})" if own and own != "tokens" and own not in name.lower() else name


def main(panel: Panel, query: Metric) -> Aggregate:
    """The value that is drawn."""
    return next(value for value in query.values if value.name == (panel.value or query.values[0].name))


def _parts(text: str) -> tuple[list[str], str]:
    """The statements before a query's last, and the last."""
    *lets, tail = text.split(";\n")
    return [f"{one};" for one in lets], tail


def query(panel: Panel, scope: Scope) -> str:
    """One row: Title, Value, Unit, Change, Trend, State."""
    assert isinstance(panel.query, Metric)
    value = main(panel, panel.query)
    whole = msgspec.structs.replace(panel.query, bucket="")
    lets, now = _parts(render(whole, scope))
    since, until = _ranges(msgspec.structs.replace(scope, previous=1), whole)
    lets.append(f"let z_of = (z_since: datetime, z_until: datetime) {{ {now} }};")
    trend = "dynamic([])"
    if panel.query.bucket:
        course, tail = _parts(render(panel.query, scope))
        lets += [text for text in course if text not in lets]
        lets.append(
            f"let z_course = toscalar({tail}\n| make-series Course = sum(todouble({bracketed(value.name)}))"
            " default = 0.0"
            " on ['time'] from datetime(1970-01-01) + 1s * bin(tolong((z_since - datetime(1970-01-01)) / 1s), z_width)"
            " to z_until step 1s * z_width\n| project Course);"
        )
        trend = "z_course"
    lets.append(f"let z_value = toscalar(z_of(z_since, z_until) | project {bracketed(value.name)});")
    lets.append(f"let z_earlier = toscalar(z_of({since}, {until}) | project {bracketed(value.name)});")
    last = [
        f"print Title = {literal(panel.title)}, Value = todouble({readable(value, 'z_value')})",
        f"extend Earlier = todouble({readable(value, 'z_earlier')})",
        "extend Change = round(Value - Earlier, 2)",
        (
            f"extend Said = strcat({literal(shown(value))}, iff(isnull(Change), '', strcat(', ',"
            " iff(Change > 0, '+', ''), tostring(Change), ' against the range before')))"
        ),
        f"extend Trend = {trend}",
        f"extend State = {_state(panel, value)}",
        "project Title, Value, Said, Trend, State",
    ]
    return "\n".join([*lets, "\n| ".join(last)])


def _ranges(scope: Scope, whole: Metric) -> tuple[str, str]:
    """The two ends of the range before, as its own query says them."""
    lets = dict(text.removeprefix("let ").removesuffix(";").split(" = ", 1) for text in _parts(render(whole, scope))[0])
    return lets["z_since"], lets["z_until"]


def _state(panel: Panel, value: Aggregate) -> str:
    """The word for where the value stands between its thresholds; nothing without."""
    if not panel.thresholds:
        return '""'
    factor = 100 if unit(value) == "%" and value.function == "ratio" else 1
    bounds = [round(bound * factor, 6) for bound in sorted(panel.thresholds)]
    if panel.tone == "good_high":
        words = ["act", "look at it", "all right"] if len(bounds) > 1 else ["act", "all right"]
    else:
        words = ["all right", "look at it", "act"] if len(bounds) > 1 else ["all right", "act"]
    cases = ", ".join(f"Value < {bound!r}, {literal(word)}" for bound, word in zip(bounds, words, strict=False))
    return f'case(isnull(Value), "no data", {cases}, {literal(words[-1])})'


def settings(panel: Panel) -> dict[str, Any]:
    """``tileSettings``: title, big number, course, and the sign of the state."""
    made: dict[str, Any] = {
        "titleContent": {"columnMatch": "Title", "formatter": 1},
        "leftContent": {
            "columnMatch": "Value",
            "formatter": 12,
            "formatOptions": {"palette": "auto"},
            "numberFormat": {
                "unit": 0,
                "options": {"style": "decimal", "useGrouping": True, "maximumFractionDigits": 2},
            },
        },
        "rightContent": {"columnMatch": "Trend", "formatter": 9, "formatOptions": {"palette": "blue"}},
        "subtitleContent": {"columnMatch": "Said", "formatter": 1},
        "showBorder": True,
        "size": "full",
    }
    if panel.thresholds:
        made["secondaryContent"] = {
            "columnMatch": "State",
            "formatter": 18,
            "formatOptions": {
                "thresholdsOptions": "icons",
                "thresholdsGrid": [
                    *(
                        {"operator": "==", "thresholdValue": word, "representation": sign, "text": "{0}"}
                        for word, sign in _SIGNS.items()
                    ),
                    {"operator": "Default", "thresholdValue": None, "representation": "Blank", "text": "{0}"},
                ],
            },
        }
    return made
