"""Tokens of a function app's managed identity: one GET to the platform's own endpoint, no SDK.

azure-identity costs 6.5 MB of package and 0.4 s of every cold start, and here it would end at this same request. Facts:
Microsoft Learn "How to use managed identities for App Service and Azure Functions", REST endpoint reference
(``IDENTITY_ENDPOINT``, ``IDENTITY_HEADER``, api-version 2019-08-01, ``expires_on`` in epoch seconds).
"""

import http.client
import os
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import msgspec

API_VERSION = "2019-08-01"
_SECONDS = 10.0
_ANSWER_BYTES = 64 << 10


def in_function_app(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the platform offers a managed identity that way."""
    return bool(environment.get("IDENTITY_ENDPOINT") and environment.get("IDENTITY_HEADER"))


class AccessToken(NamedTuple):
    """A bearer token and when it expires (epoch seconds); what ``azure.core.credentials`` calls the same."""

    token: str
    expires_on: int


class CredentialUnavailableError(Exception):
    """There is no such identity here; named as azure-identity's, so that it is understood alike."""


class _Answer(msgspec.Struct):
    access_token: str
    expires_on: int | str


class ManagedIdentity:
    """Gives tokens of the app's identity. Thread-safe; keeps none (the caller does).

    Args:
        client_id: of a user-assigned identity; empty: the one that ``AZURE_CLIENT_ID`` names, as azure-identity reads
            it, else the system-assigned one.
        environment: where the platform says how to ask.
    """

    def __init__(self, client_id: str = "", environment: Mapping[str, str] = os.environ) -> None:
        self._client_id = client_id or environment.get("AZURE_CLIENT_ID", "")
        self._environment = environment

    def get_token(self, *scopes: str, **more: Any) -> AccessToken:
        """Give a token for one scope, e.g. ``https://monitor.azure.com/.default``.

        Raises:
            CredentialUnavailableError: the app has no such identity (HTTP 400).
            OSError: the endpoint does not answer, or not with a token.
        """
        del more
        endpoint, secret = self._environment.get("IDENTITY_ENDPOINT", ""), self._environment.get("IDENTITY_HEADER", "")
        if not endpoint or not secret:
            raise CredentialUnavailableError("this app has no managed identity")
        query = {"resource": scopes[0].removesuffix("/.default"), "api-version": API_VERSION}
        if self._client_id:
            query["client_id"] = self._client_id
        status, body = _get(endpoint, urlencode(query), {"X-IDENTITY-HEADER": secret})
        if status in (400, 401, 403):
            raise CredentialUnavailableError(f"the identity endpoint refuses (HTTP {status})")
        try:
            answer = msgspec.json.decode(body, type=_Answer)
            return AccessToken(answer.access_token, int(answer.expires_on))
        except (msgspec.MsgspecError, ValueError):
            # Its text may hold a token.
            raise OSError(f"the identity endpoint gives no token (HTTP {status})") from None

    def close(self) -> None:
        """There is nothing to give back."""


def _get(endpoint: str, query: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
    """One GET to the address that the platform itself has put into the environment: plain HTTP inside the sandbox."""
    parts = urlsplit(endpoint)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_SECONDS)
    try:
        connection.request("GET", f"{parts.path}?{query}", headers=dict(headers))
        response = connection.getresponse()
        return response.status, response.read(_ANSWER_BYTES)
    except http.client.HTTPException as error:
        raise OSError(f"the identity endpoint does not speak HTTP ({type(error).__name__})") from None
    finally:
        connection.close()
