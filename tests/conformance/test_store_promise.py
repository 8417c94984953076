"""The embedded store keeps the promise: what is called delivered is there, each event once."""

from pathlib import Path

from aitrail.destinations.store import StoreDestination
from aitrail.ports import Destination
from aitrail.testing.conformance import run_conformance
from aitrail.testing.local_peers import StorePeer
from aitrail.testing.peer import Peer


def make(peer: Peer) -> Destination:
    return StoreDestination(None, Path(peer.address["path"]))


def test_store_keeps_the_promise():
    peer = StorePeer()
    try:
        report = run_conformance(make, peer)
    finally:
        peer.close()
    assert report.ok, report.problems
    assert {row.case for row in report.rows if row.outcome == "pass"} >= {"F0", "F1", "F3", "F14", "F17", "F25", "F26"}
