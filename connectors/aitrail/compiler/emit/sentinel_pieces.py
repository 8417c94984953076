"""The pieces of the package: what the content hub installs one by one.

Facts (public repository, packages of version 3): each piece is a ``contentTemplates`` resource whose ``mainTemplate``
makes the piece and says in a ``metadata`` resource what it belongs to. Expressions inside are evaluated with the
package, unless they begin with ``[[``: then when the piece is installed. The properties of rules, hunting queries and
workbooks are the package's variables, because the same may be made at once, see ``sentinel_package``.
"""

from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from aitrail.compiler.emit import Content
from aitrail.compiler.emit import sentinel_connectors as connectors
from aitrail.compiler.emit.sentinel_facts import (
    API,
    CONTENT_VERSION,
    FUNCTION_CONNECTOR,
    PUSH_CONNECTOR,
    TITLE,
    VERSION,
    WORKSPACE,
    guid,
    resource,
    template,
)
from aitrail.compiler.emit.sentinel_live import hunting, kinds
from aitrail.compiler.emit.sentinel_parsers import Parser, parsers
from aitrail.compiler.emit.sentinel_parsers import properties as function
from aitrail.compiler.emit.sentinel_playbooks import azuredeploy, playbooks
from aitrail.compiler.emit.sentinel_queries import near_real_time, plan
from aitrail.compiler.emit.sentinel_rules import short, title
from aitrail.compiler.emit.sentinel_workbooks import metadata, workbook_key, workbook_title

_PACKAGE_ID = (
    "[extensionResourceId(resourceId('Microsoft.OperationalInsights/workspaces', parameters('workspace')),"
    " 'Microsoft.SecurityInsights/contentPackages', variables('_solutionId'))]"
)
_CODES = {
    "AnalyticsRule": "ar",
    "HuntingQuery": "hq",
    "Parser": "pr",
    "Workbook": "wb",
    "Playbook": "pl",
    "DataConnector": "dc",
    "ResourcesDataConnector": "rdc",
}
CONNECTIONS = f"{PUSH_CONNECTOR}Connections"


class Piece(Struct, frozen=True):
    """What the hub installs by itself.

    Attributes:
        kind: ``contentKind``.
        parent: expression of the resource that the metadata belongs to.
        made: the resources, without that of the metadata.
        parameters, variables: of the inner template.
        needs: ``dependencies`` of the metadata.
        about: its description; ``said``: what the wizard says of it where it has none.
        gallery: what the inner template says of itself, for playbooks.
    """

    kind: str
    id: str
    title: str
    parent: str
    made: list[dict[str, Any]]
    version: str = CONTENT_VERSION
    parameters: dict[str, Any] = {}
    variables: dict[str, Any] = {}
    needs: dict[str, Any] | None = None
    about: str = ""
    said: str = ""
    gallery: dict[str, Any] | None = None

    @property
    def product(self) -> str:
        """``contentProductId``."""
        code = _CODES[self.kind]
        return (
            f"[concat(take(variables('_solutionId'), 50), '-{code}-', uniqueString(concat(variables('_solutionId'),"
            f" '-{self.kind}-{self.id}-{self.version}')))]"
        )


def belongs(kind: str, id_: str, parent: str, version: str, needs: dict[str, Any] | None = None) -> dict[str, Any]:
    """The resource that says what a thing belongs to."""
    return resource(
        f"{WORKSPACE}/providers/metadata",
        f"[concat(parameters('workspace'), '/Microsoft.SecurityInsights/{kind}-{id_}')]",
        properties={
            "parentId": parent,
            "contentId": id_,
            "kind": kind,
            "version": version,
            "source": "[variables('source')]",
            "author": "[variables('author')]",
            "support": "[variables('support')]",
            **({"dependencies": needs} if needs else {}),
        },
    )


