"""The files of a package: aitrail's modules and data, what was unpacked of the wheels and is needed, and bytecode."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from aitrail.contentdir import content_root
from aitrail.errors import AitrailError, ConfigError
from aitrail.runtime.packaging.closure import PACKAGE, Closure, path_of
from aitrail.runtime.packaging.wheels import Wheel

# Data that the modules of a package read, beside its source: everything in it that is not Python.
_CONTENT = ("patterns", "taxonomy")
_NOT_DATA = frozenset({".py", ".pyc", ".pyi", ".c", ".h", ".cpp", ".hpp", ".pyx", ".pxd", ".md", ".rst"})
_UNUSED_FOLDERS = frozenset({"tests", "test", "__pycache__"})
# Beside the packages; in one, a folder of such a name may be a part of it (botocore.docs).
_UNUSED_BESIDE = frozenset({"benchmarks", "docs", "examples"})
_UNUSED_ENDS = (".pyc", ".pyi", ".c", ".h", ".cpp", ".hpp", ".pyx", ".pxd")
_UNUSED_METADATA = frozenset({"RECORD", "WHEEL", "INSTALLER", "REQUESTED", "direct_url.json"})
# Parts of distributions that nothing here uses, by the beginning of their names.
_UNUSED: Mapping[str, tuple[str, ...]] = {
    "zstandard": ("zstandard/_cffi", "zstandard/_rust", "zstandard/backend_cffi"),  # the second way into the library
    "anyio": ("anyio/pytest_plugin",),
    "hyperscan": ("hyperscan/_version",),
    "botocore": ("botocore/data/",),  # see _SERVICES
}
# What aitrail calls of AWS, where boto3 is bundled.
_SERVICES = ("cloudtrail", "dynamodb", "logs", "s3", "secretsmanager", "sqs", "sts")
_SHARED = ("botocore/data/endpoints.json", "botocore/data/partitions.json", "botocore/data/_retry.json",
           "botocore/data/sdk-default-configuration.json")  # fmt: skip
_COMPILE = (
    "import sys, py_compile\n"
    "mode = py_compile.PycInvalidationMode.UNCHECKED_HASH\n"
    "for line in sys.stdin.read().splitlines():\n"
    "    source, shown = line.split('\\t')\n"
    "    py_compile.compile(source, dfile=shown, doraise=True, invalidation_mode=mode, quiet=2)\n"
)

Files = dict[str, bytes]


def own_files(needed: Closure) -> Files:
    """The part of aitrail, by its place below the library folder."""
    found: Files = {}
    for module in sorted(needed.modules):
        path = path_of(module)
        assert path is not None
        found[path.relative_to(PACKAGE.parent).as_posix()] = path.read_bytes()
        if path.name == "__init__.py" and path.parent != PACKAGE:
            for data in sorted(path.parent.rglob("*")):
                # Folders that are packages themselves are a module's of their own.
                packages = [
                    one
                    for one in data.relative_to(path.parent).parents
                    if (path.parent / one / "__init__.py").is_file()
                ]
                if data.is_file() and data.suffix not in _NOT_DATA and len(packages) == 1 and _is_used(data):
                    found[data.relative_to(PACKAGE.parent).as_posix()] = data.read_bytes()
    root = content_root()
    for part in _CONTENT:
        for path in sorted((root / part).rglob("*")):
            if path.is_file():
                found[f"aitrail/_content/{path.relative_to(root).as_posix()}"] = path.read_bytes()
    return found


def _is_used(path: Path) -> bool:
    return not any(part.startswith(".") or part in _UNUSED_FOLDERS for part in path.relative_to(PACKAGE).parts)


def wheel_files(wheel: Wheel) -> Files:
    """What of a wheel is needed, by its place below the library folder."""
    found: Files = {}
    with zipfile.ZipFile(wheel.path) as archive:
        for entry in archive.namelist():
            place = _place(entry)
            if place and _is_needed(wheel.name, place):
                found[place] = archive.read(entry)
    return found


def _place(entry: str) -> str:
    """Where a wheel's file is installed below site-packages; empty when it is not (scripts, headers, folders)."""
    parts = PurePosixPath(entry).parts
    if entry.endswith("/") or ".." in parts or entry.startswith("/"):
        return ""
    if parts[0].endswith(".data"):
        return "/".join(parts[2:]) if len(parts) > 2 and parts[1] in ("purelib", "platlib") else ""
    return "/".join(parts)


def _is_needed(name: str, place: str) -> bool:
    parts = place.split("/")
    if parts[0].endswith(".dist-info"):
        return parts[-1] not in _UNUSED_METADATA
    if (
        parts[0] in _UNUSED_BESIDE
        or any(part in _UNUSED_FOLDERS for part in parts[:-1])
        or place.endswith(_UNUSED_ENDS)
    ):
        return False
    if name == "botocore" and place.startswith("botocore/data/"):
        return place in _SHARED or (len(parts) > 3 and parts[2] in _SERVICES)
    return not place.startswith(_UNUSED.get(name, ("\0",)))


def interpreter(version: str, given: str = "") -> str:
    """A Python of this version, to compile with; empty when there is none here."""
    if given:
        if not _is_python(given, version):
            raise ConfigError(f"is no Python {version}", where=given, hint="name its executable, or use --no-compile")
        return given
    if f"{sys.version_info.major}.{sys.version_info.minor}" == version:
        return sys.executable
    found = shutil.which(f"python{version}")
    candidates = [found] if found else []
    # pyenv keeps its interpreters there, also those that are not switched on.
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates += [str(one / "bin" / "python") for one in sorted(pyenv.glob(f"{version}.*"))]
    return next((one for one in candidates if _is_python(one, version)), "")


def _is_python(path: str, version: str) -> bool:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([path, "-I", "-c", code], capture_output=True, text=True, check=False, timeout=60)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and done.stdout.strip() == version


def compiled(files: Mapping[str, bytes], python: str, shown: str, work: Path) -> Files:
    """Bytecode of all modules: a cold start does not compile, and the place it runs at cannot be written to.

    Args:
        files: by their place.
        python: the interpreter.
        shown: the folder that tracebacks name.
        work: an empty folder.
    """
    lines = []
    sources = sorted(place for place in files if place.endswith(".py"))
    for place in sources:
        path = work / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[place])
        lines.append(f"{path}\t{shown}/{place}")
    done = subprocess.run(  # noqa: S603 - found by `interpreter`
        [python, "-s", "-P", "-c", _COMPILE], input="\n".join(lines), capture_output=True, text=True, check=False,
        env={"PYTHONHASHSEED": "0"},
    )  # fmt: skip
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:]
        raise AitrailError(f"bytecode could not be written: {' '.join(last)}", hint="use --no-compile")
    return {path.relative_to(work).as_posix(): path.read_bytes() for path in _pycs(work)}


def _pycs(work: Path) -> Iterable[Path]:
    return sorted(work.rglob("*.pyc"))


def placed(files: Mapping[str, bytes], library: str) -> Iterator[tuple[str, bytes]]:
    """The files below the library folder of the zip."""
    for place, data in files.items():
        yield library + place, data
