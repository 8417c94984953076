"""CloudTrail's digest files: what one says, who signed it, and whether a log file is what it says.

Source: CloudTrail user guide, "Validating CloudTrail log file integrity" (digest file structure, custom
implementations). Every hour CloudTrail lists the log files that it delivered, with the SHA-256 of each file's
decompressed text, and signs the list together with the signature of the list before: a chain, in which a file cannot
be changed, added or taken out unnoticed. Log files that were delivered late are listed in ``_backfill`` digests, which
are a chain of their own.
"""

import base64
import hashlib
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from msgspec import Struct

from aitrail.errors import ConfigError, CorruptInputError

Verdict = Literal["valid", "mismatch", "missing", "unsigned", "invalid", "gap", "pending"]
ALGORITHM = "SHA256withRSA"
HASH = "SHA-256"
_PIECE = 256 << 10
# A digest of an hour with 10,000 log files has about 5 MB.
DIGEST_BYTES = 64 << 20
# CloudTrail closes a log file at 50 MB; the rest is room.
LOG_BYTES = 2 << 30


class LogFile(Struct, frozen=True, gc=False, rename="camel"):
    """One listed log file; ``hash_value`` is hex over its decompressed text."""

    s3_bucket: str = msgspec.field(name="s3Bucket")
    s3_object: str = msgspec.field(name="s3Object")
    hash_value: str = ""
    hash_algorithm: str = HASH

    @property
    def origin(self) -> str:
        """Its URL."""
        return f"s3://{self.s3_bucket}/{self.s3_object}"


class Digest(Struct, frozen=True, gc=False, rename="camel"):
    """One digest file; times as text, UTC."""

    digest_start_time: str
    digest_end_time: str
    digest_s3_bucket: str = msgspec.field(name="digestS3Bucket")
    digest_s3_object: str = msgspec.field(name="digestS3Object")
    digest_public_key_fingerprint: str
    aws_account_id: str = ""
    digest_signature_algorithm: str = ALGORITHM
    previous_digest_s3_bucket: str | None = msgspec.field(name="previousDigestS3Bucket", default=None)
    previous_digest_s3_object: str | None = msgspec.field(name="previousDigestS3Object", default=None)
    previous_digest_hash_value: str | None = None
    previous_digest_hash_algorithm: str | None = None
    previous_digest_signature: str | None = None
    log_files: list[LogFile] = []


class Signature(Struct, frozen=True, gc=False):
    """What stands beside a digest in its object's metadata; empty where there is none."""

    value: str = ""
    algorithm: str = ""
    made: str = ""


def signature_of(metadata: Mapping[str, str]) -> Signature:
    """Read the metadata of a digest object; ``made`` is when a back-fill digest was made and signed."""
    return Signature(
        metadata.get("signature", ""),
        metadata.get("signature-algorithm", ""),
        metadata.get("backfill-generation-timestamp", ""),
    )


_decode = msgspec.json.Decoder(Digest).decode


def parse(text: bytes) -> Digest:
    """Read a digest's decompressed text; raises ``CorruptInputError``."""
    try:
        return _decode(text)
    except (msgspec.DecodeError, RecursionError, ValueError):
        raise CorruptInputError("json_invalid", "not a CloudTrail digest") from None


class PublicKeys:
    """CloudTrail's public keys by fingerprint; keys of a PEM file have none and are tried one after the other."""

    def __init__(self, named: Mapping[str, bytes] | None = None, unnamed: Iterable[bytes] = ()) -> None:
        """Take keys as DER (PKCS #1, as ListPublicKeys gives them, or SubjectPublicKeyInfo)."""
        self._named = {name.lower(): _rsa(value) for name, value in (named or {}).items()}
        self._unnamed = [key for key in map(_rsa, unnamed) if key is not None]

    def find(self, fingerprint: str) -> list[rsa.RSAPublicKey]:
        """The keys that a digest with this fingerprint may be signed with."""
        key = self._named.get(fingerprint.lower())
        return [key] if key is not None else self._unnamed


