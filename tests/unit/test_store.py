"""The embedded store: every event once, byte for byte, readable at any time, and closed to whoever types SQL."""

import errno
import os
import sqlite3
from datetime import datetime
from pathlib import Path

import duckdb
import msgspec
import pytest
from msgspec import inspect

from aitrail.destinations.store import StoreDestination
from aitrail.errors import StoreError, TransientError
from aitrail.event import FIELD_NAMES, AccessEvent, encode, make_event_id
from aitrail.ports import Ack, EncodedEvent
from aitrail.spool import DeadLetter, Intake, Spool, findings
from aitrail.spool.findings import Kept
from aitrail.store import catalog, columns, maintenance, segments
from aitrail.store.catalog import Segment
from aitrail.store.database import Database
from aitrail.store.reader import StoreReader
from aitrail.store.sandbox import QueryError
from aitrail.streams import Finding


class Clock:
    """A clock that the test moves; 2026-11-24 noon unless moved."""

    def __init__(self) -> None:
        self.time = datetime.fromisoformat("2026-11-24T12:00:00Z").timestamp()

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def packed(event: AccessEvent) -> EncodedEvent:
    return EncodedEvent(event.event_id, event.timestamp, encode(event))


def event(number: int, day: str = "2026-11-23", **fields) -> EncodedEvent:
    return packed(
        AccessEvent(
            event_id=make_event_id("acme", "test", str(number)),
            timestamp=f"{day}T09:14:05.120Z",
            tenant_id="acme",
            source="cloudtrail",
            **fields,
        )
    )


def raw(number: int, body: bytes, timestamp: str = "2026-11-23T09:14:05.120Z") -> EncodedEvent:
    return EncodedEvent(make_event_id("acme", "test", str(number)), timestamp, body)


def statuses(ack: Ack) -> list[str]:
    return [verdict.status for verdict in ack.verdicts]


