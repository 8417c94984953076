"""``aitrail deadletter``: list, show, replay; places and reasons, no content."""

import csv
import gzip
import io
import json
import subprocess
from pathlib import Path

import pytest
from cli_support import PAYLOAD, dead_letter, make_store, run, safe

from aitrail.errors import ConfigError
from aitrail.pipeline import Totals
from aitrail.runtime import collect


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("dead")
    broken = b'{"good": 1}\n{"bad": \x1b[31m secret-canary\n'
    (directory / "plain.jsonl").write_bytes(broken)
    (directory / "packed file.jsonl.gz").write_bytes(gzip.compress(broken))
    letters = [dead_letter(number) for number in range(3)]
    letters += [
        dead_letter(5, code="type_unknown", record_type="", origin=f"/nowhere/{PAYLOAD}"),
        dead_letter(6, origin=str(directory / "plain.jsonl"), position=12, end=42, source="trail"),
        dead_letter(7, origin=str(directory / "packed file.jsonl.gz"), position=12, end=42),
        dead_letter(8, code="field_missing", field="userIdentity.type"),
    ]
    return make_store(directory / "store", [], letters)


def _ids(store: Path) -> dict[int, str]:
    rows = json.loads(run("deadletter", "list", "--format", "json", store=store).output)
    return {round(row["position"]): row["id"] for row in rows}


def test_list(store) -> None:
    text = run("deadletter", "list", store=store).output
    safe(text)
    assert "7 shown, 7 open" in text
    assert "json_invalid: not valid JSON" in text
    lines = [line for line in text.splitlines() if "json_invalid  " in line]
    assert len(lines) == 5


def test_list_narrow(store) -> None:
    text = run("deadletter", "list", store=store, width=80).output
    assert max(map(len, text.splitlines())) <= 88  # the last lines are prose, which a terminal wraps itself


@pytest.mark.parametrize(
    ("arguments", "count"),
    [(["--code", "type_unknown"], 1), (["--source", "trail"], 1), (["--limit", "2"], 2), ([], 7)],
)
def test_list_selects(store, arguments, count) -> None:
    assert len(json.loads(run("deadletter", "list", "--format", "json", *arguments, store=store).output)) == count


def test_list_csv_is_harmless(store) -> None:
    text = run("deadletter", "list", "--format", "csv", store=store).output
    safe(text)
    assert len(list(csv.DictReader(io.StringIO(text)))) == 7


def test_list_of_nothing(store, tmp_path) -> None:
    assert run("deadletter", "list", store=make_store(tmp_path / "s")).output == "no dead letters\n"
    assert "of that kind" in run("deadletter", "list", "--code", "nope", store=store).output


def test_show(store) -> None:
    text = run("deadletter", "show", _ids(store)[80][:8], store=store).output
    assert "field_missing: a field without which" in text
    assert "userIdentity.type" in text
    assert "80 to 89 in the decompressed text" in text
    assert "aitrail deadletter replay" in text


def test_show_json(store) -> None:
    found = json.loads(run("deadletter", "show", _ids(store)[0], "--format", "json", store=store).output)
    assert found["code"] == "json_invalid"
    assert found["meaning"] == "not valid JSON"
    assert "raw" not in found


def test_show_gives_a_command_that_prints_the_record(store) -> None:
    rows = json.loads(run("deadletter", "list", "--format", "json", store=store).output)
    looked = 0
    for row in rows:
        if row["position"] != 12:
            continue
        text = run("deadletter", "show", row["id"], store=store, width=400).output
        safe(text)
        assert "secret-canary" not in text  # the place is shown, never the content
        command = next(line for line in text.splitlines() if line.startswith("look at it")).removeprefix("look at it")
        shown = subprocess.run(["sh", "-c", command.strip()], capture_output=True, check=True).stdout
        assert shown == b'{"bad": ^[[31m secret-canary\n'[: len(shown)]
        assert b"secret-canary" in shown
        looked += 1
    assert looked == 2


@pytest.mark.parametrize("ident", ["zz", "ffffffffffffffffffffffff", "", "%", "' OR 1=1"])
def test_show_wrong_id(store, ident) -> None:
    result = run("deadletter", "show", ident, store=store)
    assert isinstance(result.exception, ConfigError)
    assert "deadletter list" in result.exception.hint


@pytest.mark.parametrize("arguments", [[], ["abcd1234", "--all"], ["abcd1234", "--code", "x"]])
def test_replay_wants_one_choice(store, arguments) -> None:
    result = run("deadletter", "replay", *arguments, store=store)
    assert isinstance(result.exception, ConfigError)
    assert "--all" in result.exception.hint


def test_replay_hands_the_ids_on_and_says_what_happened(store, monkeypatch) -> None:
    asked: list[tuple[Path, list[str]]] = []

    def replay(directory: Path, ids: list[str], config: object) -> Totals:
        assert config is None
        asked.append((directory, ids))
        totals = Totals(new=len(ids) - 1)
        totals.rejected["json_invalid"] += 1
        return totals

    monkeypatch.setattr(collect, "replay", replay)
    ids = _ids(store)
    result = run("deadletter", "replay", ids[0][:10], ids[80][:10], store=store)
    assert asked == [(store, [ids[0], ids[80]])]
    assert "2 read again: 1 new events, 0 already known, 1 still dead" in result.output
    assert "1 json_invalid: not valid JSON" in result.output
    assert result.return_value == 1
    asked.clear()
    run("deadletter", "replay", "--code", "type_unknown", store=store)
    assert asked == [(store, [ids[50]])]
    asked.clear()
    assert "no dead letters of that kind" in run("deadletter", "replay", "--code", "nope", store=store).output
    assert not asked
