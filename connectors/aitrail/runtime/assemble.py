"""Put the parts together for the command line and the daemon: one place that knows who needs whom."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from msgspec import Struct

from aitrail.classify.default import DefaultClassifier
from aitrail.clock import Clock, SystemClock
from aitrail.config import Config, MappingConfig, SourceConfig
from aitrail.delivery import Courier
from aitrail.destinations.store import StoreDestination
from aitrail.enrich import Directory, load_directory
from aitrail.event import ContentMode
from aitrail.normalize.outcome import Context
from aitrail.pipeline import Pipeline, Totals
from aitrail.ports import Source
from aitrail.privacy.keys import KeyRing
from aitrail.privacy.sealing import Sealer
from aitrail.privacy.treat import Privacy
from aitrail.registry import make_destination, make_source
from aitrail.runtime.shipping import Shipper
from aitrail.secrets import Secrets
from aitrail.spool import Spool
from aitrail.transform import Transform


class Runtime(Struct):
    """Everything that one process needs to collect into one store."""

    config: Config
    spool: Spool
    transform: Transform
    courier: Courier
    ring: KeyRing
    clock: Clock
    directory: Path
    shippers: list[Shipper] = []

    @property
    def flush_events(self) -> int:
        """How many events make a segment worth writing while more are coming."""
        return self.courier.batch_events

    def source(self, name: str, settings: SourceConfig | None = None) -> Source:
        """Make the source ``[sources.name]``."""
        _, key = self.ring.active("default")
        return make_source(name, settings or self.config.sources[name], self.config, self.clock, key)

    def pipeline(
        self,
        name: str,
        source: Source,
        on_commit: Callable[[Totals], None],
        settings: SourceConfig | None = None,
    ) -> Pipeline:
        """Make the pipeline that reads ``source`` into the store."""
        settings = settings or self.config.sources[name]
        return Pipeline(
            source,
            spool=self.spool,
            transform=self.transform,
            context=context_of(self.config.mapping, settings.tenant),
            destinations=("store", *(shipper.name for shipper in self.shippers)),
            clock=self.clock,
            record_type=settings.record_type,
            on_commit=on_commit,
        )


def context_of(mapping: MappingConfig, tenant: str) -> Context:
    """What the normalizers may know, from the configuration."""
    return Context(
        tenant_id=tenant,
        user_keys=mapping.user,
        department_keys=mapping.department,
        session_keys=mapping.session,
        purpose_keys=mapping.purpose,
        ticket_keys=mapping.ticket,
        tenant_keys=mapping.tenant,
    )


def key_ring(config: Config, store: Path) -> KeyRing:
    """The tenants' keys: from the configuration's references, else from the store."""
    references = {name: tenant.key for name, tenant in config.tenants.items() if tenant.key}
    return KeyRing(store / "keys", references, Secrets())


# How long a stop waits for destinations to take what the outbox holds; the rest goes out at the next start.
DRAIN_SECONDS = 10.0


@contextmanager
def _tuned_collector() -> Iterator[None]:
    """Let the garbage collector look less often: records are Structs without cycles, freed by their counts.

    What the imports made is not looked at while the block runs. After it everything is as it was: types that the last
    collection at exit may not see make DuckDB's binding complain about leaks on stderr, page after page.
    """
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


@contextmanager
def open_runtime(config: Config, clock: Clock | None = None) -> Iterator[Runtime]:
    """Open the store for writing and put the parts together; gives everything back at the end.

    The configured destinations ship in threads of their own while the block runs.

    Raises:
        StoreError: another writer holds the store.
        ConfigError: a setting is wrong.
    """
    with _tuned_collector():
        yield from _open(config, clock or SystemClock())


def _open(config: Config, clock: Clock) -> Iterator[Runtime]:
    store = config.resolve(config.store.dir)
    people = load_directory(config.resolve(config.directory.file)) if config.directory.file else Directory()
    spool = Spool.open(store, clock)
    try:
        ring = key_ring(config, store)
        sealer = Sealer(store / "keys", ring) if needs_sealing(config) else None
        destination = StoreDestination(spool, store)
        shippers = [Shipper(spool, make_destination(name, config, Secrets()), clock) for name in config.destinations]
        try:
            for shipper in shippers:
                shipper.start()
            yield Runtime(
                config=config,
                spool=spool,
                transform=Transform(_classifier(), Privacy(ring, sealer), people, mode_of(config)),
                courier=Courier(spool, destination, clock),
                ring=ring,
                clock=clock,
                directory=store,
                shippers=shippers,
            )
        finally:
            for shipper in shippers:
                shipper.stop(DRAIN_SECONDS)
            destination.close()
            if sealer is not None:
                sealer.close()
    finally:
        spool.close()


@lru_cache(maxsize=1)
def _classifier() -> DefaultClassifier:
    """One per process: compiling its patterns takes a moment, and it keeps no state between calls."""
    return DefaultClassifier()


def mode_of(config: Config) -> Callable[[str], ContentMode]:
    """The content mode by tenant."""
    modes: dict[str, ContentMode] = {name: tenant.content for name, tenant in config.tenants.items()}
    fallback = config.tenant("default").content

    def lookup(tenant: str) -> ContentMode:
        return modes.get(tenant, fallback)

    return lookup


def needs_sealing(config: Config) -> bool:
    """Whether any tenant has the content mode ``sealed``."""
    return any(tenant.content == "sealed" for tenant in config.tenants.values())
