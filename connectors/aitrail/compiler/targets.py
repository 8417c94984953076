"""The languages that rules are compiled into, and how each platform runs what comes out."""

from collections.abc import Callable, Iterator

from msgspec import Struct

from aitrail.compiler import schedule
from aitrail.compiler.dialects import duckdb, esql, kql, spl
from aitrail.compiler.query import Query
from aitrail.compiler.rule import Detection
from aitrail.compiler.schedule import Plan

# By dialect; Elastic's gives EQL where only that is exact (``Query.target`` says which).
TARGETS: dict[str, Callable[[Detection], Query]] = {
    "duckdb": duckdb.compile_rule,
    "spl": spl.compile_rule,
    "kql": kql.compile_rule,
    "esql": esql.compile_rule,
}
# Sentinel, "Scheduled analytics rules": a query has at most 10,000 characters.
LONGEST_KQL = 10_000


class Running(Struct, frozen=True):
    """How one platform runs a rule, for people: where, the method of its windows, and the schedule."""

    target: str
    method: str
    query: str
    schedule: str


def running(rule: Detection) -> Iterator[Running]:
    """How each platform runs ``rule``."""
    plan = schedule.plan(rule)
    for name, compile_rule in TARGETS.items():
        query = compile_rule(rule)
        yield Running(query.target, method(query, plan), query.text, RUNS[name](plan))


def method(query: Query, plan: Plan) -> str:
    """How the windows of ``query`` are cut, as a rule's description says it."""
    if query.method == "event":
        return "each event by itself"
    window = schedule.iso(plan.window)
    if query.method == "sliding":
        return f"exact: a window of {window} that slides with every event"
    extra = schedule.iso(plan.every + plan.slack)
    return f"overlapping windows of {window} plus at most {extra}: none is missed, a little more may count"


def _duckdb(plan: Plan) -> str:
    alert = ", ".join(plan.fields)
    return f"aitrail detect: from the last run on, {_span(plan.window)} more to look back; one finding per {alert}"


def _splunk(plan: Plan) -> str:
    if not plan.scheduled:
        return "not scheduled: a hunting search"
    of = schedule.splunk(plan)
    fields = ", ".join(of.suppress_fields)
    return f"cron {of.cron}, {of.earliest} to {of.latest}, suppressed {of.suppress_period} per {fields}"


def _sentinel(plan: Plan) -> str:
    if not plan.scheduled:
        return "not scheduled: a hunting query"
    of = schedule.sentinel(plan)
    return (
        f"every {of.frequency} over {of.period}, alerts when the count is {of.operator} {of.threshold}; "
        f"no suppression (it would pause the rule for everybody), incidents group {of.group_lookback}"
    )


def _elastic(plan: Plan) -> str:
    if not plan.scheduled:
        return "not scheduled: a hunting query"
    of = schedule.elastic(plan)
    fields = ", ".join(of.suppress_fields)
    return f"every {of.interval} from {of.since}, suppressed {of.suppress_value}{of.suppress_unit} per {fields}"


def _span(seconds: int) -> str:
    return schedule.iso(seconds) if seconds else "nothing"


RUNS: dict[str, Callable[[Plan], str]] = {"duckdb": _duckdb, "spl": _splunk, "kql": _sentinel, "esql": _elastic}
