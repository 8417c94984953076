"""Write what runs on a store: the queries of the rules, and the dashboards of the console. All or nothing."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from aitrail.compiler import behavior_targets, boards, tags, targets
from aitrail.compiler.behavior import Behavior
from aitrail.compiler.behavior_lint import lint_behaviors
from aitrail.compiler.behavior_yaml import load_behaviors
from aitrail.compiler.changes import QUERIES
from aitrail.compiler.dashboard_yaml import load_dashboards
from aitrail.compiler.dialects.behavior_duckdb import compile_behavior
from aitrail.compiler.dialects.duckdb import compile_rule
from aitrail.compiler.emit import Content
from aitrail.compiler.lint import lint
from aitrail.compiler.load import PHASES, Rules, load
from aitrail.compiler.problems import ContentError, Problem
from aitrail.compiler.rule import Detection
from aitrail.contentdir import content_path
from aitrail.detection.rules import CompiledRule
from aitrail.store.boards import FILE as BOARDS


def artefacts(rules: Path, dashboards: Path | None = None) -> dict[str, bytes]:
    """Give the artefacts by path below ``content/compiled``.

    Args:
        rules: folder of rules.
        dashboards: folder of dashboards; None: those that come with aitrail.

    Raises:
        ContentError: a rule or a dashboard is wrong.
    """
    return compiled(content(rules, dashboards))


def content(rules: Path, dashboards: Path | None = None) -> Content:
    """Read, lint and give what artefacts and packs are made from; raises ``ContentError`` with all problems."""
    found, behaviors = read_all(rules)
    return Content(
        tuple(sorted(found.shipped(), key=lambda rule: rule.meta.name)),
        tuple(sorted(behaviors, key=lambda rule: rule.meta.name)),
        load_dashboards(dashboards or content_path("dashboards")),
    )


def compiled(of: Content) -> dict[str, bytes]:
    """The artefacts by path below ``content/compiled``."""
    rules = sorted((*of.detections, *of.behaviors), key=lambda rule: rule.meta.name)
    queries = {rule.meta.name: _queries(rule) for rule in rules}
    return {
        QUERIES: msgspec.json.format(msgspec.json.encode(queries, order="sorted"), indent=1) + b"\n",
        "duckdb.json": msgspec.json.format(msgspec.json.encode(list(map(compiled_rule, rules))), indent=1) + b"\n",
        BOARDS: boards.compiled(of.dashboards),
    }


def _queries(rule: Detection | Behavior) -> dict[str, dict[str, str]]:
    """What each platform is given, by language: to read, to compare and to paste."""
    runs = behavior_targets.running(rule) if isinstance(rule, Behavior) else targets.running(rule)
    return {one.target: {"method": one.method, "schedule": one.schedule, "query": one.query} for one in runs}


def write(out: Path, files: Mapping[str, bytes]) -> None:
    """Write all of ``files`` below ``out`` or none: each beside its place first, then all are renamed.

    Raises:
        OSError: they could not be written; what was there is there still.
    """
    out.mkdir(parents=True, exist_ok=True)
    beside = {name: (out / name).with_name(f".{Path(name).name}.new") for name in files}
    try:
        for name, data in files.items():
            beside[name].parent.mkdir(parents=True, exist_ok=True)
            beside[name].write_bytes(data)
        for name, path in beside.items():
            path.replace(out / name)
    finally:
        for path in beside.values():
            path.unlink(missing_ok=True)


def read_all(rules: Path) -> tuple[Rules, list[Behavior]]:
    """Read and lint the detections and behavior rules of ``rules``; raises ``ContentError`` with all problems.

    The behavior rules that come with aitrail lie in a folder of their own beside the detections.
    """
    problems: list[Problem] = []
    found, behaviors = Rules({}), list[Behavior]()
    try:
        found = load(rules)
        problems += lint(list(found.by_name.values()))
    except ContentError as error:
        problems += error.problems
    try:
        for folder in folders(rules):
            behaviors += load_behaviors(folder)
        problems += lint_behaviors(behaviors, [rule.meta for rule in found.by_name.values()])
    except ContentError as error:
        problems += error.problems
    if problems:
        raise ContentError(_once(problems))
    return found, behaviors


def folders(rules: Path) -> list[Path]:
    """Where the behavior rules that belong to ``rules`` are."""
    return [content_path("behaviors")] if rules == content_path("detections") else [rules]


def compiled_rule(rule: Detection | Behavior) -> CompiledRule:
    """One rule as the engine takes it."""
    meta = rule.meta
    query = compile_behavior(rule) if isinstance(rule, Behavior) else compile_rule(rule)
    own = tags.editioned(meta.tags)
    return CompiledRule(
        id=meta.id,
        name=meta.name,
        title=meta.title,
        description=meta.description,
        severity=meta.severity,
        kind=meta.kind,
        version=hashlib.blake2b((query.text + repr(meta.raw)).encode(), digest_size=6).hexdigest(),
        query=query.text,
        method=query.method,
        lookback=query.lookback,
        group_by=query.group_by,
        suppress=meta.suppress.seconds,
        entities=meta.entities,
        atlas=own["atlas"],
        owasp=own["owasp"],
        tags=tuple(tag for tag in meta.tags if tag.startswith("attack.")),
        needs=meta.needs.any_of,
        without=meta.needs.without,
        false_positives=meta.false_positives,
        response={phase: getattr(meta.response, phase) for phase in PHASES},
        behavior=rule.kind if isinstance(rule, Behavior) else "",
        table="health_records" if not isinstance(rule, Behavior) and rule.dataset == "health" else "events",
        requires=("places",) if isinstance(rule, Behavior) and rule.kind == "impossible_travel" else (),
    )


def _once(problems: list[Problem]) -> list[Problem]:
    """A file that holds both kinds is read twice."""
    return list({str(problem): problem for problem in problems}.values())
