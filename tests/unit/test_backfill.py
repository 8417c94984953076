"""Reading a stretch of the past: its own cursors, resumable, beside the live one."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cli_support import run
from test_daemon import Script, trail

from aitrail.config import Config, SourceConfig, StoreConfig, load
from aitrail.errors import ConfigError, TransientError
from aitrail.ports import Cursors, RawBatch, Source
from aitrail.runtime import assemble, daemon
from aitrail.runtime import backfill as filling
from aitrail.runtime.backfill import Range, backfill, parse_range
from aitrail.runtime.signals import Stop
from aitrail.spool import Spool

NOW = 1_795_420_800.0  # 2026-11-23T08:00:00Z


def day(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("2026-11-01", "2026-11-02", (day("2026-11-01"), day("2026-11-02"))),
        ("2026-11-01T08:00:00Z", "2026-11-01T08:00:01Z", (day("2026-11-01T08:00:00"), day("2026-11-01T08:00:01"))),
        ("2026-11-01T08:00:00+02:00", "2026-11-02", (day("2026-11-01T06:00:00"), day("2026-11-02"))),
        ("2026-11-01", "", (day("2026-11-01"), NOW)),
        ("2026-11-01", "2027-01-01", (day("2026-11-01"), NOW)),
    ],
)
def test_ranges(start: str, end: str, expected: tuple[float, float]) -> None:
    span = parse_range(start, end, NOW)
    assert (span.start, span.end) == expected


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        ("yesterday", "", "--from: 'yesterday' is no date"),
        ("2026-11-01", "2026-13-01", "--to: '2026-13-01' is no date"),
        ("2026-11-02", "2026-11-01", "the range is empty"),
        ("2026-11-01", "2026-11-01", "the range is empty"),
        ("2027-01-01", "", "the range is empty"),
        ("\x1b[31m" + "x" * 100, "", "is no date"),
    ],
)
def test_what_is_no_range(start: str, end: str, said: str) -> None:
    with pytest.raises(ConfigError, match="(?s)" + said.replace("[", r"\[")) as caught:
        parse_range(start, end, NOW)
    assert "\x1b" not in str(caught.value)


class Past(Script):
    """A source with a past of ten objects, one an hour, cursors by object."""

    def __init__(self, name: str = "s") -> None:
        super().__init__(name, live)
        self.asked: list[tuple[float, float]] = []
        self.fail_at = 99

    def ranged(self, start: float, end: float) -> Source:
        self.asked.append((start, end))
        return Script(self.name, self.past)

    def past(self, source: Script, cursors: Cursors) -> Iterator[RawBatch]:
        for number in range(int(cursors.get("k") or b"0") + 1, 11):
            if number == self.fail_at:
                raise TransientError("503")
            yield source.one(number)


def live(source: Script, cursors: Cursors) -> Iterator[RawBatch]:
    """What the live cursor sees: objects 9 and 10."""
    for number in range(max(int(cursors.get("k") or b"0"), 8) + 1, 11):
        yield source.one(number)


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Past:
    made = Past()
    monkeypatch.setattr(assemble, "make_source", lambda *_: made)
    return made


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(store=StoreConfig(dir=str(tmp_path / "store"), compact=False), sources={"s": SourceConfig()})


SPAN = Range(day("2026-11-01"), day("2026-11-02"))


def cursor(config: Config, namespace: str) -> bytes | None:
    with Spool.open(Path(config.store.dir), assemble.SystemClock(), write=False) as spool:
        return spool.cursors(namespace).get("k")


def test_the_live_cursor_stays_and_what_is_known_is_dropped(config: Config, source: Past) -> None:
    assert daemon.run(config, Stop(), once=True).new == 2
    steps: list[int] = []
    result = backfill(config, "s", SPAN, Stop(), step=lambda totals: steps.append(totals.records))
    assert (result.done, result.totals.new, result.totals.duplicates) == (True, 8, 2)
    assert source.asked == [(SPAN.start, SPAN.end)]
    assert steps[-1] == 10
    assert cursor(config, "s") == b"10"
    assert cursor(config, "s@2026-11-01T00:00:00.000Z..2026-11-02T00:00:00.000Z") == b"10"
    assert backfill(config, "s", SPAN, Stop()).totals.records == 0
    assert backfill(config, "s", Range(SPAN.start, SPAN.end + 1), Stop()).totals.duplicates == 10, "another range"


def test_a_failed_or_stopped_backfill_goes_on_where_it_was(
    config: Config, source: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    import aitrail.pipeline as flow

    monkeypatch.setattr(flow, "COMMIT_EVENTS", 2)
    source.fail_at = 6
    with pytest.raises(TransientError, match="503"):
        backfill(config, "s", SPAN, Stop())
    source.fail_at = 99
    stop = Stop()

    def step(totals: object) -> None:
        stop.request()

    stopped = backfill(config, "s", SPAN, stop, step=step)
    assert not stopped.done
    assert 1 <= stopped.totals.new < 6
    rest = backfill(config, "s", SPAN, Stop())
    assert rest.done
    assert 1 <= rest.totals.new < 6
    with Spool.open(Path(config.store.dir), assemble.SystemClock(), write=False) as spool:
        assert spool.counters()["s"]["events"] == 10


def test_a_source_without_a_past_says_so(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assemble, "make_source", lambda *_: Script("s", live))
    with pytest.raises(ConfigError, match="source s: a source of type file cannot read a range"):
        backfill(config, "s", SPAN, Stop())


def test_a_backfill_beside_a_collector_is_turned_away(config: Config, source: Past) -> None:
    from aitrail.errors import StoreError

    with assemble.open_runtime(config), pytest.raises(StoreError, match="is being written by pid"):
        backfill(config, "s", SPAN, Stop())


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    for number, when in enumerate(("2026-10-01", "2026-11-01", "2026-11-10")):
        path = tmp_path / "logs" / f"{number}.jsonl"
        path.write_bytes(trail("f", number) + b"\n")
        os.utime(path, (day(when), day(when)))
    path = tmp_path / "aitrail.toml"
    path.write_text('[store]\ndir = "store"\ncompact = false\n[sources.logs]\npaths = ["logs"]\n')
    return path


def test_files_that_changed_since_then_are_read(files: Path) -> None:
    result = run("backfill", "logs", "--from", "2026-10-15", "--to", "2026-11-05", "-c", files)
    assert "2 new events from 2 records in 2 files" in result.output
    result = run("backfill", "logs", "--from", "2026-10-15", "--to", "2026-11-05", "-c", files)
    assert "nothing new to read" in result.output
    assert daemon.run(load(files), Stop(), once=True).new == 1, "the live cursor is where it was"


def test_a_dry_run_writes_nothing(files: Path) -> None:
    result = run("backfill", "logs", "--from", "2026-10-15", "-c", files, "--dry-run")
    assert "dry run: nothing was written" in result.output
    assert "2  cloudtrail" in result.output
    assert not (files.parent / "store").exists()


def test_an_unknown_source_is_named_with_those_that_are_there(files: Path) -> None:
    error = run("backfill", "log", "--from", "2026-10-15", "-c", files).exception
    assert "there is no source 'log'" in str(error)
    assert getattr(error, "hint", "") == "it has: logs"


def test_ctrl_c_in_a_backfill_is_an_interruption(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from aitrail.runtime.cli import backfill as command

    def stopped(*args: object, **more: object) -> filling.Backfilled:
        from aitrail.pipeline import Totals

        return filling.Backfilled(Totals(), done=False, notes=[])

    monkeypatch.setattr(command, "backfill_range", stopped)
    result = run("backfill", "logs", "--from", "2026-10-15", "-c", files)
    assert result.exit_code == 1
    assert type(result.exception).__name__ in ("Abort", "SystemExit")
