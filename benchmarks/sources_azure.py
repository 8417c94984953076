"""How fast the Azure and bus sources are: from a local server in another process into the outbox, classifier included.

    python benchmarks/sources_azure.py                              all of them, about a minute
    python benchmarks/sources_azure.py --only kafka --events 100000

Azure diagnostics records of 1.1 kB (RequestResponse). ``events/s`` is wall time, ``per CPU second`` counts the CPU of
this process alone; the servers have theirs (Azurite on node, noida-db, the made-up workspace). The event hub has no
server: its link hands out messages from memory. ``again`` is the share of records that a second look, with nothing new,
fetches once more, and ``look`` how long that takes.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aitrail.classify.default import DefaultClassifier
from aitrail.clock import SystemClock
from aitrail.enrich import Directory
from aitrail.normalize.outcome import Context
from aitrail.pipeline import Pipeline
from aitrail.ports import Source
from aitrail.privacy.keys import KeyRing
from aitrail.privacy.treat import Privacy
from aitrail.secrets import Secrets
from aitrail.sources._azure_blobs_settings import AzureBlobsSettings
from aitrail.sources._event_hubs_settings import EventHubsSettings
from aitrail.sources._kafka_settings import KafkaSourceSettings
from aitrail.sources._log_analytics_settings import LogAnalyticsSettings
from aitrail.sources.azure_blobs import AzureBlobsSource
from aitrail.sources.event_hubs import EventHubsSource
from aitrail.sources.kafka import KafkaSource
from aitrail.sources.log_analytics import LogAnalyticsSource
from aitrail.spool import Spool
from aitrail.testing import azure_bus, azure_event_hubs, azure_logs
from aitrail.testing.azure_flow import OPENAI, audit, correlation
from aitrail.testing.azure_storage import azurite
from aitrail.transform import Transform

CLOCK = SystemClock()
PARTITIONS = 4
_PAD = 1_100


def records(count: int) -> Iterator[bytes]:
    """Records of 1.1 kB."""
    for number in range(count):
        one = audit(number)
        yield one[:-1] + b',"level":"' + b"x" * max(0, _PAD - len(one)) + b'"}'


@contextmanager
def blobs(count: int) -> Iterator[Source]:
    """Ten blobs of one container, five hours of two resources."""
    server = azurite()
    os.environ["BENCH_STORE"] = server.connection_string
    found = list(records(count))
    part = max(1, count // 10)
    with server.container("insights-logs-requestresponse") as container:
        for number in range(10):
            moment = datetime.fromtimestamp(time.time() - 3_600 * (number // 2), UTC)
            name = f"resourceId={OPENAI}{number % 2}/y={moment:%Y/m=%m/d=%d/h=%H}/m=00/PT1H.json"
            with container.get_blob_client(name) as blob:
                blob.create_append_blob()
                mine = found[number * part : (number + 1) * part]
                for start in range(0, len(mine), 2_000):
                    blob.append_block(b"".join(one + b"\n" for one in mine[start : start + 2_000]))
        yield AzureBlobsSource(
            AzureBlobsSettings(connection_string="env:BENCH_STORE"),
            name="bench",
            clock=CLOCK,
            key=b"key",
            secrets=Secrets(),
        )


@contextmanager
def kafka(count: int) -> Iterator[Source]:
    """A topic of four partitions, one record a message."""
    with tempfile.TemporaryDirectory() as folder, azure_bus.bus(Path(folder)) as bus:
        bus.topic("bench", PARTITIONS)
        found = list(records(count))
        for partition in range(PARTITIONS):
            bus.send("bench", partition, found[partition::PARTITIONS])
        settings = KafkaSourceSettings(brokers=(bus.address,), topics=("bench",), security="plaintext")
        yield KafkaSource(settings, name="bench", clock=CLOCK, secrets=Secrets())


@contextmanager
def event_hubs(count: int) -> Iterator[Source]:
    """A hub of four partitions; ten records a message, as diagnostic settings send them."""
    os.environ["BENCH_HUB"] = "Endpoint=sb://acme.example.com/;SharedAccessKeyName=l;SharedAccessKey=bm8=;EntityPath=h"
    hub = azure_event_hubs.Hub(PARTITIONS)
    found = list(records(count))
    messages = [b'{"records":[' + b",".join(found[at : at + 10]) + b"]}" for at in range(0, count, 10)]
    for partition in range(PARTITIONS):
        hub.send(partition, messages[partition::PARTITIONS])
    settings = EventHubsSettings(
        event_hub="h", connection_string="env:BENCH_HUB", start="earliest", balance_seconds=0.2
    )
    yield EventHubsSource(
        settings, name="bench", clock=CLOCK, secrets=Secrets(), client=azure_event_hubs.client_of(hub)
    )


def _serve(count: int, seconds: float, pipe: Any) -> None:
    workspace = azure_logs.LogsWorkspace(CLOCK)
    now = CLOCK.now()
    for number in range(count):
        ingested = now - seconds * (1 - number / count) - 130
        stamp = f"{datetime.fromtimestamp(ingested - 60, UTC):%Y-%m-%dT%H:%M:%S.%f}0Z"
        row = azure_logs.diagnostics_row(correlation(number), stamp)
        row["Level"] = "x" * 300
        workspace.add("AzureDiagnostics", [row], ingested=ingested)
    pipe.send((workspace.url, workspace.ca_file, workspace.token))
    pipe.recv()
    workspace.close()


class _Fixed:
    def __init__(self, token: str) -> None:
        self._token = token

    def get_token(self, *_scopes: str) -> Any:
        return azure_logs.Token(self._token, int(CLOCK.now()) + 3_600)


@contextmanager
def log_analytics(count: int) -> Iterator[Source]:
    """One table, an hour of rows."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(count, 3_600.0, theirs))
    server.start()
    url, ca_file, token = ours.recv()
    settings = LogAnalyticsSettings(
        workspace_id=azure_logs.WORKSPACE,
        tables=("AzureDiagnostics",),
        endpoint=url,
        ca_file=ca_file,
        proxy="none",
        window_seconds=600.0,
        start=datetime.fromtimestamp(CLOCK.now() - 7_200, UTC).isoformat(),
    )
    try:
        yield LogAnalyticsSource(settings, name="bench", clock=CLOCK, key=b"key", credential=_Fixed(token))
    finally:
        ours.send(None)
        server.join()


