"""The Lambda handler against a moto server: every kind of event in its real shape, and what may be wrong with it."""

import base64
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import aitrail.pipeline as pipeline
from aitrail.errors import AitrailError, ConfigError
from aitrail.runtime import aws_lambda
from aitrail.runtime.scheduled import sending
from aitrail.runtime.scheduled.aws_events import GivenBackError
from aitrail.runtime.scheduled.parts import RunClock
from aitrail.testing.aws_flow import ACCOUNT, MORNING, event_id, invocation_record, trail_record
from aitrail.testing.aws_moto import REGION, Fault, Gate, aws_client, gate
from aitrail.testing.lambda_place import Context, Place, queue_event, subscription
from aitrail.testing.peer import Behaviour

Invoke = Callable[..., dict[str, Any]]


@pytest.fixture
def fence() -> Iterator[Gate]:
    with gate() as one:
        yield one


@pytest.fixture
def place(fence: Gate) -> Iterator[Place]:
    one = Place(fence.url)
    yield one
    one.close()


@pytest.fixture
def start(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Begin with a new execution environment."""

    def started(config: str = "", **more: str) -> None:
        for name, value in place.environment(config, **more).items():
            monkeypatch.setenv(name, value)
        closed()

    def closed() -> None:
        for worker in aws_lambda._workers:
            if worker._parts is not None:
                worker._parts.close()
            for aws in (worker._aws, *worker._identities.values()):
                aws.close()
        aws_lambda._workers.clear()

    started()
    yield started
    closed()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every wait is longer than what is left of a run: what cannot be settled at once is given back at once."""
    monkeypatch.setattr(sending, "_FIRST_WAIT", 1e6)
    monkeypatch.setattr(sending, "_LONGEST_WAIT", 1e6)
    monkeypatch.setattr(sending.random, "uniform", lambda low, high: high)


@pytest.fixture
def invoke(start: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> Invoke:
    """Invoke, and keep the line that was written as ``invoke.line``."""

    def invoked(event: Any, seconds: float = 60.0, context: Any = None) -> dict[str, Any]:
        try:
            return aws_lambda.handler(event, context or Context(seconds))
        finally:
            invoked.line = json.loads(capsys.readouterr().out.splitlines()[-1])  # type: ignore[attr-defined]

    return invoked


def line(invoke: Invoke) -> dict[str, Any]:
    found: dict[str, Any] = invoke.line  # type: ignore[attr-defined]
    return found


def one_message(body: str, ident: str = "m-1") -> dict[str, Any]:
    return queue_event([(ident, body, "handle")])


def failed(answer: dict[str, Any]) -> list[str]:
    return [one["itemIdentifier"] for one in answer["batchItemFailures"]]


# --- queue


def shapes(place: Place, key: str) -> dict[str, str]:
    """A notification of one object in every form in which AWS sends it."""
    bucket = place.objects.bucket
    plain = place.objects.told(key)
    return {
        "s3": plain,
        "sns": json.dumps({"Type": "Notification", "MessageId": "1", "TopicArn": "arn", "Message": plain}),
        "eventbridge": json.dumps(
            {"version": "0", "detail-type": "Object Created", "source": "aws.s3", "account": ACCOUNT, "region": REGION,
             "detail": {"bucket": {"name": bucket}, "object": {"key": key, "size": 5}, "reason": "PutObject"}}
        ),
        "cloudtrail": json.dumps({"s3Bucket": bucket, "s3ObjectKey": [key]}),
    }  # fmt: skip


@pytest.mark.parametrize("shape", ["s3", "sns", "eventbridge", "cloudtrail"])
def test_objects_of_a_queue(place: Place, invoke: Invoke, shape: str) -> None:
    key = place.objects.log(7)
    assert invoke(one_message(shapes(place, key)[shape])) == {"batchItemFailures": []}
    assert place.arrived() == place.objects.expected
    assert line(invoke)["Events"] == 7
    assert line(invoke)["Stack"] == "test"
    # The same object again, in another message, is known.
    assert invoke(one_message(shapes(place, key)["s3"], "m-2")) == {"batchItemFailures": []}
    assert place.arrived() == place.objects.expected


@pytest.mark.parametrize("shape", ["sns", "s3", "eventbridge"])
def test_notifications_without_a_queue(place: Place, invoke: Invoke, shape: str) -> None:
    """SNS, S3 and EventBridge may call the function themselves."""
    text = shapes(place, place.objects.log(5))["eventbridge" if shape == "eventbridge" else "s3"]
    sns = {
        "Records": [{"EventSource": "aws:sns", "EventVersion": "1.0", "Sns": {"Type": "Notification", "Message": text}}]
    }
    event = sns if shape == "sns" else json.loads(text)
    assert invoke(event) == {"events": 5, "dead_letters": 0}
    assert place.arrived() == place.objects.expected


def test_bad_messages_do_not_stand_in_the_way(place: Place, invoke: Invoke) -> None:
    """Foreign bucket, deleted object, malformed notification, test event, empty body: each has its verdict."""
    good = place.objects.told(place.objects.log(3))
    messages = [
        ("test", json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "acme-trail"})),
        ("foreign", place.objects.told("AWSLogs/x.json.gz", bucket="somebody-elses")),
        ("gone", place.objects.told("AWSLogs/deleted.json.gz")),
        ("malformed", '{"Records": [{"s3": {"bucket": '),
        ("other", '{"hello": "world"}'),
        ("empty", ""),
        ("good", good),
    ]
    answer = invoke(queue_event([(ident, body, ident) for ident, body in messages]))
    assert failed(answer) == []
    assert place.arrived() == place.objects.expected
    found = sorted((one["code"], one["origin"].rpartition("/")[2]) for one in place.dead())
    assert found == [
        ("message_unknown", "empty"), ("message_unknown", "malformed"), ("message_unknown", "other"),
        ("object_foreign", "x.json.gz"), ("object_gone", "deleted.json.gz"),
    ]  # fmt: skip
    assert line(invoke)["DeadLetters"] == 5
    assert line(invoke)["Failures"] == 0
    assert "hello" not in json.dumps(place.dead())


