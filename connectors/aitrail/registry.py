"""The literal tables of what can be configured: name -> what makes it. A new source is one file and one line here."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from aitrail.clock import Clock
from aitrail.config import SOURCE_FIELDS, Config, SourceConfig
from aitrail.errors import ConfigError
from aitrail.normalize.registry import NORMALIZERS
from aitrail.ports import Destination, SecretResolver, Source
from aitrail.privacy.lower import Redact
from aitrail.routing.by_stream import ByStream
from aitrail.routing.route import COMMON, Route, RouteSettings, Shaped, make_reshape, make_rule
from aitrail.secrets import Secrets, check_reference
from aitrail.streams import Stream


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


# Settings that are references to secrets, of whatever source or destination has them.
SECRETS = (
    *("token", "api_key", "password", "shared_key", "management_token"),
    *("connection_string", "checkpoint_connection_string", "sas"),
)
_SOURCES = "aitrail.sources."
SOURCES: Mapping[str, SourceKind] = {
    "file": SourceKind(_SOURCES + "file", "from_settings", _SOURCES + "_file_settings", "FileSettings"),
    "s3_sqs": SourceKind(_SOURCES + "s3_sqs", "S3SqsSource", _SOURCES + "_aws_settings", "S3SqsSettings", "aws"),
    "s3": SourceKind(_SOURCES + "s3_bucket", "S3Source", _SOURCES + "_aws_settings", "S3Settings", "aws"),
    "cloudtrail_lookup": SourceKind(
        _SOURCES + "cloudtrail_lookup", "LookupSource", _SOURCES + "_aws_settings", "LookupSettings", "aws"
    ),
    "cloudwatch_logs": SourceKind(
        _SOURCES + "cloudwatch_logs", "CloudWatchSource", _SOURCES + "_aws_settings", "CloudWatchSettings", "aws"
    ),
    "sqs": SourceKind(_SOURCES + "sqs_messages", "SqsSource", _SOURCES + "_aws_settings", "SqsSettings", "aws"),
    "azure_blobs": SourceKind(
        _SOURCES + "azure_blobs", "AzureBlobsSource", _SOURCES + "_azure_blobs_settings", "AzureBlobsSettings", "azure"
    ),
    "event_hubs": SourceKind(
        _SOURCES + "event_hubs", "EventHubsSource", _SOURCES + "_event_hubs_settings", "EventHubsSettings", "azure"
    ),
    "log_analytics": SourceKind(
        _SOURCES + "log_analytics",
        "LogAnalyticsSource",
        _SOURCES + "_log_analytics_settings",
        "LogAnalyticsSettings",
        "azure",
    ),
    "kafka": SourceKind(
        _SOURCES + "kafka", "KafkaSource", _SOURCES + "_kafka_settings", "KafkaSourceSettings", "kafka"
    ),
    "openai_audit": SourceKind(
        _SOURCES + "openai_audit", "from_settings", _SOURCES + "_feeds_settings", "OpenAiAuditSettings"
    ),
    "anthropic_compliance": SourceKind(
        _SOURCES + "anthropic_compliance", "from_settings", _SOURCES + "_feeds_settings", "AnthropicSettings"
    ),
    "cloudflare_ai": SourceKind(
        _SOURCES + "cloudflare_ai", "from_settings", _SOURCES + "_feeds_settings", "CloudflareSettings"
    ),
    "databricks_ai": SourceKind(
        _SOURCES + "databricks_ai", "from_settings", _SOURCES + "_feeds_settings", "DatabricksSettings"
    ),
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
    if bool(settings.map) != (settings.record_type == "generic_access"):
        raise ConfigError(
            "a field map is for records of type generic_access, and these need one",
            where=config.where(f"sources.{name}.{'map' if settings.map else 'record_type'}"),
            hint='record_type = "generic_access" and map = "map.toml"; try it with: aitrail map FILE --map map.toml',
        )
    kind = _imported(entry.settings_module, entry.settings, entry.extra, config.where(f"sources.{name}.type"))
    converted = config.section(f"sources.{name}", settings.options, kind, SOURCE_FIELDS)
    _refuse_literals(f"sources.{name}", converted, config)
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
        streams: the kinds of events that it takes besides accesses, each with the settings that differ for it; without
            any the same instance takes them.
    """

    module: str
    destination: str
    settings_module: str
    settings: str
    extra: str = ""
    resolves: bool = True
    streams: Mapping[Stream, Mapping[str, Any]] = {}


