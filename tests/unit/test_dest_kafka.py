"""The Kafka destination beyond the conformance suite: keys, settings, quotas, and every rule of the error table."""

import os
import sys
import time

import pytest

from aitrail.destinations import kafka
from aitrail.destinations._kafka_codes import RULES, error_of, rule_of
from aitrail.destinations._kafka_settings import LONGEST_KEY, PROMISED, KafkaSettings
from aitrail.destinations.kafka import KafkaDestination
from aitrail.errors import AuthError, ConfigError, TransientError
from aitrail.event import SCHEMA_VERSION
from aitrail.ports import EncodedEvent
from aitrail.secrets import Secrets
from aitrail.testing.events import make_event, make_events
from aitrail.testing.kafka_peer import KafkaPeer
from aitrail.testing.peer import Behaviour

# An extra: where it is missing these tests are left out, but not in CI.
confluent_kafka = __import__("confluent_kafka") if os.environ.get("CI") else pytest.importorskip("confluent_kafka")


@pytest.fixture
def peer():
    running = KafkaPeer(partitions=4)
    yield running
    running.close()


def connect(peer, **changes):
    settings = KafkaSettings(
        **{"brokers": (peer.address["brokers"],), "security": "plaintext", "down_seconds": 0.3, **changes}
    )
    return KafkaDestination(settings, Secrets())


def send(destination, events, seconds=30.0):
    return [verdict.status for verdict in destination.send(events, time.monotonic() + seconds).verdicts]


def test_key_and_headers_name_who_and_what(peer):
    destination = connect(peer)
    events = [make_event(number, user_id=f"user{number % 3}") for number in range(30)]
    assert set(send(destination, events)) == {"delivered"}
    destination.close()
    partitions = {}
    for number, event in enumerate(events):
        ((key, partition, headers),) = peer.keys(event.event_id)
        assert key == f"acme/user{number % 3}".encode()
        assert headers == {
            "event_id": event.event_id.encode(),
            "schema_version": SCHEMA_VERSION.encode(),
        }
        partitions.setdefault(key, set()).add(partition)
    assert all(len(found) == 1 for found in partitions.values())


def test_one_users_events_keep_their_order(peer):
    destination = connect(peer)
    events = [make_event(number, user_id="ines.moreau") for number in range(500)]
    send(destination, events)
    destination.close()
    assert peer.received() == [event.event_id for event in events]


def test_a_huge_user_id_makes_no_huge_key(peer):
    destination = connect(peer)
    event = make_event(1, user_id="u" * 5_000)
    send(destination, [event])
    destination.close()
    assert len(peer.keys(event.event_id)[0][0]) <= LONGEST_KEY


def test_bytes_of_another_identity_are_rejected(peer):
    destination = connect(peer)
    good, other = make_events(2)
    forged = EncodedEvent("0" * 32, other.timestamp, other.body)
    ack = destination.send([good, forged], time.monotonic() + 5)
    destination.close()
    assert [(one.status, one.code) for one in ack.verdicts] == [("delivered", ""), ("rejected", "unencodable")]
    assert peer.received() == [good.event_id]


def test_a_batch_without_an_event_needs_no_broker():
    destination = KafkaDestination(KafkaSettings(brokers=("127.0.0.1:1",), security="plaintext"))
    ack = destination.send([EncodedEvent("a" * 32, "2026-11-23T09:00:00.000Z", b"{}")], time.monotonic() + 1)
    assert [one.status for one in ack.verdicts] == ["rejected"]
    assert destination.send([], time.monotonic() + 1).verdicts == []


def test_nothing_goes_out_behind_our_back_after_a_deadline(peer):
    destination = connect(peer)
    events = make_events(50)
    peer.script(Behaviour("silent", seconds=0.6, times=1))
    with pytest.raises(TransientError):
        destination.send(events, time.monotonic() + 0.4)
    peer.heal()
    time.sleep(1.0)
    assert peer.received() == []
    assert set(send(destination, events)) == {"delivered"}
    destination.close()
    assert sorted(peer.received()) == sorted(event.event_id for event in events)


def test_a_full_queue_waits_for_room(peer):
    destination = connect(peer, batch_events=1, extra={"queue.buffering.max.messages": "20"})
    assert send(destination, make_events(300)) == ["delivered"] * 300
    destination.close()


