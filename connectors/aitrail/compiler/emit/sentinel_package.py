"""The package of the content hub: ``mainTemplate.json``, and what the wizard and the tests say of it.

Functions, watchlists and connector pages are made at once; rules, hunting queries and workbooks come as pieces to
choose from, and are made at once, too, where a parameter asks for it. One ``contentPackages`` resource names all.
"""

from typing import Any

from aitrail.compiler.dialects.kql import TABLES
from aitrail.compiler.emit import Content
from aitrail.compiler.emit import sentinel_connectors as connectors
from aitrail.compiler.emit.sentinel_facts import (
    DATE,
    FUNCTION_CONNECTOR,
    OFFER,
    PUBLISHER,
    PUSH_CONNECTOR,
    SOLUTION_ID,
    SUPPORT,
    TITLE,
    VERSION,
    WORKSPACE,
    as_line,
    guid,
    resource,
    template,
)
from aitrail.compiler.emit.sentinel_lists import as_resource, watchlists
from aitrail.compiler.emit.sentinel_live import hunting, kinds
from aitrail.compiler.emit.sentinel_parsers import parsers
from aitrail.compiler.emit.sentinel_pieces import (
    Piece,
    belongs,
    content_template,
    definition,
    function_connector,
    pieces,
    saved,
)
from aitrail.compiler.emit.sentinel_queries import near_real_time
from aitrail.compiler.emit.sentinel_rules import properties
from aitrail.compiler.emit.sentinel_workbooks import workbook, workbook_title


def counts(found: list[Piece]) -> str:
    """What is in it, as the hub's pages say it."""
    names = {
        "DataConnector": "Data Connectors",
        "Parser": "Parsers",
        "Workbook": "Workbooks",
        "AnalyticsRule": "Analytic Rules",
        "HuntingQuery": "Hunting Queries",
        "Playbook": "Playbooks",
    }
    said = [f"**{text}:** {sum(one.kind == kind for one in found)}" for kind, text in names.items()]
    return ", ".join([*said[:-1], f"**Watchlists:** {len(watchlists())}", said[-1]])


ABOUT = (
    "Every access to an AI system - who or what, to which model, weights or data, what was asked, what came back - as"
    " one normalized, classified and provable event: connectors, functions (ASIM AgentEvent among them), six workbooks,"
    " analytics rules and hunting queries with MITRE ATT&CK, ATLAS and OWASP LLM tags, watchlists and playbooks."
)


def _package(found: list[Piece]) -> dict[str, Any]:
    criteria = [
        {"kind": one.kind, "contentId": one.id, "version": one.version}
        for one in found
        if one.kind != "ResourcesDataConnector"
    ]
    criteria += [{"kind": "Watchlist", "contentId": one.alias, "version": VERSION} for one in watchlists()]
    said = counts(found).replace("**", "")
    return resource(
        f"{WORKSPACE}/providers/contentPackages",
        "[concat(parameters('workspace'), '/Microsoft.SecurityInsights/', variables('_solutionId'))]",
        location="[parameters('workspace-location')]",
        properties={
            "version": VERSION,
            "kind": "Solution",
            "contentSchemaVersion": "3.0.0",
            "contentId": "[variables('_solutionId')]",
            "parentId": "[variables('_solutionId')]",
            "contentKind": "Solution",
            "displayName": TITLE,
            "publisherDisplayName": PUBLISHER,
            "descriptionHtml": f"<p>{ABOUT.replace('&', '&amp;')}</p><p>{said}</p>",
            "contentProductId": "[variables('_solutioncontentProductId')]",
            "id": "[variables('_solutioncontentProductId')]",
            "icon": connectors.logo_html(),
            "source": "[variables('source')]",
            "author": "[variables('author')]",
            "support": "[variables('support')]",
            "dependencies": {"operator": "AND", "criteria": criteria},
            "firstPublishDate": DATE,
            "providers": [PUBLISHER],
            "categories": {"domains": list(DOMAINS), "verticals": list(VERTICALS)},
        },
    )


DOMAINS = ("Application", "Security - Threat Protection", "Security - Information Protection", "Compliance")
VERTICALS = ("Finance",)


def solution_metadata() -> dict[str, Any]:
    """``SolutionMetadata.json``."""
    return {
        "publisherId": PUBLISHER,
        "offerId": OFFER,
        "firstPublishDate": DATE,
        "lastPublishDate": DATE,
        "providers": [PUBLISHER],
        "categories": {"domains": list(DOMAINS), "verticals": list(VERTICALS)},
        "support": SUPPORT,
    }


def _shared(content: Content) -> dict[str, Any]:
    """What both a piece and the thing that runs at once are made of, by identity."""
    titles = {board.name: workbook_title(board) for board in content.dashboards}
    scheduled = kinds(content)[0]
    return {
        "rules": {rule.meta.id: properties(rule) for rule in scheduled},
        "ruleKinds": {rule.meta.id: "NRT" if near_real_time(rule) else "Scheduled" for rule in scheduled},
        "hunts": dict(hunting(content)),
        "workbooks": {
            guid("workbook", board.name): {
                "displayName": workbook_title(board),
                "serializedData": as_line(workbook(board, titles)),
                "version": "1.0",
                "sourceId": "[variables('workspaceResourceId')]",
                "category": "sentinel",
            }
            for board in content.dashboards
        },
        **{
            f"template-{dataset}": {
                "enabled": False,
                "status": "Available",
                "requiredDataConnectors": [
                    {"connectorId": one, "dataTypes": [table]} for one in (PUSH_CONNECTOR, FUNCTION_CONNECTOR)
                ],
            }
            for dataset, table in TABLES.items()
        },
    }