_PACKAGE = "aitrail.destinations."
_AS_THEY_ARE: Mapping[Stream, Mapping[str, Any]] = {"finding": {}, "health": {}, "checkpoint": {}}
_BY_STREAM: Mapping[Stream, Mapping[str, Any]] = {stream: {"stream": stream} for stream in _AS_THEY_ARE}
DESTINATIONS: Mapping[str, DestinationKind] = {
    "splunk": DestinationKind(
        _PACKAGE + "splunk",
        "SplunkDestination",
        _PACKAGE + "_splunk_settings",
        "SplunkSettings",
        streams=_BY_STREAM,
    ),
    "elastic": DestinationKind(
        _PACKAGE + "elastic",
        "ElasticDestination",
        _PACKAGE + "_elastic_settings",
        "ElasticSettings",
        "elastic",
        streams=_BY_STREAM,
    ),
    "kafka": DestinationKind(
        _PACKAGE + "kafka",
        "KafkaDestination",
        _PACKAGE + "_kafka_settings",
        "KafkaSettings",
        "kafka",
        streams=_AS_THEY_ARE,
    ),
    "sentinel": DestinationKind(
        _PACKAGE + "sentinel",
        "SentinelDestination",
        _PACKAGE + "_sentinel_settings",
        "SentinelSettings",
        "azure",
        resolves=False,
        streams=_BY_STREAM,
    ),
    "fluentd": DestinationKind(
        _PACKAGE + "fluentd",
        "FluentdDestination",
        _PACKAGE + "_fluentd_settings",
        "FluentdSettings",
        streams=_BY_STREAM,
    ),
    "lake": DestinationKind(
        _PACKAGE + "lake",
        "LakeDestination",
        _PACKAGE + "_lake_settings",
        "LakeSettings",
        "aws",
        resolves=False,
        streams={"finding": {"stream": "finding"}},
    ),
    "syslog": DestinationKind(
        _PACKAGE + "syslog", "SyslogDestination", _PACKAGE + "_syslog_settings", "SyslogSettings", resolves=False
    ),
    "stdout": DestinationKind(
        _PACKAGE + "stdout",
        "from_settings",
        _PACKAGE + "_stdout_settings",
        "StdoutSettings",
        resolves=False,
        streams=_AS_THEY_ARE,
    ),
}


def make_destination(name: str, config: Config, secrets: SecretResolver) -> Destination:
    """Make one destination; raises ``ConfigError`` that names the field, the known values or the missing extra.

    It is the bare one, for accesses, with nothing of ``where``, ``fields`` or ``content`` applied: for installing,
    verifying and checking. What the outbox is shipped to is made by ``make_route``.
    """
    return _maker(name, config, secrets)({})


def make_route(name: str, config: Config, secrets: SecretResolver, redact: Redact) -> Route:
    """Make one destination with its common settings applied.

    Args:
        name: section name.
        config: the whole configuration.
        secrets: resolves references when they are needed.
        redact: masks the texts of an event, for ``content = "redacted"`` of a tenant that keeps them in full.

    Raises:
        ConfigError: as ``make_destination``; or the condition, a field or the content mode is wrong.
    """

    def at(setting: str) -> str:
        return config.where(f"destinations.{name}.{setting}")

    entry, common, _ = _parts(name, config)
    supported: list[Stream] = ["access", *entry.streams]
    rule = make_rule(common, supported, at)
    reshape = make_reshape(common, config, at, redact)
    make = _maker(name, config, secrets)
    main = make({})
    others: dict[str, Destination] = {}
    try:
        for stream in sorted(rule.streams - {"access"}):
            different = entry.streams[stream]  # type: ignore[index]  # make_rule has checked it
            others[stream] = make(different) if different else main
    except BaseException:
        for one in (main, *others.values()):
            one.close()
        raise
    destination: Destination = ByStream(main, others) if others else main
    shaped = Shaped(destination, reshape) if reshape is not None else destination
    return Route(shaped, rule, common.rate, common.parallel)


def configured(name: str, config: Config) -> tuple[str, Any]:
    """The type and the settings of one configured destination; raises ``ConfigError`` as ``make_destination`` does."""
    entry, _, table = _parts(name, config)
    where = config.where(f"destinations.{name}.type")
    kind = _imported(entry.settings_module, entry.settings, entry.extra, where)
    settings = config.section(f"destinations.{name}", table, kind, COMMON)
    _refuse_literals(f"destinations.{name}", settings, config)
    return str(config.destinations[name]["type"]), settings


def _refuse_literals(section: str, settings: Any, config: Config) -> None:
    """A secret in the file itself is refused before anything is reached with it; it is not repeated."""
    for field in SECRETS:
        reference = getattr(settings, field, "")
        wrong = check_reference(reference) if reference else ""
        if wrong:
            raise ConfigError(wrong, where=config.where(f"{section}.{field}"), hint=f'{field} = "env:NAME"')


def destination_settings(kind: str) -> type[Any]:
    """The settings of one type of destination, for the documentation."""
    entry = DESTINATIONS[kind]
    found: type[Any] = getattr(importlib.import_module(entry.settings_module), entry.settings)
    return found


def _parts(name: str, config: Config) -> tuple[DestinationKind, RouteSettings, dict[str, Any]]:
    """The kind of a destination, the settings that all have, and the rest of its table."""
    section = f"destinations.{name}"
    table: dict[str, Any] = dict(config.destinations[name])
    kind = table.pop("type", "")
    entry = DESTINATIONS.get(kind) if isinstance(kind, str) else None
    if entry is None:
        raise ConfigError(
            f"unknown destination type {kind!r}" if kind else "the type is missing",
            where=config.where(f"{section}.type"),
            hint=f"known: {', '.join(DESTINATIONS)}; the embedded store is always there",
        )
    common = {key: table.pop(key) for key in COMMON if key in table}
    return entry, config.section(section, common, RouteSettings), table


def _maker(name: str, config: Config, secrets: SecretResolver) -> Callable[[Mapping[str, Any]], Destination]:
    """Give what makes the destination, with some of its settings replaced."""
    entry, _, _ = _parts(name, config)
    where = config.where(f"destinations.{name}.type")
    _, settings = configured(name, config)
    make = _imported(entry.module, entry.destination, entry.extra, where)

    def made(different: Mapping[str, Any]) -> Destination:
        mine = replace(settings, **different) if different else settings
        arguments = (mine, secrets) if entry.resolves else (mine,)
        destination: Destination = make(*arguments, name=name)
        return destination

    return made
