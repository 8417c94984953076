"""Rules as Elastic Security detection rules, hunts as Discover sessions.

Facts (Kibana guide, "Create a detection rule"; detection-rules, rule fields): an import file has one rule a line; ES|QL
rules have no index, a rule over single events hands out ``_id`` so that its alerts carry the document, and may be
suppressed by columns of its result alone; severities begin at low; ``threat`` takes any framework, so ATLAS stands
beside ATT&CK. Elastic's own rules write ATLAS as a tag ``Mitre Atlas: T0051``. Rules are disabled until somebody
enables them.

A hunt in EQL cannot be a Discover session, which speaks ES|QL: it is a rule that runs once a day when it is enabled.
"""

import re
from functools import cache
from typing import Any

from aitrail.compiler import behavior_schedule, behavior_targets, schedule, tags, targets
from aitrail.compiler.behavior import Behavior
from aitrail.compiler.boards import label
from aitrail.compiler.dialects.behavior_esql import COUNTRY as ENRICHED
from aitrail.compiler.dialects.esql import column
from aitrail.compiler.emit.kibana_numbers import adhoc
from aitrail.compiler.emit.kibana_objects import TAG, Json, Saved, reference
from aitrail.compiler.load import PHASES
from aitrail.compiler.metric import DATASETS, Dataset, catalog
from aitrail.compiler.rule import Correlation, Detection, Severity
from aitrail.compiler.targets import Running
from aitrail.detection.rules import RISK
from aitrail.schema.catalog import Kind
from aitrail.schema.ecs import FOREIGN, OWN
from aitrail.schema.views.elastic import leaf_types

Any_ = Detection | Behavior
# Raise it with every change of what a rule says: Kibana keeps the newer one.
VERSION = 1
DOCS = "https://github.com/aitrail/aitrail/blob/main/docs/detections.md"
_SEVERITY: dict[Severity, str] = {"informational": "low"}
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_NAME = re.compile(r"@?[a-z_]+(?:\.[a-z_0-9]+)*")
_LANGUAGES = {"esql": "ES|QL", "eql": "EQL"}
_TYPES: dict[Kind, str] = {"time": "date", "text": "match_only_text", "integer": "long", "number": "double"}
_HUNTED = ("24h", "now-7d")


def running(rule: Any_) -> Running:
    """How Elastic runs ``rule``."""
    runs = behavior_targets.running(rule) if isinstance(rule, Behavior) else targets.running(rule)
    return next(one for one in runs if one.target in _LANGUAGES)


def plan(rule: Any_) -> schedule.Plan:
    """When it runs."""
    return behavior_schedule.plan(rule) if isinstance(rule, Behavior) else schedule.plan(rule)


def is_rule(rule: Any_) -> bool:
    """Whether it becomes a rule; else it is a Discover session."""
    return rule.meta.kind == "detection" or running(rule).target == "eql"


def detection(rule: Any_) -> Json:
    """The rule as the detection engine takes it."""
    meta, run = rule.meta, running(rule)
    hunt = meta.kind != "detection"
    of = schedule.elastic(plan(rule))
    language = run.target
    made: Json = {
        "actions": [],
        "alert_suppression": {
            "duration": {"unit": of.suppress_unit, "value": of.suppress_value},
            "group_by": list(of.suppress_fields),
            "missing_fields_strategy": "suppress",
        },
        "author": ["The aitrail authors"],
        "description": _one_line(meta.description),
        "enabled": False,
        "exceptions_list": [],
        "false_positives": [_one_line(one) for one in meta.false_positives],
        "from": _HUNTED[1] if hunt else of.since,
        "immutable": False,
        "interval": _HUNTED[0] if hunt else of.interval,
        "investigation_fields": {"field_names": _investigated(rule)},
        "language": language,
        "license": "Apache-2.0",
        "max_signals": 100,
        "name": meta.title,
        "note": guide(rule),
        "query": run.query,
        "references": list(dict.fromkeys([*meta.references, DOCS])),
        "related_integrations": [],
        "required_fields": required(run.query),
        "risk_score": RISK[meta.severity],
        "risk_score_mapping": [],
        "rule_id": meta.id,
        "setup": _setup(rule),
        "severity": _SEVERITY.get(meta.severity, meta.severity),
        "severity_mapping": [],
        "tags": labels(rule),
        "threat": threat(rule),
        "to": "now",
        "type": language,
        "version": VERSION,
    }
    if language == "eql":
        made["index"] = ["logs-ai_audit.access-*"]
    return made


