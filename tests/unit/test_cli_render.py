"""What reaches a person is harmless: terminal, JSON and CSV."""

import csv
import io
import json
import sys
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from cli_support import PAYLOAD, RAW, safe
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from aitrail.runtime.cli.render import Column, as_csv, as_json, capped, clean, csv_cell, plural, shown, table


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain é 日本 ✓", "plain é 日本 ✓"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("tag\U000e0041", "tag\\U000e0041"),
        ("half\ud800", "half\\ud800"),
        ("a\nb\rc\td\x00", "a\\nb\\rc\\td\\x00"),
        ("line\u2028sep\u2029", "line\\u2028sep\\u2029"),
        ("non\u00a0breaking", "non\u00a0breaking"),
    ],
)
def test_clean(text, seen) -> None:
    assert clean(text) == seen


def test_clean_keeps_line_feeds_on_request() -> None:
    assert clean("a\nb\x1b\r\n", lines=True) == "a\nb\\x1b\\r\n"


@given(st.text())
def test_clean_leaves_nothing_active(text) -> None:
    cleaned = clean(text)
    assert all(char.isprintable() or char.isspace() for char in cleaned)
    assert not any(char in cleaned for char in (*RAW, "\n", "\r", "\t"))
    assert clean(cleaned) == cleaned


@given(
    st.recursive(
        st.text() | st.integers() | st.none() | st.booleans(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_is_harmless_and_says_the_same(value) -> None:
    text = as_json(value)
    assert not any(char in text for char in RAW)
    assert json.loads(text) == value


def test_json_of_what_sql_can_give() -> None:
    value = {"n": [float("nan"), float("-inf"), Decimal("1.50")], 3: {"d": date(2026, 11, 23)}, "s": {1}, "b": None}
    assert json.loads(as_json(value)) == {"n": [None, None, 1.5], "3": {"d": "2026-11-23"}, "s": [1], "b": None}
    zone = datetime(2026, 11, 23, 1, tzinfo=timezone(timedelta(hours=2)))
    assert json.loads(as_json([zone])) == ["2026-11-22T23:00:00.000Z"]
    assert csv_cell(Decimal("-1.5")) == Decimal("-1.5")
    assert csv_cell(zone) == "2026-11-22T23:00:00.000Z"
    assert shown(Decimal("1234.5"), "plain") == "1234.5"


def test_json_of_payload_and_times() -> None:
    text = as_json([{"a": PAYLOAD, "t": datetime(2026, 11, 23, 9, 14, 5, 120_999), "b": b"xx"}])  # noqa: DTZ001
    safe(text)
    assert json.loads(text) == [{"a": PAYLOAD, "t": "2026-11-23T09:14:05.120Z", "b": "2 bytes"}]


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\uff1d1", "\uff0b1", "\uff0d1", "\uff201"]
)
def test_csv_disarms_formulas(text) -> None:
    cell = csv_cell(text)
    assert cell.startswith("'")
    assert cell[1:] == clean(text)


def test_csv_leaves_numbers_alone() -> None:
    assert csv_cell(-5) == -5
    assert csv_cell(-0.25) == -0.25
    assert csv_cell(None) == ""
    assert csv_cell(True) == "true"
    assert csv_cell(["a", "b"]) == "a, b"
    assert csv_cell(["=a"]) == "'=a"


@given(st.lists(st.lists(st.text() | st.integers() | st.none(), min_size=2, max_size=2)))
def test_csv_reads_back_row_by_row(rows) -> None:
    text = as_csv(["=head", "b"], rows)
    found = list(csv.reader(io.StringIO(text)))
    assert found[0] == ["'=head", "b"]
    assert len(found) == len(rows) + 1
    for line in found:
        assert len(line) == 2
        assert not any(cell.lstrip(" ").startswith(("=", "+", "@", "\t", "\r")) for cell in line)
    assert "\r" not in text


def test_shown() -> None:
    moment = datetime(2026, 11, 23, 9, 14, 5, 120_000, UTC)
    assert shown(moment) == "2026-11-23 09:14:05"
    assert shown(moment, narrow=True) == "11-23 09:14"
    assert shown(1234567, "count") == "1,234,567"
    assert shown(1234567, "plain") == "1234567"
    assert [shown(cost, "usd") for cost in (0, 0.00123, 12.345, 1234.5)] == ["0.00", "0.0012", "12.35", "1,234.50"]
    assert shown("0123456789abcdef", "id") == "0123456789ab"
    assert shown(None) == ""
    assert shown(True) == "yes"
    assert shown(("a\x1b", "b")) == "a\\x1b, b"


def test_small_words() -> None:
    assert plural(1, "day") == "1 day"
    assert plural(1000, "day") == "1,000 days"
    assert capped("abcdef", 4) == "abc…"
    assert capped("abcd", 4) == "abcd"


@pytest.mark.parametrize("color", [False, True])
def test_table_reads_no_markup_and_no_escapes(color) -> None:
    out = io.StringIO()
    screen = Console(file=out, width=100, force_terminal=color, color_system="standard" if color else None)
    screen.print(table([Column("a", "[bold]label[/bold]"), Column("n", "n", "count")], [(PAYLOAD, 5)], 100, {}))
    text = out.getvalue()
    assert "[bold]label[/bold]" in text
    assert "\x1b[31mred" not in text
    assert "\x1b]" not in text
    if not color:
        safe(text)


def test_table_drops_columns_that_need_more_room_and_cuts_long_cells() -> None:
    columns = [Column("a", "first"), Column("b", "second", from_width=100)]
    narrow, wide = (table(columns, [("x" * 500, "y")], width) for width in (80, 100))
    assert [str(column.header) for column in narrow.columns] == ["first"]
    assert [str(column.header) for column in wide.columns] == ["first", "second"]
    out = io.StringIO()
    Console(file=out, width=80).print(narrow)
    assert out.getvalue().count("x") == 119
    assert "…" in out.getvalue()
    assert sys.stdout is not out
