"""The AWS sources against a moto server, from the service to the event: layouts, roles, bodies, proofs, permissions.

Moto answers as AWS does for what is asked here; it checks no permissions, so refusals come from the gate before it.
"""

import gzip
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from aitrail.runtime.cli import cli
from aitrail.sources._aws_settings import CloudWatchSettings, LookupSettings, S3Settings, S3SqsSettings, SqsSettings
from aitrail.sources._sqs_queue import Queue
from aitrail.sources.cloudtrail_lookup import LookupSource
from aitrail.sources.cloudwatch_logs import CloudWatchSource
from aitrail.sources.s3_bucket import S3Source
from aitrail.sources.s3_sqs import S3SqsSource
from aitrail.sources.sqs_messages import SqsSource
from aitrail.testing.aws_flow import (
    ACCOUNT,
    MORNING,
    Flow,
    ManualClock,
    event_id,
    invocation_record,
    json_line,
    trail_record,
)
from aitrail.testing.aws_lookup import history
from aitrail.testing.aws_moto import Fault, Gate, aws_client, gate
from aitrail.testing.aws_place import AwsPlace, lines
from aitrail.testing.aws_trail import FINGERPRINT, Trail, public_der, public_pem

HOUR = 3_600
ROLE = f"arn:aws:iam::{ACCOUNT}:role/aitrail-reader"


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


def bucket(place: AwsPlace, flow: Flow, url: str = "", **changes: Any) -> S3Source:
    options = S3Settings(bucket=place.bucket, endpoint_url=url or place.url, **changes)
    return S3Source(options, name="bucket", clock=flow.clock, key=b"k")


def queue(place: AwsPlace, flow: Flow, url: str = "", **changes: Any) -> S3SqsSource:
    settings = {"wait_seconds": 0, **changes}
    options = S3SqsSettings(
        queue_urls=(place.queue,), buckets=(place.bucket,), endpoint_url=url or place.url, **settings
    )
    return S3SqsSource(options, name="trail", clock=flow.clock, key=b"k")


def test_organisation_trails_of_many_accounts_and_regions_with_a_choice(place: AwsPlace, flow: Flow) -> None:
    written = {}
    for number, (account, region) in enumerate(
        [(ACCOUNT, "us-east-1"), (ACCOUNT, "eu-west-1"), ("444455556666", "us-east-1")]
    ):
        key = (
            f"logs/AWSLogs/o-a1b2c3d4e5/{account}/CloudTrail/{region}/2026/11/23/"
            f"{account}_CloudTrail_{region}_20261123T0855Z_{number}.json.gz"
        )
        written[account, region] = event_id(number)
        place.put(key, gzip.compress(json.dumps({"Records": [trail_record(number, MORNING)]}).encode()))
    place.put("logs/AWSLogs/o-a1b2c3d4e5/CloudTrail-Insight/x.json.gz", b"no trail")
    flow.run(bucket(place, flow, prefix="logs/", accounts=(ACCOUNT,), regions=("eu-west-1",)))
    assert flow.ids() == {written[ACCOUNT, "eu-west-1"]}
    source = bucket(place, flow, prefix="logs/")
    assert source.check() == []
    assert source.survey(flow.spool.cursors("bucket")).objects == 2
    flow.run(source)
    assert flow.ids() == set(written.values())


def test_ranges_and_backfill(place: AwsPlace, flow: Flow) -> None:
    for hour in range(-30, 1, 5):
        place.log(2, minute=hour * 60 - 10)
    source = bucket(place, flow)
    flow.run(source.ranged(MORNING - 21 * HOUR, MORNING - 14 * HOUR))
    times = sorted({event.timestamp for event in flow.events})
    assert "2026-11-22T12" < times[0] < "2026-11-22T13"
    assert times[-1] < "2026-11-22T22"
    flow.run(bucket(place, flow, start="2026-11-23"))
    assert len(flow.ids()) < len(place.expected)
    flow.run(S3Source(S3Settings(bucket=place.bucket, endpoint_url=place.url), name="all", clock=flow.clock, key=b"k"))
    flow.verdict(place.expected, "all of it")


