"""Run the tests that rules carry: in DuckDB, as shipped, and by the reference; both must say what the author says."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import msgspec

from aitrail.clock import iso_ms
from aitrail.compiler import reference
from aitrail.compiler.dialects.duckdb import compile_rule
from aitrail.compiler.lint import BLANK
from aitrail.compiler.problems import Problem
from aitrail.compiler.rule import Correlation, Detection, Example
from aitrail.event import AccessEvent, encode
from aitrail.store.columns import COLUMNS, view_list

# What a query is bound to when it is to see everything.
ALL_TIME = {"since": datetime(1970, 1, 1), "until": datetime(2262, 1, 1)}  # noqa: DTZ001  (columns are naive UTC)
_START = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)


def events_of(example: Example) -> list[dict[str, Any]]:
    """The example's events, completed: ids in order, times by ``at`` (seconds after the first)."""
    found = []
    for number, partial in enumerate(example.events):
        fields = dict(partial)
        moment = _START + timedelta(seconds=float(fields.pop("at", 0)))
        base = {**BLANK, "event_id": f"{number:032x}", "timestamp": iso_ms(moment.timestamp())}
        event = msgspec.convert({**base, **fields}, AccessEvent)
        found.append(msgspec.to_builtins(event))
    return found


def connect(events: Sequence[dict[str, Any]]) -> duckdb.DuckDBPyConnection:
    """A connection whose view ``events`` is what the store's reader gives for ``events``."""
    connection = duckdb.connect()
    shape = msgspec.json.encode([COLUMNS]).decode()
    text = msgspec.json.encode([msgspec.json.decode(encode(msgspec.convert(e, AccessEvent))) for e in events]).decode()
    quoted = shape.replace("'", "''")
    connection.execute(
        f"CREATE TABLE stored AS SELECT r.* FROM (SELECT unnest(from_json(?::JSON, '{quoted}')) AS r)",  # noqa: S608
        [text],
    )
    connection.execute(f"CREATE VIEW events AS SELECT {view_list()} FROM stored")  # noqa: S608
    return connection


def run(rule: Detection) -> list[Problem]:
    """Run every example of ``rule``; a problem for each that does not do what it says."""
    query = compile_rule(rule)
    problems = []
    for wanted, examples in ((True, rule.meta.hits), (False, rule.meta.misses)):
        for example in examples:
            events = events_of(example)
            with connect(events) as connection:
                fired = bool(connection.execute(query.text, ALL_TIME).fetchall())
            judged = _reference(rule, events)
            for judge, answer in (("duckdb", fired), ("the reference", judged)):
                if answer != wanted:
                    does = "raises the rule" if answer else "does not raise the rule"
                    reason = f"{rule.meta.name}: test {example.name!r} {does} in {judge}"
                    problems.append(Problem(rule.meta.path, rule.meta.line, reason, "correct the rule or the test"))
    return problems


def _reference(rule: Detection, events: list[dict[str, Any]]) -> bool:
    if isinstance(rule, Correlation):
        rules = {part.meta.name: part.meta.raw for part in rule.rules}
        return bool(reference.completes(rule.meta.raw["correlation"], rules, events, rule.seconds))
    return any(reference.matches(rule.meta.raw, event) for event in events)
