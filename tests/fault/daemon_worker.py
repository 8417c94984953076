"""A daemon in a process of its own that tests kill and stop: two sources of files, and a queue of messages.

Usage: daemon_worker.py FOLDER run|once|patient. Prints ``ready`` once the store is open. The queue is the directory
``queue``: a message is a file, and letting go of it is deleting the file. ``broken`` fails as long as ``FOLDER/down``
is there; ``hang`` never comes back from its call. Commits are small, so that kills fall between them.
"""

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import aitrail.pipeline as pipeline
import aitrail.runtime.daemon as daemon
from aitrail.classify.contract import Text, Verdict
from aitrail.classify.scorer import Panel
from aitrail.classify.scoring import DEFAULT_THRESHOLDS
from aitrail.clock import Clock, SystemClock
from aitrail.config import Config, SourceConfig, StoreConfig
from aitrail.errors import AitrailError, TransientError
from aitrail.ports import Budget, Cursors, RawBatch, RawRecord, Source, Workload
from aitrail.runtime import assemble, log
from aitrail.runtime.judging import Judging
from aitrail.sources.file import FileSource

NAMES = ("a", "b", "queue", "broken", "hang")


class Judge:
    """Finds nothing: the records here hold no text, and compiling patterns would be most of a short life."""

    version = "none"
    thresholds = DEFAULT_THRESHOLDS

    def classify(self, texts: Sequence[Text]) -> Verdict:
        return Verdict()

    def score(self, text: str) -> float:
        return 0.0


class Queue:
    """Messages as files; each comes again until it is let go of."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder

    def survey(self, cursors: Cursors) -> Workload:
        return Workload()

    def fetch(self, cursors: Cursors, budget: Budget) -> Iterator[RawBatch]:
        for path in sorted(self.folder.iterdir()):
            lines = path.read_bytes().splitlines()
            records = [RawRecord(line, i, i, i + 1) for i, line in enumerate(lines)]
            yield RawBatch(str(path), records, "", b"", receipt=path.name, settled=True)

    def acknowledge(self, receipts: Sequence[str]) -> None:
        for receipt in receipts:
            (self.folder / receipt).unlink(missing_ok=True)

    def check(self) -> list[str]:
        return []

    def reread(self, origin: str, position: int, end: int, index: int) -> bytes | None:
        return None


class Broken(Queue):
    """Fails while ``down`` is there."""

    def fetch(self, cursors: Cursors, budget: Budget) -> Iterator[RawBatch]:
        if (self.folder.parent / "down").exists():
            raise TransientError("the service is down")
        yield from super().fetch(cursors, budget)


class Hang(Queue):
    """Gives what it has, and then waits for what never comes."""

    def fetch(self, cursors: Cursors, budget: Budget) -> Iterator[RawBatch]:
        yield from super().fetch(cursors, budget)
        if (self.folder.parent / "down").exists():
            threading.Event().wait()


def source(folder: Path, name: str, clock: Clock) -> Source:
    """One of the five."""
    kinds = {"queue": Queue, "broken": Broken, "hang": Hang}
    if name in kinds:
        return kinds[name](name, folder / name)
    return FileSource(name, [str(folder / name)], clock=clock, key=b"k")


def main(folder: Path, mode: str) -> None:
    """Run it."""
    pipeline.COMMIT_EVENTS = 20
    assemble.make_judging = lambda *_: Judging(Judge(), None, Panel((), time.monotonic))  # type: ignore[arg-type]
    assemble.make_source = lambda name, *_: source(folder, name, SystemClock())
    daemon.FLUSH_SECONDS = 0.1
    daemon.LEASE_SECONDS = 600.0
    if mode == "patient":  # waits for hanging sources as long as its grace lasts
        daemon._HANGING_SECONDS = 120.0
    names = [name for name in NAMES if (folder / name).is_dir()]
    config = Config(
        store=StoreConfig(dir=str(folder / "store"), compact=False),
        sources={name: SourceConfig(interval=0.05) for name in names},
    )
    stop = daemon.Stop()
    stop.install()
    grace = 120.0 if mode == "patient" else 20.0
    daemon.run(config, stop, once=mode == "once", grace=grace, opened=lambda _: print("ready", flush=True))


if __name__ == "__main__":
    log.configure(0)
    try:
        main(Path(sys.argv[1]), sys.argv[2])
    except AitrailError as error:
        print(f"error: {error}", flush=True)
        sys.exit(error.exit_code)
