"""What Splunk does with the SPL that the dialect emits, on events as the HTTP Event Collector indexes them.

Written from Splunk's "Search Reference": the grammar of the commands, options and functions that are used here, and no
more. Where the documentation is silent the engine is strict: a null under AND, OR or NOT is an error, so is a backslash
before what is neither a quote nor a backslash in a pattern of ``like``, and a value of several under a comparison.
"""

import ipaddress
import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from parity.expressions import BadQueryError, Parser, stages, tokens

Row = dict[str, Any]
NOW = 1_800_000_000


class Extracted(str):
    """The value of a field: a text that counts as a number where it looks like one."""

    __slots__ = ()


def unquote(text: str) -> str:
    return re.sub(r'\\([\\"])', r"\1", text)


def parser(text: str) -> Parser:
    return Parser(tokens(text), unquote)


# --- events


def indexed(event: dict[str, Any], seconds: float, sourcetype: str = "ai:access:audit") -> Row:
    """One event with its fields: everything is text, arrays are named with braces, the id stands there twice.

    ``action`` is what the app calculates for the data models: no word of an event, so that a search for one finds none.
    """
    row: Row = {"_time": seconds, "_raw": json.dumps(event), "sourcetype": sourcetype}
    for name, item in event.items():
        if isinstance(item, list | tuple):
            texts = [Extracted(one) for one in item]
            row[name + "{}"] = texts if len(texts) > 1 else texts[0]
        else:
            row[name] = Extracted(item if isinstance(item, str) else json.dumps(item))
    row["source"] = "http:aitrail"
    for name in ("source", "action"):
        if event.get(name):
            # As props.conf extracts it: not unescaped.
            alias = {"source": "event_source", "action": "vendor_action"}[name]
            row[alias] = Extracted(json.dumps(event[name], ensure_ascii=False)[1:-1])
    row["action"] = "allowed"
    row["event_id"] = [row["event_id"], row["event_id"]]
    return row


# --- search

_TERM = re.compile(
    r"""\s*(?:(?P<macro>`aitrail_index`)|(?P<paren>[()])|(?P<word>OR|NOT)(?=[\s(])"""
    r"""|(?P<field>\w+(?:\{\})?)(?:\s+(?P<in>IN)\s+\((?P<list>[^)]*)\)"""
    r"""|(?P<op>=|>=|<=|>|<)(?P<value>"[^"\\`]*"|[\w.*-]+)))"""
)


class _Search:
    """Terms side by side are AND; OR binds closer than that, NOT closest ("search command: order of evaluation")."""

    def __init__(self, text: str) -> None:
        self._terms: list[re.Match[str]] = []
        place = 0
        while place < len(text):
            match = _TERM.match(text, place)
            if match is None:
                raise BadQueryError(text[place:])
            self._terms.append(match)
            place = match.end()
        self._place = 0
        self.tree = self._all()
        if self._place != len(self._terms):
            raise BadQueryError(text)

    def _peek(self, group: str) -> str | None:
        return self._terms[self._place][group] if self._place < len(self._terms) else None

    def _all(self) -> Any:
        items = [self._any()]
        while self._place < len(self._terms) and self._peek("paren") != ")":
            items.append(self._any())
        return ("all", items)

    def _any(self) -> Any:
        items = [self._one()]
        while self._peek("word") == "OR":
            self._place += 1
            items.append(self._one())
        return ("any", items)

    def _one(self) -> Any:
        if self._peek("word") == "NOT":
            self._place += 1
            return ("not", self._one())
        term = self._terms[self._place]
        self._place += 1
        if term["paren"] == "(":
            inner = self._all()
            if self._peek("paren") != ")":
                raise BadQueryError("a parenthesis is not closed")
            self._place += 1
            return inner
        if term["macro"]:
            return ("all", [])
        if term["in"]:
            return ("any", [("=", term["field"], part.strip().strip('"')) for part in term["list"].split(",")])
        return (term["op"], term["field"], term["value"].strip('"'))


def _searched(tree: Any, row: Row) -> bool:
    if tree[0] in ("all", "any"):
        return (all if tree[0] == "all" else any)(_searched(item, row) for item in tree[1])
    if tree[0] == "not":
        return not _searched(tree[1], row)
    operator, field, wanted = tree
    held = row.get(field)
    items = held if isinstance(held, list) else [] if held is None else [held]
    return any(_term(operator, str(item), wanted) for item in items)


