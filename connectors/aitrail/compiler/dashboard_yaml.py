"""Read ``content/dashboards/*.yml``: one dashboard per file, described in ``content/dashboards/README.md``.

Every problem of every file is collected, each with file, line, reason and fix; nothing is returned when there is one.
What a panel measures is read by ``metric_yaml``; whether the form can show it is judged by ``dashboard_lint``.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from aitrail.compiler import dashboard_lint
from aitrail.compiler.dashboard import FILTERS, FORMS, GRID_COLUMNS, Dashboard, Drill, Panel, Section
from aitrail.compiler.load import seconds
from aitrail.compiler.located import Document, Place, read
from aitrail.compiler.metric import Listing, Metric
from aitrail.compiler.metric_yaml import read_query
from aitrail.compiler.problems import ContentError, Problem
from aitrail.schema.catalog import by_name

_NAME = re.compile(r"[a-z][a-z0-9_]{2,39}")
_BOARD = {
    "name": "usage",
    "number": "1",
    "title": "Who uses what",
    "description": "what the page answers and how to read it",
    "range": "7d",
    "filters": f"[{', '.join(FILTERS)}]",
    "sections": "[{title: ..., panels: [...]}]",
}
_PANEL = (
    *("id", "title", "form", "width", "height", "query", "value", "stacked", "tone", "thresholds"),
    *("drill", "help", "empty", "text"),
)
TONES = ("good_low", "good_high")
MAX_HEIGHT = 8


def load_dashboards(directory: Path) -> tuple[Dashboard, ...]:
    """Read all dashboards below ``directory``, in the order of their numbers; raises ``ContentError``."""
    found, problems = read_dashboards(directory)
    if problems:
        raise ContentError(problems)
    return found


def read_dashboards(directory: Path) -> tuple[tuple[Dashboard, ...], list[Problem]]:
    """Read all dashboards and give what is wrong beside what could be read."""
    problems: list[Problem] = []
    boards: list[tuple[Document, Dashboard]] = []
    for path in sorted(directory.glob("*.yml")):
        try:
            documents = read(path)
        except ContentError as error:
            problems += error.problems
            continue
        for document in documents:
            reader = _Reader(document)
            board = reader.board()
            problems += reader.problems
            if board is not None:
                boards.append((document, board))
    # What one broken panel would make look wrong elsewhere (rows, numbers) is judged when everything could be read.
    if not problems:
        problems = dashboard_lint.lint(boards)
    found = [board for _, board in boards]
    return tuple(sorted((_drilled(board, found) for board in found), key=lambda board: board.number)), problems


def _drilled(board: Dashboard, boards: list[Dashboard]) -> Dashboard:
    """The same with a way to the events for each panel that names none, and with what a click carries."""
    filters = {one.name: [field.name for field in one.filters] for one in boards}
    sections = tuple(
        msgspec.structs.replace(section, panels=tuple(_with_drill(panel, filters) for panel in section.panels))
        for section in board.sections
    )
    return msgspec.structs.replace(board, sections=sections)


def _with_drill(panel: Panel, filters: Mapping[str, list[str]]) -> Panel:
    if panel.query is None:
        return panel
    drill = panel.drill or Drill()
    if drill.carry or isinstance(panel.query, Listing):
        return msgspec.structs.replace(panel, drill=drill)
    carried = [field.name for field in panel.query.by]
    if drill.to != "events":
        carried = [name for name in carried if name in filters.get(drill.to, ())]
    return msgspec.structs.replace(panel, drill=Drill(drill.to, tuple(carried)))


class _Reader:
    """Reads one file and keeps what is wrong with it."""

    def __init__(self, document: Document) -> None:
        self.problems: list[Problem] = []
        self._document = document

    def board(self) -> Dashboard | None:
        data = self._document.data
        self._keys((), data, tuple(_BOARD))
        for key in ("name", "number", "title", "description", "filters", "sections"):
            if data.get(key) in (None, "", [], {}):
                self._wrong((key,), f"{key} is missing", f"{key}: {_BOARD[key]}")
        name, number = data.get("name"), data.get("number")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            self._wrong(("name",), f"{name!r} cannot name a dashboard", "a short name in snake_case")
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            self._wrong(("number",), "number is a whole number from 1", "number: 1")
        sections = self._sections(data.get("sections"))
        if self.problems:
            return None
        return Dashboard(
            name=str(name),
            number=int(str(number)),
            title=self._text((), "title"),
            description=self._text((), "description"),
            sections=sections,
            range=self._range(),
            filters=tuple(by_name()[one] for one in data["filters"] if self._filter(one)),
            path=self._document.path,
        )

    def _wrong(self, place: Place, reason: str, fix: str = "") -> None:
        self.problems.append(self._document.problem(place, reason, fix))

    def _keys(self, place: Place, data: Mapping[str, Any], known: tuple[str, ...]) -> None:
        for key in data:
            if key not in known:
                self._wrong((*place, key), f"unknown key {key!r}", f"known: {', '.join(known)}")

    def _at(self, place: Place) -> Any:
        found: Any = self._document.data
        for step in place:
            found = found[step]
        return found

    def _text(self, place: Place, key: str, *, needed: bool = True, lines: bool = False) -> str:
        value = self._at(place).get(key, "")
        if not isinstance(value, str) or (needed and not value.strip()):
            self._wrong((*place, key), f"{key} is missing or no text", f"{key}: ...")
            return ""
        return value.strip() if lines else " ".join(value.split())

    def _range(self) -> int:
        try:
            return seconds(str(self._document.data.get("range", "7d")), self._document, "range")
        except ContentError as error:
            self.problems += error.problems
            return 0

    def _filter(self, name: Any) -> bool:
        if name in FILTERS:
            return True
        self._wrong(("filters",), f"{name!r} cannot be filtered by", f"known: {', '.join(FILTERS)}")
        return False

    def _sections(self, data: Any) -> tuple[Section, ...]:
        if not isinstance(data, list):
            self._wrong(("sections",), "sections is a list", _BOARD["sections"])
            return ()
        found = []
        for number, section in enumerate(data):
            place = ("sections", number)
            if not isinstance(section, dict) or not isinstance(section.get("panels"), list):
                self._wrong(place, "a section has a title and panels", _BOARD["sections"])
                continue
            self._keys(place, section, ("title", "panels"))
            panels = [self._panel((*place, "panels", index)) for index in range(len(section["panels"]))]
            found.append(Section(self._text(place, "title"), tuple(one for one in panels if one is not None)))
        return tuple(found)

    def _panel(self, place: Place) -> Panel | None:
        data = self._at(place)
        if not isinstance(data, dict):
            self._wrong(place, "a panel is a mapping", "- id: calls")
            return None
        self._keys(place, data, _PANEL)
        name, form = data.get("id"), data.get("form")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            self._wrong((*place, "id"), f"{name!r} cannot name a panel", "a short name in snake_case")
        if form not in FORMS:
            self._wrong((*place, "form"), f"unknown form {form!r}", f"known: {', '.join(FORMS)}")
            return None
        plain = form == "text"
        return Panel(
            id=str(name),
            title=self._text(place, "title"),
            form=form,
            help=self._text(place, "help"),
            width=self._size(place, "width", 4, GRID_COLUMNS),
            height=self._size(place, "height", 3, MAX_HEIGHT),
            query=self._query(place, plain=plain),
            value=self._text(place, "value", needed=False),
            stacked=data.get("stacked") is True,
            tone=self._tone(place),
            thresholds=self._thresholds(place),
            drill=self._drill(place),
            empty=self._text(place, "empty", needed=not plain),
            text=self._text(place, "text", needed=plain, lines=True),
        )

    def _query(self, place: Place, *, plain: bool) -> Metric | Listing | None:
        there = "query" in self._at(place)
        if plain or not there:
            if plain == there:
                reason = "a text has no query" if plain else "the panel has no query"
                self._wrong((*place, "query"), reason, "remove it" if plain else "query: {values: {calls: count}}")
            return None
        try:
            return read_query(self._document, (*place, "query"))
        except ContentError as error:
            self.problems += error.problems
            return None

    def _size(self, place: Place, key: str, default: int, most: int) -> int:
        value = self._at(place).get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            self._wrong((*place, key), f"{key} is a whole number from 1 to {most}", f"{key}: {default}")
            return default
        return value

    def _tone(self, place: Place) -> Any:
        value = self._at(place).get("tone", "")
        if value and value not in TONES:
            self._wrong((*place, "tone"), f"unknown tone {value!r}", f"known: {', '.join(TONES)}")
            return ""
        return value

    def _thresholds(self, place: Place) -> tuple[float, ...]:
        value = self._at(place).get("thresholds", [])
        numbers = isinstance(value, list) and all(isinstance(one, int | float) and one is not True for one in value)
        if not numbers or len(value) not in (0, 2):
            self._wrong((*place, "thresholds"), "thresholds are two numbers", "thresholds: [1, 10]: warning, alarm")
            return ()
        return tuple(map(float, value))

    def _drill(self, place: Place) -> Drill | None:
        value = self._at(place).get("drill")
        if value is None:
            return None
        carry = value.get("carry", []) if isinstance(value, dict) else None
        if not isinstance(carry, list) or not isinstance(value.get("to", "events"), str):
            self._wrong(
                (*place, "drill"), "drill says where to and what to carry", "drill: {to: events, carry: [model]}"
            )
            return None
        self._keys((*place, "drill"), value, ("to", "carry"))
        return Drill(value.get("to", "events"), tuple(map(str, carry)))
