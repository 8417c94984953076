"""Run the tests that rules carry: in DuckDB, as shipped, and by the reference; both must say what the author says."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import msgspec

from aitrail.clock import iso_ms
from aitrail.compiler import reference
from aitrail.compiler.dialects.duckdb import compile_rule
from aitrail.compiler.lint import BLANKS
from aitrail.compiler.metric import Dataset
from aitrail.compiler.problems import Problem
from aitrail.compiler.rule import Correlation, Detection, Example
from aitrail.event import AccessEvent, encode
from aitrail.store import records
from aitrail.store.columns import COLUMNS, view_list

# What a query is bound to when it is to see everything.
ALL_TIME = {"since": datetime(1970, 1, 1), "until": datetime(2262, 1, 1)}  # noqa: DTZ001  (columns are naive UTC)
_START = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)


def events_of(example: Example, dataset: Dataset = "access") -> list[dict[str, Any]]:
    """The example's events, completed: ids in order, times by ``at`` (seconds after the first).

    ``repeat`` stands for so many events of the kind, ``every`` seconds apart.
    """
    found = []
    blank, kind = BLANKS[dataset]
    for number, fields in enumerate(_each(example)):
        moment = _START + timedelta(seconds=fields.pop("at"))
        base = {**blank, "event_id": f"{number:032x}", "timestamp": iso_ms(moment.timestamp())}
        event = msgspec.convert({**base, **fields}, kind)
        found.append({key: value for key, value in msgspec.to_builtins(event).items() if key != "stream"})
    return found


def _each(example: Example) -> Iterator[dict[str, Any]]:
    for partial in example.events:
        fields = {"at": 0, **partial}
        every = float(fields.pop("every", 0))
        for step in range(int(fields.pop("repeat", 1))):
            yield {**fields, "at": float(fields["at"]) + step * every}


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


def connect_health(reports: Sequence[dict[str, Any]]) -> duckdb.DuckDBPyConnection:
    """A connection whose ``health_records`` is what the store's reader gives for ``reports``."""
    connection = duckdb.connect()
    records.fill(connection, "health", [msgspec.json.encode(report) for report in reports])
    return connection


def run(rule: Detection) -> list[Problem]:
    """Run every example of ``rule``; a problem for each that does not do what it says."""
    query = compile_rule(rule)
    problems = []
    for wanted, examples in ((True, rule.meta.hits), (False, rule.meta.misses)):
        for example in examples:
            events = events_of(example, rule.dataset)
            with _CONNECT[rule.dataset](events) as connection:
                fired = bool(connection.execute(query.text, ALL_TIME).fetchall())
            judged = _reference(rule, events)
            for judge, answer in (("duckdb", fired), ("the reference", judged)):
                if answer != wanted:
                    does = "raises the rule" if answer else "does not raise the rule"
                    reason = f"{rule.meta.name}: test {example.name!r} {does} in {judge}"
                    problems.append(Problem(rule.meta.path, rule.meta.line, reason, "correct the rule or the test"))
    return problems


_CONNECT = {"access": connect, "health": connect_health}


def _reference(rule: Detection, events: list[dict[str, Any]]) -> bool:
    if isinstance(rule, Correlation):
        rules = {part.meta.name: part.meta.raw for part in rule.rules}
        return bool(reference.completes(rule.meta.raw["correlation"], rules, events, rule.seconds))
    return any(reference.matches(rule.meta.raw, event) for event in events)
