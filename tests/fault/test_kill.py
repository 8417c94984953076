"""kill -9 at random points loses nothing and stores nothing twice: the table equals that of an undisturbed run."""

import contextlib
import os
import queue
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from aitrail.demo.writer import generate
from aitrail.store.reader import StoreReader

HERE = Path(__file__).parent
KILLS = 52
ENVIRONMENT = {**os.environ, "AITRAIL_TEST_KEY": "0123456789abcdef0123456789abcdef"}
CONFIG = """
[store]
dir = "{store}"
compact = false
[tenants.default]
key = "env:AITRAIL_TEST_KEY"
[sources.day]
paths = ["{data}"]
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data")
    generate(out, seed=7, events=1500)
    broken = out / "logs" / "broken.jsonl"
    broken.write_bytes(b'{"eventVersion": "1.11", \n' * 5 + b"\xff\xfe\n")
    os.utime(broken, (1_700_000_000, 1_700_000_000))
    return out / "logs"


def configure(folder: Path, data: Path) -> Path:
    path = folder / "aitrail.toml"
    path.write_text(CONFIG.format(store=folder / "store", data=data))
    return path


class Killable:
    """Starts collections, each a process of its own (killable.py), and waits for them."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, str(HERE / "killable.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT
        )
        assert self._server.stdout is not None
        self._answers: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, args=(self._server.stdout,))
        self._reader.start()

    def _read(self, stdout: IO[bytes]) -> None:
        for line in stdout:
            self._answers.put(int(line))

    def start(self, config: Path) -> int:
        """Begin a collection; gives its process id."""
        assert self._server.stdin is not None
        self._server.stdin.write(f"{config}\n".encode())
        self._server.stdin.flush()
        return self._answers.get(timeout=120)

    def wait(self, seconds: float) -> int | None:
        """Give the exit code of the collection; None when it has not ended after ``seconds``."""
        with contextlib.suppress(queue.Empty):
            return self._answers.get(timeout=seconds)
        return None

    def close(self) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(120)
        self._reader.join()
        self._server.stdout.close()


@pytest.fixture(scope="module")
def killable() -> Iterator[Killable]:
    running = Killable()
    yield running
    running.close()


def table(store: Path) -> list[tuple[object, ...]]:
    connection = StoreReader(store).connect()
    return connection.execute("SELECT * EXCLUDE (ingested_at) FROM events ORDER BY event_id").fetchall()


def dead(store: Path) -> list[tuple[object, ...]]:
    connection = StoreReader(store).connect()
    return connection.execute("SELECT id, origin, position, code FROM dead_letters ORDER BY id").fetchall()


def test_killed_runs_end_in_the_same_table(killable: Killable, data: Path, tmp_path: Path) -> None:
    (tmp_path / "calm").mkdir()
    killable.start(configure(tmp_path / "calm", data))
    ready = time.monotonic()
    assert killable.wait(120) == 0
    length = time.monotonic() - ready
    expected, expected_dead = table(tmp_path / "calm" / "store"), dead(tmp_path / "calm" / "store")
    assert len(expected) > 1000
    assert len(expected_dead) == 5, "five torn objects; the line that is not UTF-8 could belong to the last one"
    print(f"undisturbed: {len(expected)} events, {length:.2f} s to run")

    random_ = random.Random(20261123)
    kills = rounds = 0
    while kills < KILLS:
        rounds += 1
        folder = tmp_path / f"killed{rounds}"
        folder.mkdir()
        config = configure(folder, data)
        longest = length / 2.5
        while True:
            process = killable.start(config)
            # Killed runs must get somewhere: a round of mean length/6 per life needs about six lives or more.
            # Lives grow, so that a round also ends on a machine that has become slower since ``length``.
            code = killable.wait(random_.uniform(0.01, longest))
            if code is None:
                # Its parent has not waited for it yet, or is about to say so: the id is still its own.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
                code = killable.wait(120)
            if code != -signal.SIGKILL:
                break
            kills += 1
            longest *= 1.05
        assert code == 0
        assert table(folder / "store") == expected
        assert dead(folder / "store") == expected_dead
        check_no_leftovers(folder / "store")
        shutil.rmtree(folder)
    print(f"{kills} kills over {rounds} rounds: lost 0, twice 0")


def check_no_leftovers(store: Path) -> None:
    """No orphan segment, nothing waiting in the outbox, database whole."""
    with contextlib.closing(sqlite3.connect(store / "aitrail.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    files = {path.name for path in (store / "segments").rglob("*") if path.is_file()}
    assert all(name.endswith(".parquet") for name in files)


def test_second_run_adds_nothing_and_copies_are_recognised(killable: Killable, data: Path, tmp_path: Path) -> None:
    config = configure(tmp_path, data)
    for _ in range(2):
        killable.start(config)
        assert killable.wait(120) == 0
    once = table(tmp_path / "store")
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    (tmp_path / "aitrail.toml").write_text(CONFIG.format(store=tmp_path / "store", data=copy))
    killable.start(config)
    assert killable.wait(120) == 0
    assert table(tmp_path / "store") == once
