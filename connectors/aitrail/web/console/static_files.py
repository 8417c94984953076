"""Style, scripts and the chart library, read once and served from memory; never a path that a request names."""

import gzip
import hashlib
from importlib.resources import files
from importlib.resources.abc import Traversable

from msgspec import Struct
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_CACHED = "public, max-age=31536000, immutable"


class _File(Struct, frozen=True):
    body: bytes
    packed: bytes
    kind: str
    version: str


class StaticFiles:
    """All files of ``static/`` by name."""

    def __init__(self) -> None:
        root = files("aitrail.web.console") / "static"
        self._files = dict(_read(root, ""))

    def url(self, name: str) -> str:
        """The address of a file: it changes when the file does, so that browsers may keep it for ever."""
        return f"/static/{name}?v={self._files[name].version}"

    def answer(self, request: Request) -> Response:
        """Give one file."""
        found = self._files.get(request.path_params["name"])
        if found is None:
            raise HTTPException(404)
        headers = {"Cache-Control": _CACHED, "Vary": "Accept-Encoding"}
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(found.packed, 200, headers | {"Content-Encoding": "gzip"}, found.kind)
        return Response(found.body, 200, headers, found.kind)


def _read(folder: Traversable, prefix: str) -> list[tuple[str, _File]]:
    found: list[tuple[str, _File]] = []
    for entry in sorted(folder.iterdir(), key=lambda one: one.name):
        if entry.is_dir():
            found += _read(entry, f"{prefix}{entry.name}/")
            continue
        kind = _TYPES.get(f".{entry.name.rpartition('.')[2]}")
        if kind is not None:
            body = entry.read_bytes()
            version = hashlib.sha256(body).hexdigest()[:12]
            found.append((prefix + entry.name, _File(body, gzip.compress(body, 6, mtime=0), kind, version)))
    return found
