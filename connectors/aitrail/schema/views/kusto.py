"""The Sentinel table: columns, ``.create table`` and an empty ``datatable`` for tests of queries.

Facts: Azure Monitor, "Standard columns in Azure Monitor Logs" and "Create a custom table" (reserved names, 45
characters, at most 500 columns). ``TimeGenerated`` is when Azure took the event in: it replaces times that are older
than two days; the access's own time is ``EventTime``.
"""

from functools import cache

from aitrail.schema.catalog import Kind, fields

TABLE = "AIAudit_CL"
MAX_NAME = 45
RESERVED = frozenset(
    {
        *("TenantId", "Type", "id", "Title", "UniqueId", "_ResourceId", "_SubscriptionId", "TimeGenerated"),
        *("SourceSystem", "MG", "ManagementGroupName", "Computer", "RawData", "_BilledSize", "_IsBillable"),
        *("_ItemId", "_TimeReceived", "_Internal_WorkspaceResourceId"),
    }
)
_TYPES: dict[Kind, str] = {
    "string": "string",
    "time": "datetime",
    "ip": "string",
    "text": "string",
    "integer": "long",
    "number": "real",
    "boolean": "bool",
    "list": "dynamic",
}


@cache
def columns() -> tuple[tuple[str, str, str], ...]:
    """``(field, column, KQL type)`` in table order; ``TimeGenerated`` has no field and comes first."""
    own = ((field.name, field.name_in("sentinel"), _TYPES[field.kind]) for field in fields())
    return (("", "TimeGenerated", "datetime"), *own)


def document() -> str:
    """KQL text with both statements."""
    listed = ",\n".join(f"    {column}: {kind}" for _, column, kind in columns())
    return (
        f"// The table as Azure Data Explorer and the Kusto emulator create it.\n"
        f".create table {TABLE} (\n{listed}\n)\n\n"
        f"// The same columns without rows: put it before a query to check the query's types.\n"
        f"let {TABLE} = datatable(\n{listed}\n)[];\n"
    )
