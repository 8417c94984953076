"""Read the rules of ``content/detections``: one rule or correlation per YAML document, Sigma with our own ``x_`` keys.

A file may hold several documents: the parts of a correlation stand beside it. Every problem of every file is collected;
nothing is returned when there is one.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from sigma.exceptions import SigmaError
from sigma.rule import SigmaRule

from aitrail.compiler.expr import Expr
from aitrail.compiler.located import Document, read
from aitrail.compiler.lower import NotPortable, lower
from aitrail.compiler.metric import Dataset, catalog
from aitrail.compiler.problems import ContentError, Problem
from aitrail.compiler.rule import (
    Compare,
    Correlation,
    Detection,
    Example,
    Meta,
    Needs,
    Response,
    Rule,
    Suppress,
)
from aitrail.compiler.watchlist import expanded
from aitrail.contentdir import content_path

SERVICES: tuple[Dataset, ...] = ("access", "health")
LOGSOURCES: list[dict[str, str]] = [{"product": "aitrail", "service": service} for service in SERVICES]
PHASES = ("validate", "contain", "investigate", "remediate")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_COMPARES: dict[str, Compare] = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "eq": "=="}
_TYPES = ("event_count", "value_count", "temporal", "temporal_ordered", "value_sum", "value_avg", "value_percentile")


class Rules(Struct, frozen=True):
    """All rules of a directory, by name; ``part`` rules are only there for correlations."""

    by_name: dict[str, Detection]

    def shipped(self) -> list[Detection]:
        """What becomes an alert or a hunting query, sorted by name."""
        return [rule for _, rule in sorted(self.by_name.items()) if rule.meta.kind != "part"]


def load(directory: Path) -> Rules:
    """Read every ``*.yml`` below ``directory``; raises ``ContentError`` with all problems."""
    documents: list[Document] = []
    problems: list[Problem] = []
    for path in sorted(directory.rglob("*.yml")):
        try:
            documents += read(path)
        except ContentError as error:
            problems += error.problems
    found, more = build(documents)
    problems += more
    if problems:
        raise ContentError(problems)
    return found


def build(documents: Iterable[Document]) -> tuple[Rules, list[Problem]]:
    """Make rules of documents; what could not be made is in the problems."""
    problems: list[Problem] = []
    rules: dict[str, Detection] = {}
    correlations: list[tuple[Document, Meta]] = []
    for written in documents:
        if "behavior" in written.data:
            continue  # ``behavior_yaml`` reads those
        try:
            document = expanded(written)
            meta = read_meta(document)
        except ContentError as error:
            problems += error.problems
            continue
        if meta.name in rules or any(meta.name == other.name for _, other in correlations):
            problems.append(document.problem(("name",), f"the name {meta.name!r} is taken", "names are unique"))
        elif "correlation" in document.data:
            correlations.append((document, meta))
        else:
            try:
                dataset = _dataset(document)
                rules[meta.name] = Rule(meta, _condition(document, dataset), dataset)
            except ContentError as error:
                problems += error.problems
    for document, meta in correlations:
        try:
            rules[meta.name] = _correlation(document, meta, rules)
        except ContentError as error:
            problems += error.problems
    return Rules(rules), problems


def _dataset(document: Document) -> Dataset:
    """What the rule is about; accesses, or the collector itself."""
    source = document.data.get("logsource")
    if source not in LOGSOURCES:
        wanted = " or ".join(map(str, LOGSOURCES))
        fix = "rules read AccessEvent, or the collector's health"
        raise ContentError([document.problem(("logsource",), f"the log source must be {wanted}", fix)])
    return SERVICES[LOGSOURCES.index(source)]


def _condition(document: Document, dataset: Dataset) -> Expr:
    data = {key: value for key, value in document.data.items() if not key.startswith("x_")}
    try:
        parsed = SigmaRule.from_dict(data).detection.parsed_condition
        if len(parsed) != 1:
            raise ContentError(
                [document.problem(("detection", "condition"), "one condition per rule", "split the rule")]
            )
        return lower(parsed[0].parsed, catalog(dataset))
    except SigmaError as error:
        # pySigma names its own file and line, which are not ours.
        text = str(error).split(" in ")[0] if " in " in str(error) else str(error)
        raise ContentError([document.problem(("detection",), f"not a Sigma rule: {text}")]) from None
    except NotPortable as error:
        place = _place_of(document, error.field)
        raise ContentError([document.problem(place, error.reason, error.fix)]) from None


def _place_of(document: Document, field: str) -> tuple[str | int, ...]:
    """The first key of the detection section that names ``field``."""
    for place in document.lines:
        if place[:1] == ("detection",) and place and str(place[-1]).partition("|")[0] == field:
            return place
    return ("detection",)


def _convert(document: Document, key: str, kind: Any, default: Any = None) -> Any:
    value = document.data.get(key, default)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        reason = f"{key}: {str(error).replace('`', chr(39))}"
        raise ContentError([document.problem((key,), reason, "see content/README.md")]) from None


def read_meta(document: Document) -> Meta:
    """What a rule of any kind carries beside its logic; raises ``ContentError``."""
    data = document.data
    for key in ("id", "name", "title", "description", "level"):
        if not isinstance(data.get(key), str) or not data[key].strip():
            raise ContentError([document.problem((key,), f"{key} is missing", f"write {key}: ...")])
    part = data.get("x_kind") == "part"
    suppress = _convert(document, "x_suppress", dict[str, Any], {})
    converted = {
        "by": suppress.get("by", []),
        "seconds": seconds(str(suppress.get("for", "0s")), document, "x_suppress"),
    }
    return Meta(
        id=data["id"],
        name=data["name"],
        title=data["title"],
        description=" ".join(data["description"].split()),
        severity=data["level"],
        kind=_convert(document, "x_kind", str, "detection"),
        tags=_convert(document, "tags", tuple[str, ...], ()),
        false_positives=_convert(document, "falsepositives", tuple[str, ...], ()),
        entities=_convert(document, "x_entities", dict[str, str], {}),
        needs=_convert(document, "x_needs", Needs, {"any_of": (), "without": ""} if part else None),
        suppress=msgspec.convert(converted, Suppress),
        response=_response(document, part=part),
        hits=_examples(document, "hit"),
        misses=_examples(document, "miss"),
        references=_convert(document, "references", tuple[str, ...], ()),
        path=document.path,
        line=document.line("name"),
        raw=data,
    )


def _response(document: Document, *, part: bool) -> Response:
    """The steps of the playbook that a rule names, the rule's own before them."""
    table = _convert(document, "x_response", dict[str, Any], {} if part else None)
    own = {phase: tuple(table.get(phase, ())) for phase in PHASES}
    unknown = set(table) - {*PHASES, "playbook"}
    if unknown:
        fix = f"known: playbook, {', '.join(PHASES)}"
        raise ContentError([document.problem(("x_response",), f"unknown key {min(unknown)!r}", fix)])
    name = table.get("playbook")
    shared = playbooks().get(name, {}) if name else {}
    if name and not shared:
        fix = f"known: {', '.join(sorted(playbooks()))}"
        raise ContentError([document.problem(("x_response", "playbook"), f"unknown playbook {name!r}", fix)])
    return Response(**{phase: (*own[phase], *shared.get(phase, ())) for phase in PHASES})


