"""``[sources.NAME]`` of the AWS sources: what all of them share, and one Struct per kind.

Times are written as ``2026-11-01`` or ``2026-11-01T08:00:00Z`` (RFC 3339; without a zone: UTC).
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Layout = Literal["cloudtrail", "bedrock", "sagemaker", "flat"]


class AwsSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who to be and where to call. Without ``profile`` and role: the process's own identity, as AWS tools find it."""

    region: Annotated[str, Meta(description="AWS region; empty: the environment's.")] = ""
    profile: Annotated[str, Meta(description="Profile of the AWS configuration; empty: the default one.")] = ""
    external_id: Annotated[str, Meta(description="External id that the role's trust policy asks for.")] = ""
    session_name: Annotated[
        str, Meta(description="Session name of the assumed role, seen in CloudTrail.", pattern=r"^[\w+=,.@-]{2,64}$")
    ] = "aitrail"
    session_seconds: Annotated[
        # AWS gives 15 minutes at least, but botocore renews as soon as less than 15 minutes are left.
        int,
        Meta(description="Life of the assumed role's credentials; renewed before they end.", ge=1_800, le=43_200),
    ] = 3_600
    endpoint_url: Annotated[str, Meta(description="URL of a private endpoint for all services; empty: AWS.")] = ""
    endpoint_urls: Annotated[
        dict[str, str], Meta(description='URLs by service, e.g. { sqs = "https://vpce-…" }; before endpoint_url.')
    ] = {}
    request_seconds: Annotated[float, Meta(description="The longest that one request may take.", gt=0)] = 30.0


