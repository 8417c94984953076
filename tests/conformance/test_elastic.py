"""The Elastic destination keeps every promise of the suite, over plain HTTP and over TLS."""

import pytest

from aitrail.destinations._elastic_settings import ElasticSettings
from aitrail.destinations.elastic import ElasticDestination
from aitrail.secrets import Secrets
from aitrail.testing.conformance import run_conformance
from aitrail.testing.elastic_peer import elastic_peer
from aitrail.testing.peer import Peer


def make(peer: Peer) -> ElasticDestination:
    address = peer.address
    settings = ElasticSettings(
        urls=(address["url"],),
        api_key=f"file:{address['token_file']}",
        namespace=address["namespace"],
        ca_file=address["ca_file"],
        proxy=address["proxy"] or "none",
        batch_events=100,
        batch_bytes=300_000,
        event_bytes=150_000,
        request_seconds=10.0,
    )
    return ElasticDestination(settings, Secrets())


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_elastic_keeps_the_promise(tls):
    peer = elastic_peer(tls=tls)
    try:
        first = make(peer)
        first.install()
        first.close()
        report = run_conformance(make, peer, kills=5)
    finally:
        peer.close()
    assert report.ok, report.problems
    assert {row.case for row in report.rows if row.outcome == "skip"} <= {"F11"}
