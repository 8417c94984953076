"""The flow without an outbox: what is confirmed, what is given back, and in which order what becomes durable."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import aitrail.pipeline as flow
from aitrail.enrich import Directory
from aitrail.errors import AuthError, ConfigError, TransientError
from aitrail.normalize.outcome import Context
from aitrail.pipeline import Pipeline
from aitrail.ports import DELIVERED, Ack, EncodedEvent, Limits, RawBatch, RawRecord, Verdict
from aitrail.privacy.keys import KeyRing
from aitrail.privacy.treat import Privacy
from aitrail.routing.route import Route
from aitrail.routing.select import Rule
from aitrail.routing.where import parse_where
from aitrail.runtime.scheduled import direct, telling
from aitrail.runtime.scheduled.direct import NO_CURSORS, Item, Outlet, Trouble, Unsettled, deadline_of, poll, push
from aitrail.runtime.scheduled.parts import Pushed, RunClock
from aitrail.secrets import Secrets
from aitrail.spool.records import DeadLetter, Intake
from aitrail.testing.aws_flow import ManualClock, _Plain, event_id, trail_record
from aitrail.transform import Transform

MORNING = 1_795_424_400.0
RULE = Rule(frozenset({"access"}))
Judge = Callable[[EncodedEvent, int], Verdict]


class Target:
    """A destination that judges each event by a function of the event and how often it was sent."""

    dedupe = "by_id"

    def __init__(self, name: str = "siem", judge: Judge | None = None, most: int = 10) -> None:
        self.name = name
        self.limits = Limits(max_events=most)
        self.sent: list[str] = []
        self.calls = 0
        self.answers: dict[str, list[Verdict]] = {}
        self.errors: list[Exception] = []
        self._judge = judge or (lambda event, times: DELIVERED)

    def check(self) -> list[str]:
        return []

    def send(self, batch: Sequence[EncodedEvent], deadline: float) -> Ack:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        assert len(batch) <= self.limits.max_events
        verdicts = []
        for event in batch:
            self.sent.append(upstream(event))
            verdicts.append(self._judge(event, self.sent.count(upstream(event))))
        return Ack(verdicts)

    def confirm(self, token: str) -> Verdict:
        return self.answers[token].pop(0)

    def close(self) -> None:
        """Nothing."""


def upstream(event: EncodedEvent) -> str:
    return str(json.loads(event.body)["source_event_id"])


class Dead:
    """A dead-letter store."""

    def __init__(self) -> None:
        self.letters: list[DeadLetter] = []
        self.error: Exception | None = None

    def keep(self, letters: Sequence[DeadLetter]) -> None:
        if self.error is not None:
            raise self.error
        self.letters += letters


class Cursors:
    """Cursors that note when they are written."""

    def __init__(self, log: list[str]) -> None:
        self.committed: dict[str, bytes] = {}
        self._log = log

    def get(self, key: str) -> bytes | None:
        return self.committed.get(key)

    def items(self) -> Iterator[tuple[str, bytes]]:
        return iter(self.committed.items())

    def commit(self, changed: dict[str, bytes]) -> None:
        self._log.append("cursors")
        self.committed |= changed


class Rig:
    """An outlet and a pipeline around it."""

    def __init__(self, *targets: Target, seconds: float = 100.0, **more: Any) -> None:
        self.clock = ManualClock()
        self.end = self.clock.time + seconds
        self.dead = Dead()
        self.log: list[str] = []
        self.cursors = Cursors(self.log)
        routes = more.pop("routes", None) or [Route(target, RULE) for target in targets]
        self.outlet = Outlet(routes, self.dead, self.cursors, self.clock, self.left, **more)

    def left(self) -> float:
        return self.end - self.clock.time

    def pipeline(self, source: Any = None, **options: Any) -> Pipeline:
        ring = KeyRing(Path("/nonexistent"), {"t": "env:K"}, Secrets())
        return Pipeline(
            source or Pushed("s"), spool=self.outlet,
            transform=Transform(_Plain(), Privacy(ring, None), Directory(), lambda tenant: "redacted"),
            context=Context(tenant_id="t"), destinations=["siem"], clock=self.clock, **options,
        )  # fmt: skip

    def push(self, *items: Item) -> direct.Report:
        return push(self.pipeline(), items, self.left)


def batch(*numbers: int, key: str = "", cursor: bytes = b"") -> RawBatch:
    records = [RawRecord(json.dumps(trail_record(number, MORNING)).encode(), index=number) for number in numbers]
    return RawBatch("s3://b/k", records, key, cursor, settled=True)


def item(key: str, *numbers: int) -> Item:
    return Item(key, [batch(*numbers)])


# --- verdicts


def test_everything_is_delivered() -> None:
    siem = Target()
    rig = Rig(siem)
    report = rig.push(item("a", 1, 2), item("b", 3))
    assert (report.done, report.given_back) == (["a", "b"], [])
    assert report.complete
    assert siem.sent == [event_id(1), event_id(2), event_id(3)]
    assert rig.outlet.verdicts == {"siem.delivered": 3}
    assert siem.calls == 1


def test_only_the_item_that_is_not_settled_is_given_back() -> None:
    """An event that is told to come again until the end of the run holds up its own item, no other."""
    stuck = event_id(2)
    siem = Target(judge=lambda event, times: Verdict("retry") if upstream(event) == stuck else DELIVERED)
    rig = Rig(siem)
    report = rig.push(item("a", 1), item("b", 2, 3), item("c", 4))
    assert (report.done, report.given_back) == (["a", "c"], ["b"])
    assert siem.sent.count(stuck) > 2
    assert siem.sent.count(event_id(3)) == 1
    assert [telling.cause_of(one) for one in report.troubles] == ["destination"]


def test_a_refused_event_is_a_dead_letter_before_its_item_is_done() -> None:
    bad = Verdict("rejected", code="mapping")
    siem = Target(judge=lambda event, times: bad if upstream(event) == event_id(2) else DELIVERED)
    rig = Rig(siem)
    assert rig.push(item("a", 1, 2)).done == ["a"]
    [letter] = rig.dead.letters
    assert (letter.code, letter.destination, letter.stage) == ("mapping", "siem", "deliver")
    rig = Rig(siem)
    rig.dead.error = TransientError("the bucket is away")
    report = rig.push(item("a", 1, 2), item("b", 3))
    assert report.given_back == ["a", "b"]
    assert report.troubles[0].place == "dead_letters"


def test_records_that_cannot_become_events_are_dead_letters() -> None:
    rig = Rig(Target())
    bad = Item("a", [RawBatch("s3://b/k", [RawRecord(b"", error="gzip_corrupt"), RawRecord(b"{}")], "", b"")])
    report = rig.push(bad)
    assert report.done == ["a"]
    assert {one.code for one in rig.dead.letters} == {"gzip_corrupt", "type_unknown"}
    assert rig.outlet.dead == 2


def test_acknowledgements_are_awaited() -> None:
    """``pending`` is no delivery: it is asked about until it is one, or sent again when nobody knows of it."""
    siem = Target(judge=lambda event, times: Verdict("pending", token=f"t{times}") if times < 3 else DELIVERED)
    siem.answers = {"t1": [Verdict("pending", token="t1"), Verdict("retry")], "t2": [DELIVERED]}
    rig = Rig(siem)
    assert rig.push(item("a", 1)).done == ["a"]
    assert siem.sent == [event_id(1)] * 2
    never = Target(judge=lambda event, times: Verdict("pending", token="t"))
    never.answers = {"t": [Verdict("pending", token="t")] * 10_000}
    rig = Rig(never)
    assert rig.push(item("a", 1)).given_back == ["a"]


def test_whole_calls_that_fail_are_tried_again() -> None:
    siem = Target()
    siem.errors = [TransientError("away"), TransientError("away", retry_after=7.0)]
    rig = Rig(siem)
    assert rig.push(item("a", 1)).done == ["a"]
    assert rig.clock.slept >= 7.0
    siem.errors = [TransientError("away", retry_after=3_600.0)]
    calls = siem.calls
    rig = Rig(siem)
    assert rig.push(item("a", 1)).given_back == ["a"]
    assert rig.clock.slept == 0.0, "nobody waits for what the run will not see"
    assert siem.calls == calls + 1


@pytest.mark.parametrize(
    ("error", "cause"), [(AuthError("the token is refused"), "auth"), (ConfigError("no such index"), "config")]
)
def test_what_a_run_cannot_mend_ends_it_at_once(error: Exception, cause: str) -> None:
    siem = Target()
    siem.errors = [error] * 100
    rig = Rig(siem)
    report = rig.push(item("a", 1), item("b", 2))
    assert report.given_back == ["a", "b"]
    assert siem.calls == 1
    assert [telling.cause_of(one) for one in report.troubles] == [cause]


def test_a_bug_of_a_destination_is_no_verdict() -> None:
    siem, other = Target(), Target("other")
    siem.errors = [ZeroDivisionError("bug")]
    other.errors = [ZeroDivisionError("bug")]
    with pytest.raises(ZeroDivisionError):
        Rig(siem, other).push(item("a", 1))


# --- several destinations


def test_every_destination_has_to_say_yes() -> None:
    good, bad = Target("good"), Target("bad")
    bad.errors = [AuthError("refused")] * 9
    rig = Rig(good, bad)
    report = rig.push(item("a", 1))
    assert report.given_back == ["a"]
    assert good.sent == [event_id(1)]


def test_conditions_hold() -> None:
    few, all_ = Target("few"), Target("all")
    where = parse_where("user_id = 'nobody'", "w")
    rig = Rig(routes=[Route(few, Rule(frozenset({"access"}), where)), Route(all_, RULE)])
    assert rig.push(item("a", 1, 2)).done == ["a"]
    assert (few.sent, len(all_.sent)) == ([], 2)


# --- waiting and seen


class Store:
    """A store of waiting events, and of settled ones."""

    def __init__(self) -> None:
        self.kept: dict[str, list[str]] = {}
        self.settled: set[str] = set()

    def keep(self, destination: str, events: Sequence[EncodedEvent]) -> None:
        self.kept.setdefault(destination, []).extend(upstream(event) for event in events)

    def known(self, event_ids: Sequence[str]) -> list[bool]:
        return [one in self.settled for one in event_ids]

    def add(self, event_ids: Sequence[str]) -> None:
        self.settled.update(event_ids)


def test_what_cannot_be_given_back_waits() -> None:
    """For a platform that takes nothing back: what is not settled in time is kept durably, and then it is done."""
    store = Store()
    siem = Target(judge=lambda event, times: Verdict("retry") if upstream(event) == event_id(2) else DELIVERED)
    rig = Rig(siem, waiting=store)
    assert rig.push(item("a", 1, 2)).done == ["a"]
    assert store.kept == {"siem": [event_id(2)]}


def test_what_is_settled_is_not_sent_again() -> None:
    store = Store()
    siem = Target()
    assert Rig(siem, seen=store).push(item("a", 1, 2)).done == ["a"]
    report = Rig(siem, seen=store).push(item("a", 1, 2, 3))
    assert siem.sent == [event_id(1), event_id(2), event_id(3)]
    assert (report.totals.new, report.totals.duplicates) == (1, 2)


def test_one_event_twice_in_a_run_is_sent_once() -> None:
    siem = Target()
    assert Rig(siem).push(item("a", 1), item("b", 1)).done == ["a", "b"]
    assert siem.sent == [event_id(1)]


# --- time and order


def test_what_no_time_is_left_for_is_not_begun() -> None:
    siem = Target()
    rig = Rig(siem, seconds=0.0)
    read: list[int] = []

    def batches() -> Iterator[RawBatch]:
        read.append(1)
        yield batch(1)

    assert rig.push(Item("a", batches())).given_back == ["a"]
    assert (read, siem.calls) == ([], 0)


def test_time_that_ends_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Items that were settled before stay done; the one under way and those behind it are given back."""
    monkeypatch.setattr(flow, "COMMIT_EVENTS", 1)
    rig = Rig(Target())
    siem = Target(judge=lambda event, times: slow(event))
    rig.outlet = Outlet([Route(siem, RULE)], rig.dead, rig.cursors, rig.clock, rig.left)

    def slow(event: EncodedEvent) -> Verdict:
        rig.clock.time += 60.0
        return DELIVERED

    closed: list[str] = []

    def batches() -> Iterator[RawBatch]:
        try:
            yield batch(2)
            yield batch(3)
        finally:
            closed.append("closed")

    report = rig.push(item("a", 1), Item("b", batches()), item("c", 4))
    assert (report.done, report.given_back) == (["a"], ["b", "c"])
    assert closed == ["closed"]


