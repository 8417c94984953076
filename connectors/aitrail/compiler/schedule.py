"""How often a rule runs on each platform, how far it looks back, and what keeps it from saying the same thing twice.

The one place of these facts: dialects, linter, ``aitrail content explain`` and the packs take them from here.

- A run sees ``window + every + slack`` seconds: the rule's window, the time since the last run, and the time that a
  record may take from its source to the platform. So nothing is missed between two runs, whatever the method.
- What two overlapping runs both see is told once: ``hold`` is never shorter than what they share.
- Splunk: cron minutes are spread by the rule's name, so that not all searches start together; never more often than
  every five minutes (AppInspect, "check_for_gratuitous_cron_scheduling").
- Microsoft Sentinel ("Scheduled analytics rules in Microsoft Sentinel"): frequency and period from 5 minutes to 14
  days, period not shorter than the frequency. Its suppression pauses the whole rule, also for other users: it stays
  off, and alerts are grouped into incidents by entity instead.
- Elastic ("Alert suppression"): 1 to 3 fields; ``from`` = interval + window + slack.
"""

import hashlib
from collections.abc import Iterator

from msgspec import Struct

from aitrail.compiler.dialects.spl_conditions import HIDDEN
from aitrail.compiler.metric import Dataset, catalog
from aitrail.compiler.rule import OWNERS, Correlation, Detection, Severity

MINUTE, HOUR, DAY = 60, 3_600, 86_400
SENTINEL_LONGEST = 14 * DAY
SENTINEL_GROUPING_LONGEST = 7 * DAY
ELASTIC_MOST_FIELDS = 3

# A rule over single events waits longer the less it matters; one over windows must not dilute short windows.
_BY_SEVERITY: dict[Severity, int] = {
    "critical": 5 * MINUTE,
    "high": 5 * MINUTE,
    "medium": 15 * MINUTE,
    "low": HOUR,
    "informational": HOUR,
}
_BY_WINDOW = ((HOUR, 5 * MINUTE), (6 * HOUR, 15 * MINUTE), (SENTINEL_LONGEST, HOUR))
# From the access to the searchable record: CloudTrail "within an average of about 5 minutes", not guaranteed
# (CloudTrail user guide); Azure resource logs 3 to 10 minutes, then ingestion (Azure Monitor, "Log data ingestion
# time"); gateways write at once. Twice the usual delay; what comes later `aitrail detect` still finds.
_SLACK = {
    "cloudtrail": 20 * MINUTE,
    "bedrock_invocation": 15 * MINUTE,
    "sagemaker_capture": 15 * MINUTE,
    "azure_openai": 20 * MINUTE,
    "apim": 20 * MINUTE,
}
_LEAST_SLACK = 5 * MINUTE


class Plan(Struct, frozen=True):
    """When a rule runs, for any platform; seconds.

    Attributes:
        name: the rule's.
        window: of events that decide together; 0 for single events.
        every: between two runs.
        slack: that records may be late.
        fields: what names an alert, as event fields.
        hold: how long one alert stands for the same ``fields``.
        scheduled: False for hunting queries, which people run.
        dataset: whose fields these are.
    """

    name: str
    window: int
    every: int
    slack: int
    fields: tuple[str, ...]
    hold: int
    scheduled: bool = True
    dataset: Dataset = "access"

    @property
    def period(self) -> int:
        """What one run must see."""
        return self.window + self.every + self.slack


class Splunk(Struct, frozen=True):
    """Keys of ``savedsearches.conf``: cron_schedule, dispatch.earliest_time and .latest_time, alert.suppress.*."""

    cron: str
    earliest: str
    latest: str
    suppress_fields: tuple[str, ...]
    suppress_period: str


class Sentinel(Struct, frozen=True):
    """Keys of a scheduled rule; ``group_lookback`` is that of incidents; ISO 8601 durations.

    ``fresh`` is the last filter of the query: only what happened since the last run and its slack is told again.
    """

    frequency: str
    period: str
    operator: str
    threshold: int
    suppression: bool
    group_lookback: str
    fresh: str


class Elastic(Struct, frozen=True):
    """Keys of a detection rule: interval, from, alert_suppression."""

    interval: str
    since: str
    suppress_fields: tuple[str, ...]
    suppress_value: int
    suppress_unit: str


def interval(window: int) -> int:
    """How often a rule over a window of ``window`` seconds runs, in seconds."""
    return next((every for limit, every in _BY_WINDOW if window <= limit), HOUR)


