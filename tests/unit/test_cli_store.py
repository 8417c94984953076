"""``aitrail store``: stats, compact, retain, migrate."""

import json
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cli_support import dead_letter, event, make_store, run

from aitrail.clock import SystemClock
from aitrail.errors import AitrailError, ConfigError, StoreError
from aitrail.runtime.cli.store_cmd import size
from aitrail.store.database import Database


def _day(ago: int) -> str:
    return f"{datetime.now(UTC) - timedelta(days=ago):%Y-%m-%dT12:00:00}.000Z"


@pytest.fixture
def store(tmp_path) -> Path:
    directory = tmp_path / "store"
    for number in range(3):  # three runs: three segments of one day
        make_store(directory, [event(number, timestamp=_day(1))], [dead_letter(number)])
    return make_store(directory, [event(9, timestamp=_day(100))])


def _count(store: Path) -> int:
    return int(
        json.loads(run("query", "SELECT count(*) AS n FROM events", "--format", "json", store=store).output)[0]["n"]
    )


def test_stats(store) -> None:
    text = run("store", "stats", store=store).output
    assert "4 in 2 days" in text
    assert "4 files" in text
    assert "3 open, 0 settled" in text
    found = json.loads(run("store", "stats", "--format", "json", store=store).output)
    assert found["events"] == 4
    assert found["dead_letters_open"] == 3


def test_check(store) -> None:
    result = run("store", "check", store=store)
    assert result.output == "4 segments known, 0 missing or cut\n"
    assert not result.return_value
    first, second, *_ = sorted(store.rglob("*.parquet"))
    first.unlink()
    second.chmod(0o600)
    second.write_bytes(second.read_bytes()[:-10])
    result = run("store", "check", store=store)
    assert f"missing: {first}" in result.output
    assert f"cut: {second}" in result.output
    assert result.return_value == 1
    report = run("report", store=store)
    assert isinstance(report.exception, AitrailError)
    assert report.exception.hint


def test_compact(store) -> None:
    text = run("store", "compact", store=store).output
    assert "3 segments of 1 day became 1" in text
    assert _count(store) == 4
    assert run("store", "compact", store=store).output == "nothing to merge\n"


def test_retain(store) -> None:
    text = run("store", "retain", "--older-than", "90d", "--yes", store=store).output
    assert "dropped 1 events of 1" in text
    assert _count(store) == 3
    assert "nothing to drop" in run("store", "retain", "--older-than", "90d", "--yes", store=store).output


def test_retain_asks(store) -> None:
    result = run("store", "retain", "--older-than", "90d", store=store, input="n\n")
    assert result.exception is not None
    assert _count(store) == 4
    assert run("store", "retain", "--older-than", "13w", store=store, input="y\n").exception is None
    assert _count(store) == 3


@pytest.mark.parametrize("span", ["12h", "0d", "soon"])
def test_retain_wants_days(store, span) -> None:
    result = run("store", "retain", "--older-than", span, "--yes", store=store)
    assert isinstance(result.exception, ConfigError)
    assert _count(store) == 4


def test_migrate(store) -> None:
    assert "schema version" in run("store", "migrate", store=store).output


def test_a_newer_store_is_refused_with_a_hint(store) -> None:
    with sqlite3.connect(store / "aitrail.db") as db:
        db.execute("INSERT INTO schema_version VALUES (999, '99.0', 0)")
    db.close()
    for command in (["report"], ["query", "SELECT 1"], ["store", "stats"], ["store", "migrate"]):
        result = run(*command, store=store)
        assert isinstance(result.exception, StoreError), command
        assert "999" in str(result.exception)
        assert result.exception.hint


def test_writers_wait_for_each_other_and_readers_do_not(store) -> None:
    with Database.open(store, SystemClock()):
        assert _count(store) == 4
        assert run("store", "stats", store=store).exception is None
        assert run("report", store=store).exception is None
        result = run("store", "compact", store=store)
        assert isinstance(result.exception, StoreError)
        assert "written by" in str(result.exception)


@pytest.mark.parametrize(
    "command", [["stats"], ["check"], ["compact"], ["retain", "--older-than", "9d", "--yes"], ["migrate"]]
)
def test_no_store(tmp_path, command) -> None:
    result = run("store", *command, store=tmp_path / "none")
    assert isinstance(result.exception, AitrailError)
    assert result.exception.hint
    assert not (tmp_path / "none").exists()


def test_size() -> None:
    assert [size(count) for count in (0, 999, 1500, 2_000_000, 3_100_000_000, 5_000_000_000_000)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "2.0 MB",
        "3.1 GB",
        "5.0 TB",
    ]
