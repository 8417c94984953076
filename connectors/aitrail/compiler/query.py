"""What a dialect gives back: a query with what a platform must know to run it."""

from msgspec import Struct


class Query(Struct, frozen=True):
    """One rule in one language.

    Attributes:
        rule: name of the rule.
        target: name of the dialect.
        text: the query.
        method: how its time windows are cut: ``event`` (none), ``sliding`` (exact), ``buckets`` (exact: whole
            buckets of time against those before them) or ``overlapping`` (look-back of
            window plus interval: no misses, may count up to one interval too much).
        lookback: seconds of events that one run must see.
        group_by: the columns that name an alert.
    """

    rule: str
    target: str
    text: str
    method: str
    lookback: int
    group_by: tuple[str, ...] = ()
