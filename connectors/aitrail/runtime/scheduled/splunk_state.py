"""What an input of the Splunk add-on remembers, below the ``checkpoint_dir`` that splunkd gives: one folder per input.

``state.json`` holds cursors and counters, is replaced as a whole and is on disk before it counts; ``dead_letters`` has
one file for each record that could not go on. One process at a time: the folder is locked.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct, field

from aitrail.errors import ConfigError, TransientError
from aitrail.spool.records import DeadLetter
from aitrail.spool.states import SourceState

_encode = msgspec.json.Encoder().encode


class Kept(Struct, omit_defaults=True):
    """The content of ``state.json``; cursors are base64 there."""

    version: int = 1
    cursors: dict[str, bytes] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    source: SourceState = field(default_factory=SourceState)


_decode = msgspec.json.Decoder(Kept).decode


class InputState:
    """The memory of one input (``direct.DurableCursors`` and ``direct.DeadLetterStore``).

    Raises (constructor):
        ConfigError: the folder cannot be written, or ``state.json`` is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "state.json"
        self._letters = folder / "dead_letters"
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            data = b"{}"
        except OSError as error:
            raise ConfigError(f"cannot be read ({error.strerror})", where=str(self._path)) from None
        try:
            self.kept = _decode(data)
        except msgspec.MsgspecError:
            hint = "restore it, or delete it: the input then begins as at its first run; event ids stay the same"
            raise ConfigError("is damaged", where=str(self._path), hint=hint) from None
        if self.kept.version != 1:
            hint = "install that version of the add-on again"
            raise ConfigError("was written by a newer version", where=str(self._path), hint=hint)

    def get(self, key: str) -> bytes | None:
        """The cursor of ``key``, or None."""
        return self.kept.cursors.get(key)

    def items(self) -> Iterator[tuple[str, bytes]]:
        """All cursors."""
        return iter(list(self.kept.cursors.items()))

    def commit(self, changed: dict[str, bytes]) -> None:
        """Write cursors; on disk on return. Raises ``TransientError``, and then the ones before count."""
        before = dict(self.kept.cursors)
        self.kept.cursors.update(changed)
        try:
            self.save()
        except TransientError:
            self.kept.cursors = before
            raise

    def count(self, counts: Mapping[str, int]) -> None:
        """Add to the counters; written with the next ``save``."""
        for name, number in counts.items():
            self.kept.counters[name] = self.kept.counters.get(name, 0) + number

    def save(self) -> None:
        """Write everything; on disk on return. Raises ``TransientError``."""
        _replace(self._path, _encode(self.kept))

    def keep(self, letters: Sequence[DeadLetter]) -> None:
        """Keep dead letters, each once; on disk on return. Raises ``TransientError``."""
        for letter in letters:
            path = self._letters / f"{letter.id}.json"
            if not path.exists():
                _replace(path, _encode(letter))


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Hold the folder while the block runs; False: another process has it.

    Raises:
        ConfigError: it cannot be made or written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "dead_letters").mkdir(mode=0o700, exist_ok=True)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigError(f"cannot be written ({error.strerror})", where=str(folder)) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def _replace(path: Path, data: bytes) -> None:
    """Write a file so that after a crash it is the old one or the new one."""
    beside = path.with_name(f".{path.name}.new")
    try:
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise TransientError(f"{path}: cannot be written ({error.strerror})", hint="is the disk full?") from None
