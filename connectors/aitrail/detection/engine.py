"""Run compiled rules over a range of the store and fold what they raise into findings.

The windows of a rule are exact also across runs: a run reads ``lookback`` seconds more than its range and keeps only
what happened inside it. One group gives one finding in ``suppress`` seconds, counted from the finding's first event;
its identity follows from tenant, rule, group and that event, so the same range looked at twice gives the same findings.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct, field

from aitrail.detection.rules import RISK, CompiledRule
from aitrail.store.queries import Connection
from aitrail.store.reader import canonical_time
from aitrail.streams import Finding, finding_id

MOST_EVIDENCE = 100
_MOST_VALUES = 20
_CHUNK = 2_000
_LOOKED_UP = 500  # findings whose events are looked up together
_LONGEST_VALUE = 200

Group = tuple[str, ...]


class Range(Struct, frozen=True):
    """Event times, naive UTC: from ``since`` up to before ``until``."""

    since: datetime
    until: datetime


class Covered(Struct):
    """For which stretches of time a rule has given findings already, by (rule id, group)."""

    starts: dict[tuple[str, Group], list[datetime]] = field(default_factory=dict)

    def holds(self, rule: CompiledRule, group: Group, moment: datetime) -> bool:
        """Whether ``moment`` belongs to a finding that is there."""
        span = timedelta(seconds=rule.suppress)
        return any(abs(moment - start) < span for start in self.starts.get((rule.id, group), ()))

    def add(self, rule_id: str, group: Group, start: datetime) -> None:
        """Take note of a finding."""
        self.starts.setdefault((rule_id, group), []).append(start)


class _Open(Struct):
    """A finding that is being put together."""

    group: Group
    first_id: str
    start: datetime
    last: datetime
    evidence: dict[str, None]
    note: str
    count: int = 0


def detect(
    connection: Connection, rules: Iterable[CompiledRule], span: Range, covered: Covered, detected_at: str
) -> Iterator[tuple[Group, datetime, Finding]]:
    """Give group, start and finding of what ``rules`` raise in ``span``, rule by rule, oldest first.

    ``covered`` learns of each.

    Args:
        connection: sees the view ``events``.
        rules: what to run.
        span: the range.
        covered: findings of earlier runs.
        detected_at: canonical time of this run.
    """
    for rule in rules:
        found = list(_windows(connection, rule, span, covered))
        found.sort(key=lambda one: (one.start, one.first_id))
        for first in range(0, len(found), _LOOKED_UP):
            several = found[first : first + _LOOKED_UP]
            rows = _entity_rows(connection, rule, several)
            for one in several:
                covered.add(rule.id, one.group, one.start)
                yield one.group, one.start, _finding(rule, one, rows, detected_at)


def _windows(connection: Connection, rule: CompiledRule, span: Range, covered: Covered) -> Iterator[_Open]:
    """Fold the rows of a rule: per group, from its first row on for ``suppress`` seconds."""
    since = span.since - timedelta(seconds=rule.lookback)
    cursor = connection.execute(rule.query, {"since": since, "until": span.until})
    width = len(rule.group_by)
    reach = timedelta(seconds=rule.suppress)
    current: dict[Group, _Open] = {}
    while rows := cursor.fetchmany(_CHUNK):
        for row in rows:
            moment, group = row[1], tuple(str(value) for value in row[2 : 2 + width])
            if moment < span.since or covered.holds(rule, group, moment):
                continue
            one = current.get(group)
            if one is None or moment - one.start >= reach:
                if one is not None:
                    yield one
                one = current[group] = _Open(group, row[0], moment, moment, {}, _note(rule, row[3 + width :]))
            one.last = moment
            one.count += 1
            for event_id in row[2 + width]:
                if len(one.evidence) >= MOST_EVIDENCE:
                    break
                one.evidence[event_id] = None
    yield from current.values()


def _finding(rule: CompiledRule, one: _Open, rows: Mapping[str, Sequence[Any]], detected_at: str) -> Finding:
    names = dict(zip(rule.group_by, one.group, strict=True))
    tenant = names.get("tenant_id", "")
    values = _values(rule, [rows[event_id] for event_id in one.evidence if event_id in rows])
    entities = tuple(f"{kind}:{value}" for kind in rule.entities for value in values.get(kind, ()))
    users = values.get("user", ())
    count = max(one.count, len(one.evidence))
    return Finding(
        event_id=finding_id(tenant, rule.id, "\x00".join(one.group), one.first_id),
        timestamp=canonical_time(one.last),
        tenant_id=tenant,
        rule_id=rule.id,
        rule_name=rule.title,
        rule_version=rule.version,
        severity=rule.severity,
        first_seen=canonical_time(one.start),
        detected_at=detected_at,
        user_id=users[0] if len(users) == 1 else names.get("user_id", ""),
        entities=entities,
        evidence_ids=tuple(one.evidence),
        evidence_count=count,
        atlas=rule.atlas,
        owasp=rule.owasp,
        tags=(rule.name, *rule.tags),
        risk_score=RISK[rule.severity],
        summary=_summary(rule, entities, count) + one.note,
    )


def _summary(rule: CompiledRule, entities: Sequence[str], count: int) -> str:
    whom = ", ".join(entities[:3]) + (" and more" if len(entities) > 3 else "")
    return f"{rule.title}: {count} event{'s' if count != 1 else ''}" + (f" ({whom})" if whom else "")


def _note(rule: CompiledRule, measured: Sequence[Any]) -> str:
    """What a behavior rule measured at the first event: the value that is new, or the number and what is usual."""
    if rule.behavior in ("first_seen", "rare_in_peer"):
        return f", new: {_printable(str(measured[0]))}"
    if rule.behavior == "impossible_travel":
        return f", {float(measured[1]):,.0f} km at {float(measured[0]):,.0f} km/h"
    if rule.behavior:
        return f", {float(measured[0]):,.10g} where up to {float(measured[1]):,.10g} is usual"
    return ""


_ENTITY_SQL = "SELECT event_id{columns} FROM {table} WHERE event_id IN (SELECT unnest($ids))"


def _entity_rows(connection: Connection, rule: CompiledRule, found: Sequence[_Open]) -> Mapping[str, Sequence[Any]]:
    """The rule's entity fields of all evidence of several findings at once, by event id."""
    columns = "".join(f', "{field}"' for field in rule.entities.values())
    ids = list({event_id: None for one in found for event_id in one.evidence})
    rows = connection.execute(_ENTITY_SQL.format(columns=columns, table=rule.table), {"ids": ids}).fetchall()
    return {str(row[0]): row[1:] for row in rows}


def _values(rule: CompiledRule, rows: Sequence[Sequence[Any]]) -> Mapping[str, tuple[str, ...]]:
    """The distinct values of the rule's entities in its evidence, most frequent first."""
    found: dict[str, tuple[str, ...]] = {}
    for place, kind in enumerate(rule.entities):
        counts: dict[str, int] = {}
        for row in rows:
            value = _printable(str(row[place] or ""))
            if value:
                counts[value] = counts.get(value, 0) + 1
        ordered = sorted(counts, key=lambda value: (-counts[value], value))
        found[kind] = tuple(ordered[:_MOST_VALUES])
    return found


def _printable(text: str) -> str:
    """A value as it may stand in one line: no control characters, bounded."""
    return "".join(char for char in text[:_LONGEST_VALUE] if char.isprintable())