def test_records_in_messages(place: Place, invoke: Invoke) -> None:
    """EventBridge's CloudTrail events may lie in the queue, too."""
    body = {"version": "0", "detail-type": "AWS API Call via CloudTrail", "detail": trail_record(1, MORNING, "q")}
    assert failed(invoke(one_message(json.dumps(body)))) == []
    assert place.arrived() == [event_id(1, "q")]


def test_records_that_are_wrong_are_dead_letters(place: Place, invoke: Invoke) -> None:
    broken = gzip.compress(json.dumps({"Records": [trail_record(1, MORNING), {"eventVersion": 1.1}]}).encode())
    key = f"AWSLogs/{ACCOUNT}/CloudTrail/us-east-1/2026/11/23/{ACCOUNT}_CloudTrail_us-east-1_20261123T0900Z_x.json.gz"
    place.objects.put(key, broken)
    torn = place.objects.put(key.replace("_x", "_y"), broken[:-20])
    assert failed(invoke(one_message(place.objects.told(key, torn)))) == []
    assert event_id(1) in place.arrived()
    codes = {one["code"] for one in place.dead()}
    assert "gzip_truncated" in codes
    assert len(codes) > 1
    assert all(one["source"] == "trail" for one in place.dead())


def test_what_cannot_be_read_comes_again(place: Place, invoke: Invoke, fence: Gate) -> None:
    """A KMS key that is refused for one object holds up its message, no other; the alarm's metric names the cause."""
    keys = [place.objects.log(4, tag=tag) for tag in ("a", "b", "c")]
    fence.faults.append(Fault("GetObject", "KMS.AccessDeniedException", 403, times=100, key="_b"))
    event = queue_event([(tag, place.objects.told(key), key) for tag, key in zip("abc", keys, strict=True)])
    answer = invoke(event)
    assert failed(answer) == ["b"]
    assert len(place.arrived()) == 8
    said = line(invoke)
    assert said["Failures.auth"] == 1
    assert said["GivenBack"] == 1
    assert "kms:Decrypt" in said["causes"][0]
    fence.faults.clear()
    assert failed(invoke(event)) == []
    assert sorted(place.arrived()) == sorted(place.objects.expected)


