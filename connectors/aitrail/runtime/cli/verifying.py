"""What the ``verify`` commands share: the range, the store's side, the result."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import click
import msgspec
from rich.text import Text

from aitrail.clock import SystemClock
from aitrail.config import Config, load
from aitrail.destinations._verified import Counts, TooDense, Verified, compare
from aitrail.errors import ConfigError, TransientError
from aitrail.registry import configured, make_route
from aitrail.routing.where import Where
from aitrail.runtime.cli.options import config_option, existing_store
from aitrail.runtime.cli.reading import make_filters, read, utc_now, write_out
from aitrail.runtime.cli.render import as_json, clean, console, plural
from aitrail.secrets import Secrets
from aitrail.spool import Spool
from aitrail.store.queries import Connection

F = TypeVar("F", bound=Callable[..., Any])

# What is looked at unless a range is given.
_USUAL = "24h"
_SHOWN = 5
_ABSENT: dict[str, Any] = {"integer": None, "number": None, "boolean": None, "list": ()}


def destination_argument(function: F) -> F:
    """``[NAME]``: which destination; may be left out when there is only one of the type."""
    return click.argument("name", required=False, default="")(config_option(function))


def verify_options(function: F) -> F:
    """``[NAME]``, ``-c``, ``--since``, ``--until``, ``--last``, ``--format``."""
    options = (
        destination_argument,
        click.option("--since", metavar="TIME", help="From this time on: 2026-11-23 or 2026-11-23T09:00Z."),
        click.option("--until", metavar="TIME", help="Up to this time, itself not included; default: now."),
        click.option("--last", metavar="SPAN", help=f"The newest 90m, 24h, 7d ...; default: {_USUAL}."),
        click.option(
            "--format",
            "kind",
            type=click.Choice(["table", "json"]),
            default="table",
            show_default=True,
            help="How to print it.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def chosen(config_path: Path, kind: str, name: str) -> tuple[Config, str, Any]:
    """Give the configuration, and name and settings of the destination of type ``kind`` that is meant.

    Raises:
        ConfigError: there is none, it is of another type, or the name is needed because there are several.
    """
    config = load(config_path)
    fitting = [one for one, table in config.destinations.items() if table.get("type") == kind]
    if not fitting:
        raise ConfigError(
            f"no destination of type {kind!r} is configured",
            where=str(config_path),
            hint=f'add a section [destinations.{kind}] with type = "{kind}"',
        )
    if not name and len(fitting) > 1:
        raise ConfigError(f"there are several of type {kind!r}", hint=f"say which one: {', '.join(fitting)}")
    name = name or fitting[0]
    if name not in fitting:
        raise ConfigError(
            f"{clean(name)!r} is no destination of type {kind!r}",
            where=str(config_path),
            hint=f"known: {', '.join(fitting)}",
        )
    return config, name, configured(name, config)[1]


class Outcome(msgspec.Struct):
    """What a verification found, as it is printed.

    Attributes:
        destination, since, until: what was looked at.
        verified: events of the store against those at the destination.
        dead_letters: events of the range that the destination has refused; they are not expected there.
        waiting: how many events still wait for the destination, of whatever time.
    """

    destination: str
    since: str
    until: str
    verified: Verified
    dead_letters: int
    waiting: int

    @property
    def exit_code(self) -> int:
        """0: all there; 4: what is missing may still be waiting; 1: something is lost."""
        if self.verified.complete:
            return 0
        return 4 if self.waiting else 1


def verify(
    config: Config, name: str, counts: Counts, *, since: str | None, until: str | None, last: str | None
) -> Outcome:
    """Compare the store with the destination by event id."""
    filters = make_filters(since, until, last or (None if since else _USUAL))
    end = filters.until or utc_now()
    start = filters.since
    assert start is not None
    store = existing_store(config.resolve(config.store.dir))
    route = make_route(name, config, Secrets(), lambda event: None)
    route.destination.close()
    condition = route.rule.where
    with Spool.open(store, SystemClock(), write=False) as spool:
        waiting = spool.backlog(name).events
    outcome = Outcome(name, _text(start), _text(end), Verified(), 0, waiting)

    def work(connection: Connection) -> Verified:
        refused = _refused(connection, name)
        outcome.dead_letters = 0

        def expected(first: int, behind: int) -> Iterable[str]:
            found = _stored(connection, condition, first, behind)
            outcome.dead_letters += len(found & refused)
            return found - refused

        return compare(expected, counts, _ms(start), _ms(end))

    try:
        outcome.verified = read(store, work)
    except TooDense:
        raise TransientError(
            "one millisecond holds more events than the destination can list", hint="verify a range without it"
        ) from None
    return outcome


def _refused(connection: Connection, name: str) -> set[str]:
    """Events that are open dead letters of the destination."""
    sql = "SELECT event_id FROM dead_letters WHERE destination = ? AND resolved IS NULL AND event_id <> ''"
    return {str(row[0]) for row in connection.execute(sql, [name]).fetchall()}


def _stored(connection: Connection, condition: Where | None, first: int, behind: int) -> set[str]:
    """Ids of the store's events of a range, as far as the destination asks for them."""
    from aitrail.schema.catalog import by_name  # noqa: PLC0415 - loads with the first question
    from aitrail.store.columns import TIME_FIELDS, identifier  # noqa: PLC0415
    from aitrail.store.reader import canonical_time  # noqa: PLC0415

    fields = sorted(condition.fields) if condition is not None else []
    columns = ", ".join(identifier(one) for one in ("event_id", *fields))
    sql = f"SELECT {columns} FROM events WHERE timestamp >= ? AND timestamp < ?"  # noqa: S608 - names of the catalog
    rows = connection.execute(sql, [_moment(first), _moment(behind)]).fetchall()
    if condition is None:
        return {str(row[0]) for row in rows}
    kinds = {one: by_name()[one].kind for one in fields}

    def value(name: str, found: Any) -> Any:
        if name in TIME_FIELDS:
            return canonical_time(found)
        if found is None:
            return _ABSENT.get(kinds[name], "")
        return tuple(found) if kinds[name] == "list" else found

    test = condition.test
    return {
        str(row[0])
        for row in rows
        if test(SimpleNamespace(**{name: value(name, one) for name, one in zip(fields, row[1:], strict=True)}))
    }


