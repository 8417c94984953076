"""Memory of the file source does not grow with its input: bombs and large files, measured in processes of their own."""

import gzip
import json
import subprocess
import sys
import zlib

import pytest
import zstandard
from test_source_file import line

MIB = 1 << 20

PROGRAM = """
import json, resource, sys
from pathlib import Path
from aitrail.clock import SystemClock
from aitrail.ports import Budget
from aitrail.sources.file import FileSource

class None_:
    def get(self, key): return None
    def items(self): return iter(())

def peak():
    # Linux counts the parent's memory into ru_maxrss of a process that it starts; VmHWM is this process alone.
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

source = FileSource("x", sys.argv[1:], clock=SystemClock())
before = peak()
count, stored, errors = 0, 0, []
for batch in source.fetch(None_(), Budget()):
    count += len(batch.records)
    stored += batch.bytes_read
    errors += [record.error for record in batch.records if record.error]
grown = peak() - before
print(json.dumps({"grown": grown, "count": count, "stored": stored, "errors": errors}))
"""


def measure(path):
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(path)], capture_output=True, check=True, text=True)
    return json.loads(done.stdout)


def test_gzip_bomb_of_one_gib_stops_early(tmp_path):
    # One block of 16 MiB of zeros, flushed so that it can be repeated; the checksum is never reached.
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(bytes(16 * MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    assert len(zlib.decompress(block + b"\x03\x00", wbits=-15)) == 16 * MIB
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(b"")[:10] + block * 64 + b"\x03\x00" + bytes(8))
    size = (tmp_path / "bomb.gz").stat().st_size
    assert size < 1.1 * MIB
    result = measure(tmp_path)
    assert result["errors"] == ["bomb_ratio"]
    assert result["stored"] < size / 2
    assert result["grown"] < 8 * MIB


def test_gzip_bomb_inside_a_text(tmp_path):
    packer = zlib.compressobj(9, wbits=31)
    data = packer.compress(line(1) + b'\n{"a":"')
    for _ in range(5):
        data += packer.compress(b"x" * (16 * MIB))
    (tmp_path / "bomb.gz").write_bytes(data + packer.flush())
    result = measure(tmp_path)
    assert (result["count"], result["errors"]) == (2, ["bomb_ratio"])
    assert result["grown"] < 80 * MIB  # a few times the record cap: the text is held until it is over the cap


def test_zstd_bomb(tmp_path):
    (tmp_path / "bomb.zst").write_bytes(zstandard.ZstdCompressor().compress(b"\n" * (512 * MIB)))
    result = measure(tmp_path)
    assert result["errors"] == ["bomb_ratio"]
    assert result["grown"] < 80 * MIB


@pytest.mark.parametrize("layout", ["lines", "envelope", "array"])
def test_300_mb_in_constant_memory(tmp_path, layout):
    head, between, tail = {
        "lines": (b"", b"\n", b"\n"),
        "envelope": (b'{"Records":[', b",", b"]}"),
        "array": (b"[\n  ", b",\n  ", b"\n]"),
    }[layout]
    record = line(1, 1_280)
    block = (record + between) * 1_000
    with (tmp_path / "large").open("wb") as file:
        file.write(head)
        for _ in range(230):
            file.write(block)
        file.write(record + tail)
    assert (tmp_path / "large").stat().st_size > 295_000_000
    result = measure(tmp_path)
    assert (result["count"], result["errors"]) == (230_001, [])
    assert result["grown"] < 24 * MIB


def test_one_huge_line_in_bounded_memory(tmp_path):
    with (tmp_path / "large").open("wb") as file:
        file.write(line(1) + b'\n{"a":"')
        for _ in range(100):
            file.write(b"x" * MIB)
        file.write(b'"}\n' + line(2) + b"\n")
    result = measure(tmp_path)
    assert (result["count"], result["errors"]) == (3, ["record_too_large"])
    assert result["grown"] < 80 * MIB
