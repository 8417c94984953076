"""Peers for the destinations that need no network: the embedded store, and a file that standard output goes to.

Both are reached through a directory, so another process can deliver to them.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from aitrail.errors import StoreError
from aitrail.event import FIELD_NAMES
from aitrail.store.reader import StoreReader
from aitrail.testing.peer import Behaviour, Fault, Peer, Traffic


class _Directory:
    """What both have in common: a directory, and no fault that could be scripted."""

    faults: frozenset[Fault] = frozenset()
    busy_codes: Sequence[int] = ()

    def __init__(self, name: str) -> None:
        self.name = name
        self.traffic = Traffic()
        self._directory = tempfile.TemporaryDirectory(prefix=f"aitrail-{name}-", ignore_cleanup_errors=True)
        self.path = Path(self._directory.name) / name
        self.address: Mapping[str, str] = {"path": str(self.path)}

    def script(self, *behaviours: Behaviour) -> None:
        """Nothing can be asked for."""
        for one in behaviours:
            raise ValueError(f"{self.name} cannot show {one.fault}")

    def heal(self) -> None:
        """There is nothing to heal."""

    def elsewhere(self, fault: Fault) -> Peer:
        """There is no elsewhere."""
        raise ValueError(f"{self.name} has no other peer for {fault}")

    def close(self) -> None:
        """Remove the directory."""
        self._directory.cleanup()


class StorePeer(_Directory):
    """A store, read by ``StoreReader`` while the destination writes it; ``path`` is its directory."""

    faults: frozenset[Fault] = frozenset({"kill"})

    def __init__(self) -> None:
        super().__init__("store")

    def received(self) -> list[str]:
        """Ids in the store; in no particular order."""
        try:
            rows = StoreReader(self.path).query("SELECT event_id FROM events").rows
        except StoreError:
            return []  # nothing was written yet
        return [row[0] for row in rows]

    def bodies(self, event_id: str) -> list[bytes]:
        """The event as the store gives it back."""
        found = StoreReader(self.path).find(event_id)
        if found is None:
            return []
        known = {name: found[name] for name in FIELD_NAMES if found[name] not in (None, "", [], ())}
        return [json.dumps(known).encode()]


class LinesPeer(_Directory):
    """A file of lines, as a shell redirection makes it; ``path`` is the file."""

    def __init__(self) -> None:
        super().__init__("lines")
        self.path.touch()

    def received(self) -> list[str]:
        """Ids of the lines, in their order; a line that is no event counts as ``?``."""
        return [one for one, _ in self._lines()]

    def bodies(self, event_id: str) -> list[bytes]:
        """The lines with this id."""
        return [line for one, line in self._lines() if one == event_id]

    def _lines(self) -> list[tuple[str, bytes]]:
        found = []
        for line in self.path.read_bytes().split(b"\n")[:-1]:
            try:
                found.append((str(json.loads(line)["event_id"]), line))
            except (ValueError, KeyError, TypeError):
                found.append(("?", line))
        return found
