"""A Lambda function that is killed at any point loses nothing, and repeats at most the batch that was in flight.

The test is the platform: it hands over what the queue gives, starts a run when the schedule says so, and deletes
messages as the answer says. The process dies of SIGKILL: three times of four at the next point (before and after each
call to AWS or the destination, one after the other), else at a random moment. 120 kills in all.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aitrail.testing.aws_flow import invocation_record
from aitrail.testing.aws_moto import aws_client
from aitrail.testing.lambda_place import Place, subscription

WORKER = Path(__file__).with_name("lambda_worker.py")
# Records of one object or log group: one commit, since a commit is due at 15.
IN_FLIGHT = 20


class Function:
    """The function under test; ``kills`` counts processes that died of it."""

    def __init__(self, environment: dict[str, str], seed: int) -> None:
        self.kills = 0
        self._random = random.Random(seed)
        self._turn = self._point = 0
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **environment},
        )  # fmt: skip
        assert self._read() == "ready"

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line, "the worker is gone"
        return line

    def invoke(self, event: dict[str, Any], *, kill: bool, later: float = 0.0) -> dict[str, Any] | None:
        """One invocation; None when it was killed in time."""
        assert self._process.stdin is not None
        self._turn += kill
        at_random = kill and self._turn % 4 == 0
        self._point += kill and not at_random
        request = {"event": event, "seconds": 30.0, "later": later, "die": self._point if kill and not at_random else 0}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        child = int(self._read())
        if at_random:
            time.sleep(self._random.uniform(0.0, 0.1))
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        answer: dict[str, Any] | None = json.loads(self._read())["answer"]
        self.kills += answer is None
        if answer is not None and kill and not at_random:
            self._point = 0  # it has no more points: from the first one again
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        assert self._process.wait(30) == 0
        self._process.stdout.close()


@contextlib.contextmanager
def function(place: Place, seed: int, config: str = "") -> Iterator[Function]:
    one = Function(place.environment(config or place.config(batch_events=20)), seed)
    try:
        yield one
    finally:
        one.close()


@pytest.fixture
def place() -> Iterator[Place]:
    one = Place()
    yield one
    one.close()


def lost_and_repeated(place: Place, expected: list[str]) -> tuple[list[str], int]:
    arrived = Counter(place.arrived())
    return [one for one in expected if one not in arrived], sum(arrived.values()) - len(arrived)


def test_queue_reader(place: Place) -> None:
    """50 kills while objects of a queue are read."""
    with function(place, 1) as one:
        rounds = 0
        while one.kills < 50:
            event = place.batch()
            if not event["Records"]:
                for _ in range(4):
                    place.objects.send(place.objects.told(place.objects.log(IN_FLIGHT)))
                continue
            rounds += 1
            assert rounds < 500, "no run is ever killed"
            place.settle(event, one.invoke(event, kill=True))
        while (event := place.batch())["Records"]:
            place.settle(event, one.invoke(event, kill=False))
    lost, repeated = lost_and_repeated(place, place.objects.expected)
    assert not lost
    assert 0 < repeated <= one.kills * IN_FLIGHT
    assert not place.dead()


def test_scheduled_poller(place: Place) -> None:
    """50 kills while log groups are polled; the cursors and the lease lie in DynamoDB."""
    logs = aws_client("logs")
    groups = ["/bedrock/kills/a", "/bedrock/kills/b", "/bedrock/kills/c"]
    for group in groups:
        logs.create_log_group(logGroupName=group)
        logs.create_log_stream(logGroupName=group, logStreamName="one")
    more = f'[sources.calls]\ntype = "cloudwatch_logs"\nlog_groups = {json.dumps(groups)}\n'
    expected: list[str] = []
    began = time.time() - 600

    def write(group: str) -> None:
        rows = range(len(expected), len(expected) + IN_FLIGHT)
        messages = [json.dumps(invocation_record(row, began)) for row in rows]
        at = int(began * 1_000)
        entries = [{"timestamp": at + row, "message": one} for row, one in zip(rows, messages, strict=True)]
        logs.put_log_events(logGroupName=group, logStreamName="one", logEvents=entries)
        expected.extend(f"call-{row:08d}" for row in rows)

    with function(place, 2, place.config(more, batch_events=20)) as one:
        later, rounds = 0.0, 0
        answer: dict[str, Any] | None = {}
        while one.kills < 50:
            if answer is not None:
                for group in groups:
                    write(group)
            rounds += 1
            assert rounds < 500, "no run is ever killed"
            answer = one.invoke({"aitrail": "poll"}, kill=True, later=later)
            assert answer is None or answer["sources"]["calls"] == "complete", answer
            later += 60.0  # the schedule; a killed run's lease has ended by then
        answer = one.invoke({"aitrail": "poll"}, kill=False, later=later)
        assert answer == {"sources": {"calls": "complete"}}
    lost, repeated = lost_and_repeated(place, expected)
    assert not lost
    assert 0 < repeated <= one.kills * IN_FLIGHT
    assert not place.dead()


def test_subscription(place: Place) -> None:
    """20 kills of what CloudWatch Logs pushes: the platform hands the same event over again."""
    expected: list[str] = []
    with function(place, 3) as one:
        number = 0
        while one.kills < 20:
            assert number < 400, "no run is ever killed"
            rows = [invocation_record(number * 50 + row, 1_795_424_400.0) for row in range(50)]
            expected += [row["requestId"] for row in rows]
            event = {"awslogs": {"data": subscription(rows)}}
            if one.invoke(event, kill=True) is None:
                assert one.invoke(event, kill=False) == {"events": 50, "dead_letters": 0}
            number += 1
    lost, repeated = lost_and_repeated(place, expected)
    assert not lost
    assert repeated <= one.kills * 50
