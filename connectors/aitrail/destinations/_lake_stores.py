"""Where lake files lie: a small port for object stores, a local directory, and S3.

A file is there whole or not at all, and a key is never written twice with other content: names are hashes of what is in
a file.
"""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

from aitrail.errors import AitrailError, AuthError, ConfigError, TransientError
from aitrail.store.catalog import fsync_directories

_LOW_SPACE_BYTES = 256_000_000
_CHECK_KEY = ".aitrail-check"


class StoredFile(Struct, frozen=True):
    """One file: its key, its size in bytes, and when it was written (epoch seconds)."""

    key: str
    size: int
    modified: float


class ObjectStore(Protocol):
    """What the lake needs of a store; keys are relative, with ``/``.

    Every method raises ``TransientError``, ``AuthError`` or ``ConfigError``, and nothing else.
    """

    def put(self, key: str, file: Path) -> bool:
        """Publish ``file`` atomically and durably; False when the key is there already."""
        ...

    def exists(self, key: str) -> bool:
        """Whether the key is there."""
        ...

    def listing(self, prefix: str) -> Iterator[StoredFile]:
        """All files below ``prefix``, in any order."""
        ...

    def fetch(self, key: str, target: Path) -> None:
        """Copy a file to a local path."""
        ...

    def delete(self, key: str) -> None:
        """Remove a file; not an error when it is gone."""
        ...

    def check(self) -> list[str]:
        """Say what is wrong with the place, one sentence each with the fix."""
        ...


