"""Options that several commands share, and how they turn into a configuration."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from aitrail.config import Config, StoreConfig, load
from aitrail.errors import ConfigError
from aitrail.event import ContentMode
from aitrail.registry import source_settings

F = TypeVar("F", bound=Callable[..., Any])


def default_store() -> str:
    """``$AITRAIL_STORE``, else ``./aitrail-store``."""
    return os.environ.get("AITRAIL_STORE") or "aitrail-store"


def store_option(function: F) -> F:
    """``--store DIR``."""
    return click.option(
        "--store",
        type=click.Path(file_okay=False, path_type=Path),
        default=default_store,
        show_default="$AITRAIL_STORE or ./aitrail-store",
        help="Directory of the embedded store.",
    )(function)


def content_option(function: F) -> F:
    """``--content MODE``."""
    return click.option(
        "--content",
        type=click.Choice(get_args(ContentMode)),
        default="redacted",
        show_default=True,
        help="What is kept of prompts and answers: nothing, keyed hashes, masked text, full text, or text sealed per "
        "person. Masking hides secrets, card and account numbers and personal identifiers.",
    )(function)


def config_option(function: F) -> F:
    """``-c FILE``."""
    return click.option(
        "-c",
        "--config",
        "config_path",
        type=click.Path(dir_okay=False, path_type=Path),
        default=Path("aitrail.toml"),
        show_default=True,
        help="Configuration file; `aitrail init` writes one.",
    )(function)


def load_config(path: Path, *, receivers: bool = False) -> Config:
    """Read the configuration and make sure that there is something to do; ``receivers`` are something as well."""
    config = load(path)
    if not config.sources and not (receivers and (config.receivers or config.respond)):
        raise ConfigError("no source is configured", where=str(path), hint="add a section [sources.NAME] with paths")
    for name, settings in config.sources.items():
        source_settings(name, settings, config)
    return config


def existing_store(store: Path) -> Path:
    """The store's directory; raises ``ConfigError`` when there is none."""
    if not (store / "aitrail.db").exists():
        raise ConfigError(
            f"there is no store in {store}",
            hint="collect something first: aitrail collect PATH, or look at made-up data: aitrail demo",
        )
    return store


def confirmed(question: str) -> None:
    """Ask; raises ``ConfigError`` unless the answer is yes (no answer, as under cron, is a no)."""
    try:
        sure = click.confirm(question)
    except click.Abort:
        click.echo(err=True)
        sure = False
    if not sure:
        raise ConfigError("nothing was done: nobody said yes", hint="--yes says it beforehand")


def store_config(store: Path) -> Config:
    """A configuration that names nothing but the store."""
    return Config(store=StoreConfig(dir=str(store)))
