"""How often rules are wrong and what they find: all of them on a generated month of the demo's organisation.

    python benchmarks/detections.py [--days 30] [--events 150000] [--seed 1] [--markdown docs/detections-measured.md]

The month has a weekly rhythm and every scripted incident twice. An alert is right when its evidence has an event of an
incident; any other is wrong. A user-day is one user (person, service or customer of a bot) on one day with an access.
Progress goes to stderr, the report to stdout and, as Markdown, to a file.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from aitrail.clock import iso_ms
from aitrail.config import Config, DirectoryConfig, SourceConfig, StoreConfig
from aitrail.demo.writer import Manifest, generate
from aitrail.detection.engine import Covered, Range, detect
from aitrail.detection.rules import CompiledRule, shipped
from aitrail.runtime.cli.progress import progress_bar
from aitrail.runtime.collect import collect
from aitrail.runtime.detecting import runnable
from aitrail.store.reader import StoreReader

_ALL = Range(datetime(1970, 1, 1), datetime(2262, 1, 1))  # noqa: DTZ001  (columns are naive UTC)


class Measured(Struct):
    """One rule: its alerts, those about incidents (by number of the incident), and the CPU seconds that it took."""

    rule: CompiledRule
    alerts: int = 0
    right: int = 0
    incidents: Counter[int] = Counter()
    seconds: float = 0.0

    @property
    def wrong(self) -> int:
        """Alerts that no incident has anything to do with."""
        return self.alerts - self.right


class Report(Struct):
    """What was measured."""

    made: Manifest
    events: int
    user_days: int
    person_days: int
    rules: list[Measured]
    generate_seconds: float
    collect_seconds: float

    def per_thousand(self, alerts: int) -> float:
        """Alerts per 1,000 user-days."""
        return alerts * 1000 / self.user_days

    def caught_by(self, incident: int) -> list[Measured]:
        """The detections that raised an alert about an incident, by its number."""
        return [one for one in self.rules if one.rule.kind == "detection" and incident in one.incidents]


def measure(folder: Path, days: int, events: int, seed: int) -> Report:
    """Generate, collect, run every rule."""
    started = time.process_time()
    _say(f"writing {days} days, about {events:,} events")
    made = generate(folder, seed=seed, days=days, events=events)
    written = time.process_time()
    _say(f"collecting {made.expected_events:,} events")
    config = Config(
        store=StoreConfig(dir=str(folder / "store")),
        sources={"demo": SourceConfig(tenant="acme", options={"paths": (str(folder / "logs"),)})},
        directory=DirectoryConfig(file=str(folder / "directory.csv")),
    )
    with progress_bar(quiet=True) as callbacks:
        collect(config, callbacks)
    collected = time.process_time()
    with StoreReader(folder / "store").connect() as connection:
        count, user_days, person_days = connection.execute(
            "SELECT count(*), count(DISTINCT (user_id, timestamp::DATE)) FILTER (WHERE user_id <> ''),"
            " count(DISTINCT (user_id, timestamp::DATE)) FILTER (WHERE user_id <> '' AND principal_type = 'human'"
            " AND NOT starts_with(user_id, 'cust-')) FROM events"
        ).fetchall()[0]
        by_event = _incident_events(connection, made)
        rules = list(_run(connection, by_event))
    return Report(made, count, user_days, person_days, rules, written - started, collected - written)


def _incident_events(connection, made: Manifest) -> dict[str, int]:
    """Event -> number of the incident that it belongs to."""
    ids = {}
    wanted = {key: number for number, one in enumerate(made.incidents) for key in one.records}
    for event_id, source, upstream in connection.execute(
        "SELECT event_id, source, source_event_id FROM events"
    ).fetchall():
        number = wanted.get((source, upstream))
        if number is not None:
            ids[event_id] = number
    return ids


def _run(connection, by_event: dict[str, int]) -> Iterator[Measured]:
    rules, _ = runnable(shipped(), None)
    for place, rule in enumerate(rules):
        one = Measured(rule, incidents=Counter())
        started = time.process_time()
        for _, _, finding in detect(connection, [rule], _ALL, Covered(), iso_ms(time.time())):
            one.alerts += 1
            numbers = {by_event[event_id] for event_id in finding.evidence_ids if event_id in by_event}
            one.right += bool(numbers)
            one.incidents.update(numbers)
        one.seconds = time.process_time() - started
        if place % 20 == 0:
            _say(f"rule {place + 1} of {len(rules)}")
        yield one


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def markdown(report: Report) -> str:
    """The report as a page."""
    detections = [one for one in report.rules if one.rule.kind == "detection"]
    behaviors = sum(bool(one.rule.behavior) for one in detections)
    left = [f"`{name}` ({reason.partition(':')[0]})" for name, reason in runnable(shipped(), None)[1]]
    hunts = [one for one in report.rules if one.rule.kind == "hunt"]
    wrong, right = sum(one.wrong for one in detections), sum(one.right for one in detections)
    caught = [number for number in range(len(report.made.incidents)) if report.caught_by(number)]
    weeks = report.user_days / 1000
    moment = datetime.now(UTC)
    seconds = sum(one.seconds for one in report.rules)
    parts = [
        "<!-- Written by benchmarks/detections.py; do not edit. -->\n\n",
        "# How often rules are wrong, and what they find\n\n",
        f"Measured on {moment:%Y-%m-%d} with Python {platform.python_version()} on {os.cpu_count()} cores ",
        f"({platform.machine()}) by `python benchmarks/detections.py --days {len(report.made.days)}`. The month is ",
        f"generated (seed {report.made.seed}, {report.made.days[0]} to {report.made.days[-1]}): {report.events:,} ",
        f"events of an invented bank with a weekly rhythm, {report.user_days:,} user-days ({report.person_days:,} of ",
        "staff, the rest of services and of customers of a bot), every scripted incident twice, and fourteen kinds of ",
        "ordinary work that look like an incident (releases, repairs, questions about attacks, a security test) three ",
        "times each. It is traffic as its authors imagine it, not yours: measure your own month with ",
        "`aitrail detect --dry-run`.\n\n",
        "| | |\n|---|---|\n",
        f"| detections run | {len(detections)}, {behaviors} of them behavior rules |\n",
        *([f"| not run | {', '.join(left)} |\n"] if left else []),
        f"| hunting queries run | {len(hunts)} |\n",
        f"| alerts about incidents | {right} |\n",
        f"| other alerts | {wrong} |\n",
        f"| other alerts per 1,000 user-days | {wrong / weeks:.2f} |\n",
        f"| incidents found | {len(caught)} of {len(report.made.incidents)} |\n",
        f"| detections that raised nothing | {sum(1 for one in detections if not one.alerts)} |\n",
        f"| CPU seconds to generate, collect, run all rules | {report.generate_seconds:.0f}, ",
        f"{report.collect_seconds:.0f}, {seconds:.0f} |\n\n",
        "An alert is about an incident when its evidence holds one of the incident's events.\n\n## Incidents\n\n",
        "| incident | times | found | by |\n|---|---|---|---|\n",
        *_incidents(report),
        "\n## Detections\n\n",
        "| rule | severity | alerts | about incidents | other | other per 1,000 user-days |\n",
        "|---|---|---|---|---|---|\n",
        *_rows(report, detections),
        "\nThe other detections raised nothing in this month.\n\n## Hunting queries\n\n",
        "| query | results | about incidents | other | other per 1,000 user-days |\n|---|---|---|---|---|\n",
        *_rows(report, hunts, severity=False),
    ]
    return "".join(parts)


def _incidents(report: Report) -> Iterator[str]:
    numbers: dict[str, list[int]] = defaultdict(list)
    for number, one in enumerate(report.made.incidents):
        numbers[one.name].append(number)
    for name, found in sorted(numbers.items()):
        caught = [number for number in found if report.caught_by(number)]
        names = sorted({one.rule.name for number in caught for one in report.caught_by(number)})
        by = ", ".join(f"`{rule}`" for rule in names) or "no rule"
        yield f"| {name} | {len(found)} | {len(caught)} | {by} |\n"


def _rows(report: Report, rules: list[Measured], *, severity: bool = True) -> Iterator[str]:
    for one in sorted(rules, key=lambda one: (-one.wrong, -one.alerts, one.rule.name)):
        if one.alerts:
            level = f" {one.rule.severity} |" if severity else ""
            yield (
                f"| `{one.rule.name}` |{level} {one.alerts} | {one.right} | {one.wrong} | "
                f"{report.per_thousand(one.wrong):.2f} |\n"
            )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--events", type=int, default=150_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--markdown", type=Path, help="write the report to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = measure(Path(folder), arguments.days, arguments.events, arguments.seed)
    page = markdown(report)
    if arguments.markdown:
        arguments.markdown.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
