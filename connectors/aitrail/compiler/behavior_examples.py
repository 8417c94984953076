"""Run the tests that behavior rules carry: in DuckDB, as shipped, and by the reference."""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import duckdb

from aitrail.compiler import behavior_reference
from aitrail.compiler.behavior import Behavior
from aitrail.compiler.dialects.behavior_duckdb import compile_behavior
from aitrail.compiler.examples import ALL_TIME, connect, events_of
from aitrail.compiler.problems import Problem

Located = Mapping[str, tuple[float, float]]


def run(rule: Behavior) -> list[Problem]:
    """Run every example of ``rule``; a problem for each that does not do what it says."""
    query = compile_behavior(rule)
    problems = []
    for wanted, examples in ((True, rule.meta.hits), (False, rule.meta.misses)):
        for example in examples:
            events = events_of(example)
            places = located(rule.places, events)
            with with_places(connect(events), places) as connection:
                fired = bool(connection.execute(query.text, ALL_TIME).fetchall())
            judged = bool(behavior_reference.fires(rule, events, places))
            for judge, answer in (("duckdb", fired), ("the reference", judged)):
                if answer != wanted:
                    does = "raises the rule" if answer else "does not raise the rule"
                    reason = f"{rule.meta.name}: test {example.name!r} {does} in {judge}"
                    problems.append(Problem(rule.meta.path, rule.meta.line, reason, "correct the rule or the test"))
    return problems


def located(places: Iterable[tuple[str, float, float, str]], events: Iterable[Mapping[str, Any]]) -> Located:
    """Where the addresses of ``events`` are, by the networks of ``places``; the narrowest counts."""
    found: dict[str, tuple[int, float, float]] = {}
    for address in {str(event.get("src_ip") or "") for event in events} - {""}:
        for cidr, latitude, longitude, _ in places:
            network = ipaddress.ip_network(cidr)
            if ipaddress.ip_address(address) in network:
                found[address] = max(found.get(address, (-1, 0.0, 0.0)), (network.prefixlen, latitude, longitude))
    return {address: (latitude, longitude) for address, (_, latitude, longitude) in found.items()}


def with_places(connection: duckdb.DuckDBPyConnection, places: Located) -> duckdb.DuckDBPyConnection:
    """Give the connection the table of places that the store's reader makes."""
    connection.execute("CREATE TABLE places (src_ip VARCHAR, latitude DOUBLE, longitude DOUBLE, label VARCHAR)")
    rows: Sequence[tuple[str, float, float]] = [(address, *place) for address, place in places.items()]
    for row in rows:
        connection.execute("INSERT INTO places VALUES (?, ?, ?, '')", row)
    return connection
