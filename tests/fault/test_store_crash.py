"""The store and its outbox under SIGKILL and without disk space: nothing lost, nothing twice, nothing left over."""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from aitrail.clock import SystemClock
from aitrail.destinations.store import StoreDestination
from aitrail.event import make_event_id
from aitrail.ports import Ack
from aitrail.spool import DeadLetterFilter, Spool
from aitrail.store import maintenance
from aitrail.store.reader import StoreReader

WORKER = Path(__file__).with_name("store_worker.py")
ROUNDS = 3
KILLS_PER_ROUND = 24


def run_worker(*arguments: str, prefix: tuple[str, ...] = ()) -> dict:
    done = subprocess.run(
        [*prefix, sys.executable, str(WORKER), *arguments], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def expect(count: int) -> list[str]:
    return [make_event_id("acme", "crash", str(number)) for number in range(count)]


def finish(directory: Path) -> int:
    """Deliver what is left; give how many numbers the cursor says were taken in."""
    with Spool.open(directory, SystemClock()) as spool:
        store = StoreDestination(spool, directory)
        while (batch := spool.pending("store", 500, 1 << 40)) is not None:
            spool.settle(batch, store.send(batch.events, 0.0), spool.database.clock.now())
        store.close()
        return int(spool.cursors("s").get("n") or b"0")


def assert_whole(directory: Path, count: int) -> None:
    """Every event exactly once in the store, and once in the outbox of the destination that is down."""
    assert count > 0
    found = [row[0] for row in StoreReader(directory).query("SELECT event_id FROM events").rows]
    assert len(found) == count, "twice or lost"
    assert set(found) == set(expect(count))
    with contextlib.closing(sqlite3.connect(directory / "aitrail.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        live = {path for (path,) in database.execute("SELECT path FROM segment")}
        retired = {path for (path,) in database.execute("SELECT path FROM retired")}
        assert database.execute("SELECT count(*) FROM receipt").fetchall() == [(0,)]
    database.close()
    segments = directory / "segments"
    there = {path.relative_to(segments).as_posix() for path in segments.rglob("*") if path.is_file()}
    # A retired file may be gone already when its note is not; a file that nobody knows is never there.
    assert live <= there
    assert there - live <= retired
    with Spool.open(directory, SystemClock()) as spool:
        counters = spool.counters()["s"]
        assert counters["numbers"] == count
        assert len(spool.deadletters(DeadLetterFilter(resolved=None))) == counters["commits"]
        slow = []
        while (batch := spool.pending("slow", 333, 1 << 40)) is not None:
            slow += [event.event_id for event in batch.events]
            spool.settle(batch, Ack.all_delivered(len(batch.events)), 0.0)
        assert len(slow) == count
        assert sorted(slow) == sorted(expect(count))
        assert spool.database.rows("SELECT count(*) FROM batch") == [(0,)]
        assert sum(path.stat().st_size for path in (directory / "outbox").iterdir()) == 0


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_kill_at_any_point_loses_nothing_and_stores_nothing_twice(tmp_path, seed):
    answer = run_worker("kills", str(tmp_path / "store"), str(KILLS_PER_ROUND), str(seed))
    assert answer == {"killed": KILLS_PER_ROUND, "ended": 0}
    assert_whole(tmp_path / "store", finish(tmp_path / "store"))


def test_compaction_and_forgetting_survive_a_kill_too(tmp_path):
    directory = tmp_path / "store"
    run_worker("kills", str(directory), "8", "77")
    count = finish(directory)
    maintenance.compact(directory, grace_seconds=0)
    assert_whole(directory, count)


@pytest.mark.parametrize("limit", [60_000, 150_000, 400_000])
def test_no_room_to_write_means_no_partial_commit_and_it_goes_on_after(tmp_path, limit):
    directory = tmp_path / "store"
    answer = run_worker("full", str(directory), str(limit))
    assert len(answer["refused"]) >= 3
    assert all("prompt" not in text and "number" not in text for text in answer["refused"])
    assert_whole(directory, finish(directory))


def test_a_disk_that_is_really_full_means_the_same(tmp_path):
    """On a 3 MB file system of its own; needs the right to mount one in a private namespace."""
    if shutil.which("unshare") is None or os.geteuid() != 0:
        pytest.skip("needs root and unshare")
    mount, kept = tmp_path / "mount", tmp_path / "kept"
    mount.mkdir()
    script = (
        f"mount -t tmpfs -o size=3m tmpfs {mount} || exit 77; head -c 1500000 /dev/zero > {mount}/ballast; "
        f'"$@" && cp -r {mount}/store {kept}'
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", sys.executable, str(WORKER), "full", f"{mount}/store",
         f"{mount}/ballast"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    if done.returncode in {1, 77} and "store_worker" not in done.stderr and not kept.exists():
        pytest.skip("mounting is not permitted here")
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(json.loads(done.stdout)["refused"]) >= 3
    assert_whole(kept, finish(kept))
