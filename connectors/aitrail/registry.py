"""The literal tables of what can be configured: name -> what makes it. A new source is one file and one line here."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from aitrail.clock import Clock
from aitrail.config import Config, SourceConfig
from aitrail.errors import ConfigError
from aitrail.normalize.registry import NORMALIZERS
from aitrail.ports import Destination, SecretResolver, Source
from aitrail.sources._caps import Caps
from aitrail.sources.file import FileSource


def _file(name: str, settings: SourceConfig, config: Config, clock: Clock, key: bytes) -> Source:
    if not settings.paths:
        raise ConfigError(
            "a file source needs paths", where=f"{config.path}: sources.{name}.paths", hint='paths = ["logs/*.json"]'
        )
    paths = [path if path == "-" else str(config.resolve(path)) for path in settings.paths]
    caps = Caps(text_bytes=settings.max_file_mb << 20)
    return FileSource(name, paths, caps=caps, clock=clock, key=key)


MakeSource = Callable[[str, SourceConfig, Config, Clock, bytes], Source]
SOURCES: Mapping[str, MakeSource] = {"file": _file}


def make_source(name: str, settings: SourceConfig, config: Config, clock: Clock, key: bytes) -> Source:
    """Make one source; raises ``ConfigError`` that names the field and the known values.

    Args:
        name: section name.
        settings: that section.
        config: the whole configuration.
        clock: injected time.
        key: key for fingerprints of content, so that cursors tell nothing about it.
    """
    make = SOURCES.get(settings.type)
    if make is None:
        raise ConfigError(
            f"unknown source type {settings.type!r}",
            where=f"{config.path}: sources.{name}.type",
            hint=f"known: {', '.join(SOURCES)}",
        )
    if settings.record_type and settings.record_type not in NORMALIZERS:
        raise ConfigError(
            f"unknown record type {settings.record_type!r}",
            where=f"{config.path}: sources.{name}.record_type",
            hint=f"known: {', '.join(NORMALIZERS)}",
        )
    return make(name, settings, config, clock, key)


class DestinationKind(Struct, frozen=True):
    """Where a destination's code is; imported when it is configured, because most need an extra.

    Attributes:
        module, destination: the class, called as ``destination(settings[, secrets], name=name)``.
        settings_module, settings: its settings.
        extra: what to install when the import fails.
        resolves: whether it takes the resolver of secrets.
    """

    module: str
    destination: str
    settings_module: str
    settings: str
    extra: str = ""
    resolves: bool = True


_PACKAGE = "aitrail.destinations."
DESTINATIONS: Mapping[str, DestinationKind] = {
    "splunk": DestinationKind(
        _PACKAGE + "splunk", "SplunkDestination", _PACKAGE + "_splunk_settings", "SplunkSettings"
    ),
    "elastic": DestinationKind(
        _PACKAGE + "elastic", "ElasticDestination", _PACKAGE + "_elastic_settings", "ElasticSettings", "elastic"
    ),
    "kafka": DestinationKind(
        _PACKAGE + "kafka", "KafkaDestination", _PACKAGE + "_kafka_settings", "KafkaSettings", "kafka"
    ),
    "sentinel": DestinationKind(
        _PACKAGE + "sentinel",
        "SentinelDestination",
        _PACKAGE + "_sentinel_settings",
        "SentinelSettings",
        "azure",
        resolves=False,
    ),
    "fluentd": DestinationKind(
        _PACKAGE + "fluentd", "FluentdDestination", _PACKAGE + "_fluentd_settings", "FluentdSettings"
    ),
    "lake": DestinationKind(
        _PACKAGE + "lake", "LakeDestination", _PACKAGE + "_lake_settings", "LakeSettings", "aws", resolves=False
    ),
    "syslog": DestinationKind(
        _PACKAGE + "syslog", "SyslogDestination", _PACKAGE + "_syslog_settings", "SyslogSettings", resolves=False
    ),
}


def make_destination(name: str, config: Config, secrets: SecretResolver) -> Destination:
    """Make one destination; raises ``ConfigError`` that names the field, the known values or the missing extra."""
    table: dict[str, Any] = dict(config.destinations[name])
    kind = table.pop("type", "")
    entry = DESTINATIONS.get(kind) if isinstance(kind, str) else None
    if entry is None:
        raise ConfigError(
            f"unknown destination type {kind!r}" if kind else "the type is missing",
            where=config.where(f"destinations.{name}.type"),
            hint=f"known: {', '.join(DESTINATIONS)}; the embedded store is always there",
        )
    try:
        settings_kind = getattr(importlib.import_module(entry.settings_module), entry.settings)
        make = getattr(importlib.import_module(entry.module), entry.destination)
    except ImportError as error:
        raise ConfigError(
            f"destination type {kind!r} needs a package that is not installed ({error.name})",
            where=config.where(f"destinations.{name}.type"),
            hint=f"pip install 'aitrail[{entry.extra}]'",
        ) from None
    settings = config.section(f"destinations.{name}", table, settings_kind)
    arguments = (settings, secrets) if entry.resolves else (settings,)
    destination: Destination = make(*arguments, name=name)
    return destination
