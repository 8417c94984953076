"""The suite itself: a right destination passes, also in chaos, and wrong ones are found out."""

from collections.abc import Sequence

import pytest

from aitrail.ports import Ack, Destination, EncodedEvent
from aitrail.testing.conformance import run_conformance
from aitrail.testing.peer import Behaviour, Peer
from aitrail.testing.reference import ChaosDestination, MemoryPeer, ReferenceDestination


def make(peer: Peer) -> Destination:
    return ReferenceDestination(peer.address)


def make_chaos(peer: Peer) -> Destination:
    return ChaosDestination(ReferenceDestination(peer.address), seed=7)


@pytest.fixture
def peer():
    one = MemoryPeer()
    yield one
    one.close()


def test_reference_keeps_the_promise(peer):
    report = run_conformance(make, peer)
    assert report.ok, report.problems
    assert sum(row.outcome == "pass" for row in report.rows) >= 17


def test_reference_in_chaos_keeps_the_promise(peer):
    # In chaos events come again and calls fail beyond what each case allows for; the books must still be right.
    report = run_conformance(make_chaos, peer, only={"F0", "F8", "F9", "F10", "F12", "F14", "F15", "F16", "F33"})
    for row in report.rows:
        assert (row.lost, row.false, row.duplicated) == (0, 0, 0), row


class Careless(ReferenceDestination):
    """What shippers do wrong, one at a time."""

    flaw = ""

    def send(self, batch: Sequence[EncodedEvent], deadline: float) -> Ack:
        if self.flaw == "rejects all":
            ack = super().send(batch, deadline)
            if any(verdict.status == "rejected" for verdict in ack.verdicts):
                return Ack([verdict for verdict in ack.verdicts if verdict.status == "rejected"][:1] * len(batch))
            return ack
        if self.flaw == "cuts":
            cut = [EncodedEvent(one.event_id, one.timestamp, one.body.replace(b"\\n", b" ")) for one in batch]
            return super().send(cut, deadline)
        if self.flaw == "invents":
            return Ack.all_delivered(len(batch))
        if self.flaw == "forges":
            return super().send(
                [EncodedEvent(one.event_id[:-1] + "x", one.timestamp, one.body) for one in batch], deadline
            )
        try:
            return super().send(batch, deadline)
        except Exception:
            if self.flaw == "swallows":
                return Ack.all_delivered(len(batch))
            raise


def make_careless(flaw):
    def one(peer):
        destination = Careless(peer.address)
        destination.flaw = flaw
        return destination

    return one


@pytest.mark.parametrize(
    ("flaw", "case", "column"),
    [
        ("swallows", "F8", "lost"),
        ("swallows", "F28", "lost"),
        ("invents", "F0", "false"),
        ("forges", "F0", "duplicated"),
        ("rejects all", "F10", "dead"),
    ],
)
def test_careless_destinations_fail(peer, flaw, case, column):
    report = run_conformance(make_careless(flaw), peer, only={case}, show=False)
    assert not report.ok
    assert getattr(report.rows[0], column) > 0


def test_a_text_that_arrives_changed_in_any_field_is_found_out(peer):
    report = run_conformance(make_careless("cuts"), peer, only={"F25"}, show=False)
    assert "lines: prompt_text, response_text, user_agent" in report.problems[0]
    assert run_conformance(make_careless("cuts"), peer, only={"F25"}, show=False, marks_controls=True).ok


def test_only_peers_with_a_fault_are_asked_for_it(peer):
    report = run_conformance(make, peer, only={"F11"}, show=False)
    assert report.rows[0].outcome == "skip"
    with pytest.raises(ValueError, match="ack_never"):
        peer.script(Behaviour("ack_never"))
