"""Files that are rotated under a running daemon: by renaming, and by copying and truncating."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from test_daemon import run_until, trail

from aitrail.config import Config, SourceConfig, StoreConfig
from aitrail.runtime import books, daemon
from aitrail.runtime.assemble import SystemClock
from aitrail.spool import Spool

ROUNDS = 4
LINES = 40


class Log:
    """A program that writes a line at a time and is rotated after each round."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written = 0

    def write(self) -> None:
        with self.path.open("ab") as file:
            for _ in range(LINES):
                file.write(trail("r", self.written) + b"\n")
                file.flush()
                self.written += 1


def renamed(log: Log, number: int) -> None:
    log.path.rename(log.path.with_name(f"app.log.{number}"))


def copied_and_truncated(log: Log, number: int) -> None:
    shutil.copyfile(log.path, log.path.with_name(f"app.log.{number}"))
    with log.path.open("r+b") as file:
        file.truncate(0)


def replaced(log: Log, number: int) -> None:
    shutil.move(log.path, log.path.with_name(f"app.log.{number}"))
    log.path.write_bytes(b"")


@pytest.mark.parametrize("rotate", [renamed, copied_and_truncated, replaced])
def test_nothing_is_lost_and_nothing_stored_twice_over_rotations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rotate: Callable[[Log, int], None]
) -> None:
    monkeypatch.setattr(daemon, "FLUSH_SECONDS", 0.05)
    monkeypatch.setattr(daemon, "_LONGEST_WAIT", 0.05)
    monkeypatch.setattr(books, "HEARTBEAT_SECONDS", 0.2)
    logs = tmp_path / "logs"
    logs.mkdir()
    log = Log(logs / "app.log")
    settings = SourceConfig(interval=0.02, options={"paths": [str(logs)]})
    config = Config(store=StoreConfig(dir=str(tmp_path / "store"), compact=False), sources={"logs": settings})
    rounds = 0

    def known() -> int:
        with Spool.open(tmp_path / "store", SystemClock(), write=False) as spool:
            return spool.counters().get("logs", {}).get("events", 0)

    def step() -> bool:
        """Write and rotate without waiting for the reader, but let it get somewhere in between."""
        nonlocal rounds
        if rounds < ROUNDS:
            log.write()
            if rounds % 2:
                time.sleep(0.05)
            rotate(log, rounds)
            rounds += 1
            log.write()
        return rounds == ROUNDS and known() >= log.written

    run_until(config, step)
    assert known() == log.written == 2 * ROUNDS * LINES
    with Spool.open(tmp_path / "store", SystemClock(), write=False) as spool:
        assert spool.deadletters() == []
