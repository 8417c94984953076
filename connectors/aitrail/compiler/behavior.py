"""Behavior rules, typed, before any query language: an entity against its own past or its peers.

Sigma cannot say them. What each kind means is the same in every engine. ``rows`` are the events that fulfil the
selector and carry the entity's fields (and the value's, peer's or metric's field); the tenant is part of every entity.
Time is cut into buckets of ``bucket`` seconds, UTC, aligned to the epoch; the *baseline* of a bucket is the
``n = span / bucket`` buckets before it, so every number below is exact whenever and however often a rule runs. Within a
bucket an event is judged with all events before it, so a rule fires as soon as it holds.

- ``first_seen``: the entity's first row with the value in this bucket, when the entity has no row with the value in
  the baseline, and rows of any value in at least ``min_buckets`` buckets of it (a new entity would be new in all).
- ``deviation``: ``metric`` (count, dcount, sum, max: what only grows within a bucket) of the entity in this bucket is
  at least ``floor`` and over ``mean + threshold * spread`` of the baseline's ``n`` buckets, where a bucket without rows
  counts as 0; ``spread`` is the standard deviation (of the population), at least a tenth of the mean, so that who does
  the same every day (deviation 0) does not alarm with one more. Only with rows in ``min_buckets`` of the baseline.
- ``fan_out``: the number of distinct values (``metric`` is a dcount) of the entity in this bucket is at least ``floor``
  and over ``threshold`` times the most of any bucket of the baseline. A new entity, with most 0, is judged by the
  floor, unless ``min_buckets`` asks for a past.
- ``rare_in_peer``: the entity's first row with the value in this bucket, when it has none with it in the baseline, its
  peer group has at least ``min_members`` other entities in the baseline, and of these fewer than ``threshold`` (a
  share) have the value there.
- ``impossible_travel``: two rows that follow one another for the entity, from places at least ``floor`` km apart, at
  more than ``threshold`` km/h, at most ``span`` apart. Addresses without a place are passed over; less than a second
  counts as one. Distances are great circles of a sphere of radius 6,371 km.

Limits are rounded to six decimals, and so is what is compared with them, so that no engine's arithmetic decides.

A value may be a part of its field: the ``network`` of an address (its /24, or its /48 of version 6, of which those
below ``::`` have none), the ``folder`` of a path (before its last slash), ``each`` name of a comma-separated list, or
the ``product`` of a user agent (before the first slash or space, lower-case). A list gives one row per element.
"""

from typing import Literal, get_args

from msgspec import Struct

from aitrail.compiler.expr import And, Expr, Present
from aitrail.compiler.metric import Aggregate
from aitrail.compiler.rule import Meta
from aitrail.schema.catalog import FieldInfo, by_name

BehaviorKind = Literal["first_seen", "deviation", "rare_in_peer", "fan_out", "impossible_travel"]
BEHAVIORS: tuple[BehaviorKind, ...] = get_args(BehaviorKind)
Form = Literal["", "network", "folder", "each", "product"]
BUCKETS = {"1h": 3_600, "1d": 86_400}
# What grows with every event, so that a bucket that is judged before it ends is judged right.
GROWING = ("count", "dcount", "sum", "max")
LEAST_SPREAD = 0.1
EARTH_KM = 6371.0


class Value(Struct, frozen=True):
    """What is new or rare: a field, or the part of it that ``form`` names."""

    field: FieldInfo
    form: Form = ""


class Behavior(Struct, frozen=True):
    """One behavior rule.

    Attributes:
        entity: fields that name who is watched; the tenant is added.
        span: of the baseline, seconds; whole buckets.
        bucket: seconds.
        value: for ``first_seen`` and ``rare_in_peer``.
        metric: for ``deviation`` and ``fan_out``.
        peer: the field that makes a group, for ``rare_in_peer``.
        threshold: standard deviations, times, share or km/h, by kind.
        floor: the least that counts; km for ``impossible_travel``.
        places: where the addresses of its tests are, as (network, latitude, longitude, label).
    """

    meta: Meta
    kind: BehaviorKind
    selector: Expr
    entity: tuple[str, ...]
    span: int
    bucket: int = 86_400
    value: Value | None = None
    metric: Aggregate | None = None
    peer: str = ""
    min_buckets: int = 0
    min_members: int = 0
    threshold: float = 0.0
    floor: float = 0.0
    places: tuple[tuple[str, float, float, str], ...] = ()

    @property
    def buckets(self) -> int:
        """How many buckets the baseline has."""
        return self.span // self.bucket

    @property
    def keys(self) -> tuple[str, ...]:
        """The fields that name the entity, the tenant first."""
        return tuple(dict.fromkeys(("tenant_id", *self.entity)))

    @property
    def watched(self) -> tuple[str, ...]:
        """The entity's fields and its peer group's: who is in two groups is judged in each."""
        return (*self.keys, self.peer) if self.peer else self.keys

    @property
    def grouped(self) -> tuple[str, ...]:
        """The fields that name an alert, the tenant first."""
        return tuple(dict.fromkeys(("tenant_id", *self.meta.suppress.by)))

    @property
    def carried(self) -> tuple[str, ...]:
        """The columns of a row: the entity's and the peer's fields, and the value's where an alert is named by it."""
        return tuple(dict.fromkeys((*self.watched, *self.grouped)))

    @property
    def measured(self) -> FieldInfo | None:
        """The field of the metric."""
        return self.metric.field if self.metric else None

    @property
    def lookback(self) -> int:
        """Seconds before an event that decide about it."""
        return self.span if self.kind == "impossible_travel" else self.span + self.bucket

    def condition(self) -> Expr:
        """Which events are rows, as far as a condition can say it."""
        needed = [*self.entity, *([self.peer] if self.peer else [])]
        fields = [by_name()[name] for name in dict.fromkeys(needed)]
        if self.value:
            fields.append(self.value.field)
        if self.measured:
            fields.append(self.measured)
        if self.kind == "impossible_travel":
            fields.append(by_name()["src_ip"])
        own = self.selector.items if isinstance(self.selector, And) else (self.selector,)
        said = {item.field.name for item in own if isinstance(item, Present)}
        asked = {field.name: field for field in fields if field.name not in said}
        return And((*own, *map(Present, asked.values())))
