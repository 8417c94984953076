"""Parameters, variables and outputs of both templates, and how expressions of ARM are written here."""

from typing import Any

# Pinned: a newer API version changes what a template means.
API = {
    "Microsoft.Authorization/roleAssignments": "2022-04-01",
    "Microsoft.EventHub/namespaces": "2024-01-01",
    "Microsoft.EventHub/namespaces/eventhubs": "2024-01-01",
    "Microsoft.EventHub/namespaces/eventhubs/consumergroups": "2024-01-01",
    "Microsoft.Insights/components": "2020-02-02",
    "Microsoft.Insights/dataCollectionRules": "2023-03-11",
    "Microsoft.Insights/scheduledQueryRules": "2023-12-01",
    "Microsoft.KeyVault/vaults": "2023-07-01",
    "Microsoft.KeyVault/vaults/secrets": "2023-07-01",
    "Microsoft.ManagedIdentity/userAssignedIdentities": "2023-01-31",
    "Microsoft.OperationalInsights/workspaces": "2023-09-01",
    "Microsoft.OperationalInsights/workspaces/tables": "2023-09-01",
    "Microsoft.Resources/deployments": "2022-09-01",
    "Microsoft.SecurityInsights/onboardingStates": "2024-03-01",
    "Microsoft.Storage/storageAccounts": "2023-05-01",
    "Microsoft.Storage/storageAccounts/blobServices": "2023-05-01",
    "Microsoft.Storage/storageAccounts/blobServices/containers": "2023-05-01",
    "Microsoft.Storage/storageAccounts/managementPolicies": "2023-05-01",
    "Microsoft.Web/serverfarms": "2024-04-01",
    "Microsoft.Web/sites": "2024-04-01",
    "Microsoft.Web/sites/basicPublishingCredentialsPolicies": "2024-04-01",
}


def resource(type_: str, name: str, **more: Any) -> dict[str, Any]:
    """A resource with the pinned API version of its type."""
    return {"type": type_, "apiVersion": API[type_], "name": name, **more}


def text(name: str, description: str, default: str | None = None, **more: Any) -> dict[str, Any]:
    """A parameter of text."""
    value = {} if default is None else {"defaultValue": default}
    return {name: {"type": "string", **value, **more, "metadata": {"description": description}}}


def yes_no(name: str, description: str, default: bool) -> dict[str, Any]:
    """A parameter that is true or false."""
    return {name: {"type": "bool", "defaultValue": default, "metadata": {"description": description}}}


PARAMETERS: dict[str, Any] = {
    **text(
        "name",
        "Begins the names of all resources; lower-case letters and digits.",
        "aitrail",
        minLength=3,
        maxLength=10,
    ),
    **text("location", "Region; the data collection rule must be in the workspace's.", "[resourceGroup().location]"),
    **text("workspaceName", "Log Analytics workspace with Microsoft Sentinel that takes the events."),
    **text("workspaceResourceGroup", "Its resource group.", "[resourceGroup().name]"),
    **yes_no("createWorkspace", "Make the workspace and put Microsoft Sentinel on it.", False),
    **text(
        "eventHubNamespace", "Event Hubs namespace that diagnostic settings write to; empty: no event hub is read.", ""
    ),
    **text("eventHubName", "Event hub in it.", "ai-logs"),
    **text("eventHubResourceGroup", "Its resource group.", "[resourceGroup().name]"),
    **yes_no("createEventHub", "Make the namespace and the event hub.", False),
    **text("consumerGroup", "Consumer group that nothing else reads with; it is made.", "aitrail"),
    **text("logStorageAccount", "Storage account whose container of logs is read; empty: none.", ""),
    **text("logContainer", "That container, e.g. insights-logs-requestresponse.", "insights-logs-requestresponse"),
    **text("logStorageResourceGroup", "Resource group of that account.", "[resourceGroup().name]"),
    **yes_no(
        "readWorkspace", "Read the gateway and diagnostic tables of the workspace, too (a role on it is given).", False
    ),
    **text(
        "contentMode",
        "How much of prompts and answers is kept.",
        "redacted",
        allowedValues=["none", "hash", "redacted"],
    ),
    **text("moreConfiguration", "TOML that is added to the configuration: further sources, [mapping], [classify].", ""),
    "hashKey": {
        "type": "secureString",
        "defaultValue": "",
        "metadata": {
            "description": "Key of the prompt hashes (openssl rand -hex 32), for the first deployment; empty: the "
            "secret in the vault stays as it is."
        },
    },
    **text("schedule", "When sources are polled: six fields, seconds first (UTC).", "0 */5 * * * *"),
    **text("actionGroupId", "Resource id of the action group that alerts go to; empty: alerts notify nobody.", ""),
    "lagSeconds": {
        "type": "int",
        "defaultValue": 3600,
        "metadata": {"description": "Alert when a source lags further behind than this."},
    },
    **text("silenceHours", "Alert when no record came for this long.", "PT6H", allowedValues=["PT1H", "PT6H", "P1D"]),
}

