"""Mappers of gateways, audit feeds and mapped records are total: any bytes and any damage give at least one outcome."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aitrail.event import OUTCOMES, encode
from aitrail.normalize.detect import detect
from aitrail.normalize.field_map import make_map
from aitrail.normalize.outcome import REASONS, Context, Normalized, Rejected
from aitrail.normalize.registry import NORMALIZERS

FIXTURES = Path(__file__).parents[1] / "fixtures"
FEEDS = (
    "kong", "envoy_ai", "cloudflare_ai", "databricks_ai", "portkey", "openai_audit", "anthropic_compliance", "vertex",
    "generic_access",
)  # fmt: skip
SEEDS = {name: [path.read_bytes() for path in sorted((FIXTURES / name).glob("*.json"))] for name in FEEDS}
MAP = make_map(tomllib.loads((FIXTURES / "generic_access" / "mapped.map.toml").read_text()), "map.toml")
CONTEXT = Context(tenant_id="acme", field_map=MAP)
BOUNDED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 80), 1 << 80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["{", "[]", "{}", '[{"role":"user"}]', "-", "\u2028", "2026-01-01", "-1", "1e999", "\x00", "٣"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "parts", "text", "a"]), inner),
    max_leaves=5,
)


def check(name: str, raw: bytes) -> None:
    outcomes = NORMALIZERS[name](raw, CONTEXT)
    assert len(outcomes) >= 1
    for outcome in outcomes:
        if isinstance(outcome, Rejected):
            assert outcome.code in REASONS
            assert outcome.record_type == name
            continue
        assert isinstance(outcome, Normalized)
        event = outcome.event
        assert (len(event.event_id), len(event.timestamp), event.source) == (32, 24, name)
        assert event.outcome_status in OUTCOMES
        for field in (event.user_id, event.department, event.model, event.action, event.tool, event.src_ip, event.app):
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


@pytest.mark.parametrize("name", FEEDS)
@BOUNDED
@given(data=st.data())
def test_any_and_damaged_bytes(name: str, data: st.DataObject) -> None:
    check(name, data.draw(st.binary(max_size=200)))
    raw = bytearray(data.draw(st.sampled_from(SEEDS[name])))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, max(0, len(raw) - 1)))
        raw[place : place + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=6))
    check(name, bytes(raw))
    assert detect(bytes(raw)) in {"", *NORMALIZERS}


@pytest.mark.parametrize("name", FEEDS)
@settings(BOUNDED, max_examples=150)
@given(data=st.data())
def test_wrong_values_in_any_place(name: str, data: st.DataObject) -> None:
    record = json.loads(data.draw(st.sampled_from(SEEDS[name])))
    for _ in range(data.draw(st.integers(1, 4))):
        path = data.draw(st.sampled_from(places(record) or [("x",)]))
        holder = record
        for step in path[:-1]:
            holder = holder[step]
        if data.draw(st.booleans()) and isinstance(holder, dict):
            holder.pop(path[-1], None)
        else:
            holder[path[-1]] = data.draw(JUNK)
    check(name, json.dumps(record).encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("name", FEEDS)
def test_every_cut_and_deep_nesting(name: str) -> None:
    for raw in SEEDS[name][:2]:
        for end in range(0, len(raw), 17):
            check(name, raw[:end])
    for deep in (b'{"request":', b"[", b'{"metadata":{"a":'):
        check(name, deep * 50_000)
