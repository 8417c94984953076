"""What Elasticsearch does with the ES|QL and EQL that the dialects emit, on documents as ``to_ecs`` writes them.

Written from Elastic's documentation: comparisons with null or with several values are null, AND and OR are those of
three values, WHERE keeps what is true; LIKE and RLIKE match whole values; types are checked against the mapping.
EQL's sequences are those of its matcher: an event continues the sequence of its keys that began last, per step.
"""

import ipaddress
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from aitrail.destinations.elastic_records import record_mapping, record_names
from aitrail.schema.views.elastic import leaf_types
from parity.expressions import BadQueryError, Parser, stages, tokens

Row = dict[str, Any]


def _kind_of(properties: dict[str, Any], name: str) -> str:
    for part in name.split("."):
        properties = properties.get("properties", properties)[part]
    return str(properties["type"])


_KINDS = {"keyword": "text", "match_only_text": "text", "ip": "ip", "boolean": "boolean", "date": "date"}
TYPES = {name: _KINDS.get(kind["type"], "number") for name, kind in leaf_types().items()}
for _stream in ("finding", "health"):
    _leaves = record_mapping(_stream)["properties"]
    TYPES |= {
        name: TYPES.get(name) or _KINDS.get(_kind_of(_leaves, name), "number")
        for name in record_names(_stream).values()
    }
TYPES |= {"_id": "text", "_index": "text", "_version": "number"}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"'}


def unquote(text: str) -> str:
    """Read a literal; an escape that the languages do not know is an error there, too."""
    return re.sub(r"\\(.)", lambda match: _ESCAPES[match[1]], text, flags=re.DOTALL)


def parser(text: str) -> Parser:
    return Parser(tokens(text), unquote)


# --- values


def value(tree: Any, row: Row) -> Any:
    return _EVALUATE[tree[0]](tree, row)


def _name(tree: Any, row: Row) -> Any:
    if tree[1] not in row and tree[1] not in TYPES:
        raise BadQueryError(f"unknown column {tree[1]}")
    return row.get(tree[1])


def _kind(item: Any) -> str:
    if isinstance(item, bool):
        return "boolean"
    if isinstance(item, str):
        return "text"
    return "number" if isinstance(item, int | float) else "ip"


def _single(item: Any) -> Any:
    """Several values are null to every operator."""
    return None if isinstance(item, list) else item


def _compare(tree: Any, row: Row) -> Any:
    left, right = _single(value(tree[1], row)), _single(value(tree[2], row))
    if left is None or right is None:
        return None
    if _kind(left) != _kind(right):
        raise BadQueryError(f"{_kind(left)} {tree[0]} {_kind(right)}")
    return _COMPARE[tree[0]](left, right)


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def _and(tree: Any, row: Row) -> Any:
    left, right = value(tree[1], row), value(tree[2], row)
    if left is False or right is False:
        return False
    return None if left is None or right is None else True


def _or(tree: Any, row: Row) -> Any:
    left, right = value(tree[1], row), value(tree[2], row)
    if left is True or right is True:
        return True
    return None if left is None or right is None else False


def _not(tree: Any, row: Row) -> Any:
    inner = value(tree[1], row)
    return None if inner is None else not inner


def _in(tree: Any, row: Row) -> Any:
    outcomes = [_compare(("==", tree[1], item), row) for item in tree[2]]
    return True if True in outcomes else None if None in outcomes else False


def _arithmetic(tree: Any, row: Row) -> Any:
    left, right = _single(value(tree[1], row)), _single(value(tree[2], row))
    if left is None or right is None:
        return None
    if tree[0] == "/":
        # Whole numbers divide to one; by zero is null, with a warning.
        return (
            None if right == 0 else left // right if isinstance(left, int) and isinstance(right, int) else left / right
        )
    return left + right if tree[0] == "+" else left * right if tree[0] == "*" else left - right


