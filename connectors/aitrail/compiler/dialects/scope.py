"""What a query on a dashboard is narrowed by, and what all renderers of metrics share.

The time range and the filters enter in each platform's own way (the renderers' docstrings say how); a value that is
chosen never becomes part of the query's text unquoted. A filter compares what the dashboard shows, so that the text
for "nothing there" can be chosen, too. Several values of a filter come as one text with commas between them where a
platform has no lists; there, a value that holds a comma also chooses its parts.
"""

from typing import Any

import msgspec
from msgspec import Struct

from aitrail.compiler.behavior import Behavior
from aitrail.compiler.dashboard import FILTERS
from aitrail.compiler.expr import And, Expr, Matches, Not, OneOf, Or, Present, SameText, Text
from aitrail.compiler.metric import Aggregate, Dataset, Listing, Metric, catalog, defaults
from aitrail.compiler.rule import Detection, Rule
from aitrail.schema.catalog import FieldInfo
from aitrail.store.boards import BUCKETS_AT_MOST, LADDER, auto_seconds

__all__ = ["BUCKETS_AT_MOST", "LADDER", "auto_seconds"]  # what callers of the renderers also need

NONE = "(none)"


class Scope(Struct, frozen=True):
    """What a query looks at.

    Attributes:
        filters: fields that are filtered by what a viewer chose; a data set's query takes those that it has.
        previous: how many lengths of the time range to go back: 1 is the range before the one that is looked at.
        none: the text of a dimension without a value; None: ``(none)`` in the SIEMs, the empty string in DuckDB.
    """

    filters: tuple[str, ...] = FILTERS
    previous: int = 0
    none: str | None = None

    def text_of_none(self, usual: str = NONE) -> str:
        """The text of a dimension without a value."""
        return usual if self.none is None else self.none

    def fields(self, dataset: Dataset) -> list[FieldInfo]:
        """The filters that ``dataset`` has."""
        return [catalog(dataset)[name] for name in self.filters if name in catalog(dataset)]


_FOLDS: dict[str, tuple[str, ...]] = {
    "": (),
    "hour_of_day": ("hour_of_day",),
    "day_of_week": ("day_of_week",),
    "hour_of_week": ("day_of_week", "hour_of_day"),
}


def buckets(query: Metric, time: str = "time") -> tuple[str, ...]:
    """The columns that the bucket makes: one named ``time`` (``_time`` in Splunk), or what the range is folded by."""
    return _FOLDS.get(query.bucket, (time,))


def columns(query: Metric | Listing, time: str = "time") -> tuple[str, ...]:
    """The columns of the result, in order: buckets, dimensions, values; or the fields of a listing."""
    if isinstance(query, Listing):
        return tuple(field.name for field in query.fields)
    names = (*(field.name for field in query.by), *(value.name for value in query.values))
    return (*buckets(query, time), *names)


def ordering(query: Metric) -> Aggregate:
    """The value that sorts."""
    name = query.order or query.values[0].name
    return next(value for value in query.values if value.name == name)


def measured(query: Metric) -> list[Aggregate]:
    """The values that are aggregates, not ratios of these."""
    return [value for value in query.values if value.function != "ratio"]


def ratios(query: Metric) -> list[Aggregate]:
    """The values that are ratios."""
    return [value for value in query.values if value.function == "ratio"]


def whole_range(query: Metric) -> bool:
    """Whether the groups to keep are those of the whole range, not of each bucket."""
    return bool(query.top and query.bucket)


def steps() -> list[tuple[int, int]]:
    """``(range in seconds at most, width)`` for all widths but the last."""
    return [(width * BUCKETS_AT_MOST, width) for width in LADDER[:-1]]


# --- what an absent field means


def wire(expr: Expr, dataset: Dataset) -> Expr:
    """The same condition over what is shipped, where a field that has its default is absent."""
    known = defaults(dataset)
    if isinstance(expr, And | Or):
        return type(expr)(tuple(wire(item, dataset) for item in expr.items))
    if isinstance(expr, Not):
        return Not(wire(expr.item, dataset))
    if isinstance(expr, SameText):
        return _same(expr, known)
    usual = known.get(expr.field.name)
    if usual is None:
        return expr
    absent = Not(Present(expr.field))
    return Or((expr, absent)) if _holds(expr, usual) else expr


def _same(expr: SameText, known: dict[str, str]) -> Expr:
    """A field with a default against another: the same where both are there, or one is and equals the default."""
    pairs = ((expr.field, expr.other), (expr.other, expr.field))
    items: list[Expr] = [expr]
    for one, other in pairs:
        if one.name in known:
            items.append(And((Not(Present(one)), Text(other, "equals", known[one.name]))))
    if all(field.name in known for field in (expr.field, expr.other)) and len(set(known.values())) == 1:
        items.append(And((Not(Present(expr.field)), Not(Present(expr.other)))))
    return items[0] if len(items) == 1 else Or(tuple(items))


def _holds(expr: Any, usual: str) -> bool:
    if isinstance(expr, Present):
        return True
    if isinstance(expr, OneOf):
        return usual in [value.lower() for value in expr.values]
    if isinstance(expr, Text):
        value = expr.value.lower()
        tests = {"equals": usual == value, "contains": value in usual}
        return tests.get(expr.op, usual.startswith(value) if expr.op == "startswith" else usual.endswith(value))
    if isinstance(expr, Matches):
        import re2  # noqa: PLC0415  (an expression over such a field is rare)

        return re2.search(expr.pattern, usual) is not None
    return False


def shipped_rule(rule: Detection) -> Detection:
    """The same rule, or correlation of rules, with its conditions over what is shipped."""
    if isinstance(rule, Rule):
        return msgspec.structs.replace(rule, expr=wire(rule.expr, rule.dataset))
    parts = tuple(msgspec.structs.replace(part, expr=wire(part.expr, part.dataset)) for part in rule.rules)
    return msgspec.structs.replace(rule, rules=parts)


def shipped_behavior(rule: Behavior) -> Behavior:
    """The same behavior rule with its selector over what is shipped."""
    return msgspec.structs.replace(rule, selector=wire(rule.selector, "access"))


def shipped(query: Metric) -> Metric:
    """The same metric with its conditions over what is shipped."""
    values = tuple(
        msgspec.structs.replace(value, where=wire(value.where, query.dataset)) if value.where else value
        for value in query.values
    )
    where = wire(query.where, query.dataset) if query.where else None
    return msgspec.structs.replace(query, values=values, where=where)