def hunt(rule: Any_) -> Saved:
    """A hunt as a Discover session that people open and change."""
    meta, run = rule.meta, running(rule)
    dataset: Dataset = rule.dataset if not isinstance(rule, Behavior) else "access"
    attributes: Json = {
        "columns": [],
        "description": f"{_one_line(meta.description)} {_without(rule)}",
        "grid": {},
        "hideChart": True,
        "isTextBasedQuery": True,
        "kibanaSavedObjectMeta": {
            "searchSourceJSON": {"filter": [], "index": adhoc(dataset, "esql"), "query": {"esql": run.query}}
        },
        "sort": [],
        "timeRestore": False,
        "title": f"[aitrail] Hunt: {meta.title}",
    }
    name = f"aitrail-hunt-{meta.name.replace('_', '-')}"
    return Saved("search", name, attributes, (reference("tag", f"tag-ref-{TAG}", TAG),))


def packaged(rule: Any_) -> Json:
    """The rule as a package holds it: its id says the version, and what belongs to an installation is left out."""
    own = {key: value for key, value in detection(rule).items() if key not in _INSTALLED}
    return {"attributes": own, "id": f"{rule.meta.id}_{VERSION}", "type": "security-rule"}


_INSTALLED = frozenset({"actions", "enabled", "exceptions_list", "immutable", "risk_score_mapping", "severity_mapping"})


# --- what people read


def guide(rule: Any_) -> str:
    """The investigation guide: what it means, and the four phases."""
    meta = rule.meta
    parts = [f"## {meta.title}", meta.description.strip()]
    for phase in PHASES:
        steps = "\n".join(f"- {_one_line(step)}" for step in getattr(meta.response, phase))
        parts.append(f"### {phase.capitalize()}\n\n{steps}")
    if meta.false_positives:
        parts.append("### False positives\n\n" + "\n".join(f"- {_one_line(one)}" for one in meta.false_positives))
    return "\n\n".join(parts)


def _setup(rule: Any_) -> str:
    run = running(rule)
    needs = ", ".join(rule.meta.needs.any_of)
    return (
        f"## Setup\n\nNeeds records of one of: {needs}. {_without(rule)}\n\n"
        f"Time windows: {run.method}. Schedule: {run.schedule}."
    )


def _without(rule: Any_) -> str:
    return _one_line(rule.meta.needs.without)


def _one_line(text: str) -> str:
    return " ".join(text.split())


# --- taxonomies


def labels(rule: Any_) -> list[str]:
    """Tags as Elastic's rules write them."""
    own = tags.editioned(rule.meta.tags)
    kind = "Threat Detection" if rule.meta.kind == "detection" else "Threat Hunting"
    made = ["Domain: LLM", "Data Source: aitrail", f"Use Case: {kind}", "Resources: Investigation Guide"]
    if isinstance(rule, Behavior):
        made.append("Rule Type: Behavior")
    elif isinstance(rule, Correlation):
        made.append("Rule Type: Correlation")
    made += [f"Mitre Atlas: {one.partition('@')[0].upper().removeprefix('AML.')}" for one in own["atlas"]]
    made += [f"OWASP: {one.upper()}" for one in own["owasp"]]
    made += [f"Tactic: {one['tactic']['name']}" for one in threat(rule) if one["framework"] == "MITRE ATT&CK"]
    return list(dict.fromkeys(made))


