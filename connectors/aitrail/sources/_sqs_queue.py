"""One SQS queue: receive, keep hidden while it is worked on, delete what is durable.

A receipt is ``[queue URL, receipt handle]`` as JSON: everything that a later ``acknowledge`` needs.
"""

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from aitrail.clock import Clock
from aitrail.errors import AuthError, TransientError
from aitrail.sources._aws_calls import Aws

_MOST = 10  # messages of one receive, delete or extension (SQS quota)
_ATTRIBUTES = ["ApproximateReceiveCount", "SentTimestamp"]
_receipt = msgspec.json.Decoder(tuple[str, str]).decode
_encode = msgspec.json.Encoder().encode


class Message(Struct, frozen=True, gc=False):
    """One received message: ``received`` counts how often it was, ``sent`` is in epoch seconds."""

    id: str
    body: str
    handle: str
    received: int
    sent: float


class Queue:
    """A queue by its URL."""

    def __init__(self, aws: Aws, url: str, region: str, clock: Clock, *, wait: int, visibility: int) -> None:
        self.url = url
        self.region = region_of(url) or region
        self.name = url.rstrip("/").rpartition("/")[2]
        self._aws = aws
        self._clock = clock
        self._wait = wait
        self._visibility = visibility
        self._held: dict[str, float] = {}

    @property
    def arn(self) -> str:
        """Its ARN, as permissions name it (the account is in the URL)."""
        return f"arn:aws:sqs:{self.region}:{self.url.rstrip('/').split('/')[-2]}:{self.name}"

    def receive(self, *, wait: bool) -> list[Message]:
        """Receive up to ten messages; ``wait`` for the first one as configured."""
        answer = self._call(
            "receive_message",
            MaxNumberOfMessages=_MOST,
            WaitTimeSeconds=self._wait if wait else 0,
            VisibilityTimeout=self._visibility,
            MessageSystemAttributeNames=_ATTRIBUTES,
        )
        now = self._clock.monotonic()
        found = []
        for one in answer.get("Messages", []):
            attributes = one.get("Attributes", {})
            found.append(
                Message(
                    one["MessageId"],
                    one["Body"],
                    one["ReceiptHandle"],
                    int(attributes.get("ApproximateReceiveCount", 1)),
                    int(attributes.get("SentTimestamp", 0)) / 1_000,
                )
            )
            self._held[one["ReceiptHandle"]] = now
        return found

    def receipt(self, message: Message) -> str:
        """What ``acknowledge`` takes for this message."""
        return _encode((self.url, message.handle)).decode()

    def keep(self) -> None:
        """Hide the messages that are worked on for longer, when half of their time is over.

        A failure is harmless: the message may come again, and its events are known then.
        """
        now = self._clock.monotonic()
        due = [handle for handle, since in self._held.items() if now - since >= self._visibility / 2]
        for entries in _tens(due):
            try:
                self._call(
                    "change_message_visibility_batch",
                    Entries=[
                        {"Id": str(number), "ReceiptHandle": handle, "VisibilityTimeout": self._visibility}
                        for number, handle in enumerate(entries)
                    ],
                )
            except (TransientError, AuthError):
                continue
            for handle in entries:
                self._held[handle] = now

    def release(self, message: Message) -> None:
        """Work on this message ended without success: it comes back when its time is over."""
        self._held.pop(message.handle, None)

    def give_back(self, message: Message) -> None:
        """Nobody has worked on this message: it may come again at once."""
        self._held.pop(message.handle, None)
        with contextlib.suppress(TransientError, AuthError):
            self._call("change_message_visibility", ReceiptHandle=message.handle, VisibilityTimeout=0)

    def delete(self, handles: Sequence[str]) -> int:
        """Delete messages and give how many were not: their handle is too old, they come again."""
        failed = 0
        for entries in _tens(handles):
            answer = self._call(
                "delete_message_batch",
                Entries=[{"Id": str(number), "ReceiptHandle": handle} for number, handle in enumerate(entries)],
            )
            failed += len(answer.get("Failed", []))
            for handle in entries:
                self._held.pop(handle, None)
        return failed

    def problems(self) -> list[str]:
        """What is wrong with the queue, as far as its attributes say."""
        answer = self._call("get_queue_attributes", AttributeNames=["RedrivePolicy", "SqsManagedSseEnabled"])
        if "RedrivePolicy" in answer.get("Attributes", {}):
            return []
        fix = "give it a redrive policy (maxReceiveCount 5 or more), so that a message that cannot be worked on is set "
        return [f"{self.url}: has no dead-letter queue: {fix}aside instead of coming again"]

    def _call(self, operation: str, **parameters: Any) -> Any:
        return self._aws.call("sqs", self.region, operation, self.arn, QueueUrl=self.url, **parameters)


def acknowledge(queues: Sequence[Queue], receipts: Sequence[str]) -> None:
    """Delete the messages of these receipts.

    Raises:
        TransientError, AuthError: some were not deleted and come again.
    """
    handles: dict[str, list[str]] = defaultdict(list)
    for receipt in receipts:
        url, handle = _receipt(receipt)
        handles[url].append(handle)
    failed = 0
    for queue in queues:
        if queue.url in handles:
            failed += queue.delete(handles[queue.url])
    if failed:
        raise TransientError(f"{failed} of {len(receipts)} messages could not be deleted; they come again")


def region_of(url: str) -> str:
    """The region in a queue's URL (``https://sqs.REGION.amazonaws.com/ACCOUNT/NAME``); empty in other URLs."""
    parts = url.removeprefix("https://").partition("/")[0].split(".")
    return parts[1] if parts[0] == "sqs" and len(parts) > 3 else ""


def _tens(items: Sequence[str]) -> Iterator[Sequence[str]]:
    for at in range(0, len(items), _MOST):
        yield items[at : at + _MOST]
