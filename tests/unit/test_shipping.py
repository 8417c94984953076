"""Destinations beside the store: what is collected reaches them, and a refused one loses nothing."""

import time
from pathlib import Path

import pytest

from aitrail.clock import SystemClock
from aitrail.errors import AuthError
from aitrail.ports import Ack, EncodedEvent, Limits, Verdict
from aitrail.runtime.shipping import Shipper
from aitrail.spool import Intake, Spool


class Receiver:
    """Takes events once it is told to; the first answer may be pending."""

    name = "siem"
    dedupe = "none"
    limits = Limits(max_events=10)

    def __init__(self, *, refuse: bool = False, pending: bool = False) -> None:
        self.refuse, self.pending = refuse, pending
        self.got: list[str] = []
        self.closed = False

    def check(self) -> list[str]:
        return []

    def send(self, batch: list[EncodedEvent], deadline: float) -> Ack:
        if self.refuse:
            raise AuthError("the token is refused")
        if self.pending:
            return Ack([Verdict("pending", token="t1")] * len(batch))
        self.got += [event.event_id for event in batch]
        return Ack.all_delivered(len(batch))

    def confirm(self, token: str) -> Verdict:
        self.got.append(token)
        return Verdict("delivered")

    def close(self) -> None:
        self.closed = True


def fill(spool: Spool, count: int) -> list[str]:
    ids = [f"{i:032x}" for i in range(count)]
    spool.commit(Intake("s", ["siem"], [EncodedEvent(i, "2026-11-23T00:00:00.000Z", b"{}") for i in ids], {}))
    return ids


@pytest.fixture
def spool(tmp_path: Path):
    with Spool.open(tmp_path, SystemClock()) as opened:
        yield opened


def test_a_thread_ships_everything_and_ends_when_told(spool: Spool) -> None:
    ids = fill(spool, 35)
    receiver = Receiver()
    shipper = Shipper(spool, receiver, SystemClock())  # type: ignore[arg-type]
    shipper.start()
    shipper.wake()
    shipper.stop(10)
    assert receiver.got == ids
    assert receiver.closed
    assert spool.backlog("siem").events == 0


def test_a_refused_credential_keeps_the_events_and_says_so(spool: Spool) -> None:
    ids = fill(spool, 3)
    receiver = Receiver(refuse=True)
    shipper = Shipper(spool, receiver, SystemClock())  # type: ignore[arg-type]
    assert shipper.once() == 0
    assert "refused" in shipper.courier.state.last_error
    assert spool.backlog("siem").events == 3
    receiver.refuse = False
    shipper.courier.state.waiting_until = time.time() - 1
    assert shipper.once() == 3
    assert receiver.got == ids


def test_pending_events_are_confirmed_once_per_token(spool: Spool) -> None:
    fill(spool, 4)
    receiver = Receiver(pending=True)
    shipper = Shipper(spool, receiver, SystemClock())  # type: ignore[arg-type]
    shipper.once()
    assert receiver.got == ["t1"]
    assert spool.backlog("siem").events == 0
    assert shipper.courier.state.verdicts == {"pending": 4, "delivered": 4}
