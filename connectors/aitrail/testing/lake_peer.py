"""A lake directory as a peer: what a query engine finds there is what was received.

DuckDB reads the files as any engine would, knowing nothing of the writer; OCSF is turned back into the event's fields
by the catalog, so that the suite can compare values.
"""

import contextlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from aitrail.clock import iso_ms
from aitrail.schema.place import exact_places
from aitrail.testing.peer import Behaviour, Fault, Peer, Traffic

_FAULTS: frozenset[Fault] = frozenset({"down", "kill"})
_TIMES = frozenset({"timestamp", "ingested_at"})


class LakePeer:
    """A directory that a lake is written into; ``down``: the mount is gone and a file is in its place."""

    def __init__(self) -> None:
        self.name = "lake directory"
        self.faults: frozenset[Fault] = _FAULTS
        self.busy_codes: Sequence[int] = ()
        self.traffic = Traffic()
        self._directory = tempfile.TemporaryDirectory(prefix="aitrail-lake-peer-")
        self.root = Path(self._directory.name) / "lake"
        self.root.mkdir()
        self._away = Path(self._directory.name) / "away"
        self.address: Mapping[str, str] = {"directory": str(self.root)}
        self._known: dict[Path, list[dict[str, Any]]] = {}

    def files(self) -> list[Path]:
        """The files that engines see, oldest first."""
        root = self.root if self.root.is_dir() else self._away
        found = [path for path in root.rglob("*.parquet") if not path.name.startswith(".")]
        return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))

    def rows(self) -> list[dict[str, Any]]:
        """All events, as the OCSF objects that are stored."""
        rows: list[dict[str, Any]] = []
        for path in self.files():
            if path not in self._known:
                self._known[path] = _read(path)
            rows += self._known[path]
        self.traffic.requests = len(self._known)
        return rows

    def received(self) -> list[str]:
        """Ids of the events in the files."""
        return [row["metadata"]["uid"] for row in self.rows()]

    def bodies(self, event_id: str) -> list[bytes]:
        """The events with this id, as fields of the catalog."""
        return [json.dumps(flat(row)).encode() for row in self.rows() if row["metadata"]["uid"] == event_id]

    def script(self, *behaviours: Behaviour) -> None:
        """Take away the directory."""
        for one in behaviours:
            if one.fault != "down":
                raise ValueError(f"{self.name} cannot show {one.fault}")
            self.root.rename(self._away)
            self.root.write_bytes(b"")

    def heal(self) -> None:
        """Give the directory back."""
        if self._away.is_dir():
            self.root.unlink()
            self._away.rename(self.root)

    def elsewhere(self, fault: Fault) -> Peer:
        """There is no other place."""
        raise ValueError(f"{self.name} has no other peer for {fault}")

    def close(self) -> None:
        """Remove the directory."""
        with contextlib.suppress(OSError):
            self._directory.cleanup()


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Give an OCSF object's values by the catalog's names; absent ones are left out."""
    found: dict[str, Any] = {}
    for name, (parent, leaf) in exact_places("ocsf").items():
        node: Any = row
        for step in parent.split(".") if parent else ():
            node = node.get(step) if isinstance(node, dict) else None
        value = node.get(leaf) if isinstance(node, dict) else None
        if value is not None:
            found[name] = iso_ms(value / 1_000) if name in _TIMES else value
    return found


def _read(path: Path) -> list[dict[str, Any]]:
    with duckdb.connect() as engine:
        rows = engine.execute("SELECT * FROM read_parquet(?, hive_partitioning=false)", [str(path)])
        names = [one[0] for one in rows.description or ()]
        return [dict(zip(names, row, strict=True)) for row in rows.fetchall()]
