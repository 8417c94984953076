"""KQL gives the hits that the Sigma specification asks for, on values in small letters as the catalog promises them."""

import random
from typing import Any

import pytest

from aitrail.compiler import reference
from aitrail.compiler.dialects import kuery
from aitrail.compiler.expr import InNetwork, Matches, Present, SameText, Text
from aitrail.compiler.problems import Unsupported
from aitrail.schema.catalog import by_name
from parity import fuzz, kuery_engine
from parity.expressions import BadQueryError
from parity.test_parity_duckdb import expr_of
from parity.test_parity_esql import documents


def lower(item: Any) -> Any:
    """Every text in small letters, but for times."""
    if isinstance(item, dict):
        return {key: one if key in ("timestamp", "condition") else lower(one) for key, one in item.items()}
    if isinstance(item, list | tuple):
        return type(item)(lower(one) for one in item)
    return item.lower() if isinstance(item, str) else item


def test_random_conditions() -> None:
    rng = random.Random(5)
    events = [lower(fuzz.event(rng, number)) for number in range(100)]
    held = documents(events)
    compared = hits = 0
    for seed in range(150):
        rng = random.Random(seed)
        detection = lower(fuzz.fixed(fuzz.rule(rng), rng))
        try:
            query = kuery.render(expr_of(detection))
        except Unsupported:
            continue
        expected = {event["event_id"] for event in events if reference.matches({"detection": detection}, event)}
        assert {row["event.id"] for row in held if kuery_engine.holds(query, row)} == expected, (detection, query)
        compared, hits = compared + 1, hits + bool(expected)
    assert compared > 80
    assert hits > 45


def test_what_kql_cannot_say_is_refused() -> None:
    known = by_name()
    for expr in (
        SameText(known["user_id"], known["user_name"]),
        Matches(known["user_id"], "a.*"),
        Text(known["prompt_text"], "equals", "x"),
        Text(known["user_id"], "contains", "two words"),
        Text(known["src_ip"], "startswith", "10."),
    ):
        with pytest.raises(Unsupported):
            kuery.render(expr)


@pytest.mark.parametrize("value", ['a"b', "a\\b", "*", "a*", "(x)", "not", "or", "a:b", "{x}", "<1>"])
def test_values_are_values(value: str) -> None:
    field = by_name()["model"]
    row = {"gen_ai.request.model": value}
    for op in ("equals", "startswith", "endswith", "contains"):
        query = kuery.render(Text(field, op, value))
        assert kuery_engine.holds(query, row), query
        assert not kuery_engine.holds(query, {"gen_ai.request.model": "zzz"}), query


def test_networks_and_presence() -> None:
    (row,) = documents([fuzz.event(random.Random(1), 1) | {"src_ip": "10.1.2.3"}])
    assert kuery_engine.holds(kuery.render(InNetwork(by_name()["src_ip"], "10.0.0.0/8")), row)
    assert not kuery_engine.holds(kuery.render(InNetwork(by_name()["src_ip"], "192.168.0.0/16")), row)
    assert not kuery_engine.holds(kuery.render(Present(by_name()["ticket"])), {})
    with pytest.raises(BadQueryError):
        kuery_engine.parse("user.idd: 1")
