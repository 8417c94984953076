"""``aitrail check``: say what is wrong with a configuration, changing nothing."""

from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from aitrail.clock import SystemClock
from aitrail.config import ClassifyConfig, Config
from aitrail.detection.rules import chosen
from aitrail.enrich import load_directory
from aitrail.errors import AitrailError, ConfigError
from aitrail.registry import make_source
from aitrail.runtime.assemble import key_ring
from aitrail.runtime.cli.options import config_option, load_config
from aitrail.runtime.cli.render import clean, console, plural
from aitrail.runtime.contexts import mode_of, needs_sealing
from aitrail.runtime.dryrun import NoCursors
from aitrail.runtime.field_maps import read_map
from aitrail.runtime.judging import make_judging, read_calibration
from aitrail.runtime.probing import examine
from aitrail.runtime.responding import Gateway
from aitrail.secrets import Secrets
from aitrail.store.places import Places
from aitrail.transform import NO_TEXT_OUT
from aitrail.web.auth import Gate
from aitrail.web.settings import RESPONSE_PATHS, ReceiverSettings, paths_of, served

EPILOG = """\b
Examples:
  aitrail check                     checks ./aitrail.toml
  aitrail check -c prod.toml        another file; exits 2 when something is wrong
  aitrail check --probe             also sends one health event to each destination

\b
A probe finds what a receiver says only of events: an index that the token may not write to, a role that may describe
but not write, a quota. The event says that it is a check; it stays there.
"""


@click.command(epilog=EPILOG)
@config_option
@click.option("--probe", is_flag=True, help="Send one health event to each destination that takes them.")
def check(config_path: Path, probe: bool) -> int:
    """Check the configuration, the secrets it refers to, that sources can be read and destinations reached."""
    screen = console()
    config = load_config(config_path, receivers=True)
    problems: list[str] = []
    store = config.resolve(config.store.dir)
    if config.directory.file:
        _try(problems, lambda: load_directory(config.resolve(config.directory.file)))
    for name, tenant in config.tenants.items():
        if tenant.key:
            _try(problems, lambda name=name: key_ring(config, store).active(name), f"{config_path}: tenants.{name}.key")
    if needs_sealing(config):
        _try(problems, _cipher)
    for name, settings in config.sources.items():
        try:
            source = make_source(name, settings, config, SystemClock(), b"")
        except ConfigError as error:
            problems.append(error.sentence)
            continue
        found = source.check()
        if settings.map:
            _try(problems, lambda settings=settings: read_map(config.resolve(settings.map)))
        problems += [f"{config_path}: sources.{name}: {problem}" for problem in found]
        if not found:
            work = source.survey(NoCursors())
            _ok(screen, f"source {name}: {plural(work.objects, 'object')}")
        if config.tenants and settings.tenant not in config.tenants:
            mode = mode_of(config)(settings.tenant)
            note = f"note: source {name}: tenant {settings.tenant!r} has no section; its content mode is {mode}"
            screen.print(Text(note, "yellow"), soft_wrap=True)
    _try(problems, lambda: _receivers(config, screen))
    for name in config.destinations:
        found = examine(config, name, probe=probe)
        # What is wrong with a setting names file and field already.
        known = f"{config_path}:"
        problems += [one if one.startswith(known) else f"{known} destinations.{name}: {one}" for one in found]
        if not found:
            _ok(screen, f"destination {name}")
    problems += _judging(config, store, screen)
    _try(problems, lambda: chosen(config.detect.without, hunts=True), f"{config.where('detect.without')}")
    if config.detect.places:
        _try(problems, lambda: Places(config.resolve(config.detect.places)), f"{config.where('detect.places')}")
    _try(problems, lambda: _writable(store))
    for problem in problems:
        screen.print(Text(f"wrong: {clean(problem)}", "red"), soft_wrap=True)
    if not problems:
        _ok(screen, f"{config_path}: nothing is wrong")
    return 2 if problems else 0


def _receivers(config: Config, screen: Console) -> None:
    """Check what `aitrail serve` needs: settings, secrets, field maps."""
    settings = served(config)
    for name, receiver in settings.receivers.items():
        Gate(name, receiver, Secrets(), SystemClock())  # resolves its secrets
        if receiver.map:
            read_map(config.resolve(receiver.map))
        _ok(screen, f"receiver {name}: {', '.join(paths_of(receiver))}")
    respond = settings.respond
    if respond.tokens:
        Gate("respond", ReceiverSettings(tokens=respond.tokens), Secrets(), SystemClock())
        for name, gateway in respond.gateways.items():
            Gateway(name, gateway, config, Secrets(), SystemClock()).close()
        how = "dry run" if respond.dry_run else f"blocks at {', '.join(respond.gateways)}"
        _ok(screen, f"response API: {', '.join(RESPONSE_PATHS)} ({how})")


def _judging(config: Config, store: Path, screen: Console) -> list[str]:
    """Check ``[classify]``, and say plainly where text of prompts would go."""
    if config.classify == ClassifyConfig():
        return []
    try:
        judging = make_judging(config, key_ring(config, store), SystemClock(), Secrets())
    except AitrailError as error:
        return [error.sentence]
    problems = []
    settings = config.classify
    thresholds = judging.classifier.thresholds
    _ok(screen, f"classify: suspicious from {thresholds.suspicious}, high from {thresholds.high}")
    if settings.calibration:
        made = read_calibration(config.resolve(settings.calibration)).basis
        if made.classifier != judging.classifier.version:
            note = f"note: {settings.calibration} was made with classifier {made.classifier}, this is "
            screen.print(Text(clean(f"{note}{judging.classifier.version}: calibrate again"), "yellow"), soft_wrap=True)
    for member in judging.panel.members:
        if member.remote:
            silent = sorted(name for name, tenant in config.tenants.items() if tenant.content in NO_TEXT_OUT)
            note = f"note: scorer {member.name} sends what users and tools say to {member.scorer.place}, secrets and "
            note += "personal data masked"
            note += f"; nothing of {', '.join(silent)}, whose content mode keeps no text" if silent else ""
            screen.print(Text(clean(note), "yellow"), soft_wrap=True)
        found = member.scorer.check()
        problems += [f"{config.path}: classify.scorers.{member.name}: {problem}" for problem in found]
        if not found:
            _ok(screen, f"scorer {member.name}: {member.scorer.place}")
    judging.panel.close()
    return problems


def _ok(screen: Console, what: str) -> None:
    screen.print(Text.assemble(("ok", "green"), f" {clean(what)}"), soft_wrap=True)


def _try(problems: list[str], action: object, where: str = "") -> None:
    try:
        action()  # type: ignore[operator]
    except AitrailError as error:
        problems.append(f"{where}: {error.sentence}" if where else error.sentence)


def _cipher() -> None:
    try:
        import cryptography  # noqa: F401, PLC0415  (an extra)
    except ImportError:
        raise ConfigError("content mode 'sealed' needs a cipher", hint="pip install 'aitrail[seal]'") from None


def _writable(store: Path) -> None:
    import os  # noqa: PLC0415

    place = store
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(f"the store directory {store} cannot be written", hint=f"fix the permissions of {place}")
