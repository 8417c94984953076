"""What runs: the identity, the plan and the function app, and the event hub when it is to be made."""

from typing import Any

from part_names import resource

_SITE = "Microsoft.Web/sites"
_PLAN = "Microsoft.Web/serverfarms"
_IDENTITY = "Microsoft.ManagedIdentity/userAssignedIdentities"
_HUBS = "Microsoft.EventHub/namespaces"
_CONTAINER = "Microsoft.Storage/storageAccounts/blobServices/containers"
_GRANT = "Microsoft.Authorization/roleAssignments"
_PYTHON = "3.13"
_CLIENT = "[reference(variables('identityId'), '2023-01-31').clientId]"
_BLOB_HOST = "environment().suffixes.storage"

# The configuration that the app gets; what a deployment does not use is an empty string.
_HEAD = """[tenants.default]
key = "env:AITRAIL_HASH_KEY"
content = "{0}"

[destinations.sentinel]
type = "sentinel"
url = "{1}"
dcr = "{2}"
streams = ["access"]
"""
_HUB = """
[sources.hub]
type = "event_hubs"
namespace = "{0}.servicebus.windows.net"
event_hub = "{1}"
consumer_group = "{2}"
start = "earliest"
"""
_BLOBS = """
[sources.blobs]
type = "azure_blobs"
account_url = "https://{0}.blob.{1}"
containers = ["{2}"]
"""
_TABLES = """
[sources.workspace]
type = "log_analytics"
workspace_id = "{0}"
"""


def _config() -> str:
    """The expression that gives the configuration."""

    def piece(text: str) -> str:
        return "'" + text.replace("'", "''") + "'"

    rule = "reference(variables('ruleId'), '2023-03-11')"
    workspace = "reference(variables('workspaceId'), '2023-09-01').customerId"
    head = f"format({piece(_HEAD)}, parameters('contentMode'), {rule}.endpoints.logsIngestion, {rule}.immutableId)"
    hub = (
        f"if(variables('readsHub'), format({piece(_HUB)}, parameters('eventHubNamespace'), parameters('eventHubName'), "
        "parameters('consumerGroup')), '')"
    )
    blobs = (
        f"if(variables('readsBlobs'), format({piece(_BLOBS)}, parameters('logStorageAccount'), {_BLOB_HOST}, "
        "parameters('logContainer')), '')"
    )
    tables = f"if(parameters('readWorkspace'), format({piece(_TABLES)}, {workspace}), '')"
    return f"[concat({head}, {hub}, {blobs}, {tables}, parameters('moreConfiguration'))]"


def settings(plan: str) -> list[dict[str, str]]:
    """The app's settings. None of them is a secret: the one that is points into the vault."""
    vault = (
        "[concat('@Microsoft.KeyVault(SecretUri=https://', variables('vaultName'), environment().suffixes.keyvaultDns, "
        "'/secrets/aitrail-hash-key)')]"
    )
    found = {
        "AzureWebJobsStorage__accountName": "[variables('hostStorage')]",
        "AzureWebJobsStorage__credential": "managedidentity",
        "AzureWebJobsStorage__clientId": _CLIENT,
        "APPLICATIONINSIGHTS_CONNECTION_STRING": "[reference(variables('insightsId'), '2020-02-02').ConnectionString]",
        "AZURE_CLIENT_ID": _CLIENT,
        "AITRAIL_CONFIG": _config(),
        "AITRAIL_HASH_KEY": vault,
        "AITRAIL_SCHEDULE": "[parameters('schedule')]",
        "AITRAIL_STATE_URL": f"[concat('https://', variables('stateStorage'), '.blob.', {_BLOB_HOST}, '/aitrail')]",
        "AITRAIL_HUB__fullyQualifiedNamespace": "[if(variables('readsHub'), "
        "concat(parameters('eventHubNamespace'), '.servicebus.windows.net'), '')]",
        "AITRAIL_HUB__credential": "managedidentity",
        "AITRAIL_HUB__clientId": _CLIENT,
    }
    if plan == "premium":
        found |= {
            "FUNCTIONS_EXTENSION_VERSION": "~4",
            "FUNCTIONS_WORKER_RUNTIME": "python",
            "WEBSITE_RUN_FROM_PACKAGE": f"[concat('https://', variables('hostStorage'), '.blob.', {_BLOB_HOST}, "
            "'/packages/', parameters('packageBlob'))]",
            "WEBSITE_RUN_FROM_PACKAGE_BLOB_MI_RESOURCE_ID": "[variables('identityId')]",
        }
    return [{"name": name, "value": value} for name, value in found.items()]


