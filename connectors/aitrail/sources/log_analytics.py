"""The Log Analytics source: tables of a workspace, read by when their rows came in.

Promise: every row of the tables is handed out at least once. The watermark is ``ingestion_time()``, never
``TimeGenerated``: rows come in late and out of order. A stretch is read again for a while after it was read, because a
row may be seen later than it came in; rows that were handed out are known by the hashes in the cursor and not handed
out again, and behind that by their event_id. An answer that the service calls partial counts as no answer: the stretch
is halved until every answer is whole. The cursor moves only behind stretches that were answered whole.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec

from aitrail.clock import Clock
from aitrail.errors import AitrailError
from aitrail.ports import Budget, Cursors, RawBatch, RawRecord, SecretResolver, Workload
from aitrail.sources._azure_identity import default_credential
from aitrail.sources._azure_start import EARLIEST, start_epoch
from aitrail.sources._caps import BATCH_BYTES, BATCH_RECORDS
from aitrail.sources._log_analytics_query import (
    TICKS,
    Answer,
    NoTableError,
    Row,
    Window,
    Workspace,
    literal,
    ticks_of,
)
from aitrail.sources._log_analytics_settings import LogAnalyticsSettings
from aitrail.sources._meter import Meter

_EARLIEST_DAYS = 30
_WIDE_EVERY = 1_800 * TICKS
_SMALLEST = TICKS // 100
_SLICES = 16
_MOST_SEEN = 20_000
_PRINT = 8
_MOST_NOTES = 1_000
# Tables whose rows are of one type; AzureDiagnostics holds several, told apart by their category.
_TYPES = {"ApiManagementGatewayLogs": "apim", "ApiManagementGatewayLlmLog": "apim"}


class TableCursor(msgspec.Struct, frozen=True, array_like=True):
    """How far one table was read.

    Attributes:
        until: ticks; everything that came in before was handed out, as far as it could be seen.
        wide: ticks; when a look went far back last.
        seen: for rows shortly before ``until``: 8 bytes of ticks and 8 of a keyed hash each, in their order.
    """

    v: int
    until: int
    wide: int
    seen: bytes = b""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(TableCursor).decode


class _Piece(msgspec.Struct):
    """Rows that were answered whole; ``end`` is the new watermark, 0 while slices of the same stretch follow."""

    rows: list[Row]
    end: int
    size: int
    lost: Window | None = None


class LogAnalyticsSource:
    """Reads tables; a ``ports.Source``.

    Attributes:
        notes: what the last fetch found worth telling.
        gaps: how often the service held rows back for good.
    """

    def __init__(
        self,
        settings: LogAnalyticsSettings,
        *,
        name: str,
        clock: Clock,
        key: bytes,
        secrets: SecretResolver | None = None,
        credential: Any = None,
        stretch: tuple[float, float] | None = None,
    ) -> None:
        """Describe the source; nothing is connected yet.

        Args:
            settings: which tables.
            name: the source's name.
            clock: time.
            key: secret of the hashes in cursors.
            secrets: not used: azure-identity finds its own.
            credential: instead of azure-identity's default chain.
            stretch: read only what came in then (epoch seconds); see ``ranged``.
        """
        del secrets
        self.name = name
        self.notes: list[str] = []
        self.gaps = 0
        self._settings, self._clock, self._key, self._credential = settings, clock, key, credential
        self._stretch = stretch
        self._begun = clock.now()
        self._workspace: Workspace | None = None
        self._step: dict[str, int] = {}

    # -- the port

    def survey(self, cursors: Cursors) -> Workload:
        """Count the tables; how much is in them is known only by reading."""
        del cursors
        return Workload(len(self._settings.tables), None)

    def fetch(self, cursors: Cursors, budget: Budget) -> Iterator[RawBatch]:
        """Yield what came in, table by table, oldest first.

        Raises:
            AuthError: the identity is refused or lacks a role.
            TransientError: the service does not answer or asks to wait.
        """
        self.notes = []
        meter = Meter(budget, self._clock)
        for table in self._settings.tables:
            if meter.spent:
                return
            try:
                yield from self._table(table, _read(cursors.get(table)), meter)
            except NoTableError as error:
                self._note(f"{error}; not read")

    def check(self) -> list[str]:
        """Say which table is missing and which role: asks each table for nothing."""
        problems: list[str] = []
        for table in self._settings.tables:
            try:
                self._connected().probe(table)
            except AitrailError as error:
                problems.append(f"{error}: {error.hint}")
                if not isinstance(error, NoTableError):
                    break  # it is the same for all tables
        self.close()
        return problems

    def reread(self, origin: str, position: int, end: int, index: int) -> bytes | None:
        """Fetch one row again by when it came in and its number among the rows of that moment; None when it is gone."""
        del end
        place, _, table = origin.rpartition("/")
        if place != self._origin("").rstrip("/") or table not in self._settings.tables:
            return None
        try:
            answer = self._ask(table, Window(position, position + 1))
        except AitrailError:
            return None
        rows = sorted(answer.rows, key=self._order)
        return rows[index].record if index < len(rows) else None

    def ranged(self, start: float, end: float) -> "LogAnalyticsSource":
        """A source that reads what came in from ``start`` until ``end``, and for ``late_days`` after it."""
        return LogAnalyticsSource(
            self._settings,
            name=self.name,
            clock=self._clock,
            key=self._key,
            credential=self._credential,
            stretch=(start, end + self._settings.late_days * 86_400.0),
        )

    def close(self) -> None:
        """Close connections."""
        workspace, self._workspace = self._workspace, None
        if workspace is not None:
            workspace.close()

    # -- one table

    def _table(self, table: str, cursor: TableCursor | None, meter: Meter) -> Iterator[RawBatch]:
        settings = self._settings
        now = ticks_of(self._clock.now() + (self._workspace.skew if self._workspace is not None else 0.0))
        target = now - ticks_of(settings.settle_seconds)
        if self._stretch is not None:
            target = min(target, ticks_of(self._stretch[1]))
        begin, wide = self._begin(cursor, now)
        until = cursor.until if cursor is not None else begin
        seen = _Seen(cursor.seen if cursor is not None else b"")
        committed = cursor or TableCursor(1, begin, wide)
        if cursor is None and begin >= target:
            # Where "latest" was must be durable: a start later on would leave out what came in meanwhile.
            yield RawBatch(self._origin(table), (), table, _encode(committed), settled=True)
        for piece in self._pieces(table, begin, target):
            until = max(until, piece.end)
            fresh = self._fresh(piece.rows, seen)
            kept = seen.since(until - ticks_of(settings.overlap_seconds))
            done = TableCursor(1, until, wide, kept) if piece.end else committed
            for batch in self._batches(table, fresh, piece, committed, done):
                meter.add(batch)
                yield batch
            committed = done
            if meter.spent and piece.end:
                return

    def _begin(self, cursor: TableCursor | None, now: int) -> tuple[int, int]:
        """Where this look begins, and when the last wide one was."""
        settings = self._settings
        if cursor is None:
            if self._stretch is not None:
                return ticks_of(self._stretch[0]), now
            if settings.start == EARLIEST:
                return now - _EARLIEST_DAYS * 86_400 * TICKS, now
            return ticks_of(start_epoch(settings.start, self._begun)), now
        if self._stretch is not None:
            return cursor.until, cursor.wide
        if now - cursor.wide >= _WIDE_EVERY:
            return cursor.until - ticks_of(max(settings.wide_seconds, settings.overlap_seconds)), now
        return cursor.until - ticks_of(settings.overlap_seconds), cursor.wide

    def _pieces(self, table: str, begin: int, target: int) -> Iterator[_Piece]:
        """Ask for stretch after stretch; their length follows what the service answers whole."""
        longest = ticks_of(self._settings.window_seconds)
        while begin < target:
            step = self._step.get(table, longest)
            end = min(begin + step, target)
            self._step[table] = min(longest, step * 2)
            yield from self._whole(table, Window(begin, end))
            begin = end

    def _whole(self, table: str, window: Window) -> Iterator[_Piece]:
        """Ask for one stretch, in halves and then in slices when the answer is a part only."""
        answer = self._ask(table, window)
        length = window.end - window.begin
        if answer.complete:
            last = window.slice == window.slices - 1
            yield _Piece(sorted(answer.rows, key=self._order), window.end if last else 0, answer.size)
        elif window.slices == 1 and length > _SMALLEST:
            middle = window.begin + length // 2
            self._step[table] = max(_SMALLEST, length // 2)
            yield from self._whole(table, Window(window.begin, middle))
            yield from self._whole(table, Window(middle, window.end))
        elif window.slices == 1:
            for number in range(_SLICES):
                yield from self._whole(table, Window(window.begin, window.end, _SLICES, number))
        else:
            last = window.slice == window.slices - 1
            yield _Piece(sorted(answer.rows, key=self._order), window.end if last else 0, answer.size, window)

    def _ask(self, table: str, window: Window) -> Answer:
        since = window.begin - self._settings.late_days * 86_400 * TICKS
        return self._connected().rows(table, window, since=since)

    def _fresh(self, rows: list[Row], seen: "_Seen") -> list[tuple[Row, int]]:
        """Rows that were not handed out yet, each with its number among the rows of its moment."""
        fresh: list[tuple[Row, int]] = []
        moment, number = -1, 0
        for row in rows:
            number = number + 1 if row.ticks == moment else 0
            moment = row.ticks
            if seen.add(row.ticks, self._print(row.record)):
                fresh.append((row, number))
        return fresh

    def _batches(
        self, table: str, rows: list[tuple[Row, int]], piece: _Piece, before: TableCursor, after: TableCursor
    ) -> Iterator[RawBatch]:
        """Batches of one piece: only the last one moves the cursor."""
        records = [RawRecord(row.record, row.ticks, number, row.ticks + 1) for row, number in rows]
        if piece.lost is not None:
            self.gaps += 1
            window = piece.lost
            self._note(f"{table}: a part of the rows that came in at {literal(window.begin)} was not given out")
            records.append(RawRecord(b"", window.begin, window.slice, window.end, "window_partial"))
        at = 0
        while True:
            stop, size = at, 0
            while stop < len(records) and stop - at < BATCH_RECORDS and size < BATCH_BYTES:
                size += len(records[stop].data)
                stop += 1
            last = stop >= len(records)
            newest = rows[min(stop, len(rows)) - 1][0].ticks / TICKS if rows else 0.0
            yield RawBatch(
                self._origin(table),
                records[at:stop],
                table,
                _encode(after if last else before),
                piece.size if last else 0,
                newest=newest,
                settled=last and piece.end > 0,
                record_type=_TYPES.get(table, ""),
            )
            at = stop
            if last:
                return

    # -- small things

    def _connected(self) -> Workspace:
        if self._workspace is None:
            credential = self._credential or default_credential(self._settings.managed_identity)
            self._workspace = Workspace(self._settings, credential, self.name, self._clock)
        return self._workspace

    def _origin(self, table: str) -> str:
        return f"loganalytics://{self._settings.workspace_id.lower()}/{table}"

    def _print(self, record: bytes) -> bytes:
        return hashlib.blake2b(record, key=self._key[:64], digest_size=_PRINT).digest()

    def _order(self, row: Row) -> tuple[int, bytes]:
        return row.ticks, self._print(row.record)

    def _note(self, what: str) -> None:
        if len(self.notes) < _MOST_NOTES:
            self.notes.append(what)


class _Seen:
    """The rows that were handed out lately, by moment and hash."""

    def __init__(self, stored: bytes) -> None:
        size = 8 + _PRINT
        self._rows = {stored[at : at + size] for at in range(0, len(stored), size)}

    def add(self, ticks: int, digest: bytes) -> bool:
        """Take note of a row; False when it was known."""
        row = ticks.to_bytes(8, "big") + digest
        if row in self._rows:
            return False
        self._rows.add(row)
        return True

    def since(self, ticks: int) -> bytes:
        """Forget what came in before ``ticks``, and the oldest of the rest when it is too much; give what is left."""
        first = max(ticks, 0).to_bytes(8, "big")
        self._rows = {row for row in self._rows if row >= first}
        ordered = sorted(self._rows)[-_MOST_SEEN:]
        return b"".join(ordered)


def _read(data: bytes | None) -> TableCursor | None:
    """Read a committed cursor; None when there is none, it is damaged, or a newer version wrote it."""
    if not data:
        return None
    try:
        cursor = _decode(data)
    except (msgspec.DecodeError, ValueError):
        return None
    return cursor if cursor.v == 1 else None
