"""From a configuration file to the store: blobs (Azurite) and Kafka (noida-db) through `aitrail collect`."""

import os
import time
from datetime import UTC, datetime

import pytest

from aitrail.config import load
from aitrail.runtime.collect import collect
from aitrail.store.reader import StoreReader
from aitrail.testing.azure_flow import APIM, gateway, lines, llm

azure_storage = pytest.importorskip("aitrail.testing.azure_storage", reason="needs the extra azure")
azure_bus = pytest.importorskip("aitrail.testing.azure_bus", reason="needs the extra kafka")


@pytest.fixture
def servers(tmp_path):
    why = azure_storage.missing() or azure_bus.missing()
    if why:
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    with azure_bus.bus(tmp_path / "bus") as bus:
        yield azure_storage.azurite(), bus


def test_gateway_logs_of_blobs_and_messages_of_kafka_reach_the_store(servers, tmp_path, monkeypatch):
    emulator, bus = servers
    monkeypatch.setenv("STORE", emulator.connection_string)
    bus.topic("insights", 2)
    bus.send("insights", 0, [b'{"records":[' + b",".join(gateway(n) for n in range(100, 120)) + b"]}"])
    bus.send("insights", 1, [b'{"records":[' + b",".join(llm(n) for n in range(100, 120)) + b"]}"])
    moment = datetime.fromtimestamp(time.time(), UTC)
    name = f"resourceId={APIM}/y={moment:%Y}/m={moment:%m}/d={moment:%d}/h={moment:%H}/m=00/PT1H.json"
    path = tmp_path / "aitrail.toml"
    path.write_text(
        f"""
[sources.gateway]
type = "azure_blobs"
connection_string = "env:STORE"
containers = ["insights-logs-gateway*"]

[sources.bus]
type = "kafka"
brokers = ["{bus.address}"]
topics = ["insights"]
security = "plaintext"
"""
    )
    with (
        emulator.container("insights-logs-gatewaylogs") as who,
        emulator.container("insights-logs-gatewayllmlogs") as what,
    ):
        for container, rows in ((who, [gateway(n) for n in range(20)]), (what, [llm(n) for n in range(20)])):
            with container.get_blob_client(name) as blob:
                blob.create_append_blob()
                blob.append_block(lines(rows))
        outcome = collect(load(path))
        assert (outcome.totals.records, outcome.totals.new) == (80, 40)
        again = collect(load(path))
        assert (again.totals.records, again.totals.new) == (0, 0)
    rows = StoreReader(tmp_path / "aitrail-store").query(
        "SELECT count(DISTINCT user_id), count(DISTINCT event_id), count(*), sum(token_count) FROM events"
    )
    assert rows.rows == [(40, 40, 40, 1_600)]
