"""The daemon: what each source may do to the others (nothing), what is committed, told, held back and written down."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import aitrail.runtime.daemon as daemon
from aitrail.config import Config, SourceConfig, StoreConfig
from aitrail.destinations.lake import LakeDestination
from aitrail.errors import AitrailError, AuthError, StoreError, TransientError
from aitrail.pipeline import Totals
from aitrail.ports import Ack, Budget, Cursors, RawBatch, RawRecord, Source, Workload
from aitrail.runtime import assemble, books
from aitrail.runtime.assemble import Runtime, open_runtime
from aitrail.runtime.signals import Stop
from aitrail.runtime.status import Snapshot, take
from aitrail.spool import Spool
from aitrail.spool.leases import SqliteLeases

TRAIL = json.loads((Path(__file__).parents[1] / "fixtures" / "cloudtrail" / "invoke-model.json").read_bytes())
PATIENCE = 60.0


def trail(name: str, number: int, at: str = "2026-11-20T08:00:00Z") -> bytes:
    identity = f"{name:x>8.8}-0000-4000-8000-{number:012d}"
    return json.dumps({**TRAIL, "eventID": identity, "eventTime": at}).encode()


class Script:
    """A source that does in each turn what a function says; notes what it is told, and from which thread."""

    def __init__(self, name: str, turn: Callable[["Script", Cursors], Iterator[RawBatch]]) -> None:
        self.name = name
        self.turn = turn
        self.turns = 0
        self.told: list[str] = []
        self.threads: set[str] = set()
        self.closed = False
        self.refuse: Exception | None = None

    def survey(self, cursors: Cursors) -> Workload:
        return Workload()

    def fetch(self, cursors: Cursors, budget: Budget) -> Iterator[RawBatch]:
        self.turns += 1
        self.threads.add(threading.current_thread().name)
        yield from self.turn(self, cursors)

    def acknowledge(self, receipts: Sequence[str]) -> None:
        self.threads.add(threading.current_thread().name)
        if self.refuse is not None:
            raise self.refuse
        self.told += receipts

    def close(self) -> None:
        self.closed = True

    def check(self) -> list[str]:
        return []

    def reread(self, origin: str, position: int, end: int, index: int) -> bytes | None:
        return None

    def batch(self, number: int, *raws: bytes, key: str = "k", receipt: str = "") -> RawBatch:
        records = [RawRecord(raw, i, i, i + 1) for i, raw in enumerate(raws)]
        return RawBatch(f"{self.name}/{number}", records, key, str(number).encode(), receipt=receipt, settled=True)

    def one(self, number: int, **more: str) -> RawBatch:
        return self.batch(number, trail(self.name, number), **more)


def counting(source: Script, cursors: Cursors) -> Iterator[RawBatch]:
    """One new record in each turn, behind the cursor."""
    done = int(cursors.get("k") or b"0")
    yield source.one(done + 1)


def quiet(source: Script, cursors: Cursors) -> Iterator[RawBatch]:
    """Nothing."""
    return
    yield


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Config]:
    monkeypatch.setattr(daemon, "FLUSH_SECONDS", 0.05)
    monkeypatch.setattr(books, "HEARTBEAT_SECONDS", 0.2)
    monkeypatch.setattr(daemon, "_LONGEST_WAIT", 0.05)

    def make(*sources: Script, interval: float = 0.01) -> Config:
        known: dict[str, Source] = {source.name: source for source in sources}
        monkeypatch.setattr(assemble, "make_source", lambda name, *_: known[name])
        tables = {name: SourceConfig(interval=interval) for name in known}
        return Config(store=StoreConfig(dir=str(tmp_path / "store"), compact=False), sources=tables)

    return make


def run_until(
    config: Config, done: Callable[[], bool], opened: Callable[[Runtime], None] = lambda runtime: None
) -> Totals:
    """Run the daemon until ``done``; the test fails when it does not get there within a minute."""
    stop = Stop()
    reached = False
    began = time.monotonic()

    def watch() -> None:
        nonlocal reached
        try:
            while not stop.requested and not reached and time.monotonic() - began < PATIENCE:
                with contextlib.suppress(StoreError):  # the store is just being made
                    reached = done()
                time.sleep(0.005)
        finally:
            stop.request()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        return daemon.run(config, stop, grace=PATIENCE, opened=opened)
    finally:
        stop.request()
        watcher.join()
        assert reached, "the daemon did not get there"


def look(config: Config) -> Snapshot:
    return take(Path(config.store.dir))


def events(config: Config) -> int:
    with Spool.open(Path(config.store.dir), daemon_clock(), write=False) as spool:
        return sum(counts.get("events", 0) for counts in spool.counters().values())


def daemon_clock() -> assemble.SystemClock:
    return assemble.SystemClock()


# --- sources beside one another


def test_a_source_that_waits_for_ever_holds_nobody_up(configure: Callable[..., Config]) -> None:
    release = threading.Event()

    def hang(source: Script, cursors: Cursors) -> Iterator[RawBatch]:
        yield source.one(1, receipt="r1")
        release.wait(PATIENCE)

    slow, busy = Script("slow", hang), Script("busy", counting)
    config = configure(slow, busy)

    def done() -> bool:
        # What the hanging source gave before is durable too, although its turn never ends.
        return busy.turns > 20 and "slow" in counters(config)

    began = time.monotonic()
    run_until(config, done)
    release.set()
    assert time.monotonic() - began < PATIENCE / 2
    assert counters(config)["slow"]["events"] == 1
    assert counters(config)["busy"]["events"] >= 20
    assert slow.threads == {"read-slow"}


def counters(config: Config) -> dict[str, dict[str, int]]:
    with Spool.open(Path(config.store.dir), daemon_clock(), write=False) as spool:
        return spool.counters()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TransientError("the service says 503"), "the service says 503"),
        (AuthError("sqs:ReceiveMessage is missing"), "sqs:ReceiveMessage is missing"),
        (AitrailError("something else"), "something else"),
        (KeyError("4111111111111111"), "a bug: KeyError at test_daemon.py:"),
    ],
)
def test_a_failing_source_fails_alone_and_says_so(
    configure: Callable[..., Config], error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon.Schedule, "failed", lambda self, now, *_: failed_at_once(self, now))

    def fail(source: Script, cursors: Cursors) -> Iterator[RawBatch]:
        yield source.one(1)
        raise error

    bad, good = Script("bad", fail), Script("good", counting)
    config = configure(bad, good)
    run_until(config, lambda: bad.turns >= 5 and good.turns >= 5)
    snapshot = look(config)
    state = {source.name: source.state for source in snapshot.sources}
    assert state["bad"].failures >= 4
    assert said in state["bad"].last_error
    assert "4111111111111111" not in state["bad"].last_error, "the text of a bug may hold content"
    assert state["good"].failures == 0
    assert state["good"].last_success > 0
    assert any(problem.startswith("source bad: has failed") for problem in snapshot.problems)
    # What it gave before an ordinary failure is kept; what came with a bug is dropped, and comes again.
    assert counters(config).get("bad", {}).get("events", 0) == (0 if isinstance(error, KeyError) else 1)


def failed_at_once(schedule: daemon.Schedule, now: float) -> float:
    schedule.failures += 1
    schedule.due = now
    return 0.0


def test_a_source_that_recovers_is_well_again(configure: Callable[..., Config], monkeypatch) -> None:
    monkeypatch.setattr(daemon.Schedule, "failed", lambda self, now, *_: failed_at_once(self, now))

    def first_fails(source: Script, cursors: Cursors) -> Iterator[RawBatch]:
        if source.turns < 4:
            raise TransientError("not yet")
        yield from counting(source, cursors)

    source = Script("s", first_fails)
    config = configure(source)
    run_until(config, lambda: source.turns >= 6)
    state = look(config).sources[0].state
    assert (state.failures, state.last_error) == (0, "")
    assert state.error_at > 0
    assert look(config).problems == []


def test_a_bug_in_reading_records_is_the_sources_own_and_nothing_of_the_turn_stays(
    configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon.Schedule, "failed", lambda self, now, *_: failed_at_once(self, now))
    original = assemble.Transform.finish_all
    poison = trail("bad", 2)
    broken = True

    def finish_all(self, unfinished, ingested_at):  # type: ignore[no-untyped-def]
        if broken and any(one.ref.startswith("bad/2") for one in unfinished):
            raise ZeroDivisionError
        return original(self, unfinished, ingested_at)

    monkeypatch.setattr(assemble.Transform, "finish_all", finish_all)

    def two(source: Script, cursors: Cursors) -> Iterator[RawBatch]:
        for number in range(int(cursors.get("k") or b"0") + 1, 3):
            yield source.batch(number, trail("bad", 1) if number == 1 else poison)

    bad, good = Script("bad", two), Script("good", counting)
    config = configure(bad, good)
    run_until(config, lambda: bad.turns >= 3 and good.turns >= 3)
    assert "ZeroDivisionError" in look(config).sources[0].state.last_error
    assert counters(config)["good"]["events"] >= 2
    broken = False
    bad.turns = good.turns = 0
    run_until(config, lambda: bad.turns >= 2)
    assert counters(config)["bad"]["events"] == 2, "all of it came again, nothing twice"


# --- receipts


def test_receipts_are_told_once_everything_of_their_batch_is_durable(configure: Callable[..., Config]) -> None:
    seen_when_told: list[int] = []
    config: Config

    class Told(Script):
        def acknowledge(self, receipts: Sequence[str]) -> None:
            seen_when_told.append(events(config))
            super().acknowledge(receipts)

    def three(source: Script, cursors: Cursors) -> Iterator[RawBatch]:
        if source.turns == 1:
            for number in (1, 2, 3):
                yield source.one(number, key="", receipt=f"r{number}")

    source = Told("s", three)
    config = configure(source)
    run_until(config, lambda: len(source.told) == 3)
    assert source.told == ["r1", "r2", "r3"]
    assert seen_when_told[-1] == 3
    assert all(seen >= 1 for seen in seen_when_told)
    assert source.threads == {"read-s"}, "a source is used by one thread only"
    assert source.closed


def test_a_source_that_cannot_take_receipts_goes_on(configure: Callable[..., Config]) -> None:
    def again(source: Script, cursors: Cursors) -> Iterator[RawBatch]:
        yield source.one(1, key="", receipt="r1")  # it was not let go of, so it comes again

    source = Script("s", again)
    source.refuse = TransientError("no route")
    config = configure(source)
    run_until(config, lambda: source.turns >= 5)
    counts = counters(config)["s"]
    assert counts["events"] == 1
    assert counts["duplicates"] >= 3
    assert counts["unacknowledged"] >= 2
    assert source.told == []


# --- leases


def test_a_source_that_another_collector_has_is_left_alone_until_it_is_free(
    configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SqliteLeases, "reclaim", lambda self: 0)  # as a shared table would: nobody is known to be gone
    monkeypatch.setattr(daemon, "LEASE_SECONDS", 0.5)
    mine, others = Script("mine", counting), Script("others", counting)
    config = configure(mine, others)
    with open_runtime(config) as runtime:
        assert SqliteLeases(runtime.spool.database, "somewhere:1:x").acquire("others", 3600.0) is not None
    before: list[int] = []
    runtimes: list[Runtime] = []

    def done() -> bool:
        if mine.turns >= 5 and not before:
            before.append(others.turns)
            with runtimes[0].spool.database.transaction() as db:
                db.execute("UPDATE lease SET expires = 0 WHERE name = 'others'")
        return bool(before) and others.turns >= 2

    run_until(config, done, opened=runtimes.append)
    assert before == [0]


def test_what_a_collector_that_lost_its_lease_has_read_is_not_committed(
    configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    hold, taken = threading.Event(), threading.Event()
    runtimes: list[Runtime] = []

    def steal() -> None:
        database = runtimes[0].spool.database
        with database.transaction() as db:
            db.execute("UPDATE lease SET owner = 'thief:1:x', token = token + 1, expires = ? WHERE name = 's'", (2e10,))
        taken.set()

    def slow(source: Script, cursors: Cursors) -> Iterator[RawBatch]:
        if source.turns == 1:
            steal()
            yield source.one(1)
            hold.wait(0.01)

    source = Script("s", slow)
    config = configure(source)
    run_until(
        config,
        lambda: taken.is_set() and source.turns >= 1 and state_of(config) == "leased",
        opened=runtimes.append,
    )
    assert counters(config).get("s", {}).get("events", 0) == 0
    with Spool.open(Path(config.store.dir), daemon_clock(), write=False) as spool:
        assert spool.cursors("s").get("k") is None


def state_of(config: Config) -> str:
    sources = look(config).sources
    return sources[0].state.state if sources else ""


# --- a full outbox, a full disk


def test_sources_pause_while_the_outbox_is_full_and_go_on_after(
    configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = ""
    monkeypatch.setattr(Spool, "over_cap", lambda self: full)
    source = Script("s", counting)
    config = configure(source)
    phases: list[int] = []

    def done() -> bool:
        nonlocal full
        if not phases and source.turns >= 3:
            full = "100 bytes wait, 10 may"
            phases.append(0)
        elif len(phases) == 1 and state_of(config) == "held":
            phases.append(source.turns)
            assert "too much waits" in " ".join(look(config).problems)
        elif len(phases) == 2:
            assert source.turns <= phases[1] + 1, "one turn may have been about to begin"
            full = ""
            phases.append(0)
        return len(phases) == 3 and source.turns > phases[1] + 2

    run_until(config, done)
    assert state_of(config) == "idle"


def test_a_disk_that_is_full_for_a_while_costs_nothing(
    configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "_RETRY_COMMIT_SECONDS", 0.02)
    original = Spool.commit
    failures = 0

    def commit(self, intake):  # type: ignore[no-untyped-def]
        nonlocal failures
        if intake.events and failures < 5:
            failures += 1
            raise TransientError("the disk is full")
        return original(self, intake)

    monkeypatch.setattr(Spool, "commit", commit)

    def once(source: Script, cursors: Cursors) -> Iterator[RawBatch]:
        if source.turns == 1:
            yield source.one(1, key="", receipt="r1")

    source = Script("s", once)
    config = configure(source)
    run_until(config, lambda: source.told == ["r1"])
    assert failures == 5
    assert counters(config)["s"]["events"] == 1


# --- once


def test_once_reads_every_source_once_and_joins_what_waits(configure: Callable[..., Config]) -> None:
    one, two = Script("one", counting), Script("two", counting)
    config = configure(one, two)
    totals = daemon.run(config, Stop(), once=True)
    assert (one.turns, two.turns, totals.new) == (1, 1, 2)
    assert daemon.run(config, Stop(), once=True).new == 2


def test_what_goes_out_at_the_end_is_in_the_books(
    configure: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(Script("one", counting))
    config.destinations["lake"] = {"type": "lake", "directory": str(tmp_path / "lake"), "streams": ["access"]}
    send = LakeDestination.send

    def late(self: LakeDestination, *given: Any) -> Ack:
        time.sleep(0.5)
        return send(self, *given)

    monkeypatch.setattr(LakeDestination, "send", late)
    daemon.run(config, Stop(), once=True)
    assert {one.name: one.state.delivered for one in look(config).destinations} == {"lake": 1, "store": 1}


@pytest.mark.parametrize(
    ("error", "code"), [(TransientError("x", retry_after=9.0), 4), (AuthError("x"), 3), (ValueError("x"), 1)]
)
def test_once_ends_with_the_failure_of_a_source_after_all_were_read(
    configure: Callable[..., Config], error: Exception, code: int
) -> None:
    def fail(source: Script, cursors: Cursors) -> Iterator[RawBatch]:
        raise error
        yield

    bad, good = Script("bad", fail), Script("good", counting)
    config = configure(bad, good, Script("worse", fail))
    with pytest.raises(AitrailError, match=r"source bad: .*also failed: worse") as caught:
        daemon.run(config, Stop(), once=True)
    assert caught.value.exit_code == code
    assert counters(config)["good"]["events"] == 1


def test_once_with_a_full_outbox_or_a_foreign_lease_is_a_failure_for_now(
    configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Script("s", counting)
    config = configure(source)
    with monkeypatch.context() as patch:
        patch.setattr(Spool, "over_cap", lambda self: "too much")
        with pytest.raises(TransientError, match="source s: the outbox is full: too much"):
            daemon.run(config, Stop(), once=True)
    monkeypatch.setattr(SqliteLeases, "acquire", lambda self, name, seconds: None)
    with pytest.raises(TransientError, match="source s: another collector reads this source"):
        daemon.run(config, Stop(), once=True)
    assert source.turns == 0


# --- turns and times


def test_a_turn_that_used_its_budget_up_is_followed_by_another_at_once(
    configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "TURN", Budget(records=1, seconds=1000.0))
    source = Script("s", counting)
    config = configure(source, interval=3600.0)
    run_until(config, lambda: source.turns >= 4)
    short = Script("s", quiet)
    config = configure(short, interval=3600.0)
    seen: list[str] = []

    def idle() -> bool:
        if short.turns and state_of(config) == "idle":
            seen.append("idle")
        return len(seen) > 20

    run_until(config, idle)
    assert short.turns == 1


def test_every_source_may_use_its_turn_as_long_as_all_of_them_together(configure: Callable[..., Config]) -> None:
    budgets: list[Budget] = []

    class Noting(Script):
        def fetch(self, cursors: Cursors, budget: Budget) -> Iterator[RawBatch]:
            budgets.append(budget)
            return super().fetch(cursors, budget)

    sources = [Noting(f"s{number}", quiet) for number in range(3)]
    run_until(configure(*sources), lambda: len(budgets) >= 3)
    assert {budget.seconds for budget in budgets} == {3 * daemon.TURN.seconds}


def test_what_is_ahead_of_our_clock_is_flagged_and_moves_no_watermark(configure: Callable[..., Config]) -> None:
    def skewed(source: Script, cursors: Cursors) -> Iterator[RawBatch]:
        if source.turns == 1:
            yield source.batch(1, trail("s", 1), trail("s", 2, "2099-01-01T00:00:00Z"))

    source = Script("s", skewed)
    config = configure(source)
    run_until(config, lambda: source.turns >= 2)
    told = look(config).sources[0]
    assert told.counts["time_ahead"] == 1
    assert told.counts["events"] == 2
    assert told.state.newest_event == 1795161600.0, "2026-11-20T08:00:00Z"
    assert told.lag_seconds is not None


# --- the end


def test_the_end_comes_within_the_grace_and_says_that_it_was_in_order(configure: Callable[..., Config]) -> None:
    release, given = threading.Event(), threading.Event()

    def hang(source: Script, cursors: Cursors) -> Iterator[RawBatch]:
        yield source.one(1)
        given.set()
        release.wait(PATIENCE)

    source = Script("s", hang)
    config = configure(source)
    began = time.monotonic()
    totals = run_until(config, given.is_set)
    took = time.monotonic() - began
    release.set()
    assert took < PATIENCE / 2, "it does not wait for what hangs"
    assert totals.new == 1, "what had been handed over is committed"
    snapshot = look(config)
    assert snapshot.collector.stopped > 0
    assert not snapshot.running
    assert snapshot.problems == []
    assert snapshot.sources[0].lease_owner == ""


def test_what_is_not_configured_any_more_is_forgotten(configure: Callable[..., Config]) -> None:
    config = configure(Script("old", counting), Script("new", counting))
    daemon.run(config, Stop(), once=True)
    assert [source.name for source in look(config).sources] == ["new", "old"]
    config = configure(Script("new", counting))
    daemon.run(config, Stop(), once=True)
    assert [source.name for source in look(config).sources] == ["new"]
    assert "old" in counters(config), "what was counted stays"


def test_a_damaged_store_ends_the_daemon(configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(self: Spool, intake: object) -> None:
        raise StoreError("damaged")

    monkeypatch.setattr(Spool, "commit", damaged)
    with pytest.raises(StoreError, match="damaged"):
        daemon.run(configure(Script("s", counting)), Stop())


def test_a_turn_that_the_stop_breaks_off_is_no_success(configure: Callable[..., Config]) -> None:
    release, begun = threading.Event(), threading.Event()

    def slow(source: Script, cursors: Cursors) -> Iterator[RawBatch]:
        begun.set()
        release.wait(PATIENCE)
        yield source.one(1)
        raise TransientError("never reached")

    source = Script("s", slow)
    config = configure(source)

    def let_go(feed: daemon.Feed) -> None:
        original(feed)
        release.set()

    original = daemon.Feed.stop
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(daemon.Feed, "stop", let_go)
        run_until(config, begun.is_set)
    state = look(config).sources[0].state
    assert (state.last_success, state.failures) == (0.0, 0)


def test_two_collectors_do_not_share_a_store(configure: Callable[..., Config]) -> None:
    config = configure(Script("s", counting))
    with open_runtime(config), pytest.raises(AitrailError, match="being written by") as caught:
        daemon.run(config, Stop(), once=True)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("sources", [True, False])
def test_beside_a_server_it_collects_and_keeps_the_books(configure: Callable[..., Config], sources: bool) -> None:
    source = Script("s", counting)
    config = configure(source)
    ended = threading.Event()
    with open_runtime(config) as runtime:
        thread = threading.Thread(target=daemon.run_beside, args=(runtime, ended), kwargs={"sources": sources})
        thread.start()
        deadline = time.monotonic() + PATIENCE
        while (source.turns < 3 if sources else not look(config).running) and time.monotonic() < deadline:
            time.sleep(0.01)
        running = look(config)
        ended.set()
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert running.running
    assert running.collector.mode == "serve"
    assert [one.name for one in running.sources] == (["s"] if sources else [])
    assert source.turns >= 3 if sources else source.turns == 0
    stopped = look(config)
    assert stopped.collector.stopped > 0
    assert stopped.destinations[0].name == "store"
    # The other part ships: what was read waits for it in the outbox.
    assert (stopped.destinations[0].backlog_events > 0) == sources
