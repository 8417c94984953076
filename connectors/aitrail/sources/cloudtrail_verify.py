"""Walk the chains of CloudTrail's digests, newest first, and judge every digest and every log file.

Verdicts of a log file: ``valid``, ``mismatch`` (changed), ``missing`` (deleted), ``unsigned`` (no valid digest vouches
for it), ``pending`` (too new for a digest; not wrong). Of a digest: ``valid``, ``invalid`` (changed, moved, or not the
one that the digest behind it names), ``missing``, ``unsigned``, and ``gap`` where the chain starts anew although older
digests are there: logging was stopped.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal, Protocol

from msgspec import Struct

from aitrail.errors import CorruptInputError
from aitrail.sources._s3_keys import Described, describe
from aitrail.sources._s3_objects import Gone
from aitrail.sources.cloudtrail_digest import (
    ALGORITHM,
    Digest,
    LogFile,
    PublicKeys,
    Signature,
    Stored,
    Verdict,
    check_log,
    parse,
    read_digest,
    signature_of,
    verify,
)

# A file's name holds the minute of its making; it is delivered, and listed, up to this much later.
_DELIVERY_SECONDS = 3_600
_NAME = re.compile(r"_CloudTrail-Digest_(?P<chain>.+)_\d{8}T\d{6}Z(?P<backfill>_backfill)?\.json\.gz")
GOOD: frozenset[Verdict] = frozenset({"valid", "pending"})


class Finding(Struct, frozen=True):
    """The verdict of one file."""

    kind: Literal["digest", "log"]
    origin: str
    verdict: Verdict
    reason: str = ""


class Held(Protocol):
    """An object that was opened."""

    @property
    def metadata(self) -> dict[str, str]:
        """Its metadata; empty in a plain copy of a bucket."""
        ...

    def read(self, count: int) -> bytes:
        """Return up to ``count`` bytes; empty at the end."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class Store(Protocol):
    """Where digests and log files are: a bucket, or a copy of one."""

    def listing(self) -> Iterator[str]:
        """All keys of digests and log files, in any order."""
        ...

    def open(self, bucket: str, key: str) -> Held:
        """Open an object; raises ``Gone``. ``bucket`` is what the digest says; empty: the store's own."""
        ...

    def same_place(self, bucket: str, key: str, digest: Digest) -> bool:
        """Whether a digest lies where it says that it was written."""
        ...

    def public_keys(self, region: str, start: str, end: str) -> PublicKeys:
        """CloudTrail's public keys of a region and time."""
        ...


class _Link(Struct):
    """What the digest behind says of the one before it."""

    key: str
    bucket: str
    signature: str
    hash_value: str


class Verifier:
    """Judges what a store holds.

    Args:
        store: where to look.
        start: epoch seconds; digests that end before are left out (0: none).
        end: epoch seconds; digests that end after are left out.
    """

    def __init__(self, store: Store, *, start: float = 0.0, end: float = float("inf")) -> None:
        self._store = store
        self._start = start
        self._end = end
        self._listed: set[str] = set()

    def findings(self) -> Iterator[Finding]:
        """Judge everything, chain by chain; then the log files that no digest lists."""
        chains: dict[tuple[str, str, bool], list[tuple[int, str]]] = defaultdict(list)
        logs: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
        older: set[tuple[str, str, bool]] = set()
        for key in self._store.listing():
            what = describe(key)
            if what.kind == "digest":
                chain, time = _chain_of(key, what)
                if chain is not None and time < self._start:
                    older.add(chain)
                elif chain is not None and time <= self._end:
                    chains[chain].append((time, key))
            elif what.kind == "cloudtrail":
                logs[what.account, what.region].append((what.time, key))
        covered: dict[tuple[str, str], float] = {}
        for chain, found in sorted(chains.items()):
            walk = _Walk(self._store, sorted(found), bounded=chain in older or self._start > 0, listed=self._listed)
            yield from walk.findings()
            place = _place(chain[0])
            covered[place] = max(covered.get(place, 0.0), walk.newest)
        yield from self._unlisted(logs, covered)

    def _unlisted(
        self, logs: dict[tuple[str, str], list[tuple[int, str]]], covered: dict[tuple[str, str], float]
    ) -> Iterator[Finding]:
        for place, found in sorted(logs.items()):
            newest = covered.get(place)
            for time, key in sorted(found):
                if key in self._listed or not self._start <= time <= self._end:
                    continue
                if newest is not None and time >= newest - _DELIVERY_SECONDS:
                    yield Finding("log", key, "pending", "no digest of its hour is there yet")
                else:
                    yield Finding("log", key, "unsigned", "no digest lists it")


