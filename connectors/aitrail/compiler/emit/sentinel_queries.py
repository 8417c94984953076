"""The queries of rules as Sentinel runs them: told once, one row per alert, with the columns of entities and details.

Facts (Microsoft Learn, "Handle ingestion delay in scheduled analytics rules"): a record is new to a run when its
``ingestion_time()`` is within the rule's interval, so a rule over single events tells each record once, however late it
comes. A window can be completed by an earlier record that comes late, so rules over windows tell what happened since
the last run and its slack, which may repeat an alert; incidents group those. Near-real-time rules see what was taken in
since their last run by themselves.

Records may come twice: rows are counted by ``EventUid``. Of a group the latest row stands for all; what its query does
not carry (the address, the application) is looked up by ``EventUid``.
"""

from functools import lru_cache

import msgspec
from msgspec import Struct

from aitrail.compiler import behavior_schedule, schedule
from aitrail.compiler.behavior import Behavior
from aitrail.compiler.behavior_targets import TARGETS as BEHAVIOR_TARGETS
from aitrail.compiler.dialects.kql import TABLES, column, literal
from aitrail.compiler.emit.sentinel_attack import frameworks
from aitrail.compiler.metric import catalog
from aitrail.compiler.rule import Correlation, Detection, Rule
from aitrail.compiler.schedule import DAY, HOUR, MINUTE, Plan
from aitrail.compiler.targets import TARGETS

Any = Detection | Behavior
# Near real time: at most 50 such rules in a customer's tenant, so only what must not wait five minutes.
NRT = ("canary_seen", "jailbreak_succeeded")
# The validator of the public repository: a rule that looks back this long runs once an hour at most.
LONG = 2 * DAY
LISTED = 100
SHOWN = 10


class Told(Struct, frozen=True):
    """A query, and the columns of its result in order."""

    text: str
    columns: tuple[str, ...]


def plan(rule: Any) -> Plan:
    """Its schedule: hourly at most for what looks back two days or more."""
    of = _usual_plan(rule)
    if of.period < LONG or of.every >= HOUR:
        return of
    return msgspec.structs.replace(of, every=HOUR, hold=of.hold + HOUR - of.every)


def _usual_plan(rule: Any) -> Plan:
    return behavior_schedule.plan(rule) if isinstance(rule, Behavior) else schedule.plan(rule)


def dataset(rule: Any) -> str:
    """Whose fields it has."""
    return "access" if isinstance(rule, Behavior) else rule.dataset


def near_real_time(rule: Any) -> bool:
    """Whether it runs every minute, on what was taken in since."""
    return isinstance(rule, Rule) and rule.meta.name in NRT


def named(rule: Any, field: str) -> str:
    """The column of a field of the rule's data set."""
    return column(catalog(plan(rule).dataset)[field])


class _Same:
    """A rule by its identity: rules hold lists and so have no hash."""

    __slots__ = ("rule",)

    def __init__(self, rule: Any) -> None:
        self.rule = rule

    def __hash__(self) -> int:
        return id(self.rule)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.rule is self.rule


def told(rule: Any) -> Told:
    """The query of a scheduled rule, or of a hunt without the limit to what is new."""
    return _told(_Same(rule))


@lru_cache(maxsize=512)
def _told(same: _Same) -> Told:
    rule = same.rule
    body, have = _single(rule) if isinstance(rule, Rule) else _windowed(rule)
    wanted = dict.fromkeys(named(rule, field) for field in rule.meta.entities.values())
    missing = [one for one in wanted if one not in have]
    if missing:
        body, have = _looked_up(body, missing), [*have, *missing]
    extra = {"TimeGenerated": "EventTime", "EvidenceIds": f"array_slice(Evidence, 0, {SHOWN - 1})"}
    if "ResourceId" in have:
        extra["AzureResourceId"] = 'iff(ResourceId startswith "/subscriptions/", ResourceId, "")'
    extra |= {name: literal(text) for name, text in frameworks(rule.meta).items() if text}
    listed = ", ".join(f"{name} = {value}" for name, value in extra.items())
    return Told(f"{body}\n| extend {listed}", (*have, *extra))


