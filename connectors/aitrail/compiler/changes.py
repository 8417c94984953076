"""What differs between two builds of the content: per rule and target, as people read it."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

QUERIES = "queries.json"
_RULES = "duckdb.json"
# What a compiled rule repeats of its query, or what changes with everything else.
_NOT_ABOUT = ("query", "version", "name")

Kind = Literal["added", "removed", "changed"]


class Change(Struct, frozen=True):
    """One difference.

    Attributes:
        what: the rule's name, or that of an artefact that is not about rules.
        target: ``about`` (title, severity, tags, response ...), a language, or empty for the whole.
        lines: of a unified diff, without its head; empty when something is new or gone as a whole.
    """

    kind: Kind
    what: str
    target: str
    lines: tuple[str, ...] = ()


def changes(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> Iterator[Change]:
    """Give what changed from one set of artefacts to another, rules by name, then the other files.

    Raises:
        msgspec.DecodeError: a file of ``before`` is not what a build writes.
    """
    old, new = _by_rule(before), _by_rule(after)
    for name in sorted(old.keys() | new.keys()):
        if name not in old or name not in new:
            yield Change("added" if name in new else "removed", name, "")
        else:
            yield from _rule(name, old[name], new[name])
    for file in sorted((before.keys() | after.keys()) - {QUERIES, _RULES}):
        if file not in before or file not in after:
            yield Change("added" if file in after else "removed", file, "")
        elif before[file] != after[file]:
            lines = _lines(before[file].decode(errors="replace"), after[file].decode(errors="replace"))
            yield Change("changed", file, "", lines)


def _by_rule(artefacts: Mapping[str, bytes]) -> dict[str, dict[str, str]]:
    """Rule -> target -> text."""
    found: dict[str, dict[str, str]] = {}
    for rule in msgspec.json.decode(artefacts.get(_RULES, b"[]"), type=list[dict[str, Any]]):
        about = {key: value for key, value in rule.items() if key not in _NOT_ABOUT}
        found[str(rule["name"])] = {"about": _text(about)}
    queries = msgspec.json.decode(artefacts.get(QUERIES, b"{}"), type=dict[str, dict[str, dict[str, str]]])
    for name, targets in queries.items():
        for target, parts in targets.items():
            text = f"{parts.get('method', '')}\n{parts.get('schedule', '')}\n{parts.get('query', '')}"
            found.setdefault(name, {})[target] = text
    return found


def _text(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=1).decode()


def _rule(name: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[Change]:
    for target in sorted(old.keys() | new.keys()):
        if target not in old or target not in new:
            yield Change("added" if target in new else "removed", name, target)
        elif old[target] != new[target]:
            yield Change("changed", name, target, _lines(old[target], new[target]))


def _lines(old: str, new: str) -> tuple[str, ...]:
    return tuple(difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=1))[2:]
