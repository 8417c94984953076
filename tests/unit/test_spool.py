"""The spool: what is committed is there, what is not is not, and nothing leaves before it is settled."""

import io
import os
import random
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from aitrail.destinations.stdout import StdoutDestination
from aitrail.errors import ConfigError, StoreError
from aitrail.event import AccessEvent, decode, encode, make_event_id
from aitrail.ports import DELIVERED, DUPLICATE, Ack, EncodedEvent, Verdict
from aitrail.spool import DeadLetter, DeadLetterFilter, Intake, Spool, dead_letter_id, journal
from aitrail.store import identity, migrations
from aitrail.store.database import Database
from aitrail.store.identity import key_of

ALL = (1_000_000, 1 << 40)


class Clock:
    """A clock that the test moves."""

    def __init__(self, now: float = 1_795_425_584.0) -> None:
        self.time = now

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def event(number: int, text: str = "hello") -> EncodedEvent:
    one = AccessEvent(
        event_id=make_event_id("acme", "test", str(number)),
        timestamp="2026-11-23T09:14:05.120Z",
        tenant_id="acme",
        source="cloudtrail",
        source_ref=f"in/a.json.gz#offset={number * 10}&record={number}",
        prompt_text=text,
    )
    return EncodedEvent(one.event_id, one.timestamp, encode(one))


def intake(numbers, to=("store",), cursors=None, **more) -> Intake:
    return Intake(source="trail", destinations=to, events=[event(n) for n in numbers], cursors=cursors or {}, **more)


def letter(number: int, code: str = "json_invalid", **more) -> DeadLetter:
    return DeadLetter(
        id=dead_letter_id("trail", "in/a.json", number, number, code),
        source="trail",
        origin="in/a.json",
        position=number,
        end=number + 9,
        index=number,
        code=code,
        field="",
        record_type="cloudtrail",
        stage="normalize",
        first_seen=float(number),
        **more,
    )


def ids(batch) -> list[str]:
    return [e.event_id for e in batch.events] if batch else []


def expect(numbers) -> list[str]:
    return [make_event_id("acme", "test", str(n)) for n in numbers]


def drain(spool: Spool, destination: str = "store", limits=ALL) -> list[str]:
    got = []
    while (batch := spool.pending(destination, *limits)) is not None:
        got += ids(batch)
        spool.settle(batch, Ack.all_delivered(len(batch.events)), spool.database.clock.now())
    return got


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def spool(tmp_path, clock):
    with Spool.open(tmp_path / "store", clock) as opened:
        yield opened


# --- taking in


def test_what_is_committed_comes_out_in_order_and_whole(spool):
    done = spool.commit(intake(range(5)))
    assert (done.new, done.duplicates, done.first_seq) == (5, 0, 1)
    assert spool.commit(intake(range(5, 8))).first_seq == 6
    batch = spool.pending("store", *ALL)
    assert list(batch.events) == [event(n) for n in range(8)]
    assert drain(spool) == expect(range(8))
    assert spool.pending("store", *ALL) is None


def test_an_event_is_taken_once_in_a_batch_across_batches_and_after_a_restart(spool, tmp_path, clock):
    done = spool.commit(intake([1, 2, 1, 2, 3]))
    assert (done.new, done.duplicates) == (3, 2)
    done = spool.commit(intake([3, 4]))
    assert (done.new, done.duplicates, done.first_seq) == (1, 1, 4)
    spool.close()
    with Spool.open(tmp_path / "store", clock) as again:
        done = again.commit(intake(range(1, 6)))
        assert (done.new, done.duplicates, done.first_seq) == (1, 4, 5)
        assert drain(again) == expect(range(1, 6))
        # Delivered events stay known.
        assert again.commit(intake(range(1, 6))).new == 0
        assert again.pending("store", *ALL) is None


