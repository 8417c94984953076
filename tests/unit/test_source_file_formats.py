"""Formats told by content, damage, bombs and caps of the file source."""

import gzip
import io
import os
import time
import zipfile

import msgspec
import pytest
import zstandard
from test_source_file import Bench, line, lines, write

from aitrail.errors import CorruptInputError
from aitrail.sources import _framing, _values
from aitrail.sources._caps import Caps
from aitrail.sources._framing import Framer
from aitrail.sources._inflate import Stored, detect, open_text


def frame(text: bytes, caps: Caps | None = None, piece: int = 1 << 20):
    """Return the records of ``text`` as (data or error code) and the tail."""
    framer = Framer(caps)
    runs = [run for at in range(0, len(text), piece) for run in framer.feed(text[at : at + piece])]
    rest, tail = framer.finish()
    return [record.error.encode() or record.data for run in runs + rest for record in run.records], tail


A, B, C = b'{"a":1}', b'{"b":[{},{"x":"}{"}]}', b'{"c":"\xe2\x80\xa8\xc2\x85\x0b\x0c"}'

WHOLE = {
    "lines": (A + b"\n" + B + b"\n" + C + b"\n", [A, B, C]),
    "crlf": (A + b"\r\n" + B + b"\r\n", [A, B]),
    "byte order mark": (b"\xef\xbb\xbf" + A + b"\n\xef\xbb\xbf" + B, [A, B]),
    "blank lines": (b"\n\n  \n" + A + b"\n \t\n" + B + b"\n\n", [A, B]),
    "unicode line ends inside texts": (C + b"\n" + C, [C, C]),
    "one after another": (A + B + b" " + C + b"\n" + A, [A, B, C, A]),
    "indented": (b'{\n  "a": 1\n}\n{\n  "b": [\n    {}\n  ]\n}\n', [b'{\n  "a": 1\n}', b'{\n  "b": [\n    {}\n  ]\n}']),
    "array": (b"[" + A + b"," + B + b"]", [A, B]),
    "array, one a line": (b"[\n" + A + b",\n" + B + b"\n]\n", [A, B]),
    "array, indented": (b"[\n  " + A + b",\n  " + B + b"\n]\n", [A, B]),
    "arrays, one a line": (b"[" + A + b"]\n[" + B + b"," + C + b"]\n", [A, B, C]),
    "empty array": (b"[]\n[ ]", []),
    "cloudtrail": (b'{"Records":[' + A + b"," + B + b"]}", [A, B]),
    "cloudtrail, indented": (b'{\n  "Records": [\n    ' + A + b",\n    " + B + b"\n  ]\n}\n", [A, B]),
    "cloudtrail, empty": (b'{"Records":[]}', []),
    "azure": (b'{"records": [' + A + b", " + B + b"]}", [A, B]),
    "event hub capture": (b'{"records":[' + A + b"]}\n" + b'{"records":[' + B + b"," + C + b"]}\n", [A, B, C]),
    "event hub, next to each other": (b'{"records":[' + A + b"]}" + b'{"records":[' + B + b"]}", [A, B]),
    "envelope with other members": (
        b'{"count":2,"of":{"Records":[1]},"Records":[' + A + b"," + B + b'],"next":{"x":"]}"}}\n' + C,
        [A, B, C],
    ),
    "records that hold no objects": (b'{"Records":[1,2]}\n{"records":"x"}', [b'{"Records":[1,2]}', b'{"records":"x"}']),
    "records key far behind": (
        b'{"pad":"' + b"x" * 2_000 + b'","records":[' + A + b"]}",
        [b'{"pad":"' + b"x" * 2_000 + b'","records":[' + A + b"]}"],
    ),
    "records inside a text": (b'{"a":"{\\"Records\\":[{}]}"}\n', [b'{"a":"{\\"Records\\":[{}]}"}']),
    "otlp": (b'{"resourceSpans":[{"a":1},{"b":2}]}', [b'{"resourceSpans":[{"a":1},{"b":2}]}']),
    "array of other things": (b'[1,"a",null,[2],' + A + b"]", [b"1", b'"a"', b"null", b"[2]", A]),
    "fragment of an array": (A + b",\n" + B + b",\n", [A, B]),
    "values that the decoder refuses": (
        b'{"a":NaN}\n{"a":"\x01"}\n{"a":"\\ud800"}\n{"a":01}\n',
        [b'{"a":NaN}', b'{"a":"\x01"}', b'{"a":"\\ud800"}', b'{"a":01}'],
    ),
    "the same inside an array": (
        b'[{"a":NaN},{"a":"\x01"},{"a":"\\ud800"},' + A + b"]",
        [b'{"a":NaN}', b'{"a":"\x01"}', b'{"a":"\\ud800"}', A],
    ),
    "invalid utf-8": (b'{"a":"\xff\xfe"}\n' + A, [b'{"a":"\xff\xfe"}', A]),
    "escapes": (b'{"a":"\\\\"}\n{"a":"\\""}[{"a":"\\\\\\""}]', [b'{"a":"\\\\"}', b'{"a":"\\""}', b'{"a":"\\\\\\""}']),
}

