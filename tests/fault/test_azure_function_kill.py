"""kill -9 of function workers at random points: nothing is lost, and at most the batch in flight comes twice.

The host around a worker is played as it behaves: the pointer of a partition moves when the function returns, and a
worker that dies is given the same batch again.
"""

import base64
import contextlib
import itertools
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from aitrail.runtime.scheduled.azure_state import DeadLetters, WaitingEvents
from aitrail.testing.azure_flow import APIM, audit, correlation, lines
from aitrail.testing.dce_peer import DCR, dce_peer

azure_storage = pytest.importorskip("aitrail.testing.azure_storage", reason="needs the extra azure")
pytest.importorskip("azure.functions", reason="needs the dev extra")
from aitrail.testing.azure_function import IdentityEndpoint  # noqa: E402
from aitrail.testing.azure_state import secure_azurite  # noqa: E402

KILLS = {"hub": 60, "poll": 42}
PER_BATCH = 30
# Lives follow the machine, whatever else it does: a killed one makes the next ones longer, a whole one shorter.
LONGER, SHORTER = 1.15, 0.8
POISON = b'{"records":[{"time":"x"}]} no'
CONFIG = """
[tenants.default]
key = "env:AITRAIL_HASH_KEY"
[destinations.sentinel]
type = "sentinel"
url = "{url}"
dcr = "{dcr}"
ca_file = "{ca_file}"
batch_events = 10
streams = ["access"]
[sources.hub]
type = "event_hubs"
namespace = "acme.servicebus.windows.net"
event_hub = "ai-logs"
start = "earliest"
[sources.blobs]
type = "azure_blobs"
connection_string = "env:LOGS"
containers = ["{container}"]
"""
_names = itertools.count()


class Host:
    """What starts workers, and what they talk to."""

    def __init__(self, container: str) -> None:
        server = secure_azurite()
        self.identity = IdentityEndpoint()
        self.peer = dce_peer(tls=True, latency=0.01)
        self.identity.tokens["https://monitor.azure.com"] = lambda: self.peer._token
        state = server.container(f"kill-{os.getpid()}-{next(_names)}")
        self.blobs = server.blobs(state)
        address = self.peer.address
        config = CONFIG.format(url=address["url"], dcr=DCR, ca_file=address["ca_file"], container=container)
        settings = {
            **self.identity.settings,
            "AITRAIL_CONFIG": config,
            "AITRAIL_STATE_URL": state,
            "AITRAIL_STATE_CA_FILE": server.ca_file,
            "AITRAIL_HASH_KEY": "0123456789abcdef0123456789abcdef",
            "AITRAIL_LEASE_SECONDS": "0.02",
            "AITRAIL_PUSH_SECONDS": "60",
            "LOGS": azure_storage.azurite().connection_string,
        }
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("azure_function_worker.py")), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **settings},
        )
        self.kills = 0
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def call(self, function: str, life: float = 0.0, **more) -> tuple[int, float]:
        """Call a function in a worker that lives for ``life`` seconds; gives its status and how long it took."""
        self.process.stdin.write(json.dumps({"function": function, "life": life, **more}) + "\n")
        self.process.stdin.flush()
        found = json.loads(self.process.stdout.readline())
        assert found["status"] in (0, 1, -9), found
        self.kills += found["status"] == -9
        return found["status"], found["seconds"]

    def arrived(self) -> Counter:
        """How often each request is in Sentinel."""
        rows = [msgspec.json.decode(body) for uid in set(self.peer.received()) for body in self.peer.bodies(uid)]
        return Counter(row["RequestId"] for row in rows)

    def waiting(self) -> int:
        store = WaitingEvents(self.blobs)
        return sum(len(store.read(blob)) for blob in store.listed())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(60)
        self.blobs.close()
        self.peer.close()
        self.identity.close()


@pytest.fixture
def container():
    why = azure_storage.missing()
    if why:
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    with azure_storage.azurite().container(f"insights-logs-{os.getpid()}-{next(_names)}") as made:
        yield made


