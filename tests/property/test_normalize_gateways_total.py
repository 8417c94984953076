"""Gateway normalizers are total: any bytes, and any damage to a real-shaped record, give at least one outcome."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aitrail.event import OUTCOMES, encode
from aitrail.normalize import litellm, litellm_spend, otel_genai
from aitrail.normalize.detect import Detector, detect
from aitrail.normalize.outcome import REASONS, Context, Fragment, Normalized, Normalizer, Rejected
from aitrail.normalize.registry import NORMALIZERS

FIXTURES = Path(__file__).parents[1] / "fixtures"
GATEWAYS: dict[str, Normalizer] = {
    "litellm": litellm.normalize,
    "litellm_spend": litellm_spend.normalize,
    "otel_genai": otel_genai.normalize,
}
SEEDS = {name: [path.read_bytes() for path in sorted((FIXTURES / name).glob("*.json"))] for name in GATEWAYS}
CONTEXT = Context(tenant_id="acme", tenant_keys=("department", "user_api_key_org_id"))
BOUNDED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 80), 1 << 80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["{", "[]", "{}", '[{"role":"user"}]', "None", "\u2028", "2026-01-01", "-1", "1e999", "\x00"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "parts", "type", "text", "messages", "a"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


def check(name: str, raw: bytes) -> None:
    outcomes = GATEWAYS[name](raw, CONTEXT)
    assert len(outcomes) >= 1
    for outcome in outcomes:
        if isinstance(outcome, Rejected):
            assert outcome.code in REASONS
            assert outcome.record_type == name
            continue
        assert isinstance(outcome, Normalized | Fragment)
        event = outcome.event
        assert len(event.event_id) == 32
        assert len(event.timestamp) == 24
        assert event.source == name
        assert event.outcome_status in OUTCOMES
        for field in (event.user_id, event.department, event.model, event.action, event.tool, event.src_ip):
            assert field == field.lower()
        json.loads(encode(event))
        if outcome.content is not None:
            assert all(isinstance(message.text, str) for message in outcome.content.messages)
            assert isinstance(outcome.content.response, str)
            assert all(isinstance(call, str) for call in outcome.content.tool_calls)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


@pytest.mark.parametrize("name", GATEWAYS)
@BOUNDED
@given(raw=st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes(name: str, raw: bytes) -> None:
    check(name, raw)
    assert detect(raw) in {"", *NORMALIZERS}


@pytest.mark.parametrize("name", GATEWAYS)
@BOUNDED
@given(data=st.data())
def test_damaged_bytes(name: str, data: st.DataObject) -> None:
    raw = bytearray(data.draw(st.sampled_from(SEEDS[name])))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place : place + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=6))
        if not raw:
            break
    check(name, bytes(raw))
    detector = Detector()
    detector.detect(SEEDS[name][0])
    assert detector.detect(bytes(raw)) in {"", *NORMALIZERS}


@pytest.mark.parametrize("name", GATEWAYS)
@settings(BOUNDED, max_examples=250)
@given(data=st.data())
def test_wrong_values_in_any_place(name: str, data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from([raw for raw in SEEDS[name] if detect(raw)]))
    record = json.loads(seed)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(places(record) or [("x",)]))
        holder = record
        for step in path[:-1]:
            holder = holder[step]
        action = data.draw(st.sampled_from(["replace", "remove", "wrap"]))
        if action == "remove" and isinstance(holder, dict):
            holder.pop(path[-1], None)
        elif action == "wrap":
            holder[path[-1]] = [holder.get(path[-1]) if isinstance(holder, dict) else holder[path[-1]]]
        else:
            holder[path[-1]] = data.draw(JUNK)
    raw = json.dumps(record).encode("utf-8", "surrogatepass")
    check(name, raw)


@pytest.mark.parametrize("name", GATEWAYS)
@BOUNDED
@given(data=st.data())
def test_messages_and_responses_of_any_shape(name: str, data: st.DataObject) -> None:
    messages, response = data.draw(JUNK), data.draw(JUNK)
    if name == "otel_genai":
        attributes = {"gen_ai.system": "x", "gen_ai.input.messages": messages, "gen_ai.output.messages": response,
                      "gen_ai.prompt.0": messages, "gen_ai.completion.0.content": response,
                      "input.value": json.dumps(messages),
                      "gen_ai.system_instructions": json.dumps(response)}  # fmt: skip
        record: dict[str, Any] = {
            "traceId": "4bf92f3577b34da6a3ce929d0e0e4736", "spanId": "00f067aa0ba902b7", "resource": {},
            "startTimeUnixNano": 1763889245120731000, "attributes": attributes,
        }  # fmt: skip
    else:
        record = json.loads(SEEDS[name][-1])
        record["messages"], record["response"] = messages, response
    check(name, json.dumps(record).encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("name", GATEWAYS)
def test_every_cut_of_a_record(name: str) -> None:
    raw = SEEDS[name][-1]
    for end in range(0, len(raw), 13):
        check(name, raw[:end])


@pytest.mark.parametrize("name", GATEWAYS)
@pytest.mark.parametrize("deep", [b'{"metadata":', b'{"messages":', b'{"attributes":', b'{"body":', b"["])
def test_deep_nesting(name: str, deep: bytes) -> None:
    check(name, deep * 100_000)
    whole = deep * 5_000 + b"1" + b"]" * 5_000 if deep == b"[" else deep * 5_000 + b"1" + b"}" * 5_000
    check(name, whole)
