"""Random rules of the portable subset and random events that come close to them: nulls, empties, case, IPv6, edges.

Left out: characters whose other case has another length or is ASCII (I with a dot above, Kelvin sign): engines fold
them differently, and the linter refuses them in rules.
"""

import random
from typing import Any

from aitrail.schema.catalog import by_name

_TEXTS = ["", "alpha", "Alpha", "beta%", "be_ta", "a\\b", "it's", 'q"q', "äö", "alphabet", "x" * 40, "a.b*c"]
_LOWER = ["", "alpha", "beta", "be_ta", "50%", "a\\b", "it's", "äö", "alphabet", "alp", "*", "a.b"]
_IPS = ["", "10.0.0.1", "10.255.255.255", "11.0.0.0", "192.168.1.77", "203.0.113.9", "::1", "2001:db8::1",
        "2001:db8:8000::", "fe80::1", "2001:db8:7fff:ffff:ffff:ffff:ffff:ffff"]  # fmt: skip
_NETWORKS = ["10.0.0.0/8", "192.168.1.64/26", "0.0.0.0/0", "203.0.113.9/32", "2001:db8::/32", "2001:db8:8000::/33",
             "::1/128", "fe80::/10"]  # fmt: skip
_NUMBERS = [None, 0, 1, 4, 5, 6, -1, 100]
_FLOATS = [None, 0.0, 0.5, 0.7, 0.70001, 99.5]
_STRINGS = ["user_id", "role", "department", "app", "resource_id", "user_agent", "action"]
_LISTS = ["leakage_types", "flags", "guardrail_categories", "evidence"]
USED = [*_STRINGS, *_LISTS, "src_ip", "token_count", "injection_score", "read_only", "mfa", "outcome_status"]


def event(rng: random.Random, number: int) -> dict[str, Any]:
    """One event; only fields that rules of this module read, and the two that every event has."""
    found: dict[str, Any] = {
        "event_id": f"{number:032x}",
        "timestamp": f"2026-11-{rng.choice([1, 2]):02d}T0{rng.randrange(3)}:{rng.choice([0, 5, 10, 59]):02d}:"
        f"{rng.choice([0, 30]):02d}.{rng.choice([0, 1, 999]):03d}Z",
        "tenant_id": rng.choice(["acme", "acme", "globex"]),
        "source": "litellm",
        "outcome_status": rng.choice(["success", "denied", "unknown"]),
        "src_ip": rng.choice(_IPS),
        "token_count": rng.choice(_NUMBERS),
        "injection_score": rng.choice(_FLOATS),
        "read_only": rng.choice([None, True, False]),
        "mfa": rng.choice([None, True, False]),
    }
    for name in _STRINGS:
        found[name] = rng.choice(_LOWER if by_name()[name].lower else _TEXTS)
    for name in _LISTS:
        pool = _LOWER[1:] if by_name()[name].lower else _TEXTS[1:]
        found[name] = tuple(rng.sample(pool, rng.randrange(3)))
    return found


def rule(rng: random.Random) -> dict[str, Any]:
    """The detection section of one random rule."""
    names = ["sel_a", "sel_b", "filter"][: rng.randrange(1, 4)]
    detection: dict[str, Any] = {name: _selection(rng) for name in names}
    detection["condition"] = rng.choice(_CONDITIONS[len(names)])
    return detection


_CONDITIONS = {
    1: ["sel_a", "not sel_a"],
    2: [
        "sel_a and sel_b",
        "sel_a or sel_b",
        "sel_a and not sel_b",
        "not (sel_a or sel_b)",
        "1 of sel_*",
        "all of them",
    ],
    3: ["sel_a and not filter", "(sel_a or sel_b) and not filter", "1 of sel_* and not filter", "not 1 of them"],
}


def _selection(rng: random.Random) -> Any:
    maps = [dict(_item(rng) for _ in range(rng.randrange(1, 3))) for _ in range(rng.choice([1, 1, 2]))]
    return maps[0] if len(maps) == 1 else maps


def _item(rng: random.Random) -> tuple[str, Any]:
    kind = rng.randrange(8)
    if kind == 0:
        return f"src_ip{rng.choice(['|cidr', '|cidr', '|exists'])}", ...
    return _text_item(rng) if kind < 5 else _other_item(rng)


def _text_item(rng: random.Random) -> tuple[str, Any]:
    name = rng.choice(_STRINGS + _LISTS)
    pool = [text for text in (_LOWER if by_name()[name].lower else _TEXTS) if text and "*" not in text]
    modifier = rng.choice(["", "", "|contains", "|startswith", "|endswith", "|contains|all", "|exists"])
    if modifier == "|exists":
        return name + modifier, rng.choice([True, False])
    values = rng.sample(pool, rng.randrange(1, 3))
    return name + modifier, values if len(values) > 1 or modifier.endswith("all") else values[0]


def _other_item(rng: random.Random) -> tuple[str, Any]:
    return rng.choice(
        [
            ("token_count|" + rng.choice(["gt", "gte", "lt", "lte"]), rng.choice([0, 5, 100])),
            ("injection_score|" + rng.choice(["gt", "gte"]), rng.choice([0.5, 0.7])),
            ("token_count", rng.choice([0, 5])),
            ("read_only", rng.choice([True, False])),
            ("mfa|exists", rng.choice([True, False])),
            ("user_id|fieldref", rng.choice(["department", "role"])),
            ("user_id|re", rng.choice(["^al", "a[a-z]+t$", "b.*a"])),
        ]
    )


def fixed(detection: Any, rng: random.Random) -> Any:
    """Fill in the placeholders of address tests."""
    if isinstance(detection, list):
        return [fixed(item, rng) for item in detection]
    if not isinstance(detection, dict):
        return detection
    return {
        key: (rng.choice(_NETWORKS) if key.endswith("cidr") else True) if value is ... else fixed(value, rng)
        for key, value in detection.items()
    }
