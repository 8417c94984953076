"""What a rule means, by the Sigma specification, in plain Python over plain events: the judge of every dialect.

Written from the specification (sigma-rules 2.0, sigma-modifiers 2.0, sigma-correlation-rules 2.0) and independent of
pySigma and of ``lower``: it reads the rule's YAML data, with a parser of conditions of its own. Slow and obvious on
purpose.
"""

import fnmatch
import ipaddress
import itertools
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import re2

Event = Mapping[str, Any]
_TOKEN = re.compile(r"\(|\)|[^\s()]+")


def matches(rule: Mapping[str, Any], event: Event) -> bool:
    """Say whether one event fulfils the rule's condition."""
    detection = rule["detection"]
    tokens = _TOKEN.findall(detection["condition"])
    value, rest = _or(tokens, detection, event)
    if rest:
        raise ValueError(f"condition: {rest[0]!r} is left over")
    return value


def _or(tokens: list[str], detection: Mapping[str, Any], event: Event) -> tuple[bool, list[str]]:
    value, rest = _and(tokens, detection, event)
    while rest and rest[0] == "or":
        other, rest = _and(rest[1:], detection, event)
        value = value or other
    return value, rest


def _and(tokens: list[str], detection: Mapping[str, Any], event: Event) -> tuple[bool, list[str]]:
    value, rest = _not(tokens, detection, event)
    while rest and rest[0] == "and":
        other, rest = _not(rest[1:], detection, event)
        value = value and other
    return value, rest


def _not(tokens: list[str], detection: Mapping[str, Any], event: Event) -> tuple[bool, list[str]]:
    if tokens[0] == "not":
        value, rest = _not(tokens[1:], detection, event)
        return not value, rest
    if tokens[0] == "(":
        value, rest = _or(tokens[1:], detection, event)
        return value, rest[1:]
    if len(tokens) > 2 and tokens[1] == "of":
        names = [name for name in detection if name != "condition"]
        if tokens[2] != "them":
            names = fnmatch.filter(names, tokens[2])
        found = [_selection(detection[name], event) for name in names]
        return (all(found) if tokens[0] == "all" else any(found)), tokens[3:]
    return _selection(detection[tokens[0]], event), tokens[1:]


def _selection(selection: Any, event: Event) -> bool:
    if isinstance(selection, list):
        return any(_selection(item, event) for item in selection)
    return all(_item(key, value, event) for key, value in selection.items())


def _item(key: str, expected: Any, event: Event) -> bool:
    name, *modifiers = key.split("|")
    test = _test(modifiers, event)
    values = expected if isinstance(expected, list) else [expected]
    held = event.get(name)
    present = held is not None and held not in ("", ()) and held != []
    if "exists" in modifiers:
        return bool(present == expected)
    actual = list(held) if isinstance(held, list | tuple) else [held]
    outcomes = []
    for value in values:
        if value == "" and not modifiers:
            outcomes.append(not present)
        else:
            outcomes.append(present and any(test(one, value) for one in actual))
    return all(outcomes) if "all" in modifiers else any(outcomes)


def _test(modifiers: Sequence[str], event: Event) -> Callable[[Any, Any], bool]:
    for name, test in _MODIFIERS.items():
        if name in modifiers:
            return test
    if "fieldref" in modifiers:
        return lambda actual, other: bool(event.get(other)) and _equal(actual, event[other], plain=True)
    return _equal


def _equal(actual: Any, expected: Any, *, plain: bool = False) -> bool:
    if isinstance(expected, bool) or isinstance(actual, bool):
        return actual is expected
    if isinstance(actual, int | float):
        return not isinstance(expected, str) and bool(actual == expected)
    text = str(expected).lower()
    if plain or "*" not in text:
        return bool(actual.lower() == text.replace("\\*", "*"))
    parts = "".join(".*" if part == "*" else re.escape(part) for part in re.split(r"(\*)", text))
    return re.fullmatch(parts, actual.lower(), re.DOTALL) is not None