def _term(operator: str, item: str, wanted: str) -> bool:
    left, right = _number(Extracted(item)), _number(Extracted(wanted))
    if left is not None and right is not None:
        return {"=": left == right, ">": left > right, ">=": left >= right, "<": left < right, "<=": left <= right}[
            operator
        ]
    if operator != "=":
        return right is None and _fail(f"{wanted!r} is no number")
    pattern = ".*".join(map(re.escape, wanted.split("*")))
    return re.fullmatch(pattern, item, re.IGNORECASE | re.DOTALL) is not None


def _fail(why: str) -> bool:
    raise BadQueryError(why)


# --- expressions of eval and where


def _number(item: Any) -> float | None:
    if isinstance(item, bool):
        return None
    if isinstance(item, int | float):
        return item
    if isinstance(item, Extracted) and re.fullmatch(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?", item):
        return float(item) if re.search(r"[.eE]", item) else int(item)
    return None


def value(tree: Any, row: Row) -> Any:
    return _EVALUATE[tree[0]](tree, row)


def _truth(tree: Any, row: Row) -> bool:
    found = value(tree, row)
    if not isinstance(found, bool):
        raise BadQueryError(f"{found!r} is neither true nor false: {tree}")
    return found


def _compare(tree: Any, row: Row) -> Any:
    left, right = value(tree[1], row), value(tree[2], row)
    if left is None or right is None:
        return None
    if isinstance(left, list) or isinstance(right, list):
        raise BadQueryError("several values in a comparison")
    numbers = _number(left), _number(right)
    if numbers[0] is not None and numbers[1] is not None:
        left, right = numbers
    elif tree[0] not in ("==", "!="):
        raise BadQueryError(f"{left!r} {tree[0]} {right!r}")
    else:
        left, right = str(left), str(right)
    if tree[0] in ("==", "!="):
        return (left == right) is (tree[0] == "==")
    return {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[tree[0]]


def _arithmetic(tree: Any, row: Row) -> Any:
    left, right = (_number(value(item, row)) for item in tree[1:])
    if left is None or right is None:
        return None
    return {"+": left + right, "-": left - right, "*": left * right}[tree[0]] if tree[0] != "/" else left / right


def _joined(tree: Any, row: Row) -> Any:
    left, right = value(tree[1], row), value(tree[2], row)
    if left is None or right is None:
        return None
    if isinstance(left, list) or isinstance(right, list):
        raise BadQueryError("several values are joined")
    return f"{left}{right}"


def _call(tree: Any, row: Row) -> Any:
    function, arguments = tree[1], tree[2]
    if function in _LAZY:
        return _LAZY[function](arguments, row)
    return _FUNCTIONS[function](*(value(argument, row) for argument in arguments))


def _if(arguments: list[Any], row: Row) -> Any:
    test, then, other = arguments
    return value(then if value(test, row) is True else other, row)


def _case(arguments: list[Any], row: Row) -> Any:
    for test, then in zip(arguments[::2], arguments[1::2], strict=True):
        if _truth(test, row):
            return value(then, row)
    return None


def _names(tree: Any) -> set[str]:
    if isinstance(tree, tuple) and tree[0] == "name":
        return {tree[1]}
    return {name for item in tree for name in _names(item)} if isinstance(tree, tuple | list) else set()


def _mvfilter(arguments: list[Any], row: Row) -> Any:
    (name,) = _names(arguments[0])  # the test may read one field only
    held = row.get(name)
    items = held if isinstance(held, list) else [] if held is None else [held]
    kept = [item for item in items if _truth(arguments[0], {name: item})]
    return (kept if len(kept) > 1 else kept[0]) if kept else None


def _like(text: Any, pattern: str) -> bool | None:
    if text is None:
        return None
    if "\\" in pattern:
        raise BadQueryError("a backslash in a pattern of like")
    expression = "".join({"%": ".*", "_": "."}.get(char) or re.escape(char) for char in pattern)
    return re.fullmatch(expression, text, re.DOTALL) is not None


def _split(text: Any, by: str) -> Any:
    if text in (None, ""):
        return None
    found = text.split(by)
    return found if len(found) > 1 else found[0]


def _substr(text: str | None, start: int, length: int | None = None) -> str | None:
    if text is None:
        return None
    place = start - 1 if start > 0 else max(len(text) + start, 0)
    return text[place:] if length is None else text[place : place + length]


def _mvappend(*items: Any) -> Any:
    found = [one for item in items if item is not None for one in (item if isinstance(item, list) else [item])]
    return (found if len(found) > 1 else found[0]) if found else None


def _cidrmatch(network: str, address: str) -> bool:
    known, held = ipaddress.ip_network(network), ipaddress.ip_address(address)
    if known.version != held.version:
        raise BadQueryError("an address of the other version")
    return held in known


_LAZY: dict[str, Callable[[list[Any], Row], Any]] = {"if": _if, "case": _case, "mvfilter": _mvfilter}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "coalesce": lambda *items: next((item for item in items if item is not None), None),
    "lower": lambda text: None if text is None else str(text).lower(),
    "like": _like,
    "split": _split,
    "mvcount": lambda item: None if item is None else len(item) if isinstance(item, list) else 1,
    "mvindex": lambda item, place: item[place] if isinstance(item, list) else item,
    "mvappend": _mvappend,
    "mvrange": lambda start, end, step: _mvappend(
        *(Extracted(one) for one in range(int(start), math.ceil(end), int(step)))
    ),
    "tonumber": lambda item: _number(Extracted(str(item))),
    "isnull": lambda item: item is None,
    "isnotnull": lambda item: item is not None,
    "null": lambda: None,
    "true": lambda: True,
    "match": lambda text, pattern: None if text is None else re.search(pattern, text, re.ASCII) is not None,
    "substr": _substr,
    "cidrmatch": _cidrmatch,
    "round": lambda number, digits=0: None if number is None else round(number, digits),
    "floor": math.floor,
    "len": lambda text: None if text is None else len(text),
    "mvdedup": lambda item: list(dict.fromkeys(item)) if isinstance(item, list) else item,
    "now": lambda: NOW,
    "min": lambda *items: min(item for item in items if item is not None),
    "json_extract": lambda text, path: json.loads(text).get(path),
}

_EVALUATE: dict[str, Callable[[Any, Row], Any]] = {
    "lit": lambda tree, _: tree[1],
    "name": lambda tree, row: row.get(tree[1]),
    "call": _call,
    # Both sides, so that a null on either is seen.
    "and": lambda tree, row: all([_truth(tree[1], row), _truth(tree[2], row)]),
    "or": lambda tree, row: any([_truth(tree[1], row), _truth(tree[2], row)]),
    "not": lambda tree, row: not _truth(tree[1], row),
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">="), _compare),
    ".": _joined,
    **dict.fromkeys(("+", "-", "*", "/"), _arithmetic),
}