def test_ids_that_are_no_hex_are_told_apart_by_case():
    raw = make_event_id("acme", "test", "1")
    assert key_of(raw).hex() == raw
    assert key_of(raw.upper()) != key_of(raw)
    assert len({key_of(x) for x in ("a", "b", "", "A", raw, raw.upper(), " " * 32, "\ud800", raw[:-1])}) == 9
    assert all(len(key_of(x)) == 16 for x in ("a", "", raw, "z" * 500))


def test_a_failing_commit_leaves_nothing_behind_in_memory_or_on_disk(spool, monkeypatch):
    spool.commit(intake([0], cursors={"a": b"0"}))
    from aitrail.spool import deadletters

    def fail(*_):
        raise RuntimeError("bug")

    with monkeypatch.context() as patch:
        patch.setattr(deadletters, "add", fail)
        with pytest.raises(RuntimeError):
            spool.commit(intake([1, 2], cursors={"a": b"1"}, counts={"n": 1}, dead=[letter(1)]))
    assert spool.cursors("trail").get("a") == b"0"
    assert spool.counters() == {"trail": {"events": 1}}
    assert ids(spool.pending("store", *ALL)) == expect([0])
    done = spool.commit(intake([1, 2], cursors={"a": b"1"}))
    assert (done.new, done.first_seq) == (2, 2)
    assert drain(spool) == expect([0, 1, 2])


def test_events_without_a_destination_are_a_bug(spool):
    with pytest.raises(ValueError, match="without a destination"):
        spool.commit(intake([1], to=()))
    assert spool.commit(intake([], to=())) == spool.commit(intake([]))


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_an_event_steps_back_for_its_counterpart_in_the_same_batch(spool, order):
    one, two = expect([1, 2])
    done = spool.commit(intake(order, unless={one: two}))
    assert (done.new, done.duplicates, done.superseded) == (1, 1, 1)
    assert drain(spool) == [two]


def test_an_event_steps_back_for_a_counterpart_that_came_before_and_stays_otherwise(spool):
    one, two, three, four = expect([1, 2, 3, 4])
    spool.commit(intake([2]))
    done = spool.commit(intake([1, 3], unless={one: two, three: four}))
    assert (done.new, done.superseded) == (1, 1)
    assert drain(spool) == [two, three]
    # Reading it again gives the same answer: it was never taken, and its counterpart is still known.
    assert spool.commit(intake([1], unless={one: two})).new == 0


def test_of_two_events_that_name_each_other_one_stays(spool):
    one, two = expect([1, 2])
    assert spool.commit(intake([1, 2], unless={one: two, two: one})).new == 1
    assert len(drain(spool)) == 1


def test_an_event_that_names_itself_stays(spool):
    one = expect([1])[0]
    assert spool.commit(intake([1], unless={one: one})).new == 1


def test_cursors_and_counters_belong_to_a_source(spool, tmp_path, clock):
    spool.commit(intake([], cursors={"b": b"2", "a": b"\x00\xff"}, counts={"records": 3, "skipped.x": 1}))
    spool.commit(intake([], cursors={"b": b"3"}, counts={"records": 4}))
    spool.commit(Intake(source="other", destinations=(), events=[], cursors={"a": b"9"}, counts={"records": 1}))
    assert list(spool.cursors("trail").items()) == [("a", b"\x00\xff"), ("b", b"3")]
    assert spool.cursors("trail").get("none") is None
    assert spool.counters() == {"other": {"records": 1}, "trail": {"records": 7, "skipped.x": 1}}
    with Spool.open(tmp_path / "store", clock, write=False) as reading:
        assert reading.cursors("other").get("a") == b"9"


@pytest.mark.parametrize("text", ["nul \x00 end", "line\u2028sep\u2029", "emoji \U0001f600", "x" * 5_000_000, '"\\\n'])
def test_bodies_survive_byte_for_byte(spool, text, tmp_path, clock):
    one = event(1, text)
    spool.commit(Intake(source="trail", destinations=("store",), events=[one], cursors={}))
    spool.close()
    with Spool.open(tmp_path / "store", clock) as again:
        assert list(again.pending("store", *ALL).events) == [one]


