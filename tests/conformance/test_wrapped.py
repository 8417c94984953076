"""What destinations are wrapped in - kinds of events, content, fields - keeps the promise, delayed acks included."""

import sys
import time
from pathlib import Path

from aitrail.event import AccessEvent
from aitrail.ports import Destination
from aitrail.routing.by_stream import ByStream
from aitrail.routing.route import Shaped
from aitrail.routing.shape import reshaping
from aitrail.streams import encoded, example_finding
from aitrail.testing.conformance import run_conformance
from aitrail.testing.events import make_events
from aitrail.testing.hec_peer import HecPeer
from aitrail.testing.peer import Peer

sys.path.insert(0, str(Path(__file__).parent))
from test_splunk import make as bare


def never(event: AccessEvent) -> None:
    raise AssertionError(event.event_id)


def make(peer: Peer) -> Destination:
    reshape = reshaping("full", (), never)
    assert reshape is not None
    return Shaped(ByStream(bare(peer), {"finding": bare(peer)}), reshape)


def test_the_wrapping_keeps_the_promise() -> None:
    peer = HecPeer(ack=True)
    try:
        report = run_conformance(make, peer, kills=2)
    finally:
        peer.close()
    assert report.ok, report.problems


def test_each_kind_is_confirmed_by_the_one_that_sent_it() -> None:
    peer = HecPeer(ack=True)
    destination = make(peer)
    batch = [*make_events(3), encoded(example_finding())]
    try:
        verdicts = destination.send(batch, time.monotonic() + 10).verdicts
        assert {verdict.status for verdict in verdicts} == {"pending"}
        assert len({verdict.token for verdict in verdicts}) == 2
        deadline = time.monotonic() + 20
        while (open_ := [one for one in verdicts if one.status == "pending"]) and time.monotonic() < deadline:
            verdicts = [destination.confirm(one.token) if one.status == "pending" else one for one in verdicts]
            time.sleep(0.05 if open_ else 0)
        assert {verdict.status for verdict in verdicts} == {"delivered"}
        assert sorted(peer.received()) == sorted(event.event_id for event in batch)
        assert destination.confirm("other|x").status == "retry"
    finally:
        destination.close()
        peer.close()
