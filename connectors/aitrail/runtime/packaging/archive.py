"""A zip that is the same bytes whenever its content is: sorted, without times, owners or this machine's habits."""

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

# The oldest time that a zip can say.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def write(path: Path, files: Mapping[str, bytes]) -> str:
    """Write the zip and give its SHA-256; a file that is already there is replaced as a whole."""
    temporary = path.with_name(path.name + ".part")
    with zipfile.ZipFile(temporary, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3
            # Readable for everybody: the platform runs it as a user of its own.
            entry.external_attr = (0o100755 if name.endswith(".so") or ".so." in name else 0o100644) << 16
            archive.writestr(entry, files[name], compresslevel=6)
    temporary.replace(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sums(files: Mapping[str, bytes]) -> bytes:
    """One line per file, as ``sha256sum --check`` reads them."""
    return b"".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n".encode() for name in sorted(files))