def test_identity_survives_merging_its_tail(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(identity, "TAIL_KEYS", 50)
    monkeypatch.setattr(identity, "_CHUNK", 16)
    with Spool.open(tmp_path / "s", clock) as spool:
        for start in range(0, 300, 20):
            assert spool.commit(intake(range(start, start + 20))).new == 20
        tail = spool.database.rows("SELECT coalesce(sum(length(keys)) / 16, 0) FROM seen_tail")[0][0]
        tree = spool.database.rows("SELECT count(*) FROM seen")[0][0]
        assert tail + tree == 300
        assert tree > 0
    with Spool.open(tmp_path / "s", clock) as spool:
        assert spool.commit(intake(range(301))).new == 1
        with spool.database.transaction() as db:
            removed, committed = spool.database.identity("seen").forget(db, map(key_of, expect([0, 299, 5000])))
        committed()
        assert removed == 2
        assert spool.commit(intake(range(300))).new == 2


# --- giving out


def test_limits_are_kept_and_nothing_is_left_out(spool):
    for start in range(0, 100, 10):
        spool.commit(intake(range(start, start + 10)))
    size = len(event(0).body)
    batch = spool.pending("store", 25, 1 << 40)
    assert ids(batch) == expect(range(25))
    assert ids(spool.pending("store", 1000, 12 * size + 40)) == expect(range(12))
    spool.settle(batch, Ack.all_delivered(25), 0.0)
    assert ids(spool.pending("store", 10, 1 << 40)) == expect(range(25, 35))
    assert drain(spool, limits=(7, 1 << 40)) == expect(range(25, 100))


def test_an_event_above_the_byte_limit_comes_alone(spool):
    big = event(1, "x" * 10_000)
    spool.commit(Intake(source="trail", destinations=("store",), events=[event(0), big, event(2)], cursors={}))
    sent = []
    while (batch := spool.pending("store", 10, 1_000)) is not None:
        sent.append(ids(batch))
        spool.settle(batch, Ack.all_delivered(len(batch.events)), 0.0)
    assert sent == [expect([0]), expect([1]), expect([2])]


def test_destinations_do_not_wait_for_each_other(spool, tmp_path):
    spool.commit(intake(range(3), to=("store", "siem")))
    assert drain(spool) == expect(range(3))
    assert spool.backlog("store").events == 0
    assert spool.backlog("siem").events == 3
    assert (tmp_path / "store/outbox/00000001.bin").stat().st_size > 0
    assert drain(spool, "siem") == expect(range(3))
    assert spool.database.rows("SELECT count(*) FROM batch") == [(0,)]
    assert (tmp_path / "store/outbox/00000001.bin").stat().st_size == 0


def test_backlog_counts_events_bytes_and_age(spool, clock):
    assert spool.backlog("store") == (0, 0, 0.0)
    spool.commit(intake(range(3)))
    clock.time += 7
    spool.commit(intake([3]))
    assert spool.backlog("store") == (4, sum(len(event(n).body) for n in range(4)), 7.0)
    batch = spool.pending("store", *ALL)
    spool.settle(batch, Ack([DELIVERED, Verdict("retry", retry_after=5), DUPLICATE, DELIVERED]), clock.now())
    assert spool.backlog("store") == (1, len(event(1).body), 7.0)


def test_retry_waits_as_long_as_the_peer_says(spool, clock):
    spool.commit(intake(range(3)))
    batch = spool.pending("store", *ALL)
    spool.settle(batch, Ack([DELIVERED, Verdict("retry", retry_after=30), DELIVERED]), clock.now())
    assert spool.pending("store", *ALL) is None
    spool.commit(intake([9]))
    assert ids(spool.pending("store", *ALL)) == expect([9])
    clock.time += 30
    assert drain(spool) == expect([1, 9])


def test_retry_without_a_time_waits_longer_each_time(spool, clock):
    spool.commit(intake([1]))
    waits = []
    for _ in range(12):
        batch = spool.pending("store", *ALL)
        spool.settle(batch, Ack([Verdict("retry")]), clock.now())
        start = clock.time
        while spool.pending("store", *ALL) is None:
            clock.time += 0.25
        waits.append(clock.time - start)
    assert waits[:4] == [0.5, 1.0, 2.0, 4.0]
    assert waits[-1] == 60.0


def test_a_rejected_event_becomes_a_dead_letter_that_says_where_it_came_from(spool, clock):
    spool.commit(intake([4, 5]))
    batch = spool.pending("store", *ALL)
    spool.settle(batch, Ack([Verdict("rejected", code="too_large"), DELIVERED]), clock.now())
    assert spool.pending("store", *ALL) is None
    (dead,) = spool.deadletters()
    assert (dead.stage, dead.destination, dead.code, dead.event_id) == ("deliver", "store", "too_large", expect([4])[0])
    assert (dead.source, dead.origin, dead.position, dead.index) == ("trail", "in/a.json.gz", 40, 4)
    assert dead.record_type == "cloudtrail"
    assert decode(dead.raw).event_id == expect([4])[0]


def test_requeue_puts_a_refused_event_back(spool, clock):
    spool.commit(intake([4], to=("store", "siem")))
    spool.settle(spool.pending("siem", *ALL), Ack([Verdict("rejected", code="x")]), clock.now())
    (dead,) = spool.deadletters()
    assert spool.requeue([dead.id, "no such"]) == 1
    assert spool.requeue([dead.id]) == 0
    assert spool.deadletters() == []
    assert list(spool.pending("siem", *ALL).events) == [event(4)]
    assert spool.backlog("store").events == 1
    # Refused again: the same letter is open again.
    spool.settle(spool.pending("siem", *ALL), Ack([Verdict("rejected", code="x")]), clock.now())
    assert [again.id for again in spool.deadletters()] == [dead.id]


def test_pending_verdicts_wait_with_their_token_until_confirmed(spool, clock, tmp_path):
    spool.commit(intake(range(4)))
    batch = spool.pending("store", *ALL)
    acks = [Verdict("pending", token="t7"), DELIVERED, Verdict("pending", token="t8"), Verdict("retry", retry_after=9)]
    spool.settle(batch, Ack(acks), clock.now())
    assert spool.pending("store", *ALL) is None
    assert spool.backlog("store").events == 3
    spool.close()
    with Spool.open(tmp_path / "store", clock) as spool:
        clock.time += 10
        waiting = spool.awaiting("store")
        assert (ids(waiting), list(waiting.tokens)) == (expect([0, 2]), ["t7", "t8"])
        assert ids(spool.pending("store", *ALL)) == expect([3])
        spool.settle(waiting, Ack([DELIVERED, Verdict("retry", retry_after=0)]), clock.now())
        assert spool.awaiting("store") is None
        assert drain(spool) == expect([2, 3])
        assert spool.database.rows("SELECT count(*) FROM batch") == [(0,)]


def test_settling_twice_is_harmless_and_verdicts_must_match(spool, clock):
    spool.commit(intake(range(3)))
    batch = spool.pending("store", 2, 1 << 40)
    with pytest.raises(ValueError, match="1 verdicts for 2 events"):
        spool.settle(batch, Ack.all_delivered(1), clock.now())
    spool.settle(batch, Ack.all_delivered(2), clock.now())
    spool.settle(batch, Ack([Verdict("rejected", code="late")] * 2), clock.now())
    assert spool.deadletters() == []
    assert drain(spool) == expect([2])
    spool.settle(batch, Ack.all_delivered(2), clock.now())


@pytest.mark.parametrize("seed", range(8))
def test_every_event_ends_exactly_once_whatever_the_verdicts(tmp_path, clock, seed, monkeypatch):
    """A model: random commits, limits, verdicts and restarts; at the end each event has one final verdict."""
    monkeypatch.setattr(journal, "FILE_BYTES", 3_000)
    monkeypatch.setattr(journal, "COMPRESS_ABOVE_BYTES", 6_000)
    monkeypatch.setattr(identity, "TAIL_KEYS", 40)
    rng = random.Random(seed)
    final: dict[tuple[str, str], int] = {}
    committed = 0
    spool = Spool.open(tmp_path / "s", clock)
    for _ in range(120):
        if rng.random() < 0.3 and committed < 200:
            count = rng.randrange(1, 12)
            numbers = [*range(committed, committed + count), *rng.choices(range(committed + 1), k=3)]
            rng.shuffle(numbers)
            done = spool.commit(intake(numbers, to=("a", "b")))
            fresh = len({n for n in numbers if n >= committed})
            assert done.new == fresh
            committed = max([committed, *(n + 1 for n in numbers)])
        if rng.random() < 0.05:
            spool.close()
            spool = Spool.open(tmp_path / "s", clock)
        destination = rng.choice("ab")
        waiting = rng.random() < 0.3
        limit = rng.randrange(1, 20)
        batch = spool.awaiting(destination, limit) if waiting else spool.pending(destination, limit, 4_000)
        clock.time += rng.random() * 3
        if batch is None:
            continue
        verdicts = [
            rng.choice(
                [
                    DELIVERED,
                    DUPLICATE,
                    Verdict("retry", retry_after=2),
                    Verdict("pending", token="t"),
                    Verdict("rejected", code="no"),
                ]
            )
            for _ in batch.events
        ]
        spool.settle(batch, Ack(verdicts), clock.now())
        for one, verdict in zip(batch.events, verdicts, strict=True):
            if verdict.status not in {"retry", "pending"}:
                final[destination, one.event_id] = final.get((destination, one.event_id), 0) + 1
    clock.time += 100
    for destination in "ab":
        while (batch := spool.awaiting(destination)) is not None:
            spool.settle(batch, Ack([Verdict("retry", retry_after=0)] * len(batch.events)), clock.now())
        for one in drain(spool, destination, (9, 2_000)):
            final[destination, one] = final.get((destination, one), 0) + 1
    everything = {one for (_, one) in final}
    assert final == {(destination, one): 1 for destination in "ab" for one in everything}
    assert len(everything) == spool.database.rows("SELECT value FROM meta WHERE key = 'next_seq'")[0][0] - 1
    assert spool.database.rows("SELECT count(*) FROM batch") == [(0,)]
    assert sum(path.stat().st_size for path in (tmp_path / "s/outbox").iterdir()) == 0
    spool.close()


def test_one_thread_commits_while_others_settle(spool):
    failures = []
    got: dict[str, list[str]] = {"a": [], "b": []}
    done = threading.Event()

    def deliver(name: str) -> None:
        try:
            while not (done.is_set() and spool.backlog(name).events == 0):
                batch = spool.pending(name, 7, 1 << 40)
                if batch is not None:
                    got[name] += ids(batch)
                    spool.settle(batch, Ack.all_delivered(len(batch.events)), 0.0)
        except Exception as error:  # noqa: BLE001 - reported below
            failures.append(error)

    threads = [threading.Thread(target=deliver, args=(name,)) for name in got]
    for thread in threads:
        thread.start()
    for start in range(0, 200, 10):
        spool.commit(intake(range(start, start + 10), to=("a", "b")))
    done.set()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert got == {"a": expect(range(200)), "b": expect(range(200))}


# --- dead letters and runs


def test_dead_letters_are_listed_filtered_settled_and_reopened(spool):
    spool.commit(intake([], dead=[letter(1), letter(2, "type_unknown"), letter(3, raw=b"kept")]))
    assert spool.commit(intake([], dead=[letter(1)])).dead == 0
    assert [dead.position for dead in spool.deadletters()] == [1, 2, 3]
    assert [d.code for d in spool.deadletters(DeadLetterFilter(code="type_unknown"))] == ["type_unknown"]
    assert [d.position for d in spool.deadletters(DeadLetterFilter(origin="in/a.json", limit=2))] == [1, 2]
    assert spool.deadletters(DeadLetterFilter(source="x' OR '1'='1")) == []
    three = letter(3).id
    assert spool.deadletter(three) == letter(3, raw=b"kept")
    assert spool.deadletter("none") is None
    assert spool.resolve([three, "none"]) == 1
    settled = spool.deadletter(three)
    assert settled.raw is None
    assert settled.resolved is not None
    assert [d.position for d in spool.deadletters(DeadLetterFilter(resolved=True))] == [3]
    assert len(spool.deadletters(DeadLetterFilter(resolved=None))) == 3
    spool.commit(intake([], resolved=[letter(1).id]))
    assert [dead.position for dead in spool.deadletters()] == [2]
    assert spool.commit(intake([], dead=[letter(1)])).dead == 1
    assert [dead.position for dead in spool.deadletters()] == [1, 2]


def test_the_id_of_a_dead_letter_depends_on_place_reason_and_refuser():
    base = ("s", "o", 1, 2, "c")
    other = {
        dead_letter_id(*base),
        dead_letter_id("s", "o", 1, 2, "d"),
        dead_letter_id("s", "o", 12, 2, "c"),
        dead_letter_id("so", "", 1, 2, "c"),
        dead_letter_id(*base, destination="x"),
        dead_letter_id(*base, event_id="x"),
    }
    assert len(other) == 6
    assert dead_letter_id(*base) == dead_letter_id(*base)


def test_runs_are_noted(spool, clock):
    first = spool.begin_run("collect")
    clock.time += 5
    spool.end_run(first, {"new": 3})
    second = spool.begin_run("run")
    latest, earlier = spool.runs()
    assert (latest.id, latest.command, latest.ended, latest.totals) == (second, "run", None, {})
    assert (earlier.ended - earlier.started, earlier.totals) == (5.0, {"new": 3})


# --- the file's life


def test_a_second_writer_is_refused_and_told_who_holds_the_store(spool, tmp_path, clock):
    with pytest.raises(StoreError) as caught:
        Spool.open(tmp_path / "store", clock)
    assert f"pid {os.getpid()} on " in str(caught.value)
    assert "wait for it" in caught.value.hint
    spool.commit(intake([1]))


def test_a_reader_works_beside_the_writer_and_cannot_write(spool, tmp_path, clock):
    spool.commit(intake([1], cursors={"a": b"1"}, dead=[letter(1)]))
    with Spool.open(tmp_path / "store", clock, write=False) as reading:
        assert reading.cursors("trail").get("a") == b"1"
        spool.commit(intake([2], cursors={"a": b"2"}))
        assert reading.cursors("trail").get("a") == b"2"
        assert reading.backlog("store").events == 2
        assert len(reading.deadletters()) == 1
        for write in (
            lambda: reading.commit(intake([3])),
            lambda: reading.resolve(["x"]),
            lambda: reading.pending("store", *ALL),
            lambda: reading.begin_run("x"),
        ):
            with pytest.raises(StoreError, match="opened for reading"):
                write()


def test_reading_where_there_is_no_store_says_so(tmp_path, clock):
    with pytest.raises(StoreError, match="there is no aitrail store here") as caught:
        Spool.open(tmp_path, clock, write=False)
    assert "--store" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_creation_that_was_cut_short_is_done_again(tmp_path, clock):
    (tmp_path / "aitrail.db.new").write_bytes(b"half of a database")
    (tmp_path / "aitrail.db.new-wal").write_bytes(b"x")
    with Spool.open(tmp_path, clock) as spool:
        assert spool.commit(intake([1])).new == 1
    assert list(tmp_path.glob("*.new*")) == []


def test_no_reader_meets_a_database_without_its_tables(tmp_path, clock, monkeypatch):
    real = migrations.migrate

    def look_first(connection, now, steps=None):
        with pytest.raises(StoreError, match="no aitrail store here"):
            Spool.open(tmp_path, clock, write=False)
        return real(connection, now, steps)

    with monkeypatch.context() as patch:
        patch.setattr(
            migrations,
            "migrate",
            lambda *args: look_first(*args) if not (tmp_path / "aitrail.db").exists() else real(*args),
        )
        Spool.open(tmp_path, clock).close()
    Spool.open(tmp_path, clock, write=False).close()


def test_a_damaged_database_is_named(tmp_path, clock):
    (tmp_path / "aitrail.db").write_bytes(b"not a database, at all" * 100)
    with pytest.raises(StoreError, match="not a SQLite database"):
        Spool.open(tmp_path, clock)
    with pytest.raises(StoreError, match="not a SQLite database"):
        Spool.open(tmp_path, clock, write=False)


def test_the_lock_of_a_killed_writer_is_free(tmp_path, clock):
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom aitrail.clock import SystemClock\n"
        "from aitrail.spool import Spool\nspool = Spool.open(Path(sys.argv[1]), SystemClock())\n"
        "print('open', flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"open\n"
        with pytest.raises(StoreError, match=f"pid {child.pid} on"):
            Spool.open(tmp_path, clock)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    Spool.open(tmp_path, clock).close()


def test_files_are_private_and_no_other_user_can_list_them(spool, tmp_path):
    spool.commit(intake([1]))
    root = tmp_path / "store"
    assert root.stat().st_mode & 0o077 == 0
    files = [path for path in root.rglob("*") if path.is_file() and not path.name.endswith(("-wal", "-shm"))]
    assert len(files) >= 3
    assert [path for path in files if path.stat().st_mode & 0o077] == []


def test_bytes_behind_the_last_commit_are_overwritten_and_unknown_files_removed(tmp_path, clock):
    with Spool.open(tmp_path, clock) as spool:
        spool.commit(intake([1]))
    path = tmp_path / "outbox/00000001.bin"
    whole = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"torn by a crash" * 50)
    (tmp_path / "outbox/00000009.bin").write_bytes(b"orphan")
    with Spool.open(tmp_path, clock) as spool:
        assert not (tmp_path / "outbox/00000009.bin").exists()
        spool.commit(intake([2]))
        assert spool.database.rows("SELECT offset FROM batch ORDER BY id") == [(0,), (whole,)]
        assert drain(spool) == expect([1, 2])


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_damaged_bodies_are_never_delivered(tmp_path, clock, damage):
    with Spool.open(tmp_path, clock) as spool:
        spool.commit(intake([1]))
    path = tmp_path / "outbox/00000001.bin"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    {"flip": lambda: path.write_bytes(data), "cut": lambda: path.write_bytes(data[:-1]), "gone": path.unlink}[damage]()
    with (
        Spool.open(tmp_path, clock) as spool,
        pytest.raises(StoreError, match="bytes at offset 0 are damaged") as error,
    ):
        spool.pending("store", *ALL)
    assert "hello" not in str(error.value)


