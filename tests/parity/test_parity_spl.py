"""SPL gives the hits that the Sigma specification asks for: run by an engine of its documented meaning.

Every tenth event comes twice, as at-least-once delivery has it. What SPL cannot say (letters beyond ASCII without
case) is counted, not compared.
"""

import random
from typing import Any

import msgspec
import pytest

from aitrail.compiler import reference
from aitrail.compiler.dialects import spl
from aitrail.compiler.examples import events_of
from aitrail.compiler.expr import And, Expr, InNetwork, Matches, Not, Number, OneOf, Or, Present, SameText, Text
from aitrail.compiler.problems import Unsupported
from aitrail.compiler.rule import Rule
from aitrail.event import AccessEvent, encode
from aitrail.schema.catalog import by_name
from parity import fuzz
from parity.splunk_engine import Row, indexed
from parity.splunk_engine import spl as run_spl
from parity.test_parity_duckdb import KINDS, PARTS, compiled, correlation, expr_of
from parity.test_parity_esql import EDGES, edge_events, milliseconds, shipped


def rows(events: list[dict[str, Any]]) -> list[Row]:
    """The events that Splunk has."""
    twice = [*events, *events[::10]]
    return [
        indexed(msgspec.json.decode(encode(msgspec.convert(event, AccessEvent))), milliseconds(event) / 1000)
        for event in twice
    ]


def ids(found: list[Row]) -> set[str]:
    names = [row["event_id"] for row in found]
    assert len(names) == len(set(names)), "an event is reported twice"
    return set(names)


def query(expr: Expr) -> str:
    """The whole search of a rule with this condition."""
    rule = compiled(correlation("event_count", random.Random(0))).rules[0]
    return spl.compile_rule(msgspec.structs.replace(rule, expr=expr)).text


def test_single_events() -> None:
    """As a rule (``search`` and ``where``), negated, and as an expression alone."""
    rng = random.Random(20261123)
    events = [fuzz.event(rng, number) for number in range(120)]
    held = rows(events)
    compared = refused = 0
    for seed in range(120):
        rng = random.Random(seed)
        detection = fuzz.fixed(fuzz.rule(rng), rng)
        expr = expr_of(detection)
        expected = {event["event_id"] for event in events if reference.matches({"detection": detection}, event)}
        everything = {event["event_id"] for event in events}
        # An OR with a test that only ``where`` has keeps all of the condition there.
        never = Matches(by_name()["user_id"], "^never$")
        try:
            texts = [query(expr), query(Or((expr, never))), query(Not(expr))]
        except Unsupported:
            refused += 1
            continue
        for text, wanted in zip(texts, (expected, expected, everything - expected), strict=True):
            assert ids(run_spl(text, held)) == wanted, (detection, text)
        compared += 1
    assert compared >= 90
    assert refused <= 30


@pytest.mark.parametrize("selection", EDGES, ids=lambda one: next(iter(one)))
@pytest.mark.parametrize("condition", ["sel", "not sel"])
def test_edges(selection: dict[str, Any], condition: str) -> None:
    detection = {"sel": selection, "condition": condition}
    events = edge_events()
    expected = {event["event_id"] for event in events if reference.matches({"detection": detection}, event)}
    text = query(expr_of(detection))
    assert ids(run_spl(text, rows(events))) == expected, text


@pytest.mark.parametrize("kind", KINDS)
def test_correlations(kind: str) -> None:
    fired = 0
    for seed in range(10):
        rng = random.Random(seed)
        events = [fuzz.event(rng, number) for number in range(100)]
        wanted = correlation(kind, rng)
        rule = compiled(wanted)
        if kind == "value_percentile":
            with pytest.raises(Unsupported, match="interpolate"):
                spl.compile_rule(rule)
            return
        rules = {name: {"detection": detection} for name, detection in PARTS.items()}
        expected = reference.completes(wanted, rules, events, rule.seconds)
        compiled_query = spl.compile_rule(rule)
        assert compiled_query.method == "sliding"
        assert ids(run_spl(compiled_query.text, rows(events))) == expected, wanted
        fired += len(expected)
    assert fired > 10


@pytest.mark.parametrize("kind", ["event_count", "value_count"])
def test_counts_over_several_parts(kind: str) -> None:
    """An event that fulfils two parts counts twice, as the specification's union of rules has it."""
    wanted = correlation(kind, random.Random(4)) | {"rules": ["big", "denied"], "group-by": ["department"]}
    wanted["timespan"] = "6h"
    rng = random.Random(5)
    events = [fuzz.event(rng, number) for number in range(100)]
    rule = compiled(wanted)
    rules = {name: {"detection": detection} for name, detection in PARTS.items()}
    expected = reference.completes(wanted, rules, events, rule.seconds)
    assert expected
    assert ids(run_spl(spl.compile_rule(rule).text, rows(events))) == expected


def test_every_shipped_rule_has_a_query_that_its_tests_agree_with() -> None:
    compared = 0
    for rule in shipped():
        if rule.dataset != "access":
            continue  # test_parity_health.py
        text = spl.compile_rule(rule).text
        assert text.startswith(spl.SCOPE)
        for wanted, examples in ((True, rule.meta.hits), (False, rule.meta.misses)):
            for example in examples:
                events = events_of(example)
                assert bool(run_spl(text, rows(events))) == wanted, (rule.meta.name, example.name, text)
                compared += 1
    assert compared > 150


def test_the_end_of_a_window_is_in_it() -> None:
    """To the millisecond, which ``time_window`` of streamstats does not promise."""
    wanted = {"type": "event_count", "rules": ["big"], "group-by": ["user_id"], "timespan": "30s"}
    rule = compiled(wanted | {"condition": {"gte": 2}})
    base = fuzz.event(random.Random(1), 0) | {"user_id": "a", "token_count": 5}
    for last, fires in (("30.000", True), ("30.001", False)):
        events = [
            base | {"event_id": f"{number:032x}", "timestamp": f"2026-11-01T00:00:{second}Z"}
            for number, second in enumerate(["00.000", last])
        ]
        assert bool(run_spl(spl.compile_rule(rule).text, rows(events))) == fires


def field(name: str) -> Any:
    return by_name()[name]


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        (Text(field("user_id"), "equals", 'a"b\\c'), 'lower(coalesce(user_id, ""))=="a\\"b\\\\c"'),
        (Text(field("user_id"), "contains", "abc"), 'like(lower(coalesce(user_id, "")), "%abc%")'),
        (
            Text(field("user_id"), "contains", "a_%"),
            'coalesce(mvcount(split(lower(coalesce(user_id, "")), "a_%")), 0) > 1',
        ),
        (Text(field("user_id"), "endswith", "a_b"), 'substr(lower(coalesce(user_id, "")), -3)=="a_b"'),
        (Number(field("token_count"), ">=", 5), "coalesce(token_count, 0) >= 5"),
        (Number(field("token_count"), "<", 5), "coalesce(token_count, 10) < 5"),
        (Present(field("source")), "isnotnull(event_source)"),
        (
            InNetwork(field("src_ip"), "2001:db8::/32"),
            'case(isnull(src_ip), 0, NOT like(src_ip, "%:%"), 0, cidrmatch("2001:db8::/32", src_ip), 1, true(), 0)==1',
        ),
        (
            Matches(field("user_id"), "a\\.[x\\]]$"),
            '(isnotnull(user_id) AND match(coalesce(user_id, ""), "a[.][x\\\\]](?!(?s:.))"))',
        ),
    ],
)
def test_text(expr: Expr, text: str) -> None:
    assert spl.condition(expr) == text


@pytest.mark.parametrize(
    ("expr", "first"),
    [
        (Text(field("user_id"), "equals", "a.b@c"), ' user_id="a.b@c"'),
        (OneOf(field("leakage_types"), ("pii", "secret")), ' leakage_types{} IN ("pii", "secret")'),
        (Not(Present(field("tool"))), " NOT tool=*"),
        (Text(field("user_id"), "equals", "5"), ""),  # as a number it would also be 5.0
        (Text(field("user_id"), "equals", "a*"), ""),  # a wildcard
        (Text(field("user_id"), "equals", "not"), ""),
        (Present(field("source")), ""),  # Splunk's own field hides it
        (SameText(field("user_id"), field("role")), ""),
        (And((Present(field("tool")), Text(field("tool"), "contains", "x"))), " tool=*"),
    ],
)
def test_what_search_takes(expr: Expr, first: str) -> None:
    assert query(expr).splitlines()[0] == spl.SCOPE + first


@pytest.mark.parametrize(
    "expr",
    [
        Text(field("user_id"), "equals", "a`b`"),
        Text(field("user_agent"), "contains", "äö"),
        Matches(field("user_id"), "\\x41"),
        Matches(field("user_id"), "a`"),
    ],
)
def test_refused(expr: Expr) -> None:
    with pytest.raises(Unsupported):
        query(expr)


def test_the_events_own_source_is_read_from_the_event() -> None:
    events = [fuzz.event(random.Random(2), number) for number in range(3)]
    for value, hits in (("litellm", 3), ("http:aitrail", 0)):
        found = run_spl(query(Text(field("source"), "equals", value)), rows(events))
        assert len(found) == hits


def test_a_rule_by_its_own_source() -> None:
    rule = compiled(correlation("event_count", random.Random(0)))
    grouped = msgspec.structs.replace(rule, group_by=("source",), seconds=86_400 * 30, threshold=2.0)
    events = [fuzz.event(random.Random(n), n) | {"token_count": 9, "outcome_status": "denied"} for n in range(9)]
    events = [event | {"read_only": False} for event in events]
    found = run_spl(spl.compile_rule(grouped).text, rows(events))
    assert found
    assert {row["event_source"] for row in found} == {"litellm"}
    assert isinstance(rule.rules[0], Rule)
