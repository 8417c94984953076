"""Milliseconds per panel of the dashboards on a store of N events, beside a plain `SELECT count(*)`.

    python benchmarks/console.py [--events 1000000] [--repeat 3] [--folder DIR] [--only usage] [--check]

The store is made once (`--folder` keeps it). Every panel looks at all events. *First* is the first run on a fresh
connection (the operating system has the files in memory, DuckDB does not), *median* of the runs after it. *CPU* is of
all cores together: on two idle ones half of it passes. *Times count* is CPU over that of a plain count of the same
range, a ratio that travels between machines. `--check` fails when a median is over 500 ms.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

import duckdb

from aitrail.store import panels
from aitrail.store.reader import StoreReader
from console_store import timed

TARGET_MS = 500.0
PAGE = "= "
COUNT = "SELECT count(*) FROM events WHERE timestamp >= $since AND timestamp < $until"


class Cost(NamedTuple):
    """Milliseconds that pass, and milliseconds of all cores together: the latter hardly depend on who else computes."""

    wall: float
    cpu: float


class Figures(NamedTuple):
    """What was measured of one panel, or of all panels of a page; the first run apart."""

    name: str
    first: Cost
    wall: float
    cpu: float


def cost(work: Callable[[], object]) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost((time.perf_counter() - wall) * 1000, (time.process_time() - cpu) * 1000)


def figures(name: str, runs: list[Cost]) -> Figures:
    later = runs[1:]
    return Figures(
        name, runs[0], statistics.median(run.wall for run in later), statistics.median(run.cpu for run in later)
    )


def measure(reader: StoreReader, repeat: int, only: str, filters: dict[str, list[str]]) -> list[Figures]:
    """Plain counts, then each panel on one connection per page, then the page: its panels one after the other."""
    with reader.connect() as connection:
        [(first, last)] = connection.execute("SELECT min(timestamp), max(timestamp) FROM events").fetchall()
        since, until = first, last + timedelta(milliseconds=1)
        bound = {"since": since, "until": until}
        runs = [cost(lambda: connection.execute(COUNT, bound).fetchall()) for _ in range(repeat + 1)]
        found = [figures("count(*)", runs)]
    for board in panels.load():
        if only and board.name != only:
            continue
        page: list[list[Cost]] = []
        with reader.connect() as connection:
            for panel in board.panels:
                run = partial(panels.run, connection, panel, filters, since, until)
                page.append([cost(run) for _ in range(repeat + 1)])
                found.append(figures(f"{board.name}/{panel.id} ({panel.form})", page[-1]))
        together = [
            Cost(sum(run.wall for run in runs), sum(run.cpu for run in runs)) for runs in zip(*page, strict=True)
        ]
        found.append(figures(f"{PAGE}{board.name}: all panels, one after the other", together))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--only", default="", help="one page")
    parser.add_argument("--department", default="", help="narrow every panel to one department")
    parser.add_argument("--check", action="store_true")
    chosen = parser.parse_args()
    filters = {"department": [chosen.department]} if chosen.department else {}
    with tempfile.TemporaryDirectory() as folder:
        store, events, seconds = timed(chosen.folder or Path(folder), chosen.events)
        print(
            f"{events:,} events in {seconds:.0f} s; {platform.machine()}, {os.cpu_count()} cores, "
            f"load {os.getloadavg()[0]:.1f}, duckdb {duckdb.__version__}\n"
        )
        opened = cost(lambda: StoreReader(store).connect().close())
        rows = measure(StoreReader(store), chosen.repeat, chosen.only, filters)
    print(f"open a connection: {opened.wall:.0f} ms\n")
    print("| panel | first ms | median ms | CPU ms | times count |\n|---|---|---|---|---|")
    for one in rows:
        times = one.cpu / rows[0].cpu
        print(f"| {one.name} | {one.first.wall:.0f} | {one.wall:.0f} | {one.cpu:.0f} | {times:.1f} |")
    single = [one for one in rows[1:] if not one.name.startswith(PAGE)]
    slow = [one.name for one in single if one.wall > TARGET_MS]
    for what, values in (("median", [one.wall for one in single]), ("CPU", [one.cpu for one in single])):
        print(f"\n{what} ms of a panel: {statistics.median(values):.0f} in the middle, {max(values):.0f} at most")
    print(f"\nover {TARGET_MS:.0f} ms: {', '.join(slow) or 'none'}; load {os.getloadavg()[0]:.1f}")
    return 1 if chosen.check and slow else 0


if __name__ == "__main__":
    raise SystemExit(main())