def test_a_large_backlog_is_compressed_and_spread_over_files(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(journal, "FILE_BYTES", 2_000)
    monkeypatch.setattr(journal, "COMPRESS_ABOVE_BYTES", 4_000)
    with Spool.open(tmp_path, clock) as spool:
        for start in range(0, 100, 10):
            spool.commit(intake(range(start, start + 10)))
        codecs = [codec for (codec,) in spool.database.rows("SELECT codec FROM batch ORDER BY id")]
        assert codecs[0] == "raw"
        assert codecs[-1] == "zstd"
        assert len(list((tmp_path / "outbox").iterdir())) > 2
    with Spool.open(tmp_path, clock) as spool:
        assert drain(spool, limits=(15, 1 << 40)) == expect(range(100))
        assert len(list((tmp_path / "outbox").iterdir())) == 1


# --- schema versions


def old_store(directory: Path, clock: Clock) -> None:
    """A store as version 1 wrote it, with data in it."""
    with Spool.open(directory, clock) as spool:
        spool.commit(intake(range(3), cursors={"a": b"1"}))


def test_a_new_store_gets_the_current_version_and_who_made_it(spool):
    rows = spool.database.rows("SELECT version, aitrail FROM schema_version")
    assert [version for version, _ in rows] == [step.version for step in migrations.STEPS]
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", rows[0][1])


def test_an_older_store_is_migrated_with_its_data(tmp_path, clock, monkeypatch):
    old_store(tmp_path, clock)
    newer = migrations.Step(
        migrations.STEPS[-1].version + 1,
        (
            "ALTER TABLE cursor ADD COLUMN lag REAL NOT NULL DEFAULT 0",
            "CREATE TABLE other (name TEXT PRIMARY KEY, until REAL NOT NULL)",
        ),
    )
    monkeypatch.setattr(migrations, "STEPS", (*migrations.STEPS, newer))
    with pytest.raises(StoreError, match="schema version") as caught:
        Database.open(tmp_path, clock, write=False)
    assert "aitrail store migrate" in caught.value.hint
    with Database.open(tmp_path, clock) as database:
        assert database.rows("SELECT max(version) FROM schema_version") == [(newer.version,)]
        assert database.rows("SELECT key, value, lag FROM cursor") == [("a", b"1", 0.0)]
        assert database.rows("SELECT count(*) FROM other") == [(0,)]
    Database.open(tmp_path, clock, write=False).close()


def test_a_migration_that_fails_leaves_the_old_version_whole(tmp_path, clock, monkeypatch):
    old_store(tmp_path, clock)
    good = migrations.STEPS
    broken = migrations.Step(good[-1].version + 1, ("CREATE TABLE other (name TEXT)", "ALTER TABLE nowhere ADD x"))
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "STEPS", (*good, broken))
        with pytest.raises(Exception, match="no such table"):
            Database.open(tmp_path, clock)
    with Spool.open(tmp_path, clock) as spool:
        assert spool.database.rows("SELECT count(*) FROM sqlite_master WHERE name = 'other'") == [(0,)]
        assert drain(spool) == expect(range(3))


