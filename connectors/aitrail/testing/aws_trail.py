"""A trail that is written as CloudTrail writes one: log files, hourly digests in a signed chain, and back-fill digests.

Made after the CloudTrail user guide, "CloudTrail digest file structure". The key pair is made here, once per process.
"""

import gzip
import hashlib
import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from msgspec import Struct

from aitrail.testing.aws_flow import ACCOUNT

FINGERPRINT = "67b9fa73676d86966b449dd677850753"
_HOUR = 3_600
Put = Callable[[str, bytes, dict[str, str]], None]


def key_pair(name: str = "trail") -> rsa.RSAPrivateKey:
    """A key pair by name."""
    return _made(name)


@lru_cache(maxsize=2)
def _made(name: str) -> rsa.RSAPrivateKey:
    del name
    return rsa.generate_private_key(public_exponent=65_537, key_size=2_048)


def public_der(name: str = "trail") -> bytes:
    """The public key as ListPublicKeys gives it: DER, PKCS #1."""
    key = key_pair(name).public_key()
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)


def public_pem(name: str = "trail") -> bytes:
    """The public key as PEM."""
    key = key_pair(name).public_key()
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


class Written(Struct):
    """One log file: its key and its decompressed text."""

    key: str
    text: bytes


class _Last(Struct):
    key: str
    signature: str
    hash_value: str


class Trail:
    """Writes one trail through ``put(key, body, metadata)``.

    Attributes:
        digests: keys of the digests, oldest first.
        logs: keys of the log files.
    """

    def __init__(
        self, put: Put, bucket: str, *, region: str = "us-east-1", prefix: str = "", name: str = "main"
    ) -> None:
        self._put = put
        self._bucket = bucket
        self._region = region
        self._root = f"{prefix}AWSLogs/{ACCOUNT}/"
        self._name = name
        self._number = 0
        self._last: dict[bool, _Last] = {}
        self.digests: list[str] = []
        self.logs: list[str] = []

    def log(self, records: Iterable[dict[str, Any]], time: float) -> Written:
        """Write one log file of the minute ``time``."""
        self._number += 1
        moment = datetime.fromtimestamp(time, UTC)
        key = (
            f"{self._root}CloudTrail/{self._region}/{moment:%Y/%m/%d}/{ACCOUNT}_CloudTrail_{self._region}_"
            f"{moment:%Y%m%dT%H%MZ}_{self._number:016x}.json.gz"
        )
        text = json.dumps({"Records": list(records)}).encode()
        self._put(key, gzip.compress(text, mtime=0), {})
        self.logs.append(key)
        return Written(key, text)

    def digest(self, files: Iterable[Written], end: float, *, backfill: bool = False, chained: bool = True) -> str:
        """Write the digest of the hour that ends at ``end``; returns its key."""
        moment = datetime.fromtimestamp(end, UTC)
        key = (
            f"{self._root}CloudTrail-Digest/{self._region}/{moment:%Y/%m/%d}/{ACCOUNT}_CloudTrail-Digest_{self._region}_"
            f"{self._name}_{self._region}_{moment:%Y%m%dT%H%M%SZ}{'_backfill' if backfill else ''}.json.gz"
        )
        last = self._last.get(backfill) if chained else None
        text = json.dumps(self._content(key, files, end, last)).encode()
        digest_hash = hashlib.sha256(text).hexdigest()
        signed = f"{_iso(end)}\n{self._bucket}/{key}\n{digest_hash}\n{last.signature if last else 'null'}"
        signature = key_pair().sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()).hex()
        metadata = {"signature": signature, "signature-algorithm": "SHA256withRSA"}
        if backfill:
            metadata["backfill-generation-timestamp"] = _iso(end)
        self._put(key, gzip.compress(text, mtime=0), metadata)
        self._last[backfill] = _Last(key, signature, digest_hash)
        self.digests.append(key)
        return key

    def _content(self, key: str, files: Iterable[Written], end: float, last: _Last | None) -> dict[str, Any]:
        return {
            "awsAccountId": ACCOUNT,
            "digestStartTime": _iso(end - _HOUR),
            "digestEndTime": _iso(end),
            "digestS3Bucket": self._bucket,
            "digestS3Object": key,
            "digestPublicKeyFingerprint": FINGERPRINT,
            "digestSignatureAlgorithm": "SHA256withRSA",
            "newestEventTime": None,
            "oldestEventTime": None,
            "previousDigestS3Bucket": self._bucket if last else None,
            "previousDigestS3Object": last.key if last else None,
            "previousDigestHashValue": last.hash_value if last else None,
            "previousDigestHashAlgorithm": "SHA-256" if last else None,
            "previousDigestSignature": last.signature if last else None,
            "logFiles": [
                {
                    "s3Bucket": self._bucket,
                    "s3Object": one.key,
                    "hashValue": hashlib.sha256(one.text).hexdigest(),
                    "hashAlgorithm": "SHA-256",
                    "newestEventTime": _iso(end),
                    "oldestEventTime": _iso(end - _HOUR),
                }
                for one in files
            ],
        }


def _iso(time: float) -> str:
    return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%dT%H:%M:%SZ}"