def plan(rule: Detection) -> Plan:
    """The schedule of ``rule``, from its severity, window, sources and suppression."""
    meta = rule.meta
    windowed = isinstance(rule, Correlation)
    window = rule.seconds if isinstance(rule, Correlation) else 0
    every = interval(window) if windowed else _BY_SEVERITY[meta.severity]
    group = rule.group_by if isinstance(rule, Correlation) else meta.suppress.by
    return planned(
        meta.name,
        window=window,
        every=every,
        sources=meta.needs.any_of,
        group=group,
        suppress=meta.suppress.seconds,
        scheduled=meta.kind == "detection",
        dataset=rule.dataset,
    )


def planned(
    name: str,
    *,
    window: int,
    every: int,
    sources: tuple[str, ...],
    group: tuple[str, ...],
    suppress: int,
    scheduled: bool = True,
    dataset: Dataset = "access",
) -> Plan:
    """A schedule from its parts, for rules of any kind; without suppression an alert is named by its event."""
    slack = max((_SLACK.get(source, _LEAST_SLACK) for source in sources), default=_LEAST_SLACK)
    fields = tuple(dict.fromkeys((OWNERS[dataset], *group, *(() if suppress else ("event_id",)))))
    hold = max(suppress, window + every + slack)
    return Plan(name, window, every, slack, fields, hold, scheduled, dataset)


def for_splunk(rule: Detection) -> Splunk:
    """The saved search's schedule."""
    return splunk(plan(rule))


def for_sentinel(rule: Detection) -> Sentinel:
    """The scheduled rule's."""
    return sentinel(plan(rule))


def for_elastic(rule: Detection) -> Elastic:
    """The detection rule's."""
    return elastic(plan(rule))


def splunk(of: Plan) -> Splunk:
    """Splunk's form; the event's own ``source`` and ``action`` have other names there."""
    fields = tuple(HIDDEN.get(field, field) for field in of.fields)
    return Splunk(cron(of.name, of.every), f"-{_minutes(of.period)}m@m", "now", fields, f"{_minutes(of.hold)}m")


def cron(name: str, every: int) -> str:
    """Every ``every`` seconds (whole minutes, at most an hour), at minutes that follow from ``name``."""
    step = every // MINUTE
    offset = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big") % step
    return f"{offset} * * * *" if step == 60 else f"{offset}-59/{step} * * * *"


def sentinel(of: Plan) -> Sentinel:
    """Microsoft Sentinel's form."""
    return Sentinel(
        frequency=iso(of.every),
        period=iso(of.period),
        operator="gt",
        threshold=0,
        suppression=False,
        group_lookback=iso(min(of.hold, SENTINEL_GROUPING_LONGEST)),
        fresh=f"| where EventTime > ago({_minutes(of.every + of.slack)}m)",
    )


def elastic(of: Plan) -> Elastic:
    """Elastic's form, fields by their names in ECS."""
    fields = tuple(catalog(of.dataset)[field].exact_in("ecs") for field in of.fields)
    return Elastic(f"{_minutes(of.every)}m", f"now-{_minutes(of.period)}m", fields, _minutes(of.hold), "m")


def iso(seconds: int) -> str:
    """An ISO 8601 duration of whole minutes: PT5M, PT1H30M, P1D, P1DT2H."""
    minutes = _minutes(seconds)
    days, rest = divmod(minutes, 1440)
    hours, left = divmod(rest, 60)
    time = (f"{hours}H" if hours else "") + (f"{left}M" if left else "")
    return "P" + (f"{days}D" if days else "") + (f"T{time}" if time else "")


def _minutes(seconds: int) -> int:
    return -(-seconds // MINUTE)


def misfits(of: Plan) -> Iterator[tuple[str, str]]:
    """What a platform cannot do, each with the fix."""
    if of.period > SENTINEL_LONGEST:
        reason = f"a run must see {iso(of.period)} (window, interval and late records)"
        yield f"{reason}; Sentinel looks back at most 14 days", "a shorter timespan, or a behavior rule"
    if len(of.fields) > ELASTIC_MOST_FIELDS:
        names = ", ".join(of.fields)
        yield f"an alert is named by {names}; Elastic suppresses by at most 3 fields", "name fewer"
    if of.hold > SENTINEL_GROUPING_LONGEST and of.window + of.every + of.slack < of.hold:
        yield "Sentinel groups alerts into an incident for at most 7 days", "x_suppress: for: 7d or less"
