"""What a function needs to turn records into delivered events, put together once per worker process.

Nothing here touches a disk: tenants' keys come from secret references alone, content mode ``sealed`` (whose keys need a
store of their own) is refused, and there is no embedded store, no ledger and no UEBA in a function: those belong to a
collector that stays.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from aitrail.clock import Clock, SystemClock
from aitrail.config import Config, SourceConfig
from aitrail.enrich import Directory, load_directory
from aitrail.errors import ConfigError, TransientError
from aitrail.pipeline import Pipeline
from aitrail.ports import Budget, Cursors, RawBatch, SecretResolver, Source, Workload
from aitrail.privacy.keys import KeyRing
from aitrail.privacy.treat import Privacy
from aitrail.registry import make_route, make_source
from aitrail.routing.route import Route
from aitrail.routing.shape import redacting
from aitrail.runtime.contexts import context_of, mode_of, needs_sealing
from aitrail.runtime.field_maps import read_map
from aitrail.runtime.judging import Judging, make_judging
from aitrail.runtime.scheduled.direct import Left, Outlet
from aitrail.spool.states import SourceState
from aitrail.transform import Transform

_KEY_HINT = 'set [tenants.default] key = "aws-sm:NAME" (or "azure-kv:NAME", "env:NAME"): every run needs the same key'


class RunClock:
    """The machine's clocks for one run after the other: nobody sleeps beyond the end of the run.

    Attributes:
        left: seconds that may still be used; set at the start of each run.
    """

    def __init__(self) -> None:
        self._clock = SystemClock()
        self.left: Left = lambda: float("inf")

    def now(self) -> float:
        """Seconds since the epoch (UTC)."""
        return self._clock.now()

    def monotonic(self) -> float:
        """Seconds of a clock that never goes back."""
        return self._clock.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait ``seconds``; raises ``TransientError`` at once when the run is over before."""
        if seconds >= self.left():
            raise TransientError("the time of this run is over")
        self._clock.sleep(seconds)


class Parts(Struct):
    """Everything that runs of one worker share; no run leaves anything in it but connections."""

    config: Config
    clock: Clock
    ring: KeyRing
    routes: list[Route]
    transform: Transform
    judging: Judging
    sources: dict[str, Source] = {}

    def source(self, name: str) -> Source:
        """The source ``[sources.NAME]``; made when it is first asked for."""
        found = self.sources.get(name)
        if found is None:
            _, key = self.ring.active("default")
            found = make_source(name, self.config.sources[name], self.config, self.clock, key)
            self.sources[name] = found
        return found

    def pipeline(
        self, source: Source, outlet: Outlet, settings: SourceConfig, state: SourceState | None = None
    ) -> Pipeline:
        """The flow from ``source`` to ``outlet``; ``state`` says afterwards how new the newest event is."""
        known = context_of(self.config.mapping, settings.tenant)
        if settings.map:
            known = msgspec.structs.replace(known, field_map=read_map(self.config.resolve(settings.map)))
        return Pipeline(
            source,
            spool=outlet,
            transform=self.transform,
            context=known,
            destinations=[route.name for route in self.routes],
            clock=self.clock,
            record_type=settings.record_type,
            state=state,
        )

    def close(self) -> None:
        """Give back connections."""
        for source in self.sources.values():
            getattr(source, "close", lambda: None)()
        for route in self.routes:
            route.destination.close()
        self.judging.panel.close()


class Pushed:
    """A source of which nothing is fetched: its records are handed over (``direct.push``)."""

    def __init__(self, name: str) -> None:
        self.name = name

    def survey(self, cursors: Cursors) -> Workload:
        """Nothing."""
        del cursors
        return Workload()

    def fetch(self, cursors: Cursors, budget: Budget) -> Iterator[RawBatch]:
        """Nothing."""
        del cursors, budget
        return iter(())

    def check(self) -> list[str]:
        """Nothing can be wrong."""
        return []

    def reread(self, origin: str, position: int, end: int, index: int) -> bytes | None:
        """What was pushed is not there any more."""
        del origin, position, end, index
        return None


class _EveryTenant(Mapping[str, str]):
    """Key references by tenant; who has none of his own has the default tenant's."""

    def __init__(self, config: Config) -> None:
        self._own = {name: tenant.key for name, tenant in config.tenants.items() if tenant.key}
        if "default" not in self._own:
            raise ConfigError("a function keeps no keys of its own", where="tenants.default.key", hint=_KEY_HINT)

    def __contains__(self, tenant: object) -> bool:
        return isinstance(tenant, str)

    def __getitem__(self, tenant: str) -> str:
        return self._own.get(tenant, self._own["default"])

    def __iter__(self) -> Iterator[str]:
        return iter(self._own)

    def __len__(self) -> int:
        return len(self._own)


def make_parts(config: Config, clock: Clock, secrets: SecretResolver, routes: Sequence[Route] | None = None) -> Parts:
    """Put the parts together; nothing is called yet but for secrets that a destination wants at once.

    Args:
        config: the configuration.
        clock: time.
        secrets: resolves references.
        routes: where events go, for a host that takes them itself; None: what the configuration says.

    Raises:
        ConfigError: a setting is wrong, or cannot be had in a function; names the file, the setting and the fix.
    """
    if needs_sealing(config):
        hint = "use redacted, hash or none here; seal with a collector that stays (aitrail run)"
        raise ConfigError("content = 'sealed' needs a store for its keys", where="tenants", hint=hint)
    if not config.destinations and not routes:
        raise ConfigError("there is no destination", where="destinations", hint="add a [destinations.NAME]")
    people = load_directory(config.resolve(config.directory.file)) if config.directory.file else Directory()
    ring = KeyRing(Path("/nonexistent"), _EveryTenant(config), secrets)
    judging = make_judging(config, ring, clock, secrets)
    made = _routes(config, secrets, lambda: judging) if routes is None else list(routes)
    privacy = Privacy(ring, None)
    transform = Transform(judging.classifier, privacy, people, mode_of(config), judging.guard, judging.panel)
    return Parts(config, clock, ring, made, transform, judging)


def _routes(config: Config, secrets: SecretResolver, judging: Callable[[], Judging]) -> list[Route]:
    redact = redacting(lambda: judging().classifier)
    routes: list[Route] = []
    try:
        for name in config.destinations:
            routes.append(make_route(name, config, secrets, redact))  # noqa: PERF401  (closed below)
    except BaseException:
        for route in routes:
            route.destination.close()
        raise
    return routes
