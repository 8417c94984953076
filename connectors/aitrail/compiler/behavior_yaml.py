"""Read behavior rules: YAML documents with a key ``behavior``; everything else they carry as detections do.

The keys are described in ``content/behaviors/README.md``. Every problem of every file is collected, with its line.
"""

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from aitrail.compiler.behavior import BEHAVIORS, BUCKETS, GROWING, Behavior, BehaviorKind, Value
from aitrail.compiler.expr import Expr
from aitrail.compiler.load import read_meta, seconds
from aitrail.compiler.located import Document, Place, read
from aitrail.compiler.lower import closest
from aitrail.compiler.metric import Aggregate, Metric
from aitrail.compiler.metric_yaml import read_query, read_where
from aitrail.compiler.problems import ContentError, Problem
from aitrail.schema.catalog import FieldInfo, by_name

_COMMON = ("kind", "selector", "entity", "baseline", "threshold", "floor")
# What each kind needs beside kind, selector, entity and baseline.span, and what it may have.
_NEEDS: dict[BehaviorKind, tuple[str, ...]] = {
    "first_seen": ("value",),
    "deviation": ("metric", "threshold", "floor"),
    "fan_out": ("metric", "threshold", "floor"),
    "rare_in_peer": ("value", "peer", "threshold"),
    "impossible_travel": ("threshold", "floor"),
}
_MAY: dict[BehaviorKind, tuple[str, ...]] = dict.fromkeys(BEHAVIORS, ("bucket",)) | {"impossible_travel": ()}
_BASELINE: dict[BehaviorKind, str] = {
    "first_seen": "min_buckets",
    "deviation": "min_buckets",
    "fan_out": "min_buckets",
    "rare_in_peer": "min_members",
}
_FORMS: dict[str, tuple[str, ...]] = {
    "network": ("ip",),
    "folder": ("string",),
    "each": ("string",),
    "product": ("string",),
}
_VALUES = ("string", "ip", "list")
_SPAN = re.compile(r"(?:\d+[smhd])+")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def load_behaviors(directory: Path) -> list[Behavior]:
    """Read the behavior rules below ``directory``, by name; raises ``ContentError`` with all problems."""
    documents: list[Document] = []
    problems: list[Problem] = []
    for path in sorted(directory.rglob("*.yml")):
        try:
            documents += read(path)
        except ContentError as error:
            problems += error.problems
    found, more = build_behaviors(documents)
    problems += more
    if problems:
        raise ContentError(problems)
    return found


def build_behaviors(documents: Iterable[Document]) -> tuple[list[Behavior], list[Problem]]:
    """Make rules of those ``documents`` that are behavior rules; what could not be made is in the problems."""
    found: dict[str, Behavior] = {}
    problems: list[Problem] = []
    for document in documents:
        if "behavior" not in document.data:
            continue
        try:
            made = _Reader(document).read()
        except ContentError as error:
            problems += error.problems
            continue
        if made.meta.name in found:
            problems.append(document.problem(("name",), f"the name {made.meta.name!r} is taken", "names are unique"))
        found[made.meta.name] = made
    return [found[name] for name in sorted(found)], problems


