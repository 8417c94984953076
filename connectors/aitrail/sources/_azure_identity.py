"""Who aitrail is at Azure: azure-identity's default chain, unless a secret is configured."""

from typing import Any

from azure.identity import DefaultAzureCredential


def default_credential(managed_identity: str = "") -> Any:
    """Environment, workload or managed identity, then developer tools; never an interactive question.

    Args:
        managed_identity: client id of a user-assigned identity; empty: the machine's own.
    """
    if managed_identity:
        return DefaultAzureCredential(managed_identity_client_id=managed_identity)
    return DefaultAzureCredential()