def _like(tree: Any, row: Row) -> Any:
    left = _text(value(tree[1], row))
    return None if left is None else re.fullmatch(like_pattern(tree[2]), left, re.DOTALL) is not None


def like_pattern(pattern: str) -> str:
    """``*`` and ``?`` are wildcards; backslash escapes them and itself, and nothing else."""
    found = re.findall(r"\\[*?\\]|[^\\]", pattern, re.DOTALL)
    if "".join(found) != pattern:
        raise BadQueryError(f"a backslash that escapes nothing in {pattern!r}")
    return "".join({"*": ".*", "?": "."}.get(piece) or re.escape(piece[-1]) for piece in found)


def _rlike(tree: Any, row: Row) -> Any:
    left = _text(value(tree[1], row))
    if any(char in re.sub(r"\\.", "", tree[2]) for char in '"#@&<>~$'):
        raise BadQueryError(f"an operator of Lucene's in {tree[2]!r}")
    return None if left is None else re.fullmatch(tree[2], left, re.DOTALL) is not None


def _text(item: Any) -> str | None:
    item = _single(item)
    if item is not None and not isinstance(item, str):
        raise BadQueryError(f"a {_kind(item)} where a text is wanted")
    return item


def _cidr(address: Any, *networks: str) -> bool | None:
    """An address of version 4 is a mapped one of version 6 to Elasticsearch, and so is a network."""
    address = _single(address)
    if address is None:
        return None
    return any(_as_v6(address) in _network_v6(network) for network in networks)


def _as_v6(address: Any) -> ipaddress.IPv6Address:
    return address if address.version == 6 else ipaddress.IPv6Address(f"::ffff:{address}")


def _network_v6(text: str) -> ipaddress.IPv6Network:
    network = ipaddress.ip_network(text)
    if network.version == 6:
        return network
    return ipaddress.IPv6Network(f"::ffff:{network.network_address}/{network.prefixlen + 96}")


def _lower(item: Any) -> Any:
    return [one.lower() for one in item] if isinstance(item, list) else item if item is None else _text(item).lower()  # type: ignore[union-attr]


def _pair(test: Callable[[str, str], bool]) -> Callable[..., Any]:
    def run(left: Any, right: Any) -> Any:
        left, right = _text(left), _text(right)
        return None if left is None or right is None else test(left, right)

    return run


def _concat(*parts: Any) -> Any:
    texts = [_text(part) for part in parts]
    return None if None in texts else "".join(texts)  # type: ignore[arg-type]


def _coalesce(*items: Any) -> Any:
    kinds = {_kind(one) for item in items if item is not None for one in (item if isinstance(item, list) else [item])}
    if len(kinds) > 1:
        raise BadQueryError(f"COALESCE of {kinds}")
    return next((item for item in items if item is not None), None)


def _case(*items: Any) -> Any:
    for test, then in zip(items[::2], items[1::2], strict=False):
        if test is True:
            return then
    return items[-1] if len(items) % 2 else None


