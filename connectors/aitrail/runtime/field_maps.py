"""Read a field map's file."""

import tomllib
from pathlib import Path

from aitrail.errors import ConfigError
from aitrail.normalize.field_map import FieldMap, make_map


def read_map(path: Path) -> FieldMap:
    """Read and check a field map.

    Raises:
        ConfigError: names the file, the entry and the fix.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            "no such file", where=str(path), hint="write one, and try it with: aitrail map FILE"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read ({error})", where=str(path)) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not valid TOML: {error}", where=str(path)) from None
    return make_map(table, str(path))
