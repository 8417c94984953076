"""Field maps: mistakes are named with what was meant, and `aitrail map` shows what a map finds."""

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from aitrail.errors import ConfigError
from aitrail.normalize.field_map import kinds, make_map
from aitrail.normalize.generic_access import normalize, value_at
from aitrail.normalize.outcome import Context, Normalized
from aitrail.runtime.cli import cli

TIME = 'timestamp = "time"\n'


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("[fields]\n" + TIME + 'usr_id = "u"', "fields.usr_id", "did you mean 'user_id'"),
        ("[fields]\n" + TIME + 'risk_score = "u"', "fields.risk_score", "filled by aitrail itself"),
        ('[fields]\nuser_id = "u"', "fields", "timestamp is missing"),
        ("[field]\n" + TIME, "map.toml", "did you mean 'fields'"),
        ("[fields]\ntimestamp = 7", "fields.timestamp", "a path must be a text"),
        ("[fields]\n" + TIME + "user_id = []\nmodel = [3]", "fields.model", "a path must be a text"),
        ('[fields]\ntimestamp = { path = "t", unit = "sec" }', "fields.timestamp", "known: s, ms"),
        ("[fields]\n" + TIME + 'model = { path = "m", unit = "s" }', "fields.model", "has no unit"),
        ("[fields]\n" + TIME + 'model = { path = "m", value = "x" }', "fields.model", "either a path or a value"),
        ("[fields]\n" + TIME + 'model = { paht = "m" }', "fields.model", "did you mean 'path'"),
        (
            "[fields]\n" + TIME + 'action_kind = { value = "inferenc" }',
            "fields.action_kind",
            "did you mean 'inference'",
        ),
        ("[fields]\n" + TIME + '[outcomes]\nok = "sucess"', "outcomes.ok", "did you mean 'success'"),
        ("[fields]\n" + TIME + '[content]\nreqest = "r"', "content.reqest", "did you mean 'request'"),
        ("[fields]\n" + TIME + '[only]\npath = "p"', "only", "starts_with"),
        ("fields = 3", "fields", "must be a table"),
    ],
)
def test_mistakes(text: str, place: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_map(tomllib.loads(text), "map.toml")
    assert place in str(caught.value)
    assert words in f"{caught.value} {caught.value.hint}"


def test_every_mappable_field_takes_a_value_of_its_kind() -> None:
    good = {"text": "X", "lower": "X", "count": 200, "number": 1.5, "flag": True, "ip": "203.0.113.9", "list": ["A"]}
    for name, (kind, choices) in kinds().items():
        if name == "timestamp":
            continue
        value = min(choices) if choices else good[kind]
        table = tomllib.loads(f'[fields]\n{TIME}{name} = "x"')
        raw = json.dumps({"time": "2026-11-23T09:14:05Z", "x": value}).encode()
        (outcome,) = normalize(raw, Context(field_map=make_map(table, "map.toml")))
        assert isinstance(outcome, Normalized), name
        assert "value_unmapped" not in outcome.event.flags, name
        assert getattr(outcome.event, name) not in ("", None, ()), name


def test_paths() -> None:
    record = {"a": {"b": [{"c": 1}, {"c": 2}]}, "a.b": 3, "x.y": {"z": 4}, "n": None}
    assert value_at(record, "a.b") == 3  # the key that is written so goes first
    assert value_at(record, "a.b.1.c") == 2
    assert value_at(record, "x.y.z") == 4
    for path in ("a.b.7.c", "n.x", "nothing", "a.b.-1", "", "."):
        assert value_at(record, path) is None


def run(tmp_path: Path, mapping: str, lines: list[str], *options: str) -> Result:
    (tmp_path / "map.toml").write_text(mapping)
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + "\n")
    arguments = ["map", str(tmp_path / "log.jsonl"), "--map", str(tmp_path / "map.toml"), *options]
    return CliRunner().invoke(cli, arguments, standalone_mode=False, env={"COLUMNS": "200"})


GOOD = '[fields]\ntimestamp = "time"\nuser_id = "who"\ndepartment = "dept"\nhttp_status = "status"\n'
LINE = json.dumps({"time": "2026-11-23T09:14:05Z", "who": "Ines.Moreau", "status": 200})


def test_map_shows_an_example_and_what_stays_empty(tmp_path: Path) -> None:
    result = run(tmp_path, GOOD, [LINE, LINE, '{"time": "never"}', "no json"])
    assert "4 records looked at, 2 mapped" in result.output
    assert "ines.moreau  <- who" in result.output
    assert "time_invalid (at time)" in result.output
    assert "mapped, but empty in all 2: department" in result.output
    assert "not mapped: " in result.output
    assert result.return_value == 0


def test_map_says_when_nothing_fits(tmp_path: Path) -> None:
    result = run(tmp_path, GOOD.replace('"time"', '"when"'), [LINE])
    assert "nothing was mapped" in result.output
    assert result.return_value == 1


def test_map_prints_events(tmp_path: Path) -> None:
    result = run(tmp_path, GOOD, [LINE], "--json")
    assert json.loads(result.output)["user_id"] == "ines.moreau"


def test_map_lists_the_fields() -> None:
    result = CliRunner().invoke(cli, ["map", "--fields"], standalone_mode=False)
    assert "user_id " in result.output
    assert "admin, auth, data, guardrail, inference, weights" in result.output


def test_map_shows_nothing_that_a_terminal_obeys(tmp_path: Path) -> None:
    line = json.dumps({"time": "2026-11-23T09:14:05Z", "who": "\x1b[31mred\x1b[0m \u202etxt", "status": 200})
    result = run(tmp_path, GOOD, [line])
    assert "\x1b[31m" not in result.output
    assert "\u202e" not in result.output


def aitrail(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments), standalone_mode=False, env={"COLUMNS": "200"})


def test_collect_reads_logs_of_no_known_type_by_a_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("map.toml").write_text('[fields]\ntimestamp = { path = "time", unit = "s" }\nuser_id = "user"\n')
    Path("access.jsonl").write_text('{"time": 1763632800, "user": "ines.moreau"}\n')
    arguments = ["collect", "access.jsonl", "--json"]
    looked = aitrail(*arguments, "--map", "map.toml", "--dry-run")
    assert (json.loads(looked.stdout)["new"], Path("aitrail-store").exists()) == (1, False)
    assert json.loads(aitrail(*arguments, "--map", "map.toml").stdout)["new"] == 1
    assert "ines.moreau" in aitrail("query", "SELECT user_id FROM events", "--format", "csv").stdout
    for wrong in (["--type", "generic_access"], ["--type", "kong", "--map", "map.toml"]):
        with pytest.raises(ConfigError, match="these need one"):
            raise aitrail(*arguments, *wrong).exception


def test_check_reads_the_maps_and_knows_the_rules(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    source = '[sources.web]\npaths = ["logs"]\nrecord_type = "generic_access"\nmap = "map.toml"\n'
    (tmp_path / "aitrail.toml").write_text(source + '[detect]\nwithout = ["bedrock_region_swep"]\n')
    found = aitrail("check", "-c", str(tmp_path / "aitrail.toml"))
    assert found.return_value == 2
    assert "map.toml: no such file" in found.output
    assert (
        ":6: detect.without: there is no rule 'bedrock_region_swep' (did you mean 'bedrock_region_sweep'?)"
        in found.output
    )
