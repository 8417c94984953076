"""What judges a call, put together from ``[classify]``: classifier, system-prompt guard and scorers."""

import copy
import importlib
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from aitrail.classify.calibrate import CalibrationFile
from aitrail.classify.default import DefaultClassifier
from aitrail.classify.fingerprint import SystemPromptGuard, as_prints, check_canary, read_fingerprints
from aitrail.classify.lint import lint
from aitrail.classify.scorer import SCORERS, Common, Member, Panel
from aitrail.classify.scoring import DEFAULT_THRESHOLDS, Thresholds
from aitrail.clock import Clock
from aitrail.config import Config
from aitrail.errors import ConfigError
from aitrail.ports import SecretResolver
from aitrail.privacy.keys import KeyRing
from aitrail.secrets import SCHEMES


class Judging(Struct):
    """The parts that judge; ``panel`` is empty unless scorers are configured."""

    classifier: DefaultClassifier
    guard: SystemPromptGuard
    panel: Panel


@lru_cache(maxsize=4)
def _compiled(folder: str) -> DefaultClassifier:
    if folder:
        check_patterns(Path(folder))
    return DefaultClassifier(folder=Path(folder) if folder else None)


def check_patterns(folder: Path) -> None:
    """Raise ``ConfigError`` when pattern files of one's own are wrong: they would find less than they seem to."""
    problems = lint(folder)
    if problems:
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        place = f"{first.where}: " if first.where not in ("", str(folder)) else ""
        every = f"all of them: aitrail classify lint --patterns {folder}"
        hint = first.hint if len(problems) == 1 and first.hint else every
        raise ConfigError(f"{place}{first.message}{more}", where=str(folder), hint=hint)


def classifier(folder: str = "", thresholds: Thresholds = DEFAULT_THRESHOLDS) -> DefaultClassifier:
    """Give the classifier with these settings; patterns are compiled once per process, which takes a moment."""
    compiled = _compiled(folder)
    if thresholds == compiled.thresholds:
        return compiled
    other = copy.copy(compiled)
    other.thresholds = thresholds
    return other


def default_classifier() -> DefaultClassifier:
    """The classifier as it is without any setting."""
    return classifier("", DEFAULT_THRESHOLDS)


def make_judging(config: Config, ring: KeyRing, clock: Clock, secrets: SecretResolver) -> Judging:
    """Put together what ``[classify]`` asks for; raises ``ConfigError`` that names the setting."""
    settings = config.classify
    judge = classifier(_patterns(config), thresholds_of(config))
    prints: dict[tuple[str, str], frozenset[bytes]] = {}
    keys: dict[str, bytes] = {}
    if settings.fingerprints:
        path = config.resolve(settings.fingerprints)
        found = read_fingerprints(path)
        key = ring.key(found.tenant, found.key_id)
        if key is None:
            hint = "write it again: aitrail classify fingerprint"
            raise ConfigError(f"made with the key {found.key_id}, which is not known here", where=str(path), hint=hint)
        try:
            prints, keys = as_prints(found), {found.tenant: key}
        except ValueError:
            raise ConfigError("holds something else than hashes", where=str(path)) from None
    guard = SystemPromptGuard(
        judge.layers,
        canaries=_canaries(config, secrets),
        prints=prints,
        keys=keys,
        words=settings.system_prompt_words,
    )
    return Judging(judge, guard, make_panel(config, clock, secrets))


def thresholds_of(config: Config) -> Thresholds:
    """Where the tiers begin: settings first, then the calibration file, then the defaults."""
    settings = config.classify
    base = DEFAULT_THRESHOLDS
    if settings.calibration:
        base = read_calibration(config.resolve(settings.calibration)).thresholds
    chosen = Thresholds(
        settings.suspicious or base.suspicious,
        settings.high or base.high,
    )
    if not chosen.suspicious <= chosen.high:
        raise ConfigError(
            f"suspicious ({chosen.suspicious}) is above high ({chosen.high})", where=config.where("classify.suspicious")
        )
    return chosen


def read_calibration(path: Path) -> CalibrationFile:
    """Read what ``aitrail classify calibrate --out`` wrote; raises ``ConfigError`` that names the file."""
    hint = "write one with: aitrail classify calibrate --out FILE"
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), CalibrationFile)
    except OSError as fault:
        raise ConfigError(f"cannot be read ({fault.strerror})", where=str(path), hint=hint) from None
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError) as fault:
        raise ConfigError(f"not a calibration: {fault}", where=str(path), hint=hint) from None


def _patterns(config: Config) -> str:
    if not config.classify.patterns:
        return ""
    folder = config.resolve(config.classify.patterns)
    if not folder.is_dir():
        hint = "copy the shipped ones there: aitrail classify lint --copy-to FOLDER"
        raise ConfigError(f"there is no folder {folder}", where=config.where("classify.patterns"), hint=hint)
    return str(folder)


def _canaries(config: Config, secrets: SecretResolver) -> Mapping[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for app, tokens in config.classify.canaries.items():
        resolved = tuple(secrets.resolve(one) if one.partition(":")[0] in SCHEMES else one for one in tokens)
        for token in resolved:
            wrong = check_canary(token)
            if wrong:
                raise ConfigError(wrong, where=config.where(f"classify.canaries.{app}"))
        found[app.lower()] = resolved
    return found


def make_panel(config: Config, clock: Clock, secrets: SecretResolver) -> Panel:
    """Make every configured scorer; raises ``ConfigError`` that names the setting or the missing extra."""
    members: list[Member] = []
    try:
        for name, table in config.classify.scorers.items():
            members.append(_member(name, table, config, secrets))
    except BaseException:
        for member in members:
            member.scorer.close()
        raise
    return Panel(members, clock.monotonic)


def _member(name: str, table: Mapping[str, Any], config: Config, secrets: SecretResolver) -> Member:
    options = dict(table)
    kind = options.pop("type", "")
    where = f"classify.scorers.{name}"
    entry = SCORERS.get(kind) if isinstance(kind, str) else None
    if entry is None:
        raise ConfigError(
            f"unknown scorer type {kind!r}" if kind else "the type is missing",
            where=config.where(f"{where}.type"),
            hint=f"known: {', '.join(SCORERS)}",
        )
    try:
        module = importlib.import_module(entry.module)
    except ImportError as error:
        raise ConfigError(
            f"this type needs a package that is not installed ({error.name})",
            where=config.where(f"{where}.type"),
            hint=f"pip install 'aitrail[{entry.extra}]'",
        ) from None
    kind_of_settings: type[Common] = getattr(module, entry.settings)
    settings: Any = config.section(where, options, kind_of_settings, ("type",))
    if isinstance(getattr(settings, "directory", None), str):
        settings = msgspec.structs.replace(settings, directory=str(config.resolve(settings.directory)))
    return Member(name.lower(), getattr(module, entry.scorer)(settings, secrets), settings, remote=entry.remote)
