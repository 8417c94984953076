"""All packs: what they should hold, what in the source tree is not so, and their archives."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from aitrail.compiler.emit import Content, Pack
from aitrail.compiler.emit.kibana import PACK as KIBANA
from aitrail.compiler.emit.sentinel import PACK as SENTINEL
from aitrail.compiler.emit.splunk import PACK as SPLUNK
from aitrail.compiler.emit.splunk_addon import PACK as SPLUNK_ADDON

PACKS: tuple[Pack, ...] = (SPLUNK, SPLUNK_ADDON, KIBANA, SENTINEL)
# What tools leave in a folder and no pack holds.
_LITTER = ("__pycache__", ".DS_Store")


def emitted(content: Content) -> dict[str, bytes]:
    """The files of all packs by path below the source tree."""
    return {f"{pack.folder}/{path}": data for pack in PACKS for path, data in pack.emit(content).items()}


def left_over(root: Path, made: dict[str, bytes]) -> Iterator[Path]:
    """Files of ``root`` that only an emitter writes and none gives any more."""
    for pack in PACKS:
        for path in present(root / pack.folder):
            owned = any(PurePosixPath(path).match(pattern) for pattern in pack.owned)
            if owned and f"{pack.folder}/{path}" not in made:
                yield root / pack.folder / path


def present(folder: Path) -> dict[str, bytes]:
    """The files of a pack as they lie there, by path below ``folder``."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and not set(path.parts) & set(_LITTER))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def archives(root: Path) -> dict[str, bytes]:
    """The archives by file name, of what lies in ``root``."""
    made: dict[str, bytes] = {}
    for pack in PACKS:
        if pack.archives:
            made |= pack.archives(present(root / pack.folder))
    return made


def source_tree() -> Path | None:
    """The source tree that aitrail runs from; None where it is installed from a wheel."""
    root = Path(__file__).resolve().parents[4]
    return root if (root / "pyproject.toml").is_file() and (root / "content").is_dir() else None
