"""Bodies: caps, packing, and what is a record of a body."""

import asyncio
import gzip
import json
from collections.abc import MutableMapping
from typing import Any

import pytest
import zstandard

from aitrail.web.auth import Refusal
from aitrail.web.body import Gone, Limits, encoding_of, read_body, records_of, unpack

MIB = 1 << 20
LIMITS = Limits(body=MIB, text=4 * MIB, ratio=50, seconds=5.0)


def read(parts: list[bytes], headers: dict[str, str] | None = None, limits: Limits = LIMITS, end: str = "last") -> Any:
    messages: list[MutableMapping[str, Any]] = [
        {"type": "http.request", "body": part, "more_body": number < len(parts) - 1 or end != "last"}
        for number, part in enumerate(parts)
    ]
    if end == "gone":
        messages.append({"type": "http.disconnect"})
    waiting = iter(messages)

    async def receive() -> MutableMapping[str, Any]:
        try:
            return next(waiting)
        except StopIteration:
            await asyncio.sleep(60)
            raise

    return asyncio.run(read_body(receive, headers or {}, limits))


def code(found: Any) -> tuple[int, str]:
    assert isinstance(found, Refusal)
    return found.status, found.code


def test_a_body_in_parts() -> None:
    assert read([b"ab", b"", b"cd"]) == b"abcd"


def test_too_large_by_its_own_word_and_by_what_comes() -> None:
    assert code(read([b"x"], {"content-length": str(MIB + 1)})) == (413, "body_too_large")
    assert code(read([b"x" * 600_000, b"x" * 600_000])) == (413, "body_too_large")
    assert code(read([b"x" * 600_000] * 3, {"content-length": "5"})) == (413, "body_too_large")
    assert code(read([b"x"], {"content-length": "9" * 40})) == (413, "body_too_large")


def test_a_slow_sender() -> None:
    assert code(read([b"x"], limits=Limits(MIB, MIB, 50, 0.05), end="never")) == (408, "body_too_slow")


def test_a_sender_that_hangs_up() -> None:
    with pytest.raises(Gone):
        read([b"x"], end="gone")


@pytest.mark.parametrize(("named", "found"), [("", "plain"), ("gzip", "gzip"), ("X-GZIP", "gzip"), ("zstd", "zstd")])
def test_encodings(named: str, found: str) -> None:
    assert encoding_of({"content-encoding": named}) == found


@pytest.mark.parametrize("named", ["br", "deflate", "gzip, gzip", "\x00"])
def test_encodings_that_are_not_taken(named: str) -> None:
    assert code(encoding_of({"content-encoding": named})) == (415, "encoding_unknown")


TEXT = json.dumps({"a": "b" * 2_000}).encode()


def test_packed_bodies() -> None:
    assert unpack(TEXT, "plain", LIMITS) == TEXT
    assert unpack(gzip.compress(TEXT), "gzip", LIMITS) == TEXT
    assert unpack(gzip.compress(TEXT) + gzip.compress(TEXT), "gzip", LIMITS) == TEXT * 2
    assert unpack(zstandard.compress(TEXT), "zstd", LIMITS) == TEXT
    assert unpack(gzip.compress(TEXT), "plain", LIMITS) == TEXT  # an upload of a file.gz that nothing names as such


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_body_that_is_not_what_it_says(encoding: str) -> None:
    assert code(unpack(TEXT, encoding, LIMITS)) == (400, "encoding_wrong")
    assert code(unpack(b"", encoding, LIMITS)) == (400, "encoding_wrong")


def test_damaged_packing() -> None:
    packed = gzip.compress(TEXT)
    assert code(unpack(packed[:-9], "gzip", LIMITS)) == (400, "gzip_truncated")
    assert code(unpack(packed[:-8] + b"\xff" * 8, "gzip", LIMITS)) == (400, "gzip_corrupt")


def test_bombs() -> None:
    assert code(unpack(gzip.compress(b"\x00" * (3 * MIB)), "gzip", LIMITS)) == (413, "bomb_ratio")
    wide = Limits(body=MIB, text=4 * MIB, ratio=100_000, seconds=5.0)
    assert code(unpack(gzip.compress(b"\x00" * (64 * MIB)), "gzip", wide)) == (413, "bomb_size")
    assert code(unpack(zstandard.compress(b"\x00" * (64 * MIB)), "zstd", wide)) == (413, "bomb_size")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (b'{"a":1}', 1),
        (b'[{"a":1},{"b":2}]', 2),
        (b'{"a":1}\n{"b":2}\n', 2),
        (b' \r\n{"a":1}\r\n', 1),
        (b'{"Records":[{"a":1},{"b":2},{"c":3}]}', 3),
        (b"[]", 0),
        (b'{"a":1}\nnot json\n{"b":2}\n', 3),
        (b'[{"a":1}, 7, {"b":2}]', 3),
    ],
)
def test_records(text: bytes, count: int) -> None:
    found = records_of(text)
    assert isinstance(found, list)
    assert len(found) == count


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "body_empty"),
        (b" \n", "body_empty"),
        (b"hello", "json_torn"),
        (b'[{"a":1},{"b":', "json_torn"),
        (b'{"a":1}\n{"b":', "json_torn"),
        (b'{"Records":[{"a":1}', "json_torn"),
        (b"[1,2]", "json_invalid"),
        (b'{"a": nope}', "json_invalid"),
        (b"hello\nworld\n", "json_invalid"),
        (b'{"a":' * 2_000, "json_torn"),
    ],
)
def test_bodies_that_are_refused_whole(text: bytes, why: str) -> None:
    assert code(records_of(text)) == (400, why)
