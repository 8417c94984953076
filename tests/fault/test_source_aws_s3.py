"""S3 by notification and by listing, against a moto server: whatever breaks, nothing is lost or stored twice.

Each test ends with a line of the table (``pytest -s``): events written, lost, duplicated in the outbox.
"""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aitrail.errors import AuthError, TransientError
from aitrail.ports import Budget
from aitrail.sources._aws_settings import S3Settings, S3SqsSettings, SqsSettings
from aitrail.sources._sqs_queue import Queue
from aitrail.sources.s3_bucket import S3Source
from aitrail.sources.s3_sqs import S3SqsSource
from aitrail.sources.sqs_messages import SqsSource
from aitrail.testing.aws_flow import MORNING, Flow, ManualClock, trail_record
from aitrail.testing.aws_moto import Fault, Gate, aws_client, gate
from aitrail.testing.aws_place import AwsPlace


@pytest.fixture(autouse=True)
def _identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.fixture
def place() -> Iterator[AwsPlace]:
    place = AwsPlace()
    place.watch(Queue)
    yield place
    place.unwatch()


@pytest.fixture
def flow(tmp_path: Path) -> Iterator[Flow]:
    flow = Flow(tmp_path / "store", ManualClock())
    yield flow
    flow.close()


@pytest.fixture
def fence() -> Iterator[Gate]:
    with gate() as one:
        yield one


def by_queue(place: AwsPlace, flow: Flow, url: str = "", **changes: Any) -> S3SqsSource:
    options = {"wait_seconds": 0, **changes}
    return S3SqsSource(
        S3SqsSettings(queue_urls=(place.queue,), buckets=(place.bucket,), endpoint_url=url or place.url, **options),
        name="trail",
        clock=flow.clock,
        key=b"secret",
    )


def by_listing(place: AwsPlace, flow: Flow, url: str = "", **changes: Any) -> S3Source:
    return S3Source(
        S3Settings(bucket=place.bucket, endpoint_url=url or place.url, **changes),
        name="bucket",
        clock=flow.clock,
        key=b"secret",
    )


# --- by notification


def test_a_crash_between_fetch_and_commit_repeats_and_is_recognised(place: AwsPlace, flow: Flow) -> None:
    for minute in range(4):
        place.send(place.told(place.log(30, minute=minute)))
    flow.crash(by_queue(place, flow), after=2)
    assert place.waiting() != (0, 0)
    assert place.waiting()[0] + place.waiting()[1] == 4, "nothing was acknowledged"
    place.reveal()
    place.drained(lambda: flow.run(by_queue(place, flow)))
    print(flow.verdict(place.expected, "s3_sqs: crash before the commit"))


def test_a_crash_between_commit_and_delete_repeats_and_is_recognised(place: AwsPlace, flow: Flow) -> None:
    for minute in range(3):
        place.send(place.told(place.log(30, minute=minute)))
    flow.crash(by_queue(place, flow), at_acknowledge=True)
    place.reveal()
    place.drained(lambda: flow.run(by_queue(place, flow)))
    print(flow.verdict(place.expected, "s3_sqs: crash before the delete"))


def test_a_message_is_deleted_only_when_all_of_its_objects_are_durable(
    place: AwsPlace, flow: Flow, fence: Gate
) -> None:
    first, second = place.log(20), place.log(20, minute=1)
    place.send(place.told(first, second))
    fence.faults = [Fault("GetObject", "AccessDenied", 403, key=second[-20:])]
    with pytest.raises(AuthError, match="GetObject is not allowed") as failed:
        flow.run(by_queue(place, flow, fence.url))
    assert "kms:Decrypt" in failed.value.hint
    assert len(flow.events) == 20, "the other object was read"
    assert sum(place.waiting()) == 1, "and its message stays"
    place.reveal()
    place.drained(lambda: flow.run(by_queue(place, flow, fence.url)))
    print(flow.verdict(place.expected, "s3_sqs: one object of a message refused"))


