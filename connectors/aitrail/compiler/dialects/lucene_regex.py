"""From the portable expressions (RE2) to Lucene's, which ES|QL's ``RLIKE`` takes.

Facts (Elasticsearch, "Regular expression syntax"): the whole value must match, there are no anchors, ``.`` is any
character, and ``" # @ & < > ~`` are operators. So what is open at an end gets ``.*`` there, and operators are escaped.
"""

from aitrail.compiler.problems import Unsupported

_OPERATORS = frozenset('"#@&<>~')
_ANY = "[^\n]"  # RE2's dot


def whole(pattern: str, target: str) -> str:
    """Give the Lucene expression that matches the values in which ``pattern`` is found.

    Raises:
        Unsupported: an anchor that is not at an end, an escape of a letter or digit, a class by name.
    """
    start, end = pattern.startswith("^"), _ends_anchored(pattern)
    body = pattern[1 if start else 0 : -1 if end else None]
    translated, top_level_or = _translate(body, target)
    if top_level_or:
        if start or end:
            raise Unsupported(target, "an anchor beside alternatives: put the alternatives in parentheses")
        translated = f"({translated})"
    return ("" if start else ".*") + translated + ("" if end else ".*")


def _ends_anchored(pattern: str) -> bool:
    before = pattern[:-1]
    slashes = len(before) - len(before.rstrip("\\"))
    return pattern.endswith("$") and slashes % 2 == 0


def _translate(body: str, target: str) -> tuple[str, bool]:
    out: list[str] = []
    depth, place, alternatives = 0, 0, False
    while place < len(body):
        char = body[place]
        if char == "\\":
            piece, place = _escape(body, place, target)
        elif char == "[":
            piece, place = _class(body, place, target)
        elif char in "^$":
            raise Unsupported(target, "an anchor inside an expression")
        else:
            alternatives = alternatives or (char == "|" and depth == 0)
            depth += (char == "(") - (char == ")")
            piece = _ANY if char == "." else "\\" + char if char in _OPERATORS else char
            place += 3 if body.startswith("(?:", place) else 1
        out.append(piece)
    return "".join(out), alternatives


def _escape(body: str, place: int, target: str) -> tuple[str, int]:
    pair = body[place : place + 2]
    if pair[-1].isalnum():
        raise Unsupported(target, f"the escape {pair} in an expression")
    return pair, place + 2


def _class(body: str, place: int, target: str) -> tuple[str, int]:
    """Copy a class; Lucene reads escapes in it as RE2 does."""
    out, place = ["["], place + 1
    if body[place] == "^":
        out.append("^")
        place += 1
    first = True
    while first or body[place] != "]":
        if body.startswith("[:", place):
            raise Unsupported(target, "a class by name in an expression")
        if body[place] == "\\":
            piece, place = _escape(body, place, target)
        else:
            char = body[place]
            piece = "\\" + char if char in _OPERATORS or char in "[]^" else char
            place += 1
        out.append(piece)
        first = False
    return "".join(out) + "]", place + 1
