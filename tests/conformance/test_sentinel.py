"""The Sentinel destination keeps every promise of the suite, over plain HTTP and over TLS."""

import time
from pathlib import Path

import pytest

from aitrail.destinations._sentinel_settings import SentinelSettings
from aitrail.destinations.sentinel import SentinelDestination
from aitrail.testing.conformance import run_conformance
from aitrail.testing.dce_peer import dce_peer
from aitrail.testing.peer import Peer


class Given:
    """A token as azure-identity gives it."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.expires_on = int(time.time()) + 3600


class FileCredential:
    """Gives whatever token is in the peer's file."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def get_token(self, *scopes: str) -> Given:
        assert scopes == ("https://monitor.azure.com/.default",)
        return Given(self._path.read_text())


def make(peer: Peer) -> SentinelDestination:
    address = peer.address
    settings = SentinelSettings(
        url=address["url"],
        dcr=address["dcr"],
        ca_file=address["ca_file"],
        proxy=address["proxy"] or "none",
        batch_events=100,
        batch_bytes=300_000,
        event_bytes=150_000,
        request_seconds=10.0,
    )
    return SentinelDestination(settings, FileCredential(address["token_file"]))


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_sentinel_keeps_the_promise(tls):
    peer = dce_peer(tls=tls)
    try:
        report = run_conformance(make, peer, kills=5)
    finally:
        peer.close()
    assert report.ok, report.problems
    assert {row.case for row in report.rows if row.outcome == "skip"} <= {"F9", "F11"}
    assert peer.dialect.cut == 0
    assert peer.dialect.over == 0
