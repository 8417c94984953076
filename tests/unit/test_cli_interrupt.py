"""Ctrl-C while the command line is still being loaded is no crash."""

import builtins
import subprocess
import sys
from typing import Any

import pytest

import aitrail.__main__ as entry


def test_an_interrupt_during_the_imports_is_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = builtins.__import__

    def interrupted(name: str, *rest: Any) -> Any:
        if name == "aitrail.runtime.cli":
            raise KeyboardInterrupt
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", interrupted)
    with pytest.raises(SystemExit) as caught:
        entry.main()
    monkeypatch.undo()
    assert caught.value.code == 130
    assert capsys.readouterr() == ("", "")


def test_both_ways_to_begin_are_the_same() -> None:
    done = subprocess.run([sys.executable, "-m", "aitrail", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("aitrail, version")