def _running() -> list[dict[str, Any]]:
    """Rules, hunting queries and workbooks that are made at once when they are asked for."""

    def each(variable: str, wish: str) -> dict[str, Any]:
        return {
            "condition": f"[parameters('{wish}')]",
            "copy": {"name": variable, "count": f"[length(items(variables('{variable}')))]"},
        }

    def key(variable: str) -> str:
        return f"items(variables('{variable}'))[copyIndex()].key"

    def value(variable: str) -> str:
        return f"items(variables('{variable}'))[copyIndex()].value"

    return [
        resource(
            f"{WORKSPACE}/providers/alertRules",
            f"[concat(parameters('workspace'), '/Microsoft.SecurityInsights/', {key('rules')})]",
            **each("rules", "createRules"),
            kind=f"[variables('ruleKinds')[{key('rules')}]]",
            properties=f"[union({value('rules')}, createObject('enabled', parameters('enableRules')))]",
        ),
        resource(
            f"{WORKSPACE}/savedSearches",
            f"[concat(parameters('workspace'), '/', {key('hunts')})]",
            **each("hunts", "createHunts"),
            properties=f"[{value('hunts')}]",
        ),
        resource(
            "Microsoft.Insights/workbooks",
            f"[guid(resourceGroup().id, parameters('workspace'), {key('workbooks')})]",
            **each("workbooks", "createWorkbooks"),
            location="[parameters('workspace-location')]",
            kind="shared",
            properties=f"[{value('workbooks')}]",
        ),
    ]


# Kinds of which what is made at once says what it belongs to, too.
_AT_ONCE = ("DataConnector", "Parser")
WISHES = {
    "createWatchlists": "Whether the watchlists are made, with their first rows; not when you have edited them",
    "createRules": "Whether the analytics rules are made at once, not only their templates",
    "enableRules": "Whether rules that are made at once also run at once",
    "createHunts": "Whether the hunting queries are saved at once",
    "createWorkbooks": "Whether the workbooks are saved at once",
}


def main_template(content: Content) -> dict[str, Any]:
    """``mainTemplate.json``."""
    found = pieces(content)
    text = {"type": "string", "defaultValue": ""}
    parameters = {
        "location": {
            "type": "string",
            "minLength": 1,
            "defaultValue": "[resourceGroup().location]",
            "metadata": {"description": "The wizard gives it; resources are made in workspace-location"},
        },
        "workspace-location": {
            **text,
            "defaultValue": "[parameters('location')]",
            "metadata": {"description": "Region of the workspace"},
        },
        "workspace": {**text, "metadata": {"description": "Log Analytics workspace with Microsoft Sentinel"}},
        "resourceGroupName": {
            "type": "string",
            "defaultValue": "[resourceGroup().name]",
            "metadata": {"description": "Resource group of the workspace"},
        },
        "subscription": {
            "type": "string",
            "defaultValue": "[last(split(subscription().id, '/'))]",
            "metadata": {"description": "Subscription of the workspace"},
        },
        **{
            name: {"type": "bool", "defaultValue": name == "createWatchlists", "metadata": {"description": said}}
            for name, said in WISHES.items()
        },
    }
    variables = {
        "solutionId": SOLUTION_ID,
        "_solutionId": "[variables('solutionId')]",
        "_solutionVersion": VERSION,
        "_solutioncontentProductId": (
            "[concat(take(variables('_solutionId'), 50), '-sl-', uniqueString(concat(variables('_solutionId'),"
            " '-Solution-', variables('_solutionId'), '-', variables('_solutionVersion'))))]"
        ),
        "workspaceResourceId": f"[resourceId('{WORKSPACE}', parameters('workspace'))]",
        "source": {"kind": "Solution", "name": TITLE, "sourceId": SOLUTION_ID},
        "author": {"name": PUBLISHER},
        "support": SUPPORT,
        "blanks": "[replace('b', 'b', '')]",
        **_shared(content),
    }
    at_once = [
        definition(PUSH_CONNECTOR, connectors.push_definition()),
        function_connector(),
        *(saved(one) for one in parsers()),
        *(belongs(one.kind, one.id, one.parent, one.version, one.needs) for one in found if one.kind in _AT_ONCE),
        *({**as_resource(one), "condition": "[parameters('createWatchlists')]"} for one in watchlists()),
        *_running(),
    ]
    made = [*(content_template(one) for one in found), *at_once, _package(found)]
    about = {"author": PUBLISHER, "comments": f"Solution template for {TITLE}"}
    return template(made, parameters, variables=variables, metadata=about)


def tried_with() -> dict[str, Any]:
    """``testParameters.json``: what the repository's deployment test gives."""
    given = {
        "location": "[resourceGroup().location]",
        "workspace-location": "",
        "workspace": "",
        "resourceGroupName": "[resourceGroup().name]",
        "subscription": "[last(split(subscription().id, '/'))]",
    }
    return {name: {"type": "string", "defaultValue": value} for name, value in given.items()}
