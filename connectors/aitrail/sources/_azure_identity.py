"""Who aitrail is at Azure: azure-identity's default chain, unless a secret is configured; a function app is itself."""

from typing import Any

from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError

from aitrail.managed_identity import AccessToken, CredentialUnavailableError, ManagedIdentity, in_function_app


class AppIdentity:
    """A function app's identity for the SDK's clients, which know only their own errors."""

    def __init__(self, managed_identity: str = "") -> None:
        self._identity = ManagedIdentity(managed_identity)

    def get_token(self, *scopes: str, **more: Any) -> AccessToken:
        """Give a token; raises ``azure.core`` errors."""
        try:
            return self._identity.get_token(*scopes, **more)
        except CredentialUnavailableError as error:
            raise ClientAuthenticationError(str(error)) from None
        except OSError as error:
            raise ServiceRequestError(type(error).__name__) from None

    def close(self) -> None:
        """There is nothing to give back."""


def default_credential(managed_identity: str = "") -> Any:
    """Environment, workload or managed identity, then developer tools; never an interactive question.

    Args:
        managed_identity: client id of a user-assigned identity; empty: the machine's own.
    """
    if in_function_app():
        return AppIdentity(managed_identity)
    from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - half a second that a function app saves

    if managed_identity:
        return DefaultAzureCredential(managed_identity_client_id=managed_identity)
    return DefaultAzureCredential()
