"""Standard output keeps the promise as far as a stream without acknowledgement can."""

from pathlib import Path
from typing import BinaryIO

from aitrail.destinations.stdout import StdoutDestination
from aitrail.ports import Destination
from aitrail.testing.conformance import CASES, run_conformance
from aitrail.testing.local_peers import LinesPeer
from aitrail.testing.peer import Peer

STREAMS: list[BinaryIO] = []


def make(peer: Peer) -> Destination:
    STREAMS.append(Path(peer.address["path"]).open("ab"))  # noqa: SIM115 - closed by the test
    return StdoutDestination(STREAMS[-1], terminal=False)


def test_stdout_keeps_the_promise():
    peer = LinesPeer()
    # It carries bytes as they are and refuses nothing, so bytes that are no event (F14, F26) come out as they went in.
    try:
        report = run_conformance(make, peer, only=CASES.keys() - {"F14", "F26"})
    finally:
        for stream in STREAMS:
            stream.close()
        peer.close()
    assert report.ok, report.problems
    assert {row.case for row in report.rows if row.outcome == "pass"} >= {"F0", "F13", "F17", "F25"}
