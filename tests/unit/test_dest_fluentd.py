"""The Fluentd destination beyond the conformance suite: times, handshake, acks of others, cleartext."""

import json
import time
from datetime import datetime
from pathlib import Path

import msgspec
import pytest

from aitrail.destinations import _forward
from aitrail.destinations._fluentd_settings import FluentdSettings
from aitrail.destinations.fluentd import FluentdDestination
from aitrail.errors import AuthError, ConfigError, TransientError
from aitrail.event import encode
from aitrail.ports import EncodedEvent
from aitrail.schema.catalog import example_event
from aitrail.secrets import Secrets
from aitrail.streams import Checkpoint, Health, encoded, example_finding
from aitrail.testing.events import hostile_events, make_event, make_events, oversize_event
from aitrail.testing.forward_peer import ForwardPeer
from aitrail.testing.peer import Behaviour


@pytest.fixture
def peer():
    running = ForwardPeer()
    yield running
    running.close()


@pytest.fixture
def guarded():
    running = ForwardPeer(auth=True)
    yield running
    running.close()


def connect(peer, **changes):
    there = peer.address
    values = {"host": "127.0.0.1", "port": int(there["port"]), "tls": False, "hostname": "h", "send_seconds": 3.0}
    if there["token_file"]:
        values["shared_key"] = f"file:{there['token_file']}"
        values["username"] = there["username"]
        values["password"] = f"file:{there['password_file']}"
    return FluentdDestination(FluentdSettings(**{**values, **changes}), Secrets())


def send(destination, events, seconds=30.0):
    return [verdict.status for verdict in destination.send(events, time.monotonic() + seconds).verdicts]


@pytest.mark.parametrize("gzip", [True, False])
def test_time_tag_and_record_arrive_as_they_are(peer, gzip):
    destination = connect(peer, gzip=gzip, tag="ai.audit")
    example = example_event()
    events = [EncodedEvent(example.event_id, example.timestamp, encode(example)), *hostile_events()]
    assert set(send(destination, events)) == {"delivered"}
    destination.close()
    assert len(peer.entries()) == len(events)
    for event, (tag, moment, record) in zip(events, peer.entries(), strict=True):
        assert tag == "ai.audit"
        assert moment.seconds() == pytest.approx(datetime.fromisoformat(event.timestamp).timestamp(), abs=1e-6)
        assert record == json.loads(event.body)


@pytest.mark.parametrize("kind", ["finding", "health", "checkpoint"])
def test_other_kinds_have_tags_of_their_own(peer, kind):
    event = {
        "finding": encoded(example_finding()),
        "health": encoded(
            Health(event_id="a" * 32, timestamp="2026-11-23T09:14:05.120Z", collector="c", kind="x", name="n")
        ),
        "checkpoint": encoded(
            Checkpoint(
                event_id="b" * 32, timestamp="2026-11-23T09:14:05.120Z", tenant_id="t", origin="o", size=1, root="r"
            )
        ),
    }[kind]
    destination = connect(peer, tag="ai.audit", stream=kind)
    assert send(destination, [event, *make_events(1)]) == ["delivered", "rejected"]
    destination.close()
    [(tag, _, record)] = peer.entries()
    assert tag == f"ai.audit.{kind}"
    assert record == json.loads(event.body)


def test_one_connection_serves_many_chunks(peer):
    destination = connect(peer)
    for number in range(10):
        send(destination, [make_event(number)])
    destination.close()
    assert peer.traffic.connections == 1
    assert peer.traffic.requests == 10


def test_a_connection_that_the_receiver_closed_costs_no_chunk(peer):
    destination = connect(peer)
    send(destination, [make_event(1)])
    peer._drop_connections()
    time.sleep(0.05)
    assert send(destination, [make_event(2)]) == ["delivered"]
    destination.close()


def test_the_ack_of_another_chunk_is_no_delivery(peer):
    peer.wrong_ack = True
    with pytest.raises(TransientError, match="something else"):
        send(connect(peer), make_events(3))


def test_a_late_ack_does_not_meet_the_next_chunk(peer):
    destination = connect(peer)
    peer.script(Behaviour("slow", seconds=0.6))
    with pytest.raises(TransientError):
        send(destination, make_events(3, "first"), seconds=0.2)
    time.sleep(0.7)
    assert set(send(destination, make_events(3, "second"))) == {"delivered"}
    destination.close()


@pytest.mark.parametrize("fault", ["unauthorized", "forbidden"])
def test_a_refused_handshake_is_named(guarded, fault):
    destination = connect(guarded)
    assert destination.check() == []
    guarded.script(Behaviour(fault, times=0))
    with pytest.raises(AuthError, match="mismatch") as caught:
        send(destination, make_events(2))
    assert "shared_key" in caught.value.hint
    (found,) = destination.check()
    assert "mismatch" in found
    for path in ("token_file", "password_file"):
        assert Path(guarded.address[path]).read_text() not in f"{caught.value} {found}"
    destination.close()


