"""Which event ids the store already knows: exact, durable, and cheap for ids that come in random order.

A random key into a large B-tree dirties one page each. So new keys are first appended as one small blob per
transaction (``<table>_tail``) and kept in a set in memory; every ``TAIL_KEYS`` they are merged, sorted, into the tree.
Measured at 1 M keys: about 3 us per key instead of 15.
"""

# ruff: noqa: S608 - what is put into statements here are names and lists of this package, never a value

import hashlib
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

KEY_BYTES = 16
TAIL_KEYS = 65_536
_CHUNK = 4_096


def key_of(event_id: str) -> bytes:
    """Give the 16-byte key of an event id: the id itself when it is 32 lower-case hex digits, else its BLAKE2b-128."""
    if len(event_id) == 2 * KEY_BYTES:
        try:
            key = bytes.fromhex(event_id)
        except ValueError:
            pass
        else:
            if key.hex() == event_id:
                return key
    return hashlib.blake2b(event_id.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()


def run_of(event_ids: Sequence[str]) -> bytes:
    """Give the keys of many event ids in their order, as one run: what ``key_of`` gives for each, concatenated."""
    if {*map(len, event_ids)} == {2 * KEY_BYTES}:
        text = "".join(event_ids)
        try:
            run = bytes.fromhex(text)
        except ValueError:
            pass
        else:
            if run.hex() == text:
                return run
    return b"".join([key_of(event_id) for event_id in event_ids])


def split_keys(blob: bytes) -> list[bytes]:
    """Take a run of concatenated keys apart."""
    return [blob[start : start + KEY_BYTES] for start in range(0, len(blob), KEY_BYTES)]


class Identity:
    """The set of known keys of one table (``seen`` or ``stored``); every call happens inside the caller's transaction.

    ``remember`` and ``forget`` give back a function that the caller calls once the transaction is durable: a
    transaction that rolls back leaves no trace in memory.
    """

    def __init__(self, connection: sqlite3.Connection, table: str) -> None:
        self._table = table
        connection.execute("CREATE TEMP TABLE IF NOT EXISTS slot (n INTEGER PRIMARY KEY)")
        connection.execute(
            "WITH RECURSIVE k (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM k WHERE n < ?) "
            "INSERT OR IGNORE INTO slot SELECT n FROM k",
            (_CHUNK - 1,),
        )
        self._tail = {key for (run,) in connection.execute(f"SELECT keys FROM {table}_tail") for key in split_keys(run)}

    def known(self, connection: sqlite3.Connection, keys: Iterable[bytes]) -> set[bytes]:
        """Give those of ``keys`` that are known."""
        wanted = set(keys)
        found = wanted & self._tail
        for part in _chunks(sorted(wanted - found)):
            found.update(
                key
                for (key,) in connection.execute(
                    f"SELECT t.event_id FROM temp.slot s CROSS JOIN {self._table} t "
                    "ON t.event_id = substr(?, s.n * 16 + 1, 16) WHERE s.n < ?",
                    (b"".join(part), len(part)),
                )
            )
        return found

    def remember(self, connection: sqlite3.Connection, keys: Collection[bytes]) -> Callable[[], None]:
        """Make ``keys``, none of them known, part of the transaction."""
        if not keys:
            return _nothing
        if len(self._tail) + len(keys) >= TAIL_KEYS:
            self._merge(connection, self._tail.union(keys))
            return self._tail.clear
        connection.execute(f"INSERT INTO {self._table}_tail (keys) VALUES (?)", (b"".join(sorted(keys)),))
        return lambda: self._tail.update(keys)

    def forget(self, connection: sqlite3.Connection, keys: Iterable[bytes]) -> tuple[int, Callable[[], None]]:
        """Remove ``keys``; give how many of them were known."""
        self._merge(connection, self._tail)
        removed = sum(
            connection.execute(
                f"DELETE FROM {self._table} WHERE event_id IN "
                "(SELECT substr(?, n * 16 + 1, 16) FROM temp.slot WHERE n < ?)",
                (b"".join(part), len(part)),
            ).rowcount
            for part in _chunks(sorted(set(keys)))
        )
        return removed, self._tail.clear

    def clear(self, connection: sqlite3.Connection) -> Callable[[], None]:
        """Forget everything."""
        for table in (self._table, f"{self._table}_tail"):
            connection.execute(f"DELETE FROM {table}")
        return self._tail.clear

    def _merge(self, connection: sqlite3.Connection, keys: Iterable[bytes]) -> None:
        """Put all of ``keys``, the tail among them, into the tree in its order, and empty the tail on disk."""
        for part in _chunks(sorted(keys)):
            connection.execute(
                f"INSERT OR IGNORE INTO {self._table} SELECT substr(?, n * 16 + 1, 16) FROM temp.slot "
                "WHERE n < ? ORDER BY n",
                (b"".join(part), len(part)),
            )
        connection.execute(f"DELETE FROM {self._table}_tail")


def _chunks(ordered: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Cut keys into parts that one statement takes."""
    return (ordered[start : start + _CHUNK] for start in range(0, len(ordered), _CHUNK))


def _nothing() -> None:
    """Do nothing."""
