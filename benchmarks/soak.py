"""Does the daemon stay the size it is? Several sources, one of which fails, for some minutes; memory and files held.

    python benchmarks/soak.py --minutes 5
    python benchmarks/soak.py --minutes 30 --rate 2000 --json soak.json

A writer appends records of the demo's generator to rotating files at a steady rate; a queue hands the same kinds over
with receipts; a third source fails three times out of four. The daemon runs as a process of its own; its memory (RSS),
open files and threads are taken from /proc twice a second. The slope is that of a least-squares line over the second
half of the samples: the first half is the time in which caches fill.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from aitrail.demo.writer import generate

ROTATE_BYTES = 4 << 20
# Rotated files that are kept: what a reader that is held up by a compaction on a busy machine needs to catch up.
KEPT = 60
SAMPLE_SECONDS = 0.5
WORKER = "--worker"
IDS = ("eventID", "litellm_call_id", "id", "requestId")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--minutes", type=float, default=5.0)
    options.add_argument("--rate", type=int, default=500, help="records a second")
    options.add_argument("--json", type=Path, help="write the figures here")
    options.add_argument("--tidy", type=float, default=30.0, help="seconds between two compactions")
    options.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    options.add_argument(WORKER, type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.worker:
        work(given.worker, given.tidy, once=given.once)
        return
    with tempfile.TemporaryDirectory(prefix="aitrail-soak-") as folder:
        figures = soak(Path(folder), given.minutes * 60, given.rate, given.tidy)
    print(json.dumps(figures, indent=2))
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


# --- the daemon, in its own process


def work(folder: Path, tidy: float, *, once: bool) -> None:
    """Run the daemon over ``folder`` until SIGTERM, or once through."""
    from aitrail.config import Config, SourceConfig, StoreConfig  # noqa: PLC0415  (only in the worker)
    from aitrail.runtime import assemble, daemon  # noqa: PLC0415

    make = assemble.make_source

    def source(name: str, *rest: object) -> object:
        kinds = {"queue": Queue, "failing": Failing}
        return kinds[name](name, folder / "queue") if name in kinds else make(name, *rest)  # type: ignore[arg-type]

    assemble.make_source = source  # type: ignore[assignment]
    files = SourceConfig(interval=1.0, options={"paths": [str(folder / "logs")]})
    other = SourceConfig(interval=0.5)
    config = Config(
        store=StoreConfig(dir=str(folder / "store")), sources={"files": files, "queue": other, "failing": other}
    )
    stop = daemon.Stop()
    stop.install()
    daemon.TIDY_SECONDS, daemon.JOIN_SECONDS = tidy, 20.0
    if once:  # what was written last; the failing source is left out
        config.sources.pop("failing")
    daemon.run(config, stop, once=once)


class Queue:
    """Messages as files; letting go of one is deleting it. A message that was given is not given again for a while."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._folder = folder
        self._given: set[str] = set()

    def survey(self, _cursors: object) -> object:
        """Nobody knows."""
        from aitrail.ports import Workload  # noqa: PLC0415

        return Workload()

    def fetch(self, _cursors: object, _budget: object) -> Iterator[object]:
        """Give what is there and was not given."""
        from aitrail.ports import RawBatch, RawRecord  # noqa: PLC0415

        for path in sorted(self._folder.glob("*.jsonl")):
            if path.name not in self._given:
                self._given.add(path.name)
                records = [RawRecord(line, i, i, i + 1) for i, line in enumerate(path.read_bytes().splitlines())]
                yield RawBatch(str(path), records, "", b"", receipt=path.name, settled=True)

    def acknowledge(self, receipts: Sequence[str]) -> None:
        """Let go of messages."""
        for receipt in receipts:
            (self._folder / receipt).unlink(missing_ok=True)
            self._given.discard(receipt)

    def check(self) -> list[str]:
        """Nothing can be wrong."""
        return []

    def reread(self, *_place: object) -> None:
        """A message cannot be read again."""


class Failing(Queue):
    """Fails three times out of four."""

    turns = 0

    def fetch(self, _cursors: object, _budget: object) -> Iterator[object]:
        """Fail, or give nothing."""
        from aitrail.errors import TransientError  # noqa: PLC0415

        self.turns += 1
        if self.turns % 4:
            raise TransientError("the service is down", retry_after=0.2)
        yield from ()


# --- the load and the measurement


