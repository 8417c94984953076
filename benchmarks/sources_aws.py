"""The AWS sources' speed, from a local server to the outbox, and what their overlap costs.

    python benchmarks/sources_aws.py            all figures (under a minute)

Events per second are per CPU second of the collecting process; the server (moto for S3, SQS and CloudWatch Logs) runs
in a process of its own. The fake of LookupEvents runs beside the reader, whose thread alone is counted. "Wall" is bound
by the servers: moto takes half a second for one ReceiveMessage. The classifier is the real one. Overlap is the share of
events that were read again although they were known.
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")

import gzip
import json
import random

from aitrail.classify.default import DefaultClassifier
from aitrail.ports import Source
from aitrail.sources._aws_settings import CloudWatchSettings, LookupSettings, S3Settings, S3SqsSettings, SqsSettings
from aitrail.sources.cloudtrail_lookup import LookupSource
from aitrail.sources.cloudwatch_logs import CloudWatchSource
from aitrail.sources.s3_bucket import S3Source
from aitrail.sources.s3_sqs import S3SqsSource
from aitrail.sources.sqs_messages import SqsSource
from aitrail.testing.aws_flow import ACCOUNT, MORNING, Flow, ManualClock, event_id, invocation_record, trail_record
from aitrail.testing.aws_lookup import HistoryEvent, history
from aitrail.testing.aws_moto import aws_client

PORT = 5_599
CLASSIFIER = DefaultClassifier()


def measured(
    make: Callable[[ManualClock], Source], clock: ManualClock, cpu: Callable[[], float]
) -> tuple[int, float, float]:
    """Run one source into a fresh spool: events, CPU seconds, wall seconds."""
    with TemporaryDirectory() as directory:
        flow = Flow(Path(directory), clock, CLASSIFIER)
        source = make(clock)
        before, started = cpu(), time.perf_counter()
        totals = flow._pipeline(source).run()  # noqa: SLF001 - without counting what arrived
        used, took = cpu() - before, time.perf_counter() - started
        flow.close()
    return totals.new, used, took


def row(name: str, result: tuple[int, float, float]) -> None:
    count, used, took = result
    print(f"| {name} | {count:,} | {count / used:,.0f} | {count / took:,.0f} |", flush=True)


def s3_figures(url: str, objects: int, records: int) -> None:
    s3, sqs = aws_client("s3", url), aws_client("sqs", url)
    s3.create_bucket(Bucket="acme-trail")
    queue = sqs.create_queue(QueueName="notifications")["QueueUrl"]
    for number in range(objects):
        minute = f"20261123T08{number % 60:02d}Z_{number:08d}"
        key = f"AWSLogs/{ACCOUNT}/CloudTrail/us-east-1/2026/11/23/{ACCOUNT}_CloudTrail_us-east-1_{minute}.json.gz"
        rows = [trail_record(number * records + place, MORNING - 3_000) for place in range(records)]
        s3.put_object(Bucket="acme-trail", Key=key, Body=gzip.compress(json.dumps({"Records": rows}).encode(), 1))
        told = {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "acme-trail"}, "object": {"key": key}}}
        sqs.send_message(QueueUrl=queue, MessageBody=json.dumps({"Records": [told]}))
    common: dict[str, Any] = {"endpoint_url": url, "wait_seconds": 0}
    by_queue = S3SqsSettings(queue_urls=(queue,), buckets=("acme-trail",), **common)
    name = f"{objects} objects of {records} records"
    row(
        f"`s3_sqs`, {name}",
        measured(lambda clock: S3SqsSource(by_queue, name="a", clock=clock), ManualClock(), time.process_time),
    )
    by_list = S3Settings(bucket="acme-trail", endpoint_url=url)
    row(
        f"`s3`, {name}",
        measured(lambda clock: S3Source(by_list, name="b", clock=clock), ManualClock(), time.process_time),
    )


def sqs_figures(url: str, messages: int) -> None:
    sqs = aws_client("sqs", url)
    queue = sqs.create_queue(QueueName="records")["QueueUrl"]
    for at in range(0, messages, 10):
        entries = [
            {"Id": str(place), "MessageBody": json.dumps(trail_record(at + place, MORNING))} for place in range(10)
        ]
        sqs.send_message_batch(QueueUrl=queue, Entries=entries)
    options = SqsSettings(queue_urls=(queue,), endpoint_url=url, wait_seconds=0)
    row(
        "`sqs`, one record a message",
        measured(lambda clock: SqsSource(options, name="c", clock=clock), ManualClock(), time.process_time),
    )


def cloudwatch_figures(url: str, events: int) -> None:
    logs = aws_client("logs", url)
    now = time.time()
    logs.create_log_group(logGroupName="/bedrock")
    logs.create_log_stream(logGroupName="/bedrock", logStreamName="s")
    for at in range(0, events, 1_000):
        rows = [invocation_record(number, now - 600) for number in range(at, at + 1_000)]
        batch = [{"timestamp": int((now - 600) * 1_000), "message": json.dumps(one)} for one in rows]
        logs.put_log_events(logGroupName="/bedrock", logStreamName="s", logEvents=batch)
    options = CloudWatchSettings(log_groups=("/bedrock",), endpoint_url=url)
    row(
        "`cloudwatch_logs`, invocation log",
        measured(lambda clock: CloudWatchSource(options, name="d", clock=clock), ManualClock(now), time.process_time),
    )


def lookup_figures(events: int) -> None:
    clock = ManualClock()
    with history(clock) as trail:
        trail.events = [
            HistoryEvent(
                event_id(n), MORNING - 3_000 + n // 4, 0, json.dumps(trail_record(n, MORNING - 3_000 + n // 4))
            )
            for n in range(events)
        ]
        options = LookupSettings(endpoint_url=trail.url)
        result = measured(lambda clock: LookupSource(options, name="e", clock=clock), clock, time.thread_time)
        row("`cloudtrail_lookup`, without its limit", result)


def overlap(per_hour: int, hours: int) -> None:
    """A steady stream with delays like CloudTrail's (1 to 7 minutes, 2 % an hour), polled every 5 minutes."""
    clock, dice = ManualClock(), random.Random(1)
    with history(clock) as trail, TemporaryDirectory() as directory:
        for number in range(per_hour * hours):
            at = MORNING + number * 3_600 / per_hour
            delay = 3_600 if dice.random() < 0.02 else dice.uniform(60, 420)
            trail.events.append(HistoryEvent(event_id(number), at, at + delay, json.dumps(trail_record(number, at))))
        flow = Flow(Path(directory), clock)
        source = LookupSource(LookupSettings(endpoint_url=trail.url), name="e", clock=clock, key=b"k")
        started = clock.time
        while clock.time < MORNING + hours * 3_600 + 7_200:
            flow.run(source)
            clock.time = max(clock.time, started + 300)
            started = clock.time
        lost = len(trail.events) - len(flow.ids())
        tally = source.tally
        flow.close()
    share, reads = tally.again / tally.read, tally.read / (per_hour * hours)
    print(f"| {per_hour:,} | {tally.read:,} | {share:.0%} | {reads:.1f} | {trail.throttled} | {lost} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="size of everything")
    scale = parser.parse_args().scale
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(PORT)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{PORT}"
    try:
        _until_up(url)
        print(
            f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()},"
        )
        print(f"load average {os.getloadavg()[0]:.1f}\n")
        print("| source | events | events/s per core | events/s wall |\n|---|---:|---:|---:|")
        s3_figures(url, int(20 * scale), 1_000)
        sqs_figures(url, int(400 * scale) // 10 * 10)
        cloudwatch_figures(url, max(1, int(5 * scale)) * 1_000)
    finally:
        server.terminate()
        server.wait()
    lookup_figures(int(3_000 * scale))
    print("\n| events an hour | read | known already | reads per event | throttled | lost |")
    print("|---:|---:|---:|---:|---:|---:|")
    for per_hour in (60, 300):
        overlap(per_hour, 6)


def _until_up(url: str) -> None:
    for _ in range(300):
        try:
            aws_client("s3", url).list_buckets()
        except Exception:  # noqa: BLE001 - whatever it is, it is not up yet
            time.sleep(0.1)
        else:
            return
    raise SystemExit("the moto server does not start")


if __name__ == "__main__":
    main()
