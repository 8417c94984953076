"""One thread per source that only reads: a long poll or a slow service never holds up the others.

The thread hands batches over through a short queue and goes on when there is room: the committing writer sets the
pace. It also tells the source what is durable, between two batches: a source is used by its own thread alone.
"""

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence

from msgspec import Struct

from aitrail.errors import AuthError, TransientError
from aitrail.pipeline import Progress
from aitrail.ports import Acknowledging, Budget, RawBatch, Source

# Batches that wait for the writer: one to work on and one behind it keep both sides busy.
_ROOM = 2


class Turn(Struct):
    """One call of ``fetch``."""

    number: int
    cursors: Progress
    budget: Budget


class Ended(Struct):
    """The end of a turn: what stopped it, if anything did; ``cut``: we broke it off, so it tells nothing."""

    error: BaseException | None = None
    cut: bool = False


class Feed:
    """Reads one source in a thread of its own.

    Args:
        source: used by the thread alone, from ``start`` on.
        wake: called when there is something to take.

    Attributes:
        acknowledged, unacknowledged: receipts that the source took, and that it could not take, since last asked.
    """

    def __init__(self, source: Source, wake: Callable[[], None]) -> None:
        self.source = source
        self.acknowledged = 0
        self.unacknowledged = 0
        self._wake = wake
        self._turns: queue.SimpleQueue[Turn | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._items: deque[tuple[int, RawBatch | Ended]] = deque()
        self._receipts: deque[Sequence[str]] = deque()
        self._current = 0
        self._closed_turn = 0
        self._ending = False
        self._thread = threading.Thread(target=self._run, name=f"read-{source.name}", daemon=True)

    # --- called by the writer

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def begin(self, cursors: Progress, budget: Budget) -> None:
        """Start a turn; only when none is open."""
        self._current += 1
        self._turns.put(Turn(self._current, cursors, budget))

    def take(self) -> RawBatch | Ended | None:
        """Give what the source gave, in its order; None when there is nothing now."""
        with self._changed:
            while self._items:
                number, item = self._items.popleft()
                self._changed.notify_all()
                if number == self._current:
                    return item
        return None

    def durable(self, receipts: Sequence[str]) -> None:
        """These batches are durable: the source is told before its next batch, or at the end of the turn."""
        if receipts:
            self._receipts.append(receipts)

    def end(self) -> None:
        """The turn's batches are committed: let the thread tell the source, and then wait for the next turn."""
        with self._changed:
            self._closed_turn = self._current
            self._changed.notify_all()

    def cancel(self) -> None:
        """Break the turn off: what it gave and still gives is dropped, and comes again."""
        with self._changed:
            self._items.clear()
            self._receipts.clear()
            self._current += 1
            self._closed_turn = self._current
            self._changed.notify_all()

    def stop(self) -> None:
        """No further batch is asked for; what was given can still be taken."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        self._turns.put(None)

    def join(self, seconds: float) -> bool:
        """Wait for the thread; False when it still hangs in a call of its source."""
        if self._thread.ident is not None:
            self._thread.join(max(0.0, seconds))
        return not self._thread.is_alive()

    # --- the thread

    def _run(self) -> None:
        while (turn := self._turns.get()) is not None and not self._ending:
            self._turn(turn)
        close = getattr(self.source, "close", None)
        if close is not None:
            with contextlib.suppress(Exception):  # what it has given is settled; there is nobody left to tell
                close()

    def _turn(self, turn: Turn) -> None:
        try:
            ended = Ended(cut=not self._fetch(turn))
        except Exception as caught:  # noqa: BLE001  (the writer decides what it means)
            ended = Ended(caught)
        self._put(turn.number, ended, always=True)
        with self._changed:
            self._changed.wait_for(lambda: self._closed_turn >= turn.number or self._ending)
        self._tell()

    def _fetch(self, turn: Turn) -> bool:
        """Hand over what the source gives; False when it was broken off."""
        batches = self.source.fetch(turn.cursors, turn.budget)
        try:
            for batch in batches:
                turn.cursors.advance(batch)
                if not self._put(turn.number, batch):
                    return False
                self._tell()
        finally:
            close = getattr(batches, "close", None)
            if close is not None:
                close()
        return True

    def _put(self, number: int, item: RawBatch | Ended, *, always: bool = False) -> bool:
        with self._changed:
            self._changed.wait_for(
                lambda: always or len(self._items) < _ROOM or number != self._current or self._ending
            )
            if number != self._current or (self._ending and not always):
                return False
            self._items.append((number, item))
        self._wake()
        return True

    def _tell(self) -> None:
        """Tell the source what is durable; a failure is harmless: it comes again and is recognised."""
        source = self.source
        while self._receipts:
            receipts = self._receipts.popleft()
            if not isinstance(source, Acknowledging):
                continue
            try:
                source.acknowledge(receipts)
            except (TransientError, AuthError):
                self.unacknowledged += len(receipts)
            else:
                self.acknowledged += len(receipts)
