"""What the Kafka source makes of librdkafka's errors, with a consumer that gives them on demand."""

import pytest

from aitrail.errors import AuthError, TransientError
from aitrail.ports import Budget
from aitrail.testing.azure_flow import StillClock, audit

confluent_kafka = pytest.importorskip("confluent_kafka")
from confluent_kafka import KafkaError, TopicPartition  # noqa: E402

from aitrail.sources._kafka_errors import Permissions, explain  # noqa: E402
from aitrail.sources._kafka_settings import KafkaSourceSettings  # noqa: E402
from aitrail.sources.kafka import KafkaSource  # noqa: E402


class Message:
    def __init__(self, offset, value=None, error=None, partition=0):
        self._offset, self._value, self._error, self._partition = offset, value, error, partition

    def topic(self):
        return "t"

    def partition(self):
        return self._partition

    def offset(self):
        return self._offset

    def value(self):
        return self._value

    def error(self):
        return KafkaError(self._error) if self._error is not None else None

    def timestamp(self):
        return (1, 1_795_428_000_000)


class Broker:
    """Gives the next answer of a script to each ``consume``: messages, or an error for the error callback."""

    def __init__(self, *script, clock=None):
        self.script = list(script)
        self.passwords = []
        self.assigned = []
        self.committed_offsets = []
        self.clock = clock

    def __call__(self, config):
        self.passwords.append(config.get("sasl.password"))
        self.error_cb = config.get("error_cb")
        return self

    def subscribe(self, topics, on_assign, on_revoke, on_lost):
        self._on_assign = on_assign
        self._fresh = True

    def consume(self, count, timeout):
        self.clock.time += timeout
        if self._fresh:
            self._fresh = False
            self._on_assign(self, [TopicPartition("t", 0)])
            return []
        step = self.script.pop(0) if self.script else [Message(None, error=KafkaError._PARTITION_EOF)]
        if isinstance(step, int):
            self.error_cb(KafkaError(step))
            return []
        return step

    def committed(self, partitions, timeout):
        return [TopicPartition(one.topic, one.partition, -1001) for one in partitions]

    def get_watermark_offsets(self, partition, timeout):
        return 0, 100

    def assign(self, partitions):
        self.assigned.append([(one.partition, one.offset) for one in partitions])

    def commit(self, offsets, asynchronous):
        self.committed_offsets.append([(one.partition, one.offset) for one in offsets])
        return offsets

    def close(self):
        pass


class Rotating:
    def __init__(self):
        self.number = 0

    def resolve(self, reference):
        self.number += 1
        return f"password-{self.number}"


class Nothing:
    def get(self, key):
        return None

    def items(self):
        return iter(())


@pytest.fixture
def clock():
    return StillClock()


def source(clock, *script, **more):
    broker = Broker(*script, clock=clock)
    settings = KafkaSourceSettings(
        brokers=("b:1",), topics=("t",), security="sasl_tls", username="u", password="env:P", **more
    )
    return KafkaSource(settings, name="kafka", clock=clock, secrets=Rotating(), consumer=broker), broker


def read(made):
    return [record for batch in made.fetch(Nothing(), Budget()) for record in batch.records]


def test_password_is_read_anew_once_and_then_it_is_an_alarm(clock):
    made, broker = source(clock, KafkaError._AUTHENTICATION, [Message(0, audit(1))])
    assert len(read(made)) == 1
    assert broker.passwords == ["password-1", "password-2"]
    made, broker = source(clock, KafkaError._AUTHENTICATION, KafkaError._AUTHENTICATION)
    with pytest.raises(AuthError) as caught:
        read(made)
    assert "password" in caught.value.hint
    assert "password-" not in f"{caught.value}"
    broker.script = [[Message(0, audit(1))]]
    assert len(read(made)) == 1  # the next turn tries again


@pytest.mark.parametrize(
    ("code", "kind", "hint"),
    [
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, AuthError, "READ and DESCRIBE"),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, AuthError, "--group aitrail"),
    ],
)
def test_missing_right_is_named(clock, code, kind, hint):
    made, _ = source(clock, [Message(None, error=code)])
    with pytest.raises(kind) as caught:
        read(made)
    assert hint in caught.value.hint


def test_event_hubs_names_its_own_rights(clock):
    broker = Broker([Message(None, error=KafkaError.TOPIC_AUTHORIZATION_FAILED)], clock=clock)
    settings = KafkaSourceSettings(
        brokers=("b:1",),
        topics=("t",),
        security="sasl_tls",
        mechanism="PLAIN",
        username="$ConnectionString",
        password="env:P",
    )
    made = KafkaSource(settings, name="kafka", clock=clock, secrets=Rotating(), consumer=broker)
    with pytest.raises(AuthError) as caught:
        read(made)
    assert "Listen" in caught.value.hint


def test_other_errors_of_a_partition_are_noted_and_reading_goes_on(clock):
    made, _ = source(clock, [Message(None, error=KafkaError.LEADER_NOT_AVAILABLE), Message(0, audit(1))])
    assert len(read(made)) == 1
    assert "LEADER_NOT_AVAILABLE" in made.notes[0]


def test_message_that_cannot_be_decompressed_is_a_dead_letter_and_is_passed(clock):
    made, broker = source(
        clock, [Message(0, audit(1)), Message(1, error=KafkaError._BAD_COMPRESSION)], [Message(2, audit(2))]
    )
    found = read(made)
    assert [(one.position, one.error) for one in found] == [(0, ""), (1, "message_unknown"), (2, "")]
    assert broker.assigned[-1] == [(0, 2)]


def test_brokers_that_stay_away_end_the_look(clock):
    made, _ = source(clock, KafkaError._ALL_BROKERS_DOWN, *([[]] * 500), down_seconds=3.0, idle_seconds=60.0)
    with pytest.raises(TransientError) as caught:
        read(made)
    assert "no broker answers" in str(caught.value)
    made, _ = source(clock, KafkaError._ALL_BROKERS_DOWN, [Message(0, audit(1))])
    assert len(read(made)) == 1  # they came back


def test_offsets_are_committed_once_per_partition_and_only_as_ours(clock):
    made, broker = source(clock, [Message(0, audit(1)), Message(1, audit(2))])
    receipts = [batch.receipt for batch in made.fetch(Nothing(), Budget())]
    made.acknowledge([*receipts, "99:0:50:t", "1:7:50:t"])
    assert broker.committed_offsets == [[(0, 2)]]
    made.close()
    made.acknowledge(receipts)
    assert broker.committed_offsets == [[(0, 2)]]


@pytest.mark.parametrize("code", [KafkaError._TRANSPORT, KafkaError._RESOLVE, KafkaError._TIMED_OUT])
@pytest.mark.parametrize(("event_hubs", "look"), [(True, "port 9093"), (False, "advertised addresses")])
def test_where_nobody_answers_the_way_there_is_named(code, event_hubs, look):
    found = explain(KafkaError(code), "bus", Permissions("g", event_hubs))
    assert isinstance(found, TransientError)
    assert "no broker answers" in found.hint
    assert look in found.hint
