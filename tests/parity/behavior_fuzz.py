"""Random behavior rules of each kind, and histories of events in which they fire now and then."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from aitrail.clock import iso_ms
from aitrail.compiler.behavior import Behavior
from aitrail.compiler.behavior_yaml import build_behaviors
from aitrail.compiler.located import Document

START = datetime(2026, 11, 1, tzinfo=UTC)
PLACES = {
    "198.51.100.7": (52.52, 13.40),
    "203.0.113.9": (1.35, 103.82),
    "192.0.2.1": (52.40, 13.06),
    "2001:db8:1::7": (48.85, 2.35),
}
_ADDRESSES = [*PLACES, "198.51.100.250", "203.0.114.1", "2001:db8:1:9::1", "2001:db8:0:2::1", "2001:db8::1", "::1", ""]
_AGENTS = ["Boto3/1.35 md/Botocore", "boto3/1.36", "curl/8.5", "curl", "/odd", "Mozilla/5.0 (x y)", ""]
_TOOLS = ["search", "search,lookup", "lookup, search", "send_mail", "search,,pay", ""]
_LEAKS = ["response:pii/email", "prompt:secret/aws_key", "response:financial/iban"]
_VALUES = [
    "model",
    "action",
    "network src_ip",
    "folder resource_id",
    "each tool",
    "product user_agent",
    "leakage_types",
]
_METRICS = ["count", "sum token_count", "max token_count", "dcount model", "sum cost_usd", "dcount src_ip"]
_RESPONSE = {phase: ["x"] for phase in ("validate", "contain", "investigate", "remediate")}


def rule(kind: str, rng: random.Random) -> Behavior:
    """One rule, read as a file would be."""
    bucket = rng.choice(["1d", "1h"])
    buckets = rng.choice([2, 3, 5])
    unit = bucket[1:]
    value = rng.choice(_VALUES)
    table: dict[str, Any] = {
        "kind": kind,
        "selector": rng.choice(
            [
                {"action_kind": "inference"},
                {
                    "a": {"action_kind": "inference"},
                    "b": {"outcome_status": "denied"},
                    "condition": "a and not b",
                },
                {"outcome_status": ["success", "denied"], "src_ip|exists": True},
            ]
        ),
        "entity": ["user_id"]
        if kind == "rare_in_peer"
        else rng.choice([["user_id"], ["department"], ["user_id", "app"]]),
        "baseline": {"span": f"{buckets}{unit}"},
        "bucket": bucket,
    }
    extra: dict[str, dict[str, Any]] = {
        "first_seen": {"value": [value], "min_buckets": rng.choice([1, 2])},
        "rare_in_peer": {
            "value": [value],
            "peer": "department",
            "threshold": rng.choice([0.2, 0.5, 1.0]),
            "min_members": rng.choice([1, 2]),
        },
        "deviation": {
            "metric": rng.choice(_METRICS),
            "threshold": rng.choice([0, 0.5, 1, 2.5]),
            "floor": rng.choice([0, 2, 3]),
            "min_buckets": 1,
        },
        "fan_out": {
            "metric": rng.choice(["dcount model", "dcount src_ip", "dcount token_count"]),
            "threshold": rng.choice([0.5, 1, 1.5]),
            "floor": rng.choice([1, 2, 3]),
            "min_buckets": rng.choice([0, 1]),
        },
        "impossible_travel": {"threshold": rng.choice([100, 900]), "floor": rng.choice([0, 50, 500])},
    }
    for key, item in extra[kind].items():
        (table["baseline"] if key.startswith("min_") else table)[key] = item
    if kind == "impossible_travel":
        del table["bucket"]
        table["baseline"]["span"] = rng.choice(["1h", "6h", "2d"])
    return read(table)


def read(table: dict[str, Any], name: str = "fuzzed") -> Behavior:
    """Make a rule of the section ``behavior``."""
    data = {
        "id": str(uuid5(NAMESPACE_URL, name)),
        "name": name,
        "title": "x",
        "description": "x",
        "level": "low",
        "x_needs": {"any_of": ["litellm"], "without": "x"},
        "x_suppress": {"by": list(table["entity"]), "for": "1d"},
        "x_response": _RESPONSE,
        "behavior": table,
    }
    found, problems = build_behaviors([Document(Path("x.yml"), data, {})])
    assert not problems, problems
    return found[0]


def history(rng: random.Random, rule: Behavior, count: int = 120) -> list[dict[str, Any]]:
    """Events over eight buckets of the rule, in order of time; some at the very edge of a bucket, some at one time."""
    seconds = rule.bucket if rule.kind != "impossible_travel" else 10_800
    moments = []
    for _ in range(count):
        offset = rng.choice([0.0, 0.001, 0.5, 0.999, rng.random(), rng.random()])
        moments.append(rng.randrange(8) * seconds + offset * (seconds - 0.001))
    if rng.random() < 0.5:
        moments = [moments[number // 2 * 2] for number in range(count)]
    return [_event(rng, number, moment) for number, moment in enumerate(sorted(moments))]


def _event(rng: random.Random, number: int, moment: float) -> dict[str, Any]:
    return {
        "event_id": f"{number:032x}",
        "timestamp": iso_ms((START + timedelta(seconds=round(moment, 3))).timestamp()),
        "tenant_id": rng.choice(["acme", "acme", "globex"]),
        "source": "litellm",
        "action_kind": rng.choice(["inference", "inference", "inference", "admin"]),
        "action": rng.choice(["invokemodel", "invokemodel", "converse", "createendpoint", "deleteguardrail"]),
        "outcome_status": rng.choice(["success", "success", "denied", "error"]),
        "user_id": rng.choice(["a", "b", "c", "d", "e", ""]),
        "department": rng.choice(["retail", "retail", "investment", ""]),
        "app": rng.choice(["bot", ""]),
        "model": rng.choice(["gpt-4o", "gpt-4o", "gpt-4o", "claude", "llama", "7", ""]),
        "resource_id": rng.choice(["s3://a/b/c", "s3://a/b/d", "s3://a/b/", "name", "/", "a\\b/c", ""]),
        "tool": rng.choice(_TOOLS),
        "user_agent": rng.choice(_AGENTS),
        "src_ip": rng.choice(_ADDRESSES),
        "token_count": rng.choice([None, 0, 1, 5, 5, 40]),
        "cost_usd": rng.choice([None, 0.5, 0.25, 3.0]),
        "leakage_types": tuple(rng.sample(_LEAKS, rng.randrange(3))),
    }