def test_invocation_logs_with_offloaded_bodies(place: AwsPlace, flow: Flow) -> None:
    root = f"AWSLogs/{ACCOUNT}/BedrockModelInvocationLogs/us-east-1"
    request = {"messages": [{"role": "user", "content": "a very long question"}]}
    answer = {"content": [{"type": "text", "text": "a very long answer"}], "stop_reason": "end_turn"}
    place.put(f"{root}/2026/11/23/08/data/call_input.json.gz", gzip.compress(json_line(request)))
    place.put(f"{root}/2026/11/23/08/data/call_output.json.gz", gzip.compress(json_line(answer)))
    place.put(f"AWSLogs/{ACCOUNT}/BedrockModelInvocationLogs/amazon-bedrock-logs-permission-check", b"x")
    sides = {
        "input": {"inputContentType": "application/json", "inputTokenCount": 9,
                  "inputBodyS3Path": f"s3://{place.bucket}/{root}/2026/11/23/08/data/call_input.json.gz"},
        "output": {"outputContentType": "application/json", "outputTokenCount": 4,
                   "outputBodyS3Path": f"s3://{place.bucket}/{root}/2026/11/23/08/data/call_output.json.gz"},
    }  # fmt: skip
    rows = [invocation_record(1, MORNING), invocation_record(2, MORNING, **sides)]
    place.put(f"{root}/2026/11/23/08/20261123T085000000Z_ab.json.gz", lines(rows))
    other = Flow(Path(str(flow.spool.database.directory) + "-closed"), flow.clock)
    other.run(bucket(place, other, layout="bedrock"))
    closed = {event.source_event_id: event for event in other.events}
    assert "body_offloaded" in closed["call-00000002"].flags
    assert not closed["call-00000002"].prompt_text
    other.close()
    flow.run(bucket(place, flow, layout="bedrock", body_buckets=(place.bucket,)))
    opened = {event.source_event_id: event for event in flow.events}
    assert "a very long question" in (opened["call-00000002"].prompt_text or "")
    assert "a very long answer" in (opened["call-00000002"].response_text or "")
    assert "body_offloaded" not in opened["call-00000002"].flags
    assert "question 1" in (opened["call-00000001"].prompt_text or "")
    assert flow.run(bucket(place, flow, layout="bedrock")).records == 0
    small = bucket(place, flow, layout="bedrock", body_buckets=(place.bucket,), body_bytes=16)
    origin, _, rest = opened["call-00000002"].source_ref.partition("#offset=")
    position, _, index = rest.partition("&record=")
    assert b"inputBodyS3Path" in (small.reread(origin, int(position), 0, int(index)) or b"")
    whole = bucket(place, flow, layout="bedrock", body_buckets=(place.bucket,))
    assert b"a very long question" in (whole.reread(origin, int(position), 0, int(index)) or b"")


def test_data_capture_of_endpoints_and_flat_prefixes(place: AwsPlace, flow: Flow) -> None:
    # A flat layout goes by change times, which the server stamps by the machine's clock.
    flow.clock.time = time.time()
    row = {
        "captureData": {
            "endpointInput": {"observedContentType": "text/csv", "mode": "INPUT", "data": "1,2", "encoding": "CSV"},
            "endpointOutput": {"observedContentType": "text/csv", "mode": "OUTPUT", "data": "0.9", "encoding": "CSV"},
        },
        "eventMetadata": {"eventId": "capture-1", "inferenceTime": "2026-11-23T09:00:00Z"},
        "eventVersion": "0",
    }
    place.put("capture/churn/AllTraffic/2026/11/23/09/00-00-000-a.jsonl", json_line(row) + b"\n")
    flow.run(bucket(place, flow, layout="sagemaker", prefix="capture/"))
    assert [(event.source_event_id, event.model) for event in flow.events] == [("capture-1", "churn")]
    for number in range(5):
        place.put(f"any/{number}.json", json_line(trail_record(number, MORNING)))
    flat = {"layout": "flat", "prefix": "any/"}
    flow.run(bucket(place, flow, **flat))
    place.put("any/0.json", json_line(trail_record(0, MORNING)) + b"\n" + json_line(trail_record(9, MORNING)))
    totals = flow.run(bucket(place, flow, **flat))
    assert (totals.objects, totals.new, totals.duplicates) == (1, 1, 1), "only what changed is read again"
    flow.verdict([*(event_id(n) for n in (0, 1, 2, 3, 4, 9)), "capture-1"], "flat")


