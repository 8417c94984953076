"""A large store for the console's benchmark: the demo's day again and again, each copy at another time, with own ids.

The copies go through the store's own segment writer and catalog, one compacted segment a day, as a store looks that has
run for some weeks. People, models and departments repeat, as they do; sessions, requests and texts do not.
"""

import contextlib
import io
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aitrail.clock import SystemClock
from aitrail.runtime.cli import cli
from aitrail.store import catalog, columns
from aitrail.store.database import Database
from aitrail.store.reader import scan
from aitrail.store.segments import ROW_GROUP_ROWS, SegmentWriter, engine

# Each copy has its own of these; event_id stays 32 hex digits.
_OWN = ("session_id", "request_id", "trace_id", "source_event_id", "prompt_hash", "response_hash")
# Texts also get 350 characters that nothing compresses: a store of real prompts is not small.
_TEXTS = ("prompt_text", "response_text")
_NOISE = "array_to_string(list_transform(range(11), lambda n: md5(event_id || c || n)), ' ')"


def make_demo(folder: Path) -> Path:
    """Run ``aitrail demo`` in ``folder`` and give its store."""
    with contextlib.redirect_stdout(io.StringIO()):
        cli.main(["demo", "--dir", str(folder)], standalone_mode=False)
    return folder / "store"


def multiply(store: Path, events: int, days: int = 30) -> int:
    """Fill ``store`` (one day of the demo) up to about ``events`` over ``days`` days; give how many there are."""
    clock = SystemClock()
    with Database.open(store, clock) as database:
        with database.snapshot() as db:
            seed = catalog.listing(db)
        have = sum(one.events for one in seed)
        files = [str(database.segments / one.path) for one in seed]
        copies = max(0, events // have - 1)
        shares = [copies // days + (day < copies % days) for day in range(days)]
        writer = SegmentWriter(database.segments, clock)
        made, number = [], 1
        for day, share in enumerate(shares, 1):
            if share:
                made.append(_day(writer, files, seed[0].day, -day, range(number, number + share)))
                number += share
        with database.transaction() as db:
            catalog.add(db, made, clock.now())
        writer.close()
        return have + sum(one.events for one in made)


def _day(writer: SegmentWriter, files: list[str], day: str, shift: int, copies: range) -> catalog.Segment:
    """One segment: the day of ``files``, ``shift`` days later, as often as ``copies`` has numbers."""
    staged = writer.staging() / f"{writer.new_name()}.parquet"
    changed = {
        "event_id": "md5(event_id || c)",
        "timestamp": f"timestamp + INTERVAL ({shift}) DAY",
        "ingested_at": f"ingested_at + INTERVAL ({shift}) DAY",
        **{name: f"nullif({name}, '') || '-' || c" for name in _OWN},
        **{name: f"nullif({name}, '') || {_NOISE}" for name in _TEXTS},
    }
    listed = ", ".join(f"{changed.get(name, columns.identifier(name))} AS {name}" for name in columns.COLUMNS)
    connection = engine(memory_limit="2GB", threads=2)
    try:
        connection.execute(
            f"COPY (SELECT {listed} FROM {scan(files, union=False)} "
            f"CROSS JOIN range({copies.start}, {copies.stop}) r(c)) "
            f"TO {columns.quote(str(staged))} (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP_ROWS})"
        )
        [row] = connection.execute(
            f"SELECT count(*), min(timestamp), max(timestamp) FROM {scan([str(staged)], union=False)}"
        ).fetchall()
    finally:
        connection.close()
    moved = datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(days=shift)
    first, last = (f"{moment.isoformat(timespec='milliseconds')}Z" for moment in row[1:])
    return writer.publish(staged, catalog.EVENTS, f"{moved:%Y-%m-%d}", rows=row[0], first=first, last=last)


def timed(folder: Path, events: int) -> tuple[Path, int, float]:
    """Make the store below ``folder`` unless it is there; give it, its events and the seconds that it took."""
    started = time.perf_counter()
    store = folder / "store"
    if not (store / "aitrail.db").is_file():
        store = make_demo(folder)
        multiply(store, events)
    with Database.open(store, SystemClock(), write=False) as database, database.snapshot() as db:
        found = sum(one.events for one in catalog.listing(db))
    return store, found, time.perf_counter() - started
