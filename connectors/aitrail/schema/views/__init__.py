"""The catalog written out: one function per format, all derived, none with a list of its own."""

import io
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.table import Table

from aitrail.schema.views import documents, elastic, json_schema, kusto, mappings, sql

View = Callable[[], str | Table]

# `aitrail schema --format NAME`; a new view is one function and one line here.
FORMATS: Mapping[str, View] = {
    "table": documents.table,
    "markdown": documents.markdown,
    "json": documents.as_json,
    "jsonschema": json_schema.document,
    "ocsf": mappings.ocsf,
    "ecs": mappings.ecs,
    "otel": mappings.otel,
    "cim": mappings.cim,
    "asim": mappings.asim,
    "kql": kusto.document,
    "duckdb": sql.document,
    "es": elastic.document,
}


def render(name: str, *, width: int = 100) -> str:
    """Give the view ``name`` as text; the table is laid out ``width`` columns wide. Raises ``KeyError``."""
    found = FORMATS[name]()
    if isinstance(found, str):
        return found
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as captured:
        console.print(found)
    return captured.get()
