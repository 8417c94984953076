"""Polling by time: LookupEvents against a faithful fake, CloudWatch Logs against a moto server.

Events arrive late, out of order and at equal times; tokens expire and pages turn in circles; the caller is throttled
and dies. Each test ends with a line of the table (``pytest -s``): events, lost, duplicated in the outbox.
"""

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aitrail.errors import AuthError, TransientError
from aitrail.ports import Budget
from aitrail.sources import _aws_windows
from aitrail.sources._aws_settings import CloudWatchSettings, LookupSettings
from aitrail.sources.cloudtrail_lookup import LookupSource
from aitrail.sources.cloudwatch_logs import CloudWatchSource
from aitrail.testing.aws_flow import MORNING, Flow, ManualClock, event_id, invocation_record, trail_record
from aitrail.testing.aws_lookup import History, HistoryEvent, history
from aitrail.testing.aws_moto import Fault, Gate, aws_client, gate

HOUR = 3_600.0


@pytest.fixture(autouse=True)
def _identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.fixture
def flow(tmp_path: Path) -> Iterator[Flow]:
    flow = Flow(tmp_path / "store", ManualClock())
    yield flow
    flow.close()


@pytest.fixture
def trail(flow: Flow) -> Iterator[History]:
    with history(flow.clock) as one:
        yield one


def lookup(trail: History, flow: Flow, **changes: Any) -> LookupSource:
    return LookupSource(LookupSettings(endpoint_url=trail.url, **changes), name="history", clock=flow.clock, key=b"k")


def add(trail: History, number: int, at: float, delay: float = 300.0, **changes: Any) -> str:
    record = json.dumps(trail_record(number, at))
    trail.events.append(HistoryEvent(event_id(number), int(at), int(at) + delay, record, **changes))
    return event_id(number)


def poll(flow: Flow, make: Callable[[], LookupSource], until: float, step: float = 300.0) -> None:
    """Poll every five minutes, as the daemon does."""
    while flow.clock.time < until:
        flow.run(make())
        flow.clock.time += step


def test_late_and_out_of_order_events_are_found_and_none_comes_twice(trail: History, flow: Flow) -> None:
    dice = random.Random(3)
    delays = [60.0, 200.0, 594.0, 25 * 60.0, 85 * 60.0, 7 * HOUR]
    expected = [add(trail, n, MORNING + n * 40, dice.choice(delays)) for n in range(400)]
    poll(flow, lambda: lookup(trail, flow), MORNING + 12 * HOUR, step=600.0)
    flow.clock.time += 25 * HOUR
    flow.run(lookup(trail, flow))
    assert flow.spool.counters()["history"]["records"] == 400, (
        "the memory of ids spared the pipeline all of the overlap"
    )
    assert trail.throttled == 0
    print(flow.verdict(expected, "lookup: late by up to 7 h"))


def test_equal_times_across_pages(trail: History, flow: Flow) -> None:
    expected = [add(trail, n, MORNING - 100, 0) for n in range(170)]
    flow.run(lookup(trail, flow))
    expected += [add(trail, n, MORNING - 100, 60) for n in range(170, 340)]
    flow.clock.time += 300
    flow.run(lookup(trail, flow))
    print(flow.verdict(expected, "lookup: 340 events of one second"))


@pytest.mark.parametrize("after", [0, 2, 5])
def test_a_crash_anywhere_in_the_pages(trail: History, flow: Flow, after: int) -> None:
    expected = [add(trail, n, MORNING - 3 * HOUR + n * 30, 0) for n in range(330)]
    flow.crash(lookup(trail, flow), after=after)
    add(trail, 330, MORNING - 2 * HOUR, 2 * HOUR + 30)
    flow.clock.time += 60
    flow.run(lookup(trail, flow))
    print(flow.verdict([*expected, event_id(330)], f"lookup: crash after {after} batches"))


@pytest.mark.parametrize(("trouble", "limit"), [("expire_tokens", 2), ("loop_pages", 2), ("empty_pages", 7)], ids=str)
def test_expired_tokens_circles_and_empty_pages(trail: History, flow: Flow, trouble: str, limit: int) -> None:
    expected = [add(trail, n, MORNING - HOUR + n, 0) for n in range(220)]
    setattr(trail, trouble, limit)
    flow.run(lookup(trail, flow))
    assert getattr(trail, trouble) == 0
    print(flow.verdict(expected, f"lookup: {trouble}"))


def test_endless_circles_and_endless_empty_pages_end(
    trail: History, flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_aws_windows, "_MOST_EMPTY_PAGES", 20)
    expected = [add(trail, n, MORNING - HOUR + n, 0) for n in range(120)]
    trail.loop_pages = 1_000
    with pytest.raises(TransientError, match="circles"):
        flow.run(lookup(trail, flow))
    assert trail.calls < 20
    trail.loop_pages, trail.empty_pages = 0, 1_000
    with pytest.raises(TransientError, match="empty pages"):
        flow.run(lookup(trail, flow))
    trail.empty_pages = 0
    flow.run(lookup(trail, flow))
    print(flow.verdict(expected, "lookup: endless circles"))