class Load:
    """Writes records at a steady rate: one of four to the queue, the others to files that rotate."""

    def __init__(self, folder: Path) -> None:
        generate(folder / "made", seed=11, events=4_000)
        made = [path for path in sorted((folder / "made" / "logs").rglob("*")) if path.suffix in (".jsonl", ".json")]
        lines = [line for path in made for line in path.read_bytes().splitlines() if line.startswith(b"{")]
        records = [json.loads(line) for line in lines]
        self.records = [record for record in records if any(name in record for name in IDS)]
        self.logs, self.queue = folder / "logs", folder / "queue"
        self.logs.mkdir()
        self.queue.mkdir()
        self.written = self.rotations = self.messages = 0

    def write(self, count: int) -> None:
        """Append ``count`` records."""
        chosen = [self._fresh() for _ in range(count)]
        message = self.queue / f"{self.messages:09d}.tmp"
        message.write_bytes(b"\n".join(chosen[::4]) + b"\n")
        message.rename(message.with_suffix(".jsonl"))
        self.messages += 1
        path = self.logs / "app.jsonl"
        with path.open("ab") as file:
            file.writelines(line + b"\n" for number, line in enumerate(chosen) if number % 4)
        if path.stat().st_size > ROTATE_BYTES:
            path.rename(self.logs / f"app.{self.rotations}.jsonl")
            self.rotations += 1
            with contextlib.suppress(FileNotFoundError):  # as logrotate does: the oldest goes
                (self.logs / f"app.{self.rotations - KEPT}.jsonl").unlink()

    def _fresh(self) -> bytes:
        """One record under an identity of its own."""
        record = self.records[self.written % len(self.records)]
        self.written += 1
        for name in IDS:
            if name in record:
                record[name] = str(uuid.UUID(int=self.written))
        return json.dumps(record, separators=(",", ":")).encode()


def soak(folder: Path, seconds: float, rate: int, tidy: float) -> dict[str, object]:
    """Run the daemon under load and give the figures."""
    load = Load(folder)
    with (folder / "log").open("wb") as log:
        command = [sys.executable, __file__, WORKER, str(folder), "--tidy", str(tidy)]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    samples: list[tuple[float, int, int, int]] = []
    began = time.monotonic()
    try:
        while (past := time.monotonic() - began) < seconds and process.poll() is None:
            due = int(past * rate) - load.written
            if due > 0:
                load.write(due)
            samples.append((past, *_proc(process.pid)))
            time.sleep(SAMPLE_SECONDS)
    finally:
        process.send_signal(signal.SIGTERM)
        began_stop = time.monotonic()
        code = process.wait(120)
        stopped = round(time.monotonic() - began_stop, 2)
    left = len(list(load.queue.glob("*.jsonl")))
    with (folder / "log").open("ab") as log:
        subprocess.run([*command, "--once"], stdout=log, stderr=log, check=True)
    status = _status(folder / "store")
    half = samples[len(samples) // 2 :]
    tenth = max(1, len(samples) // 10)
    return {
        "rss_mb": [round(samples[at][1] / 1e6, 1) for at in range(0, len(samples), tenth)],
        "minutes": round(seconds / 60, 2),
        "records_written": load.written,
        "records_per_second": rate,
        "rotations": load.rotations,
        "messages_left_at_stop": left,
        "not_read": load.written - status["records"],
        "rss_mb_first_half": round(max(s[1] for s in samples[: len(samples) // 2]) / 1e6, 1),
        "rss_mb_second_half": round(max(s[1] for s in half) / 1e6, 1),
        "rss_slope_mb_per_hour": round(_slope([(s[0], s[1] / 1e6) for s in half]) * 3600, 1),
        "open_files": [min(s[2] for s in half), max(s[2] for s in half)],
        "threads": [min(s[3] for s in half), max(s[3] for s in half)],
        "load_average": os.getloadavg()[0],
        "stop_seconds": stopped,
        "exit_code": code,
        "status": status,
    }


def _proc(pid: int) -> tuple[int, int, int]:
    """RSS in bytes, open files, threads."""
    status = Path(f"/proc/{pid}/status").read_text()
    values = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return (
        int(values.get("VmRSS", "0 kB").split()[0]) * 1024,
        len(list(Path(f"/proc/{pid}/fd").iterdir())),
        int(values.get("Threads", "0")),
    )


def _slope(points: Sequence[tuple[float, float]]) -> float:
    count = len(points)
    if count < 2:
        return 0.0
    mean_x, mean_y = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def _status(store: Path) -> dict[str, Any]:
    from aitrail.runtime.status import take  # noqa: PLC0415

    snapshot = take(store)
    return {
        "records": sum(source.counts.get("records", 0) for source in snapshot.sources),
        "events": sum(source.counts.get("events", 0) for source in snapshot.sources),
        "skipped": sum(source.sum("skipped") for source in snapshot.sources),
        "dead_letters": sum(source.sum("rejected") for source in snapshot.sources),
        "duplicates": sum(source.counts.get("duplicates", 0) for source in snapshot.sources),
        "problems": snapshot.problems,
    }


if __name__ == "__main__":
    main()