@pytest.fixture
def host(container):
    running = Host(container.container_name)
    with contextlib.closing(running):
        yield running


def batch_of(number: int) -> tuple[dict, list[str]]:
    """The messages of a batch: records by ones and by threes, and one that is no record."""
    numbers = list(range(number * PER_BATCH, (number + 1) * PER_BATCH))
    bodies = [b'{"records":[' + b",".join(audit(one) for one in numbers[at : at + 3]) + b"]}" for at in range(0, 15, 3)]
    bodies += [audit(one) for one in numbers[15:]] + [POISON]
    packed = [base64.b64encode(body).decode() for body in bodies]
    return {"bodies": packed, "first": number * 100}, [correlation(one) for one in numbers]


def test_killed_hub_workers_lose_nothing(host):
    random_ = random.Random(20261123)
    call, _ = batch_of(0)
    status, calm = host.call("hub_hub", loud=True, **call)
    assert status == 0
    killed: Counter = Counter()
    expected: set[str] = set(batch_of(0)[1])
    number, longest = 0, calm
    while host.kills < KILLS["hub"]:
        number += 1
        call, wanted = batch_of(number)
        expected.update(wanted)
        away = number % 8 == 1
        if away:  # the destination takes nothing: what is kept then, and sent later, is killed, too
            host.peer.dialect.role = False
        while True:
            status, _ = host.call("hub_hub", random_.uniform(longest / 8, longest), **call)
            if status == 0:
                longest *= SHORTER
                break
            killed.update(wanted)
            longest *= LONGER
        host.peer.dialect.role = True
    while host.waiting():
        status, _ = host.call("waiting", random_.uniform(0.02, calm))
        if status != 0:
            killed.update(expected)
            calm *= 1.1
    arrived = host.arrived()
    assert set(arrived) == expected, f"lost {len(expected - set(arrived))}"
    too_often = {one: times for one, times in arrived.items() if times > 1 + killed[one]}
    assert not too_often, "more repeats than kills of the batch"
    dead = list(DeadLetters(host.blobs).all())
    assert {one.position for one in dead} >= {each * 100 + 20 for each in range(number + 1)}
    repeats = arrived.total() - len(arrived)
    print(f"{host.kills} kills over {number} batches of {PER_BATCH}: lost 0, repeated {repeats}")


def test_killed_polls_lose_nothing(host, container):
    random_ = random.Random(20261124)
    moment = datetime.fromtimestamp(time.time(), UTC)
    paths = [
        f"resourceId={APIM}-{one}/y={moment:%Y}/m={moment:%m}/d={moment:%d}/h={moment:%H}/m=00/PT1H.json"
        for one in range(3)
    ]
    blobs = [container.get_blob_client(path) for path in paths]
    for blob in blobs:
        blob.create_append_blob()
    written = 0

    def write(count: int) -> None:
        nonlocal written
        for blob in blobs:
            blob.append_block(lines([audit(one) for one in range(written, written + count)]))
            written += count

    write(40)
    status, calm = host.call("poll_blobs", loud=True)
    assert status == 0
    longest = calm
    while host.kills < KILLS["poll"]:
        write(40)
        while True:
            status, _ = host.call("poll_blobs", random_.uniform(longest / 4, longest))
            if status == 0:
                longest *= SHORTER
                break
            longest *= LONGER
    until = time.monotonic() + 60
    expected = {correlation(one) for one in range(written)}
    while set(host.arrived()) != expected or host.waiting():
        assert time.monotonic() < until, f"lost {len(expected - set(host.arrived()))}"
        host.call("poll_blobs")
        host.call("waiting")
    arrived = host.arrived()
    repeats = arrived.total() - len(arrived)
    # Commits are of about 25 events, or of one batch of the source where that is more.
    assert repeats <= host.kills * 100
    for blob in blobs:
        blob.close()
    print(f"{host.kills} kills over {written} rows: lost 0, repeated {repeats}")
