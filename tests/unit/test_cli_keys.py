"""``aitrail keys``: what is rotated and erased is what was meant, and nothing else."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from aitrail.errors import ConfigError
from aitrail.runtime.cli import cli

CALL = json.loads((Path(__file__).parents[1] / "fixtures" / "litellm" / "chat_success.json").read_bytes())


def aitrail(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments), standalone_mode=False)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "calls.jsonl").write_text(json.dumps(CALL) + "\n")
    made = tmp_path / "store"
    done = aitrail("collect", str(tmp_path / "calls.jsonl"), "--store", str(made), "--content", "sealed", "-q")
    assert done.exception is None
    return made


def user(store: Path) -> str:
    found = aitrail("query", "SELECT user_id FROM events", "--store", str(store), "--format", "json")
    return str(json.loads(found.stdout)[0]["user_id"])


def test_a_key_is_rotated_and_a_tenant_that_is_not_there_is_named(store: Path) -> None:
    assert "tenant default: new key k2" in aitrail("keys", "rotate", "default", "--store", str(store)).stdout
    wrong = aitrail("keys", "rotate", "defualt", "--store", str(store)).exception
    assert isinstance(wrong, ConfigError)
    assert "'defualt' has no key in this store" in str(wrong)
    assert "keys of: default" in wrong.hint
    assert "new key k3" in aitrail("keys", "rotate", "default", "--store", str(store)).stdout


def test_what_is_sealed_is_erased_for_one_person(store: Path) -> None:
    whom = user(store)
    refused = aitrail("keys", "erase", "default", whom, "--store", str(store)).exception
    assert isinstance(refused, ConfigError), "nobody said yes"
    done = aitrail("keys", "erase", "default", whom, "--yes", "--store", str(store))
    assert f"erased: the sealed content of {whom}" in done.stdout
    again = aitrail("keys", "erase", "default", whom, "--yes", "--store", str(store)).exception
    assert isinstance(again, ConfigError)
    assert "nothing is sealed for" in str(again)