def test_other_keys_of_a_bucket_are_told_and_read_by_content(place: AwsPlace, flow: Flow) -> None:
    place.put("exports/day one+more.json", json_line(trail_record(1, MORNING)))
    place.put("elsewhere/x.json", json_line(trail_record(2, MORNING)))
    place.send(place.told("exports/day+one%2Bmore.json"), place.told("elsewhere/x.json"))
    place.drained(lambda: flow.run(queue(place, flow, prefixes=("exports/",))))
    assert flow.ids() == {event_id(1)}


def test_roles_are_assumed_with_external_id_and_renewed(place: AwsPlace, flow: Flow, fence: Gate) -> None:
    place.send(place.told(place.log(10)))
    asked: list[str] = []
    fence.on_call = asked.append
    # Moto keeps accounts apart: the role is of the account that the queue is in.
    role = {
        "role_arn": "arn:aws:iam::123456789012:role/aitrail-reader",
        "external_id": "acme-7",
        "session_name": "aitrail-test",
    }
    source = queue(place, flow, fence.url, **role)
    place.drained(lambda: flow.run(source))
    assert asked[0] == "AssumeRole"
    assert asked.count("AssumeRole") == 1, "and kept until they are about to end"
    assert fence.identities[0] == "AKIAIOSFODNN7EXAMPLE"
    assert all(identity.startswith("ASIA") for identity in fence.identities[1:]), "everything else as the role"
    place.send(place.told(place.log(10, minute=1)))
    fence.faults = [Fault("ReceiveMessage", "ExpiredToken", 400)]
    place.drained(lambda: flow.run(source))
    assert asked.count("AssumeRole") == 2
    flow.verdict(place.expected, "assumed role")
    fence.faults = [Fault("AssumeRole", "AccessDenied", 403, 9)]
    for problem in queue(place, flow, fence.url, **role).check():
        assert "the role cannot be assumed" in problem
        assert f"allow sts:AssumeRole on {role['role_arn']} for this identity" in problem


def test_credentials_of_a_role_that_are_about_to_end_are_renewed_mid_run(
    place: AwsPlace, flow: Flow, fence: Gate
) -> None:
    for minute in range(4):
        place.send(place.told(place.log(10, minute=minute)))
    # 15 minutes are the least that AWS gives, and botocore renews what has no more left: before every call.
    source = queue(
        place, flow, fence.url, role_arn="arn:aws:iam::123456789012:role/aitrail-reader", session_seconds=900
    )
    place.drained(lambda: flow.run(source))
    assert fence.calls.count("AssumeRole") > 2
    assert len({one for one in fence.identities if one.startswith("ASIA")}) > 2
    flow.verdict(place.expected, "renewed mid-run")


def test_many_accounts_and_regions_are_polled_each_with_its_own_cursor(flow: Flow, fence: Gate) -> None:
    roles = (ROLE, "arn:aws:iam::444455556666:role/aitrail-reader")
    with history(flow.clock) as trail:
        source = LookupSource(
            LookupSettings(
                roles=roles,
                regions=("us-east-1", "eu-west-1"),
                endpoint_urls={"cloudtrail": trail.url, "sts": fence.url},
            ),
            name="history",
            clock=flow.clock,
            key=b"k",
        )
        flow.run(source)
        assert trail.calls == 4
        assert fence.calls == ["AssumeRole"] * 2
        assert source.check() == []
    cursors = {key for key, _ in flow.spool.cursors("history").items()}
    assert cursors == {f"lookup/{a}/{r}" for a in (ACCOUNT, "444455556666") for r in ("us-east-1", "eu-west-1")}