def test_two_calls_a_second_are_shared_by_all_sources_of_the_process(trail: History, flow: Flow) -> None:
    expected = [add(trail, n, MORNING - HOUR + n, 0) for n in range(500)]
    started = flow.clock.time
    for name in ("one", "two"):
        source = LookupSource(LookupSettings(endpoint_url=trail.url), name=name, clock=flow.clock, key=b"k")
        flow.run(source)
    assert trail.throttled == 0
    assert trail.calls / (flow.clock.time - started) <= 2.2
    print(flow.verdict(expected, "lookup: two sources, one pace"))


def test_throttling_by_others_is_waited_for(flow: Flow) -> None:
    with history(flow.clock, rate=1.0) as trail:
        expected = [add(trail, n, MORNING - HOUR + n, 0) for n in range(200)]
        flow.run(lookup(trail, flow))
        assert trail.throttled > 0
        print(flow.verdict(expected, "lookup: throttled by others"))


def test_credentials_that_expire_are_renewed_once(trail: History, flow: Flow) -> None:
    expected = [add(trail, n, MORNING - HOUR + n, 0) for n in range(120)]
    trail.errors.extend(["ExpiredTokenException"])
    flow.run(lookup(trail, flow))
    trail.errors.extend(["ExpiredTokenException"] * 2)
    with pytest.raises(AuthError, match="refused"):
        flow.run(lookup(trail, flow))
    trail.errors.extend(["AccessDeniedException"])
    with pytest.raises(AuthError) as failed:
        flow.run(lookup(trail, flow))
    assert failed.value.hint == "grant cloudtrail:LookupEvents on CloudTrail in us-east-1"
    flow.run(lookup(trail, flow))
    print(flow.verdict(expected, "lookup: credentials expired"))


def test_small_budgets_get_through(trail: History, flow: Flow) -> None:
    expected = [add(trail, n, MORNING - 20 * HOUR + n * 100, 0) for n in range(700)]
    turns = 0
    while len(flow.events) < 700 and turns < 120:
        flow.run(lookup(trail, flow), Budget(records=60))
        turns += 1
    assert turns < 60
    print(flow.verdict(expected, f"lookup: budget of 60 records, {turns} turns"))


def test_a_busy_hour_is_cut_into_slices(trail: History, flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_aws_windows, "_MOST_PAGES", 3)
    expected = [add(trail, n, MORNING - HOUR + n, 0) for n in range(900)]
    flow.run(lookup(trail, flow))
    print(flow.verdict(expected, "lookup: slices of a busy hour"))


def test_two_pollers_of_one_history(trail: History, flow: Flow) -> None:
    """A lease keeps two collectors apart; even without one, one store holds everything once."""
    expected = [add(trail, n, MORNING + n * 10) for n in range(200)]
    while flow.clock.time < MORNING + 2 * HOUR:
        flow.run(lookup(trail, flow))
        other = LookupSource(LookupSettings(endpoint_url=trail.url), name="other", clock=flow.clock, key=b"k")
        flow.run(other)
        flow.clock.time += 600
    print(flow.verdict(expected, "lookup: two pollers"))


def test_services_and_ranges(trail: History, flow: Flow) -> None:
    mine = [add(trail, n, MORNING - 5 * HOUR + n, 0) for n in range(20)]
    for n in range(20, 40):
        add(trail, n, MORNING - 5 * HOUR + n, 0, source="ec2.amazonaws.com")
    source = lookup(trail, flow, event_sources=("bedrock.amazonaws.com",))
    flow.run(source.ranged(MORNING - 5 * HOUR + 5, MORNING - 5 * HOUR + 9))
    assert {event_id(n) for n in range(5, 9)} <= flow.ids() <= {event_id(n) for n in range(5, 10)}
    flow.run(source)
    print(flow.verdict(mine, "lookup: one service, and a range before"))
    place = flow.events[0].source_ref
    origin, _, rest = place.partition("#offset=")
    position, _, index = rest.partition("&record=")
    found = source.reread(origin, int(position), 0, int(index))
    assert found is not None
    assert json.loads(found)["eventID"] == flow.events[0].source_event_id


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(st.integers(0, 4 * 3_600), st.sampled_from([1, 60, 700, 1_500, 6_000, 40_000])), max_size=60),
    st.lists(st.sampled_from(["poll", "crash", "expire", "loop", "wait"]), min_size=4, max_size=12),
)
def test_any_schedule_of_delivery_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory, deliveries: list[tuple[int, int]], acts: list[str]
) -> None:
    clock = ManualClock()
    flow = Flow(tmp_path_factory.mktemp("flow"), clock)
    with history(clock) as trail:
        expected = [add(trail, n, MORNING + at, delay) for n, (at, delay) in enumerate(deliveries)]
        for act in acts:
            clock.time += 1_500
            trail.expire_tokens, trail.loop_pages = int(act == "expire"), int(act == "loop")
            if act == "crash":
                flow.crash(lookup(trail, flow), after=1)
            elif act != "wait":
                flow.run(lookup(trail, flow))
        # Nothing is later than 24 hours, so the sweeps of the next day and a half find everything.
        for _ in range(4):
            clock.time += 9 * HOUR
            flow.run(lookup(trail, flow))
        flow.verdict(expected, "lookup: any schedule")
    flow.close()


