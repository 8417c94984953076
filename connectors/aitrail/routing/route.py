"""The settings that every ``[destinations.NAME]`` has besides its type's own, and a destination with them applied."""

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

from msgspec import Meta, Struct

from aitrail.config import Config
from aitrail.destinations._raw_fields import UNENCODABLE_CODE
from aitrail.errors import ConfigError
from aitrail.event import ContentMode
from aitrail.ports import ACCESS, Ack, Destination, EncodedEvent, Limits, Verdict
from aitrail.privacy.lower import MADE_FROM, Redact
from aitrail.routing.by_stream import upkeep
from aitrail.routing.rate import Rate
from aitrail.routing.select import Rule
from aitrail.routing.shape import Reshape, chosen_fields, reshaping
from aitrail.routing.where import parse_where
from aitrail.streams import Stream


class RouteSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which events a destination gets, which of their fields, how much content, and how fast."""

    where: Annotated[
        str,
        Meta(description="Only accesses that meet this condition, e.g. `action_kind = 'inference'`; empty: all."),
    ] = ""
    fields: Annotated[
        tuple[str, ...], Meta(description="Only these fields (event_id, timestamp, tenant_id and source always).")
    ] = ()
    exclude_fields: Annotated[tuple[str, ...], Meta(description="All fields but these.")] = ()
    content: Annotated[
        ContentMode | None,
        Meta(
            description="Less content than the tenant's mode keeps: none, hash, redacted (from full), full, sealed; "
            "left out: as the tenant's mode."
        ),
    ] = None
    rate: Annotated[Rate, Meta(description="At most `{ events = N, bytes = N }` per second; 0: no limit.")] = Rate()
    parallel: Annotated[
        int,
        Meta(
            description="So many sends at once while much waits; more than 1 gives up the order of events.", ge=1, le=32
        ),
    ] = 1
    streams: Annotated[
        tuple[Stream, ...],
        Meta(description="Kinds of events: access, finding, health, checkpoint; left out: all that the type can take."),
    ] = ()


# The names that are taken out of the table before the type's own settings are read.
COMMON = RouteSettings.__struct_fields__


class Route(Struct, frozen=True):
    """A destination as it is configured.

    Attributes:
        destination: what events are handed to; it shapes them itself.
        rule: which events it gets.
        rate: how fast.
        parallel: how many sends at once.
    """

    destination: Destination
    rule: Rule
    rate: Rate = Rate()
    parallel: int = 1

    @property
    def name(self) -> str:
        """The destination's name in the outbox."""
        return self.destination.name


# Names a setting of the section for an error: ``file:line: destinations.NAME.setting``.
Where = Callable[[str], str]


def make_rule(settings: RouteSettings, supported: Sequence[Stream], at: Where) -> Rule:
    """Check ``where`` and ``streams``; ``supported`` are the kinds of events that the type can take.

    Raises:
        ConfigError: names the setting, the field or the kind of event, and what there is.
    """
    for stream in settings.streams:
        if stream not in supported:
            raise ConfigError(
                f"this type of destination takes no {stream} events",
                where=at("streams"),
                hint=f"it takes: {', '.join(supported)}",
            )
    condition = parse_where(settings.where, at("where")) if settings.where.strip() else None
    return Rule(frozenset(settings.streams or supported), condition)


def make_reshape(settings: RouteSettings, config: Config, at: Where, redact: Redact) -> Reshape | None:
    """Check ``content`` against every tenant's mode, and the lists of fields; None when events go out as they are.

    Raises:
        ConfigError: names the destination, the tenant and how to bring them together.
    """
    if settings.content is not None:
        _check_content(settings.content, config, at)
    names = chosen_fields(settings.fields, settings.exclude_fields, at)
    return reshaping(settings.content, names, redact)


def _check_content(wanted: ContentMode, config: Config, at: Where) -> None:
    """A destination cannot get what its tenants' modes do not keep."""
    tenants = {*config.tenants, *(source.tenant for source in config.sources.values())}
    if config.mapping.tenant or not tenants:
        tenants.add("default")
    for tenant in sorted(tenants):
        named = tenant if tenant in config.tenants else "default"
        mode = config.tenant(named).content
        if mode not in MADE_FROM[wanted]:
            raise ConfigError(
                f"content = {wanted!r} is more than tenants.{named}.content = {mode!r} keeps",
                where=at("content"),
                hint=f"set tenants.{named}.content to {_makes(wanted)}, or here one of: {_made_from(mode)}",
            )


def _makes(wanted: ContentMode) -> str:
    return " or ".join(sorted(mode for mode in MADE_FROM[wanted]))


def _made_from(mode: ContentMode) -> str:
    return ", ".join(wanted for wanted, modes in MADE_FROM.items() if mode in modes)


class Shaped:
    """A destination that gets every event shaped. An event that cannot be shaped is refused, never sent as it is."""

    def __init__(self, inner: Destination, reshape: Reshape) -> None:
        self._inner = inner
        self._reshape = reshape
        self.name = inner.name
        self.dedupe: Literal["by_id", "none"] = inner.dedupe
        self.limits: Limits = inner.limits

    @property
    def trouble(self) -> str:
        """As the destination says."""
        return str(getattr(self._inner, "trouble", ""))

    def check(self) -> list[str]:
        """As the destination says."""
        return self._inner.check()

    def send(self, batch: Sequence[EncodedEvent], deadline: float) -> Ack:
        """Shape ``batch`` and send it; raises as the destination does."""
        verdicts: list[Verdict | None] = [None] * len(batch)
        shaped: list[EncodedEvent] = []
        for place, event in enumerate(batch):
            try:
                shaped.append(self._reshape(event) if event.stream == ACCESS else event)
            except ValueError:
                verdicts[place] = _UNENCODABLE
        if len(shaped) == len(batch):
            return self._inner.send(shaped, deadline)
        judged = iter(self._inner.send(shaped, deadline).verdicts if shaped else ())
        return Ack([verdict or next(judged) for verdict in verdicts])

    def confirm(self, token: str) -> Verdict:
        """As the destination says."""
        return self._inner.confirm(token)

    def upkeep(self) -> None:
        """As the destination does."""
        upkeep(self._inner)

    def close(self) -> None:
        """Close the destination."""
        self._inner.close()


_UNENCODABLE = Verdict("rejected", code=UNENCODABLE_CODE)