def test_the_collector_records_the_verdict_of_every_log_file(place: AwsPlace, flow: Flow, tmp_path: Path) -> None:
    keys = tmp_path / "keys.pem"
    keys.write_bytes(public_pem())
    trail = Trail(lambda key, body, metadata: void(place.put(key, body, metadata)), place.bucket)
    good, changed, gone, late = [
        trail.log([trail_record(number, MORNING)], MORNING + number * 60) for number in range(4)
    ]
    verify = {"verify_digests": True, "public_keys": str(keys)}
    flow.run(bucket(place, flow, **verify))
    origin = f"s3://{place.bucket}/"
    assert flow.attested() == {origin + one.key: "unverified" for one in (good, changed, gone, late)}
    assert len(flow.events) == 4
    place.put(changed.key, gzip.compress(b'{"Records":[]}'))
    place.s3.delete_object(Bucket=place.bucket, Key=gone.key)
    place.put(late.key, gzip.compress(late.text, 9, mtime=7))
    digest = trail.digest([good, changed, gone, late], MORNING + HOUR)
    source = bucket(place, flow, **verify)
    flow.run(source)
    attested = flow.attested()
    assert attested[origin + good.key] == "valid"
    assert attested[origin + changed.key] == "mismatch"
    assert attested[origin + gone.key] == "missing"
    # Packed anew it is another object with the same records: valid, and read again.
    assert attested[origin + late.key] == "valid"
    assert attested[origin + digest] == "valid"
    assert source.gaps == 0
    assert len(flow.events) == 4
    place.s3.delete_object(Bucket=place.bucket, Key=digest)
    trail.digest([], MORNING + 2 * HOUR)
    flow.clock.time = MORNING + 3 * HOUR
    flow.run(source)
    assert source.gaps == 1, "the digest before is not there any more"
    assert flow.attested()[origin + digest] == "missing"
    assert any("the digest is missing" in note for note in source.notes)


def void(_: object) -> None:
    """For callbacks that must return nothing."""


def test_digests_told_by_notification_give_the_verdicts(place: AwsPlace, flow: Flow) -> None:
    trail = Trail(lambda key, body, metadata: void(place.put(key, body, metadata)), place.bucket)
    with history(flow.clock) as service:
        service.public_keys = {FINGERPRINT: public_der()}
        options = {"verify_digests": True, "endpoint_urls": {"cloudtrail": service.url}}
        log = trail.log([trail_record(1, MORNING)], MORNING)
        place.send(place.told(log.key))
        place.drained(lambda: flow.run(queue(place, flow, **options)))
        digest = trail.digest([log], MORNING + HOUR)
        place.send(place.told(digest))
        place.drained(lambda: flow.run(queue(place, flow, **options)))
        origin = f"s3://{place.bucket}/"
        assert flow.attested() == {origin + log.key: "valid", origin + digest: "valid"}
        assert queue(place, flow, **options).check()[0].endswith("instead of coming again")
    place.send(place.told(digest))
    place.drained(lambda: flow.run(queue(place, flow)))
    assert flow.dead() == [], "without verify_digests a digest is no record"


def test_the_verify_command_reads_a_bucket(place: AwsPlace, tmp_path: Path) -> None:
    trail = Trail(lambda key, body, metadata: void(place.put(key, body, metadata)), place.bucket, prefix="logs/")
    first = trail.log([trail_record(1, MORNING)], MORNING)
    trail.digest([first], MORNING + HOUR)
    trail.digest([trail.log([], MORNING + HOUR)], MORNING + 2 * HOUR)
    (tmp_path / "keys.pem").write_bytes(public_pem())
    command = [
        "cloudtrail", "verify", "--bucket", place.bucket, "--prefix", "logs/", "--account", ACCOUNT,
        "--endpoint-url", place.url, "--public-keys", str(tmp_path / "keys.pem"),
    ]  # fmt: skip
    good = CliRunner().invoke(cli, command)
    assert (good.exit_code, good.output) == (0, "digests: 2 valid\nlog files: 2 valid\n")
    place.s3.delete_object(Bucket=place.bucket, Key=first.key)
    bad = CliRunner().invoke(cli, command)
    assert bad.exit_code == 1
    assert f"missing   log    {first.key}" in bad.output


