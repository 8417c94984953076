"""Files that hold no JSON: one error for each, and nothing of a file that does is lost."""

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aitrail.ports import Budget, RawRecord
from aitrail.sources.file import FileSource

JSON = b'{"n":1}\n'
README = b"# A title\n\nSome text, with [links](https://example.com) and {braces}.\n- one\n- two\n" * 4
CSV = b"time,user,model\n" + b"2026-11-20,ines,gpt-4o\n" * 300
LOG = b"[2026-11-20 08:00:00] INFO started\n" * 30
NUMBERS = b"1\n2\n3\n" * 100


class Clock:
    """Long after every file was written."""

    def now(self) -> float:
        return 4e9

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        del seconds


class Cursors:
    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def get(self, key: str) -> bytes | None:
        return self.kept.get(key)

    def items(self) -> Iterator[tuple[str, bytes]]:
        return iter(self.kept.items())


@pytest.fixture
def read(tmp_path: Path) -> Callable[[], list[RawRecord]]:
    source, cursors = FileSource("s", [str(tmp_path)], clock=Clock()), Cursors()

    def once() -> list[RawRecord]:
        records: list[RawRecord] = []
        for batch in source.fetch(cursors, Budget()):
            records += batch.records
            cursors.kept[batch.cursor_key] = batch.cursor
        return records

    return once


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize(
    ("text", "lines"), [(README, 16), (README[:-1], 16), (CSV, 301), (NUMBERS, 300), (b"hello\n", 1), (b"hello", 1)]
)
def test_plain_text_is_one_error_with_a_count(
    tmp_path: Path, read: Callable[[], list[RawRecord]], text: bytes, lines: int, pack: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "a").write_bytes(pack(text))
    records = read()
    assert [(record.error, record.data, record.position, record.index) for record in records] == [
        ("not_json", b"", 0, 0)
    ]
    assert records[0].detail == f"{lines} line{'' if lines == 1 else 's'}"
    assert records[0].end >= len(text) - 1
    assert read() == []


def test_a_log_with_brackets_is_plain_text_too(tmp_path: Path, read: Callable[[], list[RawRecord]]) -> None:
    (tmp_path / "a.log").write_bytes(LOG)
    assert [record.error for record in read()] == ["not_json"]


def test_json_behind_plain_text_is_read(tmp_path: Path, read: Callable[[], list[RawRecord]]) -> None:
    (tmp_path / "a").write_bytes(CSV + JSON + b"oops\n" + JSON)
    records = read()
    assert [(record.error, record.data) for record in records] == [
        ("not_json", b""),
        ("", JSON.strip()),
        ("", b"oops"),
        ("", JSON.strip()),
    ]
    assert records[0].end == records[1].position == len(CSV)
    assert records[1].index == 301


def test_a_few_plain_lines_before_json_are_records_of_their_own(
    tmp_path: Path, read: Callable[[], list[RawRecord]]
) -> None:
    (tmp_path / "a").write_bytes(b'rest of a cut line"}\noops\n' + JSON)
    assert [record.data for record in read()] == [b'rest of a cut line"}', b"oops", JSON.strip()]


def test_plain_text_that_grows_is_told_once_and_its_json_is_read(
    tmp_path: Path, read: Callable[[], list[RawRecord]]
) -> None:
    path = tmp_path / "a"
    path.write_bytes(CSV)
    assert [record.error for record in read()] == ["not_json"]
    with path.open("ab") as file:
        file.write(b"more,of,it\n")
    assert read() == []
    with path.open("ab") as file:
        file.write(b"more,of,it\n" + JSON + b"oops\n")
    assert [record.data for record in read()] == [JSON.strip(), b"oops"]


def test_a_file_that_begins_with_very_much_plain_text_is_not_read_on(
    tmp_path: Path, read: Callable[[], list[RawRecord]]
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"a line of text\n" * 100_000 + JSON)
    records = read()
    assert [record.error for record in records] == ["not_json"]
    assert int(records[0].detail.split()[0].replace(",", "")) < 50_000
    assert read() == []
    with path.open("ab") as file:
        file.write(JSON)
    assert read() == []


def test_a_directory_of_documentation_does_not_flood_the_dead_letters(
    tmp_path: Path, read: Callable[[], list[RawRecord]]
) -> None:
    for number in range(20):
        (tmp_path / f"doc{number}.md").write_bytes(README)
    (tmp_path / "events.jsonl").write_bytes(JSON * 3)
    errors = [record.error for record in read()]
    assert sorted(errors) == [""] * 3 + ["not_json"] * 20


def test_a_bomb_is_no_plain_text(tmp_path: Path, read: Callable[[], list[RawRecord]]) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(b'{"a":' + b"[" * 5_000_000))
    assert [record.error for record in read()] == ["record_torn"]


def test_torn_json_is_no_plain_text(tmp_path: Path, read: Callable[[], list[RawRecord]]) -> None:
    (tmp_path / "a").write_bytes(b'{"eventVersion": "1.11", \n' * 3)
    assert len(read()) == 3