def test_a_rotated_key_is_read_anew(guarded):
    destination = connect(guarded)
    send(destination, [make_event(1)])
    guarded.script(Behaviour("rotate"))
    time.sleep(0.05)
    assert send(destination, [make_event(2)]) == ["delivered"]
    destination.close()


def test_a_receiver_that_does_not_know_the_key_gets_nothing(guarded, monkeypatch):
    real = guarded._handshake

    def impostor(connection, stream):
        class Lying:
            def sendall(self, data):
                # It lets everybody in, without being able to prove that it knows the key.
                _, found, _ = data.partition(b"PONG")
                if found:
                    digest = data[-128:]
                    data = data.replace(digest, b"0" * 128)
                connection.sendall(data)

        return real(Lying(), stream)

    monkeypatch.setattr(guarded, "_handshake", impostor)
    with pytest.raises(AuthError, match="does not know the shared key"):
        send(connect(guarded), make_events(2))
    assert guarded.received() == []


def test_a_receiver_that_wants_a_key_is_understood(guarded):
    destination = connect(guarded, shared_key="", username="", password="")
    with pytest.raises((ConfigError, TransientError)) as caught:
        send(destination, make_events(2))
    assert "shared key" in str(caught.value) or "answer" in str(caught.value) or "connection" in str(caught.value)
    assert guarded.received() == []


def test_a_receiver_without_a_key_is_understood(peer, tmp_path, monkeypatch):
    monkeypatch.setattr("aitrail.destinations.fluentd._HELO_SECONDS", 0.3)
    key = tmp_path / "key"
    key.write_text("k")
    destination = connect(peer, shared_key=f"file:{key}")
    with pytest.raises(TransientError, match="HELO") as caught:
        send(destination, make_events(2))
    assert "shared_key empty" in caught.value.hint


def test_a_missing_user_is_named(guarded):
    destination = connect(guarded, username="", password="")
    with pytest.raises(ConfigError, match="user name"):
        send(destination, make_events(2))


def test_what_is_too_large_is_cut_or_rejected(peer):
    destination = connect(peer, event_bytes=5_000)
    assert send(destination, [oversize_event(1, 20_000)]) == ["delivered"]
    assert peer.entries()[0][2]["truncated"] is True
    strict = connect(peer, event_bytes=5_000, oversize="reject")
    ack = strict.send([oversize_event(2, 20_000), make_event(3)], time.monotonic() + 3)
    assert [one.code for one in ack.verdicts] == ["event_too_large", ""]
    destination.close()
    strict.close()


def test_another_identity_is_rejected(peer):
    destination = connect(peer)
    one, other = make_events(2)
    ack = destination.send([EncodedEvent("f" * 32, other.timestamp, other.body), one], time.monotonic() + 3)
    assert [verdict.code for verdict in ack.verdicts] == ["unencodable", ""]
    destination.close()


def test_cleartext_to_another_machine_has_to_be_meant():
    with pytest.raises(ConfigError, match="in the clear"):
        FluentdDestination(FluentdSettings(host="fluentd.example.com", tls=False))
    FluentdDestination(FluentdSettings(host="fluentd.example.com", tls=False, cleartext=True))
    FluentdDestination(FluentdSettings(host="fluentd.example.com"))


@pytest.mark.parametrize("data", [b"HTTP/1.1 400 Bad Request\r\n", b"\xc1", b"\xdb\xff\xff\xff\xff" + b"x" * 70_000])
def test_answers_of_something_else_are_refused(data):
    with pytest.raises(ValueError, match="not the forward protocol"):
        _forward.read_answer(data)


def test_half_an_answer_is_waited_for():
    whole = msgspec.msgpack.encode({"ack": "x" * 40})
    for cut in range(1, len(whole)):
        assert _forward.read_answer(whole[:cut]) is None
    assert _forward.read_answer(whole) == {"ack": "x" * 40}


def test_the_words_of_a_receiver_steer_no_terminal(guarded):
    greeting = _forward.Greeting(b"n", b"a")
    login = _forward.Login("h", "k")
    with pytest.raises(AuthError) as caught:
        _forward.check_pong(["PONG", False, "\x1b[2J\u202eno" + "x" * 500, "h", ""], greeting, login, b"s", "h:1")
    assert "\x1b" not in str(caught.value)
    assert "\u202e" not in str(caught.value)
    assert len(str(caught.value)) < 200
