"""Where the data that people edit (``content/``) lies: beside the installed package, or in the source tree."""

from functools import lru_cache
from pathlib import Path

from aitrail.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent


@lru_cache(maxsize=1)
def content_root() -> Path:
    """Return the content directory: the installed copy first, then ``content/`` of the source tree.

    Raises:
        ConfigError: neither exists, so the installation is incomplete.
    """
    for candidate in (_PACKAGE / "_content", _PACKAGE.parent.parent / "content"):
        if candidate.is_dir():
            return candidate
    raise ConfigError(
        "the content directory is missing",
        where=str(_PACKAGE / "_content"),
        hint="reinstall aitrail: the wheel carries it",
    )


def content_path(*parts: str) -> Path:
    """Return the path of one file or folder below the content directory; it need not exist."""
    return content_root().joinpath(*parts)
