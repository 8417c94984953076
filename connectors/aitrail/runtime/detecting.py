"""Run the detection rules on the store of a runtime: what is new since the last run, or a range that somebody asks for.

A run looks back a little over events that it has seen already, because logs arrive late; what it found before, it does
not find again (``aitrail.detection.engine``).
"""

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from msgspec import Struct

from aitrail.clock import Clock, iso_ms
from aitrail.detection.engine import Covered, Range, detect
from aitrail.detection.rules import CompiledRule, chosen
from aitrail.errors import AitrailError
from aitrail.runtime import present
from aitrail.spool import Intake, Spool
from aitrail.spool import findings as kept
from aitrail.spool.findings import Kept
from aitrail.store.places import Places
from aitrail.store.reader import StoreReader
from aitrail.streams import Finding, Health, encoded

if TYPE_CHECKING:
    from aitrail.runtime.assemble import Runtime

# The name of the source under which findings are in the outbox.
SOURCE = "aitrail"
# CloudTrail delivers within minutes, Azure diagnostics within the hour; a day covers a collector that was down.
LATE_SECONDS = 86_400.0
_FIRST = datetime(1970, 1, 1)  # noqa: DTZ001  (event times are naive UTC in the store)


class Found(Struct, frozen=True):
    """What a run found: new findings in the order of the rules, and the range that was looked at.

    Attributes:
        rules: how many were run.
        left_out: the rules that could not be run, each with the reason.
    """

    findings: list[Finding]
    span: Range
    rules: int
    left_out: tuple[tuple[str, str], ...] = ()


# What a rule may require, and what to do when it is not there.
_MISSING = {"places": 'no places: name a table of networks, [detect] places = "places.csv" or --places'}


def runnable(
    rules: Sequence[CompiledRule], places: Places | None
) -> tuple[list[CompiledRule], tuple[tuple[str, str], ...]]:
    """The rules that have what they require, and the others with the reason."""
    there = {"places"} if places is not None else set()
    left = tuple((rule.name, _MISSING[name]) for rule in rules for name in rule.requires if name not in there)
    return [rule for rule in rules if there.issuperset(rule.requires)], left


def look(
    directory: Path,
    rules: Sequence[CompiledRule],
    clock: Clock,
    covered: Covered,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    places: Places | None = None,
    health: Callable[[], Sequence[Health]] | None = None,
) -> tuple[Found, list[Kept]]:
    """Run rules on what the store holds now; changes nothing. Without ``places`` rules that require them are not run.

    ``health`` gives the present state of the collector; without it the rules about that find nothing.
    """
    run_now, left_out = runnable(rules, places)
    now = datetime.fromtimestamp(clock.now(), UTC).replace(tzinfo=None)
    # Events ahead of the clock are looked at too: a wrong clock must not hide them.
    span = Range(since or _FIRST, until or now + timedelta(days=3650))
    found: list[Finding] = []
    made: list[Kept] = []
    with StoreReader(directory, clock=clock, places=places, health=health).connect() as connection:
        for group, start, finding in detect(connection, run_now, span, covered, iso_ms(clock.now())):
            found.append(finding)
            made.append(Kept(finding, group, start.replace(tzinfo=UTC).timestamp()))
    return Found(found, span, len(run_now), left_out), made


def run(
    spool: Spool,
    directory: Path,
    rules: Sequence[CompiledRule],
    clock: Clock,
    places: Places | None = None,
    health: Callable[[], Sequence[Health]] | None = None,
) -> Found:
    """Look at what is new, keep what is found, and hand it to the destinations that take findings.

    A crash in between is harmless: the next run finds the same under the same identity.

    Raises:
        TransientError: the disk is full or failing; the next run finds it again.
    """
    last = kept.looked_until(spool.database)
    since = None if last is None else datetime.fromtimestamp(last - LATE_SECONDS, UTC).replace(tzinfo=None)
    began = clock.now()
    found, made = look(directory, rules, clock, known(spool), since=since, places=places, health=health)
    keep(spool, made, began)
    return found


class Detecting:
    """Runs the rules of a running collector now and then, in a thread of its own: reading goes on meanwhile."""

    def __init__(self, runtime: "Runtime") -> None:
        """Pick the rules; raises ``ConfigError`` for a name that there is not."""
        self._runtime = runtime
        settings = runtime.config.detect
        self._interval = settings.interval
        left_out = {rule.name for rule in chosen(settings.without, hunts=True)} if settings.without else set()
        self._rules = [rule for rule in chosen((), hunts=settings.hunts) if rule.name not in left_out]
        self._places = Places(runtime.config.resolve(settings.places)) if settings.places else None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="detect", daemon=True)
        self._log = structlog.get_logger("aitrail.detect")

    def start(self) -> None:
        """Begin, unless the configuration says not to; say which rules cannot be run."""
        if self._interval:
            for name, reason in runnable(self._rules, self._places)[1]:
                self._log.info("a rule is not run", rule=name, reason=reason)
            self._thread.start()

    def stop(self, seconds: float) -> None:
        """End after the run in hand, at most ``seconds`` later; what is not kept by then the next one finds again."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def once(self) -> Found | None:
        """Run the rules now; None when that failed, which is logged and tried again, or when they are off."""
        if not self._interval:
            return None
        try:
            runtime = self._runtime
            health = present.of(runtime.directory, runtime.config.health, runtime.clock)
            found = run(runtime.spool, runtime.directory, self._rules, runtime.clock, self._places, health)
        except AitrailError as error:
            self._log.warning("the rules could not be run", error=str(error))
            return None
        if found.findings:
            self._log.info("findings", count=len(found.findings))
            for shipper in self._runtime.shippers:
                shipper.wake()
        return found

    def _loop(self) -> None:
        while not self._stop.wait(self._interval):
            self.once()


def known(spool: Spool) -> Covered:
    """What earlier runs have found."""
    covered = Covered()
    for rule_id, group, start in kept.covered(spool.database):
        covered.add(rule_id, group, datetime.fromtimestamp(start, UTC).replace(tzinfo=None))
    return covered


def keep(spool: Spool, made: Sequence[Kept], until: float | None) -> int:
    """Ship and store findings; gives how many were new."""
    takers = spool.chooser.takers("finding") if spool.chooser is not None else []
    if takers and made:
        spool.commit(Intake(SOURCE, takers, [encoded(one.finding) for one in made], {}))
    return kept.keep(spool.database, made, until)