def content_template(piece: Piece) -> dict[str, Any]:
    """The resource that holds a piece."""
    code = _CODES[piece.kind]
    inner = template(
        [*piece.made, belongs(piece.kind, piece.id, piece.parent, piece.version, piece.needs)],
        piece.parameters,
        variables=piece.variables,
        metadata=piece.gallery,
    )
    inner["contentVersion"] = piece.version
    name = f"concat(parameters('workspace'), '-{code}-', uniqueString('{piece.id}'))"
    return resource(
        f"{WORKSPACE}/providers/contentTemplates",
        f"[concat(parameters('workspace'), '/Microsoft.SecurityInsights/', {name})]",
        location="[parameters('workspace-location')]",
        dependsOn=[_PACKAGE_ID],
        properties={
            "contentId": piece.id,
            "contentKind": piece.kind,
            "displayName": piece.title,
            **({"description": piece.about} if piece.about else {}),
            "mainTemplate": inner,
            "packageKind": "Solution",
            "packageVersion": VERSION,
            "packageName": TITLE,
            "packageId": "[variables('_solutionId')]",
            "contentSchemaVersion": "3.0.0",
            "contentProductId": piece.product,
            "id": piece.product,
            "version": piece.version,
        },
    )


# --- by kind


def _rules(content: Content) -> Iterator[Piece]:
    """Their properties are variables, because rules that run at once have the same."""
    kind = "Microsoft.SecurityInsights/AlertRuleTemplates"
    for rule in kinds(content)[0]:
        id_ = rule.meta.id
        made = resource(
            kind,
            id_,
            kind="NRT" if near_real_time(rule) else "Scheduled",
            location="[parameters('workspace-location')]",
            properties=f"[union(variables('rules')['{id_}'], variables('template-{plan(rule).dataset}'))]",
        )
        parent = f"[resourceId('{kind}', '{id_}')]"
        yield Piece("AnalyticsRule", id_, title(rule), parent, [made], said=short(rule))


def _hunts(content: Content) -> Iterator[Piece]:
    kind = "Microsoft.OperationalInsights/savedSearches"
    for id_, given in hunting(content):
        made = {
            "type": kind,
            "apiVersion": API[f"{WORKSPACE}/savedSearches"],
            "name": f"aitrail_{id_}",
            "location": "[parameters('workspace-location')]",
            "properties": f"[variables('hunts')['{id_}']]",
        }
        parent = f"[resourceId('{kind}', 'aitrail_{id_}')]"
        said = str(given["tags"][0]["value"]).partition("\n")[0]
        yield Piece("HuntingQuery", id_, given["displayName"], parent, [made], said=said)


def _functions() -> Iterator[Piece]:
    for one in parsers():
        parent = f"[resourceId('{WORKSPACE}/savedSearches', parameters('workspace'), '{one.name}')]"
        yield Piece("Parser", one.id, one.title, parent, [saved(one)])


def saved(one: Parser) -> dict[str, Any]:
    """A function of the workspace."""
    return resource(
        f"{WORKSPACE}/savedSearches",
        f"[concat(parameters('workspace'), '/{one.name}')]",
        location="[parameters('workspace-location')]",
        properties=function(one),
    )


def _workbooks(content: Content) -> Iterator[Piece]:
    for board in content.dashboards:
        id_ = guid("workbook", board.name)
        made = resource(
            "Microsoft.Insights/workbooks",
            id_,
            location="[parameters('workspace-location')]",
            kind="shared",
            metadata={"description": board.description},
            properties=f"[variables('workbooks')['{id_}']]",
        )
        entry = metadata(board)
        criteria = [{"contentId": one, "kind": "DataType"} for one in entry["dataTypesDependencies"]]
        criteria += [{"contentId": one, "kind": "DataConnector"} for one in entry["dataConnectorsDependencies"]]
        yield Piece(
            "Workbook",
            workbook_key(board),
            workbook_title(board),
            f"[resourceId('Microsoft.Insights/workbooks', '{id_}')]",
            [made],
            needs={"operator": "AND", "criteria": criteria},
            about=board.description,
        )


def _playbooks() -> Iterator[Piece]:
    for one in playbooks():
        given = deferred(azuredeploy(one))
        parent = "[[resourceId('Microsoft.Logic/workflows', parameters('PlaybookName'))]"
        yield Piece(
            "Playbook",
            one.name,
            one.title,
            parent,
            given["resources"],
            parameters=given["parameters"],
            variables=given["variables"],
            about=one.about,
            gallery=given["metadata"],
        )


