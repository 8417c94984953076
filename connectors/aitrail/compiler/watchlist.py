"""Lists that an organisation keeps, put into rules when these are compiled: the same in every engine, no lookups.

A value ``'%name%'`` under the modifier ``expand`` (Sigma, "Modifiers: expand") stands for the lines of ``name.txt``: in
the folder ``watchlists`` beside the rule, else in ``content/watchlists``. A line that begins with ``#`` is a remark.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aitrail.compiler.located import Document, Place
from aitrail.compiler.problems import ContentError
from aitrail.contentdir import content_path

_NAMED = re.compile(r"%([a-z][a-z0-9_]*)%")


def expanded(document: Document) -> Document:
    """The document with the lines of its lists in the place of their names.

    Raises:
        ContentError: a list is not there, is empty or is not UTF-8, or a value under ``expand`` names none.
    """
    detection = document.data.get("detection")
    if not isinstance(detection, dict) or "|expand" not in str(detection):
        return document
    made = {name: _section(document, ("detection", name), part) for name, part in detection.items()}
    lines = {tuple(_plain(step) for step in place): line for place, line in document.lines.items()}
    return Document(document.path, {**document.data, "detection": made}, lines)


def _section(document: Document, place: Place, part: Any) -> Any:
    if isinstance(part, list):
        return [_section(document, (*place, number), one) for number, one in enumerate(part)]
    if not isinstance(part, dict):
        return part
    return dict(_item(document, (*place, key), key, value) for key, value in part.items())


def _item(document: Document, place: Place, key: str, value: Any) -> tuple[str, Any]:
    if "expand" not in key.split("|")[1:]:
        return key, value
    values = value if isinstance(value, list) else [value]
    return str(_plain(key)), [line for one in values for line in _lines(document, place, one)]


def _plain(step: str | int) -> str | int:
    if isinstance(step, int):
        return step
    name, *modifiers = step.split("|")
    return "|".join([name, *(modifier for modifier in modifiers if modifier != "expand")])


def _lines(document: Document, place: Place, value: Any) -> Iterator[str]:
    named = _NAMED.fullmatch(str(value))
    if named is None:
        problem = document.problem(place, f"{value!r} names no list", "write '%name%' under |expand")
        raise ContentError([problem])
    path = _path(document, named[1])
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        problem = document.problem(place, f"there is no readable list {named[1]!r}", f"write {path}, a line per value")
        raise ContentError([problem]) from None
    found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not found:
        raise ContentError([document.problem(place, f"the list {named[1]!r} is empty", f"add a line to {path}")])
    yield from found


def _path(document: Document, name: str) -> Path:
    own = document.path.parent / "watchlists" / f"{name}.txt"
    return own if own.is_file() else content_path("watchlists", f"{name}.txt")
