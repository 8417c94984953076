"""Write the artefacts of the rules: for now the queries that ``aitrail detect`` runs. All or nothing."""

import hashlib
from pathlib import Path

import msgspec

from aitrail.compiler import tags
from aitrail.compiler.dialects.duckdb import compile_rule
from aitrail.compiler.lint import lint
from aitrail.compiler.load import PHASES, load
from aitrail.compiler.problems import ContentError
from aitrail.compiler.rule import Detection
from aitrail.detection.rules import CompiledRule


def artefacts(rules: Path) -> dict[str, bytes]:
    """Give the artefacts by path below ``content/compiled``; raises ``ContentError`` when any rule is wrong."""
    found = load(rules)
    problems = lint(list(found.by_name.values()))
    if problems:
        raise ContentError(problems)
    compiled = [compiled_rule(rule) for rule in found.shipped()]
    return {"duckdb.json": msgspec.json.format(msgspec.json.encode(compiled), indent=1) + b"\n"}


def compiled_rule(rule: Detection) -> CompiledRule:
    """One rule as the engine takes it."""
    meta, query = rule.meta, compile_rule(rule)
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
    )
