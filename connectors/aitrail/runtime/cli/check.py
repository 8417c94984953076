"""``aitrail check``: say what is wrong with a configuration, changing nothing."""

from pathlib import Path

import click
from rich.console import Console

from aitrail.clock import SystemClock
from aitrail.enrich import load_directory
from aitrail.errors import AitrailError, ConfigError
from aitrail.registry import make_source
from aitrail.runtime.assemble import needs_sealing
from aitrail.runtime.cli.options import config_option, load_config
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
    """Check the configuration, the secrets it refers to, and that every source can be read."""
    console = Console()
    config = load_config(config_path)
    problems: list[str] = []
    if config.directory.file:
        _try(problems, lambda: load_directory(config.resolve(config.directory.file)))
    for name, tenant in config.tenants.items():
        if tenant.key:
            _try(problems, lambda key=tenant.key: Secrets().resolve(key), f"{config_path}: tenants.{name}.key")
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
            console.print(f"[green]ok[/] source {name}: {work.objects:,} objects", highlight=False)
    store = config.resolve(config.store.dir)
    _try(problems, lambda: _writable(store))
    for problem in problems:
        console.print(f"wrong: {problem}", markup=False, style="red", soft_wrap=True)
    if not problems:
        console.print(f"[green]ok[/] {config_path}: nothing is wrong", highlight=False)
    return 2 if problems else 0


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
