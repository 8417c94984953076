"""The searches of the app's pages, run: the engine's commands and those that shape a result for drawing.

Written from the "Search Reference", as strictly as the engine: xyseries, fillnull, appendcols, append of made-up rows,
rename of plain fields.
"""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from parity import splunk_engine as engine
from parity.expressions import BadQueryError, stages
from parity.splunk_engine import Range, Row

_APPENDED = "\n| appendcols [search "
_RENAMED = re.compile(r'(\w+) AS ("[^"]+"|\w+)')


def shown(query: str, rows: Sequence[Row], bounds: Range) -> list[Row]:
    """Run a page's search; tokens are replaced before."""
    before, _, rest = query.partition(_APPENDED)
    # A subsearch of the search's own belongs to its first stage.
    head, *others = before.split("\n| ")
    found = engine.spl(head, rows, bounds)
    for stage in others:
        found = _run(stage, found, bounds)
    if not rest:
        return found
    inner, after = _bracketed(rest)
    beside = shown(_lined(inner), rows, bounds)
    found = [{**more, **row} for row, more in zip(found, beside, strict=True)]
    for stage in after.split("\n| ")[1:]:
        found = _run(stage, found, bounds)
    return found


def _bracketed(text: str) -> tuple[str, str]:
    depth = 1
    for place, char in enumerate(text):
        depth += {"[": 1, "]": -1}.get(char, 0)
        if not depth:
            return text[:place], text[place + 1 :]
    raise BadQueryError("a bracket is not closed")


def _lined(text: str) -> str:
    """One stage a line again, as searches are written; a subsearch stays on its line."""
    inside = re.search(r"\[[^\]]*\]", text)
    held = inside[0] if inside else ""
    return (
        text.replace(held, "\0", 1).replace(" | ", "\n| ").replace("\0", held) if held else text.replace(" | ", "\n| ")
    )


def _run(stage: str, rows: list[Row], bounds: Range) -> list[Row]:
    if len(stages(stage)) != 1 and not stage.startswith("append ["):
        raise BadQueryError(f"a pipe without a line: {stage}")
    command, _, text = stage.partition(" ")
    if command == "addinfo":
        return engine._addinfo(engine.parser(text), rows, bounds)
    if command == "append":
        return rows + _made_up(text, bounds)
    if command in _SHAPES:
        return _SHAPES[command](text, rows)
    return engine._COMMANDS[command](engine.parser(text), rows)


def _made_up(text: str, bounds: Range) -> list[Row]:
    """A subsearch that begins with one row of nothing."""
    if not (text.startswith("[| makeresults | ") and text.endswith("]")):
        raise BadQueryError(text)
    found: list[Row] = [{}]
    for stage in stages(text[len("[| makeresults | ") : -1]):
        found = _run(stage, found, bounds)
    return found


def _rename(text: str, rows: list[Row]) -> list[Row]:
    if "{}" in text:
        return engine._rename(text, rows)
    names = dict(_RENAMED.findall(text))
    if ", ".join(f"{old} AS {new}" for old, new in names.items()) != text:
        raise BadQueryError(text)
    return [{names.get(key, key).strip('"'): item for key, item in row.items()} for row in rows]


def _xyseries(text: str, rows: list[Row]) -> list[Row]:
    down, across, value = text.split(" ")
    made: dict[str, Row] = {}
    for row in rows:
        made.setdefault(json.dumps(row[down]), {down: row[down]})[str(row[across])] = row.get(value)
    return list(made.values())


def _fillnull(text: str, rows: list[Row]) -> list[Row]:
    if text != "value=0":
        raise BadQueryError(text)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [{name: 0 if row.get(name) is None else row[name] for name in names} for row in rows]


_SHAPES: dict[str, Callable[[str, list[Row]], list[Row]]] = {
    "rename": _rename,
    "xyseries": _xyseries,
    "fillnull": _fillnull,
}


def plain(item: Any) -> Any:
    """A value as a search result holds it: a text, or several."""
    if isinstance(item, list):
        return [str(one) for one in item]
    return None if item is None else str(item)
