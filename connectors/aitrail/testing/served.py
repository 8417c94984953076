"""``aitrail serve`` in a process of its own, and other servers that tests start, watched and ended."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import httpx

from aitrail.clock import SystemClock
from aitrail.spool import Spool

_START_SECONDS = 240.0


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, condition: Callable[[], Any], seconds: float = 180.0, pause: float = 0.05) -> Any:
    """Ask ``condition`` until it gives something true; raises ``AssertionError`` that names ``what``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(pause)
    raise AssertionError(f"{what}: not within {seconds:g} s")


class Program:
    """A program that a test started: its output is kept, and it ends with the test."""

    def __init__(self, command: Sequence[str], *, environment: Mapping[str, str] | None = None, cwd: Path) -> None:
        self.process = subprocess.Popen(  # noqa: S603  (the command is the test's)
            list(command),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=cwd,
            env={**os.environ, **(environment or {})},
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def output(self) -> str:
        """What it has said so far."""
        return "\n".join(self.lines)

    def said(self, pattern: str) -> re.Match[str] | None:
        """The first match of ``pattern`` in what it has said; raises when it ended without saying it."""
        found = re.search(pattern, self.output)
        if found is None and self.process.poll() is not None:
            self._reader.join(5)
            found = re.search(pattern, self.output)
            assert found is not None, f"ended with {self.process.returncode}:\n{self.output[-4000:]}"
        return found

    def kill(self) -> None:
        """End it as a power cut does."""
        self.process.kill()
        self.process.wait()
        self._done()

    def stop(self, seconds: float = 180.0) -> int:
        """Ask it to end, and wait; gives its exit code."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(seconds)
        finally:
            self.process.kill()
        self._done()
        return code

    def _done(self) -> None:
        self._reader.join(10)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()
        elif self.process.stdout is not None and not self.process.stdout.closed:
            self._done()


class Served(Program):
    """``aitrail serve`` with a configuration of the test's."""

    def __init__(
        self, folder: Path, config: str, *, environment: Mapping[str, str] | None = None, options: Sequence[str] = ()
    ) -> None:
        self.folder = folder
        path = folder / "aitrail.toml"
        path.write_text(config, encoding="utf-8")
        command = [sys.executable, "-m", "aitrail", "serve", "-c", str(path), "--port", "0", *options]
        super().__init__(command, environment={"COLUMNS": "500", **(environment or {})}, cwd=folder)
        try:
            found = wait_for("aitrail serve", lambda: self.said(r"listening on (\S+) for"), _START_SECONDS)
        except BaseException:
            self.kill()
            raise
        self.url = str(found[1])

    def post(self, path: str, content: bytes, **headers: str) -> httpx.Response:
        """Post once, on a connection of its own; header names are written with ``_`` for ``-``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.post(self.url + path, content=content, headers=named, timeout=120.0)

    def events(self) -> list[dict[str, Any]]:
        """Every event that is in the store or waits for it; only when the process has ended."""
        return stored_events(self.folder / "store")


def stored_events(store: Path) -> list[dict[str, Any]]:
    """Every event of a store that nobody has open, by time: those in the outbox are brought in first."""
    from aitrail.delivery import Courier  # noqa: PLC0415  (heavy)
    from aitrail.destinations.store import StoreDestination  # noqa: PLC0415
    from aitrail.store.reader import StoreReader  # noqa: PLC0415

    clock = SystemClock()
    with Spool.open(store, clock) as spool:
        destination = StoreDestination(spool, store)
        Courier(spool, destination, clock).drain()
        destination.close()
    found = StoreReader(store).query("SELECT * FROM events ORDER BY timestamp, event_id")
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]