def _single(rule: Rule) -> tuple[str, list[str]]:
    text = TARGETS["kql"](rule).text
    head, stage, names = text.rpartition("\n| project ")
    own = names.removesuffix(", Evidence = pack_array(EventUid)").split(", ")
    own = list(dict.fromkeys([*own, *(named(rule, field) for field in rule.meta.entities.values())]))
    if plan(rule).scheduled and not near_real_time(rule):
        table = TABLES[rule.dataset]
        head = head.replace(
            f"{table}\n", f"{table}\n| where ingestion_time() > ago({plan(rule).every // MINUTE}m)\n", 1
        )
    return _one_row(rule, f"{head}{stage}{', '.join(own)}", own, f"make_set(EventUid, {LISTED})")


def _windowed(rule: Correlation | Behavior) -> tuple[str, list[str]]:
    compiled = BEHAVIOR_TARGETS["kql"](rule) if isinstance(rule, Behavior) else TARGETS["kql"](rule)
    usual, of, text = _usual_plan(rule), plan(rule), compiled.text
    if usual.every != of.every:
        # What is news to a run grows with the time between two.
        recent = f"let Recent = Now - {(usual.every + usual.slack) // MINUTE}m;"
        if recent not in text:
            raise ValueError(f"{rule.meta.name}: its query does not say what is news in a form that can be changed")
        text = text.replace(recent, f"let Recent = Now - {(of.every + of.slack) // MINUTE}m;")
    fresh = f"\n{schedule.sentinel(of).fresh}" if of.scheduled else ""
    return _one_row(rule, f"{text}{fresh}", columns(rule), "")


def columns(rule: Correlation | Behavior) -> list[str]:
    """The columns of the dialect's query: what names and measures; the test binds the query and compares."""
    names = [named(rule, field) for field in (rule.grouped if isinstance(rule, Correlation) else rule.carried)]
    if isinstance(rule, Correlation):
        return ["EventUid", "EventTime", *names, *([] if rule.type == "temporal_ordered" else ["Measured"]), "Evidence"]
    keys = [named(rule, field) for field in rule.keys]
    rows = {
        "first_seen": ["EventUid", "EventTime", *names, "Value", "Buckets"],
        "rare_in_peer": ["EventUid", "EventTime", *names, "Value", "Members", "Users"],
        "impossible_travel": ["EventUid", "EventTime", *names, "FromIp", "SrcIp", "Km", "Speed"],
    }
    own = rows.get(rule.kind, ["EventUid", "EventTime", *keys, "Measured", "Usual", "Buckets"])
    return list(dict.fromkeys([*own, "Evidence"]))


def _one_row(rule: Any, body: str, have: list[str], evidence: str) -> tuple[str, list[str]]:
    """One row per combination of what names an alert."""
    fields = [field for field in (*plan(rule).fields, *rule.grouped) if field in catalog(plan(rule).dataset)]
    by = [one for one in dict.fromkeys(named(rule, field) for field in fields) if one in have]
    others = [one for one in have if one not in by and one != "EventTime"]
    latest = f"arg_max(EventTime, {', '.join(others)})" if others else "EventTime = max(EventTime)"
    parts = [latest, "Events = dcount(EventUid)" if "EventUid" not in by else "Events = count()"]
    parts.append("FirstTime = min(EventTime)")
    if evidence:
        parts.append(f"Evidence = {evidence}")
    text = f"{body}\n| summarize {', '.join(parts)} by {', '.join(by)}"
    made = [*by, "EventTime", *others, "Events", "FirstTime", *(["Evidence"] if evidence else [])]
    return text, made


def _looked_up(body: str, missing: list[str]) -> str:
    """Take columns of the row that stands for a group from the table."""
    lets, end, tail = body.rpartition(";\n")
    names = ", ".join(f"{one} = take_any({one})" for one in missing)
    table = TABLES["access"]
    return (
        f"{lets}{end}let Alerts = materialize({tail});\nAlerts\n| join kind=leftouter ({table}"
        f" | where EventUid in ((Alerts | project EventUid))"
        f" | summarize {names} by EventUid) on EventUid\n"
        "| project-away EventUid1"
    )
