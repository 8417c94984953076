"""The syslog destination beyond the conformance suite: headers, framing, size, cleartext, datagrams."""

import contextlib
import json
import socket
import ssl
import threading
import time

import pytest

from aitrail.destinations._syslog_settings import SyslogSettings
from aitrail.destinations.syslog import SyslogDestination
from aitrail.errors import ConfigError, TransientError
from aitrail.ports import EncodedEvent
from aitrail.testing.certificates import Authority
from aitrail.testing.events import hostile_events, make_event, make_events, oversize_event
from aitrail.testing.peer import Behaviour
from aitrail.testing.syslog_peer import NotSyslog, SyslogPeer, UdpPeer, parse_cef, parse_syslog


@pytest.fixture
def peer():
    running = SyslogPeer()
    yield running
    running.close()


def connect(peer, **changes):
    return SyslogDestination(
        SyslogSettings(
            **{"host": "127.0.0.1", "port": int(peer.address["port"]), "transport": "tcp", "hostname": "h", **changes}
        )
    )


def send(destination, events, seconds=30.0):
    return [verdict.status for verdict in destination.send(events, time.monotonic() + seconds).verdicts]


def _until(true, seconds=30.0):
    until = time.monotonic() + seconds
    while not true() and time.monotonic() < until:
        time.sleep(0.01)
    assert true()


@pytest.mark.parametrize(
    ("score", "priority"), [(None, 110), (0, 110), (19, 110), (20, 109), (40, 108), (70, 107), (90, 106), (100, 106)]
)
def test_priority_is_log_audit_and_the_risk(peer, score, priority):
    destination = connect(peer)
    send(destination, [make_event(1, risk_score=score)])
    header, _ = parse_syslog(peer.messages()[0])
    assert header["pri"] == str(priority)


def test_the_header_names_time_host_and_program(peer):
    destination = connect(peer, hostname="collector.example.com", facility=4)
    event = make_event(1)
    send(destination, [event])
    header, text = parse_syslog(peer.messages()[0])
    assert header["time"] == event.timestamp
    assert (header["pri"], header["host"], header["app"], header["id"]) == (
        "38",
        "collector.example.com",
        "aitrail",
        "AIAUDIT",
    )
    assert header["data"].startswith('[origin software="aitrail" swVersion="')
    assert json.loads(text) == json.loads(event.body)


def test_hostile_settings_make_a_valid_header(peer):
    destination = connect(peer, hostname="a b\n<1>é" * 60, app_name=" \n")
    send(destination, [make_event(1)])
    header, _ = parse_syslog(peer.messages()[0])
    assert len(header["host"]) == 255
    assert header["app"] == "-"


def test_a_timestamp_that_is_none_is_left_out(peer):
    event = make_event(1)
    odd = EncodedEvent(event.event_id, "2026-11-23T09:00:00.000Z host\n<1>", event.body)
    send(connect(peer), [odd])
    assert parse_syslog(peer.messages()[0])[0]["time"] == "-"


def test_lines_as_framing_hold_one_message_each():
    peer = SyslogPeer(lines=True)
    destination = connect(peer, framing="lines", message_bytes=40_000)
    events = hostile_events()
    assert set(send(destination, events)) == {"delivered"}
    assert peer.received() == [event.event_id for event in events]
    peer.close()


@pytest.mark.parametrize("format_", ["json", "json_exabeam", "json_securonix", "cef", "leef"])
def test_a_long_event_is_cut_and_marked(peer, format_):
    destination = connect(peer, format=format_, message_bytes=4_096)
    event = oversize_event(1, 30_000)
    assert send(destination, [event]) == ["delivered"]
    (message,) = peer.messages()
    assert 3_000 < len(message) <= 4_096
    text = parse_syslog(message)[1].decode()
    marked = {"cef": "aitrailTruncated=true", "leef": "truncated=true"}.get(format_, '"truncated":true')
    assert marked in text
    assert "hmac-sha256:k1:" + "ab" * 32 in text


