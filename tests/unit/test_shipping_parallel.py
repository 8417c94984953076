"""Several sends at once: each event in one of them, failures counted once, the rate kept, bugs survived."""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from aitrail.clock import SystemClock
from aitrail.delivery import Courier
from aitrail.errors import AuthError, TransientError
from aitrail.ports import Ack, EncodedEvent, Limits, Verdict
from aitrail.routing.rate import Rate
from aitrail.runtime.shipping import Shipper
from aitrail.spool import Intake, Spool


class Receiver:
    """Takes 10 events at a time, after a moment; tells how many sends were open at once."""

    name = "siem"
    dedupe = "none"
    limits = Limits(max_events=10)

    def __init__(self, seconds: float = 0.005) -> None:
        self.got: Counter[str] = Counter()
        self.most = 0
        self.sends = 0
        self.error: Exception | None = None
        self._seconds = seconds
        self._open = 0
        self._lock = threading.Lock()

    def check(self) -> list[str]:
        return []

    def send(self, batch: Sequence[EncodedEvent], deadline: float) -> Ack:
        with self._lock:
            self._open += 1
            self.sends += 1
            self.most = max(self.most, self._open)
        time.sleep(self._seconds)
        with self._lock:
            self._open -= 1
            if self.error is not None:
                raise self.error
            self.got.update(event.event_id for event in batch)
        # Some are asked for again at once, and the outbox has to keep exactly those.
        again = [sum(map(ord, event.event_id)) % 7 == 0 and self.got[event.event_id] == 1 for event in batch]
        return Ack([Verdict("retry", retry_after=0.0) if one else Verdict("delivered") for one in again])

    def confirm(self, token: str) -> Verdict:
        return Verdict("retry")

    def close(self) -> None:
        pass


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with Spool.open(tmp_path, SystemClock()) as opened:
        yield opened


def fill(spool: Spool, count: int, batch: int = 35) -> set[str]:
    ids = [f"{number:032x}" for number in range(count)]
    for start in range(0, count, batch):
        events = [EncodedEvent(one, "2026-11-23T00:00:00.000Z", b"{}") for one in ids[start : start + batch]]
        spool.commit(Intake("s", ["siem"], events, {}))
    return set(ids)


def empty(shipper: Shipper, spool: Spool) -> None:
    deadline = time.monotonic() + 30
    while spool.backlog("siem").events and time.monotonic() < deadline:
        shipper.once()


def test_every_event_is_in_exactly_one_send(spool: Spool) -> None:
    ids = fill(spool, 1_000)
    receiver = Receiver()
    shipper = Shipper(spool, receiver, SystemClock(), parallel=6)
    empty(shipper, spool)
    assert set(receiver.got) == ids
    asked_again = {one for one in ids if sum(map(ord, one)) % 7 == 0}
    assert {one for one, count in receiver.got.items() if count == 2} == asked_again
    assert max(receiver.got.values()) == 2
    assert 2 <= receiver.most <= 6
    assert shipper.courier.state.verdicts["delivered"] == 1_000
    assert spool.database.rows("SELECT count(*) FROM batch")[0][0] == 0


def test_a_small_backlog_is_sent_by_one(spool: Spool) -> None:
    fill(spool, 10)
    receiver = Receiver()
    empty(Shipper(spool, receiver, SystemClock(), parallel=6), spool)
    assert receiver.most == 1


def test_sends_that_fail_together_are_one_failure(spool: Spool) -> None:
    ids = fill(spool, 200)
    receiver = Receiver(seconds=0.05)
    receiver.error = TransientError("down")
    shipper = Shipper(spool, receiver, SystemClock(), parallel=4)
    assert shipper.once() == 0
    assert receiver.sends <= 4
    # The first pause is at most a second, whatever the number of sends that failed.
    assert shipper.courier.state.waiting_until <= time.time() + 1.0
    assert spool.backlog("siem").events == 200
    receiver.error = None
    empty(shipper, spool)
    assert set(receiver.got) == ids


