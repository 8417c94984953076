"""Collect again and again until told to stop: one writer over all sources, each of which is read by its own thread.

The writer takes batches from the sources in turn, commits, ships and keeps the books. A source that fails, waits or is
slow costs the others nothing: it has only its own thread to wait in. What a source raises ends its turn; a bug in it,
or in what reads its records, also drops what it had not committed, so that it comes again, and is told like any other
failure. Only what concerns the store as a whole ends the daemon.
"""

import random
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
from msgspec import Struct, field

from aitrail.config import Config
from aitrail.errors import AitrailError, AuthError, StoreError, TransientError
from aitrail.pipeline import Pipeline, Totals
from aitrail.ports import Budget, Lease, RawBatch, Source
from aitrail.runtime.assemble import Runtime, open_runtime
from aitrail.runtime.books import Books
from aitrail.runtime.collect import add, deliver, tidy
from aitrail.runtime.detecting import Detecting
from aitrail.runtime.feed import Ended, Feed
from aitrail.runtime.schedule import Schedule
from aitrail.runtime.signals import Stop
from aitrail.runtime.vitals import HealthReports
from aitrail.spool.leases import LeaseLostError, SqliteLeases
from aitrail.spool.states import SourceState

__all__ = ["Stop", "run"]

# How long parts of one event may wait for their siblings before they are emitted without them.
JOIN_SECONDS = 900.0
# One turn of one source: long enough that a packed file, which can only be entered at its start, is not unpacked again
# and again. It is not what keeps sources from starving one another: the writer takes one batch of each in turn.
TURN = Budget(records=1_000_000, seconds=30.0)
_LONGEST_TURN = 300.0
# Small segments are merged and retention is applied this often, so that reports stay fast.
TIDY_SECONDS = 600.0
# What was taken in is in the store, for reports, after this time at the latest.
FLUSH_SECONDS = 5.0
# A collector that says nothing for this long has lost its sources to another one.
LEASE_SECONDS = 60.0
GRACE_SECONDS = 10.0
# A thread that hangs in a long poll at the end holds nothing that is not safe; it is not waited for longer than this.
_HANGING_SECONDS = 1.0
_RETRY_COMMIT_SECONDS = 2.0
_LONGEST_WAIT = 1.0


class _Lane(Struct):
    """One source: its thread, its pipeline, its times, and what is to be said about it."""

    name: str
    source: Source
    feed: Feed
    pipeline: Pipeline
    schedule: Schedule
    state: SourceState
    lease: Lease | None = None
    open: bool = False
    turns: int = 0
    began: float = 0.0
    blocked_until: float = 0.0
    ended: Ended | None = None
    error: AitrailError | None = None
    notes: frozenset[str] = frozenset()
    turn: Totals = field(default_factory=Totals)
    totals: Totals = field(default_factory=Totals)
    told: tuple[int, int] = (0, 0)


After = Callable[[str, Totals], None]


def run(
    config: Config,
    stop: Stop,
    *,
    once: bool = False,
    grace: float = GRACE_SECONDS,
    after: After = lambda name, totals: None,
    opened: Callable[[Runtime], None] = lambda runtime: None,
) -> Totals:
    """Collect from all sources until ``stop``, or once through.

    Args:
        config: what to collect.
        stop: ends it.
        once: read every source once, then end.
        grace: seconds between the stop and the end in which what is in hand is committed and shipped.
        after: called after each turn of a source that went well, with what it gave.
        opened: called once the store is open.

    Raises:
        ConfigError, StoreError: the set-up is wrong; nothing was read.
        AitrailError: with ``once``, a source or the store failed; what was committed stays.
    """
    with open_runtime(config) as runtime:
        opened(runtime)
        collector = Collector(runtime, stop, once=once, grace=grace, after=after)
        try:
            return collector.run()
        finally:
            runtime.drain_seconds = collector.seconds_left


