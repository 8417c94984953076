"""``aitrail schema``: every format comes out, on screen and in a file."""

import io
import json

import pytest
from cli_support import run, safe

from aitrail.errors import ConfigError
from aitrail.event import FIELD_NAMES
from aitrail.schema.views import FORMATS


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "table"])
def test_formats(name, tmp_path) -> None:
    text = run("schema", "--format", name).output
    safe(text)
    out = tmp_path / "schema.out"
    assert run("schema", "--format", name, "--out", out).exception is None
    assert out.read_text(encoding="utf-8") == text == FORMATS[name]()
    if text.startswith("{"):
        json.loads(text)


@pytest.mark.parametrize("width", [80, 140])
def test_table(width) -> None:
    text = run("schema", width=width).output
    safe(text)
    assert max(map(len, text.splitlines())) <= width
    assert all(name in text for name in FIELD_NAMES)


def test_default_is_the_table(tmp_path) -> None:
    out = tmp_path / "table.txt"
    run("schema", "--out", out)
    assert out.read_text(encoding="utf-8") == run("schema").output


def test_unknown_format_and_bad_file(tmp_path) -> None:
    assert "Invalid value" in str(run("schema", "--format", "nope").exception.format_message())
    result = run("schema", "--format", "json", "--out", tmp_path / "no" / "x")
    assert isinstance(result.exception, ConfigError)
    assert io is not None


def test_help_teaches() -> None:
    text = run("schema", "--help").output
    assert text.count("aitrail schema") >= 4
    assert all(name in text for name in FORMATS)
