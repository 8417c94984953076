"""``[destinations.NAME]``: every known type is importable, and a wrong table names file, line, field and fix."""

import importlib
from pathlib import Path

import pytest

from aitrail.config import Config, load
from aitrail.errors import ConfigError
from aitrail.registry import DESTINATIONS, make_destination
from aitrail.secrets import Secrets


def configured(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "aitrail.toml"
    path.write_text(text)
    return load(path)


@pytest.mark.parametrize("kind", DESTINATIONS)
def test_every_type_has_its_class_and_settings(kind: str) -> None:
    entry = DESTINATIONS[kind]
    assert hasattr(importlib.import_module(entry.module), entry.destination)
    assert hasattr(importlib.import_module(entry.settings_module), entry.settings)


def test_a_destination_is_made_from_its_table(tmp_path: Path) -> None:
    text = '[destinations.siem]\ntype = "splunk"\nurls = ["https://splunk.example:8088"]\ntoken = "env:HEC"\n'
    destination = make_destination("siem", configured(tmp_path, text), Secrets())
    assert destination.name == "siem"
    destination.close()


@pytest.mark.parametrize(
    ("table", "where", "hint"),
    [
        ('type = "splnk"', ":2: destinations.siem.type", "known: splunk"),
        ('urls = ["x"]', "destinations.siem.type", "known: splunk"),
        (
            'type = "splunk"\nurls = ["https://a:1"]\ntoken = "env:T"\nindx = "x"',
            ":5: destinations.siem.indx",
            "'index'",
        ),
    ],
)
def test_a_wrong_table_names_the_place_and_the_fix(tmp_path: Path, table: str, where: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_destination("siem", configured(tmp_path, f"[destinations.siem]\n{table}\n"), Secrets())
    assert where in str(caught.value)
    assert hint in caught.value.hint
