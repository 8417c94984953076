"""The languages that behavior rules are compiled into, and how each platform runs what comes out."""

from collections.abc import Callable, Iterator

from aitrail.compiler import behavior_schedule
from aitrail.compiler.behavior import Behavior
from aitrail.compiler.dialects import behavior_duckdb, behavior_esql, behavior_kql, behavior_spl
from aitrail.compiler.problems import Unsupported
from aitrail.compiler.query import Query
from aitrail.compiler.schedule import iso
from aitrail.compiler.targets import RUNS, Running

TARGETS: dict[str, Callable[[Behavior], Query]] = {
    "duckdb": behavior_duckdb.compile_behavior,
    "spl": behavior_spl.compile_behavior,
    "kql": behavior_kql.compile_behavior,
    "esql": behavior_esql.compile_behavior,
}
# What stands in where a language cannot say a kind exactly; its description says what is different.
STAND_INS: dict[tuple[str, str], Callable[[Behavior], Query]] = {
    ("esql", "impossible_travel"): behavior_esql.countries,
}


def running(rule: Behavior) -> Iterator[Running]:
    """How each platform runs ``rule``."""
    plan = behavior_schedule.plan(rule)
    for name, compile_behavior in TARGETS.items():
        try:
            query = compile_behavior(rule)
            method = _method(rule, query)
        except Unsupported as error:
            query = STAND_INS[name, rule.kind](rule)
            method = f"a stand-in, because {error}: {query.method}"
        yield Running(query.target, method, query.text, RUNS[name](plan))


def _method(rule: Behavior, query: Query) -> str:
    if query.method == "sliding":
        return f"exact: each event against the one before it, at most {iso(rule.span)} earlier"
    return f"exact: buckets of {iso(rule.bucket)} (UTC), each against the {rule.buckets} before it"
