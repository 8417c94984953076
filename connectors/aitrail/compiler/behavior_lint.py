"""What a behavior rule must carry, and what the platforms can run of it; each fault with file, line and fix."""

from collections.abc import Iterator, Sequence

from aitrail.compiler import behavior_schedule, lint, schedule
from aitrail.compiler.behavior import Behavior
from aitrail.compiler.behavior_targets import STAND_INS, TARGETS
from aitrail.compiler.problems import Problem, Unsupported
from aitrail.compiler.rule import Meta
from aitrail.compiler.targets import LONGEST_KQL


def lint_behaviors(rules: Sequence[Behavior], others: Sequence[Meta] = ()) -> list[Problem]:
    """Give every problem of ``rules``, sorted by place; ``others`` are detections, whose names and ids are taken."""
    found = [problem for rule in rules for problem in _rule(rule)]
    names = {meta.name: meta for meta in others}
    ids = {meta.id: meta for meta in others}
    for rule in rules:
        if rule.meta.name in names:
            found.append(_at(rule, "the name is that of a detection too", "names are unique"))
        other = ids.setdefault(rule.meta.id, rule.meta)
        if other is not rule.meta:
            found.append(_at(rule, f"the id is that of {other.name} too", "make a new one: uuidgen"))
    return sorted(found)


def _at(rule: Behavior, reason: str, fix: str = "") -> Problem:
    return Problem(rule.meta.path, rule.meta.line, f"{rule.meta.name}: {reason}", fix)


def _rule(rule: Behavior) -> Iterator[Problem]:
    yield from lint.carried(rule.meta)
    if rule.meta.kind == "part":
        yield _at(rule, "x_kind: a behavior rule is no part of a correlation", "x_kind: detection or hunt")
    yield from _alert(rule)
    if rule.kind == "impossible_travel" and not rule.places:
        yield _at(
            rule, "x_tests.places is missing", "places: [{cidr: 203.0.113.0/24, latitude: 52.5, longitude: 13.4}]"
        )
    if rule.meta.kind == "detection":
        for reason, fix in schedule.misfits(behavior_schedule.plan(rule)):
            yield _at(rule, reason, fix.replace("timespan, or a behavior rule", "baseline: baseline: {span: 12d}"))
    yield from _targets(rule)


def _alert(rule: Behavior) -> Iterator[Problem]:
    """An alert is named by what the rule knows: its entity, its peers, its value."""
    plain = [rule.value.field.name] if rule.value and not rule.value.form and rule.value.field.kind == "string" else []
    known = dict.fromkeys([*rule.entity, *([rule.peer] if rule.peer else []), *plain])
    if not rule.meta.suppress.seconds or not rule.meta.suppress.by:
        yield _at(rule, "x_suppress is missing", f"x_suppress: {{by: [{', '.join(rule.entity)}], for: 1d}}")
    for name in rule.meta.suppress.by:
        if name not in known:
            yield _at(rule, f"x_suppress.by: the rule does not know {name!r}", f"it knows: {', '.join(known)}")


def _targets(rule: Behavior) -> Iterator[Problem]:
    for name, compile_behavior in TARGETS.items():
        try:
            query = compile_behavior(rule)
        except Unsupported as error:
            if (name, rule.kind) not in STAND_INS:
                yield _at(rule, str(error), "say it in the portable subset (content/behaviors/README.md)")
        else:
            if name == "kql" and len(query.text) > LONGEST_KQL:
                yield _at(rule, f"its KQL has {len(query.text)} characters", "Sentinel takes at most 10,000")