# --- CloudWatch Logs


@pytest.fixture
def today(tmp_path: Path) -> Iterator[Flow]:
    """CloudWatch takes events of the last days only, by the machine's clock."""
    flow = Flow(tmp_path / "today", ManualClock(float(int(time.time()))))
    yield flow
    flow.close()


@pytest.fixture
def group() -> Iterator[str]:
    logs = aws_client("logs")
    name = f"/bedrock/invocations-{time.time_ns()}"
    logs.create_log_group(logGroupName=name)
    for stream in ("one", "two"):
        logs.create_log_stream(logGroupName=name, logStreamName=stream)
    yield name
    logs.delete_log_group(logGroupName=name)


def write(group: str, stream: str, numbers: range, at: float) -> list[str]:
    rows = [invocation_record(number, at) for number in numbers]
    events = [{"timestamp": int(at * 1_000), "message": json.dumps(row)} for row in rows]
    aws_client("logs").put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)
    return [str(row["requestId"]) for row in rows]


def watch(group: str, flow: Flow, url: str, *more: str, **changes: Any) -> CloudWatchSource:
    options = CloudWatchSettings(log_groups=(group, *more), endpoint_url=url, **changes)
    return CloudWatchSource(options, name="bedrock", clock=flow.clock, key=b"k")


@pytest.fixture
def fence() -> Iterator[Gate]:
    with gate() as one:
        yield one


def test_log_groups_survive_crashes_throttling_and_late_events(today: Flow, group: str, fence: Gate) -> None:
    now = today.clock.time
    expected = write(group, "one", range(150), now - 3_000) + write(group, "two", range(150, 300), now - 3_000)
    today.crash(watch(group, today, fence.url), after=0)
    fence.faults = [
        Fault("FilterLogEvents", "ThrottlingException", 400, 2),
        Fault("FilterLogEvents", "ExpiredToken", 400),
    ]
    today.run(watch(group, today, fence.url))
    expected += write(group, "two", range(300, 310), now - 4_000) + write(group, "one", range(310, 320), now - 3_000)
    today.clock.time += 1_801
    source = watch(group, today, fence.url)
    today.run(source)
    assert source.tally.again == 300
    assert today.spool.counters()["bedrock"]["records"] == 320
    print(today.verdict(expected, "cloudwatch: crash, throttling, late events"))
    origin, _, rest = today.events[7].source_ref.partition("#offset=")
    position, _, index = rest.partition("&record=")
    found = source.reread(origin, int(position), 0, int(index))
    assert found is not None
    assert json.loads(found)["requestId"] == today.events[7].source_event_id


def test_a_group_that_is_not_there_does_not_stop_the_others(today: Flow, group: str, fence: Gate) -> None:
    expected = write(group, "one", range(20), today.clock.time - 100)
    source = CloudWatchSource(
        CloudWatchSettings(log_groups=("/nowhere", group), endpoint_url=fence.url),
        name="bedrock",
        clock=today.clock,
        key=b"k",
    )
    with pytest.raises(TransientError, match="ResourceNotFoundException") as failed:
        today.run(source)
    assert "correct its name" in failed.value.hint
    assert source.check() == [f"{failed.value}: {failed.value.hint}"]
    print(today.verdict(expected, "cloudwatch: one group missing"))


def test_empty_pages_with_a_token_and_stale_tokens(today: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moto gives full pages only: here the service is a function with the habits of FilterLogEvents."""
    now = today.clock.time
    rows = [invocation_record(number, now - 50) for number in range(6)]
    answers: list[Any] = [
        {"events": [], "nextToken": "a"},
        {"events": [], "nextToken": "b"},
        {"events": _shown(rows[:3], now), "nextToken": "c"},
        _aws_windows.StaleTokenError(),
        {"events": _shown(rows[:3], now), "nextToken": "d"},
        {"events": [], "nextToken": "e"},
        {"events": _shown(rows[3:], now)},
    ]
    source = CloudWatchSource(CloudWatchSettings(log_groups=("g",)), name="bedrock", clock=today.clock, key=b"k")

    def call(*_: Any, **parameters: Any) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("aitrail.sources._aws_calls.Aws.call", call)
    today.run(source)
    assert answers == []
    print(today.verdict([row["requestId"] for row in rows], "cloudwatch: empty pages, stale token"))


def _shown(rows: list[dict[str, Any]], now: float) -> list[dict[str, Any]]:
    return [
        {"eventId": row["requestId"], "timestamp": int(now - 50) * 1_000, "message": json.dumps(row)} for row in rows
    ]
