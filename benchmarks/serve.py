"""Requests per second and latency of `aitrail serve` when every 202 is durable: client and server on one machine.

    python benchmarks/serve.py [--seconds 10] [--connections 64] [--records 1] [--payload 3400]

The client keeps connections open and posts one request after another on each. The server is a process of its own with
its store in a temporary directory (name another with --folder: the figure is as good as that disk's flush).
"""

import argparse
import asyncio
import json
import os
import platform
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

from aitrail.testing.served import Served, stored_events

CONFIG = """
[store]
dir = "store"
[receivers.gateway]
path = "/in"
record_type = "litellm"
tokens = ["env:AITRAIL_BENCH_TOKEN"]
"""


def payload(number: int, size: int) -> dict[str, object]:
    return {
        "litellm_call_id": f"call-{number}",
        "call_type": "acompletion",
        "status": "success",
        "startTime": 1_795_000_000.0 + number / 1000,
        "endTime": 1_795_000_001.0 + number / 1000,
        "model": "openai/gpt-4o-mini",
        "model_group": "assistant",
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "total_tokens": 150,
        "messages": [
            {"role": "user", "content": f"question {number}: " + "what is in this paragraph? " * (size // 54)}
        ],
        "response": {
            "choices": [{"message": {"content": "the answer is here. " * (size // 40)}, "finish_reason": "stop"}]
        },
        "metadata": {"user_api_key_user_id": f"user-{number % 50}", "user_api_key_team_id": "retail"},
        "requester_ip_address": "203.0.113.9",
    }


class Client:
    """Keeps connections open and posts one request after another on each."""

    def __init__(self, host: str, port: int, records: int, size: int) -> None:
        self.host, self.port, self.records, self.size = host, port, records, size
        self.number = 0
        self.statuses: Counter[int] = Counter()
        self.latencies: list[float] = []

    def request(self) -> bytes:
        """The next request, with records of its own."""
        first, self.number = self.number, self.number + self.records
        body = json.dumps([payload(number, self.size) for number in range(first, first + self.records)]).encode()
        head = f"POST /in HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer bench\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    async def connection(self, until: float) -> None:
        """Post until then."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        while time.perf_counter() < until:
            began = time.perf_counter()
            writer.write(self.request())
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            self.latencies.append(time.perf_counter() - began)
            self.statuses[int(head[9:12])] += 1
        writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--records", type=int, default=1, help="records of one request")
    parser.add_argument("--payload", type=int, default=3400, help="bytes of one record, about")
    parser.add_argument("--folder", type=Path, help="where the store is")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        environment = {"AITRAIL_BENCH_TOKEN": "bench"}
        with Served(Path(folder), CONFIG, environment=environment) as served:
            host, port = served.url.removeprefix("http://").split(":")
            client = Client(host, int(port), options.records, options.payload)

            async def go(seconds: float) -> None:
                until = time.perf_counter() + seconds
                await asyncio.gather(*(client.connection(until) for _ in range(options.connections)))

            asyncio.run(go(1.0))
            client.statuses.clear()
            client.latencies.clear()
            process = psutil.Process(served.process.pid)
            before, began = process.cpu_times(), time.perf_counter()
            asyncio.run(go(options.seconds))
            spent, after = time.perf_counter() - began, process.cpu_times()
            memory = process.memory_info().rss
            assert served.stop() == 0
        stored = len(stored_events(Path(folder) / "store"))
    done = client.statuses[202]
    ordered = sorted(client.latencies)
    cpu = (after.user - before.user + after.system - before.system) / spent
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {time.strftime('%Y-%m-%d')}")
    print(f"{options.connections} connections, {options.records} record(s) of about {options.payload} bytes a request")
    print(f"{done / spent:,.0f} requests/s, {done * options.records / spent:,.0f} records/s, all durable before 202")
    print(f"p50 {ordered[len(ordered) // 2] * 1e3:.1f} ms, p99 {ordered[len(ordered) * 99 // 100] * 1e3:.1f} ms")
    print(
        f"{done / spent / cpu:,.0f} requests, {done * options.records / spent / cpu:,.0f} records a second of one core"
    )
    print(f"server: {cpu:.2f} cores, {memory / 1e6:.0f} MB; answers {dict(client.statuses)}; {stored:,} in the store")


if __name__ == "__main__":
    main()
