"""Leases in SQLite: at most one collector polls a source, and whoever lost his lease cannot commit any more.

A lease is a row: owner, expiry and a token that grows with every change of hands. The token is the fence: a commit
that carries an older one is refused in its own transaction, however late it comes and whatever the clocks say.
"""

import os
import secrets
import socket
import sqlite3
from collections.abc import Sequence

from aitrail.errors import StoreError
from aitrail.ports import Lease
from aitrail.store.database import Database


class LeaseLostError(StoreError):
    """Another collector holds the lease now; nothing of the call was committed."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"source {name}: another collector has taken the lease over; nothing of this step was kept",
            hint="run one collector per source; this one waits until the lease is free again",
        )
        self.name = name


def make_owner() -> str:
    """A name for this process that no other process has, and that tells an operator where to look."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


class SqliteLeases:
    """The ``ports.Leases`` of one store directory; every call is one transaction.

    The clock is the store's wall clock: all collectors of one directory share a machine.
    """

    def __init__(self, database: Database, owner: str = "") -> None:
        self._database = database
        self.owner = owner or make_owner()

    def reclaim(self) -> int:
        """Free what others hold: the caller has the store's writer lock, so their processes are gone.

        Without it a restart after a crash would wait for the dead process's leases to expire.
        """
        with self._database.transaction() as db:
            return db.execute("UPDATE lease SET expires = 0 WHERE owner != ?", (self.owner,)).rowcount

    def acquire(self, name: str, seconds: float) -> Lease | None:
        """Take the lease ``name`` for ``seconds`` when it is free, expired or ours; None when another holds it."""
        now = self._database.clock.now()
        with self._database.transaction() as db:
            row = db.execute("SELECT owner, token, expires FROM lease WHERE name = ?", (name,)).fetchone()
            owner, token, expires = row if row is not None else ("", 0, 0.0)
            if owner != self.owner:
                if expires > now:
                    return None
                token += 1
            db.execute(
                "INSERT OR REPLACE INTO lease (name, owner, token, expires) VALUES (?, ?, ?, ?)",
                (name, self.owner, token, now + seconds),
            )
        return Lease(name, self.owner, token, now + seconds)

    def renew(self, leases: Sequence[Lease], seconds: float) -> list[Lease]:
        """Extend leases; gives those that are still ours (also expired ones that nobody has taken)."""
        until = self._database.clock.now() + seconds
        held = []
        with self._database.transaction() as db:
            for lease in leases:
                done = db.execute(
                    "UPDATE lease SET expires = ? WHERE name = ? AND owner = ? AND token = ?",
                    (until, lease.name, lease.owner, lease.token),
                ).rowcount
                if done:
                    held.append(Lease(lease.name, lease.owner, lease.token, until))
        return held

    def release(self, leases: Sequence[Lease]) -> None:
        """Give leases back; those that are not ours any more are left alone."""
        with self._database.transaction() as db:
            for lease in leases:
                db.execute(
                    "UPDATE lease SET expires = 0 WHERE name = ? AND owner = ? AND token = ?",
                    (lease.name, lease.owner, lease.token),
                )

    def holders(self) -> dict[str, Lease]:
        """All leases, by name; an expired one is free."""
        return read(self._database)


def read(database: Database) -> dict[str, Lease]:
    """All leases of a store, also one that is open for reading."""
    rows = database.rows("SELECT name, owner, token, expires FROM lease")
    return {row[0]: Lease(*row) for row in rows}


def require(connection: sqlite3.Connection, lease: Lease) -> None:
    """Refuse the transaction unless ``lease`` is the newest of its name; raises ``LeaseLostError``."""
    row = connection.execute("SELECT owner, token FROM lease WHERE name = ?", (lease.name,)).fetchone()
    if row is None or row != (lease.owner, lease.token):
        raise LeaseLostError(lease.name)