def deferred(value: Any) -> Any:
    """The same with every expression left to the inner deployment."""
    if isinstance(value, dict):
        return {key: deferred(one) for key, one in value.items()}
    if isinstance(value, list):
        return [deferred(one) for one in value]
    return f"[{value}" if isinstance(value, str) and value.startswith("[") else value


def definition(name: str, page: dict[str, Any]) -> dict[str, Any]:
    """A connector's page."""
    return resource(
        f"{WORKSPACE}/providers/dataConnectorDefinitions",
        f"[concat(parameters('workspace'), '/Microsoft.SecurityInsights/{name}')]",
        location="[parameters('workspace-location')]",
        kind="Customizable",
        properties={"connectorUiConfig": page},
    )


def _connector_parent(kind: str, name: str) -> str:
    return (
        "[extensionResourceId(resourceId('Microsoft.OperationalInsights/workspaces', parameters('workspace')),"
        f" 'Microsoft.SecurityInsights/{kind}', '{name}')]"
    )


def _connectors() -> Iterator[Piece]:
    parent = _connector_parent("dataConnectorDefinitions", PUSH_CONNECTOR)
    yield Piece(
        "DataConnector",
        PUSH_CONNECTOR,
        connectors.push_definition()["title"],
        parent,
        [
            definition(PUSH_CONNECTOR, connectors.push_definition()),
            connectors.push_rule(),
            *connectors.push_tables(),
        ],
        version=VERSION,
        needs={"criteria": [{"version": VERSION, "contentId": CONNECTIONS, "kind": "ResourcesDataConnector"}]},
    )
    yield _connection()
    parent = _connector_parent("dataConnectors", FUNCTION_CONNECTOR)
    yield Piece(
        "DataConnector",
        FUNCTION_CONNECTOR,
        connectors.function_page()["title"],
        parent,
        [function_connector()],
        version=CONTENT_VERSION,
    )


def function_connector() -> dict[str, Any]:
    """The function app's page, which has no connection of its own; this kind is known to an older version alone."""
    page = {key: value for key, value in connectors.function_page().items() if key != "metadata"}
    made = resource(
        f"{WORKSPACE}/providers/dataConnectors",
        f"[concat(parameters('workspace'), '/Microsoft.SecurityInsights/{FUNCTION_CONNECTOR}')]",
        location="[parameters('workspace-location')]",
        kind="GenericUI",
        properties={"connectorUiConfig": page},
    )
    return {**made, "apiVersion": "2021-03-01-preview"}


def _connection() -> Piece:
    made = resource(
        f"{WORKSPACE}/providers/dataConnectors",
        "[[concat(parameters('innerWorkspace'), '/Microsoft.SecurityInsights/AitrailPush', parameters('guidValue'))]",
        location="[parameters('workspace-location')]",
        kind="Push",
        properties=connectors.push_connection(),
    )
    text = {"type": "securestring"}
    given = {
        "guidValue": {**text, "defaultValue": "[[newGuid()]"},
        "innerWorkspace": {**text, "defaultValue": "[parameters('workspace')]"},
        "connectorDefinitionName": {**text, "defaultValue": PUSH_CONNECTOR, "minLength": 1},
        "workspace": {**text, "defaultValue": "[parameters('workspace')]"},
        "auth": {"type": "object", "defaultValue": {"appId": "", "servicePrincipalId": ""}},
        "dcrConfig": {
            "type": "object",
            "defaultValue": {"dataCollectionEndpoint": "", "dataCollectionRuleImmutableId": ""},
        },
    }
    return Piece(
        "ResourcesDataConnector",
        CONNECTIONS,
        connectors.push_definition()["title"],
        _connector_parent("dataConnectors", CONNECTIONS),
        [made],
        version=VERSION,
        parameters=given,
    )


def pieces(content: Content) -> list[Piece]:
    """All of them, in the order of the package."""
    return [
        *_connectors(),
        *_functions(),
        *_workbooks(content),
        *_rules(content),
        *_hunts(content),
        *_playbooks(),
    ]
