"""One collector per source, and a fence against the one that was before."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from aitrail.errors import StoreError
from aitrail.ports import EncodedEvent, Lease
from aitrail.spool import Intake, Spool
from aitrail.spool.leases import LeaseLostError, SqliteLeases, make_owner
from aitrail.spool.states import SourceState, load


class Clock:
    def __init__(self) -> None:
        self.time = 1_000.0

    def now(self) -> float:
        return self.time

    monotonic = now

    def sleep(self, seconds: float) -> None:
        self.time += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def spool(tmp_path: Path, clock: Clock) -> Iterator[Spool]:
    with Spool.open(tmp_path, clock) as opened:
        yield opened


def step(lease: Lease | None, number: int = 1) -> Intake:
    event = EncodedEvent(f"{number:032x}", "2026-11-20T08:00:00.000Z", b"{}")
    return Intake(
        source="s",
        destinations=("store",),
        events=[event],
        cursors={"k": str(number).encode()},
        lease=lease,
        counts={"records": 1},
        attestations={"o": "valid"},
        state=SourceState(newest_event=float(number)),
    )


def test_a_lease_is_held_by_one_until_it_expires(spool: Spool, clock: Clock) -> None:
    one, two = SqliteLeases(spool.database, "one"), SqliteLeases(spool.database, "two")
    first = one.acquire("s", 60.0)
    assert first == Lease("s", "one", 1, 1060.0)
    assert two.acquire("s", 60.0) is None
    assert two.acquire("other", 60.0) is not None
    clock.time += 59.0
    assert two.acquire("s", 60.0) is None
    clock.time += 2.0
    second = two.acquire("s", 60.0)
    assert second is not None
    assert (second.owner, second.token) == ("two", 2)
    assert one.acquire("s", 60.0) is None


def test_taking_it_again_keeps_the_token_and_extends(spool: Spool, clock: Clock) -> None:
    leases = SqliteLeases(spool.database, "one")
    first = leases.acquire("s", 60.0)
    clock.time += 30.0
    again = leases.acquire("s", 60.0)
    assert first is not None
    assert again is not None
    assert (again.token, again.expires) == (first.token, 1090.0)


def test_renewing_gives_what_is_still_ours(spool: Spool, clock: Clock) -> None:
    one, two = SqliteLeases(spool.database, "one"), SqliteLeases(spool.database, "two")
    mine = [one.acquire("a", 60.0), one.acquire("b", 60.0)]
    assert None not in mine
    clock.time += 61.0
    assert two.acquire("a", 60.0) is not None
    kept = one.renew([lease for lease in mine if lease], 60.0)
    assert [(lease.name, lease.expires) for lease in kept] == [("b", 1121.0)], "nobody has taken b meanwhile"


def test_a_released_lease_is_free_and_a_lost_one_cannot_be_released(spool: Spool, clock: Clock) -> None:
    one, two = SqliteLeases(spool.database, "one"), SqliteLeases(spool.database, "two")
    first = one.acquire("s", 60.0)
    assert first is not None
    one.release([first])
    second = two.acquire("s", 60.0)
    assert second is not None
    one.release([first])
    assert two.holders()["s"].expires == second.expires
    assert one.acquire("s", 60.0) is None


def test_whoever_has_the_writer_lock_takes_over_from_the_dead_at_once(spool: Spool) -> None:
    dead, alive = SqliteLeases(spool.database, "dead"), SqliteLeases(spool.database, "alive")
    assert dead.acquire("s", 60.0) is not None
    assert alive.acquire("t", 60.0) is not None
    assert alive.reclaim() == 1
    taken = alive.acquire("s", 60.0)
    assert taken is not None
    assert taken.token == 2


def test_the_fence_lets_nothing_of_a_late_commit_through(spool: Spool, clock: Clock) -> None:
    one, two = SqliteLeases(spool.database, "one"), SqliteLeases(spool.database, "two")
    late = one.acquire("s", 60.0)
    spool.commit(step(late, 1))
    clock.time += 61.0
    spool.commit(step(late, 2))  # expired, but nobody has taken it: still the newest token
    fresh = two.acquire("s", 60.0)
    before = spool.counters()
    with pytest.raises(LeaseLostError, match="source s: another collector has taken the lease over") as caught:
        spool.commit(step(late, 3))
    assert isinstance(caught.value, StoreError)
    assert spool.counters() == before
    assert spool.cursors("s").get("k") == b"2"
    assert load(spool.database, SourceState)["s"].newest_event == 2.0
    assert spool.backlog("store").events == 2
    assert spool.commit(step(fresh, 3)).new == 1


def test_a_lease_that_never_was_is_no_lease(spool: Spool) -> None:
    with pytest.raises(LeaseLostError):
        spool.commit(step(Lease("s", "one", 1, 2e9)))


def test_owners_differ(spool: Spool) -> None:
    assert make_owner() != make_owner()
    assert SqliteLeases(spool.database).owner.count(":") >= 2
