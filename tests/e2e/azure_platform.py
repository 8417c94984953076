"""The platform of a function app for tests: identity endpoint, state in Azurite, Sentinel's endpoint, workers."""

import contextlib
import itertools
import os

import msgspec
import pytest

from aitrail.runtime.scheduled.azure_line import Line
from aitrail.runtime.scheduled.azure_state import DeadLetters, WaitingEvents
from aitrail.testing import azure_storage
from aitrail.testing.azure_function import IdentityEndpoint, Worker
from aitrail.testing.azure_state import secure_azurite
from aitrail.testing.dce_peer import DCR, dce_peer

names = itertools.count()
CONFIG = """
[tenants.default]
key = "env:AITRAIL_HASH_KEY"
[destinations.sentinel]
type = "sentinel"
url = "{url}"
dcr = "{dcr}"
ca_file = "{ca_file}"
streams = ["access"]
"""
HUB = """
[sources.hub]
type = "event_hubs"
namespace = "acme.servicebus.windows.net"
event_hub = "ai-logs"
consumer_group = "aitrail"
start = "earliest"
"""
BLOBS = """
[sources.blobs]
type = "azure_blobs"
connection_string = "env:LOGS"
containers = ["{container}"]
"""


class Platform:
    """What a test needs of the platform."""

    def __init__(self, server, identity, peer, monkeypatch):
        self.server, self.identity, self.peer = server, identity, peer
        self.state = server.container(f"aitrail-{os.getpid()}-{next(names)}")
        self.blobs = server.blobs(self.state)
        self.workers = []
        self.environment = {
            **identity.settings,
            "AITRAIL_STATE_URL": self.state,
            "AITRAIL_STATE_CA_FILE": server.ca_file,
            "AITRAIL_HASH_KEY": "0123456789abcdef0123456789abcdef",
            "AITRAIL_SCHEDULE": "0 */5 * * * *",
        }
        for name in ("IDENTITY_ENDPOINT", "IDENTITY_HEADER", "AITRAIL_HASH_KEY", "AZURE_CLIENT_ID"):
            monkeypatch.setenv(name, self.environment[name])

    def worker(self, sources=HUB, **more):
        config = CONFIG.format(url=self.peer.address["url"], dcr=DCR, ca_file=self.peer.address["ca_file"]) + sources
        worker = Worker(self.environment | {"AITRAIL_CONFIG": config} | more)
        self.workers.append(worker)
        return worker

    def arrived(self):
        """The request ids of the rows that Sentinel has, in order."""
        rows = [row for uid in self.peer.received() for row in self.peer.bodies(uid)[:1]]
        return [msgspec.json.decode(row).get("RequestId", "") for row in rows]

    def dead(self):
        return list(DeadLetters(self.blobs).all())

    def waiting(self):
        store = WaitingEvents(self.blobs)
        return [event for blob in store.listed() for event in store.read(blob)]


@contextlib.contextmanager
def platform_of(monkeypatch):
    """A platform for one test."""
    why = azure_storage.missing()
    if why:
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    identity = IdentityEndpoint()
    peer = dce_peer(tls=True)
    identity.tokens["https://monitor.azure.com"] = lambda: peer._token
    made = Platform(secure_azurite(), identity, peer, monkeypatch)
    try:
        yield made
    finally:
        made.blobs.close()
        for worker in made.workers:
            worker.close()
        peer.close()
        identity.close()


def lines_of(caplog):
    """The lines that the runs wrote."""
    return [msgspec.json.decode(one.message, type=Line) for one in caplog.records if one.name == "aitrail.run"]


def records(*some):
    return b'{"records":[' + b",".join(some) + b"]}"