class Requests(Context):
    """A time-out that comes with the destination's n-th request, however fast the machine is."""

    hec: Any = None
    last: int = 0

    def get_remaining_time_in_millis(self) -> int:
        return 60_000 if self.hec.traffic.requests < self.last else 0


def test_oversized_object_goes_on_where_it_stopped(
    place: Place, start: Callable[..., None], invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object larger than one run is read in several, none of which begins anew."""
    monkeypatch.setattr(pipeline, "COMMIT_EVENTS", 100)
    start(place.config(batch_events=100))
    event = one_message(place.objects.told(place.objects.log(9_000)))
    runs = 0
    while failed(invoke(event, context=Requests(hec=place.hec, last=place.hec.traffic.requests + 25))):
        runs += 1
        assert runs < 10
        assert line(invoke)["GivenBack"] == 1
    assert runs >= 3
    arrived = place.arrived()
    assert set(arrived) == set(place.objects.expected)
    assert len(arrived) <= 9_000 + runs * 1_100  # repeated: at most the batch in flight


def test_no_time_left_gives_everything_back(place: Place, invoke: Invoke) -> None:
    keys = [place.objects.log(2) for _ in range(3)]
    event = queue_event([(str(number), place.objects.told(key), key) for number, key in enumerate(keys)])
    assert failed(invoke(event, 0.5)) == ["0", "1", "2"]
    assert place.arrived() == []


# --- destination, table, secrets


def test_a_destination_that_is_down_gives_back(place: Place, invoke: Invoke, impatient: None) -> None:
    event = one_message(place.objects.told(place.objects.log(5)))
    place.hec.script(Behaviour("down"))
    assert failed(invoke(event)) == ["m-1"]
    assert line(invoke)["Failures.destination"] == 1
    place.hec.heal()
    assert failed(invoke(event)) == []
    assert sorted(place.arrived()) == sorted(place.objects.expected)


def test_a_destination_that_throttles_is_waited_for(place: Place, invoke: Invoke) -> None:
    place.hec.script(Behaviour("throttle", retry_after="0.2", times=3))
    assert failed(invoke(one_message(place.objects.told(place.objects.log(5))))) == []
    assert place.arrived() == place.objects.expected


def test_a_refused_token_is_an_alarm_at_once(place: Place, invoke: Invoke) -> None:
    """Nothing is tried again for a minute when the credentials are wrong: the run ends, and says so."""
    place.hec.script(Behaviour("rotate"))
    began = Context(30.0)
    event = one_message(place.objects.told(place.objects.log(5)))
    assert failed(invoke(event)) == ["m-1"]
    assert began.get_remaining_time_in_millis() > 20_000
    assert line(invoke)["Failures.auth"] == 1
    assert place.dead() == []


def test_a_refused_event_is_a_dead_letter(place: Place, invoke: Invoke) -> None:
    """One poison event: the others go on, it is kept as it would have been sent, and the message is done."""
    invoke(one_message(place.objects.told(place.objects.log(5))))
    poison = place.hec.indexed()[2].event_id
    place.hec.script(Behaviour("refuse_items", times=0, ids=(poison,)))
    records = [trail_record(number, MORNING - number % 400) for number in range(5)]
    place.objects.put("AWSLogs/again.json.gz", gzip.compress(json.dumps({"Records": records}).encode()))
    assert failed(invoke(one_message(place.objects.told("AWSLogs/again.json.gz"), "m-2"))) == []
    [letter] = place.dead()
    assert len(place.arrived()) == 9
    assert letter["stage"] == "deliver"
    assert letter["event_id"] == poison
    assert letter["destination"] == "siem"


def test_dead_letters_that_cannot_be_kept_hold_everything(place: Place, invoke: Invoke, fence: Gate) -> None:
    """Nothing is confirmed before its dead letter is durable."""
    fence.faults.append(Fault("PutObject", "AccessDenied", 403, times=100))
    event = one_message(place.objects.told("AWSLogs/deleted.json.gz"))
    assert failed(invoke(event)) == ["m-1"]
    assert line(invoke)["Failures.auth"] == 1
    assert "dead_letters" in line(invoke)["causes"][0]
    fence.faults.clear()
    assert failed(invoke(event)) == []
    assert [one["code"] for one in place.dead()] == ["object_gone"]


def test_throttled_table(place: Place, invoke: Invoke, fence: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few refusals are waited for; a table that stays throttled gives the messages back and says why."""
    monkeypatch.setattr(RunClock, "sleep", lambda clock, seconds: None)
    fence.faults.append(Fault("PutItem", "ProvisionedThroughputExceededException", 400, times=3))
    event = one_message(place.objects.told(place.objects.log(5)))
    assert failed(invoke(event)) == []
    fence.faults.append(Fault("PutItem", "ThrottlingException", 400, times=1_000))
    event = one_message(place.objects.told(place.objects.log(5)), "m-2")
    assert failed(invoke(event)) == ["m-2"]
    assert line(invoke)["Failures.state"] == 1
    assert "ThrottlingException" in line(invoke)["causes"][0]


def test_expired_role(place: Place, invoke: Invoke, fence: Gate) -> None:
    """Credentials that are refused again after a renewal: everything comes again, and the cause is named."""
    fence.faults.append(Fault("*", "ExpiredTokenException", 400, times=1_000))
    assert failed(invoke(one_message(place.objects.told(place.objects.log(5))))) == ["m-1"]
    assert line(invoke)["Failures.auth"] == 1
    assert "credentials are refused" in line(invoke)["causes"][0]


def test_secrets_of_secrets_manager(place: Place, start: Callable[..., None], invoke: Invoke) -> None:
    """Keys and tokens by reference; a missing one is an error that names it, before anything is read."""
    manager = aws_client("secretsmanager")
    token = Path(place.hec.address["token_file"]).read_text(encoding="utf-8")
    name = f"{place.table}/token"
    config = place.config(token=f"aws-sm:{name}#hec").replace("env:TENANT_KEY", f"aws-sm:{name}#key")
    start(config)
    event = one_message(place.objects.told(place.objects.log(5)))
    with pytest.raises(ConfigError, match=r"cannot be read \(ResourceNotFoundException\)"):
        invoke(event)
    assert line(invoke)["Failures.config"] == 1
    manager.create_secret(Name=name, SecretString=json.dumps({"hec": token, "key": "0" * 32}))
    assert failed(invoke(event)) == []
    assert place.arrived() == place.objects.expected
    assert token not in json.dumps(line(invoke))


def test_a_bug_confirms_nothing(place: Place, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("content of a record")

    monkeypatch.setattr(aws_lambda, "push", broken)
    with pytest.raises(ZeroDivisionError):
        invoke(one_message("{}"))
    assert line(invoke)["Failures.bug"] == 1
    assert "content" not in json.dumps(line(invoke))


# --- schedules


def poller(place: Place) -> str:
    logs = aws_client("logs")
    group = f"/bedrock/{place.table}"
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName="one")
    return group


def write(group: str, rows: range) -> None:
    import time

    now = int(time.time() * 1_000) - 60_000
    messages = [{"timestamp": now + row, "message": json.dumps(invocation_record(row, MORNING))} for row in rows]
    aws_client("logs").put_log_events(logGroupName=group, logStreamName="one", logEvents=messages)


def test_a_schedule_polls_and_remembers(place: Place, start: Callable[..., None], invoke: Invoke, fence: Gate) -> None:
    group = poller(place)
    start(place.config(f'[sources.calls]\ntype = "cloudwatch_logs"\nlog_groups = ["{group}"]\n'))
    write(group, range(5))
    schedule = {"version": "0", "detail-type": "Scheduled Event", "source": "aws.events", "detail": {}}
    assert invoke(schedule) == {"sources": {"calls": "complete"}}
    write(group, range(5, 8))
    start(place.config(f'[sources.calls]\ntype = "cloudwatch_logs"\nlog_groups = ["{group}"]\n'))  # a cold one
    assert invoke({"aitrail": "poll"}) == {"sources": {"calls": "complete"}}
    assert place.arrived() == [f"call-{row:08d}" for row in range(8)]
    # A source that fails keeps its cursor; the run itself goes well, the metric does not.
    write(group, range(8, 9))
    fence.faults.append(Fault("FilterLogEvents", "AccessDeniedException", 400, times=100))
    assert invoke({"aitrail": "poll"}) == {"sources": {"calls": "failed"}}
    assert line(invoke)["Failures.auth"] == 1
    assert "logs:FilterLogEvents" in line(invoke)["causes"][0]
    fence.faults.clear()
    assert invoke({"aitrail": "poll"}) == {"sources": {"calls": "complete"}}
    assert place.arrived()[-1] == "call-00000008"


def test_one_wrong_source_does_not_stop_the_others(place: Place, start: Callable[..., None], invoke: Invoke) -> None:
    group = poller(place)
    wrong = '[sources.wrong]\ntype = "cloudwatch_logs"\nlog_groups = ["x"]\nstart = "yesterday"\n'
    start(place.config(f'{wrong}[sources.calls]\ntype = "cloudwatch_logs"\nlog_groups = ["{group}"]\n'))
    write(group, range(2))
    assert invoke({"aitrail": "poll"}) == {"sources": {"wrong": "failed", "calls": "complete"}}
    assert len(place.arrived()) == 2
    assert line(invoke)["Failures.config"] == 1
    # Its lease was given back: nobody waits for it once it is mended.
    assert invoke({"aitrail": "poll"})["sources"]["wrong"] == "failed"
    start(place.config(f'[sources.calls]\ntype = "cloudwatch_logs"\nlog_groups = ["{group}"]\n'), AITRAIL_POLL="other")
    with pytest.raises(ConfigError, match="no source 'other'"):
        invoke({"aitrail": "poll"})


def test_two_pollers_do_not_read_the_same(place: Place, start: Callable[..., None], invoke: Invoke) -> None:
    group = poller(place)
    start(place.config(f'[sources.calls]\ntype = "cloudwatch_logs"\nlog_groups = ["{group}"]\n'))
    write(group, range(2))
    worker = aws_lambda.Worker(place.environment(), aws_lambda.Path())
    other = aws_lambda.TableLeases(worker.table(), worker.clock, "another run")
    lease = other.acquire("calls", 600.0)
    assert lease is not None
    assert invoke({"aitrail": "poll"}) == {"sources": {"calls": "leased"}}
    assert place.arrived() == []
    other.release([lease])
    assert invoke({"aitrail": "poll"}) == {"sources": {"calls": "complete"}}
    worker._aws.close()


def test_a_poller_that_was_overtaken_writes_no_cursor(place: Place, start: Callable[..., None]) -> None:
    worker = aws_lambda.Worker(place.environment(), aws_lambda.Path())
    table, clock = worker.table(), worker.clock
    leases = [aws_lambda.TableLeases(table, clock, name) for name in ("first", "second")]
    old = leases[0].acquire("s", -1.0)  # it has ended already
    new = leases[1].acquire("s", 60.0)
    assert old is not None
    assert new is not None
    assert new.token > old.token
    large = bytes(range(256)) * 3_000  # larger than an item
    aws_lambda.TableCursors(table, "s", clock, new).commit({"k": large, "small": b"1"})
    with pytest.raises(AitrailError, match="taken over"):
        aws_lambda.TableCursors(table, "s", clock, old).commit({"small": b"0"})
    found = aws_lambda.TableCursors(table, "s", clock, new)
    assert dict(found.items()) == {"k": large, "small": b"1"}
    found.commit({"k": b"short now"})
    again = aws_lambda.TableCursors(table, "s", clock, new)
    assert again.get("k") == b"short now"
    parts = [one for one in table.partition("cursor#s") if one["s"]["S"].startswith("p:")]
    assert parts == []
    assert leases[0].renew([old], 60.0) == []
    assert leases[1].renew([new], 60.0)[0].token == new.token
    worker._aws.close()


def test_table_that_does_not_answer(
    place: Place, start: Callable[..., None], invoke: Invoke, fence: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunClock, "sleep", lambda clock, seconds: None)
    group = poller(place)
    start(place.config(f'[sources.calls]\ntype = "cloudwatch_logs"\nlog_groups = ["{group}"]\n'))
    fence.faults.append(Fault("UpdateItem", "ThrottlingException", 400, times=1_000))
    assert invoke({"aitrail": "poll"}) == {"sources": {"calls": "failed"}}
    assert line(invoke)["Failures.state"] == 1
    assert place.arrived() == []


# --- pushes


def test_subscription(place: Place, invoke: Invoke) -> None:
    rows = [invocation_record(row, MORNING) for row in range(4)]
    event = {"awslogs": {"data": subscription(rows)}}
    assert invoke(event) == {"events": 4, "dead_letters": 0}
    assert place.arrived() == [row["requestId"] for row in rows]
    probe = base64.b64encode(gzip.compress(b'{"messageType": "CONTROL_MESSAGE", "logEvents": [{"message": "x"}]}'))
    assert invoke({"awslogs": {"data": probe.decode()}}) == {"events": 0, "dead_letters": 0}
    for wrong in ("not base64!", base64.b64encode(gzip.compress(b"{")).decode(), None, 7):
        assert invoke({"awslogs": {"data": wrong}})["dead_letters"] == 1
    assert len(place.dead()) >= 2


def test_a_push_that_is_not_settled_fails(place: Place, invoke: Invoke) -> None:
    """The platform sends it again, and in the end keeps it; what it keeps is understood, too."""
    event = {"awslogs": {"data": subscription([invocation_record(1, MORNING)])}}
    place.hec.script(Behaviour("throttle", retry_after="3600", times=0))
    with pytest.raises(GivenBackError, match="destination:siem"):
        invoke(event)
    place.hec.heal()
    kept = {"version": "1.0", "requestContext": {"condition": "RetriesExhausted"}, "requestPayload": event}
    assert invoke(kept) == {"events": 1, "dead_letters": 0}


def test_stream(place: Place, invoke: Invoke) -> None:
    """Kinesis: the first record that has to come again is named; what is behind it comes again anyway."""

    def record(number: int, data: bytes) -> dict[str, Any]:
        return {
            "kinesis": {"kinesisSchemaVersion": "1.0", "partitionKey": "1",
                        "sequenceNumber": f"495903382714902566085596925383615710959{number}",
                        "data": base64.b64encode(data).decode(), "approximateArrivalTimestamp": MORNING},
            "eventSource": "aws:kinesis", "eventVersion": "1.0", "eventName": "aws:kinesis:record",
            "eventID": f"shardId-000000000006:{number}",
            "eventSourceARN": f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/logs",
        }  # fmt: skip

    packed = [base64.b64decode(subscription([invocation_record(row, MORNING)])) for row in range(2)]
    plain = json.dumps(trail_record(9, MORNING, "k")).encode()
    event = {"Records": [record(0, packed[0]), record(1, plain), record(2, b"\x1f\x8bbroken"), record(3, packed[1])]}
    assert failed(invoke(event)) == []
    assert place.arrived() == ["call-00000000", event_id(9, "k"), "call-00000001"]
    assert [one["code"] for one in place.dead()] == ["gzip_corrupt"]
    place.hec.script(Behaviour("throttle", retry_after="3600", times=0))
    assert failed(invoke(event)) == [event["Records"][0]["kinesis"]["sequenceNumber"]]


def test_urgent_event(place: Place, invoke: Invoke) -> None:
    """EventBridge's event holds the trail's record: the same event id as from the trail."""
    detail = trail_record(3, MORNING, eventName="DeleteGuardrail")
    event = {
        "version": "0", "id": "36eb8523-97d0-4518-b33d-ee3579ff19f0", "detail-type": "AWS API Call via CloudTrail",
        "source": "aws.bedrock", "account": ACCOUNT, "time": "2026-11-23T09:00:00Z", "region": REGION, "resources": [],
        "detail": detail,
    }  # fmt: skip
    assert invoke(event) == {"events": 1, "dead_letters": 0}
    key = f"AWSLogs/{ACCOUNT}/CloudTrail/us-east-1/2026/11/23/{ACCOUNT}_CloudTrail_us-east-1_20261123T0905Z_u.json.gz"
    place.objects.put(key, gzip.compress(json.dumps({"Records": [detail]}).encode()))
    invoke(one_message(place.objects.told(key)))
    first, second = place.hec.indexed()
    assert first.event_id == second.event_id


# --- what is nothing


@pytest.mark.parametrize("event", [{}, None, [], {"Records": []}, ""])
def test_empty_events(place: Place, invoke: Invoke, event: Any) -> None:
    assert invoke(event) in ({}, {"batchItemFailures": []})
    assert line(invoke)["Failures"] == 0


@pytest.mark.parametrize(
    "event", [{"hello": 1}, [1], "text", {"Records": [{"eventSource": "aws:dynamodb"}]}, {"Records": [1]}]
)
def test_unknown_events_are_refused(place: Place, invoke: Invoke, event: Any) -> None:
    """Lambda keeps them in the failure destination: nothing of them is lost here."""
    with pytest.raises(ConfigError, match="no known shape"):
        invoke(event)
    assert line(invoke)["Failures.config"] == 1


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"AITRAIL_CONFIG": ""}, "no destination"),
        ({"AITRAIL_CONFIG": "[destinations.siem]\ntype = 'splunk'\nurls = []\ntoken = 'env:X'"}, "keeps no keys"),
        ({"AITRAIL_CONFIG": "[tenants.default]\ncontent = 'sealed'\nkey = 'env:X'"}, "needs a store"),
        ({"AITRAIL_DEAD_LETTER_BUCKET": ""}, "AITRAIL_DEAD_LETTER_BUCKET"),
        ({"AITRAIL_STATE_TABLE": ""}, "AITRAIL_STATE_TABLE"),
        ({"AITRAIL_MARGIN_SECONDS": "soon"}, "no number of seconds"),
    ],
    ids=["empty", "no-key", "sealed", "no-bucket", "no-table", "margin"],
)
def test_wrong_set_up(
    place: Place, start: Callable[..., None], invoke: Invoke, monkeypatch: pytest.MonkeyPatch,
    change: dict[str, str], match: str,
) -> None:  # fmt: skip
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=match):
        invoke(one_message(place.objects.told("AWSLogs/x")))
    assert line(invoke)["Failures.config"] == 1
    assert line(invoke)["Stack"] == "test"