def threat(rule: Any_) -> list[Json]:
    """ATT&CK and ATLAS: an entry per tactic, with the techniques that belong to it."""
    own = rule.meta.tags
    attack, atlas = tags.taxonomy("attack.toml"), tags.taxonomy("atlas.toml")
    wanted = [tag.partition(".")[2] for tag in own if tag.startswith("attack.")]
    techniques = [one.upper() for one in wanted if one.startswith("t")]
    named = {name.lower().replace(" ", "-"): name for name in attack["tactics"]}
    tactics = [named[one] for one in wanted if one in named]
    for one in techniques:
        if not set(attack["techniques"][one]["tactics"]) & set(tactics):
            tactics.append(attack["techniques"][one]["tactics"][0])
    found = [
        _attack(name, [one for one in techniques if name in attack["techniques"][one]["tactics"]]) for name in tactics
    ]
    ids = [tag.partition(".")[2].upper() for tag in own if tag.startswith("atlas.")]
    first = {one: atlas["techniques"][one]["tactics"][0] for one in ids}
    return found + [_atlas(name, [one for one in ids if first[one] == name]) for name in dict.fromkeys(first.values())]


def _attack(tactic: str, ids: list[str]) -> Json:
    table = tags.taxonomy("attack.toml")
    site = "https://attack.mitre.org"
    own = table["tactics"][tactic]
    techniques: dict[str, Json] = {}
    for one in ids:
        parent, _, sub = one.partition(".")
        name = table["techniques"][one]["name"]
        entry = techniques.setdefault(
            parent,
            {
                "id": parent,
                "name": name.partition(": ")[0],
                "reference": f"{site}/techniques/{parent}/",
                "subtechnique": [],
            },
        )
        if sub:
            entry["subtechnique"].append(
                {
                    "id": one,
                    "name": name.partition(": ")[2],
                    "reference": f"{site}/techniques/{parent}/{sub}/",
                }
            )
    return {
        "framework": "MITRE ATT&CK",
        "tactic": {"id": own, "name": tactic, "reference": f"{site}/tactics/{own}/"},
        "technique": list(techniques.values()),
    }


def _atlas(tactic: str, ids: list[str]) -> Json:
    table = tags.taxonomy("atlas.toml")
    site = "https://atlas.mitre.org"
    techniques: dict[str, Json] = {}
    for one in ids:
        parent = table["techniques"][one].get("parent", one)
        entry = techniques.setdefault(
            parent,
            {
                "id": parent,
                "name": table["techniques"][parent]["name"],
                "reference": f"{site}/techniques/{parent}",
                "subtechnique": [],
            },
        )
        if parent != one:
            entry["subtechnique"].append(
                {"id": one, "name": table["techniques"][one]["name"], "reference": f"{site}/techniques/{one}"}
            )
    return {
        "framework": "MITRE ATLAS",
        "tactic": {"id": tactic, "name": table["tactics"][tactic], "reference": f"{site}/tactics/{tactic}"},
        "technique": list(techniques.values()),
    }


# --- fields


@cache
def types() -> dict[str, str]:
    """Every field of the data streams that queries read, with its type."""
    found = {name: str(kind["type"]) for name, kind in leaf_types().items()}
    for dataset in DATASETS:
        for field in catalog(dataset).values():
            found.setdefault(column(field), _TYPES.get(field.kind, "keyword"))
    return found | {ENRICHED: "keyword"}


def required(query: str) -> list[Json]:
    """The fields that a query reads, with their types: everything in it, outside of texts, that is a field."""
    names = sorted(set(_NAME.findall(_QUOTED.sub('""', query))) & set(types()))
    return [{"ecs": _is_ecs(name), "name": name, "type": types()[name]} for name in names]


def _is_ecs(name: str) -> bool:
    return not name.startswith(OWN) and name not in FOREIGN


def _investigated(rule: Any_) -> list[str]:
    dataset: Dataset = "access" if isinstance(rule, Behavior) else rule.dataset
    known: dict[str, Any] = catalog(dataset)
    names = [*plan(rule).fields, *rule.meta.entities.values()]
    return list(dict.fromkeys(column(known[name]) for name in names if name in known and name != "event_id"))


def summary(rules: list[Any_]) -> str:
    """A table of the rules, for the pack's documentation."""
    lines = ["| rule | severity | language | interval | from |", "|---|---|---|---|---|"]
    for rule in rules:
        made = detection(rule)
        language = _LANGUAGES[made["language"]]
        lines.append(
            f"| {made['name']} | {label(made['severity'])} | {language} | {made['interval']} | {made['from']} |"
        )
    return "\n".join(lines) + "\n"
