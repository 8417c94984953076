"""How fast events leave: each destination against a receiver in another process, 20 ms away, at 1, 4 and 8 threads.

    python benchmarks/destinations.py                     all of them, about two minutes
    python benchmarks/destinations.py --only splunk,kafka --seconds 1
    python benchmarks/destinations.py --markdown docs/benchmarks.md

CPU is that of the sender alone; the receivers only count. README.md says what each figure means.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

import stages
from aitrail.classify.default import DefaultClassifier
from aitrail.demo import bench
from aitrail.demo.writer import DAY, SEED
from aitrail.destinations._elastic_settings import ElasticSettings
from aitrail.destinations._fluentd_settings import FluentdSettings
from aitrail.destinations._kafka_settings import KafkaSettings
from aitrail.destinations._sentinel_settings import SentinelSettings
from aitrail.destinations._splunk_settings import SplunkSettings
from aitrail.destinations._syslog_settings import SyslogSettings
from aitrail.destinations.elastic import ElasticDestination
from aitrail.destinations.fluentd import FluentdDestination
from aitrail.destinations.kafka import KafkaDestination
from aitrail.destinations.sentinel import SentinelDestination
from aitrail.destinations.splunk import SplunkDestination
from aitrail.destinations.syslog import SyslogDestination
from aitrail.enrich import Directory
from aitrail.normalize.detect import Detector
from aitrail.normalize.join import Joiner
from aitrail.normalize.outcome import Context
from aitrail.ports import Destination, EncodedEvent
from aitrail.privacy.keys import KeyRing
from aitrail.privacy.treat import Privacy
from aitrail.secrets import Secrets
from aitrail.transform import Transform
from pipeline import LIBRARIES, machine

LATENCY = 0.02
STATISTICS_SECONDS = 0.2
WINDOWS = 3
LOADS_SECONDS = 0.5
THREADS = (1, 4, 8)
BEGIN, END = "<!-- destinations: begin -->", "<!-- destinations: end -->"
LABELS = {"cloudtrail": "CloudTrail", "litellm_3k": "prompts"}
# json.loads of 1.1 kB on the machine that the targets were set on, events/s: machines differ, the ratio to it hardly.
REFERENCE_LOADS = 217_000
# Events per CPU second, and per second with 8 threads.
TARGETS = {
    ("splunk", "cloudtrail"): 60_000,
    ("splunk", "litellm_3k"): 20_000,
    ("elastic", "cloudtrail"): 50_000,
    ("sentinel", "cloudtrail"): 40_000,
    ("kafka", "cloudtrail"): 150_000,
}
WALL_TARGET = 50_000


class Row(msgspec.Struct):
    """One destination with one kind of events at so many threads; seconds, bytes. ``loads`` is json.loads alone."""

    destination: str
    kind: str
    threads: int
    events: int
    size: int
    wall: float
    cpu: float
    wire: int
    loads: float

    @property
    def missed(self) -> list[str]:
        """The targets that were not reached, neither as they stand nor in proportion to the machine."""
        found = []
        scale = min(1.0, 1 / self.loads / REFERENCE_LOADS * (self.size / self.events / 1_110))
        target = TARGETS.get((self.destination, self.kind))
        if target is not None and self.threads == 1 and self.events / self.cpu < target * scale:
            found.append(f"MISSED: >= {target:,} per core")
        if self.threads == max(THREADS) and self.kind == "cloudtrail" and self.events / self.wall < WALL_TARGET * scale:
            found.append(f"MISSED: >= {WALL_TARGET:,}/s")
        return found


# --- receivers: each in a process of its own, which prints its address, and counters when it is asked


# What counts and nothing else; Kafka's is librdkafka's own mock cluster.
PEERS = {
    "splunk": ("hec_peer", "HecPeer"),
    "elastic": ("elastic_peer", "elastic_peer"),
    "sentinel": ("dce_peer", "dce_peer"),
    "fluentd": ("forward_peer", "ForwardPeer"),
    "syslog": ("syslog_peer", "SyslogPeer"),
}
DESTINATIONS = ("splunk", "elastic", "sentinel", "kafka", "fluentd", "syslog")


def _broker() -> tuple[dict[str, str], Any]:
    """A broker that others wrote, and that costs little. It does not count bytes; the client's statistics do."""
    owner: Any = importlib.import_module("confluent_kafka").Producer(
        {
            "bootstrap.servers": "ignored",
            "test.mock.num.brokers": 1,
            "test.mock.broker.rtt": int(LATENCY * 1_000),
            "log_level": 0,
        }
    )
    one = next(iter(owner.list_topics(timeout=20).brokers.values()))
    return {"brokers": f"{one.host}:{one.port}"}, owner


