"""Put a package together."""

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import Struct

from aitrail.errors import ConfigError
from aitrail.runtime.packaging import archive, sbom
from aitrail.runtime.packaging.closure import Closure, closure
from aitrail.runtime.packaging.targets import ARCHITECTURES, TARGETS, Choice
from aitrail.runtime.packaging.tree import Files, compiled, interpreter, own_files, placed, wheel_files
from aitrail.runtime.packaging.wheels import Wheel, fetch, requirements

# AWS Lambda quotas: a package of 250 MB unpacked; 50 MB zipped when it is uploaded directly.
_MOST_UNPACKED = 250_000_000
MANIFEST = "aitrail-package/SHA256SUMS"
SBOM = "aitrail-package/sbom.cdx.json"


class Options(Struct, frozen=True):
    """How to build.

    Attributes:
        lock: the lock file; None: resolve anew, write none.
        wheels: folder of wheels to take instead of the package index.
        compile: put bytecode beside the modules.
        interpreter: to compile with; empty: one is looked for.
        bundle: distributions that the platform has, but that shall be in the package all the same.
    """

    lock: Path | None = None
    wheels: str = ""
    compile: bool = True
    interpreter: str = ""
    bundle: frozenset[str] = frozenset()


class Plan(Struct, frozen=True):
    """What would be built."""

    choice: Choice
    needed: Closure
    requirements: tuple[str, ...]
    provided: tuple[str, ...]


class Built(Struct, frozen=True):
    """What was built: sizes in bytes, hashes, and the interpreter that compiled (empty: none)."""

    path: Path
    sha256: str
    size: int
    unpacked: int
    files: int
    wheels: tuple[Wheel, ...]
    sbom: Path
    interpreter: str


def plan(choice: Choice, options: Options) -> Plan:
    """Say what is needed; fetches nothing. Raises ``ConfigError``."""
    target = TARGETS[choice.target]
    needed = closure(choice.roots(), target.unused)
    provided = tuple(sorted((needed.imports.keys() & target.provided) - options.bundle))
    asked = requirements(needed.imports.keys() - set(provided))
    return Plan(choice, needed, tuple(asked), provided)


def build(planned: Plan, options: Options, out: Path, say: Callable[[str], None]) -> Built:
    """Build the package at ``out``, with ``OUT.sha256`` and ``OUT.cdx.json`` beside it; ``say`` is told each step.

    Raises:
        ConfigError: a wheel is missing, the lock file does not fit, or the package would be too large.
    """
    choice = planned.choice
    target = TARGETS[choice.target]
    with tempfile.TemporaryDirectory(prefix="aitrail-package-") as work:
        folder = Path(work) / "wheels"
        folder.mkdir()
        say(f"fetching {len(planned.requirements)} distributions for {choice.arch}, Python {choice.python}")
        wheels = fetch(
            planned.requirements, folder, machine=ARCHITECTURES[choice.arch], python=choice.python, glibc=target.glibc,
            lock=options.lock, index=options.wheels,
        )  # fmt: skip
        wheels = [one for one in wheels if one.name not in planned.provided]
        own = own_files(planned.needed)
        library = dict(own)
        for one in wheels:
            library |= wheel_files(one)
        python = interpreter(choice.python, options.interpreter) if options.compile else ""
        if python:
            say(f"compiling {sum(name.endswith('.py') for name in library):,} modules")
            shown = f"{target.folder}/{target.library}".rstrip("/")
            library |= compiled(library, python, shown, Path(work) / "source")
        files: Files = {**dict(placed(library, target.library)), **choice.files()}
        own_digest = hashlib.sha256(archive.sums(own)).hexdigest()
        bytecode = f"{choice.python}, unchecked hashes" if python else "none"
        text = sbom.document(choice, wheels, own_digest, [("aitrail:bytecode", bytecode)])
        files[SBOM] = text
        files[MANIFEST] = archive.sums(files)
        _check_size(files)
        say(f"writing {out}")
        return _write(out, files, text, tuple(wheels), python)


def _check_size(files: Mapping[str, bytes]) -> None:
    unpacked = sum(len(data) for data in files.values())
    if unpacked > _MOST_UNPACKED:
        hint = "package fewer sources and destinations in one function"
        raise ConfigError(f"{unpacked / 1e6:.0f} MB unpacked; a function may have 250", where="package", hint=hint)


def _write(out: Path, files: Mapping[str, bytes], text: bytes, wheels: tuple[Wheel, ...], python: str) -> Built:
    out.parent.mkdir(parents=True, exist_ok=True)
    digest = archive.write(out, files)
    beside = out.with_name(out.name + ".cdx.json")
    beside.write_bytes(text)
    out.with_name(out.name + ".sha256").write_text(f"{digest}  {out.name}\n")
    unpacked = sum(len(data) for data in files.values())
    return Built(out, digest, out.stat().st_size, unpacked, len(files), wheels, beside, python)
