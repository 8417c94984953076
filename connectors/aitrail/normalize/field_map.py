"""A field map: which fields of records of no known type are which fields of the event. Written by the user, in TOML.

::

    service = "vllm"                       # what was called, for event.service
    [only]                                 # leave out what is no access to an AI system
    path = "request.uri"
    starts_with = ["/v1/"]
    [fields]
    timestamp = "time"                     # dotted path; a key that itself holds dots is found, too
    user_id = ["headers.x-user", "user"]   # the first that is there
    latency_ms = { path = "took", unit = "s" }
    action_kind = { value = "inference" }  # always this
    [outcomes]                             # values of outcome_status's path -> outcome
    ok = "success"
    [content]
    request = "request_body"               # JSON as OpenAI's API has it, decoded or as text
    response = "response_body"

Everything is checked when the map is read: a target that is no field of the event, a unit, an outcome that there is
not, named with what was probably meant.
"""

import difflib
from typing import Any, Literal, get_args, get_type_hints

import msgspec
from msgspec import Struct

from aitrail.errors import ConfigError
from aitrail.event import OUTCOMES, AccessEvent

Kind = Literal["text", "lower", "count", "number", "flag", "time", "ip", "list", "choice"]
# Fields that nobody maps: they are derived, or made by the flow.
_OURS = frozenset({
    "event_id", "source", "source_ref", "ingested_at", "tenant_id", "src_host", "content_mode", "prompt_text",
    "response_text", "prompt_hash", "response_hash", "system_hash", "prompt_chars", "response_chars", "truncated",
    "prompt_classification", "response_classification", "injection_score", "injection_tier", "leakage_types",
    "leakage_count", "evidence", "classifier_version", "atlas", "owasp", "risk_score", "risk_reasons",
    "behavior_score", "behavior_signals", "ledger_index", "ledger_checkpoint", "flags", "related_ids",
})  # fmt: skip
_UNITS: dict[str, dict[str, float]] = {
    "time": {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9},  # units per second
    "number": {"s": 1e3, "ms": 1.0, "us": 1e-3, "ns": 1e-6},  # milliseconds per unit
}
_TARGETS = frozenset({"timestamp", "latency_ms", "first_token_ms"})
_CONTENT = ("request", "response", "prompt", "answer")


class Rule(Struct, frozen=True):
    """How one field of the event is filled.

    Attributes:
        target: the field.
        kind: what it holds.
        paths: where its value is, the first that is there counts.
        value: what it always is, without a path.
        factor: for times units per second, for durations milliseconds per unit.
        choices: the values that the field can have, lower-case.
    """

    target: str
    kind: Kind
    paths: tuple[str, ...] = ()
    value: Any = None
    factor: float = 1.0
    choices: frozenset[str] = frozenset()


class FieldMap(Struct, frozen=True):
    """A checked map."""

    rules: tuple[Rule, ...]
    timestamp: Rule
    identity: tuple[str, ...] = ()
    content: dict[str, str] = {}
    outcomes: dict[str, str] = {}
    only: tuple[str, tuple[str, ...]] = ("", ())
    service: str = ""


def kinds() -> dict[str, tuple[Kind, frozenset[str]]]:
    """What each field that may be mapped holds, with the values that it can have."""
    found: dict[str, tuple[Kind, frozenset[str]]] = {}
    for name, annotation in get_type_hints(AccessEvent, include_extras=True).items():
        if name not in _OURS:
            inner, meta = get_args(annotation)[:2]
            found[name] = _kind(inner, meta)
    return found


def _kind(inner: Any, meta: msgspec.Meta) -> tuple[Kind, frozenset[str]]:
    extra = meta.extra or {}
    parts = [part for part in get_args(inner) if part is not type(None)]
    literal = [value for part in (inner, *parts) for value in get_args(part) if isinstance(value, str) and value]
    if literal:
        return "choice", frozenset(literal)
    kind = parts[0] if parts else inner
    if kind is int:
        return "count", frozenset()
    if kind is float:
        return "number", frozenset()
    if kind is bool:
        return "flag", frozenset()
    if kind is str and extra.get("form") in ("time", "ip"):
        return ("time" if extra["form"] == "time" else "ip"), frozenset()
    if kind is str and inner is str:
        return ("lower" if extra.get("lower") else "text"), frozenset()
    return "list", frozenset()


