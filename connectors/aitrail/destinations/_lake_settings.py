"""``[destinations.NAME]`` with ``type = "lake"``: the settings of a lake destination."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from aitrail.destinations._batching import Oversize

Layout = Literal["hive", "security_lake"]


class LakeSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where and how events go into a lake of Parquet files."""

    directory: Annotated[str, Meta(description="Directory of the lake; empty when it is a bucket.")] = ""
    bucket: Annotated[str, Meta(description="S3 bucket; empty when it is a directory.")] = ""
    prefix: Annotated[str, Meta(description="What keys in the bucket start with.")] = ""
    region: Annotated[str, Meta(description="AWS region of the bucket; empty: the environment's.")] = ""
    endpoint: Annotated[str, Meta(description="URL of another service that speaks S3; empty: AWS.")] = ""
    kms_key: Annotated[str, Meta(description="KMS key for new objects; empty: as the bucket says.")] = ""
    stream: Annotated[
        Literal["access", "finding"],
        Meta(description="The kind of events that is written: access (OCSF 6003) or finding (OCSF 2004)."),
    ] = "access"
    findings: Annotated[
        str,
        Meta(
            description="Prefix (or directory) of findings, when it is not that of accesses; layout security_lake "
            "needs it, because a custom source there has one class."
        ),
    ] = ""
    layout: Annotated[
        Layout,
        Meta(description="hive (class_uid/region/account/day) or security_lake (region/accountId/eventDay)."),
    ] = "hive"
    batch_events: Annotated[int, Meta(description="Events per file, at most.", ge=1, le=200_000)] = 20_000
    batch_bytes: Annotated[int, Meta(description="Bytes of events per send, at most.", ge=10_000)] = 32_000_000
    event_bytes: Annotated[int, Meta(description="Bytes per event, at most.", ge=4_096)] = 4_000_000
    oversize: Annotated[
        Oversize, Meta(description="An event above event_bytes: truncate its texts (marked), or reject it.")
    ] = "truncate"
    request_seconds: Annotated[float, Meta(description="The longest that one S3 request may take.", gt=0)] = 30.0
    compact_after_seconds: Annotated[
        float, Meta(description="Merge files only when they are older; a resend is recognised until then.", ge=0)
    ] = 3_600.0
    compact_every_seconds: Annotated[
        float, Meta(description="The daemon compacts this often; 0: never, do it yourself.", ge=0)
    ] = 3_600.0
    compact_bytes: Annotated[int, Meta(description="Merge files up to about this size.", ge=1_000_000)] = 128_000_000
