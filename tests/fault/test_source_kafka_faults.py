"""What may happen to a Kafka consumer, against a broker of others: nothing is lost, and nothing is stored twice."""

import json
import os
import time

import pytest

from aitrail.errors import TransientError
from aitrail.ports import Budget
from aitrail.secrets import Secrets
from aitrail.testing.azure_flow import Flow, audit, correlation, gateway, lines, llm

azure_bus = pytest.importorskip("aitrail.testing.azure_bus", reason="needs the extra kafka")
from aitrail.sources._kafka_settings import KafkaSourceSettings  # noqa: E402
from aitrail.sources.kafka import KafkaSource  # noqa: E402

LIMIT = 60.0


class RealClock:
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)


@pytest.fixture(scope="module")
def bus(tmp_path_factory):
    if azure_bus.missing():
        if os.environ.get("CI"):
            pytest.fail(f"{azure_bus.missing()} (it is one of the dev dependencies)")
        pytest.skip(azure_bus.missing())
    with azure_bus.bus(tmp_path_factory.mktemp("bus")) as running:
        yield running


_names = iter(range(10_000))


@pytest.fixture
def topic(bus):
    name = f"topic-{next(_names)}"
    bus.topic(name, 3)
    return name


def settings(bus, topic, **more):
    return KafkaSourceSettings(
        brokers=(bus.address,),
        topics=(topic,),
        group=f"group-{topic}",
        **{"security": "plaintext", "idle_seconds": 30.0, "extra": {"session.timeout.ms": "6000"}, **more},
    )


def source(bus, topic, **more):
    return KafkaSource(settings(bus, topic, **more), name="kafka", clock=RealClock(), secrets=Secrets())


@pytest.fixture
def flows(bus, topic, tmp_path):
    made = []

    def make(name="store", **more):
        flow = Flow(tmp_path / name, lambda: source(bus, topic, **more), RealClock())
        made.append(flow)
        return flow

    yield make
    for flow in made:
        flow.close()


def fill(bus, topic, first, count):
    """``count`` messages with one record each, over three partitions."""
    for partition in range(3):
        bus.send(topic, partition, [audit(n) for n in range(first, first + count) if n % 3 == partition])
    return [correlation(n) for n in range(first, first + count)]


def test_everything_once_and_offsets_only_after_the_commit(bus, topic, flows):
    sent = fill(bus, topic, 0, 300)
    flow = flows()
    seen = []
    commit = flow.spool.commit

    def watched(intake):
        seen.append(bus.committed(f"group-{topic}", topic, 3))
        return commit(intake)

    flow.spool.commit = watched
    flow.pipeline.run()
    assert seen[0] == [-1001] * 3  # nothing was committed to the group before it was durable
    assert bus.committed(f"group-{topic}", topic, 3) == [100, 100, 100]
    flow.judge(sent, "plain run")
    assert flow.run().records == 0


def test_crash_between_fetch_and_commit(bus, topic, flows):
    sent = fill(bus, topic, 0, 90)
    flow = flows()
    flow.crash()
    sent += fill(bus, topic, 90, 30)
    flow.run()
    flow.judge(sent, "crash between fetch and commit")


def test_crash_between_commit_and_offsets(bus, topic, flows):
    sent = fill(bus, topic, 0, 90)
    flow = flows()
    flow.source.acknowledge = lambda receipts: (_ for _ in ()).throw(TransientError("gone"))
    flow.run()
    assert bus.committed(f"group-{topic}", topic, 3) == [-1001] * 3
    flow.restart()
    done = flow.run()
    assert (done.records, done.new, done.duplicates) == (90, 0, 90)
    assert bus.committed(f"group-{topic}", topic, 3) == [30] * 3
    flow.judge(sent, "crash between commit and offset commit")


def test_a_pipeline_that_is_made_anew_gets_what_the_old_one_did_not_keep(bus, topic, flows):
    sent = fill(bus, topic, 0, 60)
    flow = flows()
    found = flow.source.fetch(flow.pipeline.cursors, Budget())
    next(found)
    found.close()  # handed out, taken by nobody
    flow.run()
    flow.judge(sent, "batch dropped by its reader")


def test_budget_stops_and_the_next_fetch_goes_on(bus, topic, flows):
    sent = fill(bus, topic, 0, 90)
    flow = flows()
    assert flow.run(Budget(records=10)).records < 90
    for _ in range(20):
        flow.run(Budget(records=10))
    flow.judge(sent, "small budgets")


