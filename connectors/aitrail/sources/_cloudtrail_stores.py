"""Where ``cloudtrail_verify`` looks: a bucket, or a copy of one in a directory; and CloudTrail's public keys."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from aitrail.errors import TransientError
from aitrail.sources._aws_calls import Aws
from aitrail.sources._s3_listing import listing
from aitrail.sources._s3_objects import Body, Gone, S3Object
from aitrail.sources.cloudtrail_digest import Digest, PublicKeys, Signature, load_keys
from aitrail.sources.cloudtrail_verify import Held

SIDECAR = ".metadata.json"
# A digest is signed with a key that is valid when it is made, up to this long after its end.
_AFTER = timedelta(hours=2)
_BEFORE = timedelta(hours=1)
_MOST_PAGES = 100


class KeyService:
    """CloudTrail's ListPublicKeys, per region, remembered; or a file of keys."""

    def __init__(self, aws: Aws | None, path: str = "") -> None:
        """``aws`` None: only the file; raises ``ConfigError`` when it holds no key."""
        self._aws = aws
        self._fixed = load_keys(Path(path)) if path else None
        self._known: dict[str, dict[str, bytes]] = {}

    def keys(self, region: str, start: str, end: str) -> PublicKeys:
        """The keys of ``region`` between two times (ISO 8601).

        Raises:
            AuthError: ``cloudtrail:ListPublicKeys`` is not allowed.
            TransientError: try again later.
        """
        if self._fixed is not None:
            return self._fixed
        if self._aws is None:
            return PublicKeys()
        known = self._known.setdefault(region, {})
        known.update(self._listed(self._aws, region, start, end))
        return PublicKeys(known)

    def for_digest(self, region: str, digest: Digest, signature: Signature) -> PublicKeys:
        """The keys that this digest may be signed with; raises as ``keys``."""
        known = self._known.get(region, {})
        if self._fixed is None and digest.digest_public_key_fingerprint in known:
            return PublicKeys(known)
        start, end = digest.digest_start_time, digest.digest_end_time
        return self.keys(region, signature.made or start, signature.made or end)

    def _listed(self, aws: Aws, region: str, start: str, end: str) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        more: dict[str, Any] = {}
        for _ in range(_MOST_PAGES):
            answer = aws.call(
                "cloudtrail", region, "list_public_keys", f"CloudTrail in {region}",
                StartTime=_moment(start) - _BEFORE, EndTime=_moment(end) + _AFTER, **more,
            )  # fmt: skip
            for one in answer.get("PublicKeyList", []):
                found[str(one["Fingerprint"])] = bytes(one["Value"])
            if not answer.get("NextToken") or answer["NextToken"] == more.get("NextToken"):
                break
            more = {"NextToken": str(answer["NextToken"])}
        return found


class BucketStore:
    """A bucket (and the buckets that its digests name)."""

    def __init__(
        self, aws: Aws, region: str, bucket: str, prefix: str, keys: KeyService, accounts: tuple[str, ...]
    ) -> None:
        self._aws = aws
        self._region = region
        self._bucket = bucket
        self._prefix = prefix
        self._keys = keys
        self._accounts = accounts

    def listing(self) -> Iterator[str]:
        """All keys below the prefix, of the chosen accounts."""
        roots = [f"{self._prefix}AWSLogs/{account}/" for account in self._accounts] or [f"{self._prefix}AWSLogs/"]
        for root in roots:
            for one in listing(self._aws, self._region, self._bucket, root):
                yield one.key

    def open(self, bucket: str, key: str) -> Held:
        """Open an object; raises ``Gone``, ``AuthError`` or ``TransientError``."""
        return Body(self._aws, self._region, S3Object(bucket or self._bucket, key))

    def same_place(self, bucket: str, key: str, digest: Digest) -> bool:
        """Bucket and key must be the ones in the digest."""
        return digest.digest_s3_bucket == (bucket or self._bucket) and digest.digest_s3_object == key

    def public_keys(self, region: str, start: str, end: str) -> PublicKeys:
        """Of CloudTrail in the digests' region."""
        return self._keys.keys(region, start, end)


class _File:
    """A file with the metadata that its object had, when the copy kept it."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("rb")
        self.metadata = _sidecar(path)

    def read(self, count: int) -> bytes:
        return self._file.read(count)

    def close(self) -> None:
        self._file.close()


class DirectoryStore:
    """A copy of a bucket, e.g. by ``aws s3 sync``: the directory that stands for ``prefix``.

    A plain copy has no object metadata, and so no signature of a digest: it is taken from the digest behind, which
    repeats it. Only the newest digest of a chain stays unsigned then, unless ``<digest>.metadata.json`` lies beside it
    with the object's metadata (``aws s3api head-object --query Metadata``).
    """

    def __init__(self, root: Path, prefix: str, keys: KeyService) -> None:
        self._root = root.resolve()
        self._prefix = prefix
        self._keys = keys

    def listing(self) -> Iterator[str]:
        """The keys: paths from the directory on, behind the prefix."""
        for path in sorted(self._root.rglob("*.json.gz")):
            if path.is_file() and not path.is_symlink():
                yield self._prefix + path.relative_to(self._root).as_posix()

    def open(self, bucket: str, key: str) -> Held:
        """Open a file below the directory; what would lie elsewhere is ``Gone``."""
        del bucket
        path = (self._root / key.removeprefix(self._prefix)).resolve()
        if not key.startswith(self._prefix) or not path.is_relative_to(self._root):
            raise Gone
        try:
            return _File(path)
        except FileNotFoundError:
            raise Gone from None
        except OSError as error:
            raise TransientError(f"{path}: cannot be read ({error.strerror})") from None

    def same_place(self, bucket: str, key: str, digest: Digest) -> bool:
        """The key must be the one in the digest; a copy has no bucket."""
        del bucket
        return digest.digest_s3_object == key

    def public_keys(self, region: str, start: str, end: str) -> PublicKeys:
        """Of the file, else of CloudTrail; none when neither is there."""
        return self._keys.keys(region, start, end)


def _sidecar(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.with_name(path.name + SIDECAR).read_bytes())
    except (OSError, ValueError):
        return {}
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = datetime.now(UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
