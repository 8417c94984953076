"""What an S3 key says: which writer, which stream of objects, which hour. The only place that knows AWS's layouts.

Sources: CloudTrail user guide, "Getting and viewing your CloudTrail log files" and "Digest file structure"; Bedrock
user guide, "Monitor model invocation"; SageMaker developer guide, "Capture data from real-time endpoint". A key is
text of whoever may write to the bucket: it chooses how an object is read, never where from.
"""

import re
from calendar import timegm
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

from msgspec import Struct

Kind = Literal["cloudtrail", "digest", "bedrock", "sagemaker", "other", "skipped"]

_ORGANISATION = r"(?:o-[a-z0-9]{1,64}/)?"
_DAY = r"(?P<y>\d{4})/(?P<m>\d{2})/(?P<d>\d{2})/"
_TRAIL = re.compile(
    rf"(?P<stream>(?:.*/)?AWSLogs/{_ORGANISATION}(?P<account>\d{{12}})/"
    rf"(?P<what>CloudTrail|CloudTrail-NetworkActivity|CloudTrail-Digest)/(?P<region>[a-z0-9-]+)/){_DAY}(?P<name>[^/]+)",
    re.ASCII,
)
_BEDROCK = re.compile(
    rf"(?P<stream>(?:.*/)?AWSLogs/(?P<account>\d{{12}})/BedrockModelInvocationLogs/(?P<region>[a-z0-9-]+)/)"
    rf"{_DAY}(?P<h>\d{{2}})/(?P<name>.+)",
    re.ASCII,
)
_CAPTURE = re.compile(
    rf"(?P<stream>(?:.*/)?[^/]+/[^/]+/){_DAY}(?P<h>\d{{2}})/(?P<name>[^/]+\.jsonl(?:\.gz)?)", re.ASCII
)
_MINUTE = re.compile(r"_(\d{8}T\d{4})(?:\d{2})?Z", re.ASCII)
# What the same services put beside their logs: another kind of record, or no record.
_SKIPPED = re.compile(r"CloudTrail-(?:Insight|Aggregated)/|/amazon-bedrock-logs-permission-check$|/$|_SUCCESS$")
_KINDS: Mapping[str, Kind] = {
    "CloudTrail": "cloudtrail",
    "CloudTrail-NetworkActivity": "cloudtrail",
    "CloudTrail-Digest": "digest",
}
RECORD_TYPES: Mapping[Kind, str] = {
    "cloudtrail": "cloudtrail",
    "bedrock": "bedrock_invocation",
    "sagemaker": "sagemaker_capture",
}


class Described(Struct, frozen=True, gc=False):
    """One key.

    Attributes:
        kind: who wrote it; ``skipped`` holds no records of its own (permission checks, offloaded bodies, insights).
        stream: the part of the key before its date: objects of one stream sort by time. Empty without a date.
        time: epoch seconds of the minute (CloudTrail) or the hour in the key; 0 without.
    """

    kind: Kind
    stream: str = ""
    time: int = 0
    account: str = ""
    region: str = ""

    @property
    def record_type(self) -> str:
        """The type of its records; empty: to be detected."""
        return RECORD_TYPES.get(self.kind, "")


_OTHER, _NOTHING = Described("other"), Described("skipped")


def describe(key: str) -> Described:
    """Say what ``key`` says."""
    match = _TRAIL.fullmatch(key)
    if match is not None:
        time = _minute(match["name"])
        return Described(_KINDS[match["what"]], match["stream"], time, match["account"], match["region"])
    if _SKIPPED.search(key):
        return _NOTHING
    match = _BEDROCK.fullmatch(key)
    if match is not None:
        kind: Kind = "skipped" if match["name"].startswith("data/") else "bedrock"
        return Described(kind, match["stream"], _date(match, int(match["h"])), match["account"], match["region"])
    match = _CAPTURE.fullmatch(key)
    if match is not None:
        return Described("sagemaker", match["stream"], _date(match, int(match["h"])))
    return _OTHER


def is_body(key: str) -> bool:
    """Whether ``key`` is where Bedrock puts a large body: nothing else is ever fetched because a record says so."""
    match = _BEDROCK.fullmatch(key)
    return match is not None and match["name"].startswith("data/")


def start_after(stream: str, kind: Kind, time: float) -> str:
    """A key that sorts before every key of ``stream`` of that minute (hour) or later."""
    if time <= 0:
        return stream
    moment = datetime.fromtimestamp(time, UTC)
    # Within a day CloudTrail's names hold account, region and trail before the minute: the day is as near as it gets
    # without knowing them; a day of one stream is a few pages at most.
    return f"{stream}{moment:%Y/%m/%d/}" + ("" if kind in ("cloudtrail", "digest") else f"{moment:%H/}")


def _date(match: "re.Match[str]", hour: int) -> int:
    try:
        return timegm(datetime(int(match["y"]), int(match["m"]), int(match["d"]), hour, tzinfo=UTC).timetuple())
    except ValueError:
        return 0


def _minute(name: str) -> int:
    """The time in a name such as ``111122223333_CloudTrail_eu-west-1_20261123T0905Z_random.json.gz``; 0 without."""
    found = _MINUTE.findall(name)
    try:
        return timegm(datetime.strptime(found[-1], "%Y%m%dT%H%M").replace(tzinfo=UTC).timetuple()) if found else 0
    except ValueError:
        return 0