def test_poison_tombstones_and_every_shape_of_message(bus, topic, flows):
    bus.send(
        topic,
        0,
        [
            b'{"records":[' + audit(1) + b"," + audit(2) + b"]}",
            None,
            b"",
            b"\xff\xfe not json",
            b'{"torn":',
            lines([audit(3), audit(4)]),
            b"[" + audit(5) + b"]",
            b"[" * 100_000,
            audit(6),
        ],
    )
    flow = flows()
    flow.run()
    flow.judge([correlation(n) for n in range(1, 7)], "poison messages")
    assert len(flow.dead()) == 3
    assert {letter.position for letter in flow.dead()} == {3, 4, 7}
    assert bus.committed(f"group-{topic}", topic, 1) == [9]
    letter = next(one for one in flow.dead() if one.position == 4)
    assert flow.source.reread(letter.origin, letter.position, letter.end, letter.index) == b'{"torn":'
    event = next(event for event in flow.report.events if event.request_id == correlation(2))
    place, _, rest = event.source_ref.partition("#offset=")
    offset, _, index = rest.partition("&record=")
    assert flow.source.reread(place, int(offset), 0, int(index)) == audit(2)


def test_two_workers_share_the_partitions_and_one_takes_over(bus, topic, flows):
    sent = fill(bus, topic, 0, 90)
    one, two = flows("one"), flows("two")
    one.run()
    until = time.monotonic() + LIMIT
    # The second worker joins while the first goes on polling: fetches in turns, as two processes would side by side.
    two.source._join()
    while not (one.source._parts and two.source._parts):
        assert time.monotonic() < until
        one.source._poll()
        two.source._poll()
    owned = [set(flow.source._parts) for flow in (one, two)]
    assert not owned[0] & owned[1]
    assert len(owned[0] | owned[1]) == 3
    sent += fill(bus, topic, 90, 90)
    one.run()
    two.run()
    assert len({event.request_id for event in two.delivered()}) >= 30
    one.close()  # leaves the group: the other one gets everything
    sent += fill(bus, topic, 180, 30)
    while len(two.source._parts) < 3:
        assert time.monotonic() < until
        two.source._poll()
    two.run()
    ids = {event.request_id for event in two.delivered()}
    one._open()  # its store again, to count what it holds
    ids |= {event.request_id for event in one.delivered()}
    print(f"kafka          two workers, rebalance, take-over: sent {len(sent)} lost {len(set(sent) - ids)}")
    assert set(sent) <= ids
    assert max(two.report.times.values()) == 1
    assert max(one.report.times.values()) == 1


def test_what_was_revoked_is_not_committed(bus, topic, flows):
    fill(bus, topic, 0, 30)
    flow = flows()
    batches = list(flow.source.fetch(flow.pipeline.cursors, Budget()))
    flow.source._on_revoke(None, [type("P", (), {"topic": topic, "partition": 0})()])
    flow.source.acknowledge([batch.receipt for batch in batches])
    assert bus.committed(f"group-{topic}", topic, 3) == [-1001, 10, 10]


def test_expired_offsets_are_a_named_gap(bus, topic, flows):
    sent = fill(bus, topic, 0, 90)
    flow = flows()
    flow.run(Budget())
    fill(bus, topic, 90, 90)
    bus.expire(topic, 1, 50)
    flow.restart()
    flow.run()
    assert flow.source.gaps == 1
    assert flow.source.notes == [f"{topic}/1: offsets 30 to 50 are gone: retention removed them"]
    (letter,) = flow.dead()
    assert (letter.code, letter.position, letter.end) == ("offset_expired", 30, 50)
    gone = {correlation(90 + 3 * n + 1) for n in range(20)}
    flow.judge([*sent, *({correlation(n) for n in range(90, 180)} - gone)], "retention overtook the group")
    flow.restart()
    flow.run()
    assert len(flow.dead()) == 1  # told once


def _seek(flow, topic, partition, offset):
    """Seek as soon as the partition is being fetched: before, librdkafka calls it an erroneous state."""
    from confluent_kafka import KafkaError, KafkaException, TopicPartition

    until = time.monotonic() + 30
    while True:
        try:
            return flow.source._consumer.seek(TopicPartition(topic, partition, offset))
        except KafkaException as error:
            if error.args[0].code() != KafkaError._STATE or time.monotonic() > until:
                raise
            time.sleep(0.05)


