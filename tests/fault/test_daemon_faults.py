"""The daemon under kill -9, beside a second one, with failing and hanging sources, and when it is told to stop."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aitrail.runtime.status import take
from aitrail.store.reader import StoreReader

HERE = Path(__file__).parent
TRAIL = json.loads((HERE.parent / "fixtures" / "cloudtrail" / "invoke-model.json").read_bytes())
KILLS = 8
PATIENCE = 120.0


def trail(name: str, number: int) -> bytes:
    return json.dumps({**TRAIL, "eventID": f"{name:x>8.8}-0000-4000-8000-{number:012d}"}).encode()


def lines(name: str, start: int, count: int) -> bytes:
    return b"".join(trail(name, number) + b"\n" for number in range(start, start + count))


def fill(folder: Path, *names: str) -> int:
    """Make the sources; gives how many events they hold."""
    total = 0
    for name in names:
        (folder / name).mkdir()
        # Files of one long and several short objects; messages of three records each.
        parts = [400, 20, 20, 20, 20] if name in ("a", "b") else [3] * 60
        for number, count in enumerate(parts):
            path = folder / name / f"{number:04d}.jsonl"
            path.write_bytes(lines(name, number * 1_000, count))
            os.utime(path, (1_700_000_000, 1_700_000_000))
            total += count
    return total


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def one(mode: str = "run") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "daemon_worker.py"), str(tmp_path), mode], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield one
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def ids(store: Path) -> list[str]:
    connection = StoreReader(store).connect()
    return [row[0] for row in connection.execute("SELECT source_event_id FROM events ORDER BY 1").fetchall()]


def until(done: Callable[[], bool]) -> None:
    """Wait for a condition; fails after two minutes."""
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def test_killed_daemons_lose_nothing_and_store_nothing_twice(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    expected = fill(tmp_path, "a", "b", "queue")
    (tmp_path / "down").touch()
    expected += fill(tmp_path, "broken")
    random_ = random.Random(20261123)
    kills = 0
    while kills < KILLS:
        process = start()
        assert said(process) == "ready"
        time.sleep(random_.uniform(0.0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        if kills == KILLS // 2:
            (tmp_path / "down").unlink()
    last = start("once")
    assert said(last) == "ready", "the leases of the dead are taken over at once"
    assert last.wait(PATIENCE) == 0
    found = ids(tmp_path / "store")
    assert len(set(found)) == len(found) == expected, "lost 0, twice 0"
    assert list((tmp_path / "queue").iterdir()) == [], "every message was let go of"
    assert list((tmp_path / "broken").iterdir()) == []


def test_a_second_daemon_is_turned_away_and_the_first_is_not_disturbed(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    expected = fill(tmp_path, "a")
    first = start()
    assert said(first) == "ready"
    second = start()
    assert "is being written by pid" in said(second)
    assert second.wait(PATIENCE) == 5
    assert first.poll() is None
    first.terminate()
    assert first.wait(PATIENCE) == 0
    third = start("once")
    assert third.wait(PATIENCE) == 0
    assert len(ids(tmp_path / "store")) == expected


def test_sigterm_ends_it_in_order_although_sources_fail_and_hang(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    expected = fill(tmp_path, "a", "queue", "hang")
    (tmp_path / "down").touch()
    fill(tmp_path, "broken")
    process = start()
    assert said(process) == "ready"
    store = tmp_path / "store"

    def settled() -> bool:
        snapshot = take(store)
        events = sum(source.counts.get("events", 0) for source in snapshot.sources)
        failures = {source.name: source.state.failures for source in snapshot.sources}
        return events == expected and failures.get("broken", 0) >= 1

    until(settled)
    began = time.monotonic()
    process.terminate()
    assert process.wait(PATIENCE) == 0
    assert time.monotonic() - began < 60.0, "it does not wait for what hangs"
    snapshot = take(store)
    assert snapshot.collector.stopped > 0
    states = {source.name: source.state for source in snapshot.sources}
    assert "the service is down" in states["broken"].last_error
    assert states["a"].failures == states["queue"].failures == 0
    assert list((tmp_path / "queue").iterdir()) == []
    assert len(ids(store)) == expected


def test_a_second_signal_ends_it_at_once(tmp_path: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    fill(tmp_path, "hang")
    (tmp_path / "down").touch()
    process = start("patient")
    assert said(process) == "ready"
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.01)
    assert process.wait(PATIENCE) == -signal.SIGTERM


def test_a_failing_source_gives_cron_its_exit_code_and_the_others_are_read(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    expected = fill(tmp_path, "a")
    (tmp_path / "down").touch()
    fill(tmp_path, "broken")
    process = start("once")
    assert said(process) == "ready"
    assert said(process) == "error: source broken: the service is down"
    assert process.wait(PATIENCE) == 4
    assert len(ids(tmp_path / "store")) == expected
