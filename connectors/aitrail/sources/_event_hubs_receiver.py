"""The SDK's event processor in a thread, and a bounded queue between it and whoever fetches.

The processor shares out partitions with other collectors (ownership blobs), renews its ownership and reconnects. Here
is only what it does not do: hold back while nobody fetches, tell one ownership of a partition from the next, and end.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

_WAIT_SECONDS = 0.5
_BATCH = 300
_JOIN_SECONDS = 30.0
_SETTLED_SECONDS = 1.0
_ROUNDS = 2
QUEUED = 16
"""Batches that wait at most: what is read ahead of a crash is read again, so it is kept small."""


class Came(Struct, frozen=True):
    """Events of one partition, as one callback brought them; ``epoch`` is the ownership under which they came."""

    partition: str
    epoch: int
    events: Sequence[Any]


class Receiver:
    """Runs ``client.receive_batch`` until it is closed.

    Args:
        client: ``EventHubConsumerClient``; closed with the receiver.
        positions: where to begin per partition without a checkpoint: an offset or a time.
        prefetch: as the SDK's.
        partitions: how many the hub has.
        balance_seconds: how often partitions are shared out; after two rounds without a change no more are expected.
        partitions: all there are.

    Attributes:
        moved: a partition was given up since the start; without a shared store the processor would begin it anew at
            its first position.
    """

    def __init__(
        self, client: Any, positions: Mapping[str, Any], prefetch: int, partitions: int, balance_seconds: float
    ) -> None:
        self._client = client
        self._partitions = partitions
        self._settled = max(_SETTLED_SECONDS, _ROUNDS * balance_seconds)
        self._changed = time.monotonic()
        self._lock = threading.Lock()
        self._epochs: dict[str, int] = {}
        self._last_epoch = 0
        self._quiet: set[str] = set()
        self._came: queue.Queue[Came] = queue.Queue(QUEUED)
        self._errors: list[Exception] = []
        self._stopped = threading.Event()
        self.moved = False
        self._thread = threading.Thread(
            target=self._run, args=(dict(positions), prefetch), name="aitrail-event-hubs", daemon=True
        )
        self._thread.start()

    def next(self, seconds: float) -> Came | None:
        """What came from a partition that is still ours; None when nothing did within ``seconds``."""
        with contextlib.suppress(queue.Empty):
            while True:
                came = self._came.get(timeout=seconds)
                if self.owns(came.partition, came.epoch):
                    return came
        return None

    def owns(self, partition: str, epoch: int) -> bool:
        """Whether the partition is ours by the same ownership."""
        with self._lock:
            return self._epochs.get(partition) == epoch

    def owned(self) -> set[str]:
        """The partitions that are ours now."""
        with self._lock:
            return set(self._epochs)

    def at_ends(self) -> bool:
        """Whether every partition that is ours said that it has no more for now, and no more are about to be ours."""
        with self._lock:
            if not self._epochs or not self._quiet >= self._epochs.keys() or not self._came.empty():
                return False
            return len(self._epochs) >= self._partitions or time.monotonic() - self._changed >= self._settled

    def error(self) -> Exception | None:
        """The oldest error that was not told yet."""
        with self._lock:
            return self._errors.pop(0) if self._errors else None

    @property
    def running(self) -> bool:
        """Whether the processor still works."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Give the partitions back, so that others get them at once, and end the thread."""
        self._stopped.set()
        with contextlib.suppress(Exception):  # a connection that is gone cannot be closed properly
            self._client.close()
        self._thread.join(_JOIN_SECONDS)

    # -- called by the processor's threads

    def _run(self, positions: dict[str, Any], prefetch: int) -> None:
        try:
            self._client.receive_batch(
                on_event_batch=self._on_batch,
                on_error=self._on_error,
                on_partition_initialize=self._on_initialize,
                on_partition_close=self._on_close,
                starting_position=positions,
                max_batch_size=_BATCH,
                max_wait_time=_WAIT_SECONDS,
                prefetch=prefetch,
            )
        except Exception as error:  # noqa: BLE001 - told to whoever fetches
            self._on_error(None, error)

    def _epoch(self, partition: str) -> int:
        """The ownership of a partition; the first event may come before the processor says that it is ours."""
        with self._lock:
            if partition not in self._epochs:
                self._last_epoch += 1
                self._epochs[partition] = self._last_epoch
                self._changed = time.monotonic()
            return self._epochs[partition]

    def _on_initialize(self, context: Any) -> None:
        self._epoch(context.partition_id)

    def _on_close(self, context: Any, reason: Any) -> None:
        del reason
        with self._lock:
            self._epochs.pop(context.partition_id, None)
            self._quiet.discard(context.partition_id)
            self.moved = True

    def _on_batch(self, context: Any, events: Sequence[Any]) -> None:
        partition = context.partition_id
        epoch = self._epoch(partition)
        if not events:
            with self._lock:
                self._quiet.add(partition)
            return
        with self._lock:
            self._quiet.discard(partition)
        came = Came(partition, epoch, events)
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                self._came.put(came, timeout=0.2)
                return

    def _on_error(self, context: Any, error: Exception) -> None:
        del context
        with self._lock:
            if len(self._errors) < 100:
                self._errors.append(error)