# --- commands


Range = tuple[float, float | None]
_SUBSEARCH = re.compile(
    r" \[\| makeresults \| addinfo \| (eval [^|]+) \| (eval [^|]+) \| (eval [^|]+) \| return earliest latest\]"
)


def _limited(query: str, rows: Sequence[Row], bounds: Range) -> tuple[str, list[Row]]:
    """The events of the search's range, or of the one that a subsearch returns."""
    since, until = bounds
    subsearch = _SUBSEARCH.search(query)
    if subsearch:
        found = _addinfo(parser(""), [{}], bounds)
        for stage in subsearch.groups():
            found = _eval(parser(stage.removeprefix("eval ")), found)
        since, until = found[0]["earliest"], found[0]["latest"]
        query = query.replace(subsearch[0], "")
    return query, [row for row in rows if row["_time"] >= since and (until is None or row["_time"] < until)]


def _addinfo(found: Parser, rows: list[Row], bounds: Range) -> list[Row]:
    _end(found)
    for row in rows:
        row["info_min_time"] = bounds[0]
        row["info_max_time"] = "+Infinity" if bounds[1] is None else bounds[1]
    return rows


def spl(query: str, rows: Sequence[Row], bounds: Range = (-math.inf, None)) -> list[Row]:
    """Run a search over a range of time; events come newest first, as Splunk gives them."""
    query, rows = _limited(query, rows, bounds)
    first, *rest = stages(query)
    tree = _Search(first).tree
    found = [dict(row) for row in sorted(rows, key=lambda row: -row["_time"]) if _searched(tree, row)]
    for stage in rest:
        command, _, text = stage.partition(" ")
        if command == "addinfo":
            found = _addinfo(parser(text), found, bounds)
        else:
            found = _COMMANDS[command](parser(text) if command != "rename" else text, found)
    return found


