"""The documentation says what the code does: generated pages are fresh, links lead somewhere, commands are real."""

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from aitrail.runtime.cli import COMMANDS, cli

ROOT = Path(__file__).parents[2]


def test_generated_pages_are_fresh() -> None:
    done = subprocess.run([sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))],
    ids=lambda path: path.name,
)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_teaches(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    text = command.get_help(click.Context(command, info_name=f"aitrail {name}"))
    assert text.count(f"aitrail {name}") >= 2, f"aitrail {name} --help has no example beside its usage line"
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"aitrail {name} {parameter.opts[0]} has no help"
    assert len(text) > 100


def test_commands_in_the_readme_exist() -> None:
    for name in set(re.findall(r"\baitrail ([a-z]+)\b", (ROOT / "README.md").read_text())):
        assert name in COMMANDS
