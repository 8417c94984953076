"""What a rule must carry beside its logic, and what every platform can run; each fault with file, line and fix."""

import re
from collections.abc import Iterator
from uuid import UUID

import msgspec

from aitrail.compiler import schedule, tags
from aitrail.compiler.metric import Dataset, catalog
from aitrail.compiler.problems import Problem, Unsupported
from aitrail.compiler.rule import Correlation, Detection, Kind, Meta, Severity
from aitrail.compiler.targets import LONGEST_KQL, TARGETS
from aitrail.event import AccessEvent
from aitrail.normalize.registry import NORMALIZERS
from aitrail.schema.catalog import by_name
from aitrail.streams import Health

_NAME = re.compile(r"[a-z][a-z0-9_]{2,60}")
_SEVERITIES = Severity.__args__  # type: ignore[attr-defined]
_KINDS = Kind.__args__  # type: ignore[attr-defined]
# Of a test's event: when it happens (seconds after the first), how often, and how many seconds apart.
_TEST_KEYS = ("at", "repeat", "every")
_GROUPABLE = ("string", "ip")
_ENTITIES = ("user", "ip", "host", "resource", "account", "application", "model", "session", "department")


def lint(rules: list[Detection]) -> list[Problem]:
    """Give every problem of all ``rules``, sorted by place."""
    found = [problem for rule in rules for problem in _rule(rule)]
    seen: dict[str, Meta] = {}
    for rule in rules:
        other = seen.setdefault(rule.meta.id, rule.meta)
        if other is not rule.meta:
            found.append(_at(rule.meta, f"the id is that of {other.name} too", "make a new one: uuidgen"))
    return sorted(found)


def _at(meta: Meta, reason: str, fix: str = "") -> Problem:
    return Problem(meta.path, meta.line, f"{meta.name}: {reason}", fix)


def carried(meta: Meta, dataset: Dataset = "access") -> Iterator[Problem]:
    """What is wrong with what a rule of any kind carries beside its logic."""
    yield from _identity(meta)
    if meta.kind != "part":
        yield from _prose(meta)
        yield from _tests(meta, dataset)
    yield from _fields(meta, dataset)


def _rule(rule: Detection) -> Iterator[Problem]:
    meta = rule.meta
    yield from carried(meta, rule.dataset)
    if isinstance(rule, Correlation):
        yield from _correlation(rule)
    if meta.kind == "detection" and meta.severity in _SEVERITIES:
        for reason, fix in schedule.misfits(schedule.plan(rule)):
            yield _at(meta, reason, fix)
    if meta.kind != "part":
        yield from _targets(rule)


def _targets(rule: Detection) -> Iterator[Problem]:
    """What a dialect cannot say exactly; a rule that is wrong in itself may fail there, too, and is told elsewhere."""
    for name, compile_rule in TARGETS.items():
        try:
            query = compile_rule(rule)
        except Unsupported as error:
            yield _at(rule.meta, str(error), "say it in the portable subset (content/detections/README.md)")
        except KeyError:
            continue
        else:
            if name == "kql" and len(query.text) > LONGEST_KQL:
                yield _at(rule.meta, f"its KQL has {len(query.text)} characters", "Sentinel takes at most 10,000")


def _identity(meta: Meta) -> Iterator[Problem]:
    try:
        UUID(meta.id)
    except ValueError:
        yield _at(meta, f"the id {meta.id!r} is no UUID", "make one: uuidgen")
    if not _NAME.fullmatch(meta.name):
        yield _at(meta, f"the name {meta.name!r}", "lower-case letters, digits and _, 3 to 61 characters")
    if meta.severity not in _SEVERITIES:
        yield _at(meta, f"unknown level {meta.severity!r}", f"one of: {', '.join(_SEVERITIES)}")
    if meta.kind not in _KINDS:
        yield _at(meta, f"unknown x_kind {meta.kind!r}", f"one of: {', '.join(_KINDS)}")
    for tag in meta.tags:
        reason = tags.wrong(tag)
        if reason:
            yield _at(meta, f"tag {reason}", "add it to content/taxonomy with its source, or correct it")


