"""What a metric means, in plain Python over plain events: the judge of the four renderers.

Written from the docstring of ``aitrail.compiler.metric`` and independent of its loader: it reads the YAML data. Slow
and obvious on purpose. A percentile is the pair of closest ranks with the interpolated value between them.
"""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from aitrail.compiler import reference

Event = Mapping[str, Any]
Row = dict[str, Any]


class Percentile(NamedTuple):
    """The closest ranks and the linear interpolation between them."""

    low: float
    value: float
    high: float


class Look(NamedTuple):
    """How a query is looked at: the range in epoch seconds, what was chosen, the width of automatic buckets."""

    since: float
    until: float
    chosen: Mapping[str, Sequence[str]]
    width: int
    none: str


def epoch(event: Event) -> float:
    return datetime.fromisoformat(str(event["timestamp"])).timestamp()


def matches(where: Any, event: Event) -> bool:
    detection = where if "condition" in where else {"sel": where, "condition": "sel"}
    return reference.matches({"detection": detection}, event)


def counted(query: Mapping[str, Any], events: Iterable[Event], look: Look) -> list[Event]:
    """The rows that count, each once."""
    once = {event["event_id"]: event for event in events}
    found = [event for event in once.values() if look.since <= epoch(event) < look.until]
    for name, values in look.chosen.items():
        found = [event for event in found if not values or set(_texts(event, name, look)) & set(values)]
    return [event for event in found if not query.get("where") or matches(query["where"], event)]


def _texts(event: Event, name: str, look: Look) -> list[str]:
    """The groups of a dimension that the event is in."""
    held = event.get(name)
    items = list(dict.fromkeys(held)) if isinstance(held, list | tuple) else [held]
    texts = [
        "" if item is None else ("true" if item else "false") if isinstance(item, bool) else str(item) for item in items
    ]
    return [text or look.none for text in texts] or [look.none]


def rows(query: Mapping[str, Any], events: Iterable[Event], look: Look) -> list[Row]:
    """The rows of a listing: in order, the fields as they are."""
    order = query.get("order", "timestamp")
    found = counted(query, events, look)
    found.sort(key=lambda event: event["event_id"])
    found.sort(key=lambda event: event["timestamp"], reverse=True)
    if order != "timestamp":
        found.sort(key=lambda event: (event.get(order) is not None, event.get(order) or 0), reverse=True)
    return [{name: event.get(name) for name in query["list"]} for event in found[: query.get("limit", 50)]]


def evaluate(query: Mapping[str, Any], events: Iterable[Event], look: Look) -> list[Row]:
    """The rows of a metric, in order: buckets, dimensions, values."""
    by = query.get("by", [])
    members: list[tuple[tuple[Any, ...], tuple[str, ...], Event]] = []
    for event in counted(query, events, look):
        for key in itertools.product(*(_texts(event, name, look) for name in by)):
            if not (query.get("present") and look.none in key):
                members.append((_moment(query.get("bucket", ""), epoch(event), look), key, event))
    order = query.get("order") or next(iter(query["values"]))
    if query.get("top"):
        totals = {key: _values(query, [m[2] for m in members if m[1] == key]) for key in {m[1] for m in members}}
        best = sorted(totals, key=lambda key: (_descending(totals[key][order]), key))[: query["top"]]
        members = [member for member in members if member[1] in best]
    groups: dict[tuple[Any, ...], list[Event]] = {}
    for moment, key, event in members:
        groups.setdefault((moment, key), []).append(event)
    if not by and not query.get("bucket"):
        groups = {((), ()): [member[2] for member in members]}
    found = [(moment, key, _values(query, group)) for (moment, key), group in groups.items()]
    if query.get("bucket"):
        found.sort(key=lambda row: row[:2])
    else:
        found.sort(key=lambda row: (_descending(row[2][order]), row[1]))
        least = query.get("least", 0)
        found = [row for row in found if not least or (row[2][order] is not None and row[2][order] >= least)]
    names = [*_columns(query.get("bucket", "")), *by]
    return [{**dict(zip(names, (*moment, *key), strict=True)), **values} for moment, key, values in found]


def _columns(bucket: str) -> list[str]:
    folds = {"": [], "hour_of_week": ["day_of_week", "hour_of_day"]}
    return folds.get(bucket, [bucket] if bucket.endswith(("_day", "_week")) else ["time"])


def _moment(bucket: str, seconds: float, look: Look) -> tuple[Any, ...]:
    moment = datetime.fromtimestamp(seconds, UTC)
    folds = {"hour_of_day": moment.hour, "day_of_week": moment.isoweekday()}
    width = {"15m": 900, "1h": 3600, "1d": 86_400, "auto": look.width}.get(bucket)
    return (seconds // width * width,) if width else tuple(folds[name] for name in _columns(bucket))


def _descending(value: Any) -> tuple[bool, float]:
    """Largest first, missing last."""
    number = _number(value)
    return (number is None, 0 if number is None else -number)


def _values(query: Mapping[str, Any], group: Sequence[Event]) -> Row:
    found: Row = {}
    for name, value in query["values"].items():
        table = value if isinstance(value, dict) else {"is": value}
        kept = [event for event in group if not table.get("where") or matches(table["where"], event)]
        found[name] = _value(table["is"], kept, found)
    return found


def _value(text: str, group: Sequence[Event], earlier: Row) -> Any:
    function, _, rest = text.partition(" ")
    if function == "count":
        return len(group)
    if function == "ratio":
        of, over = (_number(earlier[name.strip()]) for name in rest.split("/"))
        return None if not over or of is None else of / over
    items = [event[rest] for event in group if event.get(rest) not in (None, "")]
    if function == "dcount":
        return len(set(items))
    if function == "sum":
        return sum(items)
    if not items:
        return None
    if re.fullmatch(r"p\d+", function):
        return _percentile(sorted(items), int(function[1:]) / 100)
    return {"avg": sum(items) / len(items), "min": min(items), "max": max(items)}[function]


def _number(value: Any) -> Any:
    return value.value if isinstance(value, Percentile) else value


def _percentile(items: list[float], share: float) -> Percentile:
    place = (len(items) - 1) * share
    low = int(place)
    high = min(low + 1, len(items) - 1)
    return Percentile(items[low], items[low] + (items[high] - items[low]) * (place - low), items[high])
