"""When a source is read again."""

import random

import pytest

from aitrail.runtime.schedule import LONGEST_PAUSE, LONGEST_RETRY_AFTER, Schedule


@pytest.fixture
def chance() -> random.Random:
    return random.Random(7)


def test_the_interval_runs_from_start_to_start_with_a_little_jitter(chance: random.Random) -> None:
    dues = []
    for _ in range(200):
        schedule = Schedule(60.0, failures=3)
        schedule.succeeded(1000.0, 1002.0, chance, more=False)
        assert schedule.failures == 0
        dues.append(schedule.due)
    assert 1057.0 <= min(dues) < max(dues) <= 1063.0
    assert len(set(dues)) > 100


def test_a_turn_longer_than_the_interval_is_followed_by_a_short_rest(chance: random.Random) -> None:
    schedule = Schedule(10.0)
    schedule.succeeded(1000.0, 1020.0, chance, more=False)
    assert 1020.5 <= schedule.due <= 1021.5


def test_what_is_waiting_is_read_at_once(chance: random.Random) -> None:
    schedule = Schedule(600.0)
    schedule.succeeded(1000.0, 1030.0, chance, more=True)
    assert schedule.due == 1030.0


@pytest.mark.parametrize("interval", [0.01, 10.0, 86_400.0])
def test_pauses_after_failures_grow_over_their_whole_range_and_are_capped(
    chance: random.Random, interval: float
) -> None:
    ceilings = []
    for failures in (0, 3, 30):
        pauses = []
        for _ in range(300):
            schedule = Schedule(interval, failures=failures)
            pauses.append(schedule.failed(1000.0, chance))
            assert schedule.due == 1000.0 + pauses[-1]
            assert schedule.failures == failures + 1
        assert 0.5 <= min(pauses) <= max(pauses) <= LONGEST_PAUSE
        assert max(pauses) - min(pauses) > 0.45 * max(pauses), "full jitter"
        ceilings.append(max(pauses))
    assert ceilings[0] <= ceilings[1] * 1.05 <= ceilings[2] * 1.1
    assert ceilings[-1] > 0.9 * LONGEST_PAUSE


@pytest.mark.parametrize(("asked", "least", "most"), [(30.0, 30.0, 33.0), (0.0, 0.0, 0.1), (-5.0, 0.0, 0.1)])
def test_what_the_peer_asks_for_is_done(chance: random.Random, asked: float, least: float, most: float) -> None:
    for _ in range(100):
        assert least <= Schedule(1.0).failed(0.0, chance, asked) <= most


def test_an_absurd_retry_after_is_capped(chance: random.Random) -> None:
    assert Schedule(1.0).failed(0.0, chance, 31_536_000.0) <= LONGEST_RETRY_AFTER * 1.1


def test_putting_off_is_no_failure() -> None:
    schedule = Schedule(1.0)
    schedule.put_off(10.0, 5.0)
    assert (schedule.due, schedule.failures) == (15.0, 0)