class OneRole(AwsSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of a source that reads with one identity."""

    role_arn: Annotated[str, Meta(description="Role to assume; empty: none.")] = ""


class ManyRoles(AwsSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of a source that polls several accounts and regions."""

    roles: Annotated[
        tuple[str, ...], Meta(description="Roles to assume, one per account; empty: the process's own account.")
    ] = ()
    regions: Annotated[tuple[str, ...], Meta(description="Regions to poll; empty: `region`.")] = ()


class S3Settings(OneRole, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``type = "s3"``: objects of a bucket, found by listing."""

    bucket: Annotated[str, Meta(description="Bucket to read.", min_length=3)]
    prefix: Annotated[str, Meta(description="What keys start with, before the layout's own part.")] = ""
    layout: Annotated[
        Layout,
        Meta(
            description="cloudtrail (AWSLogs/ACCOUNT/CloudTrail/REGION/yyyy/mm/dd), bedrock "
            "(AWSLogs/ACCOUNT/BedrockModelInvocationLogs/REGION/yyyy/mm/dd/hh), sagemaker "
            "(ENDPOINT/VARIANT/yyyy/mm/dd/hh) or flat (any keys; lists all of them each time)."
        ),
    ] = "cloudtrail"
    accounts: Annotated[tuple[str, ...], Meta(description="Only these accounts; empty: all that are there.")] = ()
    regions: Annotated[tuple[str, ...], Meta(description="Only these regions; empty: all that are there.")] = ()
    start: Annotated[str, Meta(description="Read objects from this time on; empty: from the first one.")] = ""
    end: Annotated[str, Meta(description="Read objects before this time only; empty: no end.")] = ""
    overlap_hours: Annotated[
        int, Meta(description="Keys that sort up to this long before the newest one are still found.", ge=1, le=720)
    ] = 6
    body_buckets: Annotated[
        tuple[str, ...], Meta(description="Buckets from which offloaded Bedrock bodies may be fetched; empty: none.")
    ] = ()
    body_bytes: Annotated[int, Meta(description="The largest offloaded body (decompressed).", ge=1_024)] = 4 << 20
    verify_digests: Annotated[
        bool, Meta(description="Check CloudTrail's digests and record the verdict of every log file.")
    ] = False
    public_keys: Annotated[
        str, Meta(description="File of CloudTrail public keys (PEM or ListPublicKeys JSON); empty: ask CloudTrail.")
    ] = ""
    read_ahead: Annotated[int, Meta(description="Small objects fetched at the same time.", ge=1, le=32)] = 4
    max_file_mb: Annotated[int, Meta(description="Cap on one object's decompressed size, in MiB.", gt=0)] = 65_536


class S3SqsSettings(OneRole, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``type = "s3_sqs"``: objects of buckets, told by SQS messages."""

    queue_urls: Annotated[tuple[str, ...], Meta(description="Queues with the notifications.", min_length=1)]
    buckets: Annotated[tuple[str, ...], Meta(description="Buckets that may be read; others are noted.", min_length=1)]
    prefixes: Annotated[
        tuple[str, ...], Meta(description="Read only keys that start with one of these; empty: all.")
    ] = ()
    wait_seconds: Annotated[int, Meta(description="Long poll of an empty queue.", ge=0, le=20)] = 5
    visibility_seconds: Annotated[
        int, Meta(description="How long a message is hidden from others; extended while it is read.", ge=10, le=43_200)
    ] = 300
    give_up_after: Annotated[
        int, Meta(description="Delete a message that nobody understands after so many receives.", ge=1)
    ] = 20
    body_buckets: Annotated[
        tuple[str, ...], Meta(description="Buckets from which offloaded Bedrock bodies may be fetched; empty: none.")
    ] = ()
    body_bytes: Annotated[int, Meta(description="The largest offloaded body (decompressed).", ge=1_024)] = 4 << 20
    verify_digests: Annotated[
        bool, Meta(description="Check CloudTrail's digests and record the verdict of every log file.")
    ] = False
    public_keys: Annotated[
        str, Meta(description="File of CloudTrail public keys (PEM or ListPublicKeys JSON); empty: ask CloudTrail.")
    ] = ""
    read_ahead: Annotated[int, Meta(description="Small objects fetched at the same time.", ge=1, le=32)] = 4
    max_file_mb: Annotated[int, Meta(description="Cap on one object's decompressed size, in MiB.", gt=0)] = 65_536


class SqsSettings(OneRole, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``type = "sqs"``: messages that are records themselves."""

    queue_urls: Annotated[tuple[str, ...], Meta(description="Queues to read.", min_length=1)]
    wait_seconds: Annotated[int, Meta(description="Long poll of an empty queue.", ge=0, le=20)] = 5
    visibility_seconds: Annotated[
        int, Meta(description="How long a message is hidden from others.", ge=10, le=43_200)
    ] = 120


class LookupSettings(ManyRoles, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``type = "cloudtrail_lookup"``: CloudTrail's event history, without any set-up in the account."""

    event_sources: Annotated[
        tuple[str, ...],
        Meta(description='Only events of these services, e.g. ["bedrock.amazonaws.com"]; empty: all (100 events/s).'),
    ] = ()
    start: Annotated[str, Meta(description="Where the first poll begins; empty: 24 hours ago.")] = ""
    calls_per_second: Annotated[
        float, Meta(description="LookupEvents calls per second, account and region; AWS allows 2.", gt=0, le=2)
    ] = 2.0


class CloudWatchSettings(ManyRoles, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``type = "cloudwatch_logs"``: events of log groups."""

    log_groups: Annotated[tuple[str, ...], Meta(description="Log groups to read.", min_length=1)]
    stream_prefix: Annotated[str, Meta(description="Only streams whose name starts so; empty: all.")] = ""
    filter_pattern: Annotated[str, Meta(description="CloudWatch filter pattern; empty: all events.")] = ""
    start: Annotated[str, Meta(description="Where the first poll begins; empty: 24 hours ago.")] = ""
    calls_per_second: Annotated[
        float, Meta(description="FilterLogEvents calls per second, account and region.", gt=0, le=50)
    ] = 5.0
    body_buckets: Annotated[
        tuple[str, ...], Meta(description="Buckets from which offloaded Bedrock bodies may be fetched; empty: none.")
    ] = ()
    body_bytes: Annotated[int, Meta(description="The largest offloaded body (decompressed).", ge=1_024)] = 4 << 20
