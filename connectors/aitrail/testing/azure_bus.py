"""A Kafka broker of others (noida-db, a package) for consumers under test, and small ways to fill it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

_START_SECONDS = 60.0
_ATTEMPTS = 3
_GRACE_SECONDS = 0.1


def missing() -> str:
    """Say why the broker cannot run here; empty when it can."""
    if Path(sys.executable).with_name("noida-db").exists():
        return ""
    return "noida-db is not installed: pip install noida-db==0.2.3"


class Bus:
    """A running broker on 127.0.0.1."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        program = str(Path(sys.executable).with_name("noida-db"))
        options = ["start", "--data-dir", str(directory), "--only", "kafka", "--kafka-port", str(self.port)]
        self._process = subprocess.Popen(  # noqa: S603 - a fixed command
            [program, *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # the program starts the broker as its child: both are ended together
        )
        try:
            self._admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
            self._producer = Producer({"bootstrap.servers": self.address, "log_level": 0, "linger.ms": 1})
            self._wait()
        except BaseException:
            self.stop()
            raise

    def topic(self, name: str, partitions: int) -> None:
        """Make a topic."""
        for future in self._admin.create_topics([NewTopic(name, partitions, 1)]).values():
            future.result(30)
        until = time.monotonic() + _START_SECONDS
        while len(self._admin.list_topics(name, timeout=5).topics[name].partitions) < partitions:
            if time.monotonic() > until:
                raise RuntimeError("the topic does not appear")

    def delete_topic(self, name: str) -> None:
        """Delete a topic."""
        for future in self._admin.delete_topics([name]).values():
            future.result(30)

    def send(self, topic: str, partition: int, messages: Iterable[bytes | None]) -> None:
        """Append messages to a partition; None is a tombstone."""
        for message in messages:
            while True:
                try:
                    self._producer.produce(topic, message, key=b"k", partition=partition, headers={"h": b"1"})
                    break
                except BufferError:
                    self._producer.poll(0.1)
        if self._producer.flush(60):
            raise RuntimeError("the broker does not take messages")

    def expire(self, topic: str, partition: int, before: int) -> None:
        """Remove the messages before an offset, as retention does."""
        for future in self._admin.delete_records([TopicPartition(topic, partition, before)]).values():
            future.result(30)

    def committed(self, group: str, topic: str, partitions: int) -> list[int]:
        """The group's offsets; below zero: none."""
        consumer = Consumer({"bootstrap.servers": self.address, "group.id": group, "log_level": 0})
        try:
            wanted = [TopicPartition(topic, number) for number in range(partitions)]
            return [one.offset for one in consumer.committed(wanted, timeout=30)]
        finally:
            consumer.close()

    def stop(self) -> None:
        """End it."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
                if number == signal.SIGTERM:
                    time.sleep(_GRACE_SECONDS)

    def _wait(self) -> None:
        until = time.monotonic() + _START_SECONDS
        while True:
            with contextlib.suppress(KafkaException, OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                if self._admin.list_topics(timeout=5).brokers:
                    return
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError("the broker does not start")
            time.sleep(0.05)


@contextlib.contextmanager
def bus(directory: Path) -> Iterator[Bus]:
    """A broker for a while."""
    directory.mkdir(parents=True, exist_ok=True)
    running: Bus | None = None
    for attempt in range(_ATTEMPTS):  # another port when somebody took the one that was free a moment ago
        try:
            running = Bus(Path(tempfile.mkdtemp(dir=directory)))
            break
        except RuntimeError:
            if attempt + 1 == _ATTEMPTS:
                raise
    assert running is not None
    try:
        yield running
    finally:
        running.stop()
