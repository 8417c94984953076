"""What AWS writes around records: keys, notifications, payloads, envelopes; and the memory of what was read.

All inputs are synthetic, in the shapes of the services' documentation.
"""

import base64
import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from botocore.exceptions import ConnectTimeoutError, EndpointConnectionError, SSLError

from aitrail.config import Config
from aitrail.errors import ConfigError, CorruptInputError, TransientError
from aitrail.registry import SOURCES
from aitrail.sources._aws_calls import Access, Pace, shared_pace, way_of
from aitrail.sources._aws_seen import Part, Ring, load_slot
from aitrail.sources._aws_settings import S3Settings
from aitrail.sources._aws_times import parse_time
from aitrail.sources._s3_batches import Notes
from aitrail.sources._s3_bodies import Bodies
from aitrail.sources._s3_keys import describe, is_body, start_after
from aitrail.sources._s3_listing import folders, listing
from aitrail.sources._s3_messages import told
from aitrail.sources._s3_objects import S3Object
from aitrail.sources._sqs_queue import region_of
from aitrail.sources.cloudwatch_subscription import pushed
from aitrail.sources.sqs_messages import records_of
from aitrail.testing.aws_flow import MORNING, ManualClock

A = "111122223333"
BODY = f"AWSLogs/{A}/BedrockModelInvocationLogs/us-east-1/2026/11/23/09/data/r_input.json.gz"
NINE = int(MORNING)

KEYS = {
    f"AWSLogs/{A}/CloudTrail/eu-west-1/2026/11/23/{A}_CloudTrail_eu-west-1_20261123T0905Z_x.json.gz":
        ("cloudtrail", f"AWSLogs/{A}/CloudTrail/eu-west-1/", NINE + 300),
    f"p/q/AWSLogs/o-a1b2c3/{A}/CloudTrail/eu-west-1/2026/11/23/{A}_CloudTrail_eu-west-1_20261123T0905Z_x.json.gz":
        ("cloudtrail", f"p/q/AWSLogs/o-a1b2c3/{A}/CloudTrail/eu-west-1/", NINE + 300),
    f"AWSLogs/{A}/CloudTrail-Digest/eu-west-1/2026/11/23/{A}_CloudTrail-Digest_eu-west-1_t_20200101T0000Z_eu-west-1_"
    "20261123T090000Z_backfill.json.gz": ("digest", f"AWSLogs/{A}/CloudTrail-Digest/eu-west-1/", NINE),
    f"AWSLogs/{A}/CloudTrail-Insight/eu-west-1/2026/11/23/x.json.gz": ("skipped", "", 0),
    f"AWSLogs/{A}/BedrockModelInvocationLogs/us-east-1/2026/11/23/09/20261123T090512345Z_ab.json.gz":
        ("bedrock", f"AWSLogs/{A}/BedrockModelInvocationLogs/us-east-1/", NINE),
    f"AWSLogs/{A}/BedrockModelInvocationLogs/us-east-1/2026/11/23/09/data/r_input.json.gz":
        ("skipped", f"AWSLogs/{A}/BedrockModelInvocationLogs/us-east-1/", NINE),
    f"AWSLogs/{A}/BedrockModelInvocationLogs/amazon-bedrock-logs-permission-check": ("skipped", "", 0),
    "capture/churn/AllTraffic/2026/11/23/09/05-12-345-uuid.jsonl": ("sagemaker", "capture/churn/AllTraffic/", NINE),
    "AWSLogs/../../etc/passwd": ("other", "", 0),
    f"AWSLogs/{A}/CloudTrail/eu-west-1/2026/13/45/no-time.json.gz":
        ("cloudtrail", f"AWSLogs/{A}/CloudTrail/eu-west-1/", 0),
    "capture/churn/AllTraffic/2026/99/99/99/x.jsonl": ("sagemaker", "capture/churn/AllTraffic/", 0),
    "folder/": ("skipped", "", 0),
    "": ("other", "", 0),
}  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
def test_keys_say_who_wrote_them_and_when(key: str) -> None:
    what = describe(key)
    assert (what.kind, what.stream, what.time) == KEYS[key]


