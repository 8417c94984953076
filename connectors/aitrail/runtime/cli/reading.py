"""What the reading commands share: the store's connection and its errors, time options and where output goes."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import click

from aitrail.errors import ConfigError, StoreError
from aitrail.runtime.cli.options import existing_store
from aitrail.runtime.cli.render import clean
from aitrail.store.queries import Connection, Filters

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_FIRST_DAY = datetime(1, 1, 1)  # noqa: DTZ001  (naive UTC, as all times of the store)
_DURATION = re.compile(r"(\d{1,6})\s*([mhdw])")


def read(store: Path, work: Callable[[Connection], T]) -> T:
    """Do ``work`` on the store's read-only connection, on one snapshot of it.

    A snapshot whose files are compacted away meanwhile is taken again, once.

    Raises:
        ConfigError: there is no store in that directory.
        StoreError: it cannot be read.
        QueryError: the SQL of ``work`` is refused or wrong.
    """
    import duckdb  # noqa: PLC0415  (takes 0.1 s to load, --help does not need it)

    from aitrail.runtime import present  # noqa: PLC0415
    from aitrail.store.reader import StoreReader  # noqa: PLC0415

    reader = StoreReader(existing_store(store), health=present.of(store))
    try:
        with reader.connect() as connection:
            return work(connection)
    except duckdb.IOException:
        pass
    try:
        with reader.connect() as connection:
            return work(connection)
    except duckdb.IOException as error:
        raise StoreError(
            f"{store}: {first_line(str(error))}",
            hint="`aitrail store check` lists what is missing; restore segments/ from a backup",
        ) from None


def first_line(text: str) -> str:
    """The part of a DuckDB message that says what is wrong, without the query that it quotes."""
    lines = text.strip().splitlines()
    return clean(lines[0]) if lines else "unknown error"


def utc_now() -> datetime:
    """Now, as the store's timestamps are: naive UTC."""
    return datetime.now(UTC).replace(tzinfo=None)


def parse_moment(text: str, option: str) -> datetime:
    """Read ``2026-11-23``, ``2026-11-23T09:00`` or a time with a zone; without one it is UTC. Gives naive UTC."""
    try:
        moment = datetime.fromisoformat(text.strip())
        return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    except (ValueError, OverflowError):
        raise ConfigError(
            f"{text!r} is not a date or time", where=option, hint="write 2026-11-23 or 2026-11-23T09:00Z (UTC)"
        ) from None


def parse_duration(text: str, option: str) -> timedelta:
    """Read ``90m``, ``24h``, ``7d``, ``4w``."""
    found = _DURATION.fullmatch(text.strip().lower())
    if found is None or not int(found[1]):
        raise ConfigError(f"{text!r} is not a length of time", where=option, hint="write 90m, 24h, 7d or 4w")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def filter_options(function: F) -> F:
    """``--since``, ``--until``, ``--last``, ``--tenant``, ``--department``, ``--model``, ``--user``."""
    for option in reversed(
        (
            click.option("--since", metavar="TIME", help="From this time on: 2026-11-23 or 2026-11-23T09:00Z."),
            click.option("--until", metavar="TIME", help="Up to this time, itself not included."),
            click.option("--last", metavar="SPAN", help="The newest 90m, 24h, 7d ... counted back from now."),
            click.option("--tenant", default="", help="Only this tenant."),
            click.option("--department", default="", help="Only this department."),
            click.option("--model", default="", help="Only this model."),
            click.option("--user", default="", help="Only this user: id, e-mail address or name."),
        )
    ):
        function = option(function)
    return function


def make_filters(since: str | None, until: str | None, last: str | None, **exact: str) -> Filters:
    """Turn the options into filters; raises ``ConfigError`` when they make no sense together."""
    if since and last:
        raise ConfigError("--since and --last exclude each other", hint="keep one of them")
    start = parse_moment(since, "--since") if since else None
    end = parse_moment(until, "--until") if until else None
    if last:
        span = parse_duration(last, "--last")
        newest = end or utc_now()
        start = newest - min(span, newest - _FIRST_DAY)
    if start and end and start >= end:
        raise ConfigError(f"--until {until} is not after the start", hint="give a later --until")
    return Filters(since=start, until=end, **{name: value.strip() for name, value in exact.items()})


def write_out(text: str, out: Path | None) -> None:
    """Write to the file ``out``, else to standard output."""
    if out is None:
        click.echo(text, nl=not text.endswith("\n"))
        return
    try:
        # Colors that a terminal got on standard output have no place in a file.
        out.write_text(click.unstyle(text if text.endswith("\n") else f"{text}\n"), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{out} cannot be written ({error.strerror})", where="--out") from None
    click.echo(f"wrote {out}", err=True)