def receive(name: str) -> None:
    """Be a receiver until stdin ends."""
    if name == "kafka":
        address, peer = _broker()
    else:
        module, make = PEERS[name]
        peer = getattr(importlib.import_module(f"aitrail.testing.{module}"), make)(keep=False, latency=LATENCY)
        address = dict(peer.address)
    print(json.dumps(address), flush=True)
    for _ in sys.stdin:
        print(peer.traffic.bytes if name in PEERS else 0, flush=True)
    os._exit(0)


@contextmanager
def receiver(name: str) -> Iterator[tuple[dict[str, str], Callable[[], int]]]:
    """Run one; gives its address and how many bytes it got so far."""
    command = [sys.executable, __file__, "--receive", name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def count() -> int:
            print("?", file=process.stdin, flush=True)
            return int(process.stdout.readline())  # type: ignore[union-attr]

        try:
            yield json.loads(process.stdout.readline()), count
        finally:
            process.stdin.close()
            process.wait(20)


class Given:
    """A token as azure-identity gives it."""

    def __init__(self, file: str) -> None:
        self.token = Path(file).read_text()
        self.expires_on = int(time.time()) + 36_000

    def get_token(self, *scopes: str) -> "Given":
        """Give it."""
        del scopes
        return self


def sender(name: str, there: dict[str, str], sent: list[int]) -> Destination:
    """The destination as it is configured by default; ``sent`` gets the bytes that Kafka's client put on the wire."""
    token = f"file:{there.get('token_file', '')}"
    if name == "splunk":
        return SplunkDestination(SplunkSettings(urls=(there["url"],), token=token), Secrets())
    if name == "elastic":
        return ElasticDestination(ElasticSettings(urls=(there["url"],), api_key=token), Secrets())
    if name == "sentinel":
        return SentinelDestination(SentinelSettings(url=there["url"], dcr=there["dcr"]), Given(there["token_file"]))
    if name == "fluentd":
        return FluentdDestination(FluentdSettings(host=there["host"], port=int(there["port"]), tls=False))
    if name == "syslog":
        return SyslogDestination(
            SyslogSettings(host=there["host"], port=int(there["port"]), transport="tcp", message_bytes=65_000)
        )
    kafka = KafkaSettings(
        brokers=(there["brokers"],),
        security="plaintext",
        extra={"statistics.interval.ms": f"{STATISTICS_SECONDS * 1000:.0f}"},
    )
    _count_kafka(sent)
    return KafkaDestination(kafka)


def _count_kafka(sent: list[int]) -> None:
    """Let the client's statistics (its total of bytes sent) be kept in ``sent``."""
    original = KafkaSettings.producer

    def producer(self: KafkaSettings, *arguments: Any) -> dict[str, Any]:
        def note(text: str) -> None:
            sent[:] = [json.loads(text)["tx_bytes"]]

        return {**original(self, *arguments), "stats_cb": note}

    KafkaSettings.producer = producer  # type: ignore[method-assign]


# --- events


def events_of(kind: str, count: int) -> list[EncodedEvent]:
    """Normalized events of generated records, with their texts (content mode ``full``)."""
    with tempfile.TemporaryDirectory(prefix="aitrail-bench-") as name:
        transform = Transform(
            DefaultClassifier(), Privacy(KeyRing(Path(name), {}, Secrets())), Directory(), lambda _: "full"
        )
        raws = list(islice(bench.records(kind, SEED, DAY, count), count))
        pairs = stages.normalized(raws, Detector(), Joiner(), Context(tenant_id="acme", origin="bench"))
        return [
            transform.finish(event, content, "bench#record=0", "2026-11-23T00:00:00.000Z") for event, content in pairs
        ]


def loads_seconds(events: Sequence[EncodedEvent]) -> float:
    """CPU seconds of json.loads for one event, over as long as a window: what a script pays before it does anything."""
    started, passes = time.process_time(), 0
    while passes == 0 or time.process_time() - started < LOADS_SECONDS:
        for event in events:
            json.loads(event.body)
        passes += 1
    return (time.process_time() - started) / len(events) / passes


# --- measuring


class Window(msgspec.Struct):
    """What one stretch of sending came to."""

    events: int
    size: int
    wall: float
    cpu: float


def measure(name: str, kind: str, events: Sequence[EncodedEvent], threads: int, seconds: float) -> Row:
    """Send from so many threads, each batch as large as the outbox would make it; the best of ``WINDOWS``.

    The best for the wall and the best for the processor need not be the same: what else runs here disturbs either.
    """
    loads = loads_seconds(events)
    sent = [0]
    with receiver(name) as (address, count):
        destination = sender(name, address, sent)
        batches = list(_batches(events, destination))
        _send(destination, batches[0])
        before, kafka_before = count(), sent[0]
        windows = [_window(destination, batches, threads, seconds) for _ in range(WINDOWS)]
        if name == "kafka":
            time.sleep(2 * STATISTICS_SECONDS)  # its client counts at intervals, and tells with the next send
            _send(destination, batches[0][:1])
        wire = sent[0] - kafka_before if name == "kafka" else count() - before
        destination.close()
    fast = max(windows, key=lambda one: one.events / one.wall)
    cheap = min(windows, key=lambda one: one.cpu / one.events)
    number = sum(one.events for one in windows)
    return Row(
        destination=name,
        kind=kind,
        threads=threads,
        events=number,
        size=sum(one.size for one in windows),
        wall=fast.wall / fast.events * number,
        cpu=cheap.cpu / cheap.events * number,
        wire=wire,
        loads=loads,
    )


def _window(
    destination: Destination, batches: Sequence[Sequence[EncodedEvent]], threads: int, seconds: float
) -> Window:
    done, size = [0] * threads, [0] * threads
    stop = threading.Event()

    def work(number: int) -> None:
        at = number
        while not stop.is_set():
            batch = batches[at % len(batches)]
            _send(destination, batch)
            done[number] += len(batch)
            size[number] += sum(len(event.body) for event in batch)
            at += threads

    pool = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    cpu, wall = time.process_time(), time.perf_counter()
    for one in pool:
        one.start()
    time.sleep(seconds)
    stop.set()
    for one in pool:
        one.join()
    return Window(sum(done), sum(size), time.perf_counter() - wall, time.process_time() - cpu)


def _batches(events: Sequence[EncodedEvent], destination: Destination) -> Iterator[list[EncodedEvent]]:
    """Batches within the destination's limits, as the outbox gives them."""
    batch: list[EncodedEvent] = []
    room = destination.limits.max_batch_bytes
    for event in events:
        if batch and (len(batch) >= destination.limits.max_events or len(event.body) > room):
            yield batch
            batch, room = [], destination.limits.max_batch_bytes
        batch.append(event)
        room -= len(event.body)
    yield batch


def _send(destination: Destination, batch: Sequence[EncodedEvent]) -> None:
    ack = destination.send(batch, time.monotonic() + 60)
    wrong = {verdict.status for verdict in ack.verdicts} - {"delivered", "duplicate"}
    if wrong:
        raise SystemExit(f"{destination.name}: {wrong}")


# --- tables


HEAD = ("destination", "events", "bytes", "threads", "events/s", "MB/s", "us CPU/event", "per core", "x json.loads",
        "wire bytes/event", "")  # fmt: skip


def table(rows: Sequence[Row]) -> list[list[str]]:
    """The figures as text."""
    lines = []
    for row in rows:
        per_core = row.events / row.cpu
        ratio = per_core * row.loads
        lines.append(
            [
                row.destination,
                LABELS[row.kind],
                f"{row.size / row.events:,.0f}",
                str(row.threads),
                f"{row.events / row.wall:,.0f}",
                f"{row.size / row.wall / 1e6:.0f}",
                f"{row.cpu / row.events * 1e6:.1f}",
                f"{per_core:,.0f}",
                f"{ratio:.2f}",
                f"{row.wire / row.events:,.0f}" if row.wire else "-",
                ", ".join(row.missed),
            ]
        )
    return lines


def as_markdown(rows: Sequence[Row]) -> str:
    """The table, with date, machine and load."""
    libraries = ", ".join(f"{name} {version}" for name, version in _libraries().items())
    head = (
        f"{time.strftime('%Y-%m-%d', time.gmtime())}. {machine()}. Python {sys.version.split()[0]}; {libraries}. "
        f"Load average: {os.getloadavg()[0]:.1f}. Receivers answer after {LATENCY * 1000:.0f} ms."
    )
    lines = ["| " + " | ".join(HEAD) + " |", "|---|---|" + "---:|" * (len(HEAD) - 3) + "---|"]
    lines += ["| " + " | ".join(line) + " |" for line in table(rows)]
    return head + "\n\n" + "\n".join(lines) + "\n"


def kept(path: Path | None) -> list[Row]:
    """The figures of earlier runs."""
    return msgspec.json.decode(path.read_bytes(), type=list[Row]) if path is not None and path.exists() else []


def _place(row: Row) -> tuple[int, int, int]:
    return list(LABELS).index(row.kind), DESTINATIONS.index(row.destination), row.threads


def _libraries() -> dict[str, str]:
    return {name: version(name) for name in (*LIBRARIES[:1], "isal", "httpx", "elasticsearch", "confluent-kafka")}


def write_markdown(path: Path, rows: Sequence[Row]) -> None:
    """Replace the block between the markers of ``path``."""
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{path} has no {BEGIN} ... {END}")
    path.write_text(f"{before}{BEGIN}\n\n{as_markdown(rows)}\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(DESTINATIONS), help="which destinations")
    parser.add_argument("--kinds", default=",".join(LABELS), help="which events")
    parser.add_argument("--threads", default=",".join(map(str, THREADS)), help="how many threads")
    parser.add_argument("--seconds", type=float, default=1.5, help="how long each of three windows takes (1.5)")
    parser.add_argument("--events", type=int, default=10_000, help="different events of each kind (10,000)")
    parser.add_argument("--markdown", type=Path, help="replace the table in this file (docs/benchmarks.md)")
    parser.add_argument(
        "--rows", type=Path, help="keep the figures in this file, so that short runs add up to one table"
    )
    parser.add_argument("--receive", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.receive:
        receive(options.receive)
        return
    rows = kept(options.rows)
    for kind in options.kinds.split(","):
        events = events_of(kind, options.events if kind == "cloudtrail" else options.events // 4)
        for name in options.only.split(","):
            for threads in map(int, options.threads.split(",")):
                row = measure(name, kind, events, threads, options.seconds)
                rows = [one for one in rows if _place(one) != _place(row)] + [row]
                print("  ".join(table([row])[0]), flush=True)
    rows.sort(key=_place)
    if options.rows:
        options.rows.write_bytes(msgspec.json.encode(rows))
    print(f"\n{as_markdown(rows)}")
    if options.markdown:
        write_markdown(options.markdown, rows)


if __name__ == "__main__":
    main()
