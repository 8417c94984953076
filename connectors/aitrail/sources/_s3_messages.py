"""SQS messages that tell of S3 objects: every form in which AWS sends them.

- S3 event notification: ``Records[].s3``; keys are URL-encoded, a space is ``+`` (S3 user guide, "Event message
  structure"). ``s3:TestEvent`` is sent once, when the notification is set up.
- EventBridge: ``detail-type`` "Object Created" with ``detail.bucket.name`` and ``detail.object.key``, not encoded.
- CloudTrail's own SNS notification: ``{"s3Bucket": ..., "s3ObjectKey": [...]}``, not encoded; and its plain text
  "CloudTrail validation message.".
- Each of them may come through SNS: in ``Message`` of a ``Type: Notification``, or raw.
"""

from typing import Any
from urllib.parse import unquote_plus

import msgspec
from msgspec import Struct

from aitrail.sources._s3_objects import S3Object

_decode = msgspec.json.Decoder().decode
_DEEPEST = 3
_MOST_OBJECTS = 10_000
_VALIDATION = "CloudTrail validation message"


class Told(Struct, frozen=True):
    """What a message says.

    Attributes:
        objects: created objects, in its order.
        known: False when the message is of no known form.
    """

    objects: tuple[S3Object, ...] = ()
    known: bool = True


_UNKNOWN = Told(known=False)
_NOTHING = Told()


def told(body: str) -> Told:
    """Read one message; total: never raises."""
    value: Any = body
    for _ in range(_DEEPEST):
        if isinstance(value, str):
            if value.startswith(_VALIDATION):
                return _NOTHING
            try:
                value = _decode(value)
            except (msgspec.DecodeError, RecursionError, ValueError):
                return _UNKNOWN
        if not isinstance(value, dict):
            return _UNKNOWN
        if value.get("Type") == "Notification" and isinstance(value.get("Message"), str):
            value = value["Message"]
            continue
        return _read(value)
    return _UNKNOWN


def _read(value: dict[str, Any]) -> Told:
    if value.get("Event") == "s3:TestEvent":
        return _NOTHING
    if isinstance(value.get("Records"), list):
        return _of_s3(value["Records"])
    if isinstance(value.get("detail"), dict) and isinstance(value.get("detail-type"), str):
        return _of_eventbridge(value["detail-type"], value["detail"])
    if "s3Bucket" in value and "s3ObjectKey" in value:
        keys = value["s3ObjectKey"]
        keys = keys if isinstance(keys, list) else [keys]
        return _all([_object(value["s3Bucket"], key) for key in keys[:_MOST_OBJECTS]])
    return _UNKNOWN


def _of_s3(records: list[Any]) -> Told:
    found: list[S3Object | None] = []
    for record in records[:_MOST_OBJECTS]:
        if not isinstance(record, dict) or not isinstance(record.get("s3"), dict):
            return _UNKNOWN
        event = record.get("eventName")
        if not isinstance(event, str):
            return _UNKNOWN
        if not event.removeprefix("s3:").startswith("ObjectCreated"):
            continue
        bucket, item = record["s3"].get("bucket"), record["s3"].get("object")
        if not isinstance(bucket, dict) or not isinstance(item, dict):
            return _UNKNOWN
        key = item.get("key")
        found.append(_object(bucket.get("name"), unquote_plus(key) if isinstance(key, str) else None, item))
    return _all(found)


def _of_eventbridge(kind: str, detail: dict[str, Any]) -> Told:
    bucket, item = detail.get("bucket"), detail.get("object")
    if not isinstance(bucket, dict) or not isinstance(item, dict):
        return _UNKNOWN
    if kind != "Object Created":
        return _NOTHING
    return _all([_object(bucket.get("name"), item.get("key"), {"size": item.get("size")})])


def _object(bucket: Any, key: Any, item: dict[str, Any] | None = None) -> S3Object | None:
    """One object; without its ETag: what counts is what the key holds now, and a replaced object is read again."""
    if not isinstance(bucket, str) or not bucket or not isinstance(key, str) or not key:
        return None
    size = (item or {}).get("size")
    return S3Object(bucket, key, size=size if isinstance(size, int) else 0)


def _all(found: list[S3Object | None]) -> Told:
    objects = tuple(one for one in found if one is not None)
    return Told(objects) if len(objects) == len(found) else _UNKNOWN