def _end(found: Parser) -> None:
    if not found.done:
        raise BadQueryError(f"{found.peek()!r} is left over")


def _list(found: Parser) -> list[str]:
    names = [found.word()]
    while found.taken(","):
        names.append(found.word())
    return names


def _where(found: Parser, rows: list[Row]) -> list[Row]:
    tree = found.expression()
    _end(found)
    return [row for row in rows if _truth(tree, row)]


def _eval(found: Parser, rows: list[Row]) -> list[Row]:
    while True:
        name = found.word()
        found.take("=")
        tree = found.expression()
        for row in rows:
            row[name] = value(tree, row)
            if row[name] is None:
                del row[name]
            elif isinstance(row[name], bool):
                raise BadQueryError("a field cannot hold a boolean")
        if not found.taken(","):
            _end(found)
            return rows


def _rename(text: str, rows: list[Row]) -> list[Row]:
    for part in text.split(", "):
        match = re.fullmatch(r'"(\w+\{\})" AS (\w+)', part)
        if match is None:
            raise BadQueryError(part)
        for row in rows:
            if match[1] in row:
                row[match[2]] = row.pop(match[1])
    return rows


def _dedup(found: Parser, rows: list[Row]) -> list[Row]:
    name = found.word()
    _end(found)
    # Events without the field are left out.
    kept = {json.dumps(row[name]): row for row in reversed(rows) if name in row}
    return list(reversed(kept.values()))


def _table(found: Parser, rows: list[Row]) -> list[Row]:
    names = _list(found)
    _end(found)
    return [{name: row[name] for name in names if name in row} for row in rows]


def _mvexpand(found: Parser, rows: list[Row]) -> list[Row]:
    name = found.word()
    _end(found)
    return [
        {**row, name: item} for row in rows for item in (row[name] if isinstance(row.get(name), list) else [row[name]])
    ]


def _sort(found: Parser, rows: list[Row]) -> list[Row]:
    found.take("0")  # without it, sort keeps 10,000 rows
    if found.peek() in ("+", "-") and found.peek(1) in ("num", "str"):
        return _sort_typed(found, rows)
    down = found.taken("-")
    names = _list(found)
    _end(found)
    return sorted(rows, key=lambda row: [row[name] for name in names], reverse=down)


def _sort_typed(found: Parser, rows: list[Row]) -> list[Row]:
    """Each key with its direction and type; a missing one counts as the smallest, or as the largest going up."""
    orders = []
    while True:
        down = found.take("+", "-") == "-"
        kind = found.take("num", "str")
        found.take("(")
        orders.append((down, kind, found.word()))
        found.take(")")
        if not found.taken(","):
            break
    _end(found)
    for down, kind, name in reversed(orders):
        there = [row for row in rows if name in row]
        gone = [row for row in rows if name not in row]
        there.sort(key=lambda row: _key(kind, row[name]), reverse=down)
        rows = there + gone
    return rows


def _key(kind: str, item: Any) -> Any:
    if isinstance(item, list):
        raise BadQueryError("sorted by several values")
    if kind == "str":
        return str(item)
    number = _number(item)
    if number is None:
        raise BadQueryError(f"{item!r} is no number")
    return number


def _head(found: Parser, rows: list[Row]) -> list[Row]:
    count = int(found.take())
    _end(found)
    return rows[:count]


_Aggregates = list[tuple[str, Any, str]]


def _aggregates(found: Parser) -> tuple[_Aggregates, list[str]]:
    aggregates: _Aggregates = []
    while True:
        tree = found.expression()
        if tree == ("name", "count"):
            tree = ("call", "count", [("lit", 1)])
        _, function, (argument,) = tree
        found.take("AS")
        inner = argument[2][0] if argument[:2] == ("call", "eval") else argument
        aggregates.append((function, inner, found.word()))
        if not found.taken(","):
            break
    keys = _list(found) if found.taken("BY") else []
    _end(found)
    return aggregates, keys


