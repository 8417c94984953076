"""The conformance suite for the syslog destination, and rsyslog and syslog-ng themselves."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from aitrail.destinations._syslog_settings import SyslogSettings
from aitrail.destinations.syslog import SyslogDestination
from aitrail.errors import TransientError
from aitrail.ports import Destination
from aitrail.testing.conformance import CASES, run_conformance
from aitrail.testing.events import hostile_events, make_events
from aitrail.testing.peer import Peer
from aitrail.testing.syslog_peer import SyslogPeer, parse_syslog

sys.path.insert(0, str(Path(__file__).parent))
from real_syslog import running

CONTENT = ("F0", "F8", "F13", "F14", "F25", "F26")


def connect(peer: Peer, **changes: object) -> SyslogDestination:
    there = peer.address
    settings = SyslogSettings(
        **{
            "host": there["host"],
            "port": int(there["port"]),
            "transport": there["transport"],
            "ca_file": there["ca_file"],
            "hostname": "collector.example.com",
            "message_bytes": 32_000,
            "send_seconds": 30.0,
            **changes,
        }
    )
    return SyslogDestination(settings)


def make(peer: Peer) -> Destination:
    return connect(peer)


def make_cef(peer: Peer) -> Destination:
    return connect(peer, format="cef")


def make_leef(peer: Peer) -> Destination:
    return connect(peer, format="leef")


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "tcp"])
@pytest.mark.parametrize("make_one", [make, make_cef, make_leef], ids=["json", "cef", "leef"])
def test_syslog_keeps_the_promise(tls, make_one):
    peer = SyslogPeer(tls=tls)
    # The format makes no difference to a connection: every fault over TCP is shown once, what is sent by each format.
    cases = CASES if tls or make_one is make else CONTENT
    try:
        kills = 20 if tls and make_one is make else 5
        report = run_conformance(make_one, peer, cases, kills=kills, marks_controls=make_one is not make)
    finally:
        peer.close()
    assert report.ok, report.problems
    shown = {row.case for row in report.rows if row.outcome == "pass"}
    assert {"F0", "F1", "F3", "F7", "F7b", "F8", "F13", "F15", "F25", "F27", "F30a"} & set(cases) <= shown
    # A killed sender tears its last message; only TLS tells that from one that ends in the middle of a message.
    assert peer.garbled == 0 or not tls
    assert "garbled" not in peer.received()


# --- receivers that others wrote


@pytest.mark.parametrize("confirm", ["close", "drain"])
@pytest.mark.parametrize("transport", ["tls", "tcp"])
@pytest.mark.parametrize("server", ["rsyslog", "syslog-ng"])
def test_real_receivers_take_every_message_whole(server, transport, confirm, tmp_path):
    events = [*make_events(1_000, "real"), *hostile_events("hard")]
    with running(server, tmp_path) as there:
        destination = SyslogDestination(
            SyslogSettings(
                host="localhost",
                port=there.tls_port if transport == "tls" else there.tcp_port,
                transport=transport,
                ca_file=there.ca_file,
                confirm=confirm,
                message_bytes=65_000,
                hostname="collector.example.com",
            )
        )
        assert destination.check() == []
        for start in range(0, len(events), 400):
            ack = destination.send(events[start : start + 400], time.monotonic() + 30)
            assert {verdict.status for verdict in ack.verdicts} == {"delivered"}
        destination.close()
        lines = there.lines(len(events))
    assert len(lines) == len(events)
    found = {}
    for line in lines:
        header, text = parse_syslog(line.encode())
        assert (header["pri"], header["app"], header["id"]) == ("110", "aitrail", "AIAUDIT")
        body = json.loads(text)
        found[body["event_id"]] = body
    assert found == {event.event_id: json.loads(event.body) for event in events}


@pytest.mark.parametrize("server", ["rsyslog", "syslog-ng"])
def test_a_killed_receiver_confirms_nothing(server, tmp_path):
    events = make_events(1_100, "killed")
    with running(server, tmp_path) as there:
        destination = SyslogDestination(
            SyslogSettings(host="localhost", port=there.tls_port, ca_file=there.ca_file, message_bytes=65_000)
        )
        for start in range(0, 1_000, 100):
            destination.send(events[start : start + 100], time.monotonic() + 5)
        lines = there.lines(1_000)
        # It stops in the middle of a batch, with bytes in its kernel that it will never read.
        os.kill(there.pid, signal.SIGSTOP)
        there.await_stop()
        killer = threading.Timer(0.5, os.kill, (there.pid, signal.SIGKILL))
        killer.start()
        with pytest.raises(TransientError):
            destination.send(events[1_000:], time.monotonic() + 5)
        killer.join()
        destination.close()
    assert {json.loads(parse_syslog(line.encode())[1])["event_id"] for line in lines} == {
        event.event_id for event in events[:1_000]
    }
