"""Progress of a collection: a live bar with rate and time left on a terminal, silence when piped."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from aitrail.pipeline import Totals
from aitrail.ports import Workload
from aitrail.runtime.collect import Progress as Callbacks


@contextmanager
def progress_bar(*, quiet: bool) -> Iterator[Callbacks]:
    """Callbacks that draw on stderr; nothing is drawn when stderr is no terminal or ``quiet``."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield Callbacks()
        return
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        DownloadColumn(binary_units=True),
        TextColumn("{task.fields[done]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    started = time.monotonic()
    tasks = {}

    def start(name: str, work: Workload) -> None:
        tasks[name] = bar.add_task(name, total=work.bytes, done="")

    def step(name: str, totals: Totals) -> None:
        rate = totals.records / max(time.monotonic() - started, 0.001)
        bar.update(tasks[name], completed=totals.bytes, done=f"{totals.records:,} records  {rate:,.0f}/s")

    with bar:
        yield Callbacks(start, step)
