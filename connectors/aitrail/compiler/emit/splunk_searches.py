"""Rules as saved searches: alerts by themselves, findings and risk where Enterprise Security is.

Facts (Splunk, ``savedsearches.conf.spec`` and the conventions of Enterprise Security content): a name that ends in
"- Rule" is a correlation search there; ``action.notable`` (version 8: finding) and ``action.risk`` (intermediate
finding) are passed over where they do not exist. Version 8 reads ``_entities`` and a ``risk_message`` per entity,
version 7 the keys beside the lists: both are given. Annotations are lists, also of one. A field that a risk entry names
must be in the result, so a search over single events hands out its entities' fields, too. What is found is kept as an
event of ``ai:access:alert`` by an alert action of the app, because neither action above is there without it.
"""

from aitrail.compiler import behavior_schedule, behavior_targets, schedule, tags, targets
from aitrail.compiler.behavior import Behavior
from aitrail.compiler.dialects.spl import SCOPES
from aitrail.compiler.dialects.spl_conditions import name
from aitrail.compiler.emit.splunk_conf import Stanza, compact
from aitrail.compiler.rule import OWNERS, Correlation, Detection, Rule, Severity
from aitrail.detection.rules import RISK

Any = Detection | Behavior

# savedsearches.conf: alert.severity 1 debug ... 6 fatal.
_SEVERITY: dict[Severity, int] = {"informational": 2, "low": 2, "medium": 3, "high": 4, "critical": 5}
_OBJECTS = {"user": "user", "host": "system"}
_HUNTED = "-7d@d"


def stanza_name(rule: Any) -> str:
    """The saved search's name."""
    return f"aitrail - {rule.meta.title} - {'Rule' if rule.meta.kind == 'detection' else 'Hunt'}"


def stanza(rule: Any) -> Stanza:
    """The saved search."""
    head: dict[str, str | int] = {
        "description": " ".join(rule.meta.description.split()),
        "search": search(rule),
        "dispatch.latest_time": "now",
    }
    if rule.meta.kind != "detection":
        # A hunt is run by a person: it is not scheduled, and so not disabled.
        return {**head, "dispatch.earliest_time": _HUNTED, "is_scheduled": 0, "enableSched": 0}
    of = schedule.splunk(_plan(rule))
    return {
        **head,
        "disabled": 1,
        "is_visible": "false",
        "enableSched": 1,
        "cron_schedule": of.cron,
        "dispatch.earliest_time": of.earliest,
        "schedule_window": "auto",
        "allow_skew": "20%",
        "realtime_schedule": 0,
        "counttype": "number of events",
        "relation": "greater than",
        "quantity": 0,
        "alert.track": 1,
        "alert.severity": _SEVERITY[rule.meta.severity],
        "alert.digest_mode": 1,
        "alert.suppress": 1,
        "alert.suppress.fields": ",".join(field for field in of.suppress_fields if field in columns(rule)),
        "alert.suppress.period": of.suppress_period,
        # Kept as an event, also where there is no Enterprise Security.
        "action.aitrail_finding": 1,
        "action.aitrail_finding.param.rule_id": rule.meta.id,
        **_correlation(rule),
        **(_finding(rule) if rule.meta.severity in ("medium", "high", "critical") else {}),
        **_risk(rule),
    }


def _plan(rule: Any) -> schedule.Plan:
    return behavior_schedule.plan(rule) if isinstance(rule, Behavior) else schedule.plan(rule)


def search(rule: Any) -> str:
    """Its SPL; of single events with the fields of its entities."""
    if isinstance(rule, Behavior):
        return behavior_targets.TARGETS["spl"](rule).text
    text = targets.TARGETS["spl"](rule).text
    if isinstance(rule, Correlation):
        return text
    body, stage, names = text.rpartition("\n| table ")
    wanted = dict.fromkeys([*names.split(", "), *(name(field) for field in rule.meta.entities.values())])
    return f"{body}{stage}{', '.join(wanted)}"


def columns(rule: Any) -> list[str]:
    """The fields of its result."""
    return search(rule).rpartition("\n| table ")[2].split(", ")


def entities(rule: Any) -> dict[str, str]:
    """Kind and field of what a result names; the owner's where it names nothing else."""
    there = columns(rule)
    found = {kind: name(field) for kind, field in rule.meta.entities.items() if name(field) in there}
    own = OWNERS["access" if isinstance(rule, Behavior) else rule.dataset]
    return found if set(found) - {"ip"} else {**found, "tenant" if own == "tenant_id" else "host": own}


def annotations(rule: Any) -> dict[str, list[str]]:
    """Techniques and classes, as lists."""
    own = rule.meta.tags
    attack = [tag.partition(".")[2].upper() for tag in own if tag.startswith("attack.t1")]
    edition = tags.editioned(own)
    found = {
        "mitre_attack": attack,
        "mitre_atlas": [one.partition("@")[0].upper() for one in edition["atlas"]],
        "owasp_llm": [one.upper() for one in edition["owasp"]],
    }
    return {key: values for key, values in found.items() if values}