@cache
def playbooks() -> dict[str, dict[str, tuple[str, ...]]]:
    """The steps that many rules share, by name: ``content/playbooks.yml``."""
    [document] = read(content_path("playbooks.yml"))
    return msgspec.convert(document.data, dict[str, dict[str, tuple[str, ...]]])


def _examples(document: Document, which: str) -> tuple[Example, ...]:
    """Tests of one side: each an event, or ``{name, events: [...]}``."""
    tests = _convert(document, "x_tests", dict[str, list[dict[str, Any]]], {})
    found = []
    for number, test in enumerate(tests.get(which, ())):
        events = test.get("events", [test])
        found.append(Example(str(test.get("name", f"{which} {number + 1}")), tuple(events)))
    return tuple(found)


def seconds(text: str, document: Document, key: str) -> int:
    """``15m`` as seconds; raises ``ContentError``."""
    number, unit = text[:-1], text[-1:]
    if not number.isdecimal() or unit not in _SECONDS:
        raise ContentError([document.problem((key,), f"{text!r} is no time span", "write e.g. 30s, 15m, 2h or 1d")])
    return int(number) * _SECONDS[unit]


def _correlation(document: Document, meta: Meta, rules: Mapping[str, Detection]) -> Correlation:
    table = document.data["correlation"]
    if not isinstance(table, dict):
        raise ContentError([document.problem(("correlation",), "a correlation is a mapping")])

    def wrong(key: str, reason: str, fix: str = "") -> ContentError:
        return ContentError([document.problem(("correlation", key), reason, fix)])

    kind = table.get("type")
    if kind not in _TYPES:
        raise wrong("type", f"unknown correlation type {kind!r}", f"known: {', '.join(_TYPES)}")
    unknown = set(table) - {"type", "rules", "group-by", "timespan", "condition"}
    if unknown:
        raise wrong(min(unknown), f"unknown key {min(unknown)!r}", "aliases are not portable")
    parts = []
    for name in table.get("rules", ()):
        rule = rules.get(name)
        if not isinstance(rule, Rule):
            raise wrong("rules", f"there is no rule {name!r}", "name a rule (not a correlation) by its `name`")
        if rule.dataset != "access":
            raise wrong("rules", f"{name!r} is about the collector", "correlations are over accesses")
        parts.append(rule)
    if not parts:
        raise wrong("rules", "no rule is named", "rules: [name]")
    compare, threshold, field, percentile = _threshold(kind, table.get("condition") or {}, wrong)
    return Correlation(
        meta=meta,
        type=kind,
        rules=tuple(parts),
        group_by=tuple(table.get("group-by", ())),
        seconds=seconds(str(table.get("timespan", "")), document, "correlation"),
        compare=compare,
        threshold=len(parts) if kind.startswith("temporal") else threshold,
        field=field,
        percentile=percentile,
    )


def _threshold(kind: str, condition: dict[str, Any], wrong: Any) -> tuple[Compare, float, str, int]:
    if kind.startswith("temporal"):
        if condition:
            raise wrong("condition", f"{kind} takes no condition", "all rules must be seen")
        return ">=", 1, "", 0
    found = [(_COMPARES[key], value) for key, value in condition.items() if key in _COMPARES]
    if len(found) != 1 or not isinstance(found[0][1], int | float) or isinstance(found[0][1], bool):
        raise wrong("condition", "a condition has one comparison with a number", "condition: {gte: 5}")
    field = str(condition.get("field", ""))
    if bool(field) != (kind != "event_count"):
        raise wrong("condition", f"{kind} " + ("counts events, not a field" if field else "needs a field"))
    return found[0][0], found[0][1], field, int(condition.get("percentile", 50)) if kind == "value_percentile" else 0