class _Reader:
    """Reads one document and keeps what is wrong with it."""

    def __init__(self, document: Document) -> None:
        self._problems: list[Problem] = []
        self._document = document
        table = document.data["behavior"]
        self._table: dict[str, Any] = table if isinstance(table, dict) else {}

    def read(self) -> Behavior:
        kind = self._kind()
        meta = read_meta(_unrolled(self._document))
        self._keys(kind)
        selector = self._selector()
        bucket = self._bucket()
        span, least = self._baseline(kind, bucket)
        value, metric = self._value(kind), self._metric(kind)
        entity = self._entity(kind)
        peer = self._field(("peer",), self._table["peer"], ("string",)) if "peer" in self._table else None
        threshold, floor = self._number("threshold"), self._number("floor")
        if kind == "rare_in_peer" and not 0 < threshold <= 1:
            self._wrong(("threshold",), "threshold is a share of the peers", "threshold: 0.05")
        places = tuple(self._places())
        if self._problems:
            raise ContentError(self._problems)
        assert selector is not None
        return Behavior(
            meta=meta,
            kind=kind,
            selector=selector,
            entity=entity,
            span=span,
            bucket=bucket,
            value=value,
            metric=metric,
            peer=peer.name if peer else "",
            min_buckets=least if kind != "rare_in_peer" else 0,
            min_members=least if kind == "rare_in_peer" else 0,
            threshold=threshold,
            floor=floor,
            places=places,
        )

    def _wrong(self, place: Place, reason: str, fix: str = "") -> None:
        self._problems.append(self._document.problem(("behavior", *place), reason, fix))

    def _kind(self) -> BehaviorKind:
        kind = self._table.get("kind")
        if kind not in BEHAVIORS:
            self._wrong(("kind",), f"unknown kind of behavior {kind!r}", f"known: {', '.join(BEHAVIORS)}")
            raise ContentError(self._problems)
        return kind  # type: ignore[no-any-return]

    def _keys(self, kind: BehaviorKind) -> None:
        known = {*_COMMON, *_NEEDS[kind], *_MAY[kind]} - ({"threshold", "floor"} - set(_NEEDS[kind]))
        for key in self._table:
            if key not in known:
                self._wrong((key,), f"{kind} does not take {key!r}", f"it takes {', '.join(sorted(known))}")
        for key in ("selector", "entity", "baseline", *_NEEDS[kind]):
            if key not in self._table:
                self._wrong((), f"{kind} needs {key}", "see content/behaviors/README.md")

    def _selector(self) -> Expr | None:
        if "selector" not in self._table:
            return None
        try:
            return read_where(self._document, ("behavior", "selector"))
        except ContentError as error:
            self._problems += error.problems
            return None

    def _bucket(self) -> int:
        text = self._table.get("bucket", "1d")
        if text not in BUCKETS:
            self._wrong(("bucket",), f"unknown bucket {text!r}", f"known: {', '.join(BUCKETS)}")
        return BUCKETS.get(str(text), 86_400)

    def _baseline(self, kind: BehaviorKind, bucket: int) -> tuple[int, int]:
        """The span and the least number of buckets or members."""
        table = self._table.get("baseline", {})
        counted = _BASELINE.get(kind, "")
        if not isinstance(table, dict) or "span" not in table:
            self._wrong(("baseline",), "a baseline has a span", "baseline: {span: 12d}")
            return bucket, 0
        for key in table:
            if key not in ("span", counted):
                self._wrong(
                    ("baseline", key), f"{kind} does not take {key!r}", f"it takes span, {counted or 'no more'}"
                )
        try:
            span = seconds(str(table["span"]), self._document, "behavior")
        except ContentError as error:
            self._wrong(("baseline", "span"), error.problems[0].reason, error.problems[0].fix)
            return bucket, 0
        if kind != "impossible_travel" and (span % bucket or not span):
            self._wrong(("baseline", "span"), f"a span of {table['span']} is not made of whole buckets", "span: 12d")
        return span, self._least(kind, counted, table, span // bucket)

    def _least(self, kind: BehaviorKind, counted: str, table: Mapping[str, Any], buckets: int) -> int:
        if not counted:
            return 0
        least = table.get(counted, 0)
        if isinstance(least, bool) or not isinstance(least, int) or least < (kind != "fan_out"):
            reason = f"{counted} is missing" if counted not in table else f"{counted} is a whole number above 0"
            self._wrong(("baseline", counted), reason, f"baseline: {{span: 12d, {counted}: 3}}")
            return 1
        if counted == "min_buckets" and least > buckets:
            self._wrong(("baseline", counted), f"the baseline has {buckets} buckets", "ask for fewer")
        return least

    def _field(self, place: Place, name: object, kinds: tuple[str, ...]) -> FieldInfo | None:
        field = by_name().get(str(name))
        if field is None:
            self._wrong(place, f"unknown field {name!r}", closest(str(name), by_name()))
        elif field.kind not in kinds:
            self._wrong(place, f"{name} is a {field.kind}", f"use a field that is one of: {', '.join(kinds)}")
            return None
        return field

    def _entity(self, kind: BehaviorKind) -> tuple[str, ...]:
        names = self._table.get("entity", [])
        if not isinstance(names, list) or not names:
            self._wrong(("entity",), "entity is a list of fields", "entity: [user_id]")
            return ()
        if kind == "rare_in_peer" and len(names) > 1:
            self._wrong(("entity",), "the members of a peer group are named by one field", "entity: [user_id]")
        fields = [self._field(("entity", number), name, ("string", "ip")) for number, name in enumerate(names)]
        return tuple(field.name for field in fields if field)

    def _value(self, kind: BehaviorKind) -> Value | None:
        if "value" not in _NEEDS[kind] or "value" not in self._table:
            return None
        values = self._table["value"]
        if not isinstance(values, list) or len(values) != 1:
            self._wrong(("value",), "value is a list of one field", "value: [model], [network src_ip], [each tool]")
            return None
        *forms, name = str(values[0]).split()
        if len(forms) > 1 or (forms and forms[0] not in _FORMS):
            self._wrong(("value", 0), f"{values[0]!r} is no value", f"FIELD, or one of {', '.join(_FORMS)} and FIELD")
            return None
        form: Any = forms[0] if forms else ""
        field = self._field(("value", 0), name, _FORMS[form] if form else _VALUES)
        return Value(field, form) if field else None

    def _metric(self, kind: BehaviorKind) -> Aggregate | None:
        if "metric" not in _NEEDS[kind] or "metric" not in self._table:
            return None
        place = ("behavior", "metric")
        lines: dict[Place, int] = {("q", "values", "measured"): self._document.line(*place)}
        inner = Document(self._document.path, {"q": {"values": {"measured": self._table["metric"]}}}, lines)
        try:
            found = read_query(inner, ("q",))
        except ContentError as error:
            self._problems += error.problems
            return None
        assert isinstance(found, Metric)
        [metric] = found.values
        if metric.where is not None:
            self._wrong(("metric",), "a behavior's metric has no where", "put the condition into the selector")
        if kind == "fan_out" and metric.function != "dcount":
            self._wrong(("metric",), "fan_out counts distinct values", "metric: dcount model")
        if metric.function not in GROWING:
            grows = "a bucket is judged before it ends, so its number may only grow"
            self._wrong(("metric",), f"{metric.function}: {grows}", f"use one of {', '.join(GROWING)}")
        return metric

    def _number(self, key: str) -> float:
        value = self._table.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            self._wrong((key,), f"{key} is a number, 0 or more", f"{key}: 3")
            return 0.0
        return float(value)

    def _places(self) -> Iterator[tuple[str, float, float, str]]:
        """Where the addresses of the tests are."""
        tests = self._document.data.get("x_tests")
        for one in tests.get("places", ()) if isinstance(tests, dict) else ():
            try:
                network = str(ipaddress.ip_network(str(one["cidr"])))
                yield network, float(one["latitude"]), float(one["longitude"]), str(one.get("label", ""))
            except (KeyError, TypeError, ValueError) as error:
                reason = f"x_tests.places: no place ({type(error).__name__}: {error})"
                fix = "{cidr: 203.0.113.0/24, latitude: 52.5, longitude: 13.4}"
                self._problems.append(self._document.problem(("x_tests", "places"), reason, fix))


# --- tests


def _unrolled(document: Document) -> Document:
    """The document with the repeated events of its tests written out."""
    tests = document.data.get("x_tests")
    if not isinstance(tests, dict):
        return document
    made: dict[str, Any] = {}
    for which, examples in tests.items():
        if which == "places" or not isinstance(examples, list):
            continue
        made[which] = []
        for number, example in enumerate(examples):
            place = ("x_tests", which, number)
            if isinstance(example, dict) and isinstance(example.get("events"), list):
                events = [one for event in example["events"] for one in _events(document, place, event)]
                made[which].append({**example, "events": events})
            else:
                made[which].append({"events": list(_events(document, place, example))})
    return Document(document.path, {**document.data, "x_tests": made}, document.lines)


def _events(document: Document, place: Place, event: Any) -> Iterator[dict[str, Any]]:
    """``repeat`` events ``every`` so often from ``at`` on; ``{n}`` in a text is the number of the repetition."""
    if not isinstance(event, dict):
        raise ContentError([document.problem(place, "a test is an event or has events", "{user_id: a, model: m}")])
    rest = {key: value for key, value in event.items() if key not in ("at", "every", "repeat")}
    start, every = (_offset(document, place, event.get(key, 0)) for key in ("at", "every"))
    times = event.get("repeat", 1)
    if isinstance(times, bool) or not isinstance(times, int) or not 1 <= times <= 5_000:
        raise ContentError([document.problem(place, f"repeat: {times!r} is no count from 1 to 5000", "repeat: 12")])
    for number in range(times):
        filled = {key: _filled(value, number) if "repeat" in event else value for key, value in rest.items()}
        yield {**filled, "at": start + number * every}


def _filled(value: Any, number: int) -> Any:
    return value.replace("{n}", str(number)) if isinstance(value, str) else value


def _offset(document: Document, place: Place, value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    text = str(value)
    if not _SPAN.fullmatch(text):
        raise ContentError([document.problem(place, f"{text!r} is no time", "write seconds, or e.g. 12d, 1d6h30m")])
    return float(sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([smhd])", text)))
