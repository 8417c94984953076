"""Any records, in any format, cut anywhere, stopped and resumed anywhere: exactly the same records, each once."""

import gzip
import os
import random
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from aitrail.ports import Budget
from aitrail.sources import _framing, _meter
from aitrail.sources._caps import Caps
from aitrail.sources._framing import Framer

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from test_source_file import OLD, Bench

SETTINGS = settings(deadline=None, max_examples=150)

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(max_size=12)
    | st.sampled_from(["}{", "},{", "\\", '"']),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=12,
)
RECORDS = st.lists(
    st.dictionaries(st.text(min_size=1, max_size=6).filter(lambda k: k.lower() != "records"), VALUES, max_size=4),
    max_size=25,
)


def compact(value) -> bytes:
    return msgspec.json.encode(value)


def indented(value) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2)


def chunks(records, size):
    return [records[at : at + size] for at in range(0, len(records), size)]


LAYOUTS = {
    "lines": lambda records: b"".join(compact(r) + b"\n" for r in records),
    "crlf, blank lines": lambda records: b"".join(b" " + compact(r) + b"\r\n\n" for r in records),
    "next to each other": lambda records: b"".join(map(compact, records)),
    "indented": lambda records: b"\n".join(indented(r) for r in records),
    "array": lambda records: b"[" + b",".join(map(compact, records)) + b"]",
    "array, indented": indented,
    "cloudtrail": lambda records: b'{"Records":[' + b",".join(map(compact, records)) + b"]}",
    "azure, indented": lambda records: indented({"records": records, "more": [1, {"x": "]}"}]}),
    "captures": lambda records: b"".join(compact({"records": part}) + b"\n" for part in chunks(records, 4)),
    "mixed": lambda records: b"".join(
        (compact(part[0]) + b"\n" + indented(part[1:]) + b"\n") for part in chunks(records, 5)
    ),
}
PACKERS = {
    "plain": lambda text, _: text,
    "gzip": lambda text, cut: gzip.compress(text[:cut], mtime=0) + gzip.compress(text[cut:], mtime=0),
    "zstd": lambda text, cut: zstandard.compress(text[:cut]) + zstandard.compress(text[cut:]),
}


@pytest.fixture(autouse=True)
def small_steps(monkeypatch):
    """Make pieces and batches so small that every seam of the code lies inside the examples."""
    monkeypatch.setattr(_framing, "CHUNK", 32)
    monkeypatch.setattr(_meter, "BATCH_RECORDS", 3)


def frame(text, cuts, *, offset=0, skip=0, index=0, caps=None):
    framer = Framer(caps, offset=offset, skip=skip, index=index)
    places = [offset, *sorted(cut for cut in cuts if offset < cut < len(text)), len(text)]
    runs = [run for at, to in pairwise(places) for run in framer.feed(text[at:to])]
    rest, tail = framer.finish()
    return runs + rest, tail


def flat(runs):
    return [record for run in runs for record in run.records]


@SETTINGS
@given(RECORDS, st.sampled_from(sorted(LAYOUTS)), st.lists(st.integers(0, 4_000), max_size=30))
def test_every_layout_and_cut_gives_the_records(records, layout, cuts):
    text = LAYOUTS[layout](records)
    runs, tail = frame(text, cuts)
    got = flat(runs)
    assert [msgspec.json.decode(r.data) for r in got] == records
    assert [r.index for r in got] == list(range(len(records)))
    assert all(text[r.position : r.end] == r.data and not r.error for r in got)
    assert not tail.kind
    for run in runs:
        for count in range(1, len(run.records) + 1):
            offset, skip = run.resume(count)
            index = run.records[count - 1].index + 1
            rest, _ = frame(text, cuts, offset=offset, skip=skip, index=index)
            assert flat(rest) == got[index:]


TOKENS = st.sampled_from(
    [
        *(
            b"{",
            b"}",
            b"[",
            b"]",
            b",",
            b":",
            b'"',
            b'"a"',
            b"\\",
            b"\n",
            b" ",
            b"1",
            b"NaN",
            b"x",
            b"\0",
            b"\xef\xbb\xbf",
        ),
        *(b'{"a":1}', b'{"b":"x,}{"}', b'{"Records":[', b'"records":', b"},{", b"\n{", b"\n[", b"\n  {", b'{"a":1}\n'),
    ]
)


