"""The runs of a function app, without the host: poll a source, take in messages, send again what waits.

The Functions host advances the pointer of an event hub although the function raised (Microsoft Learn, "Reliable event
processing"), so nothing may return before it is settled: delivered, a dead letter, or kept in ``waiting``. Only when
even that cannot be written the run raises, and the retry policy of the function holds the pointer.

A run that polls takes a lease first, and commits its cursors only over those that it has read. Each run writes one line
(``Line``) for Application Insights: alerts and the documentation are made of its fields. It never holds content.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from aitrail.clock import SystemClock
from aitrail.config import Config, SourceConfig, load, parse
from aitrail.destinations._azure_token import default_credential
from aitrail.errors import AitrailError, AuthError, ConfigError, CorruptInputError, StoreError, TransientError
from aitrail.ports import EncodedEvent, Lease, RawBatch, RawRecord
from aitrail.runtime.scheduled.azure_blobs import Blob, Blobs
from aitrail.runtime.scheduled.azure_host import time_limit, usable
from aitrail.runtime.scheduled.azure_line import Line, RunError
from aitrail.runtime.scheduled.azure_state import BlobCursors, BlobLeases, DeadLetters, Seen, WaitingEvents
from aitrail.runtime.scheduled.direct import NO_CURSORS, Item, Left, Outlet, Report, deadline_of, poll, push
from aitrail.runtime.scheduled.parts import Parts, Pushed, RunClock, make_parts
from aitrail.runtime.scheduled.sending import Sending
from aitrail.runtime.shipping import described
from aitrail.secrets import Secrets
from aitrail.sources._caps import Caps
from aitrail.sources._kafka_messages import records_of
from aitrail.spool.deadletters import refused
from aitrail.spool.leases import make_owner
from aitrail.spool.records import DeadLetter, dead_letter_id
from aitrail.spool.states import SourceState

# How long one batch of messages may try its destinations before what is left waits in the state: the partition goes on.
PUSH_SECONDS = 60.0
# A run that polls ends before the next one is due (every five minutes).
POLL_SECONDS = 240.0
LEASE_SECONDS = 60.0
# How long what waits is tried at one destination: mostly it waits for the same reason still, and time costs.
WAITING_SECONDS = 20.0
_MESSAGES = 32
HUB = "event_hubs"


class Message(NamedTuple):
    """One message of an event hub: its bytes, its sequence number, when it came in (epoch seconds; 0: not told)."""

    body: bytes
    sequence: int
    enqueued: float = 0.0


def configuration(environment: Mapping[str, str] = os.environ) -> Config:
    """The configuration: the text of ``AITRAIL_CONFIG``, else ``aitrail.toml`` beside ``function_app.py``.

    Raises:
        ConfigError: as ``aitrail.config.load``.
    """
    text = environment.get("AITRAIL_CONFIG", "")
    if text.strip():
        return parse(text, Path("AITRAIL_CONFIG"))
    return load(Path(environment.get("AzureWebJobsScriptRoot", ".")) / "aitrail.toml")


class State(msgspec.Struct):
    """The container of state and its parts; connections are made when they are first needed."""

    blobs: Blobs
    dead: DeadLetters
    waiting: WaitingEvents

    @classmethod
    def of(cls, environment: Mapping[str, str], credential: Any = None) -> "State":
        """Open it; raises ``ConfigError`` when the setting is missing or no URL."""
        url = environment.get("AITRAIL_STATE_URL", "")
        if not url:
            hint = "https://ACCOUNT.blob.core.windows.net/CONTAINER, in the app's settings"
            raise ConfigError("the setting is missing", where="AITRAIL_STATE_URL", hint=hint)
        credential = credential or default_credential("AITRAIL_STATE_URL")
        ca_file = environment.get("AITRAIL_STATE_CA_FILE", "")
        # Its clock is the machine's, not the run's: what is in hand is kept after the time of the run is over.
        blobs = Blobs(url, credential, SystemClock(), ca_file=ca_file)
        return cls(blobs, DeadLetters(blobs), WaitingEvents(blobs))


class _Leased:
    """Cursors that renew the lease with each commit, and commit nothing once it is lost."""

    def __init__(self, cursors: BlobCursors, leases: BlobLeases, lease: Lease, seconds: float) -> None:
        self._cursors, self._leases, self._seconds = cursors, leases, seconds
        self.lease = lease

    def get(self, key: str) -> bytes | None:
        return self._cursors.get(key)

    def items(self) -> Iterator[tuple[str, bytes]]:
        return self._cursors.items()

    def commit(self, changed: dict[str, bytes]) -> None:
        if time.time() > self.lease.expires - self._seconds / 2:
            renewed = self._leases.renew([self.lease], self._seconds)
            if not renewed:
                raise TransientError(f"{self.lease.name}: another run has taken the lease over", hint="nothing is lost")
            self.lease = renewed[0]
        self._cursors.commit(changed)


class Runs:
    """The runs of one function. Thread-safe: the host may call a function again before it has ended; one at a time.

    Args:
        function: its name, for the line.
        source: which source of the configuration it is about; empty for ``waiting``.
        environment: the app's settings.
        credential: of the state; the app's managed identity unless given.
    """

    def __init__(
        self, function: str, source: str = "", environment: Mapping[str, str] = os.environ, credential: Any = None
    ) -> None:
        self._function, self._source, self._environment = function, source, environment
        self._credential = credential
        self._lock = threading.Lock()
        self._clock = RunClock()
        self._parts: Parts | None = None
        self._state: State | None = None
        self._seen: Seen | None = None
        self._owner = make_owner()
        self._limit = usable(time_limit(environment))

    # -- what the host calls

    def poll(self, *, past_due: bool = False) -> Line:
        """Read what is new; raises ``RunError`` when the run failed."""
        return self._run(("AITRAIL_POLL_SECONDS", POLL_SECONDS), self._poll, past_due)

    def push(self, messages: Sequence[Message], origin: str) -> Line:
        """Settle messages; raises ``RunError`` only when some are neither delivered nor kept: all come again then."""
        return self._run(("AITRAIL_PUSH_SECONDS", PUSH_SECONDS), lambda line: self._push(line, messages, origin), False)

    def send_waiting(self, *, past_due: bool = False) -> Line:
        """Send again what waits; raises ``RunError`` when the run failed."""
        return self._run(("AITRAIL_POLL_SECONDS", POLL_SECONDS), self._send_waiting, past_due)

    def close(self) -> None:
        """Give back connections; the next run makes new ones."""
        parts, self._parts = self._parts, None
        state, self._state = self._state, None
        self._seen = None
        if parts is not None:
            parts.close()
        if state is not None:
            state.blobs.close()

    # -- around every run

    def _run(self, setting: tuple[str, float], work: Callable[[Line], None], past_due: bool) -> Line:
        line = Line(function=self._function, source=self._source, past_due=past_due)
        begun, cpu = time.monotonic(), time.thread_time()
        try:
            left = deadline_of(min(self._limit, self._seconds(*setting)))
            with self._alone(left):
                self._clock.left = left
                work(line)
        except AitrailError as error:
            self._failed(line, error)
        except Exception as bug:  # noqa: BLE001 - the text of a bug may hold content: the host must not log it
            line.outcome, line.cause = "failed", f"bug {described(bug)}"
            line.detail = "a defect of aitrail: report it with this line; nothing was confirmed"
        line.milliseconds = round((time.monotonic() - begun) * 1_000)
        line.cpu_milliseconds = round((time.thread_time() - cpu) * 1_000)
        line.write()
        if line.outcome == "failed":
            raise RunError(f"{line.cause}: {line.detail}")
        return line

    @contextmanager
    def _alone(self, left: Left) -> Iterator[None]:
        if not self._lock.acquire(timeout=max(left(), 0.0)):
            raise TransientError("the run before this one has not ended", hint="it will; this one is repeated")
        try:
            yield
        finally:
            self._lock.release()

    def _failed(self, line: Line, error: AitrailError) -> None:
        line.outcome = "failed"
        line.blame("run", error)
        if isinstance(error, (AuthError, ConfigError, StoreError)):
            self.close()  # the next run looks at settings, secrets and tokens anew

    def _seconds(self, name: str, otherwise: float) -> float:
        text = self._environment.get(name, "")
        if not text:
            return otherwise
        try:
            return max(0.1, float(text))
        except ValueError:
            raise ConfigError(f"{text[:20]!r} is no number of seconds", where=name) from None

    def _ready(self) -> tuple[Parts, State]:
        if self._parts is None:
            self._parts = make_parts(configuration(self._environment), self._clock, Secrets())
        if self._state is None:
            self._state = State.of(self._environment, self._credential)
        return self._parts, self._state

    def _outlet(self, parts: Parts, state: State, cursors: Any, seen: Seen | None) -> Outlet:
        return Outlet(
            parts.routes, state.dead, cursors, self._clock, self._clock.left, seen=seen, waiting=state.waiting
        )

    # -- polling

    def _poll(self, line: Line) -> None:
        parts, state = self._ready()
        leases = BlobLeases(state.blobs, self._clock, self._owner)
        seconds = self._seconds("AITRAIL_LEASE_SECONDS", LEASE_SECONDS)
        lease = leases.acquire(self._source, seconds)
        if lease is None:
            line.outcome = "held"
            return
        settings = parts.config.sources[self._source]
        memory = SourceState()
        leased: _Leased | None = None
        try:
            if self._seen is None:
                self._seen = Seen(state.blobs, self._source, self._clock)
            self._seen.refresh()
            leased = _Leased(BlobCursors(state.blobs, self._source, self._clock), leases, lease, seconds)
            outlet = self._outlet(parts, state, leased, self._seen)
            pipeline = parts.pipeline(parts.source(self._source), outlet, settings, memory)
            report = poll(pipeline, self._clock.left)
        finally:
            leases.release([leased.lease if leased is not None else lease])
        self._told(line, outlet, report)
        if not report.complete:
            newest = memory.newest_event or memory.newest_object
            line.lag_seconds = round(max(0.0, time.time() - newest), 1) if newest else 0.0
            if line.outcome == "ok":
                line.outcome = "partial"

    def _told(self, line: Line, outlet: Outlet, report: Report) -> None:
        """Put what a run did into its line; it failed when its source or its state did."""
        totals = report.totals
        line.records, line.new, line.duplicates = totals.records, totals.new, totals.duplicates
        line.skipped, line.dead = totals.skipped.total(), outlet.dead
        line.verdicts = dict(outlet.verdicts)
        line.waiting = sum(count for name, count in outlet.verdicts.items() if name.endswith(".waiting"))
        for trouble in (*report.troubles, *outlet.troubles):
            line.blame(trouble.place, trouble.error)
        if report.given_back:
            line.blame("run", TransientError("the time of this run is over", hint="all of it comes again"))
        if report.troubles or report.given_back:
            line.outcome = "failed"

    # -- messages

    def _push(self, line: Line, messages: Sequence[Message], origin: str) -> None:
        parts, state = self._ready()
        settings = parts.config.sources[self._source]
        newest = max((one.enqueued for one in messages), default=0.0)
        line.lag_seconds = round(max(0.0, time.time() - newest), 1) if newest else 0.0
        batches = list(_batches(messages, origin))
        try:
            report, outlet = self._pushed(parts, state, settings, batches)
        except AitrailError:
            raise
        except Exception:  # noqa: BLE001 - found below, record by record
            self._one_by_one(line, parts, state, settings, batches)
            return
        self._told(line, outlet, report)

    def _pushed(
        self, parts: Parts, state: State, settings: SourceConfig, batches: Sequence[RawBatch]
    ) -> tuple[Report, Outlet]:
        outlet = self._outlet(parts, state, NO_CURSORS, None)
        pipeline = parts.pipeline(Pushed(self._source), outlet, settings)
        return push(pipeline, [Item(self._source, batches)], self._clock.left), outlet

    def _one_by_one(
        self, line: Line, parts: Parts, state: State, settings: SourceConfig, batches: Sequence[RawBatch]
    ) -> None:
        """A record on which our own code fails would stop its partition for ever: it becomes a dead letter."""
        for batch in batches:
            for record in batch.records:
                before = msgspec.structs.replace(line)
                alone = msgspec.structs.replace(batch, records=(record,))
                try:
                    report, outlet = self._pushed(parts, state, settings, [alone])
                except AitrailError:
                    raise
                except Exception as bug:  # noqa: BLE001 - as in _run
                    state.dead.keep([_unreadable(self._source, batch.origin, record)])
                    line.dead += 1
                    line.cause = f"bug {described(bug)}"
                    line.detail = "a defect of aitrail: report it; the record is a dead letter that names its place"
                    continue
                self._told(line, outlet, report)
                for name in ("records", "new", "duplicates", "skipped", "dead", "waiting"):
                    setattr(line, name, getattr(line, name) + getattr(before, name))

    # -- what waits

    def _send_waiting(self, line: Line) -> None:
        parts, state = self._ready()
        leases = BlobLeases(state.blobs, self._clock, self._owner)
        seconds = self._seconds("AITRAIL_LEASE_SECONDS", LEASE_SECONDS)
        lease = leases.acquire("waiting", seconds)
        if lease is None:
            line.outcome = "held"
            return
        try:
            stuck: set[str] = set()
            for blob in sorted(state.waiting.listed(), key=lambda blob: _epoch(blob.modified)):
                name = blob.name.split("/")[1]
                sent = name not in stuck and self._clock.left() > 0 and self._resend(line, parts, state, blob, name)
                if not sent:
                    stuck.add(name)
                    line.waiting_seconds = max(line.waiting_seconds, round(time.time() - _epoch(blob.modified), 1))
                    continue
                if time.time() > lease.expires - seconds / 2:
                    renewed = leases.renew([lease], seconds)
                    if not renewed:
                        raise TransientError("another run has taken the lease over", hint="nothing is lost")
                    lease = renewed[0]
        finally:
            leases.release([lease])
        if stuck and not line.cause:
            line.outcome = "partial"

    def _resend(self, line: Line, parts: Parts, state: State, blob: Blob, name: str) -> bool:
        """Send the events of one blob; False when some of them have to wait on."""
        route = next((route for route in parts.routes if route.name == name), None)
        if route is None:
            hint = "configure it again, or remove the blobs below waiting/ that are not wanted any more"
            line.blame(f"destination:{name}", ConfigError("events wait for a destination that is gone", hint=hint))
            line.outcome = "failed"
            return False
        try:
            events = state.waiting.read(blob)
        except CorruptInputError as error:
            line.blame("state", error)
            line.outcome = "failed"
            return False
        run_left, patience = self._clock.left, deadline_of(self._seconds("AITRAIL_WAITING_SECONDS", WAITING_SECONDS))
        left = lambda: min(run_left(), patience())  # noqa: E731 - two lines less, and as clear
        sending = Sending(route, events, range(len(events)), self._clock, left)
        sending.run()
        self._keep_refused(line, state, events, sending, name)
        open_ = [events[place] for place in sorted(sending.open)]
        state.waiting.settle(blob, open_)
        line.new += len(events) - len(open_)
        line.waiting += len(open_)
        for verdict, count in sending.verdicts.items():
            line.verdicts[f"{name}.{verdict}"] = line.verdicts.get(f"{name}.{verdict}", 0) + count
        if open_ and sending.error is not None:
            line.blame(f"destination:{name}", sending.error)
        return not open_

    def _keep_refused(
        self, line: Line, state: State, events: Sequence[EncodedEvent], sending: Sending, name: str
    ) -> None:
        now = self._clock.now()
        letters = [refused(events[place], "", name, code, now) for place, code in sending.rejected.items()]
        if letters:
            state.dead.keep(letters)
            line.dead += len(letters)


def _batches(messages: Sequence[Message], origin: str) -> Iterator[RawBatch]:
    """Messages as batches of records; a message that holds none is settled by being looked at."""
    caps = Caps()
    for start in range(0, len(messages), _MESSAGES):
        records: list[RawRecord] = []
        size = 0
        some = messages[start : start + _MESSAGES]
        for one in some:
            size += len(one.body)
            if one.body:
                records += records_of(one.body, one.sequence, caps)
        yield RawBatch(origin, records, "", b"", size, newest=max(one.enqueued for one in some))


def _unreadable(source: str, origin: str, record: RawRecord) -> DeadLetter:
    code = "internal_limit"
    return DeadLetter(
        id=dead_letter_id(source, origin, record.position, record.index, code),
        source=source,
        origin=origin,
        position=record.position,
        end=record.end,
        index=record.index,
        code=code,
        field="",
        record_type="",
        stage="normalize",
        first_seen=time.time(),
    )


def _epoch(modified: str) -> float:
    try:
        return parsedate_to_datetime(modified).timestamp()
    except (ValueError, TypeError):
        return 0.0