def test_overtaken_while_reading(bus, topic, flows):
    fill(bus, topic, 0, 30)
    flow = flows()
    flow.run()
    part = next(iter(flow.source._parts))
    # The broker says "out of range" to a fetch behind its oldest offset.
    bus.send(topic, part.partition, [audit(n) for n in range(1000, 1030)])
    bus.expire(topic, part.partition, 25)
    _seek(flow, topic, part.partition, 10)
    flow.source._parts[part].next = 10
    flow.run()
    assert [letter.code for letter in flow.dead()] == ["offset_expired"]
    assert "are gone" in flow.source.notes[0]
    flow.judge([correlation(n) for n in range(1015, 1030)], "overtaken while reading")


def test_a_topic_made_anew_is_read_from_its_start(bus, topic, flows):
    fill(bus, topic, 0, 30)
    flow = flows()
    flow.run()
    flow.close()
    bus.delete_topic(topic)
    bus.topic(topic, 3)
    sent = fill(bus, topic, 100, 9)
    flow._open()
    flow.run()
    flow.judge(sent, "topic deleted and made anew")


@pytest.mark.parametrize("start", ["latest", "2001-01-01T00:00:00Z", "earliest"])
def test_start_is_what_the_settings_say_and_survives_a_crash(bus, topic, flows, start):
    old = fill(bus, topic, 0, 30)
    flow = flows(start=start)
    flow.run()
    flow.restart()  # before it ever committed a message's offset, for "latest"
    new = fill(bus, topic, 30, 30)
    flow.run()
    flow.judge(new + ([] if start == "latest" else old), f"start = {start}")
    if start == "latest":
        assert not {event.request_id for event in flow.report.events} & set(old)


def test_gateway_rows_join_across_messages_and_a_crash(bus, topic, flows):
    """GatewayLogs on one partition, GatewayLlmLogs on another, a crash in between: one event each, with its caller."""
    bus.send(topic, 0, [gateway(n) for n in range(30)])
    flow = flows()
    flow.run(flush_older_than=900.0)  # the daemon's turn: the rows wait for their siblings
    assert flow.delivered() == []
    assert bus.committed(f"group-{topic}", topic, 1) == [-1001]
    flow.restart()
    bus.send(topic, 2, [b'{"records":[' + b",".join(llm(n) for n in range(30)) + b"]}"])
    flow.run(flush_older_than=900.0)
    flow.judge([correlation(n) for n in range(30)], "gateway rows joined after a crash", lambda e: e.source_event_id)
    assert {event.user_id for event in flow.report.events} == {f"user{n}@example.com" for n in range(30)}
    assert bus.committed(f"group-{topic}", topic, 3) == [30, -1001, 1]


def test_check_names_the_missing_topic(bus, topic):
    assert source(bus, topic).check() == []
    (problem,) = source(bus, f"{topic}-no").check()
    assert "create the topic" in problem


def test_nobody_answers(topic, tmp_path):
    found = KafkaSource(
        KafkaSourceSettings(brokers=("127.0.0.1:9",), topics=("t",), security="plaintext", down_seconds=0.2),
        name="kafka",
        clock=RealClock(),
        secrets=Secrets(),
    )
    with pytest.raises(TransientError):
        list(found.fetch(_none(), Budget()))
    found.close()


def _none():
    class Nothing:
        def get(self, key):
            return None

        def items(self):
            return iter(())

    return Nothing()


def test_event_hubs_settings_reach_the_broker_as_sasl_plain(bus, topic, flows, monkeypatch):
    """Event Hubs' Kafka endpoint wants SASL PLAIN with the user $ConnectionString; over TLS there, without it here."""
    monkeypatch.setenv("HUB", "Endpoint=sb://acme.example.com/;SharedAccessKeyName=listen;SharedAccessKey=secret")
    body = json.dumps({"records": [json.loads(audit(n)) for n in range(5)]}).encode()
    bus.send(topic, 0, [body])
    flow = flows(security="sasl_plaintext", mechanism="PLAIN", username="$ConnectionString", password="env:HUB")
    flow.run()
    flow.judge([correlation(n) for n in range(5)], "Event Hubs' Kafka endpoint (SASL PLAIN)")
