"""What the app's identity may do: each role on the one resource that it is needed for, never on a group of them.

Ids of roles: Microsoft Learn, "Azure built-in roles".
"""

from typing import Any

from part_names import resource

ROLES = {
    "Monitoring Metrics Publisher": "3913510d-42f4-4e42-8a64-420c390055eb",
    "Storage Blob Data Owner": "b7e6dc6d-f1e8-4753-8033-0f276bb0955b",
    "Storage Blob Data Contributor": "ba92f5b4-2d11-453d-a403-e96b0029c9fe",
    "Storage Blob Data Reader": "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1",
    "Key Vault Secrets User": "4633458b-17de-408a-b874-0445c86b69e6",
    "Azure Event Hubs Data Receiver": "a638d3c7-ab3a-418d-83e6-5f17a39d4fde",
    "Log Analytics Data Reader": "3b03c2da-16b3-4a49-8834-0f8130efdd3b",
}
_GRANT = "Microsoft.Authorization/roleAssignments"
_CONTAINER = "Microsoft.Storage/storageAccounts/blobServices/containers"
_SECRET = "Microsoft.KeyVault/vaults/secrets"  # noqa: S105 - a type of resources
_PRINCIPAL = "[reference(variables('identityId'), '2023-01-31').principalId]"


def _grant(role: str, scope: str, seed: str, needs: list[str], principal: str = _PRINCIPAL) -> dict[str, Any]:
    """One role on one resource; ``scope`` and ``seed`` are expressions without brackets."""
    role_id = f"[subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '{ROLES[role]}')]"
    return resource(
        _GRANT,
        f"[guid({seed})]",
        scope=f"[{scope}]",
        dependsOn=needs,
        properties={
            "roleDefinitionId": role_id,
            "principalId": principal,
            "principalType": "ServicePrincipal",
            "description": f"aitrail: {role}",
        },
    )


def _own() -> list[dict[str, Any]]:
    """On what this deployment makes."""
    identity = "[variables('identityId')]"
    state = f"resourceId('{_CONTAINER}', variables('stateStorage'), 'default', 'aitrail')"
    vault = "resourceId('Microsoft.KeyVault/vaults', variables('vaultName'))"
    return [
        _grant(
            "Monitoring Metrics Publisher",
            "variables('ruleId')",
            "variables('ruleId'), 'publisher'",
            [identity, "[variables('ruleId')]"],
        ),
        _grant("Storage Blob Data Contributor", state, f"{state}, 'state'", [identity, f"[{state}]"]),
        _grant("Key Vault Secrets User", vault, f"{vault}, 'secrets'", [identity, f"[{vault}]"]),
        _grant(
            "Storage Blob Data Owner",
            "variables('hostStorageId')",
            "variables('hostStorageId'), 'host'",
            [identity, "[variables('hostStorageId')]"],
        ),
    ]


def _elsewhere(
    name: str, group: str, condition: str, given: dict[str, Any], inner: list[dict[str, Any]], needs: list[str]
) -> dict[str, Any]:
    """A deployment into the resource group of something that is there already."""
    known = {"principal": {"value": _PRINCIPAL}, **given}
    return resource(
        "Microsoft.Resources/deployments",
        f"[concat(parameters('name'), '-{name}')]",
        condition=condition,
        resourceGroup=group,
        dependsOn=["[variables('identityId')]", *needs],
        properties={
            "mode": "Incremental",
            "expressionEvaluationOptions": {"scope": "inner"},
            "parameters": known,
            "template": {
                "$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#",
                "contentVersion": "1.0.0.0",
                "parameters": {parameter: {"type": "string"} for parameter in known},
                "resources": inner,
            },
        },
    )


def _hub() -> dict[str, Any]:
    """The consumer group of our own, and the right to receive from this hub."""
    hub = "resourceId('Microsoft.EventHub/namespaces/eventhubs', parameters('namespace'), parameters('hub'))"
    made = "[resourceId('Microsoft.EventHub/namespaces/eventhubs', if(variables('readsHub'), "
    return _elsewhere(
        "hub",
        "[parameters('eventHubResourceGroup')]",
        "[variables('readsHub')]",
        {
            "namespace": {"value": "[parameters('eventHubNamespace')]"},
            "hub": {"value": "[parameters('eventHubName')]"},
            "group": {"value": "[parameters('consumerGroup')]"},
        },
        [
            resource(
                "Microsoft.EventHub/namespaces/eventhubs/consumergroups",
                "[concat(parameters('namespace'), '/', parameters('hub'), '/', parameters('group'))]",
                properties={"userMetadata": "aitrail"},
            ),
            _grant("Azure Event Hubs Data Receiver", hub, f"{hub}, 'receiver'", [], "[parameters('principal')]"),
        ],
        [f"{made}parameters('eventHubNamespace'), 'none'), parameters('eventHubName'))]"],
    )


def _logs() -> dict[str, Any]:
    """The right to read one container of logs."""
    container = f"resourceId('{_CONTAINER}', parameters('account'), 'default', parameters('container'))"
    return _elsewhere(
        "logs",
        "[parameters('logStorageResourceGroup')]",
        "[variables('readsBlobs')]",
        {
            "account": {"value": "[parameters('logStorageAccount')]"},
            "container": {"value": "[parameters('logContainer')]"},
        },
        [_grant("Storage Blob Data Reader", container, f"{container}, 'reader'", [], "[parameters('principal')]")],
        [],
    )


def _workspace() -> dict[str, Any]:
    """The right to query the workspace."""
    workspace = "resourceId('Microsoft.OperationalInsights/workspaces', parameters('workspace'))"
    nested = (
        "[resourceId(parameters('workspaceResourceGroup'), 'Microsoft.Resources/deployments', "
        "concat(parameters('name'), '-workspace'))]"
    )
    return _elsewhere(
        "query",
        "[parameters('workspaceResourceGroup')]",
        "[parameters('readWorkspace')]",
        {"workspace": {"value": "[parameters('workspaceName')]"}},
        [_grant("Log Analytics Data Reader", workspace, f"{workspace}, 'reader'", [], "[parameters('principal')]")],
        [nested],
    )


def resources() -> list[dict[str, Any]]:
    """All assignments of roles."""
    return [*_own(), _hub(), _logs(), _workspace()]