CHECKS: dict[str, tuple[str, str]] = {
    "GetObject": ("AccessDenied", "grant s3:GetObject (and kms:Decrypt on the object's key"),
    "ListObjectsV2": ("AccessDenied", "grant s3:ListBucket on arn:aws:s3:::"),
    "GetQueueAttributes": ("AccessDenied", "grant sqs:GetQueueAttributes on arn:aws:sqs:us-east-1:123456789012:"),
    "FilterLogEvents": (
        "AccessDeniedException",
        "grant logs:FilterLogEvents on arn:aws:logs:us-east-1:*:log-group:/g:*",
    ),
    "LookupEvents": ("AccessDeniedException", "grant cloudtrail:LookupEvents on CloudTrail in us-east-1"),
}


@pytest.mark.parametrize("operation", CHECKS)
def test_check_names_the_missing_permission(place: AwsPlace, flow: Flow, fence: Gate, operation: str) -> None:
    code, expected = CHECKS[operation]
    place.log(1)
    fence.faults = [Fault(operation, code, 403, 99)]
    sources = {
        "GetObject": lambda: [bucket(place, flow, fence.url), queue(place, flow, fence.url)],
        "ListObjectsV2": lambda: [bucket(place, flow, fence.url)],
        "GetQueueAttributes": lambda: [
            queue(place, flow, fence.url),
            SqsSource(SqsSettings(queue_urls=(place.queue,), endpoint_url=fence.url), name="q", clock=flow.clock),
        ],
        "FilterLogEvents": lambda: [
            CloudWatchSource(CloudWatchSettings(log_groups=("/g",), endpoint_url=fence.url), name="c", clock=flow.clock)
        ],
        "LookupEvents": lambda: [LookupSource(LookupSettings(endpoint_url=fence.url), name="h", clock=flow.clock)],
    }
    for source in sources[operation]():
        assert any(expected in problem for problem in source.check()), source.check()
        source.close()


def test_check_without_credentials_and_with_wrong_names(
    place: AwsPlace, flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = S3Source(
        S3Settings(bucket="no-such-bucket-here", endpoint_url=place.url), name="b", clock=flow.clock, key=b"k"
    )
    [problem] = wrong.check()
    assert "NoSuchBucket" in problem
    assert problem.endswith("create the bucket, or correct its name in the settings")
    assert "holds nothing" in bucket(place, flow, prefix="nothing/").check()[0]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    [problem] = bucket(place, flow).check()
    assert problem.startswith("no AWS credentials are found")
    for source in (bucket(place, flow, profile="nobody"), queue(place, flow, profile="nobody")):
        [problem] = source.check()
        assert "ProfileNotFound" in problem


def test_a_configuration_collects_from_a_queue(place: AwsPlace, tmp_path: Path) -> None:
    place.send(place.told(place.log(20)))
    path = tmp_path / "aitrail.toml"
    path.write_text(
        f"""
[sources.trail]
type = "s3_sqs"
queue_urls = ["{place.queue}"]
buckets = ["{place.bucket}"]
endpoint_url = "{place.url}"
wait_seconds = 0

[sources.again]
type = "s3"
bucket = "{place.bucket}"
endpoint_url = "{place.url}"
"""
    )
    done = CliRunner().invoke(cli, ["run", "--once", "-c", str(path)])
    assert done.exit_code == 0, done.output
    assert place.waiting() == (0, 0)
    rows = CliRunner().invoke(
        cli,
        ["query", "--store", str(tmp_path / "aitrail-store"), "--format", "json",
         "select count(*) as n, count(distinct event_id) as d from events"],
    )  # fmt: skip
    assert rows.exit_code == 0, rows.output
    assert '"n":20' in rows.output.replace(" ", "")
    assert '"d":20' in rows.output.replace(" ", "")


def test_moto_is_what_is_asked() -> None:
    """The fakes are real servers: a client of AWS's own SDK talks to them."""
    assert aws_client("sts").get_caller_identity()["Account"] == "123456789012"