def _aggregate(function: str, items: list[Any]) -> Any:
    if function in ("last", "earliest"):  # rows are newest first
        return items[-1] if items else None
    if function == "count":
        return len(items)
    if function == "dc":
        return len({str(one) for item in items for one in (item if isinstance(item, list) else [item])})
    numbers = sorted(number for item in items if (number := _number(item)) is not None)
    if len(numbers) != len(items):
        raise BadQueryError(f"{function} of what is no number")
    if function.startswith("perc") and numbers:
        return numbers[round((len(numbers) - 1) * int(function[4:]) / 100)]
    return _NUMERIC[function](numbers) if numbers else None


_NUMERIC: dict[str, Callable[[list[float]], float]] = {
    "sum": sum,
    "max": max,
    "min": min,
    "avg": lambda numbers: sum(numbers) / len(numbers),
}


def _stats(found: Parser, rows: list[Row]) -> list[Row]:
    """One row per group; rows without a key are in none; without keys one row when something is counted."""
    aggregates, keys = _aggregates(found)
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if any(isinstance(row.get(key), list) for key in keys):
            raise BadQueryError("grouped by several values")
        if all(key in row for key in keys):
            groups.setdefault(tuple(str(row[key]) for key in keys), []).append(row)
    if not keys and any(function in ("count", "dc") for function, _, _ in aggregates):
        groups.setdefault((), [])
    return [_group_row(keys, group, aggregates) for group in groups.values()]


def _group_row(keys: list[str], group: list[Row], aggregates: _Aggregates) -> Row:
    made = {key: group[0][key] for key in keys}
    for function, tree, name in aggregates:
        found = _aggregate(function, [item for row in group if (item := value(tree, row)) is not None])
        if found is not None:
            made[name] = found
    return made


def _streamstats(found: Parser, rows: list[Row]) -> list[Row]:
    """Row by row: over all rows of the group so far (``window=0``), or (``current=f window=1``) the one before."""
    before = found.peek() == "current"
    if before:
        for option in ("current", "f"), ("window", "1"), ("global", "f"):
            found.take(option[0])
            found.take("=")
            found.take(option[1])
    else:
        for token in ("window", "=", "0"):
            found.take(token)
    aggregates, keys = _aggregates(found)
    if not keys:
        return _ranked(aggregates, rows)
    seen: dict[tuple[Any, ...], list[Any]] = {}
    for row in rows:
        if any(key not in row for key in keys):
            continue
        held = seen.setdefault(tuple(str(row[key]) for key in keys), [None] * len(aggregates))
        for place, (function, tree, name) in enumerate(aggregates):
            item, earlier = value(tree, row), held[place]
            if item is not None:
                known = [] if earlier is None or (before and function != "last") else [earlier]
                held[place] = _aggregate(function, [*known, item])
            shown = earlier if before else held[place]
            if shown is not None:
                row[name] = shown
    return rows


def _ranked(aggregates: _Aggregates, rows: list[Row]) -> list[Row]:
    """How many distinct values there are so far."""
    ((function, tree, name),) = aggregates
    if function != "dc":
        raise BadQueryError(f"streamstats {function} without groups")
    seen: set[Any] = set()
    for row in rows:
        seen.add(value(tree, row))
        row[name] = len(seen)
    return rows


def _eventstats(found: Parser, rows: list[Row]) -> list[Row]:
    aggregates, keys = _aggregates(found)
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(str(row[key]) for key in keys), []).append(row)
    for group in groups.values():
        for function, tree, name in aggregates:
            found_value = _aggregate(function, [item for row in group if (item := value(tree, row)) is not None])
            for row in group:
                if found_value is not None:
                    row[name] = found_value
    return rows


_COMMANDS: dict[str, Callable[[Any, list[Row]], list[Row]]] = {
    "where": _where,
    "eval": _eval,
    "rename": _rename,
    "dedup": _dedup,
    "table": _table,
    "mvexpand": _mvexpand,
    "sort": _sort,
    "head": _head,
    "stats": _stats,
    "streamstats": _streamstats,
    "eventstats": _eventstats,
}