BROKEN = {
    "line torn in an object": (b'{"a":1,\n' + B + b"\n", [b'{"a":1,', B]),
    "line torn in an array": (b'{"a":[1,\n' + B + b"\n" + C + b"\n", [b'{"a":[1,', B, C]),
    "line torn in a text": (b'{"a":"x\n' + B + b"\n", [b'{"a":"x', B]),
    "line torn behind a backslash": (b'{"a":"x\\\n' + B + b"\n", [b'{"a":"x\\', B]),
    "line torn in front": (b'"x":1}},"b":2}\n' + A + b"\n", [b'"x":1}},"b":2}', A]),
    "line that starts in a nested object": (b'{"x":1}},"b":2}\n' + A + b"\n", [b'{"x":1}},"b":2}', A]),
    "words": (b"INFO starting\n" + A + b"\nINFO done\n", [b"INFO starting", A, b"INFO done"]),
    "value with words behind": (A + b" oops\n" + B + b"\n", [A + b" oops", B]),
    "scalars": (b"1\ntrue\n" + A, [b"1", b"true", A]),
    "garbage between indented values": (
        b'{\n "a": 1\n}\noops\n{\n "b": 2\n}\n',
        [b'{\n "a": 1\n}', b"oops", b'{\n "b": 2\n}'],
    ),
    "indented value with a wrong bracket": (
        b'{\n "a": [\n  1}\n}\n{\n "b": 2\n}\n',
        [b'{\n "a": [\n  1}\n}', b'{\n "b": 2\n}'],
    ),
    "indented value cut off before the next": (
        b'{\n "a": {\n  "x": 1,\n{\n "b": 2\n}\n',
        [b'{\n "a": {\n  "x": 1,', b'{\n "b": 2\n}'],
    ),
    "array torn between elements": (b"[" + A + b"," + B + b"\n" + C + b"\n", [A, B, b"record_torn", C]),
    "envelope torn before the next": (
        b'{"Records":[' + A + b',{"x":1,\n{"Records":[' + B + b"]}\n",
        [A, b'{"x":1,', B],
    ),
    "envelope that is not closed": (b'{"Records":[' + A + b"]\n" + B + b"\n", [A, b"record_torn", B]),
    "broken element in an indented array": (
        b'[\n  {"a": 1]},\n  ' + B + b",\n  " + C + b"\n]\n",
        [b'{"a": 1]},', B, C, b"]"],
    ),
    "too many closing brackets": (A + b"\n]}\n" + B + b"\n", [A, b"]}", B]),
    "zip": (b"PK\x03\x04\x00\x01\n" + A + b"\n", [b"PK\x03\x04\x00\x01", A]),
}


