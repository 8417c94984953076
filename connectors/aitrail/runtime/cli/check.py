"""``aitrail check``: say what is wrong with a configuration, changing nothing."""

from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from aitrail.clock import SystemClock
from aitrail.config import Config
from aitrail.enrich import load_directory
from aitrail.errors import AitrailError, ConfigError
from aitrail.registry import make_destination, make_source
from aitrail.runtime.assemble import key_ring, mode_of, needs_sealing
from aitrail.runtime.cli.options import config_option, load_config
from aitrail.runtime.cli.render import clean, console, plural
from aitrail.runtime.dryrun import NoCursors
from aitrail.secrets import Secrets

EPILOG = """\b
Examples:
  aitrail check                     checks ./aitrail.toml
  aitrail check -c prod.toml        another file; exits 2 when something is wrong
"""


@click.command(epilog=EPILOG)
@config_option
def check(config_path: Path) -> int:
    """Check the configuration, the secrets it refers to, that sources can be read and destinations reached."""
    screen = console()
    config = load_config(config_path)
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
            problems.append(_text(error))
            continue
        found = source.check()
        problems += [f"{config_path}: sources.{name}: {problem}" for problem in found]
        if not found:
            work = source.survey(NoCursors())
            _ok(screen, f"source {name}: {plural(work.objects, 'object')}")
        if config.tenants and settings.tenant not in config.tenants:
            mode = mode_of(config)(settings.tenant)
            note = f"note: source {name}: tenant {settings.tenant!r} has no section; its content mode is {mode}"
            screen.print(Text(note, "yellow"), soft_wrap=True)
    for name in config.destinations:
        found = _destination(config, name)
        problems += [f"{config_path}: destinations.{name}: {problem}" for problem in found]
        if not found:
            _ok(screen, f"destination {name}")
    _try(problems, lambda: _writable(store))
    for problem in problems:
        screen.print(Text(f"wrong: {clean(problem)}", "red"), soft_wrap=True)
    if not problems:
        _ok(screen, f"{config_path}: nothing is wrong")
    return 2 if problems else 0


def _destination(config: Config, name: str) -> list[str]:
    try:
        destination = make_destination(name, config, Secrets())
    except AitrailError as error:
        return [_text(error)]
    try:
        return destination.check()
    except AitrailError as error:
        return [_text(error)]
    finally:
        destination.close()


def _ok(screen: Console, what: str) -> None:
    screen.print(Text.assemble(("ok", "green"), f" {clean(what)}"), soft_wrap=True)


def _try(problems: list[str], action: object, where: str = "") -> None:
    try:
        action()  # type: ignore[operator]
    except AitrailError as error:
        problems.append(f"{where}: {_text(error)}" if where else _text(error))


def _text(error: AitrailError) -> str:
    return f"{error} ({error.hint})" if error.hint else str(error)


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
