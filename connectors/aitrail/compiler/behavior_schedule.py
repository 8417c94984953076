"""When a behavior rule runs on the platforms, and which buckets one of its runs judges.

A run judges every bucket that holds something of the last ``recent`` seconds (the time since the last run, and what
records may be late): so each bucket is judged to its end, and nothing old is told again.
"""

import msgspec

from aitrail.compiler import schedule
from aitrail.compiler.behavior import Behavior
from aitrail.compiler.schedule import HOUR, MINUTE, Plan

_EVERY = {3_600: 15 * MINUTE, 86_400: HOUR}


def plan(rule: Behavior) -> Plan:
    """The schedule of ``rule``; an alert stands as long as its bucket may be judged again."""
    travel = rule.kind == "impossible_travel"
    of = schedule.planned(
        rule.meta.name,
        window=rule.lookback,
        every=15 * MINUTE if travel else _EVERY[rule.bucket],
        sources=rule.meta.needs.any_of,
        group=rule.meta.suppress.by,
        suppress=rule.meta.suppress.seconds,
        scheduled=rule.meta.kind == "detection",
    )
    again = of.every + of.slack + (0 if travel else rule.bucket)
    return msgspec.structs.replace(of, hold=max(rule.meta.suppress.seconds, again))


def recent(rule: Behavior) -> int:
    """Seconds before a run in which an event is news to it."""
    of = plan(rule)
    return of.every + of.slack


def judged(rule: Behavior) -> int:
    """How many buckets before the current one a run may have to judge again."""
    return -(-recent(rule) // rule.bucket)
