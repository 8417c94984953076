"""The store as the pages see it: a few open connections on one fresh snapshot, and what was asked before.

Opening a connection costs tens of milliseconds and throws away what DuckDB remembers of the files; so connections are
kept while the store stays as it is. Whether it does is looked up at most once a second.
"""

import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import duckdb

from aitrail.clock import Clock
from aitrail.errors import AitrailError, StoreError
from aitrail.event import ContentMode
from aitrail.store.reader import Snapshot, StoreReader
from aitrail.store.sandbox import GuardedConnection, QueryError
from aitrail.streams import Health

T = TypeVar("T")

FRESH_SECONDS = 1.0
QUERY_SECONDS = 20.0
# The state of the collector is part of a connection, and changes though the store does not.
_LONGEST_SECONDS = 60.0
_CONNECTIONS = 2
_SPARE_CONNECTIONS = 1
_REMEMBERED = 512


_NARROWER = "choose a shorter range, or narrow it with a filter"


class TooMuchError(AitrailError):
    """A question took longer, or more memory, than a page may take."""


class _Pool:
    """Connections of one reader, each made for one snapshot and used by one question at a time."""

    def __init__(self, reader: StoreReader, seats: int) -> None:
        self.reader = reader
        self._seats = threading.BoundedSemaphore(seats)
        self._idle: queue.SimpleQueue[tuple[int, GuardedConnection]] = queue.SimpleQueue()

    @contextmanager
    def borrowed(self, snapshot: Snapshot, generation: int) -> Iterator[GuardedConnection]:
        """Give a connection on ``snapshot``; one whose question broke is not used again."""
        with self._seats:
            connection = self._take(generation) or self.reader.connect(snapshot)
            try:
                yield connection
            except BaseException as error:
                if isinstance(error, QueryError):
                    self._idle.put((generation, connection))
                else:
                    connection.close()
                raise
            self._idle.put((generation, connection))

    def _take(self, generation: int) -> GuardedConnection | None:
        while True:
            try:
                made, connection = self._idle.get_nowait()
            except queue.Empty:
                return None
            if made == generation:
                return connection
            connection.close()

    def close(self) -> None:
        """Close what is idle."""
        self._take(-1)


class Data:
    """Questions to one store, with content above the viewer's mode left out.

    Args:
        directory: the store.
        content: the viewer's content mode.
        threads: cores that one question may use; None: all.
        seconds: how long one may take.
        health: gives the present state of the collector.
    """

    def __init__(
        self,
        directory: Path,
        content: ContentMode,
        clock: Clock,
        *,
        threads: int | None = None,
        seconds: float = QUERY_SECONDS,
        health: Callable[[], Sequence[Health]] | None = None,
    ) -> None:
        self.directory = Path(directory)
        self.content: ContentMode = content
        self._clock = clock
        self._seconds = seconds
        lowered = StoreReader(directory, threads=threads, clock=clock, content=content, health=health)
        self._lowered = _Pool(lowered, _CONNECTIONS)
        self._whole = _Pool(StoreReader(directory, threads=threads, clock=clock), _SPARE_CONNECTIONS)
        self._mutex = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._looked = self._made = float("-inf")
        self._generation = 0
        self._answers: OrderedDict[Hashable, Any] = OrderedDict()

    # --- what there is

    def snapshot(self) -> Snapshot:
        """The store as of at most a second ago."""
        return self._current()[0]

    def newest(self) -> datetime | None:
        """Time of the newest event, naive UTC; None in an empty store."""
        latest = max((segment.last for segment in self.snapshot().events), default="")
        return datetime.fromisoformat(latest).replace(tzinfo=None) if latest else None

    def oldest(self) -> datetime | None:
        """Time of the oldest event, naive UTC; None in an empty store."""
        first = min((segment.first for segment in self.snapshot().events), default="")
        return datetime.fromisoformat(first).replace(tzinfo=None) if first else None

    def total(self) -> int:
        """How many events there are."""
        return sum(segment.events for segment in self.snapshot().events)

    def now(self) -> datetime:
        """Now, naive UTC, as the times of the store."""
        return datetime.fromtimestamp(self._clock.now(), UTC).replace(tzinfo=None)

    # --- questions

    def read(self, work: Callable[[GuardedConnection], T]) -> T:
        """Do ``work`` on a connection that sees no content above the viewer's mode.

        Raises:
            TooMuchError: it took too long.
            StoreError: the store cannot be read.
        """
        return self._ask(self._lowered, work)

    def whole(self, work: Callable[[GuardedConnection], T]) -> T:
        """Do ``work`` on a connection that sees everything: for what masks by itself before anything is shown."""
        return self._ask(self._whole, work)

    def remembered(self, key: Hashable, work: Callable[[GuardedConnection], T]) -> T:
        """As ``read``; the same question about the same snapshot is asked once."""
        _, generation = self._current()
        full = (generation, key)
        with self._mutex:
            if full in self._answers:
                self._answers.move_to_end(full)
                found: T = self._answers[full]
                return found
        answer = self.read(work)
        with self._mutex:
            self._answers[full] = answer
            while len(self._answers) > _REMEMBERED:
                self._answers.popitem(last=False)
        return answer

    def close(self) -> None:
        """Give the connections back."""
        self._lowered.close()
        self._whole.close()

    def _ask(self, pool: _Pool, work: Callable[[GuardedConnection], T]) -> T:
        try:
            return self._once(pool, work)
        except duckdb.IOException:
            # A segment was compacted away between the look and the question.
            with self._mutex:
                self._snapshot = None
        try:
            return self._once(pool, work)
        except duckdb.IOException:
            hint = "`aitrail store check` lists what is missing; restore segments/ from a backup"
            raise StoreError(f"{self.directory}: a segment cannot be read", hint=hint) from None

    def _once(self, pool: _Pool, work: Callable[[GuardedConnection], T]) -> T:
        snapshot, generation = self._current()
        late = threading.Event()
        with pool.borrowed(snapshot, generation) as connection:

            def interrupt() -> None:
                late.set()
                connection.interrupt()

            timer = threading.Timer(self._seconds, interrupt)
            timer.daemon = True
            timer.start()
            try:
                return work(connection)
            except (duckdb.Error, AitrailError) as error:
                # DuckDB: "Out of Memory Error: ..."; nothing is spilled to disk.
                starved = "Out of Memory" in str(error)
                if not late.is_set() and not starved:
                    raise
                what = "needs too much memory" if starved else "took too long"
                raise TooMuchError(f"this question {what}", hint=_NARROWER) from None
            finally:
                timer.cancel()

    def _current(self) -> tuple[Snapshot, int]:
        with self._mutex:
            now = self._clock.monotonic()
            if self._snapshot is None or now - self._looked >= FRESH_SECONDS:
                found = self._lowered.reader.snapshot()
                self._looked = now
                if found != self._snapshot or now - self._made >= _LONGEST_SECONDS:
                    self._snapshot = found
                    self._made = now
                    self._generation += 1
                    self._answers.clear()
            return self._snapshot, self._generation
