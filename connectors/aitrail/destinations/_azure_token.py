"""Tokens of Microsoft Entra ID: kept until shortly before they expire, asked for anew once when one is refused."""

import threading
from collections.abc import Callable
from typing import Any, Protocol

from aitrail.errors import AuthError, ConfigError, TransientError
from aitrail.managed_identity import ManagedIdentity, in_function_app

_EARLY_SECONDS = 300.0


class Token(Protocol):
    """``azure.core.credentials.AccessToken``, as far as it is used."""

    @property
    def token(self) -> str:
        """The bearer token."""
        ...

    @property
    def expires_on(self) -> int:
        """Epoch seconds."""
        ...


class Credential(Protocol):
    """Any credential of ``azure-identity``."""

    def get_token(self, *scopes: str) -> Token:
        """Give a token for the scopes; raises ``azure.core`` errors."""
        ...


class Tokens:
    """The current token of one credential and scope. Thread-safe.

    Args:
        credential: gives tokens.
        scope: what for, e.g. ``https://monitor.azure.com/.default``.
        now: epoch seconds.
        where: the setting that this comes from, for errors.
    """

    def __init__(self, credential: Credential, scope: str, now: Callable[[], float], where: str) -> None:
        self._credential = credential
        self._scope = scope
        self._now = now
        self._where = where
        self._lock = threading.Lock()
        self._token = ""
        self._until = 0.0

    def current(self, instead_of: str = "") -> str:
        """Give a token that is good for some minutes; a new one when ``instead_of`` was refused.

        Raises:
            AuthError: the identity is refused, or there is none.
            TransientError: the token service does not answer.
        """
        with self._lock:
            if not self._token or self._token == instead_of or self._now() >= self._until:
                got = self._ask()
                self._token, self._until = got.token, got.expires_on - _EARLY_SECONDS
            return self._token

    def _ask(self) -> Token:
        try:
            return self._credential.get_token(self._scope)
        except Exception as error:  # noqa: BLE001 - credentials raise what their HTTP libraries do, too
            # The message of such an error may quote the request; its class says enough.
            kind = type(error).__name__
            if kind in _REFUSED:
                raise AuthError(
                    f"{self._where}: no token from Microsoft Entra ID ({kind})",
                    hint="check tenant, client id and secret (AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET), "
                    "or the managed identity of this machine",
                ) from None
            raise TransientError(
                f"{self._where}: Microsoft Entra ID does not answer ({kind})", hint="events wait in the outbox"
            ) from None


# azure-core and azure-identity; by name, so that nothing of Azure is needed to run with another credential.
_REFUSED = frozenset({"ClientAuthenticationError", "CredentialUnavailableError", "AuthenticationRequiredError"})


def default_credential(where: str) -> Any:
    """Give azure-identity's default credential: environment, workload or managed identity, then developer tools.

    In a function app it is the app's own identity, asked for without azure-identity.

    Raises:
        ConfigError: azure-identity is not installed.
    """
    if in_function_app():
        return ManagedIdentity()
    try:
        from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigError(
            "Microsoft Sentinel needs azure-identity", where=where, hint="pip install 'aitrail[azure]'"
        ) from None
    return DefaultAzureCredential()
