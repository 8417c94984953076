"""Every configuration error names the file, the line, the field and the fix."""

from pathlib import Path

import pytest

from aitrail.config import load
from aitrail.errors import ConfigError
from aitrail.runtime.cli.init import TEMPLATE
from aitrail.runtime.cli.options import load_config

CASES = {
    "unknown field": ('[sources.trail]\npathz = ["a"]\n', ":2: sources.trail.pathz", "did you mean 'paths'?"),
    "unknown common field": ('[sources.trail]\npaths = ["a"]\ntenent = "x"\n', ":3: sources.trail.tenent", "'tenant'"),
    "wrong type": ('[sources.trail]\npaths = "a"\n', ":2: sources.trail.paths", ""),
    "wrong element": ("[sources.trail]\npaths = [1]\n", ":2: sources.trail.paths", ""),
    "unknown section": ("[stor]\ndir = 'x'\n", ":1: stor", "did you mean 'store'?"),
    "unknown mode": ('[tenants.acme]\ncontent = "foo"\n', ":2: tenants.acme.content", "one of: none, hash, redacted"),
    "literal secret": ('[tenants.acme]\nkey = "hunter2-literal"\n', ":2: tenants.acme.key", ""),
    "out of range": ("[store]\nretention_days = -1\n", ":2: store.retention_days", ""),
    "bad name": ('[sources."A b"]\npaths = []\n', "sources.A b", "lower-case letters"),
    "not toml": ("x =", "aitrail.toml", ""),
}


@pytest.mark.parametrize("case", CASES)
def test_error_names_file_line_field_and_fix(case: str, tmp_path: Path) -> None:
    text, where, hint = CASES[case]
    path = tmp_path / "aitrail.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert where in str(caught.value)
    assert hint in caught.value.hint
    assert "hunter2" not in str(caught.value) + caught.value.hint


def test_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "nope.toml")
    assert "aitrail init" in caught.value.hint


def test_template_is_valid_and_gives_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "aitrail.toml"
    path.write_text(TEMPLATE)
    config = load(path)
    assert config.sources["logs"].options["paths"] == ["logs/"]
    assert config.tenant("default").content == "redacted"
    assert config.resolve("x") == tmp_path / "x"


def test_every_commented_setting_of_the_template_is_known(tmp_path: Path) -> None:
    """Uncommenting the template's examples must not give an error."""
    lines = [
        line[2:] if line.startswith("# ") and ("=" in line or line.startswith("# [")) else line
        for line in TEMPLATE.splitlines()
        if not line.startswith("# Where") and "->" not in line
    ]
    path = tmp_path / "aitrail.toml"
    path.write_text("\n".join(line for line in lines if not line.startswith("#") and "Secrets are" not in line))
    config = load(path)
    assert config.directory.file == "people.csv"
    assert config.mapping.ticket == ("ticket",)
    assert config.tenants["default"].key == "env:AITRAIL_KEY"


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("[store", "not valid TOML", "aitrail init -"),
        (
            '[store]\nretention_days = "x"',
            ":2: store.retention_days: expected a whole number, got a text",
            "= 1  # Drop",
        ),
        ("[sources.a]\ninterval = -3", ":2: sources.a.interval: expected a number > 0", "interval = 1.0  # Seconds"),
        ("[store]\ncompact = 1", ":2: store.compact: expected true or false", "compact = true"),
        ('[tenants.default]\nkey = "abc"', ":2: tenants.default.key: a secret must be", 'key = "env:NAME"'),
    ],
)
def test_what_a_setting_takes_is_said(tmp_path: Path, text: str, said: str, hint: str) -> None:
    path = tmp_path / "aitrail.toml"
    path.write_text(text + "\n")
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert said in str(caught.value)
    assert hint in caught.value.hint
