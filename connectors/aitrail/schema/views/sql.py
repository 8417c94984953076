"""The event as a DuckDB table."""

from collections.abc import Mapping

from aitrail.schema.catalog import Kind, fields

TYPES: Mapping[Kind, str] = {
    "string": "VARCHAR",
    "time": "TIMESTAMP",
    "ip": "VARCHAR",
    "text": "VARCHAR",
    "integer": "BIGINT",
    "number": "DOUBLE",
    "boolean": "BOOLEAN",
    "list": "VARCHAR[]",
}


def document() -> str:
    """One ``CREATE TABLE`` statement; times are UTC."""
    width = max(len(field.name) for field in fields()) + 2
    lines = []
    for field in fields():
        constraint = " NOT NULL" if field.required else ""
        key = " PRIMARY KEY" if field.name == "event_id" else constraint
        quoted = f'"{field.name}"'
        lines.append(f"    {quoted:<{width}} {TYPES[field.kind]}{key}")
    return "CREATE TABLE events (\n" + ",\n".join(lines) + "\n);\n"
