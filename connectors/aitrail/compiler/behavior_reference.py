"""What a behavior rule means, in plain Python over plain events: the judge of every dialect, slow and obvious.

Written from the definitions in ``compiler.behavior`` and independent of every dialect; conditions are judged by
``reference``, from the rule's YAML.
"""

import ipaddress
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from aitrail.compiler import reference
from aitrail.compiler.behavior import EARTH_KM, LEAST_SPREAD, Behavior, Value
from aitrail.compiler.reference import Event

Places = Mapping[str, tuple[float, float]]
# What a rule fires for: the entity's key, the value (empty where the kind has none), and the bucket it happened in;
# for impossible_travel the event's id stands in the place of the value.
Fired = tuple[tuple[str, ...], str, int]


class _Row:
    """One event (and value) that counts."""

    def __init__(self, event: Event, value: str, rule: Behavior) -> None:
        self.event, self.value = event, value
        self.id = str(event["event_id"])
        self.time = round(datetime.fromisoformat(str(event["timestamp"])).timestamp() * 1000)
        self.bucket = self.time // (rule.bucket * 1000)
        self.key = tuple(str(event[name]) for name in rule.watched)
        self.number: Any = event.get(rule.measured.name) if rule.measured else 1
        self.peer = (str(event["tenant_id"]), str(event[rule.peer])) if rule.peer else ()


def fires(rule: Behavior, events: Iterable[Event], places: Places | None = None) -> dict[Fired, str]:
    """Give what ``rule`` fires for, each with the id of the event at which it first holds."""
    rows = sorted(_rows(rule, events), key=lambda row: (row.time, row.id))
    if rule.kind == "impossible_travel":
        return _travels(rule, rows, places or {})
    found: dict[Fired, str] = {}
    for index, row in enumerate(rows):
        fired = (row.key, row.value, row.bucket)
        if fired not in found and _JUDGES[rule.kind](rule, row, rows[: index + 1], rows):
            found[fired] = row.id
    return found


def _rows(rule: Behavior, events: Iterable[Event]) -> Iterable[_Row]:
    selector = rule.meta.raw["behavior"]["selector"]
    whole = selector if "condition" in selector else {"selection": selector, "condition": "selection"}
    for event in events:
        needed = [*rule.entity, *([rule.peer] if rule.peer else []), *([rule.measured.name] if rule.measured else [])]
        if any(event.get(name) in (None, "") for name in needed):
            continue
        if reference.matches({"detection": whole}, event):
            values = [part for part in parts(rule.value, event) if part] if rule.value else [""]
            for value in dict.fromkeys(values):
                yield _Row(event, value, rule)


def parts(value: Value, event: Event) -> Sequence[str]:
    """The values of one event."""
    held = event.get(value.field.name) or ""
    if isinstance(held, list | tuple):
        return list(held)
    if value.form == "network":
        return [_network(held)]
    if value.form == "folder":
        return [held.rpartition("/")[0] if "/" in held else held]
    if value.form == "each":
        return [part.strip() for part in held.split(",")]
    if value.form == "product":
        return [held.lower().replace("/", " ").split(" ")[0]]
    return [held]


def _network(text: str) -> str:
    """The network's first numbers: three of version 4, three groups of version 6."""
    if not text:
        return ""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv4Address):
        return ".".join(text.split(".")[:3])
    if text.startswith("::"):
        return ""
    return ":".join(group.lstrip("0") or "0" for group in address.exploded.split(":")[:3])


def _baseline(rule: Behavior, row: _Row, rows: Sequence[_Row]) -> list[_Row]:
    return [other for other in rows if row.bucket - rule.buckets <= other.bucket < row.bucket]


def _first_seen(rule: Behavior, row: _Row, _: Sequence[_Row], rows: Sequence[_Row]) -> bool:
    past = [other for other in _baseline(rule, row, rows) if other.key == row.key]
    new = not any(other.value == row.value for other in past)
    return new and len({other.bucket for other in past}) >= rule.min_buckets


def _measure(rule: Behavior, rows: Sequence[_Row]) -> float:
    assert rule.metric is not None
    return round(_MEASURES[rule.metric.function]([row.number for row in rows]), 6)


_MEASURES: dict[str, Callable[[list[Any]], float]] = {
    "count": lambda numbers: float(len(numbers)),
    "dcount": lambda numbers: float(len(set(numbers))),
    "sum": math.fsum,
    "max": lambda numbers: float(max(numbers)),
}


def _deviation(rule: Behavior, row: _Row, so_far: Sequence[_Row], rows: Sequence[_Row]) -> bool:
    past = [other for other in _baseline(rule, row, rows) if other.key == row.key]
    buckets = {bucket: [one for one in past if one.bucket == bucket] for bucket in {one.bucket for one in past}}
    current = _measure(rule, [one for one in so_far if one.key == row.key and one.bucket == row.bucket])
    if len(buckets) < rule.min_buckets or current < rule.floor:
        return False
    numbers = [_measure(rule, held) for held in buckets.values()]
    if rule.kind == "fan_out":
        return current > round(rule.threshold * max(numbers, default=0), 6)
    numbers += [0.0] * (rule.buckets - len(numbers))
    mean = statistics.fmean(numbers)
    spread = max(statistics.pstdev(numbers), mean * LEAST_SPREAD)
    return current > round(mean + rule.threshold * spread, 6)


def _rare_in_peer(rule: Behavior, row: _Row, _: Sequence[_Row], rows: Sequence[_Row]) -> bool:
    past = [other for other in _baseline(rule, row, rows) if other.peer == row.peer]
    if any(other.key == row.key and other.value == row.value for other in past):
        return False
    members = {other.key for other in past} - {row.key}
    users = {other.key for other in past if other.value == row.value} - {row.key}
    return len(members) >= rule.min_members and len(users) < round(rule.threshold * len(members), 6)


_JUDGES = {
    "first_seen": _first_seen,
    "deviation": _deviation,
    "fan_out": _deviation,
    "rare_in_peer": _rare_in_peer,
}


def _travels(rule: Behavior, rows: Sequence[_Row], places: Places) -> dict[Fired, str]:
    found: dict[Fired, str] = {}
    last: dict[tuple[str, ...], tuple[_Row, tuple[float, float]]] = {}
    for row in rows:
        place = places.get(str(row.event.get("src_ip") or ""))
        if place is None:
            continue
        before = last.get(row.key)
        last[row.key] = (row, place)
        if before is None or row.time - before[0].time > rule.span * 1000:
            continue
        km = distance(before[1], place)
        hours = max(row.time - before[0].time, 1000) / 3_600_000
        if round(km, 6) >= rule.floor and round(km / hours, 6) > rule.threshold:
            found[row.key, row.id, row.bucket] = row.id
    return found


def distance(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Kilometres between two places (latitude, longitude in degrees), by the haversine formula."""
    (lat, lon), (lat2, lon2) = (tuple(map(math.radians, place)) for place in (one, other))
    half = math.sin((lat2 - lat) / 2) ** 2 + math.cos(lat) * math.cos(lat2) * math.sin((lon2 - lon) / 2) ** 2
    return 2 * EARTH_KM * math.asin(min(1.0, math.sqrt(half)))