def test_deleted_foreign_and_unreadable_things_do_not_stand_in_the_way(place: AwsPlace, flow: Flow) -> None:
    gone = place.log(5)
    place.s3.delete_object(Bucket=place.bucket, Key=gone)
    lost = {place.expected.pop() for _ in range(5)}
    place.send(place.told(gone), place.told("AWSLogs/x.json.gz", bucket="somebody-else"), "neither JSON nor known")
    place.send(place.told(place.log(10, minute=1)), json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent"}))
    source = by_queue(place, flow, give_up_after=1)
    place.drained(lambda: flow.run(source))
    assert sorted(letter.code for letter in flow.dead()) == ["message_unknown", "object_foreign", "object_gone"]
    assert {letter.origin for letter in flow.dead()} >= {
        f"s3://{place.bucket}/{gone}",
        "s3://somebody-else/AWSLogs/x.json.gz",
    }
    assert not lost & flow.ids()
    print(flow.verdict(place.expected, "s3_sqs: deleted, foreign, unreadable"))


def test_a_poison_message_is_left_to_the_redrive_policy(place: AwsPlace, flow: Flow) -> None:
    dead = place.sqs.create_queue(QueueName=place.bucket + "-dead")["QueueUrl"]
    arn = place.sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 2})
    place.sqs.set_queue_attributes(QueueUrl=place.queue, Attributes={"RedrivePolicy": policy})
    place.send('{"some":"thing"}', place.told(place.log(10)))
    place.drained(lambda: flow.run(by_queue(place, flow)))
    assert (
        int(
            place.sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["All"])["Attributes"][
                "ApproximateNumberOfMessages"
            ]
        )
        == 1
    )
    assert [letter.code for letter in flow.dead()] == ["message_unknown"], "and noted once"
    assert by_queue(place, flow).check() == []
    print(flow.verdict(place.expected, "s3_sqs: poison message"))


def test_duplicate_notifications_are_read_once(place: AwsPlace, flow: Flow, fence: Gate) -> None:
    key = place.log(25)
    place.send(*[place.told(key)] * 3, place.told(key, key))
    place.drained(lambda: flow.run(by_queue(place, flow, fence.url)))
    assert flow.spool.counters()["trail"]["records"] == 25, "the others were known by key and ETag"
    print(flow.verdict(place.expected, "s3_sqs: duplicate notifications"))


def test_an_object_that_grows_is_read_again(place: AwsPlace, flow: Flow) -> None:
    rows = [trail_record(number, MORNING + number) for number in range(40)]
    for count in (15, 40):
        place.put("AWSLogs/grows.json", json.dumps({"Records": rows[:count]}).encode())
        place.send(place.told("AWSLogs/grows.json"))
        place.drained(lambda: flow.run(by_queue(place, flow)))
    print(flow.verdict([row["eventID"] for row in rows], "s3_sqs: growing object"))


def test_two_pollers_share_a_queue(place: AwsPlace, tmp_path: Path) -> None:
    for minute in range(16):
        place.send(place.told(place.log(4, minute=minute)))
    clock = ManualClock()
    one, two = Flow(tmp_path / "one", clock), Flow(tmp_path / "two", clock)
    sources = [by_queue(place, flow) for flow in (one, two)]
    place.drained(
        lambda: [flow.run(source, Budget(records=12)) for flow, source in zip((one, two), sources, strict=True)]
    )
    assert one.ids(), "both got some"
    assert two.ids()
    assert not one.ids() & two.ids()
    one.events += two.events
    print(one.verdict(place.expected, "s3_sqs: two pollers"))
    one.close()
    two.close()


@pytest.mark.parametrize(
    ("code", "status", "times"),
    [("SlowDown", 503, 3), ("InternalError", 500, 2), ("ExpiredToken", 400, 1)],
)
def test_throttling_server_errors_and_expired_credentials_are_survived(
    place: AwsPlace, flow: Flow, fence: Gate, code: str, status: int, times: int
) -> None:
    for minute in range(5):
        place.send(place.told(place.log(20, minute=minute)))
    fence.faults = [Fault("GetObject", code, status, times, after=2)]
    place.drained(lambda: flow.run(by_queue(place, flow, fence.url)))
    assert fence.faults[0].times == 0
    assert fence.calls.count("GetObject") == 5 + times
    print(flow.verdict(place.expected, f"s3_sqs: {code} {times} times"))


def test_credentials_that_stay_refused_are_an_alarm_and_lose_nothing(place: AwsPlace, flow: Flow, fence: Gate) -> None:
    place.send(place.told(place.log(10)))
    fence.faults = [Fault("ReceiveMessage", "InvalidClientTokenId", 403, 2)]
    with pytest.raises(AuthError, match="refused"):
        flow.run(by_queue(place, flow, fence.url))
    assert fence.calls == ["ReceiveMessage"] * 2, "once more with a new session, then the alarm"
    place.drained(lambda: flow.run(by_queue(place, flow, fence.url)))
    print(flow.verdict(place.expected, "s3_sqs: credentials refused"))


