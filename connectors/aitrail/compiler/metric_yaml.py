"""Read the query of a panel or of a behavior rule: a YAML mapping becomes a ``Metric`` or a ``Listing``.

The syntax is described in ``docs/dashboards-model.md``. Everything that is wrong is found in one pass, each with file,
line, reason and fix.
"""

import re
from collections.abc import Mapping
from typing import Any, get_args

import msgspec
from sigma.exceptions import SigmaError
from sigma.rule import SigmaRule

from aitrail.compiler.expr import Expr
from aitrail.compiler.located import Document, Place
from aitrail.compiler.lower import NotPortable, closest, lower
from aitrail.compiler.metric import BUCKETS, DATASETS, FUNCTIONS, Aggregate, Dataset, Function, Listing, Metric, catalog
from aitrail.compiler.problems import ContentError, Problem
from aitrail.schema.catalog import FieldInfo, Kind

UNITS = ("", "%", "USD", "bytes", "ms", "points", "s", "tokens")
MAX_BY = 3
MAX_ROWS = 1000
_METRIC = ("dataset", "where", "values", "by", "bucket", "top", "order", "present", "least")
_LISTING = ("dataset", "where", "list", "limit", "order")
_VALUE = ("is", "where", "unit", "label")
_NUMBERS = ("integer", "number")
_COUNTED = ("string", "ip", "integer", "boolean")
_GROUPED = (*_COUNTED, "list")
_SORTED = ("string", "ip", "integer", "number", "time")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
# Words of the query languages that a column cannot be called everywhere, and the columns of buckets.
_WORDS = (
    "and as asc between by case contains day_of_week desc else eval false from has hour_of_day if in into is join let "
    "like limit not null of on or order over project rlike sort stats summarize then time to true union when where "
    "with xor"
)
RESERVED = frozenset(_WORDS.split())
_BY = "group by a string, an address, a list, a whole number or a flag"
_OF_FIELD: dict[str, Function] = {"dcount": "dcount", "sum": "sum", "avg": "avg", "min": "min", "max": "max"}
_FIX = {
    False: "sum, avg, min, max and pNN take a number",
    True: "count distinct takes a string, an address, a whole number or a flag; put a list into `by`",
}
_SHAPES = "write count, dcount FIELD, sum|avg|min|max FIELD, p95 FIELD or ratio A / B"


def read_query(document: Document, place: Place) -> Metric | Listing:
    """Read the mapping at ``place`` (e.g. ``("sections", 0, "panels", 1, "query")``).

    Raises:
        ContentError: with every problem that was found.
    """
    reader = _Reader(document, place)
    found = reader.read()
    if reader.problems or found is None:
        raise ContentError(reader.problems)
    return found


def read_where(document: Document, place: Place, dataset: Dataset = "access") -> Expr:
    """Read a condition: a Sigma selection, or selections with a ``condition``; raises ``ContentError``."""
    value = _at(document, place)
    if not isinstance(value, dict | list) or not value:
        raise ContentError(
            [document.problem(place, "where is a selection: fields and values", "where: {action_kind: inference}")]
        )
    whole = isinstance(value, dict) and "condition" in value
    detection = value if whole else {"selection": value, "condition": "selection"}
    try:
        rule = SigmaRule.from_dict(
            {"title": "x", "logsource": {"product": "aitrail"}, "level": "low", "detection": detection}
        )
        parsed = rule.detection.parsed_condition
        if len(parsed) != 1:
            raise ContentError([document.problem((*place, "condition"), "there is one condition", "join them with or")])
        return lower(parsed[0].parsed, catalog(dataset))
    except SigmaError as error:
        text = str(error).split(" in ")[0]
        raise ContentError([document.problem(place, f"not a Sigma selection: {text}")]) from None
    except NotPortable as error:
        named = _place_of(document, place, error.field)
        reason = error.reason + (f" in data set {dataset}" if error.reason.startswith("unknown field") else "")
        raise ContentError([document.problem(named, reason, error.fix)]) from None


def _at(document: Document, place: Place) -> Any:
    found: Any = document.data
    for step in place:
        found = found[step]
    return found


def _place_of(document: Document, place: Place, field: str) -> Place:
    """The first key below ``place`` that names ``field``."""
    for other in document.lines:
        if other[: len(place)] == place and other != place and str(other[-1]).partition("|")[0] == field:
            return other
    return place


