"""Collect again and again until told to stop: one loop over the sources, one failing source never stops the others."""

import signal
import threading
from collections.abc import Callable
from types import FrameType

import structlog
from msgspec import Struct, field

from aitrail.config import Config
from aitrail.errors import AuthError, TransientError
from aitrail.pipeline import Pipeline, Totals
from aitrail.ports import Budget
from aitrail.runtime.assemble import Runtime, open_runtime
from aitrail.runtime.collect import add, tidy

# How long parts of one event may wait for their siblings before they are emitted without them.
JOIN_SECONDS = 900.0
# One turn of one source: short enough that a stop is prompt and that no source starves the others.
TURN = Budget(records=50_000, seconds=5.0)
_LONGEST_PAUSE = 300.0
# Small segments are merged and retention is applied this often, so that reports stay fast.
TIDY_SECONDS = 600.0


class _Turn(Struct):
    """One source's pipeline, when it is due, and how often it failed in a row."""

    name: str
    pipeline: Pipeline
    interval: float
    due: float = 0.0
    failures: int = 0
    totals: Totals = field(default_factory=Totals)


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
    """
    log = structlog.get_logger("aitrail.run")
    totals = Totals()
    with open_runtime(config) as runtime:
        turns = [_turn(runtime, name) for name in config.sources]
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
    return totals


def _turn(runtime: Runtime, name: str) -> _Turn:
    source = runtime.source(name)
    pipeline = runtime.pipeline(name, source, lambda totals: _ship(runtime))
    return _Turn(name, pipeline, runtime.config.sources[name].interval)


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
    try:
        done = turn.pipeline.run(Budget() if once else TURN, flush_older_than=None if once else JOIN_SECONDS)
    except (TransientError, AuthError) as error:
        turn.failures += 1
        pause = min(_LONGEST_PAUSE, turn.interval * 2**turn.failures)
        turn.due = runtime.clock.monotonic() + pause
        log.warning("source failed", source=turn.name, error=str(error), retry_seconds=round(pause, 1))
        return
    turn.failures = 0
    # More is waiting when the budget ended the turn: come back at once.
    more = not once and done.records >= TURN.records
    turn.due = runtime.clock.monotonic() + (0.0 if more else turn.interval)
    add(turn.totals, done)
    if done.records:
        log.info(
            "source read", source=turn.name, records=done.records, new=done.new, rejected=sum(done.rejected.values())
        )
    if after is not None:
        after(turn.name, done)