def _moment(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


_PARTS: dict[str, Callable[[datetime], int]] = {
    "hour_of_day": lambda moment: moment.hour,
    "day_of_week": lambda moment: moment.isoweekday(),
}

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "COALESCE": _coalesce,
    "TO_LONG": lambda item: None if item is None else int(item),
    "TO_DOUBLE": lambda item: None if item is None else float(item),
    "TO_DATETIME": lambda item: None if item is None else item if isinstance(item, int) else _moment(item),
    "DATE_DIFF": lambda unit, start, end: {"seconds": 1}[unit] * ((end - start) // 1000),
    "DATE_TRUNC": lambda span, moment: moment // span * span,
    "DATE_EXTRACT": lambda part, moment: _PARTS[part](datetime.fromtimestamp(moment / 1000, UTC)),
    "TO_LOWER": _lower,
    "TO_STRING": lambda item: (
        None if item is None else str(item).lower() if isinstance(item, bool) else str(_single(item))
    ),
    "TO_IP": ipaddress.ip_address,
    "CIDR_MATCH": _cidr,
    "STARTS_WITH": _pair(lambda a, b: a.startswith(b)),
    "ENDS_WITH": _pair(lambda a, b: a.endswith(b)),
    "CONCAT": _concat,
    "MV_CONCAT": lambda item, by: by.join(item) if isinstance(item, list) else item,
    "MV_COUNT": lambda item: None if item is None else len(item) if isinstance(item, list) else 1,
    "CASE": _case,
    # EQL
    "cidrMatch": _cidr,
    "startsWith": _pair(lambda a, b: a.startswith(b)),
    "endsWith": _pair(lambda a, b: a.endswith(b)),
    "stringContains": _pair(lambda a, b: b in a),
    "startsWith~": _pair(lambda a, b: a.lower().startswith(b.lower())),
    "endsWith~": _pair(lambda a, b: a.lower().endswith(b.lower())),
    "stringContains~": _pair(lambda a, b: b.lower() in a.lower()),
}


def _call(tree: Any, row: Row) -> Any:
    return FUNCTIONS[tree[1]](*(value(argument, row) for argument in tree[2]))


_EVALUATE: dict[str, Callable[[Any, Row], Any]] = {
    "lit": lambda tree, _: tree[1],
    "name": _name,
    "call": _call,
    "and": _and,
    "or": _or,
    "not": _not,
    "in": _in,
    "like": _like,
    "rlike": _rlike,
    "isnull": lambda tree, row: (value(tree[1], row) is None) is tree[2],
    **dict.fromkeys(_COMPARE, _compare),
    **dict.fromkeys(("+", "-", "*", "/"), _arithmetic),
}


# --- ES|QL: commands


def esql(query: str, documents: Sequence[Row]) -> list[Row]:
    """Run a query; the rows that come out."""
    rows = [dict(document) for document in documents]
    source, *rest = stages(query)
    if not re.fullmatch(r"FROM logs-ai_audit\.(access|finding|health)-\*( METADATA _id, _index, _version)?", source):
        raise BadQueryError(source)
    for stage in rest:
        command, _, text = stage.partition(" ")
        rows = _COMMANDS[command](parser(text), rows)
    return rows


def _where(found: Parser, rows: list[Row]) -> list[Row]:
    tree = _whole(found.expression(), found)
    return [row for row in rows if value(tree, row) is True]


def _whole(tree: Any, found: Parser) -> Any:
    if not found.done:
        raise BadQueryError(f"{found.peek()!r} is left over")
    return tree


def _assignments(found: Parser) -> list[tuple[str, Any]]:
    out = []
    while True:
        name = found.word()
        found.take("=")
        tree = found.expression()
        # STATS counts only the rows for which it holds.
        out.append((name, ("only", tree, found.expression()) if found.taken("WHERE") else tree))
        if not found.taken(","):
            return out


def _eval(found: Parser, rows: list[Row]) -> list[Row]:
    assignments = _whole(_assignments(found), found)
    for row in rows:
        for name, tree in assignments:
            row[name] = value(tree, row)
    return rows


def _keep(found: Parser, rows: list[Row]) -> list[Row]:
    names = [found.word()]
    while found.taken(","):
        names.append(found.word())
    _whole(None, found)
    return [{name: _name(("name", name), row) for name in names} for row in rows]


def _stats(found: Parser, rows: list[Row]) -> list[Row]:
    assignments = _assignments(found)
    keys = [found.word()] if found.taken("BY") else []
    while keys and found.taken(","):
        keys.append(found.word())
    _whole(None, found)
    groups: dict[tuple[Any, ...], list[Row]] = {} if keys else {(): rows}
    for row in rows if keys else []:
        # A row with several values of a key is in the group of each.
        held = [_name(("name", key), row) for key in keys]
        for key in itertools.product(*(item if isinstance(item, list) else [item] for item in held)):
            groups.setdefault(key, []).append(row)
    return [
        {**dict(zip(keys, key, strict=True)), **{name: _aggregate(tree, group) for name, tree in assignments}}
        for key, group in groups.items()
    ]


def _sort(found: Parser, rows: list[Row]) -> list[Row]:
    orders = []
    while True:
        name = found.word()
        down = found.take("ASC", "DESC") == "DESC"
        if found.taken("NULLS"):
            found.take("LAST")
        orders.append((name, down))
        if not found.taken(","):
            break
    _whole(None, found)
    for name, down in reversed(orders):
        # What sorts is there in every row, or the query says where the others go.
        there = [row for row in rows if _name(("name", name), row) is not None]
        gone = [row for row in rows if _name(("name", name), row) is None]
        rows = sorted(there, key=lambda row: row[name], reverse=down) + gone
    return rows


def _limit(found: Parser, rows: list[Row]) -> list[Row]:
    return rows[: int(found.take())]


def _mv_expand(found: Parser, rows: list[Row]) -> list[Row]:
    name = found.word()
    return [{**row, name: item} for row in rows for item in (row[name] if isinstance(row[name], list) else [row[name]])]


def _dissect(found: Parser, rows: list[Row]) -> list[Row]:
    name, pattern = found.word(), found.text()
    names = re.findall(r"%\{(\w+)\}", pattern)
    expression = re.sub(r"%\{\w+\}", "(.*?)", re.sub(r"([|])", r"\\\1", pattern))
    for row in rows:
        match = re.fullmatch(expression, row[name])
        if match is None or "" in match.groups():
            raise BadQueryError(f"{row[name]!r} is not {pattern!r}")
        row.update(zip(names, match.groups(), strict=True))
    return rows


def _rename(found: Parser, rows: list[Row]) -> list[Row]:
    """The column keeps its place; one that has the new name already is gone."""
    names: dict[str, str] = {}
    while True:
        old = found.word()
        found.take("AS")
        names[old] = found.word()
        if not found.taken(","):
            break
    _whole(None, found)
    for row in rows:
        for old in names:
            _name(("name", old), row)
    kept = set(names.values()) - set(names)
    return [{names.get(key, key): item for key, item in row.items() if key not in kept} for row in rows]


_COMMANDS: dict[str, Callable[[Parser, list[Row]], list[Row]]] = {
    "RENAME": _rename,
    "WHERE": _where,
    "EVAL": _eval,
    "KEEP": _keep,
    "STATS": _stats,
    "SORT": _sort,
    "LIMIT": _limit,
    "MV_EXPAND": _mv_expand,
    "DISSECT": _dissect,
}


def _aggregate(tree: Any, group: list[Row]) -> Any:
    if tree[0] == "only":
        return _aggregate(tree[1], [row for row in group if value(tree[2], row) is True])
    _, function, arguments = tree
    if function == "MV_COUNT":
        return FUNCTIONS[function](_aggregate(arguments[0], group))
    if function == "COUNT" and arguments == [("lit", "*")]:
        return len(group)
    held = [item for row in group if (item := value(arguments[0], row)) is not None]
    items = [one for item in held for one in (item if isinstance(item, list) else [item])]
    if function == "COUNT_DISTINCT":
        return len(set(items))
    if function == "TOP":
        found = sorted(items, reverse=value(arguments[2], {}) == "desc")[: value(arguments[1], {})]
        return found if len(found) > 1 else found[0] if found else None
    if function == "PERCENTILE" and items:
        ordered = sorted(items)
        return ordered[round((len(ordered) - 1) * value(arguments[1], {}) / 100)]
    return _AGGREGATES[function](items) if items else None


_AGGREGATES: dict[str, Callable[[list[Any]], Any]] = {
    "SUM": sum,
    "MIN": min,
    "MAX": max,
    "AVG": lambda items: sum(items) / len(items),
    "VALUES": lambda items: (found := list(dict.fromkeys(items))) and (found if len(found) > 1 else found[0]),
}


# --- EQL: sequences

_HEAD = re.compile(r"sequence by (?P<by>[\w@., ]+) with maxspan=(?P<seconds>\d+)s\n")
_STEP = re.compile(r'\s*\[any where (?P<test>(?:[^\]"]|"(?:[^"\\]|\\.)*")+)\](?: with runs=(?P<runs>\d+))?')


def eql(query: str, documents: Sequence[Row]) -> list[list[Row]]:
    """The sequences that are found: each the documents of its steps."""
    head = _HEAD.match(query)
    if head is None:
        raise BadQueryError(query)
    steps, place = [], head.end()
    while place < len(query):
        step = _STEP.match(query, place)
        if step is None:
            raise BadQueryError(query[place:])
        found = parser(step["test"])
        steps += [_whole(found.expression(), found)] * int(step["runs"] or 1)
        place = step.end()
    by = head["by"].split(", ")
    ordered = sorted(documents, key=lambda row: (row["@timestamp"], row["event.id"]))
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in ordered:
        key = tuple(_name(("name", name), row) for name in by)
        if None not in key:
            groups.setdefault(key, []).append(row)
    return [found for group in groups.values() for found in _sequences(steps, group, int(head["seconds"]) * 1000)]


def _sequences(steps: Sequence[Any], group: list[Row], span: int) -> list[list[Row]]:
    waiting: list[list[list[Row]]] = [[] for _ in steps]
    cache: dict[int, list[bool]] = {}
    for step in {id(step): step for step in steps}.values():
        cache[id(step)] = [_eql_value(step, row) is True for row in group]
    done = []
    for place, row in enumerate(group):
        # From the last step: an event takes one step of a sequence, not two.
        for number in range(len(steps) - 1, -1, -1):
            if not cache[id(steps[number])][place]:
                continue
            if number == 0:
                started = [row]
            else:
                if not waiting[number - 1]:
                    continue
                started = [*waiting[number - 1][-1], row]
                waiting[number - 1].clear()
                if row["@timestamp"] - started[0]["@timestamp"] > span:
                    continue
            if number == len(steps) - 1:
                done.append(started)
            else:
                waiting[number].append(started)
    return done


def _eql_value(tree: Any, row: Row) -> Any:
    """EQL's own: comparison with null asks for presence, ``in~`` is without case."""
    kind = tree[0]
    if kind in ("==", "!=") and tree[2] == ("lit", None):
        return (value(tree[1], row) is None) is (kind == "==")
    if kind == "in~":
        left = _text(value(tree[1], row))
        return None if left is None else left.lower() in [item[1].lower() for item in tree[2]]
    if kind == "and":
        return _and(("and", *(("lit", _eql_value(item, row)) for item in tree[1:])), row)
    if kind == "or":
        return _or(("or", *(("lit", _eql_value(item, row)) for item in tree[1:])), row)
    if kind == "not":
        return _not(("not", ("lit", _eql_value(tree[1], row))), row)
    return value(tree, row)


# --- documents


def document(ecs: Mapping[str, Any], milliseconds: int) -> Row:
    """Flatten a document as the index holds it: dotted names, no null, several values sorted and once each."""
    row: Row = {"_id": "x", "_index": "x", "_version": 1}
    _flatten("", ecs, row)
    row["@timestamp"] = milliseconds
    return row


def _flatten(prefix: str, tree: Mapping[str, Any], row: Row) -> None:
    for key, item in tree.items():
        name = prefix + key
        if isinstance(item, Mapping):
            _flatten(name + ".", item, row)
            continue
        items = sorted({_typed(name, one) for one in item}) if isinstance(item, list | tuple) else [_typed(name, item)]
        if items and items != [None]:
            row[name] = items if len(items) > 1 else items[0]


def _typed(name: str, item: Any) -> Any:
    return ipaddress.ip_address(item) if TYPES.get(name) == "ip" else item