@pytest.mark.parametrize("piece", [1 << 20, 1, 7])
@pytest.mark.parametrize("case", [*WHOLE, *BROKEN])
def test_framing(case, piece, monkeypatch):
    text, expected = (WHOLE | BROKEN)[case]
    if piece < 100:
        monkeypatch.setattr(_framing, "CHUNK", 16)  # the patience with a line that has no end yet
    records, tail = frame(text, piece=piece)
    assert records == expected
    assert not tail.kind


@pytest.mark.parametrize(
    ("text", "kind", "position"),
    [
        (A + b"\n" + B[:-1], "line", 8),
        (A + b"\noops", "line", 8),
        (b"[" + A + b"," + B[:-1], "document", 9),
        (b"[" + A, "document", 8),
        (b'{"Records":[' + A + b"]", "document", 20),
        (b'{\n "a":1', "document", 0),
        (A + b" \n\0\n", "", 0),
    ],
)
def test_tail(text, kind, position):
    for piece in (1 << 20, 1):
        _, tail = frame(text, piece=piece)
        assert (tail.kind, tail.position) == (kind, position)


def test_deep_nesting_is_one_error():
    too_deep = b"json_too_deep"
    deep = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert frame(deep + b"\n" + A + b"\n")[0] == [too_deep, A]
    unclosed = b'{"a":' + b"[" * 100_000
    assert frame(unclosed + b"\n" + A + b"\n" + B + b"\n")[0] == [too_deep, A, B]
    # A broken element ends its array; what is behind it on the line goes with it.
    assert frame(b'{"Records":[' + A + b"," + deep + b"]}\n" + B + b"\n", piece=1_000)[0] == [A, too_deep, B]
    pretty = b"[\n " + A + b",\n " + deep + b",\n " + B + b"\n]\n"
    assert frame(pretty)[0][:3] == [A, too_deep, B]


def test_what_decoders_take_is_not_too_deep():
    fine = b'{"a":' + b"[" * 900 + b"]" * 900 + b"}"
    assert frame(fine + b"\n" + A + b"\n", piece=700)[0] == [fine, A]


def test_many_unclosed_lines_take_bounded_time():
    # Each line opens what the next seems to continue; so many of them are given up together, and nothing else is.
    bad, count = b'{"a":[1,\n', 5_000
    before = time.process_time()
    records, _ = frame(bad * count + A + b"\n" + B + b"\n")
    assert records[-2:] == [A, B]
    torn = b"\n".join(records[:-2]) + b"\n"
    assert torn == bad * count
    assert count / 20 < len(records) < count / 10
    assert time.process_time() - before < 10  # about 0.1; without the bound on nesting it grows with the square


