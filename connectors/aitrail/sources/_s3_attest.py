"""The collector's side of CloudTrail's digests: a digest that arrives gives every log file in it a verdict.

A log file is read as soon as it is there and recorded as ``unverified``; its digest comes up to an hour later, and then
the file's verdict is recorded under the same origin: ``valid``, ``mismatch``, ``missing`` or ``unsigned``, and
``changed`` when what lies there now is valid but is not what was read. ``aitrail cloudtrail verify`` checks the chains
as a whole; here each digest is checked on its own, and that the digest before it, which it names, is still there.
"""

from collections.abc import Callable, Generator, Iterator

from aitrail.errors import AuthError, CorruptInputError
from aitrail.ports import RawBatch
from aitrail.sources._aws_calls import Aws
from aitrail.sources._aws_seen import Ring
from aitrail.sources._cloudtrail_stores import KeyService
from aitrail.sources._s3_batches import hour_of
from aitrail.sources._s3_keys import describe
from aitrail.sources._s3_objects import Body, Gone, Opened, S3Object
from aitrail.sources.cloudtrail_digest import Digest, LogFile, check_log, parse, read_digest, signature_of, verify

UNVERIFIED = "unverified"


class Attestor:
    """Turns digests into verdicts.

    Attributes:
        gaps: how many digests named one before them that is not there.
    """

    def __init__(
        self, aws: Aws, keys: KeyService, buckets: frozenset[str], ring_of: Callable[[S3Object], Ring],
        note: Callable[[str], None],
    ) -> None:  # fmt: skip
        """``ring_of`` gives what was read of the stream that an object belongs to."""
        self._aws = aws
        self._keys = keys
        self._buckets = buckets
        self._ring_of = ring_of
        self._note = note
        self.gaps = 0

    def batches(self, one: S3Object, opened: Opened, region: str, *, receipt: str = "") -> Iterator[RawBatch]:
        """Yield one batch per log file of a digest, without records, and one for the digest itself at the end.

        Raises:
            AuthError, TransientError: a file could not be read, or the public keys could not be asked for.
        """
        if isinstance(opened, Gone):
            self._note(f"{one.origin}: the digest was deleted before it could be read")
            self.gaps += 1
            yield RawBatch(one.origin, [], "", b"", settled=True, receipt=receipt, attestation="missing")
            return
        if not isinstance(opened, Body):
            raise opened
        ring, what = self._ring_of(one), describe(one.key)
        hour, ident = hour_of(one, opened, what), ring.ident(one.bucket, one.key, opened.etag)
        verdict = "valid"
        if not ring.has(hour, ident):
            try:
                verdict = yield from self._digest(one, opened, what.region, region)
            finally:
                opened.close()
        known = ring.add(hour, ident)
        key, cursor = ring.cursor(hour) if known else ("", b"")
        yield RawBatch(one.origin, [], key, cursor, settled=True, receipt=receipt, attestation=verdict)

    def _digest(self, one: S3Object, body: Body, source_region: str, region: str) -> Generator[RawBatch, None, str]:
        """Yield the verdicts of the log files; returns the digest's own."""
        try:
            text = read_digest(body)
            digest = parse(text)
        except CorruptInputError as error:
            self._note(f"{one.origin}: the digest cannot be read ({error.code})")
            return "invalid"
        verdict, reason = self._signed(one, digest, text, body, source_region)
        if reason:
            self._note(f"{one.origin}: {reason}")
        yield from self._before(digest, region)
        for listed in digest.log_files:
            found = self._log(listed, region, vouched=verdict == "valid")
            if found not in ("valid", "unsigned"):
                self._note(f"{listed.origin}: {found}, says {one.origin}")
            yield RawBatch(listed.origin, [], "", b"", attestation=found)
        return verdict

    def _signed(self, one: S3Object, digest: Digest, text: bytes, body: Body, source_region: str) -> tuple[str, str]:
        if (digest.digest_s3_bucket, digest.digest_s3_object) != (one.bucket, one.key):
            return "invalid", "the digest names another place as its own"
        signature = signature_of(body.metadata)
        return verify(digest, text, signature, self._keys.for_digest(source_region, digest, signature))

    def _before(self, digest: Digest, region: str) -> Iterator[RawBatch]:
        """Count a gap when the digest before, which this one names, is not there or another one; yields its verdict."""
        bucket, key = digest.previous_digest_s3_bucket, digest.previous_digest_s3_object
        if not bucket or not key or bucket not in self._buckets:
            return
        try:
            before = Body(self._aws, region, S3Object(bucket, key))
        except Gone:
            self.gaps += 1
            self._note(f"s3://{bucket}/{key}: the digest is missing; the one behind it names it")
            yield RawBatch(S3Object(bucket, key).origin, [], "", b"", attestation="missing")
            return
        except AuthError:
            return  # keys from before this collector's permissions began
        before.close()
        signature = signature_of(before.metadata).value
        if signature and signature != digest.previous_digest_signature:
            self.gaps += 1
            self._note(f"s3://{bucket}/{key}: the digest is not the one that was signed")
            yield RawBatch(S3Object(bucket, key).origin, [], "", b"", attestation="changed")

    def _log(self, listed: LogFile, region: str, *, vouched: bool) -> str:
        if listed.s3_bucket not in self._buckets:
            return "foreign"
        one = S3Object(listed.s3_bucket, listed.s3_object)
        try:
            body = Body(self._aws, region, one)
        except Gone:
            return "missing"
        try:
            verdict, _ = check_log(body, listed)
        finally:
            body.close()
        if verdict != "valid":
            return verdict
        if not vouched:
            return "unsigned"
        ring, hour = self._ring_of(one), hour_of(one, body, describe(one.key))
        if ring.holds(hour) and not ring.has(hour, ring.ident(one.bucket, one.key, body.etag)):
            return "changed" if ring.has(hour, ring.ident(one.bucket, one.key)) else verdict
        return verdict
