"""What others wrote and these tests run against, installed once and kept under .cache/."""

import subprocess
from pathlib import Path

import filelock
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def gateways() -> Path:
    """Environments with a LiteLLM proxy and OpenTelemetry's instrumentations; made when they are not there."""
    folder = ROOT / ".cache" / "gateways"
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / ".lock", timeout=900):
        done = subprocess.run([ROOT / ".ci" / "gateways"], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder
