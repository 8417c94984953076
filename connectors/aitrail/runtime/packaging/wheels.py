"""Distributions for the platform that a function runs on: resolved and fetched by pip, checked by their hashes.

A lock file (requirements with hashes, as pip reads them) makes the same package possible next year: it is written when
there is none, and obeyed when there is one.
"""

import contextlib
import hashlib
import importlib.metadata
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Sequence
from email.message import Message
from email.parser import BytesHeaderParser
from pathlib import Path

from msgspec import Struct

from aitrail.errors import AitrailError, ConfigError

_PIP_SECONDS = 600
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Wheel(Struct, frozen=True):
    """One distribution.

    Attributes:
        name: normalized (PEP 503).
        sha256: of the file that was fetched.
        licence: what its metadata says; empty when nothing does.
    """

    name: str
    version: str
    sha256: str
    path: Path
    licence: str = ""
    summary: str = ""


def requirements(distributions: Iterable[str]) -> list[str]:
    """What aitrail itself asks of these distributions, e.g. ``msgspec>=0.19``.

    Raises:
        ConfigError: aitrail is not installed, so nobody knows.
    """
    try:
        asked = importlib.metadata.requires("aitrail") or []
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError(
            "aitrail is not installed here", where="aitrail package", hint="pip install aitrail"
        ) from None
    specs: dict[str, str] = {}
    for line in asked:
        bare, _, marker = line.partition(";")
        name = _NAME.match(bare.strip())
        if name is not None and "python_version" not in marker:
            specs.setdefault(normal(name[0]), bare.strip())
    return [specs.get(normal(one), one) for one in sorted(distributions)]


def normal(name: str) -> str:
    """A distribution's name as indexes write it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def fetch(
    asked: Sequence[str], folder: Path, *, machine: str, python: str, glibc: int, lock: Path | None, index: str = ""
) -> list[Wheel]:
    """Fetch wheels into ``folder``; with a ``lock`` that exists exactly those that it names.

    Args:
        asked: requirements.
        folder: an empty folder.
        machine: ``x86_64`` or ``aarch64``.
        python: version such as ``3.13``.
        glibc: newest minor version of glibc 2 that wheels may ask for.
        lock: the lock file; written when it does not exist.
        index: folder of wheels to take instead of the package index.

    Raises:
        ConfigError: pip is missing, or there is no such wheel for that platform.
    """
    tags = ["manylinux2014", *(f"manylinux_2_{minor}" for minor in range(17, glibc + 1))]
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet", "--no-input"]
    command += ["--only-binary=:all:", "--dest", str(folder), "--implementation", "cp", "--python-version", python]
    command += [part for tag in tags for part in ("--platform", f"{tag}_{machine}")]
    command += ["--no-index", "--find-links", index] if index else []
    if lock is not None and lock.exists():
        command += ["--require-hashes", "--requirement", str(lock)]
    else:
        command += asked
    _run(command)
    found = sorted((_wheel(path) for path in folder.glob("*.whl")), key=lambda one: one.name)
    missing = {normal(_names(one)) for one in asked} - {one.name for one in found}
    if missing:
        hint = f"delete {lock} to have it written anew"
        raise ConfigError(f"the lock file lacks {', '.join(sorted(missing))}", where=str(lock), hint=hint)
    if lock is not None and not lock.exists():
        lines = [f"{one.name}=={one.version} --hash=sha256:{one.sha256}\n" for one in found]
        lock.write_text("# written by aitrail package; delete it to take newer versions\n" + "".join(lines))
    return found


def _names(requirement: str) -> str:
    found = _NAME.match(requirement)
    assert found is not None
    return found[0]


def _run(command: Sequence[str]) -> None:
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter
            command, capture_output=True, text=True, check=False, timeout=_PIP_SECONDS, env=environment
        )
    except subprocess.TimeoutExpired:
        raise AitrailError(
            f"pip has not answered for {_PIP_SECONDS} s", hint="is the package index reachable?"
        ) from None
    if done.returncode == 0:
        return
    if "No module named pip" in done.stderr:
        raise ConfigError("this Python has no pip", where=sys.executable, hint="python -m ensurepip")
    lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()[-3:]
    hint = "try another --python or --arch; with a lock file of another platform: delete it"
    raise ConfigError("; ".join(lines) or "pip failed", where="pip download", hint=hint)


def _wheel(path: Path) -> Wheel:
    name, version = path.name.split("-")[:2]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with zipfile.ZipFile(path) as archive:
        text = b""
        for entry in archive.namelist():
            if entry.endswith(".dist-info/METADATA") and entry.count("/") == 1:
                text = archive.read(entry)
    metadata = BytesHeaderParser().parsebytes(text)
    with contextlib.suppress(KeyError):
        version = str(metadata["Version"])
    summary = str(metadata.get("Summary") or "")
    return Wheel(normal(name), version, digest, path, _licence(metadata)[:200], summary[:200])


def _licence(metadata: Message) -> str:
    """What a wheel's metadata says: an SPDX expression, else its classifiers, else its own words."""
    expression = str(metadata.get("License-Expression") or "")
    classifiers = [str(one) for one in metadata.get_all("Classifier", []) if str(one).startswith("License ::")]
    words = str(metadata.get("License") or "").strip().splitlines()
    return expression or " OR ".join(one.rpartition(" :: ")[2] for one in classifiers) or (words[0] if words else "")
