"""The language of ``where``: what it means, that it is total, and that mistakes are named with their place."""

import pytest

from aitrail.errors import ConfigError
from aitrail.event import AccessEvent
from aitrail.ports import EncodedEvent
from aitrail.routing.select import Rule, Selector
from aitrail.routing.where import MAX_DEPTH, parse_where
from aitrail.schema.catalog import example_event, fields


def event(**values: object) -> AccessEvent:
    base = {"event_id": "0" * 32, "timestamp": "2026-11-23T09:00:00.000Z", "tenant_id": "acme", "source": "litellm"}
    return AccessEvent(**{**base, **values})  # type: ignore[arg-type]


def meets(text: str, **values: object) -> bool:
    return parse_where(text).test(event(**values))


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("action_kind = 'inference'", {"action_kind": "inference"}, True),
        ("action_kind = 'inference'", {"action_kind": "admin"}, False),
        ("action_kind != 'inference'", {}, True),
        ('department = "retail"', {"department": "retail"}, True),
        ("department = 'RETAIL'", {"department": "retail"}, True),  # a field that is lower-case always
        ("role = 'Analyst'", {"role": "analyst"}, False),  # one in the provider's spelling
        ("user_name = 'o''brien'", {"user_name": "o'brien"}, True),
        ("injection_tier in ('suspicious', 'high')", {"injection_tier": "high"}, True),
        ("injection_tier in ('suspicious', 'high')", {}, False),
        ("injection_tier not in ('suspicious')", {}, True),
        ("department = ''", {}, True),
        ("department exists", {}, False),
        ("not department exists", {"department": "x"}, False),
        ("token_count exists", {"token_count": 0}, True),
        ("token_count exists", {}, False),
        ("token_count >= 100", {"token_count": 100}, True),
        ("token_count > 100", {"token_count": 100}, False),
        ("token_count < 100", {}, False),  # absent: neither below nor above
        ("token_count != 5", {}, True),
        ("not token_count < 100", {}, True),
        ("cost_usd <= 0.5", {"cost_usd": 0.25}, True),
        ("risk_score in (10, 20)", {"risk_score": 20}, True),
        ("read_only = true", {"read_only": True}, True),
        ("read_only = false", {}, False),
        ("read_only != true", {}, True),
        ("user_id startswith 'svc-'", {"user_id": "svc-batch"}, True),
        ("user_agent contains 'Boto3'", {"user_agent": "aws Boto3/1.3"}, True),
        ("leakage_types contains 'response:financial'", {"leakage_types": ("response:financial/card",)}, False),
        ("leakage_types startswith 'response:'", {"leakage_types": ("prompt:x", "response:y")}, True),
        ("leakage_types exists", {"leakage_types": ()}, False),
        ("timestamp >= '2026-11-23'", {}, True),
        ("timestamp < '2026-11-23T10:30:00+02:00'", {}, False),
        ("ingested_at < '2030-01-01'", {}, False),
        ("src_ip startswith '203.0.113.'", {"src_ip": "203.0.113.9"}, True),
        ("tenant_id = 'acme' or tenant_id = 'b' and source = 'x'", {}, True),  # and binds closer
        ("(tenant_id = 'acme' or tenant_id = 'b') and source = 'x'", {}, False),
        ("NOT (tenant_id = 'b') AND source = 'litellm'", {}, True),
    ],
)
def test_meaning(text: str, values: dict[str, object], expected: bool) -> None:
    assert meets(text, **values) is expected


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("acton_kind = 'x'", "there is no field 'acton_kind' (column 1)", "did you mean 'action_kind'?"),
        ("model = 'x' and usr_id = 'y'", "there is no field 'usr_id' (column 17)", "did you mean 'user_id'?"),
        ("action_kind = 'inferense'", "action_kind is never 'inferense' (column 15)", "did you mean 'inference'?"),
        ("model ~ 'x'", "'~' is not expected (column 7)", "quotes"),
        ("model like 'x'", "an operator is expected, not 'like' (column 7)", "known:"),
        ("model startwith 'x'", "an operator is expected, not 'startwith' (column 7)", "'startswith'"),
        ("model = x", "model is compared with a text (column 9)", "in quotes: 'x'"),
        ("token_count = '5'", "token_count is compared with a number", "e.g. 100"),
        ("token_count contains 5", "has no 'contains' (column 13)", "it has: =, !=, <"),
        ("leakage_types = 'x'", "leakage_types (array of strings) has no '='", "contains, startswith, exists"),
        ("read_only = 'true'", "read_only is true or false", "without quotes"),
        ("model = 'x", '"\'" is not expected (column 9)', "close the quote"),
        ("(model = 'x'", "')' is missing (column 13)", ""),
        ("model = 'x' model = 'y'", "'and', 'or' or the end is expected, not 'model' (column 13)", ""),
        ("model in 'x'", "'(' is expected behind 'in'", "in ('one', 'two')"),
        ("model in ('x' 'y')", "',' or ')' is expected", ""),
        ("timestamp > 'yesterday'", "'yesterday' is not a time (column 13)", "2026-11-23"),
        ("timestamp > '0001-01-01T00:00:00+14:00'", "is not a time", ""),
        ("   ", "the condition is empty", "e.g."),
        ("= 'x'", "a field is expected, not '='", ""),
        ("not", "a field is expected, not 'the end' (column 4)", ""),
        ("(" * (MAX_DEPTH + 1) + "model = 'x'", "nested too deep", "at most"),
        ("not " * 500 + "model = 'x'", "nested too deep", "at most"),
        ("model = 'x' or " * 2_000 + "model = 'y'", "longer than", ""),
        ("__class__ = 'x'", "there is no field '__class__'", ""),
        ("user_id.__class__ exists", "there is no field 'user_id.__class__'", ""),
    ],
)
def test_mistakes_name_place_and_fix(text: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_where(text, "aitrail.toml:7: destinations.splunk.where")
    assert message in str(caught.value)
    assert "aitrail.toml:7: destinations.splunk.where" in str(caught.value)
    assert hint in caught.value.hint


_LITERALS = {"integer": "5", "number": "0.5", "boolean": "true", "time": "'2026-01-01'"}


def test_every_field_and_operator_gives_an_answer_for_a_full_and_for_an_empty_event() -> None:
    """Total: what was accepted never fails, whatever is there or absent."""
    accepted = 0
    for field in fields():
        for operator in ("=", "!=", "<", "<=", ">", ">=", "contains", "startswith", "in", "not in", "exists"):
            literal = _LITERALS.get(field.kind, f"'{field.enum[0] if field.enum else 'x'}'")
            right = {"exists": "", "in": f"({literal})", "not in": f"({literal})"}.get(operator, literal)
            try:
                where = parse_where(f"{field.name} {operator} {right}")
            except ConfigError:
                continue
            accepted += 1
            assert where.fields == {field.name}
            assert where.test(example_event()) in (True, False)
            assert where.test(event()) in (True, False)
    assert accepted > 4 * len(fields())


def test_a_selector_decodes_only_what_is_asked_for_and_keeps_what_it_cannot_read() -> None:
    rule = Rule(frozenset({"access"}), parse_where("risk_score >= 50"))
    selector = Selector({"siem": rule, "all": Rule(frozenset({"access", "health"}))})
    bodies = [
        b'{"event_id":"1","risk_score":80}',
        b'{"event_id":"2"}',
        b"no json",
        b'{"stream":"health","event_id":"4"}',
    ]
    events = [EncodedEvent(str(place), "2026-11-23T00:00:00.000Z", body) for place, body in enumerate(bodies)]
    assert selector.select(events, ["siem", "all", "store"]) == {"siem": [0, 2]}