def make_map(table: dict[str, Any], where: str) -> FieldMap:
    """Check a map that was read from TOML.

    Args:
        table: the file's tree.
        where: the file, for errors.

    Raises:
        ConfigError: names the file, the entry and the fix.
    """
    known = ("service", "identity", "only", "fields", "outcomes", "content")
    for name in table:
        if name not in known:
            raise ConfigError(f"unknown entry {name!r}", where=where, hint=_closest(name, known))
    fields = _table(table, "fields", where)
    fillable = kinds()
    rules: list[Rule] = []
    for target, how in fields.items():
        if target not in fillable:
            why = "is filled by aitrail itself" if target in _OURS else "is no field of the event"
            hint = _closest(target, tuple(fillable)) + "; all fields: aitrail schema"
            raise ConfigError(f"{target!r} {why}", where=f"{where}: fields.{target}", hint=hint)
        rules.append(_rule(target, *fillable[target], how, f"{where}: fields.{target}"))
    time = next((rule for rule in rules if rule.target == "timestamp"), None)
    if time is None:
        raise ConfigError("timestamp is missing", where=f"{where}: fields", hint='timestamp = "path.of.the.time"')
    content = _table(table, "content", where)
    for name, path in content.items():
        if name not in _CONTENT:
            raise ConfigError(
                f"unknown entry {name!r}", where=f"{where}: content.{name}", hint=_closest(name, _CONTENT)
            )
        _path(path, f"{where}: content.{name}")
    outcomes = {str(value).lower(): outcome for value, outcome in _table(table, "outcomes", where).items()}
    for value, outcome in outcomes.items():
        if outcome not in OUTCOMES:
            hint = _closest(str(outcome), tuple(OUTCOMES))
            raise ConfigError(f"{outcome!r} is no outcome", where=f"{where}: outcomes.{value}", hint=hint)
    service = table.get("service", "")
    if not isinstance(service, str):
        raise ConfigError("service must be a text", where=f"{where}: service")
    return FieldMap(
        rules=tuple(rule for rule in rules if rule is not time),
        timestamp=time,
        identity=_paths(table.get("identity", []), f"{where}: identity"),
        content=content,
        outcomes=outcomes,
        only=_only(_table(table, "only", where), f"{where}: only"),
        service=service.lower(),
    )


def _rule(target: str, kind: Kind, choices: frozenset[str], how: Any, where: str) -> Rule:
    if not isinstance(how, dict):
        return Rule(target, kind, _paths(how, where), choices=choices)
    for name in how:
        if name not in ("path", "value", "unit"):
            raise ConfigError(f"unknown entry {name!r}", where=where, hint=_closest(name, ("path", "value", "unit")))
    if ("path" in how) == ("value" in how):
        raise ConfigError("give either a path or a value", where=where, hint='{ path = "a.b" } or { value = "x" }')
    if "value" in how:
        value = how["value"]
        if choices and str(value).lower() not in choices:
            hint = _closest(str(value), tuple(sorted(choices)))
            raise ConfigError(f"{value!r} is no value of {target}", where=where, hint=hint)
        return Rule(target, kind, value=value, choices=choices)
    factor = 1.0
    if "unit" in how:
        units = _UNITS["time" if kind == "time" else "number"]
        if target not in _TARGETS:
            raise ConfigError(f"{target} has no unit", where=where, hint="units are for times and durations")
        if how["unit"] not in units:
            hint = _closest(str(how["unit"]), tuple(units))
            raise ConfigError(f"unknown unit {how['unit']!r}", where=where, hint=hint)
        factor = units[how["unit"]]
    return Rule(target, kind, _paths(how["path"], where), factor=factor, choices=choices)


def _only(table: dict[str, Any], where: str) -> tuple[str, tuple[str, ...]]:
    if not table:
        return "", ()
    for name in table:
        if name not in ("path", "starts_with"):
            raise ConfigError(f"unknown entry {name!r}", where=where, hint=_closest(name, ("path", "starts_with")))
    starts = table.get("starts_with")
    if not isinstance(starts, list) or not starts or not all(isinstance(one, str) for one in starts):
        raise ConfigError("starts_with must be a list of texts", where=where, hint='starts_with = ["/v1/"]')
    return _path(table.get("path"), where), tuple(starts)


def _paths(value: Any, where: str) -> tuple[str, ...]:
    return tuple(_path(one, where) for one in (value if isinstance(value, list) else [value]))


def _path(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigError("a path must be a text", where=where, hint='"a.b" is the field b in the object a')
    return value


def _table(table: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    found = table.get(name, {})
    if not isinstance(found, dict):
        raise ConfigError(f"{name} must be a table", where=f"{where}: {name}", hint=f"write [{name}]")
    return found


def _closest(name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