def _prose(meta: Meta) -> Iterator[Problem]:
    if not any(tag.startswith("attack.") for tag in meta.tags):
        yield _at(meta, "no attack.* tag", "every platform files alerts by ATT&CK tactic: add one")
    if not meta.false_positives:
        yield _at(meta, "no falsepositives", "say what ordinary activity looks the same")
    for phase in ("validate", "contain", "investigate", "remediate"):
        if not getattr(meta.response, phase):
            yield _at(meta, f"x_response.{phase} is empty", "write at least one step")
    if not meta.entities:
        yield _at(meta, "no x_entities", "name at least one, e.g. {user: user_id}")
    if not meta.needs.any_of:
        yield _at(meta, "x_needs.any_of is empty", "name the record types that the rule needs")
    for source in meta.needs.any_of:
        if source not in NORMALIZERS and source not in ("aitrail_health", "aitrail_ledger"):
            yield _at(meta, f"x_needs: unknown record type {source!r}", f"known: {', '.join(NORMALIZERS)}")


def _tests(meta: Meta, dataset: Dataset = "access") -> Iterator[Problem]:
    fields, (blank, kind) = catalog(dataset), BLANKS[dataset]
    for which, examples in (("hit", meta.hits), ("miss", meta.misses)):
        if not examples:
            yield _at(meta, f"no x_tests.{which}", "write at least one event of each")
    for example in (*meta.hits, *meta.misses):
        for event in example.events:
            known = {key: value for key, value in event.items() if key not in _TEST_KEYS}
            unknown = sorted(set(known) - set(fields))
            if not all(isinstance(event.get(key, 0), int | float) for key in _TEST_KEYS):
                yield _at(meta, f"test {example.name!r}: at, repeat and every are numbers", "seconds, times, seconds")
            if unknown:
                yield _at(meta, f"test {example.name!r}: unknown field {unknown[0]!r}", "see `aitrail schema`")
                continue
            try:
                msgspec.convert({**blank, **known}, kind)
            except msgspec.ValidationError as error:
                yield _at(meta, f"test {example.name!r}: {error}", "see `aitrail schema`")
            for name, value in known.items():
                if fields[name].lower and isinstance(value, str) and value != value.lower():
                    yield _at(meta, f"test {example.name!r}: {name} is lower-case, always", f"write {value.lower()!r}")


BLANK = {"event_id": "0" * 32, "timestamp": "2026-11-23T09:00:00.000Z", "tenant_id": "acme", "source": "litellm"}
# What a test's event has beside what it says, and what it is then, by data set.
BLANKS: dict[Dataset, tuple[dict[str, str], type[AccessEvent | Health]]] = {
    "access": (BLANK, AccessEvent),
    "health": (
        {**{key: BLANK[key] for key in ("event_id", "timestamp")}, "collector": "c", "kind": "source", "name": "s"},
        Health,
    ),
}


def _fields(meta: Meta, dataset: Dataset = "access") -> Iterator[Problem]:
    for entity, name in meta.entities.items():
        if entity not in _ENTITIES:
            yield _at(meta, f"unknown entity {entity!r}", f"one of: {', '.join(_ENTITIES)}")
        if name not in catalog(dataset):
            yield _at(meta, f"x_entities.{entity}: unknown field {name!r}", "see `aitrail schema`")
    known = catalog(dataset)
    for name in meta.suppress.by:
        if name not in known or known[name].kind not in _GROUPABLE:
            yield _at(meta, f"x_suppress.by: {name!r} cannot name an alert", "use a string field")


def _correlation(rule: Correlation) -> Iterator[Problem]:
    meta = rule.meta
    for name in rule.group_by:
        if name not in by_name() or by_name()[name].kind not in _GROUPABLE:
            yield _at(meta, f"group-by: {name!r} cannot be grouped by", "use a string field")
    if rule.seconds < 1:
        yield _at(meta, "timespan: no time", "write e.g. timespan: 15m")
    if rule.field and rule.field not in by_name():
        yield _at(meta, f"condition.field: unknown field {rule.field!r}", "see `aitrail schema`")
    elif rule.type in ("value_sum", "value_avg", "value_percentile"):
        if by_name()[rule.field].kind not in ("integer", "number"):
            yield _at(meta, f"condition.field: {rule.field} is no number", "use a number")
    elif rule.type == "value_count" and by_name()[rule.field].kind not in _GROUPABLE:
        yield _at(meta, f"condition.field: {rule.field} cannot be counted", "use a string field")
    if meta.suppress.seconds and meta.suppress.by != rule.group_by:
        yield _at(meta, "x_suppress.by is not group-by", "an alert of a correlation is named by its group")
    if rule.compare not in (">", ">="):
        yield _at(meta, "a correlation that holds when nothing happens", "use gte or gt")