def test_a_broken_connection_goes_on_where_it_broke(place: AwsPlace, flow: Flow, fence: Gate) -> None:
    place.send(place.told(place.log(400)))
    size = place.s3.list_objects_v2(Bucket=place.bucket)["Contents"][0]["Size"]
    fence.faults = [Fault("GetObject", cut=size // 2), Fault("GetObject", cut=10)]
    place.drained(lambda: flow.run(by_queue(place, flow, fence.url)))
    assert fence.calls.count("GetObject") == 3
    print(flow.verdict(place.expected, "s3_sqs: connection cut in the middle"))


def test_damage_is_a_dead_letter_behind_what_could_be_read(place: AwsPlace, flow: Flow) -> None:
    rows = [trail_record(number, MORNING) for number in range(300)]
    whole = gzip.compress(json.dumps({"Records": rows}).encode(), 1)
    place.put("AWSLogs/torn.json.gz", whole[: len(whole) * 2 // 3])
    place.send(place.told("AWSLogs/torn.json.gz"))
    place.drained(lambda: flow.run(by_queue(place, flow)))
    assert 0 < len(flow.events) < 300
    assert [letter.code for letter in flow.dead()] == ["gzip_truncated"]


def test_an_object_of_plain_text_is_one_dead_letter(place: AwsPlace, flow: Flow) -> None:
    place.put("AWSLogs/table.csv", b"time,user,question\n" + b"2026-11-23,mateo,why\n" * 5_000)
    place.send(place.told("AWSLogs/table.csv"))
    place.drained(lambda: flow.run(by_queue(place, flow)))
    assert [letter.code for letter in flow.dead()] == ["not_json"]


def test_messages_of_long_work_stay_hidden(place: AwsPlace, flow: Flow, fence: Gate) -> None:
    """The clock moves while objects are read: their messages are hidden again before their time is over."""
    for minute in range(4):
        place.send(place.told(place.log(5, minute=minute)))

    def slow(operation: str) -> None:
        flow.clock.time += 61 if operation == "GetObject" else 0

    fence.on_call = slow
    flow.run(by_queue(place, flow, fence.url, visibility_seconds=120, read_ahead=1))
    assert "ChangeMessageVisibilityBatch" in fence.calls
    assert place.waiting() == (0, 0)
    print(flow.verdict(place.expected, "s3_sqs: long work"))


def test_what_the_budget_left_comes_back_at_once(place: AwsPlace, flow: Flow) -> None:
    for minute in range(6):
        place.send(place.told(place.log(10, minute=minute)))
    source = by_queue(place, flow)
    flow.run(source, Budget(records=25))
    assert len(flow.events) == 25
    turns = 0
    while sum(place.waiting()) and turns < 10:
        # The message whose object was cut in the middle is given back as well.
        flow.run(source, Budget(records=25))
        turns += 1
    assert turns <= 3
    print(flow.verdict(place.expected, "s3_sqs: small budgets"))


def test_an_old_object_that_is_larger_than_the_budget_gets_through(place: AwsPlace, flow: Flow) -> None:
    """Of hours that are long past nothing is remembered: such an object is read to its end at once."""
    place.send(place.told(place.log(5)))
    place.drained(lambda: flow.run(by_queue(place, flow)))
    place.send(place.told(place.log(90, minute=-28 * 26 * 60)))
    turns = place.drained(lambda: flow.run(by_queue(place, flow), Budget(records=20)))
    assert turns <= 2
    print(flow.verdict(place.expected, "s3_sqs: old object, small budget"))


# --- plain messages


def test_plain_messages_survive_crashes_and_come_once(place: AwsPlace, flow: Flow) -> None:
    rows = [trail_record(number, MORNING + number) for number in range(60)]
    for row in rows[:20]:
        place.send(json.dumps(row))
    for row in rows[20:40]:
        place.send(json.dumps({"detail-type": "AWS API Call via CloudTrail", "source": "aws.bedrock", "detail": row}))
    place.send("\n".join(json.dumps(row) for row in rows[40:50]))
    place.send(json.dumps({"Type": "Notification", "Message": json.dumps({"Records": rows[50:]})}))

    def source() -> SqsSource:
        options = SqsSettings(queue_urls=(place.queue,), endpoint_url=place.url, wait_seconds=0)
        return SqsSource(options, name="plain", clock=flow.clock)

    flow.crash(source(), after=7)
    place.reveal()
    flow.crash(source(), at_acknowledge=True)
    place.reveal()
    place.drained(lambda: flow.run(source()))
    print(flow.verdict([row["eventID"] for row in rows], "sqs: two crashes"))


# --- by listing


def test_listing_goes_on_after_every_crash(place: AwsPlace, flow: Flow) -> None:
    for minute in range(0, 120, 10):
        place.log(25, minute=minute)
    for after in (1, 4, 9):
        flow.crash(by_listing(place, flow), after=after)
    flow.run(by_listing(place, flow))
    assert flow.run(by_listing(place, flow)).records == 0, "nothing is read twice when nothing is new"
    print(flow.verdict(place.expected, "s3: crashes while listing"))


def test_keys_that_sort_before_the_newest_are_found_in_the_overlap(place: AwsPlace, flow: Flow, fence: Gate) -> None:
    flow.clock.time = MORNING + 12 * 3_600
    place.log(10, minute=300)
    flow.run(by_listing(place, flow, fence.url))
    place.log(10, minute=120, tag="late")
    place.log(10, minute=300, tag="0")
    place.log(10, minute=299, region="eu-west-1")
    flow.run(by_listing(place, flow, fence.url))
    assert fence.calls.count("GetObject") == 4, "each object once"
    print(flow.verdict(place.expected, "s3: late keys"))


def test_large_objects_are_continued_where_the_budget_ended(place: AwsPlace, flow: Flow, fence: Gate) -> None:
    place.log(500)
    for _ in range(20):
        if flow.run(by_listing(place, flow, fence.url), Budget(records=120)).records == 0:
            break
    assert flow.totals.duplicates == 0
    assert flow.spool.counters()["bucket"]["records"] == 500, "no record was read twice"
    print(flow.verdict(place.expected, "s3: budget inside an object"))


def test_an_object_that_may_not_be_read_stops_its_stream_and_no_other(place: AwsPlace, flow: Flow, fence: Gate) -> None:
    hidden = place.log(10, minute=1)
    place.log(10, minute=2)
    place.log(10, minute=1, region="us-west-2")
    fence.faults = [Fault("GetObject", "AccessDenied", 403, key=hidden[-20:])]
    with pytest.raises(AuthError, match="GetObject is not allowed"):
        flow.run(by_listing(place, flow, fence.url))
    assert len(flow.events) == 10, "the other region was read"
    flow.run(by_listing(place, flow, fence.url))
    print(flow.verdict(place.expected, "s3: object refused for a while"))


def test_an_object_that_is_deleted_between_listing_and_reading(place: AwsPlace, flow: Flow, fence: Gate) -> None:
    gone = place.log(10)
    del place.expected[:]
    place.log(10, minute=1)

    def delete(operation: str) -> None:
        if operation == "GetObject":
            aws_client("s3").delete_object(Bucket=place.bucket, Key=gone)

    fence.on_call = delete
    flow.run(by_listing(place, flow, fence.url))
    assert [letter.code for letter in flow.dead()] == ["object_gone"]
    print(flow.verdict(place.expected, "s3: object deleted meanwhile"))


def test_an_object_that_is_replaced_while_it_is_read_is_never_mixed(place: AwsPlace, flow: Flow, fence: Gate) -> None:
    key = place.log(400)
    other = [trail_record(number, MORNING, "new") for number in range(400)]
    body = gzip.compress(json.dumps({"Records": other}).encode(), 1)
    fence.faults = [Fault("GetObject", cut=500)]
    seen: list[str] = []

    def replace(operation: str) -> None:
        seen.append(operation)
        if seen.count("GetObject") == 2:
            aws_client("s3").put_object(Bucket=place.bucket, Key=key, Body=body)

    fence.on_call = replace
    with pytest.raises(TransientError, match="was replaced"):
        flow.run(by_listing(place, flow, fence.url))
    flow.run(by_listing(place, flow, fence.url))
    assert {row["eventID"] for row in other} <= flow.ids()
    assert flow.dead() == []


def test_listing_errors_and_throttling(place: AwsPlace, flow: Flow, fence: Gate) -> None:
    for minute in range(3):
        place.log(10, minute=minute)
    fence.faults = [Fault("ListObjectsV2", "SlowDown", 503, 3, after=1)]
    flow.run(by_listing(place, flow, fence.url))
    fence.faults = [Fault("ListObjectsV2", "SlowDown", 503, 50)]
    with pytest.raises(TransientError, match="SlowDown"):
        flow.run(by_listing(place, flow, fence.url))
    print(flow.verdict(place.expected, "s3: listing throttled"))


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(
            st.integers(0, 200),
            st.integers(1, 6),
            st.sampled_from(["read", "crash", "queue", "queue crash", "nothing"]),
        ),
        min_size=3,
        max_size=6,
    )
)
def test_any_order_of_arrival_and_crash_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory, schedule: list[tuple[int, int, str]]
) -> None:
    place = AwsPlace()
    place.watch(Queue)
    flow = Flow(tmp_path_factory.mktemp("flow"), ManualClock(MORNING + 5 * 3_600))
    for minute, records, then in schedule:
        place.send(place.told(place.log(records, minute=minute)))
        if then == "read":
            flow.run(by_listing(place, flow))
        elif then == "crash":
            flow.crash(by_listing(place, flow), after=1)
        elif then == "queue":
            flow.run(by_queue(place, flow))
        elif then == "queue crash":
            flow.crash(by_queue(place, flow), after=1)
    flow.run(by_listing(place, flow))
    flow.verdict(place.expected, "s3: any schedule")
    place.drained(lambda: flow.run(by_queue(place, flow)))
    flow.verdict(place.expected, "s3 and s3_sqs together")
    place.unwatch()
    flow.close()
