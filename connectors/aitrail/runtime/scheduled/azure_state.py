"""What the runs of a function app remember, in one blob container: cursors, who may poll, what was sent, what waits.

One container, one role on it (Storage Blob Data Contributor). A table would be a second service with a second role, and
would be asked once per event; here a run asks once. Names:

- ``cursors/SOURCE``: all cursors of a source as one blob. It is written only over the version that this run has read
  (``If-Match``): a run that was overtaken commits nothing. That is the fence; clocks only decide who waits.
- ``leases/NAME``: who polls a source, and until when.
- ``seen/SOURCE/HOUR``: append blobs of the 16-byte keys of events that are settled, for 26 hours.
- ``dead/SOURCE/DAY/DIGEST``: dead letters, one JSON object a line, with no more content than the content mode allows.
- ``waiting/DESTINATION/DIGEST``: events that a destination could not take in time, as they are sent.

Names of dead letters and waiting events tell their content, so that writing them again writes nothing new.
"""

import hashlib
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

import msgspec
from isal import igzip
from msgspec import Struct

from aitrail.clock import Clock
from aitrail.errors import CorruptInputError, StoreError
from aitrail.ports import EncodedEvent, Lease
from aitrail.runtime.scheduled.azure_blobs import Blob, Blobs, Conflict
from aitrail.spool.records import DeadLetter
from aitrail.store.identity import run_of, split_keys

SEEN_HOURS = 26
# Cursors of hourly blobs older than the longest ``late_days`` are not looked at any more.
_CURSOR_DAYS = 100
_DAY = re.compile(r"/y=(\d{4})/m=(\d{2})/d=(\d{2})/")
_APPEND_BYTES = 2 << 20
_MOST_TEXT = 256 << 20


class _Held(Struct):
    """A lease as it is stored."""

    owner: str = ""
    token: int = 0
    expires: float = 0.0


class _Cursors(Struct):
    v: int = 1
    cursors: dict[str, bytes] = {}


class _Waiting(Struct, frozen=True):
    """One event that waits, as a line."""

    event_id: str
    timestamp: str
    body: msgspec.Raw


_encode = msgspec.json.Encoder().encode


class BlobCursors:
    """The cursors of one source as this run has read them; ``commit`` writes them back, or refuses.

    A ``ports.Cursors``.
    """

    def __init__(self, blobs: Blobs, source: str, clock: Clock) -> None:
        self._blobs, self._clock = blobs, clock
        self._name = f"cursors/{source}"
        self._etag = ""
        self._cursors: dict[str, bytes] = {}
        found = blobs.read(self._name)
        if found is not None:
            self._etag = found[1]
            self._cursors = _unpacked(found[0], self._name)

    def get(self, key: str) -> bytes | None:
        """Return the committed cursor of ``key``, or None."""
        return self._cursors.get(key)

    def items(self) -> Iterator[tuple[str, bytes]]:
        """All committed cursors of this source."""
        return iter(list(self._cursors.items()))

    def commit(self, changed: dict[str, bytes]) -> None:
        """Write ``changed`` over what this run has read.

        Raises:
            Conflict: another run has committed since: it goes on from there, and this one has to end.
        """
        if not changed and self._etag:
            return
        merged = _recent({**self._cursors, **changed}, self._clock.now())
        body = _packed(msgspec.msgpack.encode(_Cursors(1, merged)))
        self._etag = self._blobs.write(self._name, body, etag=self._etag)
        self._cursors = merged


def _unpacked(body: bytes, name: str) -> dict[str, bytes]:
    """Read cursors; a blob that is damaged stops the source: to begin anew without a word would be a gap or a flood."""
    try:
        stored = msgspec.msgpack.decode(_opened(body), type=_Cursors)
    except (ValueError, msgspec.MsgspecError, zlib.error):
        hint = "restore the blob's previous version, or delete it to begin at the setting `start` again"
        raise StoreError(f"the state blob {name} is damaged", hint=hint) from None
    if stored.v != 1:
        raise StoreError(f"the state blob {name} was written by a newer aitrail", hint="deploy that version again")
    return stored.cursors


def _packed(text: bytes) -> bytes:
    return bytes(igzip.compress(text, 1))


