"""Judging the value of a possible secret: entropy, placeholders, and what stands behind ``password =`` in real text."""

import math
import re
from collections import Counter
from collections.abc import Callable
from typing import Final

Validator = Callable[[str], bool]


def entropy(value: str) -> float:
    """Shannon entropy in bits per character."""
    if not value:
        return 0.0
    size = len(value)
    return -sum(count / size * math.log2(count / size) for count in Counter(value).values())


_PLACEHOLDER = re.compile(
    r"example|sample|dummy|placeholder|change[-_ ]?(?:me|it|this)|replace[-_ ]?(?:me|with|this)|redacted|your[-_ .]|"
    r"[-_ .]your|yourkey|yourapi|"
    r"yoursecret|yourtoken|yourpassw|my[-_](?:api|secret|token|key|pass)|insert|enter[-_ ]|todo|fixme|fake|mock|"
    r"xxxx|\*\*\*|\.\.\.|0{8}|1{8}|"
    r"<[^>]{0,40}>?|\$\{|\$\(|\{\{|%\(|#\{|process\.env|os\.environ|getenv|secrets?\.[a-z]|vault:|ssm:|test[-_]?key|not[-_]?a[-_]?real|notreal|"
    r"abcdefgh|bcdefghi|12345678|01234567|23456789|deadbeef|cafebabe|foobar|lorem|asdf|qwerty(?:uiop)?|hunter2$|\bnone\b|\bnull\b|undefined",
    re.IGNORECASE,
)


_LONG: Final = 40
_BY_CHANCE: Final = 4


def is_placeholder(value: str) -> bool:
    """Whether a value stands for a secret and is none: documentation values, variables, masks, keyboard runs."""
    found = _PLACEHOLDER.search(value)
    # Four letters are in a long run of random ones by chance.
    if found is not None and not (len(value) > _LONG and found.group().isalpha() and len(found.group()) <= _BY_CHANCE):
        return True
    common = Counter(value).most_common(1)[0][1] if value else 0
    return common > max(3, len(value) // 2)


_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$", re.IGNORECASE)
_CODE_VALUE = re.compile(
    r"[A-Za-z_.]+\(|\w+\[|^[A-Za-z_]+(?:\.[A-Za-z_]+)+$|^[A-Z][A-Z_]{3,}$|^https?://|^/|^\./|^[a-z]+(?:[A-Z][a-z]+)+$",
    re.ASCII,
)
_CLASSES: Final = (re.compile(r"[a-z]"), re.compile(r"[A-Z]"), re.compile(r"[0-9]"), re.compile(r"[^A-Za-z0-9]"))


def looks_assigned(value: str) -> bool:
    """Whether what stands behind ``secret =`` is a secret: long, mixed, neither code nor prose nor an identifier."""
    value = value.rstrip(".,;:")
    if len(value) < 12 or _UUID.match(value) or _CODE_VALUE.search(value):
        return False
    kinds = sum(1 for kind in _CLASSES if kind.search(value))
    if _CLASSES[2].search(value) is None:  # letters only: a word or a name, unless long and thoroughly mixed
        return kinds >= 2 and len(value) >= 24 and entropy(value) >= 3.8
    return kinds >= 2 and entropy(value) >= (3.0 if len(value) < 24 else 3.3)


_WORDS_FOR_PASSWORD: Final = frozenset(
    [
        "required",
        "string",
        "reset",
        "field",
        "hash",
        "hashed",
        "protected",
        "manager",
        "managers",
        "policy",
        "policies",
        "is",
        "are",
        "the",
        "not",
        "set",
        "a",
        "an",
        "and",
        "or",
        "must",
        "should",
        "be",
        "your",
        "been",
        "wrong",
        "incorrect",
        "invalid",
        "correct",
        "strong",
        "weak",
        "secure",
        "expired",
        "changed",
        "empty",
        "missing",
        "same",
        "different",
        "input",
        "type",
        "text",
        "none",
        "true",
        "false",
        "null",
        "undefined",
        "optional",
        "prompt",
        "stored",
        "encrypted",
        "plain",
        "plaintext",
        "visible",
        "hidden",
        "in",
        "on",
        "at",
        "least",
        "too",
        "very",
        "only",
        "also",
        "your_password",
        "password",
        "passwords",
        "secret",
        "admin123456",
    ]
)


def looks_password(value: str) -> bool:
    """Whether what stands behind ``password`` is one: not a word of prose, not code."""
    value = value.rstrip(".,;:)]}!?\"'") if len(value) > 8 else value.rstrip(".,;:)]}")
    if len(value) < 6 or value.lower() in _WORDS_FOR_PASSWORD or _CODE_VALUE.search(value) or value[0] in "<{$%[(/":
        return False
    kinds = sum(1 for kind in _CLASSES if kind.search(value))
    if kinds < 2 or len(set(value)) < 4:
        return False
    return _CLASSES[2].search(value) is not None or (
        kinds >= 3 and not value.replace("-", "").replace("'", "").isalpha()
    )


def looks_userinfo(value: str) -> bool:
    """Whether what stands where a URL or connection string has its password is one, and no name for it."""
    return (
        len(value) >= 4
        and value.lower() not in _WORDS_FOR_PASSWORD | {"pass", "pwd", "passwd", "user"}
        and value[0] not in "<{$%[*"
    )


def looks_token(value: str) -> bool:
    """Whether what follows ``Bearer`` is a token and not a word."""
    kinds = sum(1 for kind in _CLASSES if kind.search(value))
    return kinds >= 2 and _CLASSES[2].search(value) is not None


VALUE_CHECKS: Final[dict[str, Validator]] = {
    "": lambda _value: True,
    "assigned": looks_assigned,
    "password": looks_password,
    "token": looks_token,
    "userinfo": looks_userinfo,
}
