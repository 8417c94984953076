"""What may happen to a reader of an event hub. The SDK's event processor and the checkpoint store (Azurite) are real;
the AMQP link below them is made up (``aitrail.testing.azure_event_hubs``)."""

import logging
import os
import time

import pytest

from aitrail.errors import AuthError, TransientError
from aitrail.ports import Budget
from aitrail.secrets import Secrets
from aitrail.testing.azure_flow import Flow, audit, correlation, gateway, llm

azure_storage = pytest.importorskip("aitrail.testing.azure_storage", reason="needs the extra azure")
azure_event_hubs = pytest.importorskip("aitrail.testing.azure_event_hubs", reason="needs the extra azure")
from azure.eventhub.exceptions import AuthenticationError, ConnectionLostError  # noqa: E402

from aitrail.sources import _event_hubs_receiver  # noqa: E402
from aitrail.sources._event_hubs_settings import EventHubsSettings  # noqa: E402
from aitrail.sources.event_hubs import EventHubsSource  # noqa: E402

LIMIT = 60.0
CONNECTION = f"Endpoint=sb://{azure_event_hubs.HOST}/;SharedAccessKeyName=listen;SharedAccessKey=bm90IGEga2V5;EntityPath=insights"


class RealClock:
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)


@pytest.fixture
def hub():
    return azure_event_hubs.Hub(3)


_names = iter(range(10_000))


@pytest.fixture(scope="module")
def emulator():
    why = azure_storage.missing()
    if why:
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    return azure_storage.azurite()


@pytest.fixture
def container(emulator, monkeypatch):
    monkeypatch.setenv("STORE", emulator.connection_string)
    with emulator.container(f"checkpoints-{next(_names)}") as client:
        yield client