def _opened(body: bytes) -> bytes:
    """The text of ``_packed``; raises ``ValueError`` or ``zlib.error`` when it is damaged, torn or too long."""
    inflate = zlib.decompressobj(31)
    text = inflate.decompress(body, _MOST_TEXT)
    if not inflate.eof:
        raise ValueError("torn, or too long")
    return text


def _recent(cursors: dict[str, bytes], now: float) -> dict[str, bytes]:
    """Without cursors of hourly blobs that no look lists any more."""
    oldest = datetime.fromtimestamp(now, UTC) - timedelta(days=_CURSOR_DAYS)
    bound = (f"{oldest:%Y}", f"{oldest:%m}", f"{oldest:%d}")
    return {key: value for key, value in cursors.items() if (day := _DAY.search(key)) is None or day.groups() >= bound}


class Seen:
    """The keys of settled events of one source: recognises what a crash, or an overlap, brings again.

    What was read stays in memory between runs of one worker; only what others appended is fetched.
    """

    def __init__(self, blobs: Blobs, source: str, clock: Clock) -> None:
        self._blobs, self._clock = blobs, clock
        self._prefix = f"seen/{source}/"
        self._read: dict[str, tuple[int, set[bytes]]] = {}

    def refresh(self) -> None:
        """Read what is new, and remove hours that are too old."""
        oldest = self._hour(self._clock.now() - SEEN_HOURS * 3_600)
        there = {blob.name: blob for blob in self._blobs.listed(self._prefix)}
        for name in [name for name in there if name < oldest]:
            self._blobs.remove(name)
            del there[name]
        self._read = {name: known for name, known in self._read.items() if name in there}
        for name, blob in there.items():
            begun, keys = self._read.get(name, (0, set()))
            if blob.size < begun:
                begun, keys = 0, set()
            if blob.size > begun:
                found = self._blobs.read(name, begun)
                body = found[0] if found is not None else b""
                whole = len(body) - len(body) % 16
                keys.update(split_keys(body[:whole]))
                self._read[name] = (begun + whole, keys)

    def known(self, event_ids: Sequence[str]) -> list[bool]:
        """Say for each whether it is settled."""
        sets = [keys for _, keys in self._read.values()]
        return [any(key in keys for keys in sets) for key in split_keys(run_of(event_ids))] if event_ids else []

    def add(self, event_ids: Sequence[str]) -> None:
        """Note events that are settled. Durable when it returns."""
        if not event_ids:
            return
        name, run = self._hour(self._clock.now()), run_of(event_ids)
        for start in range(0, len(run), _APPEND_BYTES):
            self._blobs.append(name, run[start : start + _APPEND_BYTES])
        # Its length is left as it was: the next refresh reads the tail, ours and that of others.
        begun, keys = self._read.get(name, (0, set()))
        keys.update(split_keys(run))
        self._read[name] = (begun, keys)

    def _hour(self, epoch: float) -> str:
        return f"{self._prefix}{datetime.fromtimestamp(epoch, UTC):%Y%m%d%H}"


class BlobLeases:
    """``ports.Leases`` in blobs: every change is conditional on the version that was read.

    The clocks of the platform's machines decide who waits; what may be committed, the cursors' own ETag decides.
    """

    def __init__(self, blobs: Blobs, clock: Clock, owner: str) -> None:
        self._blobs, self._clock = blobs, clock
        self.owner = owner

    def acquire(self, name: str, seconds: float) -> Lease | None:
        """Take the lease when it is free, expired or ours; None when another holds it."""
        held, etag = self._read(name)
        now = self._clock.now()
        if held.owner not in ("", self.owner) and held.expires > now:
            return None
        token = held.token if held.owner == self.owner else held.token + 1
        return self._write(Lease(name, self.owner, token, now + seconds), etag)

    def renew(self, leases: Sequence[Lease], seconds: float) -> list[Lease]:
        """Extend leases and give those that are still ours."""
        kept: list[Lease] = []
        for lease in leases:
            held, etag = self._read(lease.name)
            if (held.owner, held.token) == (lease.owner, lease.token):
                more = Lease(lease.name, lease.owner, lease.token, self._clock.now() + seconds)
                renewed = self._write(more, etag)
                kept += [renewed] if renewed is not None else []
        return kept

    def release(self, leases: Sequence[Lease]) -> None:
        """Give leases back; those that are not ours any more are left alone."""
        for lease in leases:
            held, etag = self._read(lease.name)
            if (held.owner, held.token) == (lease.owner, lease.token):
                self._write(Lease(lease.name, lease.owner, lease.token, 0.0), etag)

    def _read(self, name: str) -> tuple[_Held, str]:
        found = self._blobs.read(f"leases/{name}")
        if found is None:
            return _Held(), ""
        try:
            return msgspec.json.decode(found[0], type=_Held), found[1]
        except msgspec.MsgspecError:
            return _Held(), found[1]  # nobody's: the cursors' ETag keeps two pollers apart

    def _write(self, lease: Lease, etag: str) -> Lease | None:
        try:
            body = _encode(_Held(lease.owner, lease.token, lease.expires))
            self._blobs.write(f"leases/{lease.name}", body, etag=etag)
        except Conflict:
            return None
        return lease


