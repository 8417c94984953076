"""An event hub for tests: the SDK's own client and event processor, with a made-up AMQP link below them.

No Event Hubs emulator runs without containers. So everything of azure-eventhub is the real thing - load balancing,
ownership and checkpoints in a real blob store, positions, callbacks, threads - except the link that receives messages
and the two management calls; those are here. Messages are made from the SDK's AMQP message class, so that offsets,
sequence numbers and bodies take the way that they take from the wire.
"""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from azure.eventhub import EventData, EventHubConsumerClient
from azure.eventhub._pyamqp.message import Message
from azure.eventhub.exceptions import EventHubError

HOST = "acme.servicebus.windows.net"
_IDLE_SECONDS = 0.01


class Partition:
    """What one partition holds: (sequence number, enqueued at, body); removed from its beginning by retention."""

    def __init__(self) -> None:
        self.events: list[tuple[int, float, bytes]] = []
        self.next = 0


class Hub:
    """An event hub.

    Attributes:
        errors: by partition, what its next receives raise; "" stands for the management calls.
    """

    def __init__(self, partitions: int) -> None:
        self._lock = threading.Lock()
        self._partitions = {str(number): Partition() for number in range(partitions)}
        self.errors: dict[str, list[Exception]] = {}
        self.clients: list[FakeClient] = []

    def send(self, partition: int, bodies: Sequence[bytes], at: float = 0.0) -> None:
        """Append messages."""
        with self._lock:
            one = self._partitions[str(partition)]
            for body in bodies:
                one.events.append((one.next, at or time.time(), body))
                one.next += 1

    def expire(self, partition: int, before: int) -> None:
        """Remove the messages before a sequence number, as retention does."""
        with self._lock:
            one = self._partitions[str(partition)]
            one.events = [event for event in one.events if event[0] >= before]

    def recreate(self) -> None:
        """Delete the hub and make it again, empty."""
        with self._lock:
            for name in self._partitions:
                self._partitions[name] = Partition()

    def ids(self) -> list[str]:
        """The partitions."""
        self.fail("")
        return list(self._partitions)

    def properties(self, partition: str) -> dict[str, Any]:
        """What the management call tells."""
        self.fail("")
        with self._lock:
            one = self._partitions[partition]
            first = one.events[0][0] if one.events else one.next
            return {
                "id": partition,
                "is_empty": not one.events,
                "beginning_sequence_number": first,
                "last_enqueued_sequence_number": one.next - 1,
                "last_enqueued_offset": offset_of(one.next - 1),
            }

    def after(self, partition: str, position: Any, count: int) -> list[tuple[int, float, bytes]]:
        """Messages behind a position, as the service selects them."""
        with self._lock:
            one = self._partitions[partition]
            if isinstance(position, datetime):
                return [event for event in one.events if event[1] > position.timestamp()][:count]
            if position == "@latest":
                raise AssertionError("the source must never ask for @latest")
            sequence = -1 if position == "-1" else int(position) // 64
            if sequence >= one.next:
                error = EventHubError(f"The supplied offset '{position}' is invalid.")
                error.error = "argument-out-of-range"
                raise error
            return [event for event in one.events if event[0] > sequence][:count]

    def fail(self, partition: str) -> None:
        """Raise what was planned for this place."""
        planned = self.errors.get(partition)
        if planned:
            raise planned.pop(0)


def offset_of(sequence: int) -> str:
    """Offsets are bytes in a log: they grow, but not by one."""
    return str(sequence * 64)


class FakeConsumer:
    """The link of one partition, in the place of ``azure.eventhub._consumer.EventHubConsumer``."""

    def __init__(self, hub: Hub, partition: str, position: Any, on_event_received: Callable[[Any], None]) -> None:
        self.stop = False
        self._hub, self._partition, self._position = hub, partition, position
        self._on_event_received = on_event_received

    def receive(self, batch: bool, max_batch_size: int, max_wait_time: float | None) -> None:
        """Give the next messages to the callback, or nothing after a wait."""
        del max_wait_time
        assert batch
        self._hub.fail(self._partition)
        found = self._hub.after(self._partition, self._position, max_batch_size)
        if not found:
            time.sleep(_IDLE_SECONDS)
        else:
            self._position = offset_of(found[-1][0])
        self._on_event_received([event_of(*one) for one in found])

    def close(self) -> None:
        """End."""


def event_of(sequence: int, at: float, body: bytes) -> EventData:
    """A message as the SDK makes it of what comes over the wire."""
    annotations = {
        b"x-opt-sequence-number": sequence,
        b"x-opt-offset": offset_of(sequence).encode(),
        b"x-opt-enqueued-time": int(at * 1_000),
    }
    half = len(body) // 2
    return EventData._from_message(Message(data=[body[:half], body[half:]], message_annotations=annotations))  # type: ignore[arg-type]  # noqa: SLF001


class Credential:
    """Gives a token that nobody looks at."""

    def get_token(self, *scopes: str, **more: Any) -> Any:
        """Give a token."""
        del scopes, more
        raise AssertionError("no connection is made")


class FakeClient(EventHubConsumerClient):
    """The SDK's client with a made-up link below its event processor."""

    hub: Hub

    def _create_consumer(
        self,
        consumer_group: str,
        partition_id: str,
        event_position: Any,
        on_event_received: Callable[..., None],
        **kwargs: Any,
    ) -> Any:
        del consumer_group
        assert kwargs["event_position_inclusive"] is False
        return FakeConsumer(self.hub, partition_id, event_position, on_event_received)

    def get_partition_ids(self) -> list[str]:
        """As the management call."""
        return self.hub.ids()

    def get_partition_properties(self, partition_id: str) -> dict[str, Any]:
        """As the management call."""
        return self.hub.properties(partition_id)


def client_of(hub: Hub) -> type[FakeClient]:
    """A client class whose instances are connected to ``hub``."""
    return type("Client", (FakeClient,), {"hub": hub})


def enqueued(text: str) -> float:
    """Epoch seconds of a time."""
    return datetime.fromisoformat(text).astimezone(UTC).timestamp()