class _Walk:
    """One chain."""

    def __init__(self, store: Store, found: list[tuple[int, str]], *, bounded: bool, listed: set[str]) -> None:
        self._store = store
        self._found = found
        self._bounded = bounded
        self._listed = listed
        self.newest = 0.0
        self._region = describe(found[0][1]).region
        first, last = (datetime.fromtimestamp(found[place][0], UTC).isoformat() for place in (0, -1))
        self._keys = store.public_keys(self._region, first, last)

    def findings(self) -> Iterator[Finding]:
        """Judge the chain from its newest digest back."""
        link: _Link | None = None
        waiting = [key for _, key in self._found]
        while waiting or link is not None:
            if link is not None and link.key not in waiting:
                if not waiting and self._bounded:
                    return  # goes on before the range
                yield self._absent(link)
                link = None
                continue
            key = waiting.pop()
            if link is not None and key != link.key:
                yield Finding("digest", key, "invalid", "it is not part of the chain")
                continue
            digest, findings = self._judge(key, link)
            yield from findings
            # What an invalid digest says of the one before it counts for nothing.
            trusted = digest is not None and findings[0].verdict != "invalid"
            link = _link_of(digest) if digest is not None and trusted else None
            if trusted and link is None and waiting:
                yield Finding("digest", key, "gap", "the chain starts here although older digests are there")

    def _absent(self, link: _Link) -> Finding:
        """The digest before is not where it should be (its bucket may be another one)."""
        try:
            self._store.open(link.bucket, link.key).close()
        except Gone:
            return Finding("digest", link.key, "missing", "the digest behind it names it")
        return Finding("digest", link.key, "valid", "outside of what was looked at")

    def _judge(self, key: str, link: _Link | None) -> tuple[Digest | None, list[Finding]]:
        try:
            held = self._store.open("", key)
        except Gone:
            return None, [Finding("digest", key, "missing", "it was deleted while it was looked at")]
        try:
            text = read_digest(held)
            digest = parse(text)
            signature = signature_of(held.metadata)
        except CorruptInputError as error:
            return None, [Finding("digest", key, "invalid", f"it cannot be read ({error.code})")]
        finally:
            held.close()
        self.newest = max(self.newest, _epoch(digest.digest_end_time))
        verdict, reason = self._digest_verdict(key, digest, text, signature, link)
        findings = [Finding("digest", key, verdict, reason)]
        for listed in digest.log_files if self._store.same_place("", key, digest) else ():
            self._listed.add(listed.s3_object)
            findings.append(self._log(listed, vouched=verdict == "valid"))
        return digest, findings

    def _digest_verdict(
        self, key: str, digest: Digest, text: bytes, signature: Signature, link: _Link | None
    ) -> tuple[Verdict, str]:
        if not self._store.same_place("", key, digest):
            return "invalid", "it was moved: it names another place as its own"
        if link is not None:
            if link.hash_value and hashlib.sha256(text).hexdigest() != link.hash_value.lower():
                return "invalid", "its hash is not what the digest behind it says"
            if not signature.value:
                signature = Signature(link.signature, ALGORITHM, signature.made)
            elif signature.value.lower() != link.signature.lower():
                return "invalid", "its signature is not what the digest behind it says"
        if signature.made and not self._keys.find(digest.digest_public_key_fingerprint):
            # A back-fill digest is signed when it is made, which may be long after its hour.
            self._keys = self._store.public_keys(self._region, signature.made, signature.made)
        return verify(digest, text, signature, self._keys)

    def _log(self, listed: LogFile, *, vouched: bool) -> Finding:
        try:
            held = self._store.open(listed.s3_bucket, listed.s3_object)
        except Gone:
            return Finding("log", listed.s3_object, "missing", "it was delivered and is not there")
        try:
            verdict, reason = check_log(held, listed)
        finally:
            held.close()
        if verdict == "valid" and not vouched:
            return Finding("log", listed.s3_object, "unsigned", "the digest that lists it is not valid")
        return Finding("log", listed.s3_object, verdict, reason)


def _link_of(digest: Digest) -> _Link | None:
    if not digest.previous_digest_s3_object:
        return None
    return _Link(
        digest.previous_digest_s3_object,
        digest.previous_digest_s3_bucket or digest.digest_s3_bucket,
        digest.previous_digest_signature or "",
        digest.previous_digest_hash_value or "",
    )


def _chain_of(key: str, what: Described) -> tuple[tuple[str, str, bool] | None, int]:
    """Which chain a digest belongs to, and its end time."""
    match = _NAME.search(key)
    if match is None:
        return None, 0
    return (what.stream, match["chain"], match["backfill"] is not None), what.time


def _place(stream: str) -> tuple[str, str]:
    parts = stream.rstrip("/").split("/")
    return parts[-3], parts[-1]


def _epoch(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


__all__ = ["GOOD", "Finding", "Held", "Store", "Stored", "Verifier"]