@settings(SETTINGS, max_examples=400)
@given(
    st.lists(TOKENS, max_size=30).map(b"".join) | st.binary(max_size=60),
    st.lists(st.integers(0, 100), max_size=20),
    st.sampled_from([8, 20, 1_000]),
)
def test_anything_is_framed_the_same_for_every_cut_and_resume(text, cuts, cap):
    caps = Caps(record_bytes=cap)
    whole, tail = frame(text, [], caps=caps)
    expected = flat(whole)
    for places in (cuts, range(len(text))):
        runs, end = frame(text, places, caps=caps)
        assert (flat(runs), end) == (expected, tail)
    for run in whole:
        for count in range(1, len(run.records) + 1):
            offset, skip = run.resume(count)
            index = run.records[count - 1].index + 1
            rest, again = frame(text, cuts, offset=offset, skip=skip, index=index, caps=caps)
            assert (flat(rest), again) == (expected[index:], tail)


@SETTINGS
@given(st.lists(TOKENS, max_size=30).map(b"".join))
def test_nothing_is_lost_between_records(text):
    """What no record, error or tail covers is white space, NUL, commas, byte order marks or frames of containers."""
    runs, tail = frame(text, [])
    if any(run.anchor >= 0 for run in runs) or b"[" in text:
        return
    at = 0
    for record in flat(runs):
        assert not text[at : record.position].replace(b"\xef\xbb\xbf", b"").strip(b" \t\r\n\0,")
        at = record.end
    end = tail.position if tail.kind else len(text)
    assert not text[at:end].replace(b"\xef\xbb\xbf", b"").strip(b" \t\r\n\0,")


@SETTINGS
@given(
    RECORDS,
    st.sampled_from(sorted(LAYOUTS)),
    st.sampled_from(sorted(PACKERS)),
    st.integers(0, 4_000),
    st.randoms(use_true_random=False),
)
def test_killed_and_resumed_anywhere(records, layout, packer, cut, rnd):
    text = LAYOUTS[layout](records)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "file"
        path.write_bytes(PACKERS[packer](text, min(cut, len(text))))
        os.utime(path, (OLD, OLD))
        bench = Bench(path)
        got, idle = [], 0
        while idle < 2:  # a run may end before it commits anything
            taken = bench.batches(stop=rnd.randrange(1, 4))
            idle = 0 if taken else idle + 1
            got += [record for batch in taken for record in batch.records]
    assert [msgspec.json.decode(r.data) for r in got] == records
    assert [r.index for r in got] == list(range(len(records)))
    assert all(text[r.position : r.end] == r.data for r in got)


@SETTINGS
@given(
    RECORDS,
    st.sampled_from(["lines", "next to each other", "indented", "cloudtrail", "array, indented", "captures"]),
    st.sampled_from(["plain", "gzip"]),
    st.lists(st.integers(0, 2_000), max_size=6),
    st.randoms(use_true_random=False),
)
def test_read_while_it_grows(records, layout, packer, cuts, rnd: random.Random):
    """Whatever was there at each look, in the end every record came once (a tear may be told in between)."""
    text = LAYOUTS[layout](records)
    places = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "file"
        bench = Bench(path)
        got = []
        for turn, (at, to) in enumerate(pairwise(places)):
            with path.open("ab") as file:
                file.write(text[at:to] if packer == "plain" else gzip.compress(text[at:to], mtime=0))
            moment = bench.clock.wall if rnd.random() < 0.5 else OLD + turn
            os.utime(path, (moment, moment))
            for _ in range(rnd.randrange(3)):
                got += bench.records(Budget(records=rnd.randrange(1, 9)))
        os.utime(path, (OLD + 99, OLD + 99))
        for _ in range(100):
            batches = bench.batches()
            got += [record for batch in batches for record in batch.records]
            if not batches:
                break
    kept = [r for r in got if r.error != "record_torn"]
    assert [msgspec.json.decode(r.data) for r in kept] == records
    assert [r.index for r in kept] == list(range(len(records)))
