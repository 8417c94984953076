"""The dead-letter table: what could not go on, why, and where to find it again."""

# ruff: noqa: S608 - what is put into statements here are names and lists of this package, never a value

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from aitrail.ports import EncodedEvent
from aitrail.spool.records import DeadLetter, DeadLetterFilter, dead_letter_id

_NAMES = DeadLetter.__struct_fields__
_FIELDS = ", ".join(f'"{name}"' for name in _NAMES)
_MARKS = ", ".join("?" * len(_NAMES))
_EXACT = ("source", "stage", "code", "destination", "record_type", "origin")


class _Origin(msgspec.Struct, gc=False):
    """The two fields of an event that say where it came from."""

    source: str = ""
    source_ref: str = ""


_origin = msgspec.json.Decoder(_Origin).decode


def add(connection: sqlite3.Connection, letters: Iterable[DeadLetter]) -> int:
    """Write dead letters; one that was resolved and happens again is open again. Gives how many became open."""
    opened = 0
    for letter in letters:
        opened += connection.execute(
            f"INSERT INTO dead_letter ({_FIELDS}) VALUES ({_MARKS}) ON CONFLICT (id) DO UPDATE "
            "SET resolved = NULL, raw = excluded.raw WHERE resolved IS NOT NULL",
            msgspec.structs.astuple(letter),
        ).rowcount
    return opened


def resolve(connection: sqlite3.Connection, ids: Iterable[str], now: float) -> int:
    """Settle dead letters; the row stays as a record, its content goes. Gives how many were open."""
    return sum(
        connection.execute(
            "UPDATE dead_letter SET resolved = ?, raw = NULL WHERE id = ? AND resolved IS NULL", (now, one)
        ).rowcount
        for one in ids
    )


def select(wanted: DeadLetterFilter) -> tuple[str, tuple[Any, ...]]:
    """Give the query, and its parameters, for what ``wanted`` names; oldest first."""
    conditions = []
    parameters: list[Any] = []
    for name in _EXACT:
        value = getattr(wanted, name)
        if value:
            conditions.append(f'"{name}" = ?')
            parameters.append(value)
    if wanted.resolved is not None:
        conditions.append(f"resolved IS {'NOT ' if wanted.resolved else ''}NULL")
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    limit = ""
    if wanted.limit is not None:
        limit = " LIMIT ?"
        parameters.append(wanted.limit)
    return f"SELECT {_FIELDS} FROM dead_letter{where} ORDER BY first_seen, id{limit}", tuple(parameters)


def by_id(one: str) -> tuple[str, tuple[Any, ...]]:
    """Give the query for one dead letter."""
    return f"SELECT {_FIELDS} FROM dead_letter WHERE id = ?", (one,)


def letter(row: Sequence[Any]) -> DeadLetter:
    """Make a dead letter of a row of ``select``."""
    return DeadLetter(*row)


def refused(event: EncodedEvent, source: str, destination: str, code: str, now: float) -> DeadLetter:
    """Make the dead letter of an event that ``destination`` refuses for good.

    The event itself is kept: it holds no more content than the content mode lets out, and a replay needs it.
    """
    try:
        made = _origin(event.body)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        made = _Origin()  # a body that no parser reads has no place to tell; it is kept all the same
    origin, _, place = made.source_ref.rpartition("#")
    numbers = dict(part.partition("=")[::2] for part in place.split("&"))
    position, index = (_number(numbers.get(name, "")) for name in ("offset", "record"))
    return DeadLetter(
        id=dead_letter_id(source, origin, position, index, code, destination=destination, event_id=event.event_id),
        source=source,
        origin=origin,
        position=position,
        end=0,
        index=index,
        code=code,
        field="",
        record_type=made.source,
        stage="deliver",
        destination=destination,
        event_id=event.event_id,
        raw=event.body,
        first_seen=now,
    )


def _number(text: str) -> int:
    """Read a number of a source_ref; 0 when it is none that SQLite can hold."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0