class DeadLetters:
    """Keeps dead letters for people to read; the container's lifecycle rule says for how long."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def keep(self, letters: Sequence[DeadLetter]) -> None:
        """Write letters. Durable when it returns; the same letters again are the same blob again."""
        by_place: dict[str, list[DeadLetter]] = {}
        for letter in letters:
            day = datetime.fromtimestamp(letter.first_seen, UTC)
            by_place.setdefault(f"dead/{letter.source or 'unknown'}/{day:%Y%m%d}", []).append(letter)
        for place, some in by_place.items():
            name = hashlib.blake2b("".join(sorted(one.id for one in some)).encode(), digest_size=16).hexdigest()
            self._blobs.put(f"{place}/{name}", b"".join(_encode(one) + b"\n" for one in some))

    def all(self) -> Iterator[DeadLetter]:
        """Every letter that is kept, by day."""
        for blob in self._blobs.listed("dead/"):
            found = self._blobs.read(blob.name)
            for line in (found[0] if found is not None else b"").splitlines():
                yield msgspec.json.decode(line, type=DeadLetter)


class WaitingEvents:
    """Events that a destination could not take while they were in hand.

    They are kept as they are sent: after the content mode, never the record that they came from.
    """

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def keep(self, destination: str, events: Sequence[EncodedEvent]) -> None:
        """Write events for ``destination``. Durable when it returns."""
        if not events:
            return
        name = hashlib.blake2b(run_of([event.event_id for event in events]), digest_size=16).hexdigest()
        lines = [_encode(_Waiting(one.event_id, one.timestamp, msgspec.Raw(one.body))) for one in events]
        self._blobs.put(f"waiting/{destination}/{name}", _packed(b"\n".join(lines)))

    def listed(self, destination: str = "", most: int = 1 << 31) -> Iterator[Blob]:
        """The blobs that wait for one destination, or for all."""
        return self._blobs.listed(f"waiting/{destination}/" if destination else "waiting/", most)

    def read(self, blob: Blob) -> list[EncodedEvent]:
        """The events of one blob; none when another run has taken it.

        Raises:
            CorruptInputError: it is damaged.
        """
        found = self._blobs.read(blob.name)
        if found is None:
            return []
        try:
            lines = _opened(found[0]).split(b"\n")
            some = [msgspec.json.decode(line, type=_Waiting) for line in lines if line]
        except (ValueError, zlib.error):
            raise CorruptInputError("not_json", f"the state blob {blob.name} is damaged") from None
        return [EncodedEvent(one.event_id, one.timestamp, bytes(one.body)) for one in some]

    def settle(self, blob: Blob, left: Iterable[EncodedEvent]) -> None:
        """Keep what is ``left`` of a blob, then remove it; in this order, so that a crash repeats and loses nothing."""
        rest = list(left)
        if rest:
            self.keep(blob.name.split("/")[1], rest)
        again = hashlib.blake2b(run_of([one.event_id for one in rest]), digest_size=16).hexdigest() if rest else ""
        if blob.name.rpartition("/")[2] != again:
            self._blobs.remove(blob.name)
