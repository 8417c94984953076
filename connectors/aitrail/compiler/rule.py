"""Rules as typed objects: what the loader makes of a file and the dialects render."""

from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

from aitrail.compiler.expr import Expr
from aitrail.compiler.metric import Dataset

Severity = Literal["informational", "low", "medium", "high", "critical"]
Kind = Literal["detection", "hunt", "part"]
CorrelationType = Literal[
    "event_count",
    "value_count",
    "temporal",
    "temporal_ordered",
    "value_sum",
    "value_avg",
    "value_percentile",
]
Compare = Literal[">", ">=", "<", "<=", "=="]


class Response(Struct, frozen=True, forbid_unknown_fields=True):
    """What an analyst does, in four phases; each at least one step."""

    validate: tuple[str, ...]
    contain: tuple[str, ...]
    investigate: tuple[str, ...]
    remediate: tuple[str, ...]


class Needs(Struct, frozen=True, forbid_unknown_fields=True):
    """Which record types a rule needs (any of ``any_of``) and what is missed without them."""

    any_of: tuple[str, ...]
    without: str


class Suppress(Struct, frozen=True, forbid_unknown_fields=True):
    """One alert per combination of ``by`` in ``seconds``."""

    by: tuple[str, ...]
    seconds: int


class Example(Struct, frozen=True):
    """A test of a rule: events (partial; ``at`` is seconds after the first) that must or must not raise it."""

    name: str
    events: tuple[dict[str, Any], ...]


class Meta(Struct, frozen=True):
    """What every rule carries beside its logic."""

    id: str
    name: str
    title: str
    description: str
    severity: Severity
    kind: Kind
    tags: tuple[str, ...]
    false_positives: tuple[str, ...]
    entities: dict[str, str]
    needs: Needs
    suppress: Suppress
    response: Response
    hits: tuple[Example, ...]
    misses: tuple[Example, ...]
    references: tuple[str, ...]
    path: Path
    line: int
    raw: dict[str, Any]


# Whose an event is: every alert lies within one.
OWNERS: dict[Dataset, str] = {"access": "tenant_id", "finding": "tenant_id", "health": "collector"}


class Rule(Struct, frozen=True):
    """A rule over single events of ``dataset``: accesses, or the health of the collector itself."""

    meta: Meta
    expr: Expr
    dataset: Dataset = "access"

    @property
    def grouped(self) -> tuple[str, ...]:
        """What names an alert: the tenant (of health: the collector), and what the rule suppresses by."""
        return tuple(dict.fromkeys((OWNERS[self.dataset], *self.meta.suppress.by)))


class Correlation(Struct, frozen=True):
    """A rule over several events within ``seconds``, per combination of ``group_by``.

    Attributes:
        rules: the rules whose events count; in order for ``temporal_ordered``.
        field: what is counted, summed or averaged; empty for counts of events and temporal types.
        compare, threshold: when it fires; for temporal types: all rules seen.
        percentile: 0-100, for ``value_percentile``.
    """

    meta: Meta
    type: CorrelationType
    rules: tuple[Rule, ...]
    group_by: tuple[str, ...]
    seconds: int
    compare: Compare = ">="
    threshold: float = 1
    field: str = ""
    percentile: int = 0

    @property
    def dataset(self) -> Dataset:
        """Correlations are over accesses."""
        return "access"

    @property
    def grouped(self) -> tuple[str, ...]:
        """What names an alert: the tenant and the group."""
        return tuple(dict.fromkeys((OWNERS[self.dataset], *self.group_by)))


Detection = Rule | Correlation