def test_a_newer_store_is_refused_and_left_alone(tmp_path, clock):
    old_store(tmp_path, clock)
    with Database.open(tmp_path, clock) as database, database.transaction() as db:
        db.execute("INSERT INTO schema_version VALUES (99, '7.1.0', 0)")
    for write in (True, False):
        with pytest.raises(StoreError, match=r"schema version 99, written by aitrail 7\.1\.0") as caught:
            Spool.open(tmp_path, clock, write=write)
        assert "7.1.0 or newer" in caught.value.hint


# --- standard output


def test_stdout_writes_one_line_per_event():
    stream = io.BytesIO()
    destination = StdoutDestination(stream)
    ack = destination.send([event(1), event(2, "line\u2028 \x9b31m")], 0.0)
    assert [verdict.status for verdict in ack.verdicts] == ["delivered"] * 2
    assert stream.getvalue().split(b"\n")[:-1] == [event(1).body, event(2, "line\u2028 \x9b31m").body]


def test_stdout_on_a_terminal_escapes_what_could_steer_it():
    stream = io.BytesIO()
    text = "a\x9b31m\u202etxt\u2066\u2028\x1b[2J é\U0001f600"
    StdoutDestination(stream, terminal=True).send([event(1, text)], 0.0)
    written = stream.getvalue().decode()
    assert not set("\x9b\u202e\u2066\u2028\x1b") & set(written)
    assert decode(stream.getvalue()).prompt_text == text
    assert "é\U0001f600" in written


def test_stdout_with_nobody_reading_stops():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb", buffering=0) as stream:
        destination = StdoutDestination(stream)
        assert destination.check() == []
        with pytest.raises(ConfigError, match="nobody reads"):
            destination.send([event(1)], 0.0)
    assert destination.check() != []


def test_structs_are_plain_data():
    assert msgspec.json.decode(msgspec.json.encode(letter(1)), type=DeadLetter) == letter(1)