def test_the_longest_retry_after_counts(spool: Spool) -> None:
    fill(spool, 100)
    receiver = Receiver()
    receiver.error = TransientError("slow down", retry_after=30.0)
    shipper = Shipper(spool, receiver, SystemClock(), parallel=4)
    shipper.once()
    assert shipper.courier.state.waiting_until > time.time() + 25.0
    sends = receiver.sends
    shipper.once()
    assert receiver.sends == sends


def test_refused_credentials_stop_all_and_lose_nothing(spool: Spool) -> None:
    ids = fill(spool, 100)
    receiver = Receiver()
    receiver.error = AuthError("the token is refused", hint="make a new one")
    shipper = Shipper(spool, receiver, SystemClock(), parallel=4)
    assert shipper.once() == 0
    assert shipper.courier.state.last_error == "the token is refused (make a new one)"
    receiver.error = None
    shipper.courier.state.waiting_until = 0.0
    empty(shipper, spool)
    assert set(receiver.got) == ids


def test_the_rate_holds_for_all_together(spool: Spool) -> None:
    fill(spool, 400)
    receiver = Receiver(seconds=0.001)
    began = time.monotonic()
    shipper = Shipper(spool, receiver, SystemClock(), rate=Rate(events=100), parallel=4)
    while time.monotonic() - began < 0.5:
        shipper.once()
        time.sleep(0.01)
    # A second's worth at once, half a second at 100/s, and a little for what the clock says.
    assert sum(receiver.got.values()) <= 100 + 100 * (time.monotonic() - began) + 10


def test_two_threads_never_take_the_same_events(spool: Spool) -> None:
    """Parts of one stored batch: what is under way is left out, what failed comes again."""
    fill(spool, 35)
    courier = Courier(spool, Receiver(), SystemClock())
    taken = [courier._take() for _ in range(5)]
    batches = [batch for batch in taken if batch is not None]
    assert [len(batch.events) for batch in batches] == [10, 10, 10, 5]
    assert len({event.event_id for batch in batches for event in batch.events}) == 35
    courier._unmark(batches[1])
    again = courier._take()
    assert again is not None
    assert [one.event_id for one in again.events] == [one.event_id for one in batches[1].events]


def test_a_bug_in_a_destination_does_not_end_its_shipping(spool: Spool) -> None:
    ids = fill(spool, 30)
    receiver = Receiver()
    receiver.error = ZeroDivisionError("with content CANARY-1")
    shipper = Shipper(spool, receiver, SystemClock())
    shipper.start()
    deadline = time.monotonic() + 30
    while not shipper.courier.state.last_error and time.monotonic() < deadline:
        time.sleep(0.01)
    said = shipper.courier.state.last_error
    assert "ZeroDivisionError at test_shipping_parallel.py" in said
    assert "CANARY" not in said
    receiver.error = None
    shipper.courier.state.waiting_until = 0.0
    shipper.wake()
    while spool.backlog("siem").events and time.monotonic() < deadline:
        time.sleep(0.01)
    shipper.stop(5)
    assert set(receiver.got) == ids


def test_a_stop_ends_in_the_middle_of_a_backlog(spool: Spool) -> None:
    ids = fill(spool, 2_000)
    receiver = Receiver(seconds=0.02)
    shipper = Shipper(spool, receiver, SystemClock())
    shipper.start()
    deadline = time.monotonic() + 30
    while receiver.sends < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    began = time.monotonic()
    shipper.stop(0.1)
    assert time.monotonic() - began < 5
    sends = receiver.sends
    time.sleep(0.1)
    assert receiver.sends == sends  # nothing is sent behind the stop
    left = spool.backlog("siem").events
    assert 0 < left < 2_000
    empty(Shipper(spool, receiver, SystemClock(), parallel=4), spool)
    assert set(receiver.got) == ids
