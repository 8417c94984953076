"""Read a stretch of the past once more, beside the live cursor: what is known already is recognised and dropped.

A back-fill has cursors of its own, named after its source and range, so it can be stopped and run again, and the live
cursor stays where it is.
"""

from collections.abc import Callable
from datetime import UTC, datetime

from msgspec import Struct

from aitrail.clock import iso_ms
from aitrail.config import Config
from aitrail.errors import ConfigError
from aitrail.pipeline import Totals
from aitrail.ports import Ranged, Source, Workload
from aitrail.runtime.assemble import Runtime, open_runtime
from aitrail.runtime.collect import deliver, tidy
from aitrail.runtime.signals import Stop
from aitrail.spool.leases import SqliteLeases

_LEASE_SECONDS = 120.0


class Range(Struct, frozen=True):
    """[start, end) in epoch seconds."""

    start: float
    end: float

    @property
    def text(self) -> str:
        """As it is named in cursors and messages."""
        return f"{iso_ms(self.start)}..{iso_ms(self.end)}"


class Backfilled(Struct):
    """What a back-fill did; ``done`` is False when it was stopped before its end."""

    totals: Totals
    done: bool
    notes: list[str]


def parse_range(start: str, end: str, now: float) -> Range:
    """Read two ISO 8601 dates or times (UTC unless they say otherwise); an empty ``end`` is now.

    Raises:
        ConfigError: one is no date, they are the wrong way round, or the range lies ahead.
    """
    begins = _moment(start, "--from")
    ends = _moment(end, "--to") if end else now
    if begins >= ends:
        raise ConfigError(
            f"the range is empty: it begins {iso_ms(begins)} and ends {iso_ms(ends)}",
            where="--from, --to",
            hint="--from is the earlier one; --to is the first moment that is not read",
        )
    return Range(begins, min(ends, now))


def _moment(text: str, where: str) -> float:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ConfigError(
            f"{text[:40]!r} is no date", where=where, hint="write 2026-11-01 or 2026-11-01T08:00:00Z"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def ranged(source: Source, name: str, kind: str, span: Range) -> Source:
    """The source that reads ``span``; raises ``ConfigError`` when it has no past to read."""
    if not isinstance(source, Ranged):
        raise ConfigError(
            f"source {name}: a source of type {kind} cannot read a range of the past",
            hint="read what it holds with `aitrail run`, or collect an export of that time with `aitrail collect`",
        )
    return source.ranged(span.start, span.end)


def backfill(
    config: Config,
    name: str,
    span: Range,
    stop: Stop,
    *,
    start: Callable[[Workload], None] = lambda work: None,
    step: Callable[[Totals], None] = lambda totals: None,
) -> Backfilled:
    """Read what ``[sources.name]`` holds of ``span`` into the store.

    Raises:
        ConfigError: the source cannot read a range.
        StoreError: another process collects into this store.
        TransientError, AuthError: the source failed; what was committed stays, run it again to go on.
    """
    with open_runtime(config) as runtime:
        source = ranged(runtime.source(name), name, config.sources[name].type, span)
        run = runtime.spool.begin_run("backfill")
        result = _read(runtime, name, source, span, stop, start, step)
        close = getattr(source, "close", None)
        if close is not None:
            close()
        deliver(runtime)
        runtime.spool.end_run(run, {"new": result.totals.new, "records": result.totals.records})
        if result.done:
            tidy(runtime)
    return result


class _Stopped(Exception):  # noqa: N818  (no error: it leaves the pipeline between two commits)
    """The stop came in the middle; ``totals`` is what is committed."""

    def __init__(self, totals: Totals) -> None:
        super().__init__()
        self.totals = totals


def _read(
    runtime: Runtime,
    name: str,
    source: Source,
    span: Range,
    stop: Stop,
    start: Callable[[Workload], None],
    step: Callable[[Totals], None],
) -> Backfilled:
    namespace = f"{name}@{span.text}"
    leases = SqliteLeases(runtime.spool.database)
    leases.reclaim()
    lease = leases.acquire(namespace, _LEASE_SECONDS)
    renewed = runtime.clock.monotonic()

    def committed(totals: Totals) -> None:
        nonlocal renewed
        runtime.courier.drain(at_least=runtime.flush_events)
        for shipper in runtime.shippers:
            shipper.wake()
        if lease is not None and runtime.clock.monotonic() - renewed > _LEASE_SECONDS / 4:
            leases.renew([lease], _LEASE_SECONDS)
            renewed = runtime.clock.monotonic()
        step(totals)
        if stop.requested:
            raise _Stopped(totals)

    start(source.survey(runtime.spool.cursors(namespace)))
    pipeline = runtime.pipeline(name, source, committed, namespace=namespace)
    pipeline.lease = lease
    try:
        result = Backfilled(pipeline.run(), done=True, notes=[])
    except _Stopped as stopped:
        result = Backfilled(stopped.totals, done=False, notes=[])
    if lease is not None:
        leases.release([lease])
    result.notes = list(getattr(source, "notes", []))
    return result
