"""The literal tables of what can be configured: name -> what makes it. A new source is one file and one line here."""

import importlib
from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from aitrail.clock import Clock
from aitrail.config import SOURCE_FIELDS, Config, SourceConfig
from aitrail.errors import ConfigError
from aitrail.normalize.registry import NORMALIZERS
from aitrail.ports import Destination, SecretResolver, Source
from aitrail.secrets import Secrets


class SourceKind(Struct, frozen=True):
    """Where a source's code is; imported when it is configured, because most need an extra.

    Attributes:
        module, source: the class, called as ``source(settings, name=, clock=, key=, secrets=)``.
        settings_module, settings: its settings.
        extra: what to install when the import fails.
    """

    module: str
    source: str
    settings_module: str
    settings: str
    extra: str = ""


_SOURCES = "aitrail.sources."
SOURCES: Mapping[str, SourceKind] = {
    "file": SourceKind(_SOURCES + "file", "from_settings", _SOURCES + "_file_settings", "FileSettings"),
}


def source_settings(name: str, settings: SourceConfig, config: Config) -> Any:
    """The settings of one source by its type; raises ``ConfigError`` that names the field and the known values."""
    entry = SOURCES.get(settings.type)
    if entry is None:
        raise ConfigError(
            f"unknown source type {settings.type!r}",
            where=config.where(f"sources.{name}.type"),
            hint=f"known: {', '.join(SOURCES)}",
        )
    if settings.record_type and settings.record_type not in NORMALIZERS:
        raise ConfigError(
            f"unknown record type {settings.record_type!r}",
            where=config.where(f"sources.{name}.record_type"),
            hint=f"known: {', '.join(NORMALIZERS)}",
        )
    kind = _imported(entry.settings_module, entry.settings, entry.extra, config.where(f"sources.{name}.type"))
    converted = config.section(f"sources.{name}", settings.options, kind, SOURCE_FIELDS)
    paths = getattr(converted, "paths", None)
    return converted if paths is None else replace(converted, paths=_resolved(paths, name, config))


def _resolved(paths: tuple[str, ...], name: str, config: Config) -> tuple[str, ...]:
    """Paths are relative to the configuration file; ``-`` is stdin."""
    if any("\0" in path for path in paths):
        raise ConfigError("a path holds a NUL character", where=config.where(f"sources.{name}.paths"))
    if not paths:
        where = config.where(f"sources.{name}.paths")
        raise ConfigError("a source of files needs paths", where=where, hint='paths = ["logs/*.json"]')
    return tuple(path if path == "-" else str(config.resolve(path)) for path in paths)


def make_source(name: str, settings: SourceConfig, config: Config, clock: Clock, key: bytes) -> Source:
    """Make one source; raises ``ConfigError`` that names the field and the known values.

    Args:
        name: section name.
        settings: that section.
        config: the whole configuration.
        clock: injected time.
        key: key for fingerprints of content, so that cursors tell nothing about it.
    """
    converted = source_settings(name, settings, config)
    entry = SOURCES[settings.type]
    make = _imported(entry.module, entry.source, entry.extra, config.where(f"sources.{name}.type"))
    source: Source = make(converted, name=name, clock=clock, key=key, secrets=Secrets())
    return source


def _imported(module: str, name: str, extra: str, where: str) -> Any:
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ConfigError(
            f"this type needs a package that is not installed ({error.name})",
            where=where,
            hint=f"pip install 'aitrail[{extra}]'",
        ) from None


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
    where = config.where(f"destinations.{name}.type")
    settings_kind = _imported(entry.settings_module, entry.settings, entry.extra, where)
    make = _imported(entry.module, entry.destination, entry.extra, where)
    settings = config.section(f"destinations.{name}", table, settings_kind)
    arguments = (settings, secrets) if entry.resolves else (settings,)
    destination: Destination = make(*arguments, name=name)
    return destination
