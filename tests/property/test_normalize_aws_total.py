"""The AWS normalizers are total: whatever the bytes, there is an outcome, in canonical form, and nothing is raised."""

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aitrail.event import AccessEvent
from aitrail.normalize import bedrock_invocation, cloudtrail, sagemaker_capture
from aitrail.normalize.outcome import REASONS, Context, Normalized, Rejected

FIXTURES = Path(__file__).parent.parent / "fixtures"
NORMALIZERS = {
    "cloudtrail": cloudtrail.normalize,
    "bedrock_invocation": bedrock_invocation.normalize,
    "sagemaker_capture": sagemaker_capture.normalize,
}
RAW = {name: [path.read_bytes() for path in sorted((FIXTURES / name).glob("*.json"))] for name in NORMALIZERS}
ORIGINS = ["", "s3://b/p/endpoint/variant/2026/11/23/09/x.jsonl", "a//b/../2026/11/23/09/x", "\x00/\ud800"]
LOWER = [
    field.name
    for field in msgspec.inspect.type_info(AccessEvent).fields
    if isinstance(field.type, msgspec.inspect.Metadata) and (field.type.extra or {}).get("lower")
]
SETTINGS = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.sampled_from(["arn:", "arn:aws:bedrock:::", "*", "{", "[]", "\u2028", "true", "{}{}", "a@b.cc", "İ", "ẞ"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


def check(name, raw, origin=""):
    outcomes = NORMALIZERS[name](raw, Context(tenant_id="acme", origin=origin, tenant_keys=("tenant",)))
    assert len(outcomes) >= 1
    for outcome in outcomes:
        if isinstance(outcome, Rejected):
            assert outcome.code in REASONS
            assert outcome.record_type in {name, ""}
            continue
        assert isinstance(outcome, Normalized)
        event = outcome.event
        # Canonical bytes are valid by the schema, whatever a record says.
        assert msgspec.json.decode(msgspec.json.encode(event), type=AccessEvent) == event
        assert len(event.event_id) == 32
        assert len(event.timestamp) == 24
        for field in LOWER:
            value = getattr(event, field)
            texts = value if isinstance(value, tuple) else (value,)
            assert all(text == text.lower() for text in texts if isinstance(text, str)), field
        if outcome.content is not None:
            msgspec.json.encode(outcome.content)
    return outcomes


def places(value, path=()):
    """Every place in a JSON value, as keys and indices."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def at(value, path):
    for key in path:
        value = value[key]
    return value


def replaced(value, path, change):
    if not path:
        return change
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], change)
    return copy


def parsed(raw):
    try:
        return json.loads(raw)
    except ValueError:
        return {}


@pytest.mark.parametrize("name", NORMALIZERS)
@SETTINGS
@given(raw=st.binary(max_size=400), origin=st.sampled_from(ORIGINS))
def test_arbitrary_bytes(name, raw, origin):
    check(name, raw, origin)


@pytest.mark.parametrize("name", NORMALIZERS)
@SETTINGS
@given(value=values)
def test_arbitrary_json(name, value):
    check(name, json.dumps(value).encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("name", NORMALIZERS)
@SETTINGS
@given(data=st.data(), count=st.integers(1, 4))
def test_real_shapes_with_values_replaced(name, data, count):
    record = parsed(data.draw(st.sampled_from(RAW[name])))
    for _ in range(count):
        path = data.draw(st.sampled_from(list(places(record))))
        if data.draw(st.booleans()):  # by a piece of another record: right shapes in wrong places
            donor = parsed(data.draw(st.sampled_from(RAW[name])))
            change = at(donor, data.draw(st.sampled_from(list(places(donor)))))
        else:
            change = data.draw(values)
        record = replaced(record, path, change)
    check(name, json.dumps(record).encode("utf-8", "surrogatepass"), data.draw(st.sampled_from(ORIGINS)))


@pytest.mark.parametrize("name", NORMALIZERS)
@SETTINGS
@given(data=st.data(), offset=st.integers(0, 5000), junk=st.binary(max_size=6), cut=st.booleans())
def test_real_shapes_with_bytes_damaged(name, data, offset, junk, cut):
    raw = data.draw(st.sampled_from(RAW[name]))
    offset %= len(raw)
    check(name, raw[:offset] if cut else raw[:offset] + junk + raw[offset + len(junk) :])


NASTY = [
    b"",
    b"\x00",
    b"null",
    b"[]",
    b"{}",
    b"\xff\xfe{}",
    b'{"a":NaN}',
    b'{"a":' + b"9" * 5000 + b"}",
    b"[" * 100_000,
    b'{"requestParameters":' + b"[" * 100_000,
    b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    '{"eventID":"\u2028"}'.encode(),
    b'{"eventID":"\\ud800"}',
]


@pytest.mark.parametrize("name", NORMALIZERS)
@pytest.mark.parametrize("raw", NASTY, ids=lambda raw: raw[:20].decode("latin-1"))
def test_nasty_bytes_are_rejected_with_a_reason(name, raw):
    (outcome,) = check(name, raw)
    assert isinstance(outcome, Rejected)


# Where a record keeps free-form text, and what a hostile caller may put there.
DEEP = 400


@pytest.mark.parametrize("body", [
    {"messages": [{"role": ["x"], "content": {"text": {"text": {"text": 1}}}}]},
    {"messages": {"role": "user"}},
    {"messages": [{"role": "user", "type": [], "content": [{"type": {}, "text": "x"}, {"type": [], "content": []}]}]},
    {"content": [{"type": {}, "text": "x"}], "output": [{"type": []}], "message": {"content": [{"type": {}}]}},
    [{"type": {}}, {"type": [], "delta": "x"}, {"contentBlockIndex": {}, "delta": {"partial_json": "x"}}],
    {"messages": [[[["x"]]]]},
    {"system": {"text": ["a", {"text": "b"}]}},
    {"prompt": {"text": {"nested": ["x"]}}},
    [{"delta": []}, {"delta": {"text": 3}}, 5, None, {"choices": [{"delta": {"tool_calls": [{"function": []}]}}]}],
    {"choices": [None, 3, {"message": "x"}, {"message": {"content": [None, {"text": {}}]}}]},
    {"amazon-bedrock-trace": {"guardrail": {"input": [{"g": [{"contentPolicy": {"filters": [{"type": {}}]}}]}]}}},
    {"usage": {"input_tokens": -1, "output_tokens": 1e300, "cache_read_input_tokens": True}},
    {"metrics": {"latencyMs": 1e308}, "finish_reasons": [1, "Filter"], "results": ["x", 4, {"data": {"text": []}}]},
])  # fmt: skip
@pytest.mark.parametrize("side", ["input", "output"])
def test_odd_bodies(body, side):
    record = json.loads((FIXTURES / "bedrock_invocation" / "anthropic-messages.json").read_bytes())
    record[side][f"{side}BodyJson"] = body
    (outcome,) = check("bedrock_invocation", json.dumps(record).encode())
    assert isinstance(outcome, Normalized)


@pytest.mark.parametrize("kind", ["list", "dict", "content"])
def test_deeply_nested_bodies_end(kind):
    nested = "x"
    for _ in range(DEEP):
        nested = [nested] if kind == "list" else {"content": nested} if kind == "content" else {"a": nested}
    for body in ({"messages": nested}, {"messages": [{"role": "user", "content": nested}]}, {"unknown": nested}):
        record = json.loads((FIXTURES / "bedrock_invocation" / "anthropic-messages.json").read_bytes())
        record["input"]["inputBodyJson"] = body
        check("bedrock_invocation", json.dumps(record).encode())
    record = json.loads((FIXTURES / "cloudtrail" / "create-training-job.json").read_bytes())
    record["requestParameters"] = {"roleArn": nested, "resourcePolicy": nested}
    check("cloudtrail", json.dumps(record).encode())