HOSTILE = {
    "brackets": b"[" * 400_000,
    "braces": b'{"a":' * 80_000,
    "deep pairs": b'{"a":[' + (b"[" * 500 + b"]" * 500 + b",") * 400,
    "pairs": b'{"a":[' + b"[]," * 130_000,
    "strings": b'{"a":[' + b'"",' * 130_000,
    "escapes": b'{"a":"' + b'\\"' * 200_000,
    "lines": b'{"a":[\n' + b"1,\n" * 130_000,
    "nested lines": b"[\n" * 50_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_costs_no_more_than_its_length(name):
    text = HOSTILE[name]
    before = time.process_time()
    frame(text)
    took = time.process_time() - before
    # 10 to 400 MB/s, and 0.4 MB/s of nested lines; it was 1.5 MB/s, and 0.02.
    assert took < len(text) / 50_000 + 1


@pytest.mark.parametrize("piece", [100, 1_000, 1 << 20])
def test_record_cap(piece):
    caps = Caps(record_bytes=1_000)
    big = b'{"a":"' + b"x" * 50_000 + b'"}'
    too_large = b"record_too_large"
    assert frame(A + b"\n" + big + b"\n" + B + b"\n", caps, piece)[0] == [A, too_large, B]
    assert frame(b"[" + A + b"," + big + b"," + B + b"]", caps, piece)[0] == [A, too_large, B]
    assert frame(b'{"Records":[' + big + b"," + B + b"]}", caps, piece)[0] == [too_large, B]
    assert frame(A + big + B, caps, piece)[0] == [A, too_large, B]
    assert frame(b"y" * 50_000 + b"\n" + B + b"\n", caps, piece)[0] == [too_large, B]
    assert frame(b'{"a":"' + b"x" * 50_000 + b"\n" + B + b"\n", caps, piece)[0] == [too_large, B]
    assert frame(b'{"a":[\n' + b"1,\n" * 20_000 + b"1]}\n" + B, caps, piece)[0] == [too_large, B]
    assert frame(b"[" + b"1" * 50_000 + b"," + B + b"]", caps, piece)[0] == [too_large, B]


def test_a_document_larger_than_a_piece_streams():
    framer, most, count = Framer(), 0, 0
    for piece in (b'{"Records":[', *([(line(1, 1_000) + b",") * 500] * 40), line(1) + b"]}"):
        count += sum(len(run.records) for run in framer.feed(piece))
        most = max(most, len(framer._text))
    assert count + sum(len(run.records) for run in framer.finish()[0]) == 20_001
    assert most < 600_000


def test_the_decoder_tells_where_a_value_ends():
    # The fast way depends on the wording of one message; the scan would still be right, at a tenth of the speed.
    assert _values._TRAILING_SHIFT in (-1, 0, 1)
    for value in (A, B, b'{"c":"\xe2\x80\xa8"}', b'"x"', b"[1]"):
        for behind in (b"{", b" {", b",", b"\n\n[", b"x"):
            assert _values.probe(b"  " + value + behind, 2) == (_values.DONE, 2 + len(value))
    assert _values.probe(b"12", 0)[0] == _values.MORE
    assert _values.probe(A[:-1], 0)[0] == _values.MORE


def test_many_values_on_one_line_take_bounded_time():
    values = [line(n, 1_000) for n in range(3_000)]
    before = time.process_time()
    assert frame(b"".join(values) + b"\n", piece=1 << 22)[0] == values
    assert time.process_time() - before < 5  # about 0.1; copying the rest of the line for each would be 5 GB


# -- packed files

PACKED = {"gzip": gzip.compress, "zstd": zstandard.compress, "plain": bytes}


@pytest.mark.parametrize("name", PACKED)
def test_format_is_told_by_content(tmp_path, name):
    assert detect(PACKED[name](A)) == name
    for suffix in (".log", ".gz", ".zst", ""):
        write(tmp_path / f"x{suffix}", PACKED[name](lines(1)))
    assert Bench(tmp_path).data() == [line(1)] * 4


def read_all(data: bytes, caps: Caps | None = None, chunk: int = 1 << 16) -> bytes:
    reader, writer = os.pipe()
    try:
        text = open_text(Trickle(data, chunk), detect(data), caps or Caps())
        return b"".join(iter(text.read, b""))
    finally:
        os.close(reader)
        os.close(writer)


class Trickle(Stored):
    """Stored bytes that come in small pieces."""

    def __init__(self, data: bytes, chunk: int) -> None:
        super().__init__(-1)
        self._file, self._chunk = io.BytesIO(data), chunk

    def read(self, count: int) -> bytes:
        data = self._file.read(min(count, self._chunk))
        self.position += len(data)
        return data


@pytest.mark.parametrize("chunk", [1, 3, 1 << 16])
@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_many_members(pack, chunk):
    members = [b"", b"x" * 100_000, A, b"", bytes(range(256)) * 50]
    assert read_all(b"".join(pack(member) for member in members), chunk=chunk) == b"".join(members)


def test_gzip_header_fields_and_padding():
    buffer = io.BytesIO()
    with gzip.GzipFile("a name.json", "wb", fileobj=buffer) as file:
        file.write(A)
    assert read_all(buffer.getvalue() + b"\0" * 5_000, chunk=1) == A
    assert read_all(buffer.getvalue() + b"\0" * 512 + gzip.compress(B)) == A + B


def test_zstd_skippable_frame_first():
    data = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd" + zstandard.compress(A)
    assert detect(data) == "zstd"
    assert read_all(data) == A


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor(write_checksum=True).compress])
def test_damage_is_found_and_what_lies_before_is_kept(tmp_path, pack):
    whole = pack(lines(*range(1_000)))
    other = bytearray(pack(lines(*range(1_000, 2_000))))
    for place in (len(other) // 2, len(other) - 3):
        other[place] ^= 0x55
        write(tmp_path / "a.log", whole + bytes(other))
        records = Bench(tmp_path).records()
        assert [r.data for r in records[:1_000]] == [line(n) for n in range(1_000)]
        assert records[-1].error == "gzip_corrupt"
        assert records[-1].position >= len(lines(*range(1_000)))
        assert sum(bool(r.error) for r in records) == 1


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_every_truncation_is_told(tmp_path, pack):
    packed = pack(lines(1, 2))
    for cut in range(4, len(packed)):
        write(tmp_path / f"{cut}", packed[:cut])
        bench = Bench(tmp_path / f"{cut}")
        got = bench.data()
        assert got[-1] == b"gzip_truncated", cut
        assert got[:-1] == [line(1), line(2)][: len(got) - 1]
        assert bench.batches() == []


def test_words_behind_gzip_are_damage(tmp_path):
    write(tmp_path / "a.gz", gzip.compress(lines(1)) + b"trailing words")
    assert Bench(tmp_path).data() == [line(1), b"gzip_corrupt"]


def test_zip_in_gzip_is_bad_json(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.json", A)
    write(tmp_path / "a.gz", gzip.compress(buffer.getvalue() + b"\n"))
    records = Bench(tmp_path).records()
    assert records
    for record in records:
        with pytest.raises(msgspec.DecodeError):
            msgspec.json.decode(record.data)


@pytest.mark.parametrize(
    ("data", "code", "word"),
    [
        (b"PK\x03\x04" + b"\n" * 500, b"json_invalid", "zip"),
        (b"\xfd7zXZ\x00" + b"\n" * 500, b"json_invalid", "xz"),
        (b"PAR1" + b"\n" * 500, b"json_invalid", "Parquet"),
        (b"Obj\x01" + b"\n" * 500, b"json_invalid", "Avro"),
        ('{"a":1}\n'.encode("utf-16"), b"utf8_invalid", "UTF-16"),
    ],
)
def test_a_file_of_another_kind_is_one_error(tmp_path, data, code, word):
    write(tmp_path / "a", data)
    bench = Bench(tmp_path)
    assert bench.data() == [code]
    assert word in bench.source.notes[0]
    assert bench.batches() == []


def test_bomb_caps(tmp_path):
    caps = Caps(ratio=50, ratio_after=100_000, text_bytes=1 << 30)
    write(tmp_path / "a.gz", gzip.compress(lines(*range(100)) + b" " * 3_000_000))
    bench = Bench(tmp_path, caps=caps)
    got = bench.data()
    assert got[-1] == b"bomb_ratio"
    assert got[:-1] == [line(n) for n in range(100)]
    assert bench.batches() == []
    write(tmp_path / "a.gz", gzip.compress(lines(*range(100))))
    assert Bench(tmp_path, caps=Caps(text_bytes=500)).data()[-1] == b"bomb_size"


def test_zstd_window_is_bounded():
    packed = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=22, enable_ldm=True)
    ).compressobj()
    data = packed.compress(os.urandom(1 << 20) * 6) + packed.flush()
    assert len(read_all(data)) == 6 << 20
    with pytest.raises(CorruptInputError):
        read_all(data, Caps(window_bytes=1 << 20))


def test_highly_repetitive_small_files_pass(tmp_path):
    text = lines(*[1] * 100_000)
    write(tmp_path / "a.gz", gzip.compress(text))
    assert len(text) / (tmp_path / "a.gz").stat().st_size > 100
    assert Bench(tmp_path).data() == [line(1)] * 100_000