def _flex() -> dict[str, Any]:
    """What Flex Consumption asks for beside the common part."""
    return {
        "functionAppConfig": {
            "deployment": {
                "storage": {
                    "type": "blobContainer",
                    "value": f"[concat('https://', variables('hostStorage'), '.blob.', {_BLOB_HOST}, '/packages')]",
                    "authentication": {
                        "type": "UserAssignedIdentity",
                        "userAssignedIdentityResourceId": "[variables('identityId')]",
                    },
                }
            },
            "scaleAndConcurrency": {
                "maximumInstanceCount": 40,
                "instanceMemoryMB": "[parameters('instanceMemoryMB')]",
            },
            "runtime": {"name": "python", "version": _PYTHON},
        }
    }


def _site(plan: str) -> dict[str, Any]:
    common: dict[str, Any] = {
        "minTlsVersion": "1.2",
        "scmMinTlsVersion": "1.2",
        "ftpsState": "Disabled",
        "http20Enabled": True,
        "remoteDebuggingEnabled": False,
        "appSettings": settings(plan),
    }
    if plan == "premium":
        common |= {"linuxFxVersion": f"Python|{_PYTHON}", "minimumElasticInstanceCount": 1}
    return resource(
        _SITE,
        "[variables('appName')]",
        location="[parameters('location')]",
        kind="functionapp,linux",
        identity={"type": "UserAssigned", "userAssignedIdentities": {"[variables('identityId')]": {}}},
        dependsOn=[
            "[variables('identityId')]",
            f"[resourceId('{_PLAN}', variables('planName'))]",
            "[variables('insightsId')]",
            "[variables('ruleId')]",
            f"[resourceId('{_CONTAINER}', variables('hostStorage'), 'default', 'packages')]",
            f"[extensionResourceId(variables('hostStorageId'), '{_GRANT}', guid(variables('hostStorageId'), 'host'))]",
        ],
        properties={
            "serverFarmId": f"[resourceId('{_PLAN}', variables('planName'))]",
            "httpsOnly": True,
            "keyVaultReferenceIdentity": "[variables('identityId')]",
            "siteConfig": common,
            **(_flex() if plan == "flex" else {}),
        },
    )


def _no_passwords(what: str) -> dict[str, Any]:
    """Deploying by user name and password is off: only identities of Entra ID deploy."""
    return resource(
        f"{_SITE}/basicPublishingCredentialsPolicies",
        f"[concat(variables('appName'), '/{what}')]",
        dependsOn=[f"[resourceId('{_SITE}', variables('appName'))]"],
        properties={"allow": False},
    )


def _hub() -> list[dict[str, Any]]:
    """Namespace and event hub, when they are to be made; the consumer group always, where a hub is read."""
    wanted = "[and(variables('readsHub'), parameters('createEventHub'))]"
    return [
        resource(
            _HUBS,
            "[if(variables('readsHub'), parameters('eventHubNamespace'), 'none')]",
            condition=wanted,
            location="[parameters('location')]",
            sku={"name": "Standard", "tier": "Standard", "capacity": 1},
            properties={
                "minimumTlsVersion": "1.2",
                "isAutoInflateEnabled": True,
                "maximumThroughputUnits": 10,
                "zoneRedundant": True,
            },
        ),
        resource(
            f"{_HUBS}/eventhubs",
            "[concat(if(variables('readsHub'), parameters('eventHubNamespace'), 'none'), '/', "
            "parameters('eventHubName'))]",
            condition=wanted,
            dependsOn=[f"[resourceId('{_HUBS}', if(variables('readsHub'), parameters('eventHubNamespace'), 'none'))]"],
            properties={"partitionCount": 4, "messageRetentionInDays": 7},
        ),
    ]


def resources(plan: str) -> list[dict[str, Any]]:
    """Identity, plan, app, and what it is triggered by."""
    sku = {"name": "FC1", "tier": "FlexConsumption"} if plan == "flex" else {"name": "[parameters('planSku')]"}
    more: dict[str, Any] = {"zoneRedundant": False} if plan == "flex" else {"maximumElasticWorkerCount": 20}
    return [
        resource(_IDENTITY, "[variables('identityName')]", location="[parameters('location')]"),
        resource(
            _PLAN,
            "[variables('planName')]",
            location="[parameters('location')]",
            kind="functionapp" if plan == "flex" else "elastic",
            sku=sku if plan == "flex" else {**sku, "tier": "ElasticPremium"},
            properties={"reserved": True, **more},
        ),
        _site(plan),
        _no_passwords("ftp"),
        _no_passwords("scm"),
        *_hub(),
    ]
