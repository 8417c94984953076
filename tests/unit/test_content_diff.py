"""``aitrail content build`` writes all or nothing; ``diff`` says what a build would change; lists stand in rules."""

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from aitrail.compiler import build
from aitrail.compiler.changes import QUERIES
from aitrail.compiler.load import load
from aitrail.compiler.problems import ContentError
from aitrail.contentdir import content_path
from aitrail.errors import ConfigError
from aitrail.runtime.cli import cli

GUARDRAIL = content_path("detections", "bedrock_guardrail_weakened.yml").read_text(encoding="utf-8")
BURST = content_path("detections", "tokens_burst.yml").read_text(encoding="utf-8")
MODEL = content_path("detections", "unwanted_model_used.yml").read_text(encoding="utf-8")


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    folder = tmp_path / "rules"
    folder.mkdir()
    (tmp_path / "dashboards").mkdir()
    (folder / "guardrail.yml").write_text(GUARDRAIL, encoding="utf-8")
    (folder / "burst.yml").write_text(BURST, encoding="utf-8")
    return folder


def run(command: str, rules: Path, *arguments: str) -> Result:
    beside = {name: str(rules.parent / name) for name in ("out", "dashboards")}
    given = ["content", command, "--rules", str(rules), *(f"--{name}={path}" for name, path in beside.items())]
    given += arguments
    return CliRunner().invoke(cli, given, standalone_mode=False)


def test_nothing_changed(rules: Path) -> None:
    assert run("build", rules).return_value == 0
    told = run("diff", rules)
    assert (told.return_value, told.output) == (0, "")


def test_what_changed_is_told_per_rule_and_target(rules: Path) -> None:
    run("build", rules)
    changed = GUARDRAIL.replace("      - deleteguardrail\n", "      - deleteguardrail\n      - stopguardrail\n")
    (rules / "guardrail.yml").write_text(changed.replace("level: high", "level: critical"), encoding="utf-8")
    (rules / "burst.yml").unlink()
    (rules / "model.yml").write_text(MODEL, encoding="utf-8")
    told = run("diff", rules)
    assert told.return_value == 1
    heads = [line for line in told.output.splitlines() if not line.startswith(" ")]
    assert heads == [
        "changed bedrock_guardrail_weakened about",
        *(f"changed bedrock_guardrail_weakened {target}" for target in ("duckdb", "esql", "kql", "spl")),
        "removed tokens_burst",
        "added unwanted_model_used",
    ]
    assert '- "severity": "high",' in told.output
    assert '+ "severity": "critical",' in told.output
    assert "stopguardrail" in told.output
    assert run("diff", rules, "--names").output.splitlines() == heads
    assert run("build", rules).return_value == 0
    assert run("diff", rules).return_value == 0


def test_the_schedule_is_part_of_what_changed(rules: Path) -> None:
    run("build", rules)
    (rules / "burst.yml").write_text(BURST.replace("for: 1d", "for: 2d"), encoding="utf-8")
    told = run("diff", rules)
    assert "suppressed 2880m" in told.output


def test_wrong_content_or_no_build(rules: Path) -> None:
    run("build", rules)
    (rules / "guardrail.yml").write_text(GUARDRAIL.replace("action:", "acton:", 1), encoding="utf-8")
    told = run("diff", rules)
    assert told.return_value == 2
    (rules / "guardrail.yml").write_text(GUARDRAIL, encoding="utf-8")
    (rules.parent / "out" / QUERIES).write_text("{", encoding="utf-8")
    assert isinstance(run("diff", rules).exception, ConfigError)


def test_one_wrong_rule_and_nothing_is_written(rules: Path) -> None:
    run("build", rules)
    out = rules.parent / "out"
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (rules / "burst.yml").write_text(BURST.replace("timespan: 1h", "timespan: 2h"), encoding="utf-8")
    (rules / "guardrail.yml").write_text(GUARDRAIL.replace("atlas.aml.t0054", "atlas.aml.t9954"), encoding="utf-8")
    assert run("build", rules).return_value == 1
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_disk_that_fails_leaves_what_was_there(rules: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    build.write(out, {"a.json": b"1", "b.json": b"2"})
    real = Path.write_bytes

    def fails(path: Path, data: bytes) -> int:
        if path.name == ".b.json.new":
            raise OSError(28, "No space left on device")
        return real(path, data)

    monkeypatch.setattr(Path, "write_bytes", fails)
    with pytest.raises(OSError, match="No space"):
        build.write(out, {"a.json": b"3", "b.json": b"4"})
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {"a.json": b"1", "b.json": b"2"}


def test_every_rule_has_a_query_for_every_platform() -> None:
    queries = msgspec.json.decode(content_path("compiled", QUERIES).read_bytes(), type=dict[str, dict[str, object]])
    assert len(queries) >= 100
    for name, made in queries.items():
        assert {"duckdb", "spl", "kql"} < set(made), name
        assert {"esql", "eql"} & set(made), name


# --- lists


def test_lists_beside_a_rule_come_first(tmp_path: Path) -> None:
    (tmp_path / "model.yml").write_text(MODEL, encoding="utf-8")
    assert "abliterated" in build.compiled_rule(load(tmp_path).shipped()[0]).query
    (tmp_path / "watchlists").mkdir()
    (tmp_path / "watchlists" / "unwanted_models.txt").write_text("# ours\nshadow-7b\n\n", encoding="utf-8")
    query = build.compiled_rule(load(tmp_path).shipped()[0]).query
    assert "shadow-7b" in query
    assert "abliterated" not in query


@pytest.mark.parametrize(
    ("list_text", "rule", "reason"),
    [
        ("# nothing yet\n", MODEL, "the list 'unwanted_models' is empty"),
        (None, MODEL.replace("%unwanted_models%", "%no_such%"), "there is no readable list 'no_such'"),
        (None, MODEL.replace("'%unwanted_models%'", "unwanted_models"), "names no list"),
        ("Shadow-7B\n", MODEL, "always lower-case"),
    ],
)
def test_wrong_lists_are_told_with_file_and_line(tmp_path: Path, list_text: str | None, rule: str, reason: str) -> None:
    path = tmp_path / "model.yml"
    path.write_text(rule, encoding="utf-8")
    if list_text is not None:
        (tmp_path / "watchlists").mkdir()
        (tmp_path / "watchlists" / "unwanted_models.txt").write_text(list_text, encoding="utf-8")
    with pytest.raises(ContentError) as told:
        load(tmp_path)
    line = next(number for number, text in enumerate(rule.splitlines(), 1) if "|expand" in text)
    assert f"{path}:{line}: " in str(told.value)
    assert reason in str(told.value)