def test_a_long_event_is_rejected_when_the_policy_says_so(peer):
    destination = connect(peer, oversize="reject", message_bytes=4_096)
    ack = destination.send([make_event(1), oversize_event(2, 30_000), make_event(3)], time.monotonic() + 3)
    assert [(one.status, one.code) for one in ack.verdicts] == [
        ("delivered", ""),
        ("rejected", "event_too_large"),
        ("delivered", ""),
    ]
    assert len(peer.received()) == 2


def test_an_event_of_nothing_but_names_is_rejected(peer):
    destination = connect(peer, message_bytes=1_024)
    ack = destination.send([make_event(2, role="r" * 3_000)], time.monotonic() + 3)
    assert ack.verdicts[0].code == "event_too_large"


def test_nothing_is_delivered_while_the_receiver_has_not_read(peer):
    destination = connect(peer)
    peer.script(Behaviour("silent", seconds=0.3))
    with pytest.raises(TransientError):
        send(destination, make_events(50))
    assert peer.received() == []


def test_a_reset_behind_the_last_byte_is_no_delivery(peer):
    peer.script(Behaviour("reset_mid_response"))
    with pytest.raises(TransientError):
        send(connect(peer), make_events(5))


def test_drain_keeps_the_connection_and_notices_its_end(peer):
    destination = connect(peer, confirm="drain")
    for number in range(5):
        assert send(destination, [make_event(number)]) == ["delivered"]
    # The kernel acknowledges before the process has read: that is what this mode cannot tell.
    _until(lambda: len(peer.received()) == 5)
    assert peer.traffic.connections == 1
    peer.script(Behaviour("down", times=0))
    with pytest.raises(TransientError):
        send(destination, [make_event(6)])
    peer.heal()
    assert send(destination, [make_event(7)]) == ["delivered"]
    destination.close()


def test_drain_waits_for_a_kernel_that_takes_nothing():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        settings = SyslogSettings(
            host="127.0.0.1", port=listener.getsockname()[1], transport="tcp", confirm="drain", message_bytes=65_000
        )
        destination = SyslogDestination(settings)
        started = time.monotonic()
        with pytest.raises(TransientError, match="no answer in time"):
            send(destination, [oversize_event(number, 60_000) for number in range(200)], seconds=0.6)
        assert time.monotonic() - started < 10  # nobody will ever read
        destination.close()


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_cleartext_to_another_machine_has_to_be_meant(transport):
    with pytest.raises(ConfigError, match="in the clear") as caught:
        SyslogDestination(SyslogSettings(host="siem.example.com", transport=transport))
    assert "cleartext = true" in caught.value.hint
    SyslogDestination(SyslogSettings(host="siem.example.com", transport=transport, cleartext=True))
    SyslogDestination(SyslogSettings(host="localhost", transport=transport))


@pytest.mark.parametrize("host", ["169.254.169.254", "fd00:ec2::254", "0.0.0.0"])
def test_metadata_addresses_get_nothing(host):
    destination = SyslogDestination(SyslogSettings(host=host, transport="tcp", cleartext=True))
    with pytest.raises(ConfigError):
        send(destination, make_events(1))
    assert destination.check()


def test_tls_to_a_port_without_it_says_so(peer):
    destination = connect(peer, transport="tls", send_seconds=1.0)
    with pytest.raises((ConfigError, TransientError)):
        send(destination, make_events(1), seconds=1.0)
    assert peer.received() == []


def test_garbage_on_a_working_tls_connection_is_worth_another_try():
    # rsyslog 8.2302 does this: a socket that it closes twice becomes the file that it writes messages to.
    authority = Authority()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def babble():
            plain, _ = listening.accept()
            raw = plain.dup()
            with plain, raw, authority.context().wrap_socket(plain, server_side=True) as spoken:
                spoken.recv(100)
                raw.sendall(b"<110>1 2026-11-23T09:00:00Z what another one sent")
                with contextlib.suppress(ConnectionResetError):  # the answer to it
                    while raw.recv(65_536):
                        pass

        server = threading.Thread(target=babble)
        server.start()
        port = listening.getsockname()[1]
        destination = SyslogDestination(SyslogSettings(host="localhost", port=port, ca_file=authority.ca_file))
        with pytest.raises(TransientError, match="broke the TLS protocol"):
            send(destination, make_events(1))
        destination.close()
        server.join()
    authority.close()