def files_of(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def destination(root, clock):
    """A store that stands alone."""
    opened = StoreDestination(None, root, clock=clock)
    yield opened
    opened.close()


@pytest.fixture
def flow(root, clock):
    """A spool with the store behind it."""
    with Spool.open(root, clock) as spool:
        store = StoreDestination(spool, root)
        yield spool, store
        store.close()


def take(spool: Spool, events) -> None:
    spool.commit(Intake(source="s", destinations=("store",), events=events, cursors={}))


def drain(spool: Spool, store: StoreDestination, limit: int = 1000) -> list[str]:
    seen = []
    while (batch := spool.pending("store", limit, 1 << 40)) is not None:
        ack = store.send(batch.events, 0.0)
        seen += statuses(ack)
        spool.settle(batch, ack, 0.0)
    return seen


def ids_in(root: Path) -> list[str]:
    return [row[0] for row in StoreReader(root).query("SELECT event_id FROM events ORDER BY event_id").rows]


def expect(numbers) -> list[str]:
    return sorted(make_event_id("acme", "test", str(number)) for number in numbers)


# --- columns


def test_every_field_of_the_catalog_has_a_column_of_its_type():
    assert tuple(columns.COLUMNS) == FIELD_NAMES
    some = {
        "event_id": "VARCHAR",
        "timestamp": "TIMESTAMP",
        "ingested_at": "TIMESTAMP",
        "outcome_status": "VARCHAR",
        "cost_usd": "DOUBLE",
        "token_count": "BIGINT",
        "mfa": "BOOLEAN",
        "leakage_types": "VARCHAR[]",
    }
    assert {name: columns.COLUMNS[name] for name in some} == some
    assert columns.DEFAULTS["outcome_status"] == "unknown"
    assert columns.DEFAULTS["user_id"] == ""
    assert "event_id" not in columns.DEFAULTS


def full_event() -> AccessEvent:
    """An event with something in every field, made from the catalog's examples."""
    values = {}
    for field in inspect.type_info(AccessEvent).fields:
        kind = field.type
        while not isinstance(kind, inspect.Metadata):
            kind = next(one for one in kind.types if isinstance(one, inspect.Metadata))
        example = kind.extra_json_schema["examples"][0]
        values[field.name] = tuple(example) if isinstance(example, list) else example
    return msgspec.convert(values, AccessEvent)


@pytest.mark.parametrize(
    "one",
    [full_event(), AccessEvent(event_id="e", timestamp="2026-11-23T00:00:00.000Z", tenant_id="t", source="s")],
    ids=["full", "minimal"],
)
def test_an_event_comes_back_as_it_went_in(destination, root, one):
    assert statuses(destination.send([packed(one)], 0.0)) == ["delivered"]
    found = StoreReader(root).find(one.event_id)
    assert list(found) == list(FIELD_NAMES)
    assert encode(msgspec.convert(found, AccessEvent)) == encode(one)


def test_find_gives_none_for_an_unknown_id(destination, root):
    destination.send([event(1)], 0.0)
    assert StoreReader(root).find("' OR 1=1 --") is None


TEXTS = {
    "nul": "a\x00b\x00",
    "separators": "line\u2028paragraph\u2029nel\x85",
    "emoji": "\U0001f600\U0001f468\u200d\U0001f469",
    "controls": "".join(map(chr, range(32))) + "\x7f",
    "quotes": "'; DROP TABLE events; -- \" \\ \\u0000 {}[]\r\n\t",
    "json": '{"event_id":"x"}\n{"event_id":"y"}',
    "bidi": "\u202eevil\u2066",
    "edge": "\ud7ff\ue000\ufffe\uffff\U0010ffff",
    "large": "y\u00e9" * 1_700_000,
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_texts_survive_byte_for_byte_also_through_compaction(destination, root, text, clock):
    lists = (text[:1000], "", "x", text[-1000:])
    first = event(1, prompt_text=text, response_text=text[::-1], evidence=lists)
    destination.send([first, event(2)], 0.0)
    destination.send([event(3)], 0.0)
    for _ in range(2):
        found = StoreReader(root).find(first.event_id)
        assert found["prompt_text"] == text
        assert found["response_text"] == text[::-1]
        assert tuple(found["evidence"]) == lists
        maintenance.compact(destination._database)


def test_a_missing_string_is_empty_and_a_missing_number_is_null(destination, root):
    destination.send([event(1), event(2, user_id="ines", token_count=0, outcome_status="blocked")], 0.0)
    reader = StoreReader(root)
    assert reader.query("SELECT count(*) FROM events WHERE user_id = ''").rows == [(1,)]
    assert reader.query("SELECT count(*) FROM events WHERE user_id IS NULL").rows == [(0,)]
    assert reader.query("SELECT count(*) FROM events WHERE outcome_status = 'unknown'").rows == [(1,)]
    assert reader.query("SELECT token_count FROM events ORDER BY ALL NULLS FIRST").rows == [(None,), (0,)]
    assert reader.query("SELECT count(*) FROM events WHERE len(leakage_types) = 0").rows == [(2,)]


# --- days


@pytest.mark.parametrize("day", ["0001-01-01", "1582-10-10", "1969-12-31", "2024-02-29", "2038-01-20", "9999-12-31"])
def test_any_day_has_its_folder(destination, root, day):
    assert statuses(destination.send([event(1, day), event(2)], 0.0)) == ["delivered"] * 2
    assert (root / "segments/events" / f"day={day}").is_dir()
    assert StoreReader(root).find(expect([1])[0])["timestamp"] == f"{day}T09:14:05.120Z"


def test_a_batch_of_many_days_gives_one_file_for_each(destination, root):
    days = [f"2026-11-{day:02d}" for day in range(1, 31)]
    destination.send([event(n, day) for n, day in enumerate(days * 2)], 0.0)
    names = files_of(root / "segments")
    assert len(names) == 30
    assert {Path(name).parent.name for name in names} == {f"day={day}" for day in days}
    stats = maintenance.stats(root)
    assert (stats.segments, stats.events, stats.days, stats.first_day, stats.last_day) == (
        30,
        60,
        30,
        days[0],
        days[-1],
    )


# --- what cannot be stored

GOOD = b'"timestamp":"2026-11-23T09:14:05.120Z","tenant_id":"t","source":"s"'
BAD = {
    "no json": (raw(9, b"{"), "body_invalid"),
    "empty": (raw(9, b""), "body_invalid"),
    "not utf-8": (raw(9, b'{"event_id":"\xff\xfe",' + GOOD + b"}"), "body_invalid"),
    "wrong type": (raw(9, b'{"event_id":"e","token_count":"many",' + GOOD + b"}"), "body_invalid"),
    "an array": (raw(9, b"[1]"), "body_invalid"),
    "huge number": (raw(9, b'{"event_id":"e","token_count":' + b"9" * 30 + b"," + GOOD + b"}"), None),
    "no such day": (event(9, "2026-02-30"), "timestamp_invalid"),
    "no time": (raw(9, b'{"event_id":"e",' + GOOD + b"}", "yesterday"), "timestamp_invalid"),
    "path in time": (raw(9, b'{"event_id":"e",' + GOOD + b"}", "../../etc/"), "timestamp_invalid"),
    "year zero": (event(9, "0000-01-01"), "timestamp_invalid"),
}


@pytest.mark.parametrize(("bad", "code"), BAD.values(), ids=BAD)
def test_one_event_that_cannot_be_stored_is_rejected_and_the_others_are_stored(destination, root, bad, code):
    batch = [*(event(n) for n in range(4)), bad, *(event(n) for n in range(4, 8))]
    for attempt in ("delivered", "duplicate"):
        ack = destination.send(batch, 0.0)
        assert statuses(ack) == [attempt] * 4 + ["rejected"] + [attempt] * 4
        if code:
            assert ack.verdicts[4].code == code
        else:
            assert ack.verdicts[4].code in {"body_invalid", "number_out_of_range"}
    assert ids_in(root) == expect(range(8))
    assert [name for name in files_of(root / "segments") if not name.startswith("events/day=2026-11-23/")] == []


def test_a_rejected_event_is_not_taken_for_a_stored_one_behind_a_spool(flow):
    _, store = flow
    batch = [event(1), raw(2, b"{")]
    assert statuses(store.send(batch, 0.0)) == ["delivered", "rejected"]
    assert statuses(store.send(batch, 0.0)) == ["duplicate", "rejected"]


def test_a_body_over_several_lines_is_stored_all_the_same(destination, root):
    pretty = msgspec.json.format(event(1, user_id="ines").body, indent=2)
    assert b"\n" in pretty
    assert statuses(destination.send([raw(1, pretty), event(2)], 0.0)) == ["delivered"] * 2
    assert StoreReader(root).find(expect([1])[0])["user_id"] == "ines"


def test_what_only_the_engine_refuses_is_found_by_halving(destination, root, monkeypatch):
    real = segments.SegmentWriter._convert
    poison = event(5, user_id="poison").body

    def convert(self, lines, staged, longest):
        if poison in lines.read_bytes():
            raise segments.Unstorable
        return real(self, lines, staged, longest)

    monkeypatch.setattr(segments.SegmentWriter, "_convert", convert)
    ack = destination.send([*(event(n) for n in range(5)), raw(5, poison), event(6)], 0.0)
    assert statuses(ack) == ["delivered"] * 5 + ["rejected", "delivered"]
    assert ids_in(root) == expect([0, 1, 2, 3, 4, 6])


# --- once


def test_a_store_that_stands_alone_stores_each_event_once(root, clock):
    one = StoreDestination(None, root, clock=clock)
    assert statuses(one.send([event(1), event(2), event(1)], 0.0)) == ["delivered", "delivered", "duplicate"]
    assert statuses(one.send([event(2), event(3)], 0.0)) == ["duplicate", "delivered"]
    one.close()
    again = StoreDestination(None, root, clock=clock)
    assert statuses(again.send([event(n) for n in range(5)], 0.0)) == [
        "delivered",
        "duplicate",
        "duplicate",
        "duplicate",
        "delivered",
    ]
    assert again.send([], 0.0).verdicts == []
    again.close()
    assert ids_in(root) == expect(range(5))


def test_after_a_crash_before_settling_other_batches_of_the_same_events_store_nothing_twice(root, clock):
    with Spool.open(root, clock) as spool:
        take(spool, [event(n) for n in range(10)])
        store = StoreDestination(spool, root)
        assert statuses(store.send(spool.pending("store", 6, 1 << 40).events, 0.0)) == ["delivered"] * 6
        # The process ends here: stored, but the outbox does not know.
    with Spool.open(root, clock) as spool:
        take(spool, [event(10)])
        store = StoreDestination(spool, root)
        assert drain(spool, store, 4) == ["duplicate"] * 4 + ["duplicate"] * 2 + ["delivered"] * 5
        assert spool.database.rows("SELECT count(*) FROM receipt") == [(0,)]
    assert ids_in(root) == expect(range(11))


def test_receipts_do_not_pile_up(flow):
    spool, store = flow
    for start in range(0, 50, 10):
        take(spool, [event(n) for n in range(start, start + 10)])
        drain(spool, store, 7)
    assert spool.database.rows("SELECT count(*) FROM receipt") == [(0,)]


def test_a_full_disk_stores_nothing_and_the_next_attempt_all(flow, root, monkeypatch):
    spool, store = flow
    take(spool, [event(n, f"2026-11-{20 + n % 3}") for n in range(9)])
    batch = spool.pending("store", 100, 1 << 40)
    real, calls = os.fsync, []

    def fail_on_third(handle):
        calls.append(handle)
        if len(calls) > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail_on_third)
        with pytest.raises(TransientError, match="No space left") as caught:
            store.send(batch.events, 0.0)
    assert "outbox" in caught.value.hint
    assert files_of(root / "segments") == []
    assert drain(spool, store) == ["delivered"] * 9
    assert ids_in(root) == expect(range(9))


def test_a_commit_that_fails_after_writing_leaves_no_file_once_it_works_again(flow, root, monkeypatch):
    spool, store = flow
    take(spool, [event(n) for n in range(3)])
    batch = spool.pending("store", 100, 1 << 40)

    def fail(*_):
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_FULL, "SQLITE_FULL"
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(catalog, "add", fail)
        with pytest.raises(TransientError, match="the disk is full"):
            store.send(batch.events, 0.0)
    assert StoreReader(root).query("SELECT count(*) FROM events").rows == [(0,)]
    assert drain(spool, store) == ["delivered"] * 3
    assert ids_in(root) == expect(range(3))
    assert len(files_of(root / "segments")) == 1


def test_what_a_crash_left_behind_goes_at_the_next_opening(destination, root, clock):
    destination.send([event(1)], 0.0)
    destination.close()
    known = files_of(root / "segments")
    orphan = root / "segments/events/day=2026-11-22/0-x.parquet"
    orphan.parent.mkdir()
    orphan.write_bytes(b"half")
    (root / "segments/.staging/1.ndjson").write_bytes(b"{}")
    (root / "segments/events/day=2026-11-23/notes.txt").write_bytes(b"not ours")
    Database.open(root, clock).close()
    assert files_of(root / "segments") == sorted([*known, "events/day=2026-11-23/notes.txt"])
    assert not orphan.parent.exists()


def test_check_names_a_directory_that_cannot_be_written(destination, root, monkeypatch):
    assert destination.check() == []

    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(segments.SegmentWriter, "staging", refuse)
    (problem,) = destination.check()
    assert str(root) in problem
    assert "Read-only" in problem


# --- reading


def test_an_empty_store_has_the_views_with_their_types(flow, root):
    answer = StoreReader(root).query("SELECT * FROM events")
    assert answer.columns == FIELD_NAMES
    assert answer.types[FIELD_NAMES.index("timestamp")] == "TIMESTAMP"
    assert answer.rows == []
    reader = StoreReader(root)
    assert [row[0] for row in reader.query("SHOW TABLES").rows] == [
        "counters",
        "cursors",
        "dead_letters",
        "events",
        "finding_records",
        "findings",
        "health_records",
        "runs",
    ]


def test_the_small_tables_show_what_the_database_holds(flow, root, clock):
    spool, _ = flow
    text = 'it\'s \u2028 \x00 {"x": 1}'
    dead = DeadLetter(
        id="d1",
        source="s",
        origin=text,
        position=1 << 40,
        end=2,
        index=3,
        code="c",
        field="f",
        record_type="r",
        stage="frame",
        raw=b"secret",
        first_seen=clock.now() + 0.25,
    )
    many = [msgspec.structs.replace(dead, id=f"m{n:05d}", first_seen=float(n)) for n in range(6000)]
    spool.commit(
        Intake(
            source="s", destinations=(), events=[], cursors={text: b"xyz"}, dead=[dead, *many], counts={"records": 5}
        )
    )
    spool.end_run(spool.begin_run("collect"), {"new": 1})
    reader = StoreReader(root)
    found = reader.query("SELECT * FROM dead_letters WHERE id = 'd1'")
    assert "raw" not in found.columns
    row = dict(zip(found.columns, found.rows[0], strict=True))
    assert (row["origin"], row["position"], row["resolved"]) == (text, 1 << 40, None)
    assert row["first_seen"] == datetime(2026, 11, 24, 12, 0, 0, 250000)  # noqa: DTZ001 - TIMESTAMP is UTC
    assert reader.query("SELECT count(*) FROM dead_letters").rows == [(6001,)]
    assert reader.query("SELECT key, bytes FROM cursors").rows == [(text, 3)]
    assert reader.query("SELECT * FROM counters").rows == [("s", "records", 5)]
    assert reader.query("SELECT command, totals->>'$.new' FROM runs").rows == [("collect", "1")]


def test_a_connection_keeps_its_moment_while_the_writer_goes_on(flow, root):
    spool, store = flow
    take(spool, [event(1)])
    drain(spool, store)
    with StoreReader(root).connect() as connection:
        take(spool, [event(2)])
        drain(spool, store)
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (1,)
        assert StoreReader(root).query("SELECT count(*) FROM events").rows == [(2,)]
        maintenance.compact(spool)
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (1,)


def test_a_query_that_meets_a_removed_file_takes_a_fresh_look(flow, root, monkeypatch):
    spool, store = flow
    for number in range(3):
        take(spool, [event(number)])
        drain(spool, store)
    reader = StoreReader(root)
    stale = reader.snapshot()
    maintenance.compact(spool, grace_seconds=0)
    assert len(files_of(root / "segments")) == 1
    real, moments = reader.snapshot, [stale]
    monkeypatch.setattr(reader, "snapshot", lambda: moments.pop() if moments else real())
    assert reader.query("SELECT count(*) FROM events").rows == [(3,)]
    assert moments == []


def test_a_segment_that_is_gone_is_named(destination, root):
    destination.send([event(1)], 0.0)
    (name,) = files_of(root / "segments")
    (root / "segments" / name).unlink()
    with pytest.raises(StoreError, match=name) as caught:
        StoreReader(root).query("SELECT * FROM events")
    assert "backup" in caught.value.hint


def test_max_rows_cuts_and_says_so(destination, root):
    destination.send([event(n) for n in range(5)], 0.0)
    cut = StoreReader(root).query("SELECT event_id FROM events", max_rows=3)
    assert (len(cut.rows), cut.truncated) == (3, True)
    whole = StoreReader(root).query("SELECT event_id FROM events WHERE tenant_id = ?", ["acme"], max_rows=5)
    assert (len(whole.rows), whole.truncated) == (5, False)


@pytest.mark.parametrize("name", ["with space", "it's", "a[1]b", "st*r", "wh?t", "ünï\u2028", "per%cent#hash", 'q"q'])
def test_a_store_may_have_any_name(tmp_path, clock, name):
    place = tmp_path / name
    destination = StoreDestination(None, place, clock=clock)
    destination.send([event(1)], 0.0)
    destination.send([event(2)], 0.0)
    assert ids_in(place) == expect([1, 2])
    maintenance.compact(destination._database)
    destination.close()
    assert ids_in(place) == expect([1, 2])


def older_segment(root: Path, clock: Clock, select: str, day: str = "2026-11-20") -> None:
    """Register a file as an earlier catalog would have written it."""
    with Database.open(root, clock) as database, database.transaction() as db:
        folder = root / "segments/events" / f"day={day}"
        folder.mkdir(parents=True)
        duckdb.connect().execute(f"COPY ({select}) TO '{folder}/0-old.parquet' (FORMAT parquet)")
        stamp = f"{day}T00:00:00.000Z"
        size = (folder / "0-old.parquet").stat().st_size
        catalog.add(db, [Segment(f"events/day={day}/0-old.parquet", "events", day, 1, size, stamp, stamp, "old")], 0.0)


OLD = (
    "SELECT 'e-old' AS event_id, TIMESTAMP '2026-11-20 00:00:00' AS timestamp, 'acme' AS tenant_id, 's' AS source, "
    "7::INTEGER AS token_count, 'x' AS dropped_since"
)


def test_segments_of_an_older_catalog_read_with_the_new_columns(root, clock, destination):
    destination.send([event(1, user_id="ines", token_count=1 << 40)], 0.0)
    destination.close()
    older_segment(root, clock, OLD)
    reader = StoreReader(root)
    answer = reader.query("SELECT event_id, user_id, token_count, mfa, atlas FROM events ORDER BY timestamp")
    assert answer.rows == [("e-old", "", 7, None, []), (expect([1])[0], "ines", 1 << 40, None, [])]
    assert reader.query("SELECT * FROM events").columns == FIELD_NAMES
    assert reader.find("e-old")["outcome_status"] == "unknown"
    # A compaction brings the file up to date.
    done = maintenance.compact(root, clock=clock)
    assert (done.segments_before, done.segments_after) == (1, 1)
    assert reader.query("SELECT token_count, user_id FROM events ORDER BY ALL").rows == [(7, ""), (1 << 40, "ines")]
    assert maintenance.compact(root, clock=clock).segments_before == 0


def test_only_old_segments_read_too(root, clock):
    Database.open(root, clock).close()
    older_segment(root, clock, OLD)
    assert StoreReader(root).query("SELECT event_id, user_id FROM events").rows == [("e-old", "")]


def test_findings_are_a_table(root, clock, destination):
    destination.close()
    finding = Finding(
        event_id="f1", timestamp="2026-11-20T10:00:00.250Z", tenant_id="acme", rule_id="r", tags=("a_rule",),
        entities=("user:a", "ip:203.0.113.9"), evidence_count=3, severity="high",
    )  # fmt: skip
    with Database.open(root, clock) as database:
        assert findings.keep(database, [Kept(finding, ("acme", "a"), 1763632800.0)] * 2, 5.0) == 1
        assert findings.covered(database) == [("r", ("acme", "a"), 1763632800.0)]
        assert findings.looked_until(database) == 5.0
    asked = """SELECT event_id, rule, entities, evidence, events, severity, first_seen::VARCHAR, last_seen::VARCHAR
        FROM findings"""
    about = ["user:a", "ip:203.0.113.9"]
    times = ("2025-11-20 10:00:00", "2026-11-20 10:00:00.25")
    assert StoreReader(root).query(asked).rows == [("f1", "a_rule", about, [], 3, "high", *times)]
    assert StoreReader(root).query("SELECT count(*) FROM events").rows == [(0,)]


# --- typed SQL is closed in

REFUSED = {
    "write a file": "COPY (SELECT 1) TO '{tmp}/out.csv'",
    "overwrite a segment": "COPY (SELECT 'x' AS event_id) TO '{segment}' (FORMAT parquet, USE_TMP_FILE false)",
    "overwrite inside with": "WITH x AS (COPY (SELECT 'x' AS event_id) TO '{segment}' (FORMAT parquet, "
    "USE_TMP_FILE false)) SELECT 1",
    "overwrite inside explain": "EXPLAIN ANALYZE WITH x AS (COPY (SELECT 'x' AS event_id) TO '{segment}' "
    "(FORMAT parquet, USE_TMP_FILE false)) SELECT 1",
    "overwrite inside a comment's shadow": "/* x */ EXPLAIN /* y */ ANALYZE COPY (SELECT 1) TO '{segment}' "
    "(FORMAT parquet, USE_TMP_FILE false)",
    "overwrite inside query()": "SELECT * FROM query('WITH x AS (COPY (SELECT 1) TO ''{segment}'' (FORMAT parquet, "
    "USE_TMP_FILE false)) SELECT 1')",
    "explain a copy": "EXPLAIN ANALYZE COPY (SELECT 1) TO '{segment}' (FORMAT parquet, USE_TMP_FILE false)",
    "two statements": "SELECT 1; COPY (SELECT 1) TO '{tmp}/out.csv'",
    "attach": "ATTACH '{tmp}/other.db'",
    "attach the catalog": "ATTACH '{root}/aitrail.db' (TYPE sqlite)",
    "read a file": "SELECT * FROM read_csv('/etc/passwd')",
    "read text": "SELECT * FROM read_text('/etc/passwd')",
    "read the catalog": "SELECT * FROM read_blob('{root}/aitrail.db')",
    "read by name": "SELECT * FROM '/etc/passwd'",
    "list files": "SELECT * FROM glob('/etc/*')",
    "other segments": "SELECT * FROM read_parquet('{root}/segments/events/*/*.parquet')",
    "python variables": "SELECT * FROM secret",
    "network": "SELECT * FROM read_csv('https://example.com/x.csv')",
    "install": "INSTALL httpfs",
    "load": "LOAD httpfs",
    "pragma": "PRAGMA database_list",
    "set": "SET enable_external_access = true",
    "reset": "RESET lock_configuration",
    "create": "CREATE TABLE t AS SELECT 1",
    "replace the view": "CREATE OR REPLACE VIEW events AS SELECT 1",
    "drop": "DROP VIEW events",
    "delete": "DELETE FROM counters",
    "delete inside with": "WITH x AS (DELETE FROM counters RETURNING 1) SELECT * FROM x",
    "export": "EXPORT DATABASE '{tmp}/dump'",
    "pivot, which makes a type": "PIVOT events ON source USING count(*)",
    "pragma behind a comment": "/* x */ PRAGMA database_list",
    "explain a pragma": "EXPLAIN PRAGMA database_list",
    "call": "CALL pragma_version()",
    "prepare": "PREPARE p AS SELECT 1",
    "checkpoint": "CHECKPOINT",
    "nothing": "",
    "nonsense": "SELEC 1",
}


@pytest.mark.parametrize("sql", REFUSED.values(), ids=REFUSED)
def test_a_query_can_only_read_the_views(destination, root, tmp_path, sql):
    secret = [(1,)]  # noqa: F841 - what a replacement scan would find
    destination.send([event(1)], 0.0)
    before = {name: (root / "segments" / name).read_bytes() for name in files_of(root / "segments")}
    outside = sorted(path.name for path in tmp_path.iterdir())
    (segment,) = before
    text = sql.format(tmp=tmp_path, root=root, segment=root / "segments" / segment)
    reader = StoreReader(root)
    with reader.connect() as connection, pytest.raises(QueryError) as caught:
        connection.execute(text)
    assert str(caught.value)
    with pytest.raises(QueryError):
        reader.query(text)
    assert {name: (root / "segments" / name).read_bytes() for name in files_of(root / "segments")} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == outside
    assert reader.query("SELECT count(*) FROM events").rows == [(1,)]


ALLOWED = {
    "select": "SELECT count(*) FROM events",
    "with": "WITH e AS (SELECT * FROM events) SELECT source, count(*) FROM e GROUP BY ALL",
    "from first": "FROM events LIMIT 1",
    "values": "VALUES (1)",
    "describe": "DESCRIBE events",
    "summarize": "SUMMARIZE SELECT event_id, source FROM events",
    "show": "SHOW TABLES",
    "explain": "EXPLAIN SELECT * FROM events",
    "explain analyze": "explain analyze\nselect * from events -- done",
    "explain behind a comment": "/* why */ -- so\n explain select 1",
    "table": "TABLE events",
    "parentheses": "(SELECT 1) UNION ALL (SELECT 2)",
    "comments": "-- what\n/* ever */ SELECT 1;",
    "window": "SELECT event_id, lag(timestamp) OVER (PARTITION BY user_id ORDER BY timestamp) FROM events",
    "copy as a name": "SELECT source AS copy FROM events WHERE source <> 'COPY x TO y'",
}


@pytest.mark.parametrize("sql", ALLOWED.values(), ids=ALLOWED)
def test_every_form_of_reading_works(destination, root, sql):
    destination.send([event(1)], 0.0)
    assert StoreReader(root).query(sql).rows


def test_a_refusal_says_what_is_wrong_where(destination, root):
    reader = StoreReader(root)
    with pytest.raises(QueryError, match="no_such") as caught:
        reader.query("SELECT *\nFROM no_such")
    assert "LINE 2: FROM no_such" in str(caught.value)
    assert "SHOW TABLES" in caught.value.hint
    with pytest.raises(QueryError, match="queries only read"):
        reader.query("DROP VIEW events")
    with pytest.raises(AttributeError):
        _ = reader.connect().register


def test_a_query_that_needs_too_much_memory_ends_and_spills_nothing(destination, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    destination.send([event(1)], 0.0)
    reader = StoreReader(root, memory_limit="50MB", threads=1)
    with pytest.raises(QueryError, match=r"(?i)memory"):
        reader.query("SELECT count(*) FROM (SELECT DISTINCT a.range, repeat('x', 200) FROM range(5000000) a)")
    assert not (tmp_path / ".tmp").exists()


# --- maintenance


def fill(destination, days=("2026-11-21", "2026-11-22", "2026-11-23"), rounds=4) -> int:
    number = 0
    for _ in range(rounds):
        for day in days:
            destination.send([event(number + n, day) for n in range(5)], 0.0)
            number += 5
    return number


def test_compaction_merges_days_and_removes_the_old_files_later(destination, root, clock):
    count = fill(destination)
    database = destination._database
    done = maintenance.compact(database)
    assert (done.days, done.segments_before, done.segments_after, done.duplicates) == (3, 12, 3, 0)
    assert done.bytes_after < done.bytes_before
    assert ids_in(root) == expect(range(count))
    assert len(files_of(root / "segments")) == 15
    assert maintenance.stats(root).retired_segments == 12
    assert maintenance.compact(database) == maintenance.Compacted()
    clock.time += catalog.GRACE_SECONDS + 1
    assert maintenance.compact(database).files_removed == 12
    assert len(files_of(root / "segments")) == 3
    assert ids_in(root) == expect(range(count))


def test_replaced_files_go_while_the_writer_runs_too(destination, root, clock):
    fill(destination)
    maintenance.compact(destination._database)
    clock.time += 2000
    destination.send([event(1000)], 0.0)
    assert len(files_of(root / "segments")) == 4


def test_compaction_keeps_to_the_target_size(destination, root):
    count = fill(destination, days=("2026-11-21",), rounds=8)
    size = maintenance.stats(root).segment_bytes // 8
    done = maintenance.compact(destination._database, target_bytes=3 * size + 100)
    assert done.segments_after == 3
    assert ids_in(root) == expect(range(count))


def test_compaction_drops_rows_whose_event_is_there_twice(destination, root):
    destination.send([event(1, user_id="a"), event(2)], 0.0)
    database = destination._database
    database.identity("stored")  # what follows goes around it: two stores copied together, a restored backup
    writer = segments.SegmentWriter(database.segments, database.clock)
    twice = writer.write("events", "2026-11-23", [event(1, user_id="a"), event(3)])
    with database.transaction() as db:
        catalog.add(db, [twice], 0.0)
    assert len(ids_in(root)) == 4
    assert maintenance.compact(database).duplicates == 1
    assert ids_in(root) == expect([1, 2, 3])


def test_retention_during_a_compaction_is_not_undone_by_it(destination, root, monkeypatch):
    fill(destination, days=("2026-11-01", "2026-11-23"), rounds=2)
    real = segments.SegmentWriter.publish

    def publish(self, staged, kind, day, **more):
        if day == "2026-11-01":
            maintenance.retain(destination._database, 10)
        return real(self, staged, kind, day, **more)

    monkeypatch.setattr(segments.SegmentWriter, "publish", publish)
    done = maintenance.compact(destination._database)
    assert (done.days, done.segments_before, done.segments_after) == (1, 2, 1)
    assert StoreReader(root).query("SELECT DISTINCT timestamp::DATE::VARCHAR FROM events").rows == [("2026-11-23",)]
    assert [name for name in files_of(root / "segments") if "2026-11-01" in name] == []


def test_compaction_that_fails_changes_nothing(destination, root, monkeypatch):
    count = fill(destination, rounds=2)
    before = files_of(root / "segments")

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(segments.SegmentWriter, "publish", fail)
        with pytest.raises(TransientError, match="merged segment could not be written"):
            maintenance.compact(destination._database)
    assert files_of(root / "segments") == before
    assert ids_in(root) == expect(range(count))


def test_maintenance_of_a_directory_needs_its_lock(destination, root, clock, tmp_path):
    for work in (maintenance.compact, maintenance.vacuum, lambda path: maintenance.retain(path, 5)):
        with pytest.raises(StoreError, match=f"pid {os.getpid()}"):
            work(root)
    with pytest.raises(StoreError, match="no aitrail store here"):
        maintenance.compact(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    destination.close()
    maintenance.vacuum(root)
    assert maintenance.compact(str(root), clock=clock) == maintenance.Compacted()


def test_retention_drops_whole_days_at_once_and_says_what(flow, root):
    spool, store = flow
    days = ["2026-11-20", "2026-11-21", "2026-11-22", "2026-11-24"]
    events = [event(n, day) for n, day in enumerate(days * 3)]
    take(spool, events)
    drain(spool, store)
    done = maintenance.retain(spool, 2)
    assert (done.cutoff, done.days, done.segments, done.events) == ("2026-11-22", ("2026-11-20", "2026-11-21"), 2, 6)
    assert done.bytes > 0
    assert maintenance.stats(root).first_day == "2026-11-22"
    assert {Path(name).parent.name for name in files_of(root / "segments")} == {"day=2026-11-22", "day=2026-11-24"}
    assert len(ids_in(root)) == 6
    # What was dropped stays known: reading the same input again brings nothing back.
    take(spool, events)
    assert drain(spool, store) == []
    with pytest.raises(ValueError, match="at least one day"):
        maintenance.retain(spool, 0)


def test_forgotten_events_are_taken_in_again(flow, root):
    spool, store = flow
    events = [event(n, "2026-11-01") for n in range(5)] + [event(5)]
    take(spool, events)
    drain(spool, store)
    assert maintenance.retain(spool, 7, forget=True).forgotten == 5
    take(spool, events)
    assert drain(spool, store) == ["delivered"] * 5
    assert ids_in(root) == expect(range(6))


def test_stats_say_what_there_is(flow, root):
    spool, store = flow
    take(spool, [event(1), event(2)])
    spool.commit(Intake(source="s", destinations=("store", "siem"), events=[event(3)], cursors={}))
    stats = maintenance.stats(root)
    assert (stats.events, stats.admitted, stats.outbox) == (0, 3, {"siem": 1, "store": 3})
    drain(spool, store)
    stats = maintenance.stats(root)
    assert (stats.events, stats.segments, stats.outbox) == (3, 1, {"siem": 1})
    assert stats.segment_bytes == sum((root / "segments" / name).stat().st_size for name in files_of(root / "segments"))
