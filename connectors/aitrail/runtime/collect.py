"""Collect once: read what is new from every configured source into the store, then say what happened."""

from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct

from aitrail.config import Config, DirectoryConfig, SourceConfig, StoreConfig, TenantConfig
from aitrail.errors import TransientError
from aitrail.pipeline import Totals
from aitrail.ports import Source, Workload
from aitrail.runtime.assemble import Runtime, open_runtime
from aitrail.store.maintenance import compact, retain


class Outcome(Struct):
    """What a collection did, per source and together."""

    totals: Totals
    by_source: dict[str, Totals]
    notes: list[str]


class Progress(Struct):
    """Callbacks of a collection: ``start`` with what there is to read, ``step`` after each commit."""

    start: Callable[[str, Workload], None] = lambda name, work: None
    step: Callable[[str, Totals], None] = lambda name, totals: None


def collect(config: Config, progress: Progress | None = None) -> Outcome:
    """Read every source once and deliver everything to the store.

    Raises:
        ConfigError, AuthError, StoreError: as their names say; what was committed before stays.
    """
    progress = progress or Progress()
    outcome = Outcome(Totals(), {}, [])
    with open_runtime(config) as runtime:
        run = runtime.spool.begin_run("collect")
        for name in config.sources:
            outcome.by_source[name] = _one(runtime, name, progress, outcome.notes)
            add(outcome.totals, outcome.by_source[name])
        deliver(runtime)
        runtime.spool.end_run(run, {"new": outcome.totals.new, "records": outcome.totals.records})
        tidy(runtime)
    return outcome


def _one(runtime: Runtime, name: str, progress: Progress, notes: list[str]) -> Totals:
    def committed(totals: Totals) -> None:
        runtime.courier.drain(at_least=runtime.flush_events)
        progress.step(name, totals)

    source = runtime.source(name)
    try:
        progress.start(name, source.survey(runtime.spool.cursors(name)))
        totals = runtime.pipeline(name, source, committed).run()
    finally:
        _close(source)
    notes += [f"{name}: {note}" for note in getattr(source, "notes", [])]
    return totals


def _close(source: Source) -> None:
    """Let a source that holds connections give them back: a consumer group waits long for a member that is gone."""
    close = getattr(source, "close", None)
    if close is not None:
        close()


def deliver(runtime: Runtime) -> None:
    """Bring everything that was taken in into the store.

    Raises:
        TransientError: the store cannot take it now (disk full); it waits in the outbox, nothing is lost.
    """
    runtime.courier.drain()
    trouble = runtime.courier.state.last_error
    if trouble:
        raise TransientError(
            f"not everything is in the store yet: {trouble}",
            hint="mend that, run the command again: nothing is lost",
        )


def tidy(runtime: Runtime) -> None:
    """Apply retention and merge small segments, as configured."""
    settings = runtime.config.store
    if settings.retention_days:
        retain(runtime.spool, settings.retention_days)
    if settings.compact:
        compact(runtime.spool, lazily=True)


def one_off(
    paths: tuple[str, ...],
    store: Path,
    *,
    content: str,
    tenant: str,
    record_type: str,
    people: str,
    field_map: str = "",
) -> Config:
    """The configuration of a collection that has no file: one file source, one tenant, one store."""
    return Config(
        store=StoreConfig(dir=str(store)),
        tenants={tenant: msgspec.convert({"content": content}, TenantConfig)},
        sources={
            "files": SourceConfig(tenant=tenant, record_type=record_type, map=field_map, options={"paths": paths})
        },
        directory=DirectoryConfig(file=people),
    )


def replay(store: Path, ids: list[str], config: Config | None = None) -> Totals:
    """Read dead letters again from their places and settle those that have become events."""
    config = config or Config(store=StoreConfig(dir=str(store)))
    totals = Totals()
    with open_runtime(config) as runtime:
        found = [letter for letter in map(runtime.spool.deadletter, ids) if letter is not None]
        # What a destination refused is an event already: it goes back to that destination.
        refused = [letter.id for letter in found if letter.stage == "deliver"]
        runtime.spool.requeue(refused)
        letters = [letter for letter in found if letter.stage != "deliver"]
        for name in {letter.source for letter in letters}:
            mine = [letter for letter in letters if letter.source == name]
            files = {"paths": tuple({letter.origin for letter in mine})}
            settings = config.sources.get(name, SourceConfig(options=files))
            source = runtime.source(name, settings)
            try:
                add(totals, runtime.pipeline(name, source, lambda done: None, settings).replay(mine))
            finally:
                _close(source)
        deliver(runtime)
    return totals


def add(into: Totals, part: Totals) -> None:
    """Add the totals of one source to those of the run."""
    for name in ("records", "new", "duplicates", "bytes", "objects"):
        setattr(into, name, getattr(into, name) + getattr(part, name))
    into.rejected.update(part.rejected)
    into.skipped.update(part.skipped)
    into.by_type.update(part.by_type)