def test_a_listing_starts_before_every_key_of_its_time() -> None:
    for key, (kind, stream, time) in KEYS.items():
        if kind in ("cloudtrail", "digest", "bedrock", "sagemaker") and time:
            assert start_after(stream, kind, time) < key  # type: ignore[arg-type]
            assert start_after(stream, kind, time + 86_400) > key  # type: ignore[arg-type]
    assert start_after("s/", "cloudtrail", 0) == "s/"


def s3(key: str, event: str = "ObjectCreated:Put", bucket: str = "b") -> dict[str, object]:
    return {"eventName": event, "s3": {"bucket": {"name": bucket}, "object": {"key": key, "size": 7, "eTag": "e"}}}


def sns(message: object) -> str:
    text = message if isinstance(message, str) else json.dumps(message)
    return json.dumps({"Type": "Notification", "MessageId": "m", "TopicArn": "arn:aws:sns:x", "Message": text})


BRIDGE = {
    "version": "0",
    "source": "aws.s3",
    "detail-type": "Object Created",
    "detail": {"bucket": {"name": "b"}, "object": {"key": "a b+c.json", "size": 7}},
}
MESSAGES: dict[str, tuple[object, list[tuple[str, str]]]] = {
    "s3": ({"Records": [s3("a")]}, [("b", "a")]),
    "several": ({"Records": [s3("a"), s3("c", bucket="d")]}, [("b", "a"), ("d", "c")]),
    "url-encoded": ({"Records": [s3("a+b%2Bc%3D%C3%A9.json")]}, [("b", "a b+c=é.json")]),
    "removed": ({"Records": [s3("a", "ObjectRemoved:Delete"), s3("c")]}, [("b", "c")]),
    "sns": (sns({"Records": [s3("a")]}), [("b", "a")]),
    "sns in sns": (sns(sns({"Records": [s3("a")]})), [("b", "a")]),
    "eventbridge": (BRIDGE, [("b", "a b+c.json")]),
    "eventbridge through sns": (sns(BRIDGE), [("b", "a b+c.json")]),
    "eventbridge, deleted": ({**BRIDGE, "detail-type": "Object Deleted"}, []),
    "cloudtrail's own": (sns({"s3Bucket": "b", "s3ObjectKey": ["a+b", "c"]}), [("b", "a+b"), ("b", "c")]),
    "test event": ({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}, []),
    "validation": (sns("CloudTrail validation message."), []),
}
UNKNOWN = [
    "", "x", "[]", "1", "{}", '{"Records":"x"}', '{"Records":[1]}', '{"Records":[{"s3":{}}]}', "\ud800",
    json.dumps({"Records": [{"eventName": "ObjectCreated:Put", "s3": {"bucket": {}, "object": {}}}]}),
    json.dumps({"Records": [{"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "b"}, "object": {}}}]}),
    '{"s3Bucket":"b","s3ObjectKey":[5]}', '{"detail-type":"Object Created","detail":{"bucket":5,"object":{}}}',
    sns(sns(sns(sns("{}")))), '{"Type":"Notification","Message":5}', "[" * 5_000, "9" * 5_000,
]  # fmt: skip


@pytest.mark.parametrize("name", MESSAGES)
def test_every_form_of_notification_is_understood(name: str) -> None:
    message, expected = MESSAGES[name]
    said = told(message if isinstance(message, str) else json.dumps(message))
    assert said.known
    assert [(one.bucket, one.key) for one in said.objects] == expected


@pytest.mark.parametrize("body", UNKNOWN, ids=range(len(UNKNOWN)))
def test_what_nobody_sends_is_unknown_and_raises_nothing(body: str) -> None:
    assert not told(body).known


def packed(**changes: object) -> bytes:
    body = {
        "messageType": "DATA_MESSAGE",
        "owner": A,
        "logGroup": "/bedrock",
        "logStream": "s",
        "subscriptionFilters": ["f"],
        "logEvents": [{"id": "3" * 56, "timestamp": 1_795_424_400_123, "message": '{"requestId":"r"}'}],
        **changes,
    }
    return gzip.compress(json.dumps(body).encode())


def test_subscription_payloads_with_and_without_base64() -> None:
    for payload in (packed(), base64.b64encode(packed()), base64.b64encode(packed()).decode()):
        found = pushed(payload)
        assert (found.owner, found.group, found.stream) == (A, "/bedrock", "s")
        assert found.origin == f"cloudwatch://{A}//bedrock"
        assert [(one.data, one.position) for one in found.records] == [(b'{"requestId":"r"}', 1_795_424_400_123)]
    assert pushed(packed(messageType="CONTROL_MESSAGE")).records == []
    broken = pushed(packed(logEvents=[{"id": 5}, {"id": "a", "timestamp": 1, "message": "m"}]))
    assert [one.error for one in broken.records] == ["field_type", ""]


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"not base64!", "gzip_corrupt"),
        (base64.b64encode(b"not gzip"), "gzip_corrupt"),
        (packed()[:40], "gzip_truncated"),
        (gzip.compress(b"[]"), "json_invalid"),
        (gzip.compress(b"\xff"), "json_invalid"),
        (packed(messageType="OTHER"), "message_unknown"),
        (gzip.compress(b" " * (65 << 20), 1), "bomb_size"),
    ],
    ids=["text", "no gzip", "torn", "array", "bytes", "type", "bomb"],
)
def test_broken_payloads_have_a_reason(payload: bytes, code: str) -> None:
    with pytest.raises(CorruptInputError) as failed:
        pushed(payload)
    assert failed.value.code == code


def test_messages_hold_records_in_every_wrapping() -> None:
    assert [one.data for one in records_of('{"a":1}')] == [b'{"a":1}']
    assert [one.data for one in records_of('{"a":1}\n{"a":2}')] == [b'{"a":1}', b'{"a":2}']
    assert [one.data for one in records_of('[{"a":1},{"a":2}]')] == [b'{"a":1}', b'{"a":2}']
    assert [one.data for one in records_of(sns({"a": 1}))] == [b'{"a": 1}']
    bridged = {"detail-type": "AWS API Call via CloudTrail", "detail": {"eventID": "e"}}
    assert [one.data for one in records_of(sns(bridged))] == [b'{"eventID": "e"}']
    other = json.dumps({"detail-type": "Something else", "detail": {}})
    assert [one.data for one in records_of(other)] == [other.encode()]
    assert [one.error for one in records_of('{"a":')] == ["record_torn"]
    assert records_of("") == []
    # A message that speaks of wrappings in its values only is left as it is.
    plain = json.dumps({"text": '"Message" and "detail-type"', "Type": "x"})
    assert [one.data for one in records_of(plain)] == [plain.encode()]


class Kept:
    """Cursors in a dict."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def get(self, key: str) -> bytes | None:
        return self.values.get(key)

    def items(self) -> Iterator[tuple[str, bytes]]:
        yield from self.values.items()


def test_the_ring_remembers_for_its_hours_and_forgets_in_place() -> None:
    kept = Kept()
    for hour in range(1_000, 1_060):
        ring = Ring(kept, "s", 6, b"k")
        one = ring.ident("object", str(hour))
        assert not ring.has(hour, one)
        assert ring.add(hour, one)
        key, value = ring.cursor(hour)
        kept.values[key] = value
    assert len(kept.values) == 8, "rows do not grow"
    ring = Ring(kept, "s", 6, b"k")
    assert ring.newest == 1_059
    for hour in range(1_053, 1_060):
        assert ring.has(hour, ring.ident("object", str(hour)))
    assert not ring.has(1_050, ring.ident("object", "1050"))
    assert not ring.add(1_051, b"12345678"), "an hour whose slot is taken by a newer one is not remembered"
    assert ring.cursor(1_051)[1] == kept.values[ring.cursor(1_051)[0]], "and does not take it back"
    assert not Ring(kept, "s", 6, b"other key").has(1_059, Ring(kept, "s", 6, b"other key").ident("object", "1059"))


def test_the_ring_knows_where_an_object_was_left_and_survives_damage() -> None:
    kept = Kept()
    ring = Ring(kept, "s", 6, b"k")
    ident = ring.ident("b", "k", "etag")
    ring.keep(5, Part(ident, 100, 3, 40))
    key, value = ring.cursor(5)
    kept.values[key] = value
    again = Ring(kept, "s", 6, b"k")
    assert again.part(5, ident) == Part(ident, 100, 3, 40)
    assert again.part(5, b"another.") == Part()
    assert not again.has(5, ident)
    again.add(5, ident)
    assert again.part(5, ident) == Part()
    for damaged in (b"", b"\xc1", value[:-3], b"\x94\x05\xc4\x03abc\x94\xc4\x00\x00\x00\x00\x01", None):
        assert load_slot(damaged) is None
    kept.values[key] = b"damaged"
    assert Ring(kept, "s", 6, b"k").newest is None


def test_a_full_slot_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aitrail.sources._aws_seen._MOST", 10)
    ring = Ring(Kept(), "s", 6, b"k")
    ring.add(7, *(ring.ident(str(number)) for number in range(50)))
    assert len(ring.cursor(7)[1]) < 120
    assert ring.has(7, ring.ident("9"))
    assert not ring.has(7, ring.ident("10"))


def test_paces_are_shared_by_name_and_the_slowest_holds() -> None:
    clock = ManualClock()
    shared_pace(clock, 2, "LookupEvents", "self", "us-east-1").wait(clock)
    shared_pace(clock, 2, "LookupEvents", "self", "us-east-1").wait(clock)
    assert clock.slept == pytest.approx(0.5)
    shared_pace(clock, 2, "LookupEvents", "self", "eu-west-1").wait(clock)
    assert clock.slept == pytest.approx(0.5), "another region has its own"
    slow = shared_pace(clock, 0.5, "LookupEvents", "self", "us-east-1")
    assert slow.gap == 2.0
    assert isinstance(slow, Pace)


def test_small_things() -> None:
    assert region_of("https://sqs.eu-west-1.amazonaws.com/111122223333/q") == "eu-west-1"
    assert region_of("https://sqs.cn-north-1.amazonaws.com.cn/111122223333/q") == "cn-north-1"
    assert region_of("http://127.0.0.1:5000/123456789012/q") == ""
    assert parse_time("2026-11-23T09:00:00Z", "x") == MORNING
    assert parse_time("2026-11-23", "x") == MORNING - 9 * 3_600
    assert parse_time("", "x") == 0
    with pytest.raises(ConfigError, match=r"sources.a.start.*is no time"):
        parse_time("soon", "sources.a.start")
    assert S3Object("b", "k/x").origin == "s3://b/k/x"
    assert is_body(BODY)
    assert is_body(f"prefix/{BODY}")
    assert not is_body("secrets/data/prod.json.gz")
    assert not is_body(BODY.replace("data/", "../data/"))


class Pages:
    """S3 answers that a test chooses."""

    def __init__(self, *answers: dict[str, object]) -> None:
        self.answers = list(answers)

    def call(self, *_: object, **__: object) -> dict[str, object]:
        return self.answers.pop(0)


def test_a_listing_that_turns_in_circles_ends() -> None:
    row = {"Key": "p/a\x1b[2J", "Size": 1, "ETag": '"e"', "LastModified": datetime.fromtimestamp(MORNING, UTC)}
    page = {"Contents": [row], "IsTruncated": True}
    found = listing(Pages(page, page), "r", "b", "p/")  # type: ignore[arg-type]
    assert next(found).etag == "e"
    assert next(found).key == "p/a\x1b[2J"
    with pytest.raises(TransientError, match="does not go on"):
        next(found)
    pages = Pages({"CommonPrefixes": [{"Prefix": "p/a/"}], "IsTruncated": True}, {"IsTruncated": True})
    names = folders(pages, "r", "b", "p/")  # type: ignore[arg-type]
    assert next(names) == "a"
    with pytest.raises(TransientError, match="does not go on"):
        next(names)


def test_endpoints_need_tls_and_errors_paint_nothing() -> None:
    for url in ("http://vpce.example.com", "ftp://127.0.0.1", "vpce.example.com"):
        with pytest.raises(ConfigError, match="no https URL"):
            Access.of(S3Settings(bucket="trail", endpoint_url=url))
        with pytest.raises(ConfigError, match="no https URL"):
            Access.of(S3Settings(bucket="trail", endpoint_urls={"s3": url}))
    for url in ("", "https://vpce.example.com", "http://127.0.0.1:5000", "http://localhost:4566"):
        assert Access.of(S3Settings(bucket="trail", endpoint_url=url)).endpoint_url == url
    assert S3Object("b", "k\x1b[2J\n").arn == "arn:aws:s3:::b/k\\x1b[2J\\x0a"
    notes = Notes()
    for _ in range(2):
        notes("line\nforged")
    assert notes.lines == ["line\\x0aforged"]


class NoBucket:
    """A service whose every answer is a failure."""

    def call(self, *_: object, **__: object) -> object:
        raise TransientError("down")


def test_bodies_are_fetched_from_allowed_places_only() -> None:
    notes: list[str] = []
    bodies = Bodies(NoBucket(), "us-east-1", ("logs",), 1_000, notes.append)  # type: ignore[arg-type]
    for path in (
        "s3://other/data/x_input.json.gz",
        "s3://logs/secrets.json",
        "/etc/passwd",
        "s3://logs",
        "http://logs/data/x",
    ):
        record = json.dumps({"input": {"inputBodyS3Path": path}}).encode()
        assert bodies.filled(record) == record
    assert len(set(notes)) == 1
    assert "/etc/passwd" not in notes[0], "text of the record is not repeated"
    with pytest.raises(TransientError):
        bodies.filled(json.dumps({"input": {"inputBodyS3Path": f"s3://logs/{BODY}"}}).encode())
    for odd in (b"{", b"[]", b'{"input":5}', b'{"input":{"inputBodyS3Path":5}}', b'"BodyS3Path\\""'):
        assert bodies.filled(odd) == odd
    inline = b'{"input":{"inputBodyS3Path":"s3://logs/data/x_input.json.gz","inputBodyJson":{}}}'
    assert bodies.filled(inline) == inline, "what is there already is not replaced"


@pytest.mark.parametrize("kind", ["s3", "s3_sqs", "sqs", "cloudtrail_lookup", "cloudwatch_logs"])
def test_every_source_is_registered_and_its_settings_are_described(kind: str) -> None:
    import importlib

    entry = SOURCES[kind]
    settings = getattr(importlib.import_module(entry.settings_module), entry.settings)
    assert hasattr(importlib.import_module(entry.module), entry.source)
    assert entry.extra == "aws"
    for name in settings.__struct_fields__:
        hint = settings.__annotations__.get(name) or next(
            base.__annotations__[name] for base in settings.__mro__ if name in getattr(base, "__annotations__", {})
        )
        assert hint.__metadata__[0].description.endswith(".") or hint.__metadata__[0].description, name


def test_wrong_settings_name_the_field() -> None:
    config = Config()
    with pytest.raises(ConfigError, match="layout"):
        config.section("sources.a", {"bucket": "trail", "layout": "odd"}, S3Settings)
    with pytest.raises(ConfigError, match="bukcet"):
        config.section("sources.a", {"bucket": "trail", "bukcet": "x"}, S3Settings)


@pytest.mark.parametrize(
    ("error", "look"),
    [
        (EndpointConnectionError(endpoint_url="https://sqs.us-east-1.amazonaws.com/"), "check region and endpoint_url"),
        (ConnectTimeoutError(endpoint_url="https://sqs.us-east-1.amazonaws.com/"), "HTTPS_PROXY"),
        (SSLError(endpoint_url="https://sqs.us-east-1.amazonaws.com/", error="x"), "AWS_CA_BUNDLE"),
        (ConnectionResetError(), "check region"),
    ],
)
def test_where_no_answer_came_the_way_there_is_named(error: Exception, look: str) -> None:
    assert look in way_of(error)
