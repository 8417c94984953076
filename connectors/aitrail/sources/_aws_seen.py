"""What was read lately: a ring of small cursors, one per hour, so that a cursor stays small and rows stay few.

The slot of an hour is ``hour mod size``: it is overwritten when its time comes again, so nothing has to be deleted, and
the newest hour of all slots says how far the stream was read. A slot holds keyed 8-byte hashes of what was read in its
hour. What is forgotten (an older hour, a full slot) is read again and recognised by its event_id.
"""

import hashlib
from typing import Protocol

import msgspec

from aitrail.ports import Cursors

HOUR = 3_600
_WIDTH = 8
# An hour of 100 events/s is 360,000 ids; beyond this many, event_id alone recognises what comes again.
_MOST = 1 << 16


class Part(msgspec.Struct, frozen=True, array_like=True):
    """How far an object was read that is not read to its end (see ``_framing.Run.resume``)."""

    ident: bytes = b""
    offset: int = 0
    skip: int = 0
    index: int = 0


_WHOLE = Part()


class _Slot(msgspec.Struct, array_like=True):
    hour: int
    seen: bytes = b""
    part: Part = _WHOLE
    version: int = 1


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Slot).decode


def load_slot(data: bytes | None) -> _Slot | None:
    """Read a slot; None when there is none, or it is damaged or of another version: what it knew is read again."""
    if not data:
        return None
    try:
        slot = _decode(data)
    except (msgspec.DecodeError, ValueError):
        return None
    return slot if slot.version == 1 and len(slot.seen) % _WIDTH == 0 else None


class Memory(Protocol):
    """What is remembered of objects, each under the hour (since the epoch) of its key; see ``Ring``."""

    def ident(self, *parts: str) -> bytes:
        """The hash of a thing's name."""
        ...

    def has(self, hour: int, ident: bytes) -> bool:
        """Whether it was read."""
        ...

    def part(self, hour: int, ident: bytes) -> Part:
        """Where to go on in it."""
        ...

    def add(self, hour: int, *idents: bytes) -> bool:
        """Remember; False when that is not possible."""
        ...

    def keep(self, hour: int, part: Part) -> bool:
        """Remember how far an object of ``hour`` was read; as ``add``."""
        ...

    def cursor(self, hour: int) -> tuple[str, bytes]:
        """What to commit: a key and its value as it is now."""
        ...


class Ring:
    """The slots of one stream.

    Args:
        cursors: where they are kept.
        name: the stream; slots are ``name#0`` to ``name#<hours + 1>``.
        hours: how long something is remembered, at least.
        key: secret of the hashes.
    """

    def __init__(self, cursors: Cursors, name: str, hours: int, key: bytes) -> None:
        self._name = name
        self._size = hours + 2
        self._key = key[:64]
        self._hours: dict[int, int] = {}
        self._sets: dict[int, set[bytes]] = {}
        self._bytes: dict[int, bytearray] = {}
        self._parts: dict[int, Part] = {}
        for place in range(self._size):
            slot = load_slot(cursors.get(f"{name}#{place}"))
            if slot is not None and slot.hour % self._size == place:
                self._hours[place] = slot.hour
                self._bytes[place] = bytearray(slot.seen)
                self._parts[place] = slot.part

    @property
    def newest(self) -> int | None:
        """The newest hour (since the epoch) of which anything was read; None before the first."""
        return max(self._hours.values(), default=None)

    def ident(self, *parts: str) -> bytes:
        """The hash of a thing's name."""
        text = "\x00".join(parts).encode("utf-8", "surrogatepass")
        return hashlib.blake2b(text, key=self._key, digest_size=_WIDTH).digest()

    def has(self, hour: int, ident: bytes) -> bool:
        """Whether it was read."""
        place = hour % self._size
        return self._hours.get(place) == hour and ident in self._set(place)

    def holds(self, hour: int) -> bool:
        """Whether what was read in that hour is still remembered."""
        return self._hours.get(hour % self._size) == hour

    def part(self, hour: int, ident: bytes) -> Part:
        """Where to go on in it."""
        place = hour % self._size
        part = self._parts.get(place, _WHOLE) if self._hours.get(place) == hour else _WHOLE
        return part if part.ident == ident else _WHOLE

    def add(self, hour: int, *idents: bytes) -> bool:
        """Remember; False when the hour is older than what its slot holds now."""
        place = hour % self._size
        known = self._hours.get(place)
        if known is not None and known > hour:
            return False
        if known != hour:
            self._hours[place] = hour
            self._sets[place], self._bytes[place] = set(), bytearray()
            self._parts[place] = _WHOLE
        seen, flat = self._set(place), self._bytes[place]
        for ident in idents:
            if ident not in seen and len(seen) < _MOST:
                seen.add(ident)
                flat += ident
            if self._parts[place].ident == ident:
                self._parts[place] = _WHOLE
        return True

    def keep(self, hour: int, part: Part) -> bool:
        """Remember how far an object of ``hour`` was read; as ``add``."""
        known = self.add(hour)
        if known:
            self._parts[hour % self._size] = part
        return known

    def cursor(self, hour: int) -> tuple[str, bytes]:
        """The slot of ``hour``: its key and its value as it is now."""
        place = hour % self._size
        slot = _Slot(self._hours.get(place, hour), bytes(self._bytes.get(place, b"")), self._parts.get(place, _WHOLE))
        return f"{self._name}#{place}", _encode(slot)

    def _set(self, place: int) -> set[bytes]:
        """The hashes of a slot, taken apart when they are first asked for."""
        found = self._sets.get(place)
        if found is None:
            flat = bytes(self._bytes.get(place, b""))
            found = self._sets[place] = {flat[at : at + _WIDTH] for at in range(0, len(flat), _WIDTH)}
        return found
