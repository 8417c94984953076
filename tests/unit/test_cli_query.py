"""``aitrail query``: reads, refuses everything else, and prints harmlessly."""

import csv
import io
import json
from pathlib import Path

import pytest
from cli_support import PAYLOAD, make_store, run, safe, some_events

from aitrail.errors import ConfigError


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return make_store(tmp_path_factory.mktemp("query") / "store", some_events())


def test_table(store) -> None:
    text = run(
        "query", "SELECT user_id, count(*) AS n FROM events GROUP BY ALL ORDER BY n DESC LIMIT 1", store=store
    ).output
    assert text.splitlines()[0].split() == ["user_id", "n"]
    assert "ines.moreau  7" in text
    assert text.endswith("1 row\n")


def test_json_keeps_types(store) -> None:
    sql = "SELECT timestamp, owasp, mfa, cost_usd, prompt_text FROM events WHERE risk_score = 80"
    (row,) = json.loads(run("query", sql, "--format", "json", store=store).output)
    assert row["timestamp"] == "2026-11-23T13:20:05.120Z"
    assert row["owasp"] == ["llm01:2025", "llm08:2026"]
    assert row["mfa"] is None
    assert row["cost_usd"] == 0.5
    assert row["prompt_text"].startswith("Hello.")


def test_csv_and_out(store, tmp_path) -> None:
    out = tmp_path / "rows.csv"
    run(
        "query",
        "SELECT user_id, risk_score FROM events ORDER BY risk_score",
        "--format",
        "csv",
        "--out",
        out,
        store=store,
    )
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert len(rows) == 12
    assert rows[5]["risk_score"] == "99"
    assert rows[5]["user_id"].startswith("'=cmd|")


@pytest.mark.parametrize("kind", ["table", "json", "csv"])
def test_output_is_harmless(store, kind) -> None:
    sql = 'SELECT user_id, leakage_types, prompt_text AS "=a\x1b[31m\u202e" FROM events WHERE risk_score = 99'
    text = run("query", sql, "--format", kind, store=store).output
    safe(text)
    if kind == "json":
        assert json.loads(text)[0]["user_id"] == PAYLOAD


def test_standard_input_and_limit(store) -> None:
    result = run("query", "-", "--limit", "3", "--format", "json", store=store, input="FROM events")
    assert len(json.loads(result.output)) == 3


@pytest.mark.parametrize(
    "sql",
    [
        "DROP VIEW events",
        "CREATE TABLE x (a INT)",
        "INSERT INTO dead_letters SELECT * FROM dead_letters",
        "COPY events TO 'out.csv'",
        "ATTACH 'x.db'",
        "INSTALL httpfs",
        "SET memory_limit = '1TB'",
        "SELECT 1; SELECT 2",
        "",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM nope",
        "SELECT nope FROM events",
        "SELEC 1",
    ],
)
def test_refusals_name_the_reason(store, sql, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("query", sql, store=store)
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception).startswith("query: ")
    assert "\n" not in str(result.exception)
    assert result.exception.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_error_messages_do_not_carry_escapes(store) -> None:
    result = run("query", 'SELECT "\x1b[31m\u202e" FROM events', store=store)
    assert isinstance(result.exception, ConfigError)
    safe(str(result.exception))


def test_read_only_leaves_the_store_alone(store) -> None:
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*.parquet")}
    run("query", "SELECT count(*) FROM events", store=store)
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*.parquet")} == before