_MODIFIERS: dict[str, Callable[[Any, Any], bool]] = {
    "contains": lambda actual, value: str(value).lower() in actual.lower(),
    "startswith": lambda actual, value: actual.lower().startswith(str(value).lower()),
    "endswith": lambda actual, value: actual.lower().endswith(str(value).lower()),
    "gte": lambda actual, value: actual >= value,
    "gt": lambda actual, value: actual > value,
    "lte": lambda actual, value: actual <= value,
    "lt": lambda actual, value: actual < value,
    "re": lambda actual, value: re2.search(value, actual) is not None,
    "cidr": lambda actual, value: ipaddress.ip_address(actual) in ipaddress.ip_network(value),
}


# --- correlations: the right edges (index of the event that completes one) of every window in which it holds


def completes(
    correlation: Mapping[str, Any], rules: Mapping[str, Mapping[str, Any]], events: Iterable[Event], seconds: int
) -> set[str]:
    """Give the event_ids at which ``correlation`` holds, looking back over ``seconds`` (both ends inside).

    Groups lie within one tenant, always.
    """
    group_by = ["tenant_id", *correlation.get("group-by", [])]
    names = correlation["rules"]
    field = correlation.get("condition", {}).get("field", "")
    rows = []
    for event in events:
        if any(event.get(name) in (None, "") for name in group_by) or (field and event.get(field) in (None, "")):
            continue
        parts = [number for number, name in enumerate(names) if matches(rules[name], event)]
        rows += [(_time(event), part, event) for part in parts]
    found = set()
    key = [[str(row[2].get(name)) for name in group_by] for row in rows]
    for index, (end, _, event) in enumerate(rows):
        window = [
            row for other, row in enumerate(rows) if key[other] == key[index] and 0 <= end - row[0] <= seconds * 1000
        ]
        if _holds(correlation, window, names, field, rows[index]):
            found.add(str(event["event_id"]))
    return found


def _time(event: Event) -> int:
    moment = datetime.fromisoformat(str(event["timestamp"]))
    return round(moment.timestamp() * 1000)


Row = tuple[int, int, Event]


def _holds(correlation: Mapping[str, Any], window: list[Row], names: Sequence[str], field: str, edge: Row) -> bool:
    kind = correlation["type"]
    if kind == "temporal":
        return {part for _, part, _ in window} == set(range(len(names)))
    if kind == "temporal_ordered":
        return edge[1] == len(names) - 1 and _chain([row for row in window if row[0] <= edge[0]], len(names), edge)
    values = [event.get(field) for _, _, event in window]
    measured: float
    if kind == "event_count":
        measured = len(window)
    elif kind == "value_count":
        measured = len(set(values))
    elif kind == "value_sum":
        measured = sum(values)  # type: ignore[arg-type]
    elif kind == "value_avg":
        measured = statistics.fmean(values)  # type: ignore[arg-type]
    else:
        measured = _quantile(sorted(values), correlation["condition"].get("percentile", 50) / 100)
    (name, limit), *_ = [(k, v) for k, v in correlation["condition"].items() if k not in ("field", "percentile")]
    return bool(_MODIFIERS[name](measured, limit))


def _chain(window: list[Row], length: int, edge: Row) -> bool:
    """Whether rows of parts 0, 1, ... in order of time end in ``edge``; equal times count as in order."""
    parts = [[row[0] for row in window if row[1] == number] for number in range(length - 1)]
    return any(all(a <= b for a, b in itertools.pairwise([*times, edge[0]])) for times in itertools.product(*parts))


def _quantile(values: Sequence[Any], share: float) -> float:
    place = (len(values) - 1) * share
    low = int(place)
    high = min(low + 1, len(values) - 1)
    return float(values[low] + (values[high] - values[low]) * (place - low))