class _WrongError(Exception):
    """One thing that is wrong at a place that the caller knows."""

    def __init__(self, reason: str, fix: str = "") -> None:
        super().__init__(reason)
        self.reason, self.fix = reason, fix


class _Reader:
    """Reads one query and keeps what is wrong with it."""

    def __init__(self, document: Document, place: Place) -> None:
        self.problems: list[Problem] = []
        self._document, self._place = document, place
        self._dataset: Dataset = "access"

    def read(self) -> Metric | Listing | None:
        data = _at(self._document, self._place)
        if not isinstance(data, dict):
            self._wrong((), "a query is a mapping", "query: {values: {calls: count}}")
            return None
        listing = "list" in data
        self._keys((), data, _LISTING if listing else _METRIC)
        dataset = data.get("dataset", "access")
        if dataset not in DATASETS:
            self._wrong(("dataset",), f"unknown data set {dataset!r}", f"known: {', '.join(DATASETS)}")
            return None
        self._dataset = dataset
        return self._listing(data) if listing else self._metric(data)

    def _wrong(self, place: Place, reason: str, fix: str = "") -> None:
        self.problems.append(self._document.problem((*self._place, *place), reason, fix))

    def _keys(self, place: Place, data: Mapping[str, Any], known: tuple[str, ...]) -> None:
        for key in data:
            if key not in known:
                self._wrong((*place, key), f"unknown key {key!r}", f"known: {', '.join(known)}")

    def _where(self, *place: str) -> Expr | None:
        try:
            return read_where(self._document, (*self._place, *place), self._dataset)
        except ContentError as error:
            self.problems += error.problems
            return None

    def _fields(self, key: str, data: Any, kinds: tuple[str, ...]) -> tuple[FieldInfo, ...]:
        if not isinstance(data, list) or not data:
            self._wrong((key,), f"{key} is a list of fields", f"{key}: [user_id]")
            return ()
        found: list[FieldInfo] = []
        for number, name in enumerate(data):
            try:
                field = _field(self._dataset, name, kinds, "it cannot be a dimension", _BY)
            except _WrongError as error:
                self._wrong((key, number), error.reason, error.fix)
                continue
            if field in found:
                self._wrong((key, number), f"{name} is there twice", "keep one of them")
            found.append(field)
        return tuple(found)

    def _number(self, key: str, data: Mapping[str, Any], default: int, most: int) -> int:
        value = data.get(key, default)
        if key in data and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most):
            self._wrong((key,), f"{key} is a whole number from 1 to {most}", f"{key}: 10")
            return default
        return int(value)

    # --- rows

    def _listing(self, data: Mapping[str, Any]) -> Listing:
        fields = self._fields("list", data["list"], get_args(Kind))
        limit = self._number("limit", data, 50, MAX_ROWS)
        order = data.get("order", "timestamp")
        try:
            _field(self._dataset, order, _SORTED, "rows cannot be sorted by it", "sort by a time, a number or a name")
        except _WrongError as error:
            self._wrong(("order",), error.reason, error.fix)
        where = self._where("where") if "where" in data else None
        return Listing(fields, self._dataset, where, limit, str(order))

    # --- numbers

    def _metric(self, data: Mapping[str, Any]) -> Metric:
        values = self._values(data.get("values"))
        names = [value.name for value in values]
        by = self._fields("by", data["by"], _GROUPED) if "by" in data else ()
        if len(by) > MAX_BY:
            self._wrong(("by",), f"at most {MAX_BY} dimensions", "make another panel")
        for field in by:
            if field.name in names:
                self._wrong(("values", field.name), f"{field.name} is a dimension, too", "give the value another name")
        order = data.get("order", "")
        if "order" in data and order not in names:
            self._wrong(("order",), f"{order!r} is none of the values", f"known: {', '.join(names)}")
        for key in ("top", "present", "least"):
            if key in data and not data.get("by"):
                self._wrong((key,), f"{key} needs dimensions", "add by: [...], or leave it out")
        present = data.get("present", False)
        if not isinstance(present, bool):
            self._wrong(("present",), "present is true or false", "present: true")
        bucket = data.get("bucket", "")
        if bucket not in BUCKETS:
            self._wrong(("bucket",), f"unknown bucket {bucket!r}", f"known: {', '.join(filter(None, BUCKETS))}")
        where = self._where("where") if "where" in data else None
        top = self._number("top", data, 0, MAX_ROWS)
        least = self._number("least", data, 0, MAX_ROWS)
        if least and bucket:
            self._wrong(("least",), "least does not go with a bucket", "leave out bucket, or least")
        return Metric(tuple(values), self._dataset, where, by, bucket, top, str(order), present is True, least)

    def _values(self, data: Any) -> list[Aggregate]:
        if not isinstance(data, dict) or not data:
            self._wrong(("values",), "values are named numbers", "values: {calls: count}")
            return []
        found: dict[str, Aggregate] = {}
        for name, value in data.items():
            if not _NAME.fullmatch(name) or name in RESERVED or name.startswith("z_"):
                self._wrong(("values", name), f"{name!r} cannot name a value", "a short name in snake_case, e.g. calls")
            made = self._value(name, value, found)
            if made:
                found[name] = made
        return list(found.values())

    def _value(self, name: str, value: Any, earlier: Mapping[str, Aggregate]) -> Aggregate | None:
        place = ("values", name)
        table = value if isinstance(value, dict) else {"is": value}
        self._keys(place, table, _VALUE)
        unit, label = table.get("unit", ""), table.get("label", "")
        if unit not in UNITS:
            self._wrong((*place, "unit"), f"unknown unit {unit!r}", f"known: {', '.join(filter(None, UNITS))}")
        if not isinstance(label, str):
            self._wrong((*place, "label"), "a label is a text", "label: People")
        where = self._where(*place, "where") if "where" in table else None
        try:
            made = _aggregate(name, table.get("is"), self._dataset, earlier)
        except _WrongError as error:
            self._wrong((*place, "is"), error.reason, error.fix)
            return None
        if made.function == "ratio" and "where" in table:
            self._wrong((*place, "where"), "a ratio is of other values", "put the condition into these")
        return msgspec.structs.replace(made, where=where, unit=str(unit), label=str(label))