def test_an_item_that_cannot_be_read_does_not_stand_in_the_way() -> None:
    def broken() -> Iterator[RawBatch]:
        yield batch(1)
        raise AuthError("kms:Decrypt is not allowed")

    siem = Target()
    report = Rig(siem).push(Item("a", broken()), item("b", 2))
    assert (report.done, report.given_back) == (["b"], ["a"])
    assert siem.sent == [event_id(1), event_id(2)]
    assert telling.cause_of(report.troubles[0]) == "auth"


def test_cursors_move_last() -> None:
    """First the verdicts, then dead letters, then what is settled, then the cursors."""
    log: list[str] = []
    siem = Target(judge=lambda event, times: log.append("sent") or Verdict("rejected", code="x"))  # type: ignore[func-returns-value]
    rig = Rig(siem)
    rig.log = log
    rig.cursors._log = log
    rig.dead.keep = lambda letters: log.append("dead")  # type: ignore[method-assign]
    rig.outlet.commit(
        Intake("s", ["siem"], [EncodedEvent("i", "t", b'{"source_event_id":"1"}')], {"k": b"1"}, batches=[1])
    )
    assert log == ["sent", "dead", "cursors"]


def test_a_failed_commit_stays_failed() -> None:
    """The pipeline commits once more when its source fails: what was sent must not be sent again."""
    siem = Target()
    siem.errors = [AuthError("refused")]
    rig = Rig(siem)
    intake = Intake("s", ["siem"], [EncodedEvent("i", "t", b'{"source_event_id":"1"}')], {"k": b"1"}, batches=[1])
    for _ in range(2):
        with pytest.raises(Unsettled) as error:
            rig.outlet.commit(intake)
        assert error.value.batches == {1}
    assert siem.calls == 1
    assert rig.cursors.committed == {}