def show(outcome: Outcome, kind: str, later: str = "") -> int:
    """Print the result; ``later`` says when events become visible at the destination. Gives the exit code."""
    found = outcome.verified
    if kind == "json":
        write_out(as_json(msgspec.to_builtins(outcome)), None)
        return outcome.exit_code
    screen = console()
    screen.print(Text(f"{clean(outcome.destination)}, {outcome.since} to {outcome.until}", style="bold"))
    lines = [
        (f"{plural(found.expected, 'event')} in the store, {found.found:,} of them there", "green"),
        (f"{found.missing:,} missing: {_some(found.missing_ids)}", "red") if found.missing else None,
        (f"{found.repeated:,} there more than once: {_some(found.repeated_ids)}", "yellow") if found.repeated else None,
        (f"{found.extra:,} there that the store does not have: {_some(found.extra_ids)}", "yellow")
        if found.extra
        else None,
        (f"{outcome.dead_letters:,} refused: aitrail deadletter list", "yellow") if outcome.dead_letters else None,
        (f"{outcome.waiting:,} still wait in the outbox", "yellow") if outcome.waiting else None,
        (later, "dim") if later and found.missing else None,
    ]
    for line in lines:
        if line is not None:
            screen.print(Text(f"  {line[0]}", style=line[1]), soft_wrap=True)
    return outcome.exit_code


def _some(ids: Iterable[str]) -> str:
    listed = list(ids)
    more = " ..." if len(listed) > _SHOWN else ""
    return clean(", ".join(listed[:_SHOWN])) + more


def _ms(moment: datetime) -> int:
    return round(moment.replace(tzinfo=UTC).timestamp() * 1000)


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC).replace(tzinfo=None)


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}Z"