def run_beside(runtime: Runtime, ended: threading.Event, *, sources: bool) -> None:
    """Keep the books beside something else that writes to the same store and ships (``aitrail serve``).

    Args:
        runtime: the open store.
        ended: ends it.
        sources: also collect from the configured sources.
    """
    stop = Stop()

    def watch() -> None:
        ended.wait()
        stop.request()

    threading.Thread(target=watch, name="stop-collecting", daemon=True).start()
    names = tuple(runtime.config.sources) if sources else ()
    Collector(runtime, stop, names=names, mode="serve", ships=False).run()


class Collector:
    """The writer; one per process and store.

    Args:
        names: which sources to read; None: all that are configured.
        once, grace, after: see ``run``.
        ships: whether it brings events into the store; False when another thread does.
        mode: how the process was started, for those who look.
    """

    def __init__(
        self,
        runtime: Runtime,
        stop: Stop,
        *,
        names: Sequence[str] | None = None,
        once: bool = False,
        grace: float = GRACE_SECONDS,
        after: After = lambda name, totals: None,
        ships: bool = True,
        mode: str = "run",
    ) -> None:
        self._runtime = runtime
        self._ships = ships
        self._stop = stop
        self._once = once
        self._grace = grace
        self._after = after
        self._clock = runtime.clock
        self._random = random.Random()  # noqa: S311  (spreads polls, protects nothing)
        self._log = structlog.get_logger("aitrail.run")
        self._leases = SqliteLeases(runtime.spool.database)
        self._books = Books(runtime, "once" if once else mode)
        self._health = HealthReports(runtime, runtime.config.receivers if mode == "serve" else ())
        self._detecting = Detecting(runtime)
        self._lanes = [self._lane(name) for name in (runtime.config.sources if names is None else names)]
        seconds = min(_LONGEST_TURN, TURN.seconds * max(1, len(self._lanes)))
        self._budget = Budget() if once else Budget(records=TURN.records, seconds=seconds)
        self._deadline: float | None = None
        self._held = ""
        self._shipped = float("-inf")
        self._renewed = float("-inf")
        self._looked = float("-inf")
        self._tidied = self._clock.monotonic()

    def run(self) -> Totals:
        """Collect until told to stop, or once through; see ``run``."""
        spool = self._runtime.spool
        self._leases.reclaim()
        started = spool.begin_run("run")
        for lane in self._lanes:
            lane.feed.start()
        if not self._once:
            self._detecting.start()
        try:
            while not self._finished():
                self._keep_house()
                self._begin_due()
                if not self._serve():
                    self._ship()
                    self._stop.bell.wait(self._pause())
        except BaseException:
            for lane in self._lanes:
                lane.feed.stop()
            self._detecting.stop(0.0)
            raise
        self._drain()
        self._detecting.stop(self.seconds_left)
        totals = Totals()
        for lane in self._lanes:
            add(totals, lane.totals)
            add(totals, lane.turn)
        spool.end_run(started, {"new": totals.new, "records": totals.records})
        if self._once and not self._stop.requested:
            tidy(self._runtime)
            self._fail_once()
            deliver(self._runtime)
            self._detecting.once()
        return totals

    @property
    def seconds_left(self) -> float:
        """What is left of the grace, for the destinations."""
        if self._deadline is None:
            return self._grace
        return max(0.0, self._deadline - self._clock.monotonic())

    # --- the loop

    def _finished(self) -> bool:
        if self._stop.requested:
            return True
        return self._once and all(lane.turns and not lane.open for lane in self._lanes)

    def _begin_due(self) -> None:
        """Start the turns that are due."""
        now = self._clock.monotonic()
        for lane in self._lanes:
            if lane.open or lane.schedule.due > now or (self._once and lane.turns):
                continue
            if self._held:
                self._put_off(lane, "held", _LONGEST_WAIT, TransientError(f"the outbox is full: {self._held}"))
            elif not self._hold_lease(lane):
                self._put_off(lane, "leased", LEASE_SECONDS / 4, TransientError("another collector reads this source"))
            else:
                lane.open, lane.began, lane.turn = True, now, Totals()
                lane.turns += 1
                lane.state.state = "reading"
                lane.feed.begin(lane.pipeline.cursors, self._budget)

    def _put_off(self, lane: _Lane, state: str, seconds: float, why: TransientError) -> None:
        lane.state.state = state
        lane.schedule.put_off(self._clock.monotonic(), seconds)
        self._books.due(lane.state, lane.schedule)
        if self._once:
            lane.turns += 1
            lane.error = why

    def _serve(self) -> bool:
        """Take one batch of each source that has one, and commit what is due; whether there was anything to do."""
        worked = False
        now = self._clock.monotonic()
        for lane in self._lanes:
            if not lane.open or lane.blocked_until > now:
                continue
            # While too much waits for the destinations, what sources hold stays with them.
            item = None if self._held and lane.ended is None else lane.ended or lane.feed.take()
            try:
                worked |= self._handle(lane, item)
            except TransientError as error:
                self._cannot_commit(lane, item, error)
            except LeaseLostError as error:
                self._lost(lane, error)
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001  (a bug in what reads this source must not stop the others)
                self._reset(lane)
                self._failed(lane, _described(lane.name, error))
        return worked

    def _handle(self, lane: _Lane, item: RawBatch | Ended | None) -> bool:
        if isinstance(item, Ended):
            self._finish(lane, item)
            return True
        if item is not None:
            lane.pipeline.take(item, lane.turn)
        if lane.pipeline.due():
            self._commit(lane, lane.pipeline.commit(lane.turn))
        return item is not None

    def _finish(self, lane: _Lane, ended: Ended) -> None:
        """End a turn: commit what it gave, tell its source, and say when it is read again."""
        error = ended.error
        if error is not None and not isinstance(error, AitrailError):
            self._reset(lane)
            self._failed(lane, _described(lane.name, error))
            return
        # Parts that wait for their siblings are emitted as they are only when nobody comes back to them.
        last = self._once and error is None and not ended.cut
        self._commit(lane, lane.pipeline.finish(lane.turn, None if last else JOIN_SECONDS))
        lane.ended, lane.open = None, False
        lane.feed.end()
        if error is not None:
            self._failed(lane, error)
        elif ended.cut:
            add(lane.totals, lane.turn)
            lane.turn = Totals()
        else:
            self._succeeded(lane)

    def _commit(self, lane: _Lane, receipts: Sequence[str]) -> None:
        """What follows a commit."""
        lane.feed.durable(receipts)
        told = (lane.feed.acknowledged, lane.feed.unacknowledged)
        for name, now, before in zip(("acknowledged", "unacknowledged"), told, lane.told, strict=True):
            if now > before:
                lane.pipeline.count(name, now - before)
        lane.told = told
        if self._ships:
            self._runtime.courier.drain(at_least=self._runtime.flush_events)
        for shipper in self._runtime.shippers:
            shipper.wake()

    # --- what became of a turn

    def _succeeded(self, lane: _Lane) -> None:
        now = self._clock.monotonic()
        done = lane.turn
        more = done.records >= self._budget.records or (done.records > 0 and now - lane.began >= self._budget.seconds)
        lane.schedule.succeeded(lane.began, now, self._random, more=more)
        if lane.state.failures:
            self._log.warning("source works again", source=lane.name)
        lane.error = None
        notes = frozenset(getattr(lane.source, "notes", ()))
        lane.state.not_read = _noted(sorted(notes))
        self._books.succeeded(lane.state, lane.schedule)
        add(lane.totals, done)
        lane.turn = Totals()
        for note in sorted(notes - lane.notes):
            self._log.warning("not read", source=lane.name, note=note)
        lane.notes = notes
        if done.records:
            rejected = sum(done.rejected.values())
            self._log.info("source read", source=lane.name, records=done.records, new=done.new, rejected=rejected)
        self._after(lane.name, done)

    def _failed(self, lane: _Lane, error: AitrailError) -> None:
        lane.error = error
        lane.open = False
        retry_after = error.retry_after if isinstance(error, TransientError) else None
        pause = lane.schedule.failed(self._clock.monotonic(), self._random, retry_after)
        self._books.failed(lane.state, lane.schedule, str(error))
        add(lane.totals, lane.turn)
        lane.turn = Totals()
        self._log.warning("source failed", source=lane.name, error=str(error), retry_seconds=round(pause, 1))

    def _lost(self, lane: _Lane, error: LeaseLostError) -> None:
        lane.lease = None
        self._reset(lane)
        self._put_off(lane, "leased", LEASE_SECONDS / 4, TransientError(str(error)))
        self._log.warning("lease lost", source=lane.name)

    def _cannot_commit(self, lane: _Lane, item: RawBatch | Ended | None, error: TransientError) -> None:
        """The disk is full, or the like: nothing is lost, what was taken is kept and committed later."""
        if isinstance(item, Ended):
            lane.ended = item
        lane.blocked_until = self._clock.monotonic() + _RETRY_COMMIT_SECONDS
        self._books.failed(lane.state, lane.schedule, str(error))
        self._log.warning("nothing can be committed", source=lane.name, error=str(error))
        if self._once:
            self._reset(lane)
            self._failed(lane, error)

    def _reset(self, lane: _Lane) -> None:
        """Drop what is not committed; it comes again."""
        lane.feed.cancel()
        lane.ended, lane.open = None, False
        lane.pipeline = self._pipeline(lane.name, lane.source, lane.state)
        lane.pipeline.lease = lane.lease

    # --- housekeeping

    def _keep_house(self) -> None:
        now = self._clock.monotonic()
        try:
            if now - self._renewed >= LEASE_SECONDS / 3:
                self._renew()
                self._renewed = now
            if now - self._looked >= _LONGEST_WAIT:
                self._look_at_outbox()
                self._looked = now
            states = {lane.name: lane.state for lane in self._lanes}
            self._books.keep(states)
            self._health.keep(states, self._held)
            if self._ships and now - self._tidied >= TIDY_SECONDS:
                self._tidied = now
                tidy(self._runtime)
        except TransientError as error:
            self._log.warning("the books cannot be kept", error=str(error))
        if now - self._shipped >= FLUSH_SECONDS:
            self._ship()

    def _ship(self) -> None:
        """Bring what was taken in into the store."""
        now = self._clock.monotonic()
        if self._ships and now - self._shipped >= FLUSH_SECONDS:
            self._shipped = now
            self._runtime.courier.drain()

    def _look_at_outbox(self) -> None:
        why = self._runtime.spool.over_cap()
        if why and not self._held:
            self._log.warning("sources pause: too much waits for destinations", reason=why)
        elif self._held and not why:
            self._log.warning("sources go on")
        self._held = why
        for lane in self._lanes:
            if lane.open:
                lane.state.state = "held" if why else "reading"
        if why and self._once:
            for lane in self._lanes:
                if lane.open:
                    self._reset(lane)
                    self._failed(lane, TransientError(f"the outbox is full: {why}"))

    def _hold_lease(self, lane: _Lane) -> bool:
        if lane.lease is None:
            try:
                lane.lease = self._leases.acquire(lane.name, LEASE_SECONDS)
            except TransientError as error:
                self._log.warning("no lease can be taken", source=lane.name, error=str(error))
            lane.pipeline.lease = lane.lease
        return lane.lease is not None

    def _renew(self) -> None:
        mine = [lane.lease for lane in self._lanes if lane.lease is not None]
        kept = {lease.name: lease for lease in self._leases.renew(mine, LEASE_SECONDS)} if mine else {}
        for lane in self._lanes:
            if lane.lease is not None:
                lane.lease = lane.pipeline.lease = kept.get(lane.name)
                if lane.lease is None:
                    self._lost(lane, LeaseLostError(lane.name))

    def _pause(self) -> float:
        now = self._clock.monotonic()
        waits = [_LONGEST_WAIT]
        waits += [lane.schedule.due - now for lane in self._lanes if not lane.open]
        if any(lane.open for lane in self._lanes):
            waits.append(0.25)  # what is taken is committed within about a second
        return max(0.0, min(waits))

    # --- the end

    def _drain(self) -> None:
        """Commit what is in hand, tell the sources, and give the leases back; within the grace."""
        now = self._clock.monotonic()
        self._deadline = now + self._grace
        hanging = min(self._deadline, now + _HANGING_SECONDS)
        for lane in self._lanes:
            lane.feed.stop()
        while any(lane.open for lane in self._lanes) and self._clock.monotonic() < self._deadline:
            if not self._serve():
                if self._clock.monotonic() >= hanging:
                    break
                self._stop.bell.wait(0.05)
        for lane in self._lanes:
            if lane.open:
                self._leave(lane)
        for lane in self._lanes:
            lane.feed.join(min(hanging, self._deadline) - self._clock.monotonic())
        try:
            if self._ships:
                self._runtime.courier.drain()
            self._leases.release([lane.lease for lane in self._lanes if lane.lease is not None])
        except TransientError as error:
            self._log.warning("not all could be settled at the end", error=str(error))
        self._close_books()
        # And again when the destinations have taken what was left: their figures are those of the end.
        self._runtime.at_end = self._close_books

    def _close_books(self) -> None:
        try:
            self._books.close({lane.name: lane.state for lane in self._lanes})
        except TransientError as error:
            self._log.warning("the books cannot be closed", error=str(error))

    def _leave(self, lane: _Lane) -> None:
        """Commit what a source gave that still hangs in a call, or that has more than the grace allows."""
        try:
            self._commit(lane, lane.pipeline.commit(lane.turn))
        except AitrailError as error:
            self._log.warning("not committed at the end; it comes again", source=lane.name, error=str(error))
        lane.feed.end()

    def _fail_once(self) -> None:
        """Raise what made a source fail: nobody comes back to it when there is no next turn."""
        failed = [lane for lane in self._lanes if lane.error is not None]
        if not failed:
            return
        error = failed[0].error
        assert error is not None
        names = ", ".join(lane.name for lane in failed[1:])
        also = f" (also failed: {names})" if names else ""
        raise _like(error, f"source {failed[0].name}: {error}{also}")

    # --- making

    def _lane(self, name: str) -> _Lane:
        source = self._runtime.source(name)
        state = self._books.source(name)
        interval = state.interval = self._runtime.config.sources[name].interval
        feed = Feed(source, self._stop.bell.ring)
        return _Lane(name, source, feed, self._pipeline(name, source, state), Schedule(interval), state)

    def _pipeline(self, name: str, source: Source, state: SourceState) -> Pipeline:
        return self._runtime.pipeline(name, source, lambda totals: None, state=state)


def _like(error: AitrailError, message: str) -> AitrailError:
    """The same kind of error with another message."""
    if isinstance(error, TransientError):
        return TransientError(message, retry_after=error.retry_after, hint=error.hint)
    kind = AuthError if isinstance(error, AuthError) else AitrailError
    made = kind(message, hint=error.hint)
    made.exit_code = error.exit_code
    return made


def _noted(notes: Sequence[str]) -> str:
    """What a source left alone, on one line."""
    more = f" (and {len(notes) - 1} more)" if len(notes) > 1 else ""
    return f"{notes[0]}{more}" if notes else ""


def _described(name: str, error: BaseException) -> AitrailError:
    """Say where a bug is, without its message: that may hold content of a record."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return AitrailError(
        f"a bug: {type(error).__name__}{place}",
        hint=f"what source {name} had not committed comes again; please report this with the place",
    )
