"""Any bytes give at least one outcome and raise nothing; what comes out of the joiner carries every token once."""

import json
import re
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aitrail.event import encode
from aitrail.normalize import apim, azure_openai
from aitrail.normalize.join import Joiner
from aitrail.normalize.openai_chat import read_response, request_messages
from aitrail.normalize.outcome import REASONS, Context, Fragment, Normalized, Rejected

FIXTURES = Path(__file__).parent.parent / "fixtures"
NORMALIZERS = {"azure_openai": azure_openai.normalize, "apim": apim.normalize}
RECORDS = {
    kind: [path.read_bytes() for path in sorted((FIXTURES / kind).glob("*.json"))] for kind in ("azure_openai", "apim")
}
CONTEXT = Context(tenant_id="acme", tenant_keys=("tenant",))
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
LOWER = ("action", "model", "model_version", "user_id", "src_ip", "src_host", "error_code", "finish_reason", "service")

ATOMS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        ["2026-11-23T09:14:05.1200000Z", "2026-11-23T09:14:05.1200000", "***", "200", "RequestResponse", "[", '{"a":1}',
         "\u2028", "\x00", "GatewayLlmLogs", "/openai/deployments/x/chat/completions", 638999864451200000]
    )
)  # fmt: skip
VALUES = st.recursive(
    ATOMS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
BODY_KEYS = st.sampled_from(
    ["choices", "message", "content", "type", "text", "tool_calls", "function", "arguments", "name", "usage", "error",
     "innererror", "code", "content_filter_results", "content_filter_result", "prompt_filter_results", "role",
     "messages", "input", "prompt", "output", "delta", "index", "finish_reason", "filtered", "detected", "severity",
     "response", "prompt_tokens", "content_block", "partial_json", "function_call", "hate", "object", "status"]
)  # fmt: skip
BODIES = st.recursive(
    ATOMS | st.sampled_from(["tool_use", "tool_result", "content_block_delta", "user", "response"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(BODY_KEYS, inner, max_size=6),
    max_leaves=20,
)


def check(outcomes):
    assert len(outcomes) >= 1
    for found in outcomes:
        if isinstance(found, Rejected):
            assert found.code in REASONS
            assert len(found.field) < 200
            continue
        assert isinstance(found, Normalized | Fragment)
        assert TIMESTAMP.fullmatch(found.event.timestamp)
        encode(found.event)
        for name in LOWER:
            value = getattr(found.event, name)
            assert isinstance(value, str)
            assert value == value.lower()
        if isinstance(found, Normalized):
            assert len(found.event.event_id) == 32


def paths(value, here=()):
    yield here
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths(inner, (*here, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from paths(inner, (*here, number))


@st.composite
def mutated(draw, kind):
    """A real-shaped record with some values replaced or removed, or with its bytes damaged."""
    raw = draw(st.sampled_from(RECORDS[kind]))
    if draw(st.booleans()):
        start = draw(st.integers(0, len(raw)))
        return raw[:start] + draw(st.binary(max_size=6)) + raw[start + draw(st.integers(0, 12)) :]
    record = json.loads(raw)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from([path for path in paths(record) if path]))
        holder = record
        for key in path[:-1]:
            holder = holder[key]
        if draw(st.integers(0, 4)) == 0:
            del holder[path[-1]]
        else:
            holder[path[-1]] = draw(VALUES | BODIES)
        if not record:
            break
    properties = record.get("properties")
    if isinstance(properties, dict) and draw(st.booleans()):
        record["properties"] = json.dumps(properties)
    return json.dumps(record).encode()


@given(st.binary(max_size=300), st.sampled_from(sorted(NORMALIZERS)))
def test_arbitrary_bytes(raw, kind):
    check(NORMALIZERS[kind](raw, CONTEXT))


@given(st.data(), st.sampled_from(sorted(NORMALIZERS)))
@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
def test_mutated_records(data, kind):
    check(NORMALIZERS[kind](data.draw(mutated(kind)), CONTEXT))


@given(BODIES)
@settings(max_examples=400)
def test_any_body(body):
    for message in request_messages(body):
        assert message.text != ""
    answer = read_response(body)
    assert isinstance(answer.text, str)
    assert all(isinstance(call, str) for call in answer.tool_calls)
    assert answer.guardrail.action in ("", "allowed", "failed", "flagged", "blocked")


@given(st.text(max_size=200) | st.binary(max_size=200))
def test_any_body_text(body):
    assert all(message.text for message in request_messages(body))
    assert isinstance(read_response(body).text, str)
    if isinstance(body, str):
        assert isinstance(read_response(f"data: {body}\n\ndata: [DONE]").text, str)


@given(st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_joiner_gives_every_token_back_once(data):
    joiner = Joiner(max_groups=data.draw(st.integers(1, 5)), max_remembered=data.draw(st.integers(1, 5)))
    given_tokens, back = [], []
    for number in range(data.draw(st.integers(1, 12))):
        kind = data.draw(st.sampled_from(sorted(NORMALIZERS)))
        raw = data.draw(st.sampled_from(RECORDS[kind]) | mutated(kind))
        for found in NORMALIZERS[kind](raw, CONTEXT):
            if isinstance(found, Fragment):
                given_tokens.append(number)
                out = joiner.add(found, number)
                for joined, held in out:
                    back += held
                    assert joined.event is None or len(joined.event.event_id) == 32
        assert sorted(back + joiner.open_tokens()) == given_tokens
    for _, held in joiner.flush():
        back += held
    assert sorted(back) == given_tokens


def test_deep_and_odd_json():
    deep = b'{"category":"RequestResponse","time":"2026-11-23T09:14:05.1200000Z","identity":' + b"[" * 100_000
    for raw in (
        deep,
        deep + b"]" * 100_000 + b"}",
        b'{"category":"GatewayLogs","time":"2026-11-23T09:14:05Z","properties":{"url":"/v1/messages","requestBody":'
        + b"[" * 100_000 + b"]" * 100_000 + b"}}",
        b'{"category":"GatewayLogs","time":"2026-11-23T09:14:05Z","properties":"' + b"[" * 100_000 + b'"}',
        b'{"category":"Audit","time":"2026-11-23T09:14:05Z","properties":{"requestTime":' + b"9" * 5_000 + b"}}",
        b'{"category":"Audit","time":"2026-11-23T09:14:05Z","operationName":"\\ud800"}',
        b'{"category":"GatewayLlmLogs","time":"2026-11-23T09:14:05Z","properties":{"requestMessages":"\\ud800"}}',
        b'{"category":"Audit","time":"2026-11-23T09:14:05Z","durationMs":NaN}',
        b'{"category":"Audit","time":"2026-11-23T09:14:05Z","operationName":"a\xe2\x80\xa8b\\u0000"}',
        b'\xef\xbb\xbf{"category":"Audit"}',
        b"[]",
        b"null",
        b"",
    ):  # fmt: skip
        for normalize in NORMALIZERS.values():
            check(normalize(raw, CONTEXT))