SOURCES: dict[str, Callable[[int], Any]] = {
    "azure_blobs": blobs,
    "kafka": kafka,
    "event_hubs": event_hubs,
    "log_analytics": log_analytics,
}


class _Counted:
    """Counts what a source hands out, before anything is recognised as known."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self.records = 0
        self.bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def fetch(self, cursors: Any, budget: Any) -> Iterator[Any]:
        for batch in self._source.fetch(cursors, budget):
            self.records += len(batch.records)
            self.bytes += batch.bytes_read
            yield batch


def measure(name: str, count: int, classifier: DefaultClassifier) -> str:
    with SOURCES[name](count) as source, tempfile.TemporaryDirectory() as folder:
        counted: Any = _Counted(source)
        spool = Spool.open(Path(folder), CLOCK)
        ring = KeyRing(Path(folder) / "keys", {}, Secrets())
        pipeline = Pipeline(
            counted,
            spool=spool,
            transform=Transform(classifier, Privacy(ring), Directory(), lambda _tenant: "redacted"),
            context=Context(tenant_id="acme"),
            destinations=("store",),
            clock=CLOCK,
        )
        wall, cpu = time.perf_counter(), time.process_time()
        done = pipeline.run()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        first = counted.bytes
        look = time.perf_counter()
        again = pipeline.run()
        look = time.perf_counter() - look
        share = (counted.bytes - first) / max(1, first)
        source.close()
        spool.close()
    assert (done.new, again.new) == (count, 0), (done, again)
    return (
        f"{name:14} {count / wall:9,.0f} events/s {count / cpu:9,.0f} per CPU second   "
        f"again {100 * share:5.1f} % of the bytes, {again.records} records, look {look:5.2f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SOURCES), help="sources, separated by commas")
    parser.add_argument("--events", type=int, default=50_000)
    options = parser.parse_args()
    classifier = DefaultClassifier()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {options.events:,} records of about {_PAD} bytes")
    for name in options.only.split(","):
        print(measure(name, options.events, classifier), flush=True)


if __name__ == "__main__":
    main()