def _field(dataset: Dataset, name: object, kinds: tuple[str, ...], what: str, fix: str) -> FieldInfo:
    known = catalog(dataset)
    field = known.get(name) if isinstance(name, str) else None
    if field is None:
        raise _WrongError(f"unknown field {name!r} in data set {dataset}", closest(str(name), known))
    if field.kind not in kinds:
        raise _WrongError(f"{field.name} is a {field.kind}: {what}", fix)
    return field


def _aggregate(name: str, text: object, dataset: Dataset, earlier: Mapping[str, Aggregate]) -> Aggregate:
    """Read what a value is: one of ``_SHAPES``."""
    if not isinstance(text, str) or not text.strip():
        raise _WrongError(f"{name} does not say what it is", _SHAPES)
    function, _, rest = text.strip().partition(" ")
    if function == "count" and not rest:
        return Aggregate(name)
    if function == "ratio":
        return _ratio(name, rest, earlier)
    percentile = re.fullmatch(r"p(\d{1,3})", function)
    if not rest or not (percentile or function in _OF_FIELD):
        known = function in FUNCTIONS or percentile
        reason = f"{text!r} is not complete, or too much" if known else f"unknown function {function!r}"
        raise _WrongError(reason, _SHAPES)
    counted = function == "dcount"
    field = _field(
        dataset, rest.strip(), _COUNTED if counted else _NUMBERS, f"{function} does not fit it", _FIX[counted]
    )
    if not percentile:
        return Aggregate(name, _OF_FIELD[function], field)
    if not 1 <= int(percentile[1]) <= 100:
        raise _WrongError(f"there is no percentile {percentile[1]}", "p1 to p100")
    return Aggregate(name, "percentile", field, int(percentile[1]))


def _ratio(name: str, text: str, earlier: Mapping[str, Aggregate]) -> Aggregate:
    of, _, over = (part.strip() for part in text.partition("/"))
    known = [other for other, value in earlier.items() if value.function != "ratio"]
    for part in (of, over):
        if part not in known:
            fix = f"known: {', '.join(known)}" if known else "name those first"
            raise _WrongError(f"{name} is a ratio of {part!r}, which is no value before it", fix)
    return Aggregate(name, "ratio", of=of, over=over)
