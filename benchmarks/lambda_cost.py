"""What a Lambda function costs: CPU milliseconds per 1,000 events through the real handler, and the price of a million.

A moto server and a Splunk HEC peer run in this process; the handler runs in another one, whose CPU time is what counts.
Objects are read, normalized, classified, encoded, sent and remembered as in an account. Usage:

    python benchmarks/lambda_cost.py [--objects 40] [--events 300]
"""

import argparse
import gzip
import json
import os
import subprocess
import sys
from typing import Any

from aitrail.testing.aws_flow import ACCOUNT, MORNING, invocation_record
from aitrail.testing.lambda_place import Place, queue_event

# AWS Lambda pricing page, us-east-1, first tier, USD; a processor is 1,769 MB of memory (developer guide).
GB_SECOND = {"arm64": 0.0000133334, "x86_64": 0.0000166667}
REQUEST = 0.20 / 1e6
PROCESSOR_MB = 1_769
MEMORY_MB = 1_024  # the template's default
# A call to S3, DynamoDB or the destination within a region, for what the function waits.
WAIT_MS = 20.0

CHILD = """
import json, os, sys, time
from aitrail.runtime import aws_lambda
from aitrail.testing.lambda_place import Context
from aitrail.sources._aws_calls import Aws
calls = 0
call = Aws.call
def counted(self, *a, **k):
    global calls
    calls += 1
    return call(self, *a, **k)
Aws.call = counted
events = json.load(sys.stdin)
cold = time.process_time()
aws_lambda.handler(events[0], Context(600.0))
cold = time.process_time() - cold
calls = 0
began, wall = time.process_time(), time.perf_counter()
for event in events[1:]:
    assert aws_lambda.handler(event, Context(600.0)) == {"batchItemFailures": []}
print(json.dumps([cold, time.process_time() - began, time.perf_counter() - wall, calls]))
"""


def write(place: Place, kind: str, number: int, events: int) -> str:
    if kind == "cloudtrail":
        return place.objects.log(events, minute=number % 300)
    rows = [invocation_record(number * events + row, MORNING) for row in range(events)]
    key = f"AWSLogs/{ACCOUNT}/BedrockModelInvocationLogs/us-east-1/2026/11/23/09/{number:06d}_calls.json.gz"
    return place.objects.put(key, gzip.compress(b"".join(json.dumps(row).encode() + b"\n" for row in rows)))


def measure(kind: str, objects: int, events: int) -> dict[str, Any]:
    place = Place()
    try:
        keys = [write(place, kind, number, events) for number in range(objects + 1)]
        tens = [keys[:1], *(keys[at : at + 10] for at in range(1, len(keys), 10))]
        handed = [queue_event([(key[-30:], place.objects.told(key), key) for key in some]) for some in tens]
        done = subprocess.run(
            [sys.executable, "-c", CHILD], input=json.dumps(handed), capture_output=True, text=True, check=True,
            env={**os.environ, **place.environment()},
        )  # fmt: skip
        cold, cpu, wall, calls = json.loads(done.stdout.splitlines()[-1])
        total = objects * events
        assert len(set(place.hec.received())) == total + events
        requests = place.hec.traffic.requests
    finally:
        place.close()
    return {
        "kind": kind, "events": total, "cold_ms": cold * 1e3, "cpu_ms_per_1000": cpu / total * 1e6,
        "wall_ms_per_1000": wall / total * 1e6, "calls_per_1000": (calls + requests) / total * 1e3,
    }  # fmt: skip


def price(found: dict[str, Any], arch: str) -> tuple[float, float]:
    """USD per million events: of the work itself, and with waiting and requests."""
    gb = MEMORY_MB / 1_024
    share = min(1.0, MEMORY_MB / PROCESSOR_MB)
    working = found["cpu_ms_per_1000"] / share * gb * GB_SECOND[arch]  # ms per 1,000 are s per million
    waiting = found["calls_per_1000"] * WAIT_MS * gb * GB_SECOND[arch]
    invocations = 1e6 / (10 * 300) * REQUEST
    return working, working + waiting + invocations


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--objects", type=int, default=40)
    parser.add_argument("--events", type=int, default=300)
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}")
    for kind in ("cloudtrail", "bedrock"):
        found = measure(kind, options.objects, options.events)
        print(
            " ".join(
                f"{name}={value:.1f}" if isinstance(value, float) else f"{name}={value}"
                for name, value in found.items()
            )
        )
        for arch in GB_SECOND:
            working, whole = price(found, arch)
            print(f"  {arch}: {working:.5f} USD of work, {whole:.5f} USD with waiting and requests, per million events")


if __name__ == "__main__":
    main()
