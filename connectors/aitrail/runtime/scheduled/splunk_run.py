"""One run of an input of the Splunk add-on, and the check of its settings: the collector without an outbox."""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from splunklib.modularinput import EventWriter

from aitrail.errors import AitrailError
from aitrail.health import Vitals, report
from aitrail.printing import printable
from aitrail.registry import make_source
from aitrail.routing.route import Route
from aitrail.routing.select import Rule
from aitrail.runtime.scheduled.direct import Outlet, Report, deadline_of, poll
from aitrail.runtime.scheduled.parts import Parts, RunClock, make_parts
from aitrail.runtime.scheduled.splunk_passwords import Passwords
from aitrail.runtime.scheduled.splunk_settings import Input, configuration, prepare
from aitrail.runtime.scheduled.splunk_state import InputState, locked
from aitrail.runtime.scheduled.splunk_writer import SplunkdDestination
from aitrail.secrets import SCHEMES as SECRETS
from aitrail.secrets import Secrets
from aitrail.splunk_schemes import SOURCETYPES
from aitrail.streams import encoded

# A run ends after so long, and the next one goes on: splunkd may have been told to stop meanwhile.
_RUN_SECONDS = 3_000.0
# A form is answered within splunkd's 30 seconds.
_CHECK_SECONDS = 20.0


def run(one: Input, passwords: Passwords, metadata: Mapping[str, str], ew: EventWriter, output: TextIO) -> "Run | None":
    """Run an input; None while another process does. Nothing that goes wrong in it is raised: it has it to say.

    Args:
        one: the input.
        passwords: where secrets are.
        metadata: of splunkd: ``checkpoint_dir``.
        ew: writes events to ``output``.
        output: the pipe to splunkd.

    Raises:
        ConfigError: there is no place for its state, or that is damaged.
    """
    folder = Path(metadata["checkpoint_dir"]) / one.name
    with locked(folder) as ours:
        if not ours:
            return None
        clock = RunClock()
        clock.left = deadline_of(_RUN_SECONDS)
        writer = SplunkdDestination(ew, output, one.stanza, one.values.get("index", ""))
        done = Run(one, InputState(folder), clock, writer)
        try:
            done.poll(make(one, passwords, metadata, clock, writer))
        except AitrailError as error:
            done.error = error
        done.tell()
    return done


class Run:
    """One run of one input, and what it has to say."""

    def __init__(self, one: Input, state: InputState, clock: RunClock, writer: SplunkdDestination) -> None:
        self.error: AitrailError | None = None
        self._input = one
        self._state = state
        self._clock = clock
        self._writer = writer
        self._report = Report()
        self._dead = 0
        self._began = clock.monotonic()

    def poll(self, parts: Parts) -> None:
        """Read what is new, give it to splunkd, write the cursors. Raises ``AitrailError``."""
        state, source = self._state, self._state.kept.source
        outlet = Outlet(parts.routes, state, state, self._clock, self._clock.left)
        try:
            pipeline = parts.pipeline(
                parts.source(self._input.name), outlet, parts.config.sources[self._input.name], source
            )
            self._report = poll(pipeline, self._clock.left)
        finally:
            self._dead = outlet.dead
            state.count({**outlet.counts, "events": self._report.totals.new})
            parts.close()

    def tell(self) -> None:
        """Write down how it went, and send it as a health event. Raises ``TransientError``."""
        source, now = self._state.kept.source, self._clock.now()
        wrong = self._sentences()
        source.interval = self._input.interval
        source.state = "waiting" if wrong else "idle"
        source.failures = source.failures + 1 if wrong else 0
        if wrong:
            source.last_error, source.error_at = "; ".join(wrong), now
        else:
            source.last_success, source.oldest_open = now, 0.0
        vitals = Vitals(
            collector=socket.gethostname().lower(), now=now, late_seconds=3_600.0,
            sources={self._input.stanza: source}, counters={self._input.stanza: self._state.kept.counters},
            destinations={}, backlogs={},
        )  # fmt: skip
        events = [encoded(one) for one in report(vitals) if one.kind == "source"]
        try:
            self._writer.send(events, self._clock.monotonic() + 30.0)
            self._state.save()
        except AitrailError as error:
            self.error = self.error or error

    def lines(self) -> list[str]:
        """What was done, for the log."""
        totals = self._report.totals
        numbers = {
            "records": totals.records, "new": totals.new, "duplicates": totals.duplicates,
            "rejected": totals.rejected.total(), "skipped": totals.skipped.total(), "dead_letters": self._dead,
            "seconds": round(self._clock.monotonic() - self._began, 2), "complete": int(self._report.complete),
        }  # fmt: skip
        return [f"{self._input.stanza}: {' '.join(f'{name}={value}' for name, value in numbers.items())}"]

    def failures(self) -> list[str]:
        """What went wrong, for the log."""
        return [f"{self._input.stanza}: {text}" for text in self._sentences()]

    def _sentences(self) -> list[str]:
        found = [f"{one.place}: {one.error.sentence}" for one in self._report.troubles]
        found += [self.error.sentence] if self.error is not None else []
        return [printable(text) for text in dict.fromkeys(found)]


def make(
    one: Input, passwords: Passwords, metadata: Mapping[str, str], clock: RunClock, writer: SplunkdDestination
) -> Parts:
    """The collector for one input. Raises ``AitrailError``."""
    _surround(one, passwords, metadata)
    passwords.tenant_key()
    route = Route(writer, Rule(frozenset(SOURCETYPES)))
    return make_parts(configuration(one), clock, Secrets(), [route])


def check(one: Input, passwords: Passwords, metadata: Mapping[str, str]) -> list[str]:
    """What is wrong with an input, also as its source says. Raises ``AitrailError``."""
    config = configuration(one)
    clock = RunClock()
    clock.left = deadline_of(_CHECK_SECONDS)
    _surround(one, passwords, metadata)
    if one.scheme.credential == "token":
        passwords.resolve(one.entry("secret"))
    source = make_source(one.name, config.sources[one.name], config, clock, b"")
    try:
        return source.check()
    finally:
        getattr(source, "close", lambda: None)()


def _surround(one: Input, passwords: Passwords, metadata: Mapping[str, str]) -> None:
    """Set up this process for one input: references, environment, and where compiled patterns are kept."""
    SECRETS["splunk"] = passwords.resolve
    prepare(one, {arg.name: passwords.find(one.entry(arg.name)) for arg in one.scheme.args if arg.kind == "secret"})
    if metadata.get("checkpoint_dir"):
        os.environ.setdefault("AITRAIL_CACHE_DIR", str(Path(metadata["checkpoint_dir"]) / ".patterns"))
