"""``[destinations.NAME]``: every known type is importable, and a wrong table names file, line, field and fix."""

import importlib
from pathlib import Path
from typing import get_type_hints

import pytest

from aitrail.config import Config, load
from aitrail.errors import ConfigError
from aitrail.registry import DESTINATIONS, SECRETS, SOURCES, make_destination, source_settings
from aitrail.secrets import Secrets
from aitrail.testing.events import make_events


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
        ('type = "splunk"\ntoken = "env:T"', ":1: destinations.siem: 'urls' is missing", 'urls = ["..."]  # HEC'),
        (
            'type = "stdout"\nbatch_events = "x"',
            ":3: destinations.siem.batch_events: expected a whole",
            "batch_events = 1",
        ),
    ],
)
def test_a_wrong_table_names_the_place_and_the_fix(tmp_path: Path, table: str, where: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_destination("siem", configured(tmp_path, f"[destinations.siem]\n{table}\n"), Secrets())
    assert where in str(caught.value)
    assert hint in caught.value.hint


@pytest.mark.parametrize("kind", [*DESTINATIONS, *SOURCES])
def test_every_reference_to_a_secret_is_known(kind: str) -> None:
    entry = DESTINATIONS.get(kind) or SOURCES[kind]
    settings = getattr(importlib.import_module(entry.settings_module), entry.settings)
    hints = get_type_hints(settings, include_extras=True)
    described = {name: str(getattr(hint, "__metadata__", "")).lower() for name, hint in hints.items()}
    assert {name for name, text in described.items() if "reference to" in text} <= set(SECRETS)


def test_a_secret_in_the_file_is_refused_and_not_repeated(tmp_path: Path) -> None:
    text = '[destinations.siem]\ntype = "splunk"\nurls = ["https://a:1"]\ntoken = "11111111-2222"\n'
    text += '[sources.audit]\ntype = "openai_audit"\ntoken = "11111111-2222"\n'
    config = configured(tmp_path, text)
    with pytest.raises(ConfigError, match=r":4: destinations\.siem\.token: a secret must be a reference") as first:
        make_destination("siem", config, Secrets())
    with pytest.raises(ConfigError, match=r":7: sources\.audit\.token: a secret must be a reference") as second:
        source_settings("audit", config.sources["audit"], config)
    assert all("1111" not in f"{caught.value} {caught.value.hint}" for caught in (first, second))


def test_standard_output_can_be_configured(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    text = '[destinations.pipe]\ntype = "stdout"\nbatch_events = 7\n'
    destination = make_destination("pipe", configured(tmp_path, text), Secrets())
    assert (destination.name, destination.limits.max_events) == ("pipe", 7)
    events = make_events(3, "pipe")
    assert {one.status for one in destination.send(events, 0.0).verdicts} == {"delivered"}
    destination.close()
    assert capfdbinary.readouterr().out.splitlines() == [event.body for event in events]


@pytest.mark.parametrize("setting", ['record_type = "generic_access"', 'map = "m.toml"'])
def test_a_field_map_and_its_records_belong_together(tmp_path: Path, setting: str) -> None:
    config = configured(tmp_path, f'[sources.web]\npaths = ["x"]\n{setting}\n')
    with pytest.raises(ConfigError, match=r":3: sources\.web\.(map|record_type): a field map") as caught:
        source_settings("web", config.sources["web"], config)
    assert "aitrail map" in caught.value.hint
