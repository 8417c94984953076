"""The console over HTTP and in a browser, on a store of N events: milliseconds per page and panel, and to first paint.

    python benchmarks/console_pages.py [--events 1000000] [--folder DIR] [--repeat 3] [--check]

`benchmarks/console.py` measures the questions alone; here a console runs as its users start it and answers one request
at a time. *First* is the first time that it is asked, *again* the median of later times, each over a range that differs
by a second, so that nothing is answered from memory. The browser opens every dashboard at 1280x900: *first paint*, and
*in view*: until every panel that can be seen has its numbers, four at once, the script's work included. `--check` fails
when a panel takes more than 500 ms or a first paint more than 1 s.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

from aitrail.store import boards
from aitrail.store.reader import StoreReader
from console_store import timed

PANEL_MS = 500.0
PAINT_MS = 1000.0
PAGES = ("/board/usage", "/events", "/events?sort=risk", "/findings", "/search?q=refund", "/api/choices")


@contextmanager
def running(store: Path) -> Iterator[str]:
    """The address of a console over ``store``."""
    command = [sys.executable, "-m", "aitrail", "console", "--store", str(store), "--port", "0"]
    environment = {**os.environ, "COLUMNS": "300"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stderr is not None
            found = re.search(r"http://[0-9.:]+", process.stderr.readline())
            assert found is not None
            yield found[0]
        finally:
            process.terminate()


def asked(client: httpx.Client, path: str) -> float:
    started = time.perf_counter()
    answer = client.get(path)
    assert answer.status_code == 200, (path, answer.status_code)
    return (time.perf_counter() - started) * 1000


def ranges(store: Path, number: int) -> list[str]:
    """Ranges over everything that differ by a second each."""
    reader = StoreReader(store)
    [(first, last)] = reader.query("SELECT min(timestamp), max(timestamp) FROM events").rows
    since: datetime = first - timedelta(seconds=1)
    return [
        f"since={since:%Y-%m-%dT%H:%M:%S}&until={last + timedelta(seconds=1 + step):%Y-%m-%dT%H:%M:%S}"
        for step in range(number)
    ]


def over_http(url: str, spans: list[str]) -> list[tuple[str, list[float]]]:
    """Times of every page and panel, one request at a time; one for each range."""
    paths = [*PAGES, *(f"/api/panel/{board.name}/{panel.id}" for board in boards.load() for panel in board.panels)]
    with httpx.Client(base_url=url, timeout=120) as client:
        found = [(path, [asked(client, _with(path, span)) for span in spans]) for path in paths]
        event = re.search(r"/event/[0-9a-f]{32}", client.get("/events?range=all&injection_tier=high").text)
        if event is not None:
            one = [event[0], event[0].replace("event", "session")]
            found += [(path[:9] + "...", [asked(client, path) for _ in spans]) for path in one]
    return found


def _with(path: str, span: str) -> str:
    return f"{path}{'&' if '?' in path else '?'}{span}"


def in_browser(url: str, span: str) -> list[tuple[str, float, float]]:
    """First paint, and until all panels in view are there, of each dashboard."""
    from playwright.sync_api import expect, sync_playwright  # noqa: PLC0415  (a test tool)

    found = []
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        for board in boards.load():
            started = time.perf_counter()
            page.goto(f"{url}/board/{board.name}?{span}")
            expect(page.locator("[data-state=loading]")).to_have_count(0, timeout=120_000)
            loaded = (time.perf_counter() - started) * 1000
            paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
            found.append((board.name, paint, loaded))
        browser.close()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--check", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store, events, _ = timed(chosen.folder or Path(folder), chosen.events)
        spans = ranges(store, chosen.repeat + 2)
        print(
            f"{events:,} events, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {datetime.now(UTC):%Y-%m-%d}\n"
        )
        with running(store) as url:
            print("| page or panel | first ms | again ms |\n|---|---|---|")
            rows = over_http(url, spans[:-1])
            for path, times in rows:
                print(f"| `{path}` | {times[0]:.0f} | {statistics.median(times[1:]):.0f} |")
        with running(store) as url:
            painted = in_browser(url, spans[-1])
    print("\n| dashboard | first paint ms | in view ms |\n|---|---|---|")
    for name, paint, loaded in painted:
        print(f"| {name} | {paint:.0f} | {loaded:.0f} |")
    panels = {path: statistics.median(times[1:]) for path, times in rows if path.startswith("/api/panel/")}
    slow = [path for path, middle in panels.items() if middle > PANEL_MS]
    late = [name for name, paint, _ in painted if paint > PAINT_MS]
    middle, most = statistics.median(panels.values()), max(panels.values())
    print(f"\n{len(panels)} panels: median {middle:.0f} ms, slowest {most:.0f} ms; load {os.getloadavg()[0]:.1f}")
    print(f"panels over {PANEL_MS:.0f} ms: {', '.join(slow) or 'none'}")
    print(f"first paint over {PAINT_MS:.0f} ms: {', '.join(late) or 'none'}")
    return 1 if chosen.check and (slow or late) else 0


if __name__ == "__main__":
    raise SystemExit(main())