def test_check_finds_a_closed_port(peer):
    port = int(peer.address["port"])
    peer.script(Behaviour("down", times=0))
    (found,) = SyslogDestination(SyslogSettings(host="127.0.0.1", port=port, transport="tcp")).check()
    assert f"127.0.0.1:{port}" in found


def test_datagrams_hold_one_message_each():
    peer = UdpPeer()
    destination = SyslogDestination(
        SyslogSettings(host="127.0.0.1", port=peer.port, transport="udp", format="cef", message_bytes=60_000)
    )
    assert destination.check() == []
    events = [*make_events(50), *hostile_events()]
    assert set(send(destination, events)) == {"delivered"}
    ids = [parse_cef(parse_syslog(message)[1].decode())[1]["externalId"] for message in peer.messages()]
    peer.close()
    assert ids == [event.event_id for event in events]


def test_a_closed_datagram_port_is_noticed_when_the_kernel_says_so():
    probe = UdpPeer()
    probe.close()
    destination = SyslogDestination(SyslogSettings(host="127.0.0.1", port=probe.port, transport="udp"))
    with pytest.raises(TransientError):
        send(destination, make_events(20))


def test_a_datagram_is_never_larger_than_one_can_be():
    peer = UdpPeer()
    destination = SyslogDestination(
        SyslogSettings(host="127.0.0.1", port=peer.port, transport="udp", message_bytes=1_000_000)
    )
    assert send(destination, [oversize_event(1, 200_000)]) == ["delivered"]
    (message,) = peer.messages()
    peer.close()
    assert len(message) <= 65_507


def test_two_threads_take_turns(peer):
    destination = connect(peer)
    batches = [make_events(100, f"thread{number}") for number in range(4)]
    threads = [threading.Thread(target=send, args=(destination, batch)) for batch in batches]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(peer.received()) == sorted(event.event_id for batch in batches for event in batch)
    assert peer.garbled == 0


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"no priority",
        b"<192>1 - h a - - - x",
        b"<13>1 - h a - - ",
        b"<013>1 - h a - - -",
        b'<13>1 - h a - - [x y="a] -',
    ],
)
def test_the_reader_of_these_tests_is_strict(message):
    with pytest.raises(NotSyslog):
        parse_syslog(message)


def _speak(peer, data, *, goodbye):
    """Send bytes over TLS and end the connection, with the TLS goodbye or as the kernel does for a killed process."""
    context = ssl.create_default_context(cafile=peer.address["ca_file"])
    plain = socket.create_connection(("127.0.0.1", int(peer.address["port"])))
    with context.wrap_socket(plain, server_hostname="localhost") as speaking:
        speaking.sendall(data)
        if goodbye:
            with contextlib.suppress(OSError):  # the peer leaves at once when the stream is wrong
                speaking.unwrap().close()


@pytest.mark.parametrize(
    ("data", "goodbye", "garbled", "torn", "taken"),
    [
        (b"10 0123456789", True, 0, 0, 1),
        (b"10 0123456789", False, 0, 0, 1),
        (b"10 012345678910 0123", False, 0, 1, 1),  # killed within a message
        (b"10 012345678910 0123", True, 1, 0, 1),  # says that this was all, within a message
        (b"10 0123456789 and so on", False, 1, 0, 0),  # no count where one must stand
        (b"<110>1 - h a - i - text", True, 1, 0, 0),
    ],
)
def test_the_peer_tells_a_torn_message_from_a_wrong_stream(data, goodbye, garbled, torn, taken):
    peer = SyslogPeer(tls=True)
    try:
        _speak(peer, data, goodbye=goodbye)
        _until(lambda: (peer.garbled, peer.torn, len(peer.messages())) == (garbled, torn, taken), 30.0)
    finally:
        peer.close()
    assert (peer.garbled, peer.torn) == (garbled, torn)