@pytest.fixture
def flows(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HUB", CONNECTION)
    # On a busy machine the lease of a partition takes its time; a turn must not end before.
    monkeypatch.setattr(_event_hubs_receiver, "_SETTLED_SECONDS", 15.0)
    made = []

    def make(name="store", container=None, **more):
        if container is not None:
            more |= {
                "checkpoint_container": container.container_name,
                "checkpoint_connection_string": "env:STORE",
            }

        def source():
            settings = EventHubsSettings(
                event_hub="insights",
                connection_string="env:HUB",
                **{"start": "earliest", "balance_seconds": 0.2, "idle_seconds": 20.0, "join_seconds": 20.0, **more},
            )
            client = azure_event_hubs.client_of(hub)
            return EventHubsSource(settings, name="event_hubs", clock=RealClock(), secrets=Secrets(), client=client)

        flow = Flow(tmp_path / name, source, RealClock())
        made.append(flow)
        return flow

    yield make
    for flow in made:
        flow.close()


def fill(hub, first, count):
    for partition in range(3):
        hub.send(partition, [audit(n) for n in range(first, first + count) if n % 3 == partition])
    return [correlation(n) for n in range(first, first + count)]


def checkpoints(container):
    return {
        blob.name.rpartition("/")[2]: int(blob.metadata["sequencenumber"])
        for blob in container.list_blobs(include=["metadata"])
        if "/checkpoint/" in blob.name
    }


def test_checkpoints_only_after_the_commit_and_in_the_sdks_layout(hub, container, flows):
    sent = fill(hub, 0, 300)
    flow = flows(container=container)
    seen = []
    commit = flow.spool.commit
    flow.spool.commit = lambda intake: (seen.append(checkpoints(container)), commit(intake))[1]
    flow.pipeline.run()
    assert seen[0] == {}
    assert checkpoints(container) == {"0": 99, "1": 99, "2": 99}
    names = {blob.name for blob in container.list_blobs()}
    assert f"{azure_event_hubs.HOST}/insights/$default/checkpoint/0" in names
    flow.judge(sent, "plain run, blob checkpoints")
    assert flow.run().records == 0


@pytest.mark.parametrize("shared", [True, False])
def test_crash_between_fetch_and_commit(hub, container, flows, shared):
    sent = fill(hub, 0, 90)
    flow = flows(container=container if shared else None)
    flow.crash()
    sent += fill(hub, 90, 30)
    flow.run()
    flow.judge(sent, f"crash before commit ({'blob store' if shared else 'alone'})")
    flow.restart()
    assert flow.run().new == 0


def test_crash_between_commit_and_checkpoint(hub, container, flows):
    sent = fill(hub, 0, 60)
    flow = flows(container=container)
    flow.run()
    sent += fill(hub, 60, 30)
    flow.source.acknowledge = lambda receipts: (_ for _ in ()).throw(TransientError("gone"))
    flow.run()
    assert checkpoints(container) == {"0": 19, "1": 19, "2": 19}
    flow.restart()
    done = flow.run()
    assert (done.new, done.duplicates) == (0, 30)
    assert checkpoints(container) == {"0": 29, "1": 29, "2": 29}
    flow.judge(sent, "crash between commit and checkpoint")


def test_envelopes_poison_and_empty_messages(hub, flows):
    hub.send(0, [b'{"records":[' + audit(1) + b"," + audit(2) + b"]}", b"", b"\xff", audit(3), b'{"records":'])
    flow = flows()
    flow.run()
    flow.judge([correlation(n) for n in (1, 2, 3)], "poison messages")
    assert {letter.position for letter in flow.dead()} == {2, 4}


@pytest.mark.parametrize("shared", [True, False])
def test_expired_messages_are_a_named_gap(hub, container, flows, shared):
    sent = fill(hub, 0, 30)
    flow = flows(container=container if shared else None)
    flow.run()
    flow.source.close()
    fill(hub, 30, 90)
    hub.expire(1, 25)
    flow.run()
    (letter,) = flow.dead()
    assert (letter.code, letter.position, letter.end) == ("offset_expired", 10, 25)
    assert flow.source.gaps == 1
    assert "partition 1: sequence numbers 10 to 25 are gone" in flow.source.notes[0]
    gone = {correlation(3 * n + 1) for n in range(10, 25)}
    left = {correlation(n) for n in range(30, 120)} - gone
    flow.judge([*sent, *left], "retention overtook us")


@pytest.mark.parametrize("shared", [True, False])
def test_hub_made_anew_is_read_from_its_beginning(hub, container, flows, shared):
    fill(hub, 0, 30)
    flow = flows(container=container if shared else None)
    flow.run()
    flow.source.close()
    hub.recreate()
    sent = fill(hub, 100, 9)
    flow.run()
    assert len(flow.dead()) == 3
    assert "made anew" in flow.source.notes[0]
    flow.judge(sent, "hub deleted and made anew")


@pytest.mark.parametrize("shared", [True, False])
def test_start_latest_is_durable_and_explicit(hub, container, flows, shared):
    old = fill(hub, 0, 30)
    flow = flows(container=container if shared else None, start="latest")
    flow.run()
    flow.restart()
    new = fill(hub, 30, 30)
    flow.run()
    flow.judge(new, "start = latest, restarted before anything came")
    assert not {event.request_id for event in flow.report.events} & set(old)
    with pytest.raises(TypeError):
        EventHubsSettings(event_hub="x", namespace="acme.servicebus.windows.net")


def test_start_at_a_time(hub, flows):
    hub.send(0, [audit(1)], at=azure_event_hubs.enqueued("2026-11-01T00:00:00+00:00"))
    hub.send(0, [audit(2)], at=azure_event_hubs.enqueued("2026-11-03T00:00:00+00:00"))
    flow = flows(start="2026-11-02T00:00:00Z")
    flow.run()
    assert [event.request_id for event in flow.delivered()] == [correlation(2)]
    assert flow.dead() == []


def test_two_collectors_share_the_partitions_and_one_takes_over(hub, container, flows, monkeypatch):
    monkeypatch.setattr(_event_hubs_receiver, "_SETTLED_SECONDS", 1.0)
    sent = fill(hub, 0, 90)
    one, two = flows("one", container), flows("two", container)
    one.run()
    until = time.monotonic() + LIMIT
    two.source.notes = []
    list(two.source._start(two.pipeline.cursors))
    while not (two.source._receiver.owned() and not one.source._receiver.owned() & two.source._receiver.owned()):
        assert time.monotonic() < until
        time.sleep(0.05)
    sent += fill(hub, 90, 90)
    one.run()
    two.run()
    one.source.close()
    while len(two.source._receiver.owned()) < 3:
        assert time.monotonic() < until
        time.sleep(0.05)
    sent += fill(hub, 180, 30)
    two.run()
    two.run()
    ids = {event.request_id for event in one.delivered() + two.delivered()}
    lost = len(set(sent) - ids)
    print(f"event_hubs     two collectors, take-over: sent {len(sent)} lost {lost}")
    assert lost == 0
    assert max(one.report.times.values()) == max(two.report.times.values()) == 1
    assert len(two.report.events) >= 60


def test_what_was_given_up_is_not_checkpointed(hub, container, flows):
    fill(hub, 0, 30)
    flow = flows(container=container)
    batches = list(flow.source.fetch(flow.pipeline.cursors, Budget()))
    with flow.source._receiver._lock:
        flow.source._receiver._epochs.pop("0")
    flow.source.acknowledge([batch.receipt for batch in batches if batch.receipt])
    assert checkpoints(container) == {"1": 9, "2": 9}


def test_connection_lost_and_resumed(hub, flows):
    sent = fill(hub, 0, 30)
    flow = flows()
    flow.run()
    hub.errors["1"] = [ConnectionLostError("gone")]
    until = time.monotonic() + LIMIT
    while hub.errors["1"]:
        assert time.monotonic() < until
        time.sleep(0.02)
    sent += fill(hub, 30, 30)
    for _ in range(3):
        try:
            flow.run()
        except TransientError:
            continue
    flow.judge(sent, "connection lost mid-run")


def test_credentials_expire_mid_run(hub, flows, capfd):
    logged = []
    root = logging.getLogger()
    handler = logging.Handler()
    handler.emit = lambda record: logged.append(record.getMessage())
    root.addHandler(handler)
    sent = fill(hub, 0, 30)
    flow = flows()
    flow.run()
    hub.errors["0"] = [AuthenticationError("refused: SharedAccessKey=secret")]
    until = time.monotonic() + LIMIT
    while hub.errors["0"]:
        assert time.monotonic() < until
        time.sleep(0.02)
    sent += fill(hub, 30, 30)
    flow.run()
    flow.judge(sent, "credential refused once, then renewed")
    hub.errors[""] = [AuthenticationError("refused: SharedAccessKey=secret")]
    flow.source.close()
    with pytest.raises(AuthError) as caught:
        flow.run()
    assert "Azure Event Hubs Data Receiver" in caught.value.hint
    assert "secret" not in str(caught.value)
    flow.source.close()
    root.removeHandler(handler)
    assert "SharedAccessKey" not in "".join([*capfd.readouterr(), *logged])  # the SDK would log it


def test_batch_that_its_reader_dropped_comes_again(hub, container, flows):
    sent = fill(hub, 0, 30)
    for store in (None, container):
        flow = flows("a" if store else "b", store)
        found = flow.source.fetch(flow.pipeline.cursors, Budget())
        next(found)
        found.close()
        flow.run()
        flow.judge(sent, "batch dropped by its reader")


def test_gateway_rows_join_across_partitions_and_a_crash(hub, container, flows):
    hub.send(0, [b'{"records":[' + b",".join(gateway(n) for n in range(30)) + b"]}"])
    flow = flows(container=container)
    flow.run(flush_older_than=900.0)
    assert (flow.delivered(), checkpoints(container)) == ([], {})
    flow.restart()
    hub.send(2, [b'{"records":[' + b",".join(llm(n) for n in range(30)) + b"]}"])
    flow.run(flush_older_than=900.0)
    flow.judge([correlation(n) for n in range(30)], "gateway rows joined after a crash", lambda e: e.source_event_id)
    assert {event.user_id for event in flow.report.events} == {f"user{n}@example.com" for n in range(30)}
    assert checkpoints(container) == {"0": 0, "2": 0}


def test_check_names_role_and_container(hub, container, flows):
    flow = flows(container=container)
    assert flow.source.check() == []
    hub.errors[""] = [AuthenticationError("no")]
    (problem,) = flow.source.check()
    assert "Azure Event Hubs Data Receiver" in problem


def test_check_names_a_missing_checkpoint_container(hub, emulator, monkeypatch, flows):
    monkeypatch.setenv("STORE", emulator.connection_string)
    flow = flows(checkpoint_container="not-there", checkpoint_connection_string="env:STORE")
    (problem,) = flow.source.check()
    assert "the container exists" in problem
