"""Listing a bucket: pages continue behind the last key, so there is no token that could expire or turn in circles."""

from collections.abc import Iterator
from typing import Any

from aitrail.errors import TransientError
from aitrail.printing import printable
from aitrail.sources._aws_calls import Aws
from aitrail.sources._s3_keys import Kind
from aitrail.sources._s3_objects import S3Object

LAYOUT_FOLDERS: dict[Kind, tuple[str, ...]] = {
    "cloudtrail": ("CloudTrail", "CloudTrail-NetworkActivity"),
    "digest": ("CloudTrail-Digest",),
    "bedrock": ("BedrockModelInvocationLogs",),
}
_ACCOUNT_DIGITS = 12


def listing(aws: Aws, region: str, bucket: str, prefix: str, after: str = "") -> Iterator[S3Object]:
    """Yield the objects below ``prefix`` whose key sorts behind ``after``, in the order of their keys.

    Raises:
        AuthError: ``s3:ListBucket`` is missing.
        TransientError: try again later.
    """
    while True:
        more: dict[str, Any] = {"StartAfter": after} if after else {}
        answer = aws.call("s3", region, "list_objects_v2", _arn(bucket), Bucket=bucket, Prefix=prefix, **more)
        page = answer.get("Contents", [])
        for one in page:
            yield S3Object(
                bucket, one["Key"], str(one.get("ETag", "")).strip('"'), int(one["Size"]),
                one["LastModified"].timestamp(),
            )  # fmt: skip
        if not answer.get("IsTruncated"):
            return
        if not page or page[-1]["Key"] <= after:
            raise TransientError(
                f"{printable(f's3://{bucket}/{prefix}')}: the listing does not go on; listed again later"
            )
        after = page[-1]["Key"]


def folders(aws: Aws, region: str, bucket: str, prefix: str) -> Iterator[str]:
    """Yield the names directly below ``prefix`` that hold something, without the slash; raises as ``listing``."""
    after = ""
    while True:
        more: dict[str, Any] = {"StartAfter": after} if after else {}
        answer = aws.call(
            "s3", region, "list_objects_v2", _arn(bucket), Bucket=bucket, Prefix=prefix, Delimiter="/", **more
        )
        names = [str(one["Prefix"]) for one in answer.get("CommonPrefixes", [])]
        for name in names:
            yield name.removeprefix(prefix).rstrip("/")
        last = max([*names, *(str(one["Key"]) for one in answer.get("Contents", []))], default="")
        if not answer.get("IsTruncated"):
            return
        if last <= after:
            raise TransientError(
                f"{printable(f's3://{bucket}/{prefix}')}: the listing does not go on; listed again later"
            )
        # Behind everything below the last folder.
        after = last + "\U0010ffff" if last.endswith("/") else last


def account_streams(
    aws: Aws, region: str, bucket: str, prefix: str, kind: Kind, accounts: tuple[str, ...], regions: tuple[str, ...]
) -> Iterator[str]:
    """Yield ``prefix + AWSLogs/[organisation/]ACCOUNT/WHAT/REGION/`` for everything that is there and wanted."""
    for root in _account_roots(aws, region, bucket, f"{prefix}AWSLogs/", accounts):
        present = set(folders(aws, region, bucket, root))
        for what in LAYOUT_FOLDERS[kind]:
            if what in present:
                for place in folders(aws, region, bucket, f"{root}{what}/"):
                    if not regions or place in regions:
                        yield f"{root}{what}/{place}/"


def _account_roots(aws: Aws, region: str, bucket: str, root: str, accounts: tuple[str, ...]) -> Iterator[str]:
    for name in folders(aws, region, bucket, root):
        if name.isdigit() and len(name) == _ACCOUNT_DIGITS:
            if not accounts or name in accounts:
                yield f"{root}{name}/"
        elif name.startswith("o-"):
            yield from _account_roots(aws, region, bucket, f"{root}{name}/", accounts)


def capture_streams(aws: Aws, region: str, bucket: str, prefix: str) -> Iterator[str]:
    """Yield ``prefix + ENDPOINT/VARIANT/`` of everything that is there."""
    for endpoint in folders(aws, region, bucket, prefix):
        for variant in folders(aws, region, bucket, f"{prefix}{endpoint}/"):
            yield f"{prefix}{endpoint}/{variant}/"


def _arn(bucket: str) -> str:
    return f"arn:aws:s3:::{bucket}"
