"""What is kept: the host's own storage account, the account with the one container of state, and the vault."""

from typing import Any

from part_names import resource

_ACCOUNT = "Microsoft.Storage/storageAccounts"
_SERVICE = f"{_ACCOUNT}/blobServices"
_CONTAINER = f"{_SERVICE}/containers"
_POLICY = f"{_ACCOUNT}/managementPolicies"
_VAULT = "Microsoft.KeyVault/vaults"


def _account(variable: str) -> list[dict[str, Any]]:
    """An account that takes no keys, no anonymous reads and no old TLS."""
    parent = f"[resourceId('{_ACCOUNT}', variables('{variable}'))]"
    return [
        resource(
            _ACCOUNT,
            f"[variables('{variable}')]",
            location="[parameters('location')]",
            kind="StorageV2",
            sku={"name": "Standard_ZRS"},
            properties={
                "minimumTlsVersion": "TLS1_2",
                "supportsHttpsTrafficOnly": True,
                "allowBlobPublicAccess": False,
                "allowSharedKeyAccess": False,
                "allowCrossTenantReplication": False,
                "defaultToOAuthAuthentication": True,
                "encryption": {
                    "keySource": "Microsoft.Storage",
                    "requireInfrastructureEncryption": True,
                    "services": {"blob": {"enabled": True, "keyType": "Account"}},
                },
                "networkAcls": {"defaultAction": "Allow", "bypass": "AzureServices"},
            },
        ),
        resource(
            _SERVICE,
            f"[concat(variables('{variable}'), '/default')]",
            dependsOn=[parent],
            properties={
                "deleteRetentionPolicy": {"enabled": True, "days": 7},
                "containerDeleteRetentionPolicy": {"enabled": True, "days": 7},
            },
        ),
    ]


def _container(variable: str, name: str) -> dict[str, Any]:
    return resource(
        _CONTAINER,
        f"[concat(variables('{variable}'), '/default/{name}')]",
        dependsOn=[f"[resourceId('{_SERVICE}', variables('{variable}'), 'default')]"],
        properties={"publicAccess": "None"},
    )


def _policy() -> dict[str, Any]:
    """How long dead letters and what was seen are kept; cursors, leases and what waits are never removed."""

    def removed(name: str, prefix: str, kind: str, days: int) -> dict[str, Any]:
        return {
            "enabled": True,
            "name": name,
            "type": "Lifecycle",
            "definition": {
                "filters": {"blobTypes": [kind], "prefixMatch": [prefix]},
                "actions": {"baseBlob": {"delete": {"daysAfterModificationGreaterThan": days}}},
            },
        }

    return resource(
        _POLICY,
        "[concat(variables('stateStorage'), '/default')]",
        dependsOn=[f"[resourceId('{_SERVICE}', variables('stateStorage'), 'default')]"],
        properties={
            "policy": {
                "rules": [
                    removed("dead-letters", "aitrail/dead/", "blockBlob", 180),
                    removed("seen", "aitrail/seen/", "appendBlob", 3),
                ]
            }
        },
    )


def resources() -> list[dict[str, Any]]:
    """Both accounts with their containers, and the vault with the key of the prompt hashes."""
    return [
        *_account("hostStorage"),
        _container("hostStorage", "packages"),
        *_account("stateStorage"),
        _container("stateStorage", "aitrail"),
        _policy(),
        resource(
            _VAULT,
            "[variables('vaultName')]",
            location="[parameters('location')]",
            properties={
                "tenantId": "[subscription().tenantId]",
                "sku": {"family": "A", "name": "standard"},
                "enableRbacAuthorization": True,
                "enableSoftDelete": True,
                "softDeleteRetentionInDays": 90,
                "enablePurgeProtection": True,
                "networkAcls": {"defaultAction": "Allow", "bypass": "AzureServices"},
            },
        ),
        resource(
            f"{_VAULT}/secrets",
            "[concat(variables('vaultName'), '/aitrail-hash-key')]",
            condition="[not(empty(parameters('hashKey')))]",
            dependsOn=[f"[resourceId('{_VAULT}', variables('vaultName'))]"],
            properties={
                "value": "[parameters('hashKey')]",
                "contentType": "key of the prompt hashes",
            },
        ),
    ]
