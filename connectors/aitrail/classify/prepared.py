"""The cache of compiled pattern sets: one file per set in the user's cache directory; only ever an optimisation.

Where it lies: ``AITRAIL_CACHE_DIR``, else ``$XDG_CACHE_HOME/aitrail``, else ``~/.cache/aitrail``; the value ``off``
switches it off. A file is named after a hash of everything that went into it (expressions, flags, versions), holds its
own digest, is written under another name and renamed, and is used only if it and its directory belong to the running
user and nobody else can write to them: a compiled set is as good as code. Nothing of an event is in it.
"""

import contextlib
import hashlib
import os
import platform
import stat
import sys
import tempfile
from pathlib import Path
from typing import Final

_FORMAT: Final = "1"
_DIGEST: Final = 32
_MAX_FILE: Final = 64 << 20
# Files of earlier versions that are kept beside the current ones.
_MAX_FILES: Final = 24


def _directory() -> Path | None:
    named = os.environ.get("AITRAIL_CACHE_DIR", "")
    if named:
        return None if named == "off" else Path(named)
    base = os.environ.get("XDG_CACHE_HOME", "")
    if base and Path(base).is_absolute():
        return Path(base) / "aitrail"
    try:
        return Path.home() / ".cache" / "aitrail"
    except RuntimeError:  # no home directory
        return None


def key_of(*parts: str | bytes) -> str:
    """Name what is made of ``parts`` on this kind of machine with this interpreter."""
    state = hashlib.blake2b(digest_size=20)
    for part in (_FORMAT, sys.version, platform.machine(), *parts):
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "big") + data)
    return state.hexdigest()


def _is_ours(status: os.stat_result) -> bool:
    """Whether only the running user can have written it."""
    if not hasattr(os, "getuid"):  # pragma: no cover - Windows: the profile directory is the user's own
        return True
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def load(key: str) -> bytes | None:
    """What was stored under ``key``; None when it is missing, damaged or not trustworthy."""
    directory = _directory()
    if directory is None:
        return None
    try:
        if not _is_ours(directory.stat()):
            return None
        handle = os.open(directory / f"{key}.bin", os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(file.fileno())
            if not (stat.S_ISREG(status.st_mode) and _is_ours(status)) or status.st_size > _MAX_FILE:
                return None
            content = file.read()
    except OSError:
        return None
    digest, data = content[:_DIGEST], content[_DIGEST:]
    return data if hashlib.blake2b(data, digest_size=_DIGEST).digest() == digest else None


def store(key: str, data: bytes) -> None:
    """Keep ``data`` under ``key`` if that is possible; never fails."""
    directory = _directory()
    if directory is None:
        return
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ours(directory.stat()):
            return
        handle, name = tempfile.mkstemp(dir=directory, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.blake2b(data, digest_size=_DIGEST).digest() + data)
            Path(name).replace(directory / f"{key}.bin")
        except OSError:
            Path(name).unlink(missing_ok=True)
            return
        _forget_old(directory)
    except OSError:
        return


def discard(key: str) -> None:
    """Remove what cannot be used."""
    directory = _directory()
    if directory is not None:
        with contextlib.suppress(OSError):
            (directory / f"{key}.bin").unlink(missing_ok=True)


def _forget_old(directory: Path) -> None:
    files = sorted(
        [*directory.glob("*.bin"), *directory.glob("*.tmp")], key=lambda path: path.stat().st_mtime, reverse=True
    )
    for path in files[_MAX_FILES:]:
        path.unlink(missing_ok=True)