# --- polls


class Polled(Pushed):
    """A source of two batches."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__("s")
        self._error = error

    def fetch(self, cursors: Any, budget: Any) -> Iterator[RawBatch]:
        at = int(cursors.get("k") or 0)
        for number in range(at + 1, 4):
            yield batch(number, key="k", cursor=str(number).encode())
        if self._error is not None:
            raise self._error


def test_a_poll_commits_its_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "COMMIT_EVENTS", 1)
    rig = Rig(Target())
    report = poll(rig.pipeline(Polled()), rig.left)
    assert report.complete
    assert rig.cursors.committed == {"k": b"3"}
    assert rig.log == ["cursors"] * 3


def test_a_poll_that_fails_keeps_what_is_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "COMMIT_EVENTS", 1)
    siem = Target(judge=lambda event, times: Verdict("retry") if upstream(event) == event_id(2) else DELIVERED)
    rig = Rig(siem)
    report = poll(rig.pipeline(Polled()), rig.left)
    assert rig.cursors.committed == {"k": b"1"}
    assert not report.complete
    assert report.troubles[0].place == "destination:siem"
    rig = Rig(Target())
    report = poll(rig.pipeline(Polled(TransientError("throttled"))), rig.left)
    assert rig.cursors.committed == {"k": b"3"}
    assert [one.place for one in report.troubles] == ["source"]


# --- small parts


def test_nothing_is_remembered_of_pushes() -> None:
    assert NO_CURSORS.get("k") is None
    assert list(NO_CURSORS.items()) == []
    NO_CURSORS.commit({"k": b""})


def test_nobody_sleeps_beyond_the_end() -> None:
    clock = RunClock()
    clock.left = lambda: 5.0
    with pytest.raises(TransientError, match="the time of this run is over"):
        clock.sleep(6.0)
    assert deadline_of(3.0, lambda: 100.0)() == 3.0


def test_the_line_says_what_went_wrong_without_forging_another() -> None:
    trouble = Trouble("destination:siem", AuthError("refused\n{}", hint="renew it"))
    text = telling.line({"Records": 3.0}, [trouble, trouble], {"Stack": "s", "Function": "f"}, MORNING, kind="queue")
    assert "\n" not in text
    said = json.loads(text)
    assert said["causes"] == ["destination:siem: refused\\x0a{} (renew it)"]
    assert (said["Failures"], said["Failures.auth"], said["Records"]) == (1.0, 1.0, 3.0)
    metrics = said["_aws"]["CloudWatchMetrics"][0]
    assert metrics["Dimensions"] == [["Stack"], ["Stack", "Function"]]
    assert {one["Name"] for one in metrics["Metrics"]} <= set(said)
    assert telling.cause_of(Trouble("waiting", TransientError("x"))) == "dead_letters"
    assert {telling.cause_of(one) for one in (telling.bug(ValueError("content")),)} == {"bug"}
    assert "content" not in telling.sentence(telling.bug(ValueError("content")))
