"""What is installed on the platforms: one pack per SIEM, made from the same rules and dashboards.

An emitter is a pure function: content in, ``{path below the pack's folder: bytes}`` out. The same content gives the
same bytes, on any day and machine.
"""

from collections.abc import Callable, Mapping

from msgspec import Struct

from aitrail.compiler.behavior import Behavior
from aitrail.compiler.dashboard import Dashboard
from aitrail.compiler.rule import Detection

Files = Mapping[str, bytes]


class Content(Struct, frozen=True):
    """What a pack is made from: shipped rules (no parts), in the order of their names, and pages by their number."""

    detections: tuple[Detection, ...]
    behaviors: tuple[Behavior, ...]
    dashboards: tuple[Dashboard, ...]


class Pack(Struct, frozen=True):
    """One pack.

    Attributes:
        folder: where it lies in the source tree, relative, e.g. ``splunk_app/aitrail``.
        emit: gives the files that are made; hand-written ones lie beside them.
        owned: patterns (``PurePath.match``) of paths that only the emitter writes: what it no longer gives is removed.
        archives: all files of the folder in, what goes to ``dist/`` out, by file name.
    """

    folder: str
    emit: Callable[[Content], dict[str, bytes]]
    owned: tuple[str, ...] = ()
    archives: Callable[[Files], dict[str, bytes]] | None = None
