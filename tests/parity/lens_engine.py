"""What Lens computes for a metric over fields: the columns of a layer, over documents of the index.

Written from Lens's documentation of its functions ("Lens formulas"): a column's own condition narrows what the panel's
leaves, distinct values and sums leave out what is missing, a shift to ``previous`` reads the range before.
"""

from collections.abc import Callable, Sequence
from typing import Any

from parity.elastic_engine import TYPES, Row
from parity.expressions import BadQueryError
from parity.kuery_engine import holds, values

_OPERATIONS: dict[str, Callable[[list[Any]], Any]] = {
    "unique_count": lambda items: len(set(items)),
    "sum": sum,
    "max": lambda items: max(items, default=None),
    "min": lambda items: min(items, default=None),
    "average": lambda items: sum(items) / len(items) if items else None,
}


def number(layer: dict[str, Any], name: str, query: str, rows: Sequence[Row]) -> Any:
    """The value of the column ``name`` over the documents of its range that fulfil ``query``."""
    return _column(layer["columns"], name, [row for row in rows if holds(query, row)])


def _column(columns: dict[str, Any], name: str, rows: list[Row]) -> Any:
    column = columns[name]
    kind = column["operationType"]
    if kind == "formula":
        (inner,) = column["references"]
        return _column(columns, inner, rows)
    if kind == "math":
        tree = column["params"]["tinymathAst"]
        if tree["name"] != "divide" or tree["args"] != column["references"]:
            raise BadQueryError(tree)
        of, over = (_column(columns, one, rows) for one in tree["args"])
        return of / over if over else None
    condition = column.get("filter", {"query": "", "language": "kuery"})
    if condition["language"] != "kuery":
        raise BadQueryError(condition)
    kept = [row for row in rows if holds(condition["query"], row)]
    if kind == "count":
        return len(kept)
    if column["sourceField"] not in TYPES:
        raise BadQueryError(column["sourceField"])
    return _OPERATIONS[kind]([one for row in kept for one in values(row, column["sourceField"])])
