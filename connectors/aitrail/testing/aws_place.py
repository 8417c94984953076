"""A bucket and a queue of the moto server, with what a trail puts into them."""

import contextlib
import gzip
import itertools
import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import botocore.exceptions

from aitrail.sources._sqs_queue import Message, Queue
from aitrail.testing.aws_flow import ACCOUNT, MORNING, event_id, trail_record
from aitrail.testing.aws_moto import REGION, aws_client, moto_url

_numbers = itertools.count(1)


class AwsPlace:
    """One bucket and one queue, of their own for every test.

    Attributes:
        url: the server.
        expected: upstream ids of all records that were written.
    """

    def __init__(self, region: str = REGION) -> None:
        number = next(_numbers)
        self.url = moto_url()
        self.region = region
        self.bucket = f"acme-trail-{number}"
        self.s3, self.sqs = aws_client("s3"), aws_client("sqs", region=region)
        self.s3.create_bucket(Bucket=self.bucket)
        self.queue = self.sqs.create_queue(QueueName=f"notifications-{number}")["QueueUrl"]
        self.expected: list[str] = []
        self.handles: list[str] = []
        self._undo: Callable[[], None] = lambda: None
        self._count = 0

    def put(self, key: str, body: bytes, metadata: dict[str, str] | None = None, bucket: str = "") -> str:
        """Write an object."""
        self.s3.put_object(Bucket=bucket or self.bucket, Key=key, Body=body, Metadata=metadata or {})
        return key

    def log(self, records: int, *, minute: int = 0, region: str = REGION, account: str = ACCOUNT, tag: str = "") -> str:
        """Write one log file of some records, delivered ``minute`` minutes after nine; returns its key."""
        when = MORNING + minute * 60
        moment = datetime.fromtimestamp(when, UTC)
        key = (
            f"AWSLogs/{account}/CloudTrail/{region}/{moment:%Y/%m/%d}/{account}_CloudTrail_{region}_"
            f"{moment:%Y%m%dT%H%MZ}_{tag}{self._count:016x}.json.gz"
        )
        numbers = range(self._count, self._count + records)
        self._count += records
        self.expected += [event_id(number) for number in numbers]
        rows = [trail_record(number, when - number % 400) for number in numbers]
        return self.put(key, gzip.compress(json.dumps({"Records": rows}).encode(), 1))

    def told(self, *keys: str, bucket: str = "") -> str:
        """An S3 event notification for these keys."""
        return json.dumps(
            {
                "Records": [
                    {
                        "eventVersion": "2.1",
                        "eventSource": "aws:s3",
                        "eventName": "ObjectCreated:Put",
                        "s3": {"bucket": {"name": bucket or self.bucket}, "object": {"key": key, "size": 1_000}},
                    }
                    for key in keys
                ]
            }
        )

    def send(self, *bodies: str) -> None:
        """Put messages into the queue."""
        for body in bodies:
            self.sqs.send_message(QueueUrl=self.queue, MessageBody=body)

    def waiting(self) -> tuple[int, int]:
        """How many messages can be received now, and how many are hidden."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=names)["Attributes"]
        return int(found[names[0]]), int(found[names[1]])

    def reveal(self) -> None:
        """End the time for which messages are hidden: what a crashed process held can be received again now."""
        for handle in self.handles:
            with contextlib.suppress(botocore.exceptions.ClientError):  # deleted meanwhile, or received again
                self.sqs.change_message_visibility(QueueUrl=self.queue, ReceiptHandle=handle, VisibilityTimeout=0)
        self.handles.clear()

    def drained(self, turn: Callable[[], Any], most: int = 20) -> int:
        """Let ``turn`` run until the queue is empty; returns how many turns it took."""
        for number in range(1, most + 1):
            turn()
            if self.waiting() == (0, 0):
                return number
            self.reveal()
        raise AssertionError(f"the queue does not get empty: {self.waiting()}")

    def watch(self, queue: type[Queue]) -> None:
        """Note the handle of every message of this queue that any ``queue`` receives; undone by ``unwatch``."""
        receive, url, handles = queue.receive, self.queue, self.handles

        def noted(one: Queue, *, wait: bool) -> list[Message]:
            found = receive(one, wait=wait)
            if one.url == url:
                handles.extend(message.handle for message in found)
            return found

        queue.receive = noted  # type: ignore[assignment,method-assign]
        self._undo = lambda: setattr(queue, "receive", receive)

    def unwatch(self) -> None:
        """End ``watch``."""
        self._undo()


def lines(rows: Iterable[dict[str, Any]]) -> bytes:
    """JSON lines, packed."""
    return gzip.compress(b"".join(json.dumps(row).encode() + b"\n" for row in rows), 1)