def load_keys(path: Path) -> PublicKeys:
    """Read public keys from a file: PEM, or the JSON that ``aws cloudtrail list-public-keys`` prints.

    Raises:
        ConfigError: it cannot be read or holds no RSA public key.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})", where="public_keys") from None
    try:
        if data.lstrip().startswith(b"{"):
            listed: Any = msgspec.json.decode(data)["PublicKeyList"]
            named = {str(one["Fingerprint"]): base64.b64decode(one["Value"]) for one in listed}
            keys = PublicKeys(named)
            usable = any(keys.find(name) for name in named)
        else:
            pieces = [part + b"-----END" + end.split(b"\n", 1)[0] for part, _, end in _pem_parts(data)]
            loaded = [serialization.load_pem_public_key(piece) for piece in pieces]
            der = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            keys = PublicKeys(unnamed=[key.public_bytes(*der) for key in loaded])
            usable = bool(keys.find(""))
    except (ValueError, KeyError, TypeError, msgspec.DecodeError):
        usable = False
    if not usable:
        raise ConfigError(
            f"{path}: holds no RSA public key",
            where="public_keys",
            hint="give a PEM file, or the output of: aws cloudtrail list-public-keys --start-time ... --end-time ...",
        )
    return keys


def verify(digest: Digest, text: bytes, signature: Signature, keys: PublicKeys) -> tuple[Verdict, str]:
    """Check who signed a digest.

    Args:
        digest: what was read from ``text``.
        text: the digest's decompressed bytes.
        signature: of its object's metadata, or as the digest behind it repeats it.
        keys: CloudTrail's.

    Returns:
        ``valid``; ``unsigned`` when nothing can be checked; ``invalid``; with the reason.
    """
    if not signature.value:
        return "unsigned", "it carries no signature"
    if (signature.algorithm or digest.digest_signature_algorithm) != ALGORITHM:
        return "unsigned", "its signature algorithm is not known"
    found = keys.find(digest.digest_public_key_fingerprint)
    if not found:
        return "unsigned", "its public key is not known"
    try:
        raw = bytes.fromhex(signature.value)
    except ValueError:
        return "invalid", "its signature is not hexadecimal"
    signed = signed_text(digest, text)
    for key in found:
        try:
            key.verify(raw, signed, padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            continue
        return "valid", ""
    return "invalid", "its signature does not fit its content"


def signed_text(digest: Digest, text: bytes) -> bytes:
    """What CloudTrail signs: end time, place, hash of the digest, and the signature before it."""
    place = f"{digest.digest_s3_bucket}/{digest.digest_s3_object}"
    before = digest.previous_digest_signature or "null"
    return f"{digest.digest_end_time}\n{place}\n{hashlib.sha256(text).hexdigest()}\n{before}".encode()


class Stored(Protocol):
    """The stored bytes of an object."""

    def read(self, count: int) -> bytes:
        """Return up to ``count`` bytes; empty at the end."""
        ...


def read_digest(stored: Stored) -> bytes:
    """The decompressed text of a digest; raises ``CorruptInputError``."""
    return b"".join(_inflated(stored, DIGEST_BYTES))


def check_log(stored: Stored, listed: LogFile) -> tuple[Verdict, str]:
    """Compare a log file with its hash: ``valid`` or ``mismatch``, with the reason."""
    if listed.hash_algorithm != HASH:
        return "mismatch", "its hash algorithm is not known"
    digest = hashlib.sha256()
    try:
        for piece in _inflated(stored, LOG_BYTES):
            digest.update(piece)
    except CorruptInputError:
        return "mismatch", "it is not one whole gzip member"
    same = digest.hexdigest() == listed.hash_value.lower()
    return ("valid", "") if same else ("mismatch", "its content is not what was delivered")


def _inflated(stored: Stored, most: int) -> Iterable[bytes]:
    """Decompress exactly one gzip member: what stands behind it is not covered by the hash, so it is an error."""
    member = zlib.decompressobj(wbits=31)
    size = 0
    while data := stored.read(_PIECE):
        if member.eof:
            raise CorruptInputError("gzip_corrupt", "data behind the gzip member")
        while data:
            try:
                text = member.decompress(data, _PIECE)
            except zlib.error:
                raise CorruptInputError("gzip_corrupt") from None
            size += len(text)
            if size > most:
                raise CorruptInputError("bomb_size")
            yield text
            if member.unused_data:
                raise CorruptInputError("gzip_corrupt", "data behind the gzip member")
            data = member.unconsumed_tail
    if not member.eof:
        raise CorruptInputError("gzip_truncated")


def _rsa(data: bytes) -> rsa.RSAPublicKey | None:
    try:
        key = serialization.load_der_public_key(data)
    except ValueError:
        return None
    return key if isinstance(key, rsa.RSAPublicKey) else None


def _pem_parts(data: bytes) -> Iterable[tuple[bytes, bytes, bytes]]:
    for part in data.split(b"-----BEGIN")[1:]:
        yield (b"-----BEGIN" + part).partition(b"-----END")
