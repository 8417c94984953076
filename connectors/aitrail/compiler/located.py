"""YAML with the line of every key, so that the linter can point at what is wrong."""

from pathlib import Path
from typing import Any

import yaml
from msgspec import Struct

from aitrail.compiler.problems import ContentError, Problem

Place = tuple[str | int, ...]


class Document(Struct, frozen=True):
    """One YAML document: plain data and where each part of it stands."""

    path: Path
    data: dict[str, Any]
    lines: dict[Place, int]

    def line(self, *place: str | int) -> int:
        """The line of ``place`` or of what encloses it."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def problem(self, place: Place, reason: str, fix: str = "") -> Problem:
        """A problem at ``place``."""
        return Problem(self.path, self.line(*place), reason, fix)


def read(path: Path) -> list[Document]:
    """Read all documents of a file.

    Raises:
        ContentError: not UTF-8, not YAML, a key twice, or a document that is no mapping.
    """
    try:
        nodes = [node for node in yaml.compose_all(path.read_text(encoding="utf-8"), yaml.SafeLoader) if node]
    except UnicodeDecodeError:
        raise ContentError([Problem(path, 1, "the file is not UTF-8 text", "save it as UTF-8")]) from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ContentError(
            [Problem(path, line, f"not YAML: {error.problem}", "check indentation and quotes")]
        ) from None
    except yaml.YAMLError as error:
        raise ContentError([Problem(path, 1, f"not YAML: {type(error).__name__}")]) from None
    return [_document(path, node) for node in nodes]


def _document(path: Path, node: yaml.Node) -> Document:
    lines: dict[Place, int] = {}
    problems: list[Problem] = []
    data = _plain(path, node, (), lines, problems)
    if not isinstance(data, dict):
        problems.append(Problem(path, node.start_mark.line + 1, "a document must be a mapping"))
    if problems:
        raise ContentError(problems)
    return Document(path, data, lines)


def _plain(path: Path, node: yaml.Node, place: Place, lines: dict[Place, int], problems: list[Problem]) -> Any:
    lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key, value in node.value:
            name = str(key.value)
            line = key.start_mark.line + 1
            if name in found:
                problems.append(Problem(path, line, f"the key {name!r} is there twice", "keep one of them"))
            lines[(*place, name)] = line
            found[name] = _plain(path, value, (*place, name), lines, problems)
        return found
    if isinstance(node, yaml.SequenceNode):
        return [_plain(path, item, (*place, index), lines, problems) for index, item in enumerate(node.value)]
    constructor = yaml.SafeLoader("")
    # A date is what people write in `date:`; everywhere else a text stays a text.
    return node.value if node.tag.endswith(":timestamp") else constructor.construct_object(node)
