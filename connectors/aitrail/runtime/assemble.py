"""Put the parts together for the command line and the daemon: one place that knows who needs whom."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from aitrail.classify.contract import Classifier
from aitrail.clock import Clock, SystemClock
from aitrail.config import Config, SourceConfig
from aitrail.delivery import Courier
from aitrail.destinations.store import StoreDestination
from aitrail.enrich import Directory, load_directory
from aitrail.normalize.outcome import Context
from aitrail.pipeline import Pipeline, Totals
from aitrail.ports import Source
from aitrail.privacy.keys import KeyRing
from aitrail.privacy.sealing import Sealer
from aitrail.privacy.treat import Privacy
from aitrail.registry import make_route, make_source
from aitrail.routing.route import Route
from aitrail.routing.select import Rule, Selector
from aitrail.routing.shape import redacting
from aitrail.runtime.contexts import context_of, mode_of, needs_sealing
from aitrail.runtime.field_maps import read_map
from aitrail.runtime.judging import make_judging
from aitrail.runtime.shipping import Shipper
from aitrail.secrets import Secrets
from aitrail.spool import Cap, Spool
from aitrail.spool.states import SourceState
from aitrail.transform import Transform

# How long a stop waits for destinations to take what the outbox holds; the rest goes out at the next start.
DRAIN_SECONDS = 10.0
# The embedded store in the outbox; it keeps accesses, all of them.
STORE = "store"
ACCESSES = Rule(frozenset({"access"}))


class Runtime(Struct):
    """Everything that one process needs to collect into one store.

    Attributes:
        drain_seconds: how long the destinations may take at the end.
        at_end: called once they have stopped, while the store is still open.
    """

    config: Config
    spool: Spool
    transform: Transform
    courier: Courier
    ring: KeyRing
    clock: Clock
    directory: Path
    shippers: list[Shipper] = []
    drain_seconds: float = DRAIN_SECONDS
    at_end: Callable[[], None] = lambda: None

    @property
    def flush_events(self) -> int:
        """How many events make a segment worth writing while more are coming."""
        return self.courier.batch_events

    def source(self, name: str, settings: SourceConfig | None = None) -> Source:
        """Make the source ``[sources.name]``."""
        _, key = self.ring.active("default")
        return make_source(name, settings or self.config.sources[name], self.config, self.clock, key)

    def context(self, tenant: str, field_map: str = "") -> Context:
        """What the normalizers of a source or receiver may know; raises ``ConfigError`` when the field map is wrong."""
        known = context_of(self.config.mapping, tenant)
        if not field_map:
            return known
        return msgspec.structs.replace(known, field_map=read_map(self.config.resolve(field_map)))

    def pipeline(
        self,
        name: str,
        source: Source,
        on_commit: Callable[[Totals], None],
        settings: SourceConfig | None = None,
        *,
        namespace: str = "",
        state: SourceState | None = None,
    ) -> Pipeline:
        """Make the pipeline that reads ``source`` into the store.

        ``namespace`` names other cursors than the source's own; ``state`` is kept up to date and saved.
        """
        settings = settings or self.config.sources[name]
        return Pipeline(
            source,
            spool=self.spool,
            transform=self.transform,
            context=self.context(settings.tenant, settings.map),
            destinations=(STORE, *(shipper.name for shipper in self.shippers)),
            clock=self.clock,
            record_type=settings.record_type,
            on_commit=on_commit,
            namespace=namespace,
            state=state,
        )


def key_ring(config: Config, store: Path) -> KeyRing:
    """The tenants' keys: from the configuration's references, else from the store."""
    references = {name: tenant.key for name, tenant in config.tenants.items() if tenant.key}
    return KeyRing(store / "keys", references, Secrets())


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
        judging = make_judging(config, ring, clock, Secrets())
        shippers = _shippers(config, spool, clock, judging.classifier)
        runtime: Runtime | None = None
        try:
            for shipper in shippers:
                shipper.start()
            runtime = Runtime(
                config=config,
                spool=spool,
                transform=Transform(
                    judging.classifier, Privacy(ring, sealer), people, mode_of(config), judging.guard, judging.panel
                ),
                courier=Courier(spool, destination, clock),
                ring=ring,
                clock=clock,
                directory=store,
                shippers=shippers,
            )
            yield runtime
        finally:
            _stop(shippers, runtime.drain_seconds if runtime else 0.0)
            if runtime is not None:
                runtime.at_end()
            destination.close()
            judging.panel.close()
            if sealer is not None:
                sealer.close()
    finally:
        spool.close()


def _stop(shippers: list[Shipper], seconds: float) -> None:
    """Let all destinations take what waits, side by side, for ``seconds`` together."""
    deadline = time.monotonic() + seconds
    for shipper in shippers:
        shipper.finish()
    for shipper in shippers:
        shipper.stop(max(0.0, deadline - time.monotonic()))


def _shippers(config: Config, spool: Spool, clock: Clock, classifier: Classifier) -> list[Shipper]:
    """Make every configured destination, and tell the spool what each of them gets."""
    redact = redacting(lambda: classifier)
    routes: list[Route] = []
    try:
        for name in config.destinations:
            routes.append(make_route(name, config, Secrets(), redact))  # noqa: PERF401  (closed below)
    except BaseException:
        for route in routes:
            route.destination.close()
        raise
    spool.chooser = Selector({STORE: ACCESSES} | {route.name: route.rule for route in routes})
    spool.cap = Cap(bytes=config.spool.max_bytes, seconds=config.spool.max_age_hours * 3600)
    return [Shipper(spool, route.destination, clock, rate=route.rate, parallel=route.parallel) for route in routes]
