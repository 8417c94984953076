"""Golden files: every fixture of every record type gives exactly the outcomes that are on file.

``tests/fixtures/<record_type>/<case>.json`` is one raw record, byte for byte; ``<case>.origin`` beside it, when there,
is the object name it came from, ``<case>.map.toml`` the field map. ``tests/golden/<record_type>/<case>.json`` is what
the normalizer must give.
Run ``pytest tests/test_golden.py --update-golden`` after a deliberate change and read the diff.
"""

import tomllib
from pathlib import Path

import msgspec
import pytest

from aitrail.normalize.field_map import make_map
from aitrail.normalize.outcome import Context
from aitrail.normalize.registry import NORMALIZERS

HERE = Path(__file__).parent
CASES = sorted((HERE / "fixtures").glob("*/*.json"))


@pytest.mark.parametrize("path", CASES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_golden(path: Path, request: pytest.FixtureRequest) -> None:
    origin_file = path.with_suffix(".origin")
    origin = origin_file.read_text().strip() if origin_file.exists() else ""
    map_file = path.with_suffix(".map.toml")
    mapped = make_map(tomllib.loads(map_file.read_text()), map_file.name) if map_file.exists() else None
    context = Context(tenant_id="acme", origin=origin, field_map=mapped)
    outcomes = NORMALIZERS[path.parent.name](path.read_bytes(), context)
    found = [{"outcome": type(item).__name__, **msgspec.to_builtins(item)} for item in outcomes]
    golden = HERE / "golden" / path.parent.name / path.name
    if request.config.getoption("--update-golden"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    assert golden.exists(), f"no golden file {golden}: run with --update-golden and read it"
    # through JSON, in which a tuple and a list are the same
    assert msgspec.json.decode(msgspec.json.encode(found)) == msgspec.json.decode(golden.read_bytes())
