"""Events per second of a polled feed, from a server of its own process to the outbox, and what the overlap costs.

    python benchmarks/feeds.py [--records 20000] [--page 100]

The server gives pages of an OpenAI audit log, newest first. Events per CPU second of the collecting process: requests,
pages, cursor, mapping, judging, encoding and the outbox, without the store's segments.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from aitrail.config import load
from aitrail.runtime.assemble import open_runtime

CONFIG = """
[store]
dir = "store"
[sources.feed]
type = "openai_audit"
base_url = "http://127.0.0.1:{port}"
token = "env:AITRAIL_BENCH_TOKEN"
page_size = {page}
overlap_minutes = 15
"""


def serve(records: int, told: Connection) -> None:
    """The service, in a process of its own: one record a second, up to now."""
    newest = int(time.time()) - 5
    actor = {"type": "session", "session": {"user": {"id": "u", "email": "ines.moreau@example.com"}}}
    ordered = [(f"log-{number}", newest - number) for number in range(records)]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            """One page."""
            query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
            low, high = int(query["effective_at[gte]"]), int(query["effective_at[lt]"])
            first = max(0, newest - high + 1)
            first = int(query["after"].removeprefix("log-")) + 1 if "after" in query else first
            last = min(records, newest - low + 1)
            rows = ordered[first : min(last, first + int(query["limit"]))]
            data = [
                {
                    "id": one,
                    "type": "api_key.created",
                    "effective_at": when,
                    "actor": actor,
                    "api_key.created": {"id": "k"},
                }
                for one, when in rows
            ]
            body = json.dumps({"data": data, "has_more": bool(rows) and first + len(rows) < last}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.send(server.server_address[1])
    server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--page", type=int, default=100)
    options = parser.parse_args()
    os.environ["AITRAIL_BENCH_TOKEN"] = "bench"
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(options.records, theirs), daemon=True)
    server.start()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "aitrail.toml"
        path.write_text(CONFIG.format(port=ours.recv(), page=options.page))
        with open_runtime(load(path)) as runtime:
            pipeline = runtime.pipeline("feed", runtime.source("feed"), lambda totals: None)
            began, wall = time.process_time(), time.perf_counter()
            first = pipeline.run()
            spent, wall = time.process_time() - began, time.perf_counter() - wall
            began = time.process_time()
            again = pipeline.run()
            overlap = time.process_time() - began
    server.terminate()
    server.join()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {time.strftime('%Y-%m-%d')}")
    print(f"{first.new:,} events in pages of {options.page}: {first.new / spent:,.0f}/s of one core")
    print(f"{first.new / wall:,.0f}/s with the server on the same machine")
    print(f"second turn: {again.new} new; 15 minutes (900 records) read again in {overlap * 1e3:.0f} ms of one core")
    print(f"peak memory {memory:.0f} MB")


if __name__ == "__main__":
    main()
