"""The file source over the life of files: grow, rotate, truncate, replace, tear, vanish; budgets; stdin."""

import gzip
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import zstandard

from aitrail.ports import Budget, RawBatch, RawRecord
from aitrail.sources import _meter
from aitrail.sources.file import FileSource

NOW = 1_800_000_000.0
OLD = NOW - 3_600
UNBOUND = Budget()


class StillClock:
    def __init__(self) -> None:
        self.wall = NOW
        self.ticks = 0.0

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.ticks

    def sleep(self, seconds: float) -> None:
        self.ticks += seconds


class Kept:
    """The committed cursors, as the pipeline would keep them."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}

    def get(self, key: str) -> bytes | None:
        return self.data.get(key)

    def items(self) -> Iterator[tuple[str, bytes]]:
        return iter(self.data.items())


class Bench:
    """A source, its clock and its committed cursors."""

    def __init__(self, *paths: Path | str, **options: object) -> None:
        self.clock = StillClock()
        self.kept = Kept()
        self.source = FileSource("trail", [str(path) for path in paths], clock=self.clock, **options)

    def batches(self, budget: Budget = UNBOUND, stop: int | None = None) -> list[RawBatch]:
        """Fetch and commit; ``stop`` batches only, as if the process was killed then."""
        taken = []
        for batch in self.source.fetch(self.kept, budget):
            if stop is not None and len(taken) >= stop:
                break
            taken.append(batch)
            self.kept.data[batch.cursor_key] = batch.cursor
        return taken

    def records(self, budget: Budget = UNBOUND) -> list[RawRecord]:
        return [record for batch in self.batches(budget) for record in batch.records]

    def data(self) -> list[bytes]:
        return [record.data if not record.error else record.error.encode() for record in self.records()]


def line(number: int, pad: int = 0) -> bytes:
    return b'{"n":%d,"pad":"%s"}' % (number, b"x" * pad)


def write(path: Path, data: bytes, mtime: float = OLD) -> None:
    path.write_bytes(data)
    os.utime(path, (mtime, mtime))


def append(path: Path, data: bytes, mtime: float = OLD + 60) -> None:
    with path.open("ab") as file:
        file.write(data)
    os.utime(path, (mtime, mtime))


def lines(*numbers: int) -> bytes:
    return b"".join(line(number) + b"\n" for number in numbers)


# -- the plain life


def test_second_run_reads_nothing_and_opens_nothing(tmp_path, monkeypatch):
    write(tmp_path / "a.log", lines(1, 2))
    bench = Bench(tmp_path)
    assert bench.data() == [line(1), line(2)]
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("an unchanged file was opened"))
    assert bench.batches() == []
    assert bench.source.survey(bench.kept).objects == 0


def test_records_know_their_place(tmp_path):
    write(tmp_path / "a.log", b"\xef\xbb\xbf" + lines(1) + b"\r\n\n  " + line(2) + b" \r\n")
    text = (tmp_path / "a.log").read_bytes()
    (batch,) = Bench(tmp_path).batches()
    assert [(r.index, r.data) for r in batch.records] == [(0, line(1)), (1, line(2))]
    assert all(text[r.position : r.end] == r.data for r in batch.records)
    assert batch.origin == str(tmp_path / "a.log")
    assert batch.settled
    assert batch.newest == OLD
    assert batch.bytes_read == len(text)


@pytest.mark.parametrize("packed", ["plain", "gzip", "zstd"])
def test_growth(tmp_path, packed):
    pack = {"plain": bytes, "gzip": gzip.compress, "zstd": zstandard.compress}[packed]
    path = tmp_path / "a.bin"
    write(path, pack(lines(1, 2)))
    bench = Bench(tmp_path)
    assert bench.data() == [line(1), line(2)]
    append(path, pack(lines(3)))
    # The line end behind the last record belongs to none, so it counts as unread.
    assert bench.source.survey(bench.kept).bytes - len(pack(lines(3))) in (0, 1)
    records = bench.records()
    assert [r.data for r in records] == [line(3)]
    assert records[0].index == 2
    assert records[0].position == len(lines(1, 2))
    append(path, pack(lines(4)), OLD + 120)
    assert bench.data() == [line(4)]


def test_rotation_by_rename_keeps_the_place(tmp_path):
    path = tmp_path / "app.log"
    write(path, lines(1, 2))
    bench = Bench(tmp_path / "app.log*")
    assert bench.data() == [line(1), line(2)]
    append(path, lines(3))
    path.rename(tmp_path / "app.log.1")
    write(path, lines(10, 11))
    found = bench.batches()
    assert {Path(b.origin).name: [r.data for r in b.records] for b in found} == {
        "app.log": [line(10), line(11)],
        "app.log.1": [line(3)],
    }
    (tmp_path / "app.log.1").rename(tmp_path / "app.log.2")
    path.rename(tmp_path / "app.log.1")
    assert bench.data() == []


def test_a_file_renamed_while_the_walk_goes_on_is_read_once(tmp_path):
    write(tmp_path / "app.log", lines(1))
    write(tmp_path / "app.log.1", lines(2))
    bench = Bench(tmp_path)
    stale = Kept()  # nothing of this fetch is committed yet
    fetched = bench.source.fetch(stale, UNBOUND)
    got = [r.data for r in next(fetched).records]
    (tmp_path / "app.log").rename(tmp_path / "app.log.1")
    got += [r.data for batch in fetched for r in batch.records]
    assert got == [line(1)]  # app.log.1 was overwritten; what now has its name was read already


def test_truncated_in_place_starts_again(tmp_path):
    path = tmp_path / "a.log"
    write(path, lines(1, 2, 3))
    bench = Bench(tmp_path)
    bench.data()
    with path.open("r+b") as file:
        file.truncate(0)
    append(path, lines(7))
    assert bench.data() == [line(7)]
    assert "read from the start" in bench.source.notes[0]


def test_a_hole_after_truncation_is_no_record(tmp_path):
    # A writer without O_APPEND goes on at its old offset after copytruncate: the file starts with NULs.
    write(tmp_path / "a.log", b"\0" * 700_000 + lines(1, 2))
    assert Bench(tmp_path).data() == [line(1), line(2)]


def test_replaced_content_of_the_same_size_starts_again(tmp_path):
    path = tmp_path / "a.log"
    write(path, lines(1, 2))
    bench = Bench(tmp_path)
    bench.data()
    with path.open("r+b") as file:
        file.write(lines(3, 4))
    os.utime(path, (OLD + 5, OLD + 5))
    assert bench.data() == [line(3), line(4)]


def test_replaced_behind_an_equal_head_starts_again(tmp_path):
    # The first 1,024 bytes are the same, the size grew, but what was read is not what is there now.
    path = tmp_path / "a.log"
    write(path, line(0, 2_000) + b"\n" + lines(1, 2))
    bench = Bench(tmp_path)
    assert len(bench.data()) == 3
    with path.open("r+b") as file:
        file.write(line(0, 2_000) + b"\n" + lines(8, 9, 10))
    os.utime(path, (OLD + 5, OLD + 5))
    assert bench.data() == [line(0, 2_000), line(8), line(9), line(10)]


def test_changed_format_starts_again(tmp_path):
    path = tmp_path / "a.log"
    write(path, lines(1))
    bench = Bench(tmp_path)
    bench.data()
    with path.open("r+b") as file:
        file.write(gzip.compress(lines(1, 2) * 3))
    os.utime(path, (OLD + 5, OLD + 5))
    assert len(bench.data()) == 6


def test_deleted_file_leaves_a_harmless_cursor(tmp_path):
    path = tmp_path / "a.log"
    write(path, lines(1))
    bench = Bench(tmp_path)
    bench.data()
    path.unlink()
    assert bench.batches() == []
    write(path, lines(5))  # most likely with the same inode
    assert bench.data() == [line(5)]


def test_touched_file_is_looked_at_once(tmp_path):
    path = tmp_path / "a.log"
    write(path, lines(1))
    bench = Bench(tmp_path)
    bench.data()
    os.utime(path, (OLD + 9, OLD + 9))
    (batch,) = bench.batches()
    assert (batch.records, batch.settled) == ([], True)
    assert bench.batches() == []


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b'{"v":99,"path":""}', b"null"])
def test_damaged_cursor_starts_again_and_says_so(tmp_path, damage):
    write(tmp_path / "a.log", lines(1))
    bench = Bench(tmp_path)
    (batch,) = bench.batches()
    bench.kept.data[batch.cursor_key] = damage
    assert bench.data() == [line(1)]
    assert bool(damage) == any("cursor is damaged" in note for note in bench.source.notes)


def test_newer_cursor_version_is_not_trusted(tmp_path):
    write(tmp_path / "a.log", lines(1))
    bench = Bench(tmp_path)
    (batch,) = bench.batches()
    bench.kept.data[batch.cursor_key] = batch.cursor.replace(b'"v":1', b'"v":2')
    assert bench.kept.data[batch.cursor_key] != batch.cursor
    assert bench.data() == [line(1)]


def test_cursor_tells_nothing_about_content_and_depends_on_the_key(tmp_path):
    write(tmp_path / "a.log", b'{"secret":"AKIAIOSFODNN7EXAMPLE"}\n')
    one, two = Bench(tmp_path, key=b"one"), Bench(tmp_path, key=b"two")
    (first,), (second,) = one.batches(), two.batches()
    assert b"AKIA" not in first.cursor
    assert msgspec.json.decode(first.cursor)["head"] != msgspec.json.decode(second.cursor)["head"]


def test_empty_files_make_no_batches(tmp_path):
    write(tmp_path / "a.log", b"")
    assert Bench(tmp_path).batches() == []


# -- torn ends


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
def test_torn_last_line_waits(tmp_path, pack):
    path = tmp_path / "a.log"
    write(path, pack(lines(1) + line(2)[:5]))
    bench = Bench(tmp_path)
    assert bench.data() == [line(1)]
    assert "it waits" in bench.source.notes[0]
    assert bench.batches() == []
    append(path, pack(line(2)[5:] + b"\n"))
    assert bench.data() == [line(2)]
    assert bench.source.notes == []


def test_last_line_that_nobody_finished_is_told_and_still_read_when_it_grows(tmp_path):
    path = tmp_path / "a.log"
    write(path, lines(1) + line(2)[:5], NOW - 2 * 86_400)
    bench = Bench(tmp_path)
    assert bench.data() == [line(1), b"record_torn"]
    assert bench.batches() == [], "the same tear was told twice"
    append(path, line(2)[5:] + b"\n")
    assert bench.data() == [line(2)]


def test_last_line_that_waits_is_told_when_its_day_is_over(tmp_path):
    write(tmp_path / "a.log", lines(1) + line(2)[:5])
    bench = Bench(tmp_path)
    assert bench.data() == [line(1)]
    bench.clock.wall += 2 * 86_400
    assert bench.data() == [b"record_torn"]
    assert bench.batches() == []


def test_whole_last_line_without_end_is_taken_once(tmp_path):
    path = tmp_path / "a.log"
    write(path, lines(1) + line(2))
    bench = Bench(tmp_path)
    assert bench.data() == [line(1), line(2)]
    append(path, b"\n")
    assert bench.data() == []
    append(path, lines(3), OLD + 120)
    assert bench.data() == [line(3)]


def test_single_torn_line_waits_from_its_first_byte_on(tmp_path):
    path = tmp_path / "a.log"
    write(path, b"{")
    bench = Bench(tmp_path)
    for at in range(1, len(lines(1))):
        assert bench.data() == ([] if at < len(line(1)) else [line(1)] if at == len(line(1)) else [])
        append(path, lines(1)[at : at + 1], OLD + at)
    assert bench.data() == []


ENVELOPE = b'{"Records":[' + line(1) + b"," + line(2) + b"," + line(3) + b"]}"


@pytest.mark.parametrize("document", [ENVELOPE, ENVELOPE[11:-1], b'{\n  "n": 1,\n  "pad": ""\n}\n{\n  "n": 2\n}\n'])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_torn_document_keeps_what_is_whole_and_goes_on_later(tmp_path, document, pack):
    whole = Bench(tmp_path / "whole")
    write(tmp_path / "whole", pack(document))
    expected = whole.data()
    assert len(expected) >= 2
    for cut in range(1, len(document)):
        path = tmp_path / f"torn{cut}"
        write(path, pack(document[:cut]))
        bench = Bench(path)
        first = bench.data()
        assert bench.data() == [], "the same tear was told twice"
        append(path, pack(document[cut:]))
        got = [data for data in first + bench.data() if data != b"record_torn"]
        assert got == expected, cut


def test_torn_document_is_no_error_while_it_is_written(tmp_path):
    path = tmp_path / "a.json"
    write(path, ENVELOPE[:40], NOW - 1)
    bench = Bench(tmp_path)
    assert bench.data() == [line(1)]
    assert "not complete yet" in bench.source.notes[0]
    assert bench.batches() == []
    bench.clock.wall += 60
    (torn,) = bench.records()
    assert (torn.error, torn.data, torn.index) == ("record_torn", b"", 1)
    assert bench.batches() == []
    append(path, ENVELOPE[40:], NOW + 70)
    assert bench.data() == [line(2), line(3)]


def test_truncated_gzip_keeps_the_records_before(tmp_path):
    path = tmp_path / "a.gz"
    packed = gzip.compress(b"".join(line(n, 40) + b"\n" for n in range(5_000)))
    write(path, packed[: len(packed) // 2])
    bench = Bench(tmp_path)
    records = bench.records()
    assert records[-1].error == "gzip_truncated"
    assert len(records) > 500
    assert all(not record.error for record in records[:-1])
    assert bench.batches() == []
    append(path, packed[len(packed) // 2 :])
    rest = bench.records()
    assert [r.data for r in records[:-1] + rest] == [line(n, 40) for n in range(5_000)]
    assert [r.index for r in records[:-1] + rest] == list(range(5_000))


# -- budgets and batches


def test_batches_are_bounded(tmp_path):
    write(tmp_path / "small.log", lines(*range(2_500)))
    write(tmp_path / "large.log", b"".join(line(n, 300_000) + b"\n" for n in range(10)))
    batches = Bench(tmp_path).batches()
    assert all(len(b.records) <= 1_000 for b in batches)
    assert all(sum(len(r.data) for r in b.records) <= 2 << 20 for b in batches)
    assert [b.settled for b in batches if b.origin.endswith("small.log")] == [False, False, True]
    for name in ("small.log", "large.log"):
        read = sum(b.bytes_read for b in batches if b.origin.endswith(name))
        assert read == (tmp_path / name).stat().st_size


def test_budget_stops_at_a_batch_and_goes_on(tmp_path):
    write(tmp_path / "a.log", lines(*range(30)))
    write(tmp_path / "b.log", lines(*range(30, 60)))
    bench = Bench(tmp_path)
    got = []
    for _ in range(10):
        batches = bench.batches(Budget(records=7))
        assert sum(len(b.records) for b in batches) <= 7
        assert not batches or batches[-1].settled
        got += [r.data for b in batches for r in b.records]
    assert got == [line(n) for n in range(60)]


def test_budget_of_bytes_and_seconds(tmp_path):
    for name in "abc":
        write(tmp_path / name, lines(*range(10)))
    assert len(Bench(tmp_path).batches(Budget(bytes=1))) == 1
    bench = Bench(tmp_path)
    fetched = bench.source.fetch(bench.kept, Budget(seconds=5))
    next(fetched)
    bench.clock.ticks += 6
    assert list(fetched) == []


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
@pytest.mark.parametrize("document", ["lines", "envelope", "pretty", "events"])
def test_killed_after_any_batch(tmp_path, monkeypatch, pack, document):
    monkeypatch.setattr(_meter, "BATCH_RECORDS", 7)
    records = [line(n, n % 50) for n in range(100)]
    text = {
        "lines": b"\n".join(records) + b"\n",
        "envelope": b'{"meta":{"a":[1]},"Records":[' + b",".join(records) + b'],"next":null}',
        "pretty": b"[\n    " + b",\n    ".join(records) + b"\n]\n",
        "events": b"".join(b'{"records": [' + b", ".join(records[n : n + 9]) + b"]}\n" for n in range(0, 100, 9)),
    }[document]
    write(tmp_path / "file", pack(text))
    bench = Bench(tmp_path)
    got: list[RawRecord] = []
    for _ in range(200):
        batches = bench.batches(stop=1)
        got += [r for b in batches for r in b.records]
        if not batches:
            break
    assert [r.data for r in got] == records
    assert [r.index for r in got] == list(range(100))
    assert all(text[r.position : r.end] == r.data for r in got)


def test_survey_counts_stored_bytes(tmp_path):
    write(tmp_path / "a.log", lines(1, 2))
    write(tmp_path / "b.gz", gzip.compress(lines(3)))
    bench = Bench(tmp_path)
    work = bench.source.survey(bench.kept)
    assert (work.objects, work.bytes) == (2, len(lines(1, 2)) + len(gzip.compress(lines(3))))
    assert sum(b.bytes_read for b in bench.batches()) == work.bytes


# -- stdin


def through_stdin(data: bytes) -> list[RawBatch]:
    reader, writer = os.pipe()

    def feed() -> None:
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(data)

    thread = threading.Thread(target=feed)
    thread.start()
    bench = Bench("-")
    bench.source._stdin = reader
    assert bench.source.survey(bench.kept).bytes is None
    batches = bench.batches()
    thread.join()
    os.close(reader)
    return batches


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
def test_stdin(pack):
    batches = through_stdin(pack(lines(*range(5_000)) + line(5_000)))
    assert [r.data for b in batches for r in b.records] == [line(n) for n in range(5_001)]
    assert [b.settled for b in batches][-1]
    assert not any(b.settled for b in batches[:-1])
    assert {b.origin for b in batches} == {"stdin"}


def test_stdin_has_no_next_time_so_a_torn_line_is_an_error():
    # One batch or two: a line comes at once when the end of the stream is not there yet.
    batches = through_stdin(lines(1) + b'{"n":')
    assert [r.error for batch in batches for r in batch.records] == ["", "record_torn"]


def test_stdin_gives_a_line_as_soon_as_it_is_there():
    reader, writer = os.pipe()
    bench = Bench("-")
    bench.source._stdin = reader
    fetched = bench.source.fetch(bench.kept, UNBOUND)
    os.write(writer, lines(1))
    assert [r.data for r in next(fetched).records] == [line(1)]
    os.write(writer, lines(2))
    assert [r.data for r in next(fetched).records] == [line(2)]
    os.close(writer)
    assert [r for b in fetched for r in b.records] == []
    os.close(reader)


# -- reread


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
@pytest.mark.parametrize("text", [lines(1, 2, 3), b"[\n " + line(1) + b",\n" + line(2) + b" ]", b"oops \n" + lines(1)])
def test_reread_gives_the_same_bytes(tmp_path, pack, text):
    write(tmp_path / "a", pack(text))
    bench = Bench(tmp_path)
    for record in bench.records():
        origin = str(tmp_path / "a")
        assert bench.source.reread(origin, record.position, record.end, record.index) == record.data
        assert bench.source.reread(origin, 0, 0, record.index) == record.data
        assert bench.source.reread(origin, record.position + 1, record.end, record.index) is None
        assert bench.source.reread(origin, record.position, record.end + 9_999, record.index) is None


def test_reread_of_what_is_gone(tmp_path):
    bench = Bench(tmp_path)
    assert bench.source.reread(str(tmp_path / "none"), 0, 7, 0) is None
    assert bench.source.reread("a\0b", 0, 7, 0) is None
    assert bench.source.reread(str(tmp_path), 0, 7, 0) is None
    os.mkfifo(tmp_path / "pipe")
    assert bench.source.reread(str(tmp_path / "pipe"), 0, 7, 0) is None
    write(tmp_path / "bad.gz", b"\x1f\x8b\x08 this is no gzip")
    assert bench.source.reread(str(tmp_path / "bad.gz"), 0, 7, 0) is None
