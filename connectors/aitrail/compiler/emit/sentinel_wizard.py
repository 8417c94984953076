"""``createUiDefinition.json``: what the portal asks when the solution is installed, and what it says is in it."""

from typing import Any

from aitrail.compiler.emit.sentinel_connectors import logo_html
from aitrail.compiler.emit.sentinel_facts import DOCS
from aitrail.compiler.emit.sentinel_lists import watchlists
from aitrail.compiler.emit.sentinel_package import ABOUT, WISHES, counts
from aitrail.compiler.emit.sentinel_pieces import Piece

_SCHEMA = "https://schema.management.azure.com/schemas/0.1.2-preview/CreateUIDefinition.MultiVm.json#"
# Kind of piece -> name of the step, its label, and what it says.
_STEPS = {
    "DataConnector": (
        "dataconnectors",
        "Data Connectors",
        "This solution installs the data connectors below. After installing it, connect one in the view Manage.",
    ),
    "Workbook": (
        "workbooks",
        "Workbooks",
        "This solution installs the workbooks below. After installing it, save them from the view Manage.",
    ),
    "AnalyticsRule": (
        "analytics",
        "Analytics",
        (
            "This solution installs templates of the analytics rules below. After installing it, make rules of those"
            " whose sources you have, in the view Manage."
        ),
    ),
    "HuntingQuery": (
        "huntingqueries",
        "Hunting Queries",
        "This solution installs the hunting queries below. After installing it, run them from the view Manage.",
    ),
    "Playbook": (
        "playbooks",
        "Playbooks",
        (
            "This solution installs templates of the playbooks below. After installing it, make playbooks of them, give"
            " their identities their roles, and attach them to automation rules."
        ),
    ),
}

_ASKED = {
    "Workbook": ("createWorkbooks",),
    "AnalyticsRule": ("createRules", "enableRules"),
    "HuntingQuery": ("createHunts",),
}


def wizard(found: list[Piece]) -> dict[str, Any]:
    """The definition."""
    return {
        "$schema": _SCHEMA,
        "handler": "Microsoft.Azure.CreateUIDef",
        "version": "0.1.2-preview",
        "parameters": {
            "config": {"isWizard": False, "basics": _basics_config(found)},
            "basics": _basics(),
            "steps": [*(_step(kind, found) for kind in _STEPS), _watchlist_step()],
            "outputs": {
                "workspace-location": (
                    "[first(map(filter(basics('getLAWorkspace').value, (filter) => and(contains(toLower(filter.id),"
                    " toLower(resourceGroup().name)), equals(filter.name, basics('workspace')))), (item) =>"
                    " item.location))]"
                ),
                "location": "[location()]",
                "workspace": "[basics('workspace')]",
                "createWatchlists": "[steps('watchlists').createWatchlists]",
                **{name: f"[steps('{_STEPS[kind][0]}').{name}]" for kind, names in _ASKED.items() for name in names},
            },
        },
    }


def _basics_config(found: list[Piece]) -> dict[str, Any]:
    text = (
        f"{logo_html()}\n\n{ABOUT}\n\n{counts(found)}\n\n[How to install it, step by step]({DOCS}/install-sentinel.md)"
    )
    return {
        "description": text,
        "subscription": {
            "resourceProviders": [
                "Microsoft.OperationsManagement/solutions",
                "Microsoft.OperationalInsights/workspaces/providers/alertRules",
                "Microsoft.Insights/workbooks",
                "Microsoft.Logic/workflows",
            ]
        },
        "location": {"metadata": {"hidden": "The region is the workspace's"}, "visible": False},
        "resourceGroup": {"allowExisting": True},
    }


def _basics() -> list[dict[str, Any]]:
    workspaces = (
        "[map(filter(basics('getLAWorkspace').value, (filter) => contains(toLower(filter.id),"
        ' toLower(resourceGroup().name))), (item) => parse(concat(\'{"label":"\', item.name, \'","value":"\','
        " item.name, '\"}')))]"
    )
    return [
        {
            "name": "getLAWorkspace",
            "type": "Microsoft.Solutions.ArmApiControl",
            "toolTip": "Workspaces of the resource group",
            "condition": "[greater(length(resourceGroup().name), 0)]",
            "request": {
                "method": "GET",
                "path": (
                    "[concat(subscription().id,"
                    " '/providers/Microsoft.OperationalInsights/workspaces?api-version=2020-08-01')]"
                ),
            },
        },
        {
            "name": "workspace",
            "type": "Microsoft.Common.DropDown",
            "label": "Workspace",
            "placeholder": "Select a workspace",
            "toolTip": "The workspace with Microsoft Sentinel, in the selected resource group",
            "constraints": {"allowedValues": workspaces, "required": True},
            "visible": True,
        },
    ]


def _said(name: str, text: str) -> dict[str, Any]:
    return {"name": name, "type": "Microsoft.Common.TextBlock", "options": {"text": text}}


def _step(kind: str, found: list[Piece]) -> dict[str, Any]:
    name, label, text = _STEPS[kind]
    sections = [
        {
            "name": f"{name}{number}",
            "type": "Microsoft.Common.Section",
            "label": one.title,
            "elements": [_said(f"{name}{number}-text", _about(one))],
        }
        for number, one in enumerate((one for one in found if one.kind == kind), 1)
    ]
    return {
        "name": name,
        "label": label,
        "bladeTitle": label,
        "elements": [_said(f"{name}-text", text), *map(_wish, _ASKED.get(kind, ())), *sections],
    }


def _wish(name: str) -> dict[str, Any]:
    said = WISHES[name].removeprefix("Whether ")
    return {
        "name": name,
        "type": "Microsoft.Common.CheckBox",
        "label": said[:1].upper() + said[1:],
        "defaultValue": name == "createWatchlists",
    }


def _about(one: Piece) -> str:
    """Its own text; of a connector that of its page."""
    given = one.made[0]["properties"]
    return one.about or one.said or str(given["connectorUiConfig"]["descriptionMarkdown"])


def _watchlist_step() -> dict[str, Any]:
    sections = [
        {
            "name": f"watchlists{number}",
            "type": "Microsoft.Common.Section",
            "label": one.title,
            "elements": [_said(f"watchlists{number}-text", one.about)],
        }
        for number, one in enumerate(watchlists(), 1)
    ]
    text = "This solution installs the watchlists below, with rows to begin with: edit them under Watchlists."
    return {
        "name": "watchlists",
        "label": "Watchlists",
        "bladeTitle": "Watchlists",
        "elements": [_said("watchlists-text", text), _wish("createWatchlists"), *sections],
    }
