"""Where events go: the workspace (when asked for), its tables, and the data collection rule that takes rows in."""

from typing import Any

from part_names import resource

from aitrail.destinations.sentinel_rows import STREAMS, record_table
from aitrail.schema.views.kusto import columns

_WORKSPACE = "Microsoft.OperationalInsights/workspaces"
_TABLE = f"{_WORKSPACE}/tables"
_RULE = "Microsoft.Insights/dataCollectionRules"
_DEPLOYMENT = "Microsoft.Resources/deployments"
NESTED = "2019-04-01/deploymentTemplate.json#"
# Names of column types in table definitions; those of streams are the KQL ones.
_TABLE_TYPES = {"datetime": "datetime", "string": "string", "long": "long", "real": "real", "bool": "boolean"}


def tables() -> dict[str, list[tuple[str, str]]]:
    """Every table that a stream of ours ends up in: its columns and their KQL types."""
    found: dict[str, list[tuple[str, str]]] = {}
    for stream, kind in STREAMS.items():
        if stream == "agent_event":
            continue  # Sentinel's own table: it is there already
        own = columns() if stream == "access" else record_table(stream)
        found[kind.table] = [(column, type_) for _, column, type_ in own]
    return found


def _table(name: str, listed: list[tuple[str, str]]) -> dict[str, Any]:
    return resource(
        _TABLE,
        f"[concat(parameters('workspaceName'), '/{name}')]",
        dependsOn=["[resourceId('Microsoft.OperationalInsights/workspaces', parameters('workspaceName'))]"],
        properties={
            "plan": "Analytics",
            "schema": {
                "name": name,
                "columns": [{"name": column, "type": _TABLE_TYPES.get(type_, type_)} for column, type_ in listed],
            },
        },
    )


def _workspace() -> dict[str, Any]:
    """What lies in the workspace's resource group, which may be another one: a deployment of its own."""
    inner = {
        "name": {"type": "string"},
        "location": {"type": "string"},
        "create": {"type": "bool"},
    }
    return resource(
        _DEPLOYMENT,
        "[concat(parameters('name'), '-workspace')]",
        resourceGroup="[parameters('workspaceResourceGroup')]",
        properties={
            "mode": "Incremental",
            "expressionEvaluationOptions": {"scope": "inner"},
            "parameters": {
                "workspaceName": {"value": "[parameters('workspaceName')]"},
                "location": {"value": "[parameters('location')]"},
                "create": {"value": "[parameters('createWorkspace')]"},
            },
            "template": {
                "$schema": f"https://schema.management.azure.com/schemas/{NESTED}",
                "contentVersion": "1.0.0.0",
                "parameters": {
                    "workspaceName": inner["name"],
                    "location": inner["location"],
                    "create": inner["create"],
                },
                "resources": [
                    resource(
                        _WORKSPACE,
                        "[parameters('workspaceName')]",
                        condition="[parameters('create')]",
                        location="[parameters('location')]",
                        properties={
                            "sku": {"name": "PerGB2018"},
                            "retentionInDays": 90,
                            "features": {"disableLocalAuth": True},
                        },
                    ),
                    resource(
                        "Microsoft.SecurityInsights/onboardingStates",
                        "default",
                        condition="[parameters('create')]",
                        scope="[concat('Microsoft.OperationalInsights/workspaces/', parameters('workspaceName'))]",
                        dependsOn=[
                            "[resourceId('Microsoft.OperationalInsights/workspaces', parameters('workspaceName'))]"
                        ],
                        properties={},
                    ),
                    *(_table(name, listed) for name, listed in tables().items()),
                ],
            },
        },
    )


def _rule() -> dict[str, Any]:
    declared = {f"Custom-{name}": listed for name, listed in tables().items()}
    return resource(
        _RULE,
        "[variables('ruleName')]",
        location="[parameters('location')]",
        kind="Direct",
        dependsOn=[_nested_id()],
        properties={
            "description": "aitrail: rows of the Logs Ingestion API into the tables of the catalog, as they are",
            "streamDeclarations": {
                stream: {"columns": [{"name": name, "type": _stream_type(kind)} for name, kind in listed]}
                for stream, listed in declared.items()
            },
            "destinations": {
                "logAnalytics": [{"workspaceResourceId": "[variables('workspaceId')]", "name": "workspace"}]
            },
            "dataFlows": [
                {"streams": [stream], "destinations": ["workspace"], "transformKql": "source", "outputStream": stream}
                for stream in declared
            ],
        },
    )


def _nested_id() -> str:
    return (
        f"[resourceId(parameters('workspaceResourceGroup'), '{_DEPLOYMENT}', concat(parameters('name'), '-workspace'))]"
    )


def _stream_type(kind: str) -> str:
    return "boolean" if kind == "bool" else kind


def resources() -> list[dict[str, Any]]:
    """Workspace, tables, rule, and Application Insights on the same workspace."""
    insights = resource(
        "Microsoft.Insights/components",
        "[variables('insightsName')]",
        location="[parameters('location')]",
        kind="web",
        dependsOn=[_nested_id()],
        properties={"Application_Type": "web", "WorkspaceResourceId": "[variables('workspaceId')]"},
    )
    return [_workspace(), _rule(), insights]
