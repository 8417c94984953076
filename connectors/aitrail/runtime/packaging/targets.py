"""What can be packaged: the two platforms, and what a choice of sources and destinations means for the files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from aitrail.config import Config, load
from aitrail.errors import ConfigError
from aitrail.registry import DESTINATIONS, SOURCES
from aitrail.runtime.packaging.closure import FEATURES
from aitrail.runtime.scheduled.azure_host import FUNCTION_APP, host_json_text


class Target(Struct, frozen=True):
    """A platform.

    Attributes:
        roots: what is imported there.
        library: where modules lie in the zip, with a slash at the end; empty: at its root.
        provided: distributions that the platform has itself.
        unused: modules of whose optional imports none happens there: content mode ``sealed`` is refused, nothing is
            verified by hand, and a function app asks for its identity itself.
        pushed: types of sources that the platform hands over itself: only their settings are needed.
        sources: types that can be read there; the first ones are the default.
        files: what else lies in the zip.
        glibc: minor version of the platform's glibc 2: which wheels run there.
        folder: where the zip is unpacked there; what tracebacks say.
    """

    roots: tuple[str, ...]
    library: str
    provided: frozenset[str]
    unused: frozenset[str]
    pushed: frozenset[str]
    sources: tuple[str, ...]
    defaults: int
    files: Mapping[str, bytes]
    glibc: int
    folder: str


_NEVER = frozenset({"aitrail.privacy.sealing", "aitrail.destinations.sentinel_verify"})
TARGETS: Mapping[str, Target] = {
    # AWS Lambda developer guide, "Lambda runtimes": python3.13 runs on Amazon Linux 2023 (glibc 2.34) and has boto3.
    "lambda": Target(
        ("aitrail.runtime.aws_lambda", "aitrail.secrets_aws"),
        "",
        frozenset({"boto3"}),
        _NEVER,
        frozenset({"s3_sqs"}),
        ("s3_sqs", "cloudtrail_lookup", "cloudwatch_logs", "s3", "openai_audit", "anthropic_compliance",
         "cloudflare_ai", "databricks_ai"),
        3,
        {},
        34,
        "/var/task",
    ),
    # Azure Functions Python worker images are Debian 11 or newer (glibc 2.31).
    "function": Target(
        ("aitrail.runtime.azure_function", "aitrail.secrets_azure"),
        ".python_packages/lib/site-packages/",
        frozenset({"azure-functions"}),
        _NEVER | {"aitrail.destinations._azure_token", "aitrail.secrets_azure", "aitrail.sources._azure_identity"},
        frozenset({"event_hubs"}),
        ("event_hubs", "azure_blobs", "log_analytics", "openai_audit", "anthropic_compliance", "cloudflare_ai",
         "databricks_ai"),
        3,
        {"function_app.py": FUNCTION_APP.encode(), "host.json": host_json_text().encode()},
        31,
        "/home/site/wwwroot",
    ),
}  # fmt: skip
ARCHITECTURES: Mapping[str, str] = {"x86_64": "x86_64", "arm64": "aarch64"}


class Choice(Struct, frozen=True):
    """What is packaged: types of sources and destinations, and features; see ``choose``."""

    target: str
    arch: str
    python: str
    sources: tuple[str, ...]
    destinations: tuple[str, ...]
    features: tuple[str, ...] = ()
    config: Config | None = None

    def roots(self) -> list[str]:
        """Modules that everything else follows from."""
        target = TARGETS[self.target]
        found = list(target.roots)
        for source in self.sources:
            found += [SOURCES[source].settings_module]
            found += [] if source in target.pushed else [SOURCES[source].module]
        for destination in self.destinations:
            found += [DESTINATIONS[destination].module, DESTINATIONS[destination].settings_module]
        for feature in self.features:
            found += FEATURES[feature]
        return found

    def files(self) -> dict[str, bytes]:
        """What lies in the zip besides code: the platform's files and the configuration with what it names."""
        found = dict(TARGETS[self.target].files)
        if self.config is not None:
            found["aitrail.toml"] = self.config.text.encode()
            for path in named_files(self.config):
                found |= _below(path, Path(self.config.path).parent)
        return found


def choose(
    target: str,
    sources: Sequence[str],
    destinations: Sequence[str],
    config_path: Path | None,
    *,
    arch: str,
    python: str,
) -> Choice:
    """Check a choice; what is not named comes from the configuration, else from the target's defaults.

    Raises:
        ConfigError: names what is wrong and what there is.
    """
    config = load(config_path) if config_path is not None else None
    features: list[str] = []
    if config is not None:
        sources = sources or sorted({one.type for one in config.sources.values()})
        destinations = destinations or sorted({str(one.get("type", "")) for one in config.destinations.values()})
        features = sorted({str(one.get("type", "")) for one in config.classify.scorers.values()})
    known = TARGETS[target]
    sources = sources or known.sources[: known.defaults]
    if not destinations:
        hint = f"--destinations splunk, or --config FILE; known: {', '.join(DESTINATIONS)}"
        raise ConfigError("it is not said where events go", where="aitrail package", hint=hint)
    _check("source", sources, known.sources, f"sources that `package {target}` knows")
    _check("destination", destinations, tuple(DESTINATIONS), "known")
    _check("scorer", features, tuple(FEATURES), "known")
    return Choice(target, arch, python, tuple(sources), tuple(destinations), tuple(features), config)


def _check(kind: str, names: Sequence[str], known: Sequence[str], what: str) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(
                f"there is no {kind} type {name!r}", where="aitrail package", hint=f"{what}: {', '.join(known)}"
            )


def named_files(config: Config) -> list[Path]:
    """Files and folders that the configuration names and a function reads."""
    named = [config.directory.file, config.classify.patterns, config.classify.calibration, config.classify.fingerprints]
    named += [source.map for source in config.sources.values()]
    tables: list[dict[str, Any]] = [source.options for source in config.sources.values()]
    tables += list(config.destinations.values())
    named += [str(table[name]) for table in tables for name in ("ca_file", "public_keys") if table.get(name)]
    return [config.resolve(one) for one in dict.fromkeys(named) if one]


def _below(path: Path, folder: Path) -> dict[str, bytes]:
    """The files at ``path``, by their place beside the configuration."""
    hint = "put it into the configuration's folder and name it relative to that"
    try:
        place = path.resolve().relative_to(folder.resolve())
    except ValueError:
        raise ConfigError("lies outside the configuration's folder", where=str(path), hint=hint) from None
    if path.is_dir():
        return {(place / one.relative_to(path)).as_posix(): one.read_bytes() for one in _files(path)}
    if not path.is_file():
        raise ConfigError("no such file", where=str(path), hint=hint)
    return {place.as_posix(): path.read_bytes()}


def _files(folder: Path) -> list[Path]:
    return sorted(one for one in folder.rglob("*") if one.is_file() and "__pycache__" not in one.parts)
