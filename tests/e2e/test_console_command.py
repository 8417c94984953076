"""``aitrail console``, ``aitrail demo --console`` and ``aitrail watch`` as a person starts them."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from console_support import RAW, event, make_store, run, some_events

from aitrail.clock import SystemClock
from aitrail.routing.where import parse_where
from aitrail.runtime.signals import Stop
from aitrail.runtime.watching import Chosen, Tail
from aitrail.store.maintenance import compact
from aitrail.web import console

CONSOLE = Path(console.__file__).parent


@contextmanager
def _started(*arguments: str, stdout: int = subprocess.PIPE) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "COLUMNS": "200"}
    command = [sys.executable, "-m", "aitrail", *arguments]
    with subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()
            process.wait(30)


def test_the_console_says_where_it_is_and_ends_when_told(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", [event(1)])
    with _started("console", "--store", str(store), "--port", "0", "--content", "none") as process:
        assert process.stderr is not None
        told = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:[0-9]+/", told)
        assert found is not None, told
        assert httpx.get(found[0] + "health").json() == {"status": "ok", "events": 1}
        assert "content: none" in httpx.get(found[0] + "events").text
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_the_demo_ends_in_the_console(tmp_path: Path) -> None:
    demo = ("demo", "--dir", str(tmp_path / "demo"), "--events", "600", "--console", "--port", "0")
    with _started(*demo, stdout=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        told = next(line for line in process.stderr if "console of" in line)
        found = re.search(r"http://[0-9.:]+/board/usage\?range=24h", told)
        assert found is not None, told
        assert httpx.get(found[0]).status_code == 200
        assert httpx.get(found[0].replace("board/usage", "api/panel/usage/calls")).json()["rows"][0][0] > 100


def test_without_a_store_it_says_what_to_do(tmp_path: Path) -> None:
    with _started("console", "--store", str(tmp_path), "--port", "0") as process:
        assert "aitrail demo" in process.communicate(timeout=60)[1]
        assert process.returncode == 2


# --- colours


def _themes() -> dict[str, dict[str, str]]:
    text = (CONSOLE / "static" / "console.css").read_text()
    light = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", text[: text.index("@media")]))
    dark = dict(
        re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", text[text.index(':root[data-theme="dark"]') :].split("}")[0])
    )
    system = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", text[text.index("@media") :].split("}")[0]))
    assert dark == system, "the dark that is chosen is the dark of the system"
    assert light.keys() == dark.keys()
    return {"light": light, "dark": dark}


def _luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(
    ("ink", "ground"),
    [
        *[(ink, ground) for ink in ("ink", "soft", "accent") for ground in ("page", "card", "sunk")],
        *[(tone, "card") for tone in ("ok", "warn", "bad")],
        *[(tone, f"{tone}-soft") for tone in ("ok", "warn", "bad", "accent")],
        ("soft", "accent-soft"), ("ink", "accent-soft"), ("accent-ink", "accent"), ("mark-ink", "mark"),
        ("card", "bad"),
    ],
)  # fmt: skip
def test_text_stands_out(theme: str, ink: str, ground: str) -> None:
    """WCAG 2.2, success criterion 1.4.3 (AA): 4.5 to 1."""
    colours = _themes()[theme]
    one, other = sorted((_luminance(colours[ink]), _luminance(colours[ground])))
    assert (other + 0.05) / (one + 0.05) >= 4.5


# --- watch


def test_watch_shows_what_there_is_and_what_comes(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", [event(1)])
    with _started("watch", "--store", str(store), "--interval", "0.1") as process:
        assert process.stdout is not None
        assert "ines.moreau" in process.stdout.readline()
        make_store(store, [event(2, user_id="new.person")])
        assert "new.person" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


def test_watch_prints_no_text_uncleaned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stop, "install", lambda stop: None)  # the signals are pytest's
    store = make_store(tmp_path / "store", some_events())
    for kind in ("line", "json", "table"):
        done = run("watch", "--once", "--tail", "50", "--format", kind, store=store)
        assert done.exception is None
        out = done.output
        assert not [char for char in RAW if char in out], kind
        assert "ines.moreau" in out
        if kind == "json":
            assert {json.loads(line)["stream"] for line in out.splitlines()} == {"access"}
            assert len(out.splitlines()) == len(some_events())


def _tail(store: Path, **chosen: str) -> Tail:
    where = chosen.pop("where", "")
    return Tail(store, SystemClock(), Chosen(**chosen, where=parse_where(where) if where else None), tail=100)


@pytest.mark.parametrize(
    ("chosen", "count"),
    [
        ({}, 12),
        ({"user": "Paul.Keller"}, 2),
        ({"department": "investment banking"}, 2),
        ({"model": "claude-sonnet-4"}, 2),
        ({"tenant": "other"}, 0),
        ({"tier": "suspicious"}, 1),
        ({"where": "action_kind = 'weights' or leakage_types startswith 'response:'"}, 2),
        ({"user": "ines.moreau", "where": "outcome_status = 'blocked'"}, 1),
    ],
)
def test_watch_narrows(tmp_path: Path, chosen: dict[str, str], count: int) -> None:
    tail = _tail(make_store(tmp_path / "store", some_events()), **chosen)
    assert len(tail.look().events) == count
    assert tail.look().events == []
    tail.close()


def test_watch_shows_every_event_once_whatever_is_compacted(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", [event(1)])
    tail = _tail(store)
    seen = [one.event_id for one in tail.look().events]
    for number in range(2, 6):
        make_store(store, [event(number)])
        if number % 2:
            compact(store, grace_seconds=0.0)
        news = tail.look()
        assert news.more == 0
        seen += [one.event_id for one in news.events]
    tail.close()
    assert seen == [event(number).event_id for number in range(1, 6)]
