"""The Splunk add-on ``TA-aitrail``: its folder in the source tree, and in ``lib`` the collector with what it imports.

Splunk's own Python 3.13 runs it (Splunk 10, Linux): what is pure Python lies in ``lib``, what is native in
``lib/linux_x86_64`` and ``lib/linux_aarch64``, and ``bin/collector_library.py`` chooses. There is no bytecode: Splunk
refuses it. The same wheels give the same bytes; which ones those are, ``TA-aitrail-ARCH.lock`` beside
the folder says.
"""

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from aitrail import __version__
from aitrail.compiler.emit.archive import tar_gz
from aitrail.errors import ConfigError
from aitrail.registry import SOURCES
from aitrail.runtime.packaging import archive, sbom
from aitrail.runtime.packaging.addon_parts import UNUSED, kept
from aitrail.runtime.packaging.closure import PACKAGE, Closure, closure
from aitrail.runtime.packaging.targets import Choice
from aitrail.runtime.packaging.tree import Files, own_files, wheel_files
from aitrail.runtime.packaging.wheels import Wheel, fetch, requirements
from aitrail.splunk_schemes import ADDON, SCHEMES

SOURCE = PACKAGE.parents[1] / "splunk_app" / ADDON
DIST = PACKAGE.parents[1] / "dist"
PYTHON = "3.13"
MACHINES = ("x86_64", "aarch64")
# Splunk Enterprise system requirements: RHEL 8 and later, glibc 2.28.
GLIBC = 28
# Imported where they are there, and not here: RE2 matches alone (the same verdicts), and polls have neither an outbox
# nor compressed files.
LEFT_OUT = frozenset({"hyperscan", "isal", "zstandard"})
# Polls use botocore; boto3 is its other face. The SDK's version is the one for Python 3.13.
_INSTEAD: Mapping[str, str] = {"boto3": "botocore", "splunk-sdk": "splunk-sdk>=3,<4"}
_ROOTS = ("aitrail.runtime.splunk_input", "aitrail.sources._aws_settings", "aitrail.sources._feeds_settings")
_NEVER = frozenset({"aitrail.privacy.sealing", "aitrail.destinations.sentinel_verify"})
# Splunkbase takes packages of up to 128 MB; more than this is a mistake.
_MOST = 40_000_000


class Built(Struct, frozen=True):
    """What was built: sizes in bytes."""

    path: Path
    sha256: str
    size: int
    unpacked: int
    files: int
    wheels: Mapping[str, str]


def needed() -> Closure:
    """What the inputs import of aitrail and of others; fetches nothing."""
    return closure((*_ROOTS, *(SOURCES[one.source].module for one in SCHEMES)), _NEVER)


def asked(imports: Sequence[str]) -> list[str]:
    """The requirements for these distributions."""
    return requirements(_INSTEAD.get(one, one) for one in imports if one not in LEFT_OUT)


def build(
    source: Path, out: Path, say: Callable[[str], None], *, wheels: str = "", machines: Sequence[str] = MACHINES
) -> Built:
    """Build the package at ``out``, with ``OUT.sha256`` beside it; ``say`` is told each step.

    Args:
        source: the add-on's folder; its locks lie beside it, and are written when they are not there.
        out: the ``.spl`` file.
        say: is told each step.
        wheels: folder of wheels to take instead of the package index.
        machines: for which processors.

    Raises:
        ConfigError: there is no such folder, a wheel is missing, or the package would be too large.
    """
    if not (source / "default" / "app.conf").is_file():
        hint = "in a source tree of aitrail: pip install -e ., then again"
        raise ConfigError("there is no add-on", where=str(source), hint=hint)
    files, held = contents(source, say, wheels=wheels, machines=machines)
    say(f"writing {out}")
    data = tar_gz(ADDON, files)
    if len(data) > _MOST:
        raise ConfigError(f"{len(data) / 1e6:.0f} MB; at most {_MOST / 1e6:.0f} are sensible", where=str(out))
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(out.name + ".part")
    temporary.write_bytes(data)
    temporary.replace(out)
    digest = hashlib.sha256(data).hexdigest()
    out.with_name(out.name + ".sha256").write_text(f"{digest}  {out.name}\n")
    return Built(out, digest, len(data), sum(map(len, files.values())), len(files), held)


def contents(
    source: Path, say: Callable[[str], None], *, wheels: str = "", machines: Sequence[str] = MACHINES
) -> tuple[Files, dict[str, str]]:
    """The files of the package by their place, and the versions of the distributions; see ``build``."""
    found = needed()
    own = own_files(found)
    files: Files = _handed(source) | {f"lib/{name}": data for name, data in own.items()}
    held: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="aitrail-addon-") as work:
        for machine in machines:
            say(f"fetching distributions for {machine}")
            folder = Path(work) / machine
            folder.mkdir()
            got = fetch(
                asked(sorted(found.imports)), folder, machine=machine, python=PYTHON, glibc=GLIBC,
                lock=source.with_name(f"{ADDON}-{machine}.lock"), index=wheels,
            )  # fmt: skip
            got = [one for one in got if one.name not in UNUSED]
            for one in got:
                _add(files, one, machine)
                held[one.name] = one.version
            files[f"lib/linux_{machine}/sbom.cdx.json"] = _sbom(machine, got, own)
    return files, held


def _handed(source: Path) -> Files:
    """The add-on's own files, without what tools leave there."""
    found = sorted(path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(source).as_posix(): path.read_bytes() for path in found if path.name[0] != "."}


def _add(files: Files, wheel: Wheel, machine: str) -> None:
    """Lay a wheel out: what is pure once, what is native for its machine."""
    mine = kept(wheel.name, wheel_files(wheel))
    native = any(name.endswith(".so") or ".so." in name for name in mine)
    folder = f"lib/linux_{machine}" if native else "lib"
    for name, data in mine.items():
        place = f"{folder}/{name}"
        if files.setdefault(place, data) != data:
            hint = f"delete the locks {ADDON}-*.lock to have them written anew"
            raise ConfigError(f"{wheel.name} differs between processors ({name})", where=ADDON, hint=hint)


def _sbom(machine: str, wheels: Sequence[Wheel], own: Mapping[str, bytes]) -> bytes:
    sources = tuple(one.source for one in SCHEMES)
    choice = Choice("splunk", machine, PYTHON, sources, ("splunkd",))
    return sbom.document(choice, wheels, hashlib.sha256(archive.sums(own)).hexdigest(), [("aitrail:bytecode", "none")])


def file_name() -> str:
    """What the package is called."""
    return f"{ADDON}-{__version__}.spl"
