"""npm packages that tests read, unpacked by ``.ci/node``; without them CI fails, elsewhere the tests are skipped."""

import os
import shutil
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


def package(name: str, *, runs: bool = False) -> Path:
    """The folder of a package; ``runs``: node is needed, too."""
    folder = _ROOT / ".cache" / "node" / "node_modules" / name
    missing = [] if folder.is_dir() else [f"{name} is not there: run .ci/node"]
    if runs and shutil.which("node") is None:
        missing.append("node is not installed")
    if missing and os.environ.get("CI"):
        pytest.fail("; ".join(missing))
    if missing:
        pytest.skip("; ".join(missing))
    return folder