class LocalStore:
    """A directory. Temporary names start with a dot: query engines skip them."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, key: str, file: Path) -> bool:
        """Copy beside the final name, make durable, link: the name appears once and complete."""
        final = self._root / key
        folder = final.parent
        staged = folder / f".{secrets.token_hex(8)}.tmp"
        try:
            fresh = [one for one in (folder, *folder.parents) if one.is_relative_to(self._root) and not one.is_dir()]
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                shutil.copyfile(file, staged)
                handle = os.open(staged, os.O_RDONLY)
                try:
                    os.fchmod(handle, 0o440)
                    os.fsync(handle)
                finally:
                    os.close(handle)
                # Unlike a rename, a link does not replace what is there.
                os.link(staged, final)
            except FileExistsError:
                return False
            finally:
                staged.unlink(missing_ok=True)
            fsync_directories([folder, *(one.parent for one in fresh)])
        except OSError as error:
            raise self._explain(error) from None
        return True

    def exists(self, key: str) -> bool:
        """Whether the file is there, durably: a write that failed at its very end may have left it undurable."""
        final = self._root / key
        try:
            if not final.is_file():
                return False
            folders = [one for one in final.parents if one.is_relative_to(self._root)]
            fsync_directories([*folders, self._root.parent])
        except OSError as error:
            raise self._explain(error) from None
        return True

    def listing(self, prefix: str) -> Iterator[StoredFile]:
        """All Parquet files below a folder."""
        try:
            for path in sorted((self._root / prefix).rglob("*.parquet")):
                if path.name.startswith("."):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    known = path.stat()
                    yield StoredFile(path.relative_to(self._root).as_posix(), known.st_size, known.st_mtime)
        except OSError as error:
            raise self._explain(error) from None

    def fetch(self, key: str, target: Path) -> None:
        """Copy a file out."""
        try:
            shutil.copyfile(self._root / key, target)
        except OSError as error:
            raise self._explain(error) from None

    def delete(self, key: str) -> None:
        """Unlink a file."""
        try:
            (self._root / key).unlink(missing_ok=True)
        except OSError as error:
            raise self._explain(error) from None

    def check(self) -> list[str]:
        """Say when the directory cannot be written or is nearly full."""
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            probe = self._root / _CHECK_KEY
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            return [f"{self._root}: cannot be written ({error.strerror}); check owner, permissions and space."]
        free = shutil.disk_usage(self._root).free
        if free < _LOW_SPACE_BYTES:
            return [f"{self._root}: only {free // 1_000_000} MB are free; free some, or move the lake."]
        return []

    def _explain(self, error: OSError) -> TransientError:
        return TransientError(
            f"{self._root}: a file could not be written or read: {error.strerror}",
            hint="check the file system (space, quota, mount, permissions); the events stay in the outbox",
        )


_NO_PERMISSION = frozenset({"AccessDenied", "AllAccessDisabled", "403", "AccountProblem"})
# Permissions that are not named as the operation is.
_PERMISSIONS: Mapping[str, str] = {"HeadObject": "s3:GetObject and s3:ListBucket", "ListObjectsV2": "s3:ListBucket"}
_BAD_CREDENTIALS = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"}
)
_BAD_CLOCK = frozenset({"RequestTimeTooSkewed", "RequestExpired"})
_BAD_PLACE: Mapping[str, str] = {
    "NoSuchBucket": "create the bucket, or correct destinations.NAME.bucket",
    "PermanentRedirect": "set region to the bucket's region",
    "AuthorizationHeaderMalformed": "set region to the bucket's region",
    "IllegalLocationConstraintException": "set region to the bucket's region",
    "KMS.DisabledException": "enable the bucket's KMS key",
    "KMS.NotFoundException": "correct kms_key",
}


class S3Store:
    """A bucket and a prefix. One ``PutObject`` per file: S3 shows an object whole or not at all.

    Args:
        client: a boto3 S3 client; ``s3_client`` makes one.
        bucket: its name.
        prefix: what keys start with, without a slash at the end; may be empty.
        kms_key: encrypt with this KMS key; empty: as the bucket says.
        where: the setting this comes from, for errors.
    """

    def __init__(self, client: Any, bucket: str, prefix: str, *, kms_key: str = "", where: str = "") -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._extra = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key} if kms_key else {}
        self._where = where

    def put(self, key: str, file: Path) -> bool:
        """Put the object unless it is there (``If-None-Match: *``)."""
        with self._calling("PutObject"), file.open("rb") as body:
            try:
                self._client.put_object(
                    Bucket=self._bucket,
                    Key=self._prefix + key,
                    Body=body,
                    ContentType="application/vnd.apache.parquet",
                    IfNoneMatch="*",
                    **self._extra,
                )
            except self._client.exceptions.ClientError as error:
                if _code(error) in ("PreconditionFailed", "412"):
                    return False
                raise
        return True

    def exists(self, key: str) -> bool:
        """Whether the object is there."""
        with self._calling("HeadObject"):
            try:
                self._client.head_object(Bucket=self._bucket, Key=self._prefix + key)
            except self._client.exceptions.ClientError as error:
                if _code(error) in ("404", "NoSuchKey", "NotFound"):
                    return False
                raise
        return True

    def listing(self, prefix: str) -> Iterator[StoredFile]:
        """All Parquet objects below a prefix."""
        with self._calling("ListObjectsV2"):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix
            )
            for page in pages:
                for one in page.get("Contents", ()):
                    if one["Key"].endswith(".parquet"):
                        key = one["Key"].removeprefix(self._prefix)
                        yield StoredFile(key, one["Size"], one["LastModified"].timestamp())

    def fetch(self, key: str, target: Path) -> None:
        """Download an object."""
        with self._calling("GetObject"), target.open("wb") as file:
            body = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)["Body"]
            for part in body.iter_chunks(1 << 20):
                file.write(part)

    def delete(self, key: str) -> None:
        """Delete an object."""
        with self._calling("DeleteObject"):
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key)

    def check(self) -> list[str]:
        """Say whether bucket and permissions are there: one small object is written and deleted."""
        try:
            with self._calling("PutObject"):
                self._client.put_object(Bucket=self._bucket, Key=self._prefix + _CHECK_KEY, Body=b"", **self._extra)
            self.delete(_CHECK_KEY)
        except AitrailError as error:
            return [f"{error}: {error.hint}." if error.hint else f"{error}."]
        return []

    @contextlib.contextmanager
    def _calling(self, operation: str) -> Iterator[None]:
        """Turn boto3's errors into ours; its texts are not repeated, they quote requests."""
        errors = import_module("botocore.exceptions")
        try:
            yield
        except errors.ClientError as error:
            raise self._judge(operation, _code(error)) from None
        except (errors.NoCredentialsError, errors.CredentialRetrievalError, errors.PartialCredentialsError):
            raise AuthError(
                f"s3://{self._bucket}: no AWS credentials are found", hint="give the process a role or a profile"
            ) from None
        except (errors.SSLError, errors.ParamValidationError) as error:
            raise ConfigError(f"s3://{self._bucket}: {type(error).__name__}", where=self._where) from None
        except (errors.BotoCoreError, OSError) as error:
            raise TransientError(f"s3://{self._bucket}: {operation} failed ({type(error).__name__})") from None

    def _judge(self, operation: str, code: str) -> AitrailError:
        place = f"s3://{self._bucket}"
        if code in _BAD_PLACE:
            return ConfigError(f"{place}: {code}", where=self._where, hint=_BAD_PLACE[code])
        if code in _NO_PERMISSION:
            action = _PERMISSIONS.get(operation, f"s3:{operation}")
            return AuthError(f"{place}: {operation} is not allowed", hint=f"grant {action} on {place}/{self._prefix}*")
        if code in _BAD_CLOCK:
            return AuthError(f"{place}: this machine's clock is off ({code})", hint="synchronise it (NTP)")
        if code in _BAD_CREDENTIALS:
            return AuthError(f"{place}: the credentials are refused ({code})", hint="renew them")
        return TransientError(f"{place}: {operation} failed ({code})")


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def s3_client(region: str, endpoint: str, seconds: float) -> Any:
    """Make a boto3 S3 client with bounded waits; credentials come from the environment, as AWS tools find them.

    Raises:
        ConfigError: boto3 is not installed.
    """
    try:
        boto3, config = import_module("boto3"), import_module("botocore.config")
    except ImportError:
        raise ConfigError("the AWS client is not installed", hint="pip install 'aitrail[aws]'") from None
    settings = config.Config(
        connect_timeout=min(seconds, 10.0), read_timeout=seconds, retries={"total_max_attempts": 2, "mode": "standard"}
    )
    return boto3.client("s3", region_name=region or None, endpoint_url=endpoint or None, config=settings)
