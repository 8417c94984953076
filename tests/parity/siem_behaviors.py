"""What the engines of Splunk and Elastic need for behavior rules beside what detections and metrics use.

Written from their documentation, as the engines themselves: mathematical and multivalue functions, ``iplocation``.
"""

import ipaddress
import math
import re
from collections.abc import Sequence
from typing import Any

from parity import elastic_engine, splunk_engine
from parity.behavior_fuzz import PLACES
from parity.expressions import BadQueryError, Parser


def _several(item: Any) -> list[Any]:
    return item if isinstance(item, list) else [item]


def _one_or_more(items: list[Any]) -> Any:
    return None if not items else items if len(items) > 1 else items[0]


def _null(function: Any) -> Any:
    """A function that gives null for null."""
    return lambda *items: None if None in items else function(*items)


def _numbers(*items: Any) -> list[float]:
    if any(isinstance(item, bool) or not isinstance(item, int | float) for item in items):
        raise BadQueryError(f"no numbers: {items}")
    return list(items)


def _one_type(*items: Any) -> list[Any]:
    if len({type(item) for item in items}) > 1:
        raise BadQueryError(f"several types: {items}")
    return list(items)


def _prefix(address: Any, four: int, six: int) -> Any:
    bits = four if address.version == 4 else six
    return ipaddress.ip_network(f"{address}/{bits}", strict=False).network_address


ESQL: dict[str, Any] = {
    "SPLIT": _null(lambda text, by: _one_or_more(text.split(by))),
    "REPLACE": _null(lambda text, pattern, by: re.sub(pattern, by, text)),
    "TRIM": _null(lambda text: text.strip()),
    "MV_FIRST": _null(lambda item: _several(item)[0]),
    "MV_LAST": _null(lambda item: _several(item)[-1]),
    "MV_SLICE": _null(lambda item, start, end: _one_or_more(_several(item)[start : end + 1])),
    "MV_APPEND": _null(lambda one, other: _several(one) + _several(other)),
    "LOCATE": _null(lambda text, part: text.find(part) + 1),
    "IP_PREFIX": _null(_prefix),
    "SQRT": _null(math.sqrt),
    "GREATEST": _null(lambda *items: max(_one_type(*items))),
    "ROUND": _null(round),
}
SPL: dict[str, Any] = {
    "sqrt": _null(lambda number: math.sqrt(*_numbers(number))),
    "pow": _null(lambda base, power: math.pow(*_numbers(base, power))),
    "sin": _null(lambda angle: math.sin(*_numbers(angle))),
    "cos": _null(lambda angle: math.cos(*_numbers(angle))),
    "asin": _null(lambda number: math.asin(*_numbers(number))),
    "pi": lambda: math.pi,
    "max": lambda *items: max(_numbers(*items)),
    "tonumber": lambda item: splunk_engine._number(splunk_engine.Extracted(str(item))),
    "trim": _null(lambda text: text.strip()),
    "replace": _null(lambda text, pattern, by: re.sub(pattern, by, text)),
}
for own, functions in ((elastic_engine.FUNCTIONS, ESQL), (splunk_engine._FUNCTIONS, SPL)):
    for name, function in functions.items():
        own.setdefault(name, function)


def _iplocation(found: Parser, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Adds lat and lon, and nothing where the database has none."""
    name = found.word()
    for row in rows:
        place = PLACES.get(str(row.get(name, "")))
        if place is not None:
            row["lat"], row["lon"] = place
    return rows


splunk_engine._COMMANDS.setdefault("iplocation", _iplocation)


def spl(query: str, rows: Sequence[dict[str, Any]], now: float) -> list[dict[str, Any]]:
    """Run a search at ``now``, seconds."""
    return splunk_engine.spl(query.replace("now()", repr(now)), rows)


def esql(query: str, documents: Sequence[dict[str, Any]], now: float) -> list[dict[str, Any]]:
    """Run a query at ``now``, seconds."""
    # Words of the grammar (EsqlBaseLexer), which cannot name a column; ``by`` and ``asc`` stand where they belong.
    taken = re.search(r"\b(first|last|nulls|rlike|params|info)\b", re.sub(r'"[^"]*"', "", query), re.IGNORECASE)
    if taken:
        raise BadQueryError(f"{taken[0]} cannot name a column")
    return elastic_engine.esql(query.replace("TO_LONG(NOW())", str(round(now * 1000))), documents)