def as_finding(rule: Any) -> list[str]:
    """ATLAS and OWASP as findings carry them, the group's fields, kind=field of its entities, silence, risk."""
    edition = tags.editioned(rule.meta.tags)
    there = columns(rule)
    group = [field for field in map(name, _grouped(rule)) if field in there]
    pairs = [f"{kind}={name(field)}" for kind, field in rule.meta.entities.items() if name(field) in there]
    lists = [" ".join(edition["atlas"]), " ".join(edition["owasp"]), " ".join(group), " ".join(pairs)]
    return [*lists, str(_plan(rule).hold), str(RISK[rule.meta.severity])]


def _correlation(rule: Any) -> dict[str, str | int]:
    meta = rule.meta
    return {
        "action.correlationsearch.enabled": 1,
        "action.correlationsearch.detection_type": "ebd",
        "action.correlationsearch.label": stanza_name(rule),
        "action.correlationsearch.annotations": compact(annotations(rule)),
        "action.correlationsearch.metadata": compact({"detection_id": meta.id, "deprecated": 0}),
    }


def _finding(rule: Any) -> dict[str, str | int]:
    meta = rule.meta
    named = entities(rule)
    who = next((field for kind, field in named.items() if kind != "ip"), "tenant_id")
    severity = meta.severity
    return {
        "action.notable": 1,
        "action.notable.param.rule_title": f"{meta.title}: ${who}$",
        "action.notable.param.rule_description": " ".join(meta.description.split()),
        "action.notable.param.security_domain": domain(rule),
        "action.notable.param.severity": severity,
        "action.notable.param.nes_fields": ",".join(named.values()),
        "action.notable.param.next_steps": compact({"version": 1, "data": _steps(rule)}),
        "action.notable.param.drilldown_searches": compact(drilldowns(rule)),
        "action.notable.param._entities": compact(
            [
                {
                    "risk_object_field": field,
                    "risk_object_type": _OBJECTS.get(kind, "other"),
                    "risk_score": RISK[severity],
                }
                for kind, field in named.items()
                if kind != "ip"
            ]
        ),
    }


def domain(rule: Any) -> str:
    """The security domain: what the collector says of itself is audit, what is done to access is access."""
    if not isinstance(rule, Behavior) and rule.dataset == "health":
        return "audit"
    kinds = {tag.partition(".")[2] for tag in rule.meta.tags}
    return "access" if kinds & {"credential-access", "privilege-escalation", "persistence"} else "threat"


def _steps(rule: Any) -> str:
    response = rule.meta.response
    phases = {phase: getattr(response, phase) for phase in ("validate", "contain", "investigate", "remediate")}
    return " ".join(f"{phase.capitalize()}: {' '.join(steps)}" for phase, steps in phases.items())


def _risk(rule: Any) -> dict[str, str | int]:
    meta, named = rule.meta, entities(rule)
    objects: list[dict[str, str | int]] = [
        {
            "risk_object_field": field,
            "risk_object_type": _OBJECTS.get(kind, "other"),
            "risk_score": RISK[meta.severity],
            "risk_message": f"{meta.title}: ${field}$",
        }
        for kind, field in named.items()
        if kind != "ip"
    ]
    objects += [
        {"threat_object_field": field, "threat_object_type": "ip_address"}
        for kind, field in named.items()
        if kind == "ip"
    ]
    return {
        "action.risk": 1,
        "action.risk.param._risk": compact(objects),
        "action.risk.param._risk_message": meta.title,
        "action.risk.param._risk_score": 0,
        "action.risk.param.verbose": 0,
    }


def drilldowns(rule: Any) -> list[dict[str, str | int]]:
    """The searches behind a finding: its events, the entity's risk, and the ledger's checkpoints of the time."""
    health = not isinstance(rule, Behavior) and rule.dataset == "health"
    base = SCOPES["health" if health else "access"]
    keys = [field for field in columns(rule) if field in set(map(name, _grouped(rule)))]
    terms = " ".join(f"{field}=${field}|s$" for field in keys)
    found: list[dict[str, str | int]] = [
        {
            "name": "The events",
            "search": f"{base} {terms}\n| dedup event_id\n| sort 0 -_time".replace("\n", " "),
            "earliest_offset": "$info_min_time$",
            "latest_offset": "$info_max_time$",
        }
    ]
    who = next((field for kind, field in entities(rule).items() if kind != "ip"), "tenant_id")
    found.append(
        {
            "name": f"Risk of ${who}$ in 7 days",
            "search": f"| `aitrail_entity_risk(${who}|s$)`",
            "earliest_offset": "604800",
            "latest_offset": "0",
        }
    )
    if not health:
        found.append(
            {
                "name": "Checkpoints of the ledger",
                "search": "`aitrail_checkpoints($tenant_id|s$)`",
                "earliest_offset": "86400",
                "latest_offset": "86400",
            }
        )
    return found


def _grouped(rule: Any) -> tuple[str, ...]:
    return rule.grouped if isinstance(rule, Rule | Behavior) else tuple(dict.fromkeys(("tenant_id", *rule.group_by)))
