"""What a function of AWS Lambda lives with, for tests: its table, bucket, queue and destination, and Lambda's own part.

``Place`` is the account, as ``deploy/aws/template.yaml`` makes it, on a moto server; the destination is a Splunk HTTP
Event Collector for tests. What the platform does with an answer (which messages it deletes) is done here, too.
"""

import base64
import gzip
import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from aitrail.testing.aws_flow import ACCOUNT
from aitrail.testing.aws_moto import KEY, REGION, SECRET, aws_client
from aitrail.testing.aws_place import AwsPlace
from aitrail.testing.hec_peer import HecPeer

_numbers = itertools.count(1)
TENANT_KEY = "0123456789abcdef0123456789abcdef"  # documentation value


class Context(Struct):
    """What Lambda tells of an invocation; time begins when it is made."""

    seconds: float = 60.0
    aws_request_id: str = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"
    function_name: str = "aitrail-test"
    began: float = 0.0

    def __post_init__(self) -> None:
        self.began = self.began or time.monotonic()

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the invocation is ended."""
        return max(0, int((self.began + self.seconds - time.monotonic()) * 1_000))


class Place:
    """An account with a function's surroundings.

    Attributes:
        objects: the bucket and queue that the function reads.
        hec: the destination.
        table, dead_bucket: the function's own.
    """

    def __init__(self, url: str = "") -> None:
        """Make everything; ``url`` is what the function calls AWS at (a gate), else the server itself."""
        number = next(_numbers)
        self.objects = AwsPlace()
        self.hec = HecPeer()
        self.url = url or self.objects.url
        self.table, self.dead_bucket = f"aitrail-state-{number}", f"aitrail-dead-letters-{number}"
        self.s3, self.sqs, self.dynamodb = aws_client("s3"), aws_client("sqs"), aws_client("dynamodb")
        self.dynamodb.create_table(
            TableName=self.table, BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": one, "AttributeType": "S"} for one in "ps"],
            KeySchema=[{"AttributeName": "p", "KeyType": "HASH"}, {"AttributeName": "s", "KeyType": "RANGE"}],
        )  # fmt: skip
        self.s3.create_bucket(Bucket=self.dead_bucket)
        # A slow machine must not get a message twice.
        self.sqs.set_queue_attributes(QueueUrl=self.objects.queue, Attributes={"VisibilityTimeout": "3600"})

    def close(self) -> None:
        """Let go of the destination."""
        self.hec.close()

    def config(self, more: str = "", **destination: Any) -> str:
        """The configuration: the queue's source, and whatever else."""
        settings = {"urls": [self.hec.address["url"]], "plain_http": True, "token": "env:HEC_TOKEN", **destination}
        lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in settings.items())
        return (
            f'[tenants.default]\nkey = "env:TENANT_KEY"\n'
            f'[sources.trail]\ntype = "s3_sqs"\nqueue_urls = ["{self.objects.queue}"]\n'
            f'buckets = ["{self.objects.bucket}"]\nregion = "{REGION}"\n'
            f'[destinations.siem]\ntype = "splunk"\n{lines}\n{more}\n'
        )

    def environment(self, config: str = "", **more: str) -> dict[str, str]:
        """What the template sets, and the credentials that Lambda gives."""
        token = Path(self.hec.address["token_file"]).read_text(encoding="utf-8")
        return {
            "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION, "AWS_ENDPOINT_URL": self.url, "AITRAIL_STATE_TABLE": self.table,
            "AITRAIL_DEAD_LETTER_BUCKET": self.dead_bucket, "AITRAIL_STACK": "test", "AITRAIL_MARGIN_SECONDS": "1",
            "AITRAIL_CONFIG": config or self.config(), "HEC_TOKEN": token, "TENANT_KEY": TENANT_KEY, **more,
        }  # fmt: skip

    def dead(self) -> list[dict[str, Any]]:
        """All dead letters, in the order of their objects' names."""
        found: list[dict[str, Any]] = []
        for item in self.s3.list_objects_v2(Bucket=self.dead_bucket).get("Contents", []):
            body = self.s3.get_object(Bucket=self.dead_bucket, Key=item["Key"])["Body"].read()
            found += [json.loads(line) for line in gzip.decompress(body).splitlines()]
        return found

    def arrived(self) -> list[str]:
        """Upstream ids of everything that the destination has, in order, with repeats."""
        return [json.loads(one.body)["source_event_id"] for one in self.hec.indexed()]

    def batch(self, most: int = 10) -> dict[str, Any]:
        """What the event source mapping hands over: messages as Lambda gives them; empty when the queue is."""
        answer = self.sqs.receive_message(
            QueueUrl=self.objects.queue, MaxNumberOfMessages=most, MessageSystemAttributeNames=["All"]
        )
        name = self.objects.queue.rpartition("/")[2]
        messages = [(one["MessageId"], one["Body"], one["ReceiptHandle"]) for one in answer.get("Messages", [])]
        return queue_event(messages, name)

    def settle(self, event: Mapping[str, Any], answer: Mapping[str, Any] | None) -> int:
        """Do what Lambda does with an answer (None: the function died); gives how many messages were deleted."""
        failed = {one["itemIdentifier"] for one in (answer or {}).get("batchItemFailures", [])}
        done = 0
        for record in event["Records"]:
            if answer is not None and record["messageId"] not in failed:
                self.sqs.delete_message(QueueUrl=self.objects.queue, ReceiptHandle=record["receiptHandle"])
                done += 1
            else:
                self.sqs.change_message_visibility(
                    QueueUrl=self.objects.queue, ReceiptHandle=record["receiptHandle"], VisibilityTimeout=0
                )
        return done


def queue_event(messages: Sequence[tuple[str, str, str]], queue: str = "notifications") -> dict[str, Any]:
    """An SQS event (Lambda developer guide, "Using Lambda with Amazon SQS") of (id, body, receipt handle)."""
    return {
        "Records": [
            {
                "messageId": ident, "receiptHandle": handle, "body": body,
                "attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": "1795424400000",
                               "SenderId": "AIDAIENQZJOLO23YVJ4VO",
                               "ApproximateFirstReceiveTimestamp": "1795424400001"},
                "messageAttributes": {}, "md5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3", "eventSource": "aws:sqs",
                "eventSourceARN": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue}", "awsRegion": REGION,
            }
            for ident, body, handle in messages
        ]
    }  # fmt: skip


def subscription(rows: Sequence[Mapping[str, Any]], group: str = "/aws/bedrock/invocations") -> str:
    """What a subscription filter pushes, packed: the text of ``awslogs.data``."""
    payload = {
        "messageType": "DATA_MESSAGE", "owner": ACCOUNT, "logGroup": group, "logStream": "aws/bedrock/modelinvocations",
        "subscriptionFilters": ["aitrail"],
        "logEvents": [
            {"id": f"{number:056d}", "timestamp": 1_795_424_400_000 + number, "message": json.dumps(row)}
            for number, row in enumerate(rows)
        ],
    }  # fmt: skip
    return base64.b64encode(gzip.compress(json.dumps(payload).encode())).decode()


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for ``condition``; a test that waits in vain fails."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("waited in vain")
        time.sleep(0.01)
