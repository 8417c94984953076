"""Pages as workbooks: a heading that says how to read it, the filters, and a group of panels per section.

A filter is a drop-down with several values; what is chosen enters every query base64-encoded (see
``dialects.metrics_kql``). No workbook names a subscription, a workspace or a tenant.
"""

from typing import Any

from aitrail.compiler.boards import label
from aitrail.compiler.dashboard import Dashboard
from aitrail.compiler.dialects.kql import column, literal
from aitrail.compiler.dialects.metrics_kql import TIME_PARAMETER, parameter
from aitrail.compiler.dialects.scope import NONE, Scope
from aitrail.compiler.emit.sentinel_facts import CONTENT_VERSION, SOURCE, guid
from aitrail.compiler.emit.sentinel_panels import Item, group
from aitrail.schema.catalog import FieldInfo
from aitrail.schema.views.kusto import TABLE

_SCHEMA = "https://github.com/Microsoft/Application-Insights-Workbooks/blob/master/schema/workbook.json"
_HOUR, _DAY = 3_600_000, 86_400_000
_RANGES = (_HOUR, 4 * _HOUR, 12 * _HOUR, _DAY, 2 * _DAY, 7 * _DAY, 14 * _DAY, 30 * _DAY, 90 * _DAY)
_CHOICES = 500
_NOTE = (
    "Times are UTC. Findings have a tenant and a person, reports of collectors neither: where a filter does not apply,"
    " nothing is left out. Panels say what an empty one means."
)


def workbook_key(board: Dashboard) -> str:
    """``AitrailUsage``."""
    return "Aitrail" + "".join(word.capitalize() for word in board.name.split("_"))


def workbook_title(board: Dashboard) -> str:
    """Its name in the gallery."""
    return f"aitrail {board.number}: {board.title}"


def workbook(board: Dashboard, titles: dict[str, str]) -> dict[str, Any]:
    """The notebook; ``titles`` gives the names of all pages, for what leads from one to another."""
    scope = Scope(tuple(field.name for field in board.filters))

    def lead(to: str, name: str) -> Item:
        return {"type": 1, "content": {"json": f"Next: the workbook **{titles[to]}**."}, "name": f"{name} next"}

    items: list[Item] = [
        {
            "type": 1,
            "content": {"json": f"## {board.title}\n\n{board.description}\n\n{_NOTE}"},
            "name": "how to read this page",
        },
        _parameters(board),
    ]
    for number, section in enumerate(board.sections, 1):
        heading = {"type": 1, "content": {"json": f"### {section.title}"}, "name": f"section {number} heading"}
        items.append(
            {
                "type": 12,
                "content": {
                    "version": "NotebookGroup/1.0",
                    "groupType": "editable",
                    "items": [heading, *(group(panel, scope, lead) for panel in section.panels)],
                },
                "name": f"section {number}",
            }
        )
    return {
        "version": "Notebook/1.0",
        "items": items,
        "fallbackResourceIds": [],
        "fromTemplateId": f"sentinel-{workbook_key(board)}",
        "$schema": _SCHEMA,
    }


def _parameters(board: Dashboard) -> Item:
    chosen = [_filter(board, field) for field in board.filters]
    return {
        "type": 9,
        "content": {
            "version": "KqlParameterItem/1.0",
            "parameters": [_time(board), *chosen],
            "style": "pills",
            "queryType": 0,
            "resourceType": "microsoft.operationalinsights/workspaces",
        },
        "name": "filters",
    }


def _time(board: Dashboard) -> dict[str, Any]:
    return {
        "id": guid("parameter", board.name, TIME_PARAMETER),
        "version": "KqlParameterItem/1.0",
        "name": TIME_PARAMETER,
        "label": "Time range",
        "type": 4,
        "isRequired": True,
        "isGlobal": True,
        "typeSettings": {"selectableValues": [{"durationMs": one} for one in _RANGES], "allowCustom": True},
        "value": {"durationMs": board.range * 1000},
    }


def filter_query(field: FieldInfo) -> str:
    """The most frequent values of the range, and what stands for none."""
    name = column(field)
    text = name if field.kind in ("string", "ip", "text") else f"tostring({name})"
    return "\n| ".join(
        [
            TABLE,
            f"where TimeGenerated >= {{{TIME_PARAMETER}:start}} and EventTime < {{{TIME_PARAMETER}:end}}",
            f"summarize Events = count() by value = iff(isempty({text}), {literal(NONE)}, {text})",
            f"top {_CHOICES} by Events desc",
            "project value, label = value",
        ]
    )


def _filter(board: Dashboard, field: FieldInfo) -> dict[str, Any]:
    return {
        "id": guid("parameter", board.name, field.name),
        "version": "KqlParameterItem/1.0",
        "name": parameter(field),
        "label": label(field.name).removesuffix(" ID"),
        "type": 2,
        "isRequired": True,
        "isGlobal": True,
        "multiSelect": True,
        "quote": "",
        "delimiter": ",",
        "query": filter_query(field),
        "typeSettings": {
            "additionalResourceOptions": ["value::all"],
            "selectAllValue": "*",
            "showDefault": False,
        },
        "timeContext": {"durationMs": 0},
        "defaultValue": "value::all",
        "value": ["value::all"],
        "queryType": 0,
        "resourceType": "microsoft.operationalinsights/workspaces",
    }


def metadata(board: Dashboard) -> dict[str, Any]:
    """The entry of the gallery (``WorkbooksMetadata.json``)."""
    sets = {panel.query.dataset for panel in board.panels if panel.query}
    names = {"access": "AIAudit_CL", "finding": "AIAuditFindings_CL", "health": "AIAuditHealth_CL"}
    return {
        "workbookKey": workbook_key(board),
        "logoFileName": "aitrail.svg",
        "description": board.description,
        "dataTypesDependencies": sorted(names[one] for one in sets),
        "dataConnectorsDependencies": ["AitrailPush", "AitrailFunctionApp"],
        "previewImagesFileNames": [],
        "version": CONTENT_VERSION,
        "title": workbook_title(board),
        "templateRelativePath": f"{workbook_key(board)}.json",
        "subtitle": "",
        "provider": "aitrail",
        "support": {"tier": "Community", "link": f"{SOURCE}/issues"},
    }