FLEX_PARAMETERS: dict[str, Any] = {
    "instanceMemoryMB": {
        "type": "int",
        "defaultValue": 2048,
        "allowedValues": [512, 2048, 4096],
        "metadata": {"description": "Memory of an instance; what is paid grows with it."},
    },
}

PREMIUM_PARAMETERS: dict[str, Any] = {
    **text("planSku", "Size of the plan.", "EP1", allowedValues=["EP1", "EP2", "EP3"]),
    **text(
        "packageBlob", "Name of the package in the container `packages` of the host's storage account.", "aitrail.zip"
    ),
}

_SUFFIX = "uniqueString(resourceGroup().id, parameters('name'))"
VARIABLES: dict[str, Any] = {
    "appName": f"[concat(parameters('name'), '-', {_SUFFIX})]",
    "hostStorage": f"[take(concat(parameters('name'), 'h', {_SUFFIX}), 24)]",
    "stateStorage": f"[take(concat(parameters('name'), 's', {_SUFFIX}), 24)]",
    "vaultName": f"[take(concat(parameters('name'), '-', {_SUFFIX}), 24)]",
    "identityName": "[concat(parameters('name'), '-identity')]",
    "ruleName": "[concat(parameters('name'), '-rule')]",
    "insightsName": "[concat(parameters('name'), '-insights')]",
    "planName": "[concat(parameters('name'), '-plan')]",
    "identityId": "[resourceId('Microsoft.ManagedIdentity/userAssignedIdentities', variables('identityName'))]",
    "hostStorageId": "[resourceId('Microsoft.Storage/storageAccounts', variables('hostStorage'))]",
    "ruleId": "[resourceId('Microsoft.Insights/dataCollectionRules', variables('ruleName'))]",
    "insightsId": "[resourceId('Microsoft.Insights/components', variables('insightsName'))]",
    "workspaceId": "[resourceId(parameters('workspaceResourceGroup'), 'Microsoft.OperationalInsights/workspaces', "
    "parameters('workspaceName'))]",
    "readsHub": "[not(empty(parameters('eventHubNamespace')))]",
    "readsBlobs": "[not(empty(parameters('logStorageAccount')))]",
}

OUTPUTS: dict[str, Any] = {
    "functionApp": {"type": "string", "value": "[variables('appName')]"},
    "hostStorageAccount": {"type": "string", "value": "[variables('hostStorage')]"},
    "stateContainer": {
        "type": "string",
        "value": "[concat('https://', variables('stateStorage'), '.blob.', environment().suffixes.storage, "
        "'/aitrail')]",
    },
    "vault": {"type": "string", "value": "[variables('vaultName')]"},
    "ingestionEndpoint": {
        "type": "string",
        "value": "[reference(variables('ruleId'), '2023-03-11').endpoints.logsIngestion]",
    },
    "ruleImmutableId": {"type": "string", "value": "[reference(variables('ruleId'), '2023-03-11').immutableId]"},
}
