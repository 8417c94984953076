"""Archives with the same bytes whenever they are made: names sorted, one fixed time, no owner, fixed modes."""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Mapping

# The first moment that a ZIP file can name.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
_TAR_TIME = 315_532_800


def tar_gz(folder: str, files: Mapping[str, bytes]) -> bytes:
    """A gzipped tar in which everything lies in ``folder``; files 0644, folders 0755."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        folders = {folder}
        for path in files:
            parts = path.split("/")[:-1]
            folders |= {"/".join([folder, *parts[:end]]) for end in range(1, len(parts) + 1)}
        for name in sorted(folders):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o755, _TAR_TIME
            archive.addfile(entry)
        for path in sorted(files):
            entry = tarfile.TarInfo(f"{folder}/{path}")
            entry.size, entry.mode, entry.mtime = len(files[path]), 0o644, _TAR_TIME
            archive.addfile(entry, io.BytesIO(files[path]))
    return gzip.compress(raw.getvalue(), compresslevel=9, mtime=0)


def zipped(files: Mapping[str, bytes], folder: str = "") -> bytes:
    """A ZIP file, everything in ``folder`` if one is named."""
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(files):
            entry = zipfile.ZipInfo(f"{folder}/{path}" if folder else path, _ZIP_TIME)
            entry.compress_type, entry.external_attr, entry.create_system = zipfile.ZIP_DEFLATED, 0o644 << 16, 3
            archive.writestr(entry, files[path])
    return raw.getvalue()
