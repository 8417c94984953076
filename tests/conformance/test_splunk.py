"""Splunk HEC keeps the promise, with and without acknowledgement, whatever the collector does."""

import sys
import time
from pathlib import Path

import pytest

from aitrail.destinations._splunk_settings import SplunkSettings
from aitrail.destinations.splunk import SplunkDestination
from aitrail.ports import Destination
from aitrail.secrets import Secrets
from aitrail.testing.conformance import run_conformance
from aitrail.testing.events import make_events
from aitrail.testing.hec_peer import HecPeer
from aitrail.testing.peer import Behaviour, Peer

# In the process that is killed an acknowledgement that a busy machine delays must not look like a repetition by a kill.
_ACK_SECONDS = 30.0 if Path(sys.argv[0]).name == "worker.py" else 2.0


def make(peer: Peer) -> Destination:
    address = peer.address
    settings = SplunkSettings(
        urls=(address["url"],),
        token=f"file:{Path(address['token_file'])}",
        index=address["index"],
        ca_file=address["ca_file"],
        proxy=address["proxy"],
        ack=bool(address["ack"]),
        ack_timeout_seconds=_ACK_SECONDS,
        ack_poll_seconds=0.05,
        event_bytes=200_000,
        host="collector.example.com",
    )
    return SplunkDestination(settings, Secrets())


@pytest.mark.parametrize(
    "variant",
    [{"base": 1, "tls": True}, {"base": 0}, {"numbers": False}, {"ack": True, "tls": True}],
    ids=lambda variant: "-".join(f"{key}={value}" for key, value in variant.items()),
)
def test_splunk_keeps_the_promise(variant):
    peer = HecPeer(**variant)
    try:
        report = run_conformance(make, peer, kills=20 if variant.get("tls") else 5)
    finally:
        peer.close()
    assert report.ok, report.problems
    assert {row.case for row in report.rows if row.outcome == "skip"} <= {"F11"}


def test_two_endpoints_share_and_survive_each_other(tmp_path):
    """One endpoint after the other goes down and comes back: nothing is lost, nothing is claimed that is not there."""
    token = "11111111-2222-4333-8444-555555555555"
    (tmp_path / "token").write_text(token)
    peers = [HecPeer(token=token), HecPeer(token=token)]
    settings = SplunkSettings(
        urls=tuple(peer.address["url"] for peer in peers), token=f"file:{tmp_path / 'token'}", request_seconds=20.0
    )
    destination = SplunkDestination(settings, Secrets())
    sent, claimed = [], []
    try:
        assert destination.check() == []
        for step in range(30):
            if step in (5, 15):
                peers[step % 2].script(Behaviour("down"))
            if step in (10, 20):
                peers[0].heal()
                peers[1].heal()
                time.sleep(1.1)  # an endpoint that failed rests for a second
            batch = make_events(20, "two", step * 20)
            sent += [event.event_id for event in batch]
            ack = destination.send(batch, time.monotonic() + 30)
            claimed += [one.event_id for one, it in zip(batch, ack.verdicts, strict=True) if it.status == "delivered"]
        assert claimed == sent
        shares = [set(peer.received()) for peer in peers]
        assert shares[0] | shares[1] == set(sent)
        assert min(map(len, shares)) > 100
    finally:
        destination.close()
        for peer in peers:
            peer.close()
