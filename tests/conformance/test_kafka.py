"""The conformance suite for the Kafka destination, and brokers that others wrote, read back with a consumer."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

confluent_kafka = pytest.importorskip("confluent_kafka") if not os.environ.get("CI") else __import__("confluent_kafka")

from aitrail.destinations._kafka_settings import KafkaSettings  # noqa: E402
from aitrail.destinations.kafka import KafkaDestination  # noqa: E402
from aitrail.event import SCHEMA_VERSION  # noqa: E402
from aitrail.ports import Destination  # noqa: E402
from aitrail.secrets import Secrets  # noqa: E402
from aitrail.testing.conformance import CASES, run_conformance  # noqa: E402
from aitrail.testing.events import hostile_events, make_events, oversize_event  # noqa: E402
from aitrail.testing.kafka_peer import KafkaPeer  # noqa: E402
from aitrail.testing.peer import Peer  # noqa: E402


def settings(peer: Peer, **changes: object) -> KafkaSettings:
    there = peer.address
    secured = there["security"] != "plaintext"
    return KafkaSettings(
        **{
            "brokers": (there["brokers"],),
            "topic": there["topic"],
            "security": there["security"],
            "mechanism": "PLAIN",
            "username": there["username"],
            "password": f"file:{there['token_file']}",
            "ca_file": there["ca_file"],
            # Without compression the receiver's limits are met (F12).
            "compression": "zstd" if secured else "none",
            "event_bytes": 200_000,
            "down_seconds": 0.4,
            "close_seconds": 1.0,
            # The peer listens on IPv4 only, and a first try on IPv6 costs each new producer half a second.
            "extra": {"broker.address.family": "v4"},
            **changes,
        }
    )


def make(peer: Peer) -> Destination:
    return KafkaDestination(settings(peer), Secrets())


@pytest.fixture(params=["plain", "sasl and tls"])
def peer(request: pytest.FixtureRequest) -> Iterator[KafkaPeer]:
    secured = request.param == "sasl and tls"
    running = KafkaPeer(tls=secured, sasl=secured)
    yield running
    running.close()


def test_kafka_keeps_the_promise(peer: KafkaPeer) -> None:
    secured = peer.address["security"] != "plaintext"
    # Names that do not resolve and wrong certificates are the same whatever the peer speaks: they are shown once.
    cases = CASES if secured else [case for case in CASES if not case.startswith(("F29", "F30"))]
    report = run_conformance(make, peer, cases, kills=20 if secured else 5)
    assert report.ok, report.problems
    shown = {row.case for row in report.rows if row.outcome == "pass"}
    assert {"F0", "F1", "F3", "F6", "F7", "F8", "F10", "F12", "F15", "F27", "F33"} <= shown
    assert not secured or {"F29a", "F30a", "F30b", "F30c", "F30d"} <= shown


# --- brokers that others wrote


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _noida(directory: Path) -> Iterator[str]:
    binary = Path(sys.executable).with_name("noida-db")
    if not binary.exists():
        if os.environ.get("CI"):
            pytest.fail("noida-db is not installed: it is one of the dev dependencies")
        pytest.skip("noida-db is not installed: pip install noida-db==0.2.3")
    port = _free_port()
    command = [str(binary), "start", "--data-dir", str(directory), "--only", "kafka", "--kafka-port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(200):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


def _mock(directory: Path) -> Iterator[str]:
    # librdkafka's own mock cluster: a real TCP broker inside this process.
    owner = confluent_kafka.Producer({"bootstrap.servers": "ignored", "test.mock.num.brokers": 1, "log_level": 0})
    brokers = owner.list_topics(timeout=5).brokers
    yield ",".join(f"{one.host}:{one.port}" for one in brokers.values())
    del owner


@pytest.fixture(params=[_noida, _mock], ids=["noida-db", "librdkafka mock"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    yield from request.param(tmp_path)


def _consume(broker: str, topic: str, count: int) -> list[object]:
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": broker,
            "group.id": "auditor",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "log_level": 0,
        }
    )
    found: list[object] = []
    try:
        partitions = consumer.list_topics(topic, timeout=5).topics[topic].partitions
        consumer.assign([confluent_kafka.TopicPartition(topic, number, 0) for number in partitions])
        until = time.monotonic() + 20
        while len(found) < count and time.monotonic() < until:
            found += [one for one in consumer.consume(1_000, 0.5) if one.error() is None]
    finally:
        consumer.close()
    return found


@pytest.mark.parametrize("codec", ["zstd", "lz4", "none"])
def test_a_real_broker_gives_back_what_was_delivered(broker: str, codec: str) -> None:
    topic = f"aitrail.{codec}"
    destination = KafkaDestination(
        KafkaSettings(brokers=(broker,), topic=topic, security="plaintext", compression=codec, event_bytes=200_000)
    )
    events = [*make_events(2_000, "real"), *hostile_events("hard"), oversize_event(0, 300_000)]
    try:
        ack = destination.send(events, time.monotonic() + 20)
        assert {verdict.status for verdict in ack.verdicts} == {"delivered"}
        # Nothing is left behind a send: a stop has nothing to wait for.
        started = time.monotonic()
    finally:
        destination.close()
    assert time.monotonic() - started < 4.5  # it waits five seconds for what is left
    found = _consume(broker, topic, len(events))
    assert len(found) == len(events)
    by_id = {dict(one.headers())["event_id"].decode(): one for one in found}
    places: dict[bytes, set[int]] = {}
    for event in events[:-1]:
        one = by_id[event.event_id]
        assert one.value() == event.body
        assert dict(one.headers())["schema_version"] == SCHEMA_VERSION.encode()
        places.setdefault(one.key(), set()).add(one.partition())
    assert len(by_id[events[-1].event_id].value()) <= 200_000
    assert b'"truncated":true' in by_id[events[-1].event_id].value()
    assert b"acme/user3" in places
    assert all(len(partitions) == 1 for partitions in places.values())
