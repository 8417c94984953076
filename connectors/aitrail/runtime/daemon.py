"""Collect again and again until told to stop: one loop over the sources, one failing source never stops the others."""

import signal
import threading
from collections.abc import Callable
from types import FrameType

import structlog
from msgspec import Struct, field

from aitrail.config import Config
from aitrail.errors import AitrailError, AuthError, TransientError
from aitrail.pipeline import Pipeline, Totals
from aitrail.ports import Budget, Source
from aitrail.runtime.assemble import Runtime, open_runtime
from aitrail.runtime.collect import add, deliver, tidy

# How long parts of one event may wait for their siblings before they are emitted without them.
JOIN_SECONDS = 900.0
# One turn of one source: short enough that no source starves the others, long enough that a packed file, which can
# only be entered at its start, is not unpacked again and again.
TURN = Budget(records=1_000_000, seconds=30.0)
_LONGEST_PAUSE = 300.0
# Small segments are merged and retention is applied this often, so that reports stay fast.
TIDY_SECONDS = 600.0


class _Turn(Struct):
    """One source's pipeline, when it is due, how often it failed in a row, and what was told about it last."""

    name: str
    source: Source
    pipeline: Pipeline
    interval: float
    due: float = 0.0
    failures: int = 0
    error: AitrailError | None = None
    notes: frozenset[str] = frozenset()
    totals: Totals = field(default_factory=Totals)


class _Stopped(Exception):  # noqa: N818  (no error: it leaves the pipeline between two commits)
    """The stop came in the middle of a turn; ``totals`` is what the turn has committed."""

    def __init__(self, totals: Totals) -> None:
        super().__init__()
        self.totals = totals


class Stop:
    """Set by SIGTERM and SIGINT; the loop ends after the commit in hand."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def install(self) -> None:
        """Listen to SIGTERM and SIGINT; a second one ends the process at once: what is lost was not committed."""

        def handle(number: int, frame: FrameType | None) -> None:
            del frame
            if self.event.is_set():
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            self.event.set()

        signal.signal(signal.SIGTERM, handle)
        signal.signal(signal.SIGINT, handle)


def run(
    config: Config, stop: Stop, *, once: bool = False, after: Callable[[str, Totals], None] | None = None
) -> Totals:
    """Collect from all sources until ``stop``, or once through.

    Raises:
        ConfigError, StoreError: the set-up is wrong; nothing was read.
        TransientError, AuthError: with ``once``, a source or the store failed; what was committed stays.
    """
    log = structlog.get_logger("aitrail.run")
    totals = Totals()
    with open_runtime(config) as runtime:
        turns = [_turn(runtime, name, stop) for name in config.sources]
        started = runtime.spool.begin_run("run")
        next_tidy = runtime.clock.monotonic() + TIDY_SECONDS
        while not stop.event.is_set():
            now = runtime.clock.monotonic()
            for turn in turns:
                if turn.due <= now and not stop.event.is_set():
                    _take(turn, runtime, log, once=once, after=after)
            runtime.courier.drain()
            if once:
                break
            if runtime.clock.monotonic() >= next_tidy:
                tidy(runtime)
                next_tidy = runtime.clock.monotonic() + TIDY_SECONDS
            pause = min(turn.due for turn in turns) - runtime.clock.monotonic()
            stop.event.wait(max(0.0, min(pause, 60.0)))
        for turn in turns:
            add(totals, turn.totals)
        runtime.courier.drain()
        runtime.spool.end_run(started, {"new": totals.new, "records": totals.records})
        tidy(runtime)
        if once:
            _fail(turns)
            deliver(runtime)
    return totals


def _fail(turns: list[_Turn]) -> None:
    """Raise what made a source fail: nobody comes back to it when there is no next turn."""
    for turn in turns:
        if turn.error is not None:
            raise turn.error


def _turn(runtime: Runtime, name: str, stop: Stop) -> _Turn:
    source = runtime.source(name)

    def committed(totals: Totals) -> None:
        _ship(runtime)
        if stop.event.is_set():
            raise _Stopped(totals)

    pipeline = runtime.pipeline(name, source, committed)
    return _Turn(name, source, pipeline, runtime.config.sources[name].interval)


def _ship(runtime: Runtime) -> None:
    runtime.courier.drain(at_least=runtime.flush_events)
    for shipper in runtime.shippers:
        shipper.wake()


def _take(
    turn: _Turn,
    runtime: Runtime,
    log: structlog.stdlib.BoundLogger,
    *,
    once: bool,
    after: Callable[[str, Totals], None] | None,
) -> None:
    """Give one source its turn."""
    began = runtime.clock.monotonic()
    try:
        done = turn.pipeline.run(Budget() if once else TURN, flush_older_than=None if once else JOIN_SECONDS)
    except _Stopped as stopped:
        done = stopped.totals
    except (TransientError, AuthError) as error:
        turn.error = error
        turn.failures += 1
        pause = min(_LONGEST_PAUSE, turn.interval * 2**turn.failures)
        turn.due = runtime.clock.monotonic() + pause
        log.warning("source failed", source=turn.name, error=str(error), retry_seconds=round(pause, 1))
        return
    turn.failures, turn.error = 0, None
    # More may be waiting when the budget ended the turn: come back at once.
    ended = runtime.clock.monotonic()
    more = done.records >= TURN.records or (done.records > 0 and ended - began >= TURN.seconds)
    turn.due = ended + (0.0 if more else turn.interval)
    add(turn.totals, done)
    notes = frozenset(getattr(turn.source, "notes", ()))
    for note in sorted(notes - turn.notes):
        log.warning("not read", source=turn.name, note=note)
    turn.notes = notes
    if done.records:
        log.info(
            "source read", source=turn.name, records=done.records, new=done.new, rejected=sum(done.rejected.values())
        )
    if after is not None:
        after(turn.name, done)