def test_a_used_up_quota_is_kept_to(peer):
    destination = connect(peer)
    peer.throttle_ms = 1_500
    send(destination, make_events(5))
    peer.throttle_ms = 0
    with pytest.raises(TransientError) as caught:
        send(destination, make_events(5, "more"))
    assert 0.5 < caught.value.retry_after <= 1.5
    destination.close()


def test_a_senseless_quota_is_capped(peer):
    destination = connect(peer)
    peer.throttle_ms = 2**31 - 1
    send(destination, make_events(5))
    with pytest.raises(TransientError) as caught:
        send(destination, make_events(5, "more"))
    assert caught.value.retry_after <= 300
    destination.close()


@pytest.mark.parametrize("name", sorted(RULES))
def test_every_rule_names_a_real_error_and_says_what_to_do(name):
    codes = [getattr(confluent_kafka.KafkaError, one) for one in dir(confluent_kafka.KafkaError) if one.isupper()]
    names = {confluent_kafka.KafkaError(code).name() for code in codes if isinstance(code, int)}
    assert name in names
    rule = RULES[name]
    if rule.action in ("auth", "config"):
        error = error_of(rule, name, "kafka.example.com:9093", "aitrail.events", "destinations.kafka")
        assert isinstance(error, AuthError if rule.action == "auth" else ConfigError)
        assert error.hint
        assert name in str(error)
    elif rule.action != "fatal":
        assert rule.code


def test_an_unknown_error_is_asked_for_again():
    assert rule_of("SOMETHING_NEW").action == "retry"


@pytest.mark.parametrize("code", [6, 7, 9, 19, 20, 56])
def test_not_now_is_never_a_rejection(peer, code):
    destination = connect(peer)
    events = make_events(20)
    peer.script(Behaviour("busy", code=code, times=1))
    assert set(send(destination, events)) == {"delivered"}
    destination.close()
    assert len(set(peer.received())) == 20


def test_a_missing_topic_is_named(peer):
    destination = connect(peer, topic="no.such.topic", extra={"topic.metadata.propagation.max.ms": "100"})
    (found,) = destination.check()
    assert "no.such.topic" in found
    with pytest.raises(ConfigError, match=r"no\.such\.topic"):
        send(destination, make_events(3))
    destination.close()


def test_a_refused_user_is_named():
    peer = KafkaPeer(sasl=True)
    address = peer.address
    destination = connect(
        peer,
        security="sasl_plaintext",
        mechanism="PLAIN",
        username="aitrail",
        password=f"file:{address['token_file']}",
    )
    assert destination.check() == []
    peer.script(Behaviour("unauthorized", times=0))
    (found,) = KafkaDestination(destination._settings, Secrets()).check()
    assert "refuses the credentials" in found
    assert "username" in found
    destination.close()
    peer.close()


@pytest.mark.parametrize("key", [*PROMISED, "sasl.password", "bootstrap.servers"])
def test_what_the_promise_rests_on_cannot_be_changed(key):
    settings = KafkaSettings(brokers=("127.0.0.1:9092",), security="plaintext", extra={key: "1"})
    with pytest.raises(ConfigError, match=key):
        settings.producer("destinations.kafka", None)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"brokers": ()}, "no broker"),
        ({"brokers": ("",)}, "no broker"),
        ({"security": "sasl_tls"}, "user name"),
        ({"extra": {"no.such.setting": "1"}}, "no.such.setting"),
        ({"security": "tls", "ca_file": "/no/such/ca.pem"}, "ca"),
    ],
)
def test_wrong_settings_are_a_config_error(changes, text):
    destination = KafkaDestination(
        KafkaSettings(**{"brokers": ("127.0.0.1:1",), "security": "plaintext", **changes}), Secrets()
    )
    with pytest.raises(ConfigError, match=text):
        send(destination, make_events(1))
    assert destination.check()


def test_the_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    kafka._library.cache_clear()
    try:
        with pytest.raises(ConfigError) as caught:
            kafka._library()
        assert "aitrail[kafka]" in caught.value.hint
    finally:
        kafka._library.cache_clear()


def test_the_secret_is_in_no_error():
    peer = KafkaPeer(sasl=True)
    destination = connect(
        peer,
        security="sasl_plaintext",
        mechanism="PLAIN",
        username="aitrail",
        password=f"file:{peer.address['token_file']}",
    )
    secret = destination._secrets.resolve(destination._settings.password)
    peer.script(Behaviour("unauthorized", times=0))
    with pytest.raises(AuthError) as caught:
        send(destination, make_events(2))
    assert secret not in f"{caught.value} {caught.value.hint}"
    destination.close()
    peer.close()
