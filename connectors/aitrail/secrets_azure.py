"""``azure-kv:VAULT/SECRET``: a secret of Azure Key Vault, read as the app's managed identity (or azure-identity's).

Facts: Microsoft Learn, "Key Vault REST API: Get Secret" (api-version 7.4). Nothing is kept.
"""

import http.client
import re
import ssl
from typing import Any
from urllib.parse import quote

import msgspec

from aitrail.errors import AuthError, ConfigError, TransientError
from aitrail.managed_identity import ManagedIdentity, in_function_app

SCOPE = "https://vault.azure.net/.default"
_NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9.-]{1,126}(?::[0-9]{1,5})?)/([A-Za-z0-9-]{1,127})")
_SECONDS = 10.0
_ANSWER_BYTES = 256 << 10
_LATER = frozenset({408, 429, 500, 502, 503, 504})
_RIGHT = "grant the identity the role Key Vault Secrets User on the vault, and let the vault's network rules accept it"


class _Secret(msgspec.Struct):
    value: str


def resolve(name: str, *, credential: Any = None, tls: ssl.SSLContext | None = None) -> str:
    """Return the current version of a secret.

    Args:
        name: ``VAULT/SECRET``; a vault of a sovereign cloud by its whole host name.
        credential: instead of the usual one.
        tls: the authorities to trust, instead of the usual ones.

    Raises:
        ConfigError: the name is none, or there is no such secret.
        AuthError: no identity, or it may not read the secret.
        TransientError: the vault does not answer.
    """
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise ConfigError("this names no secret of a vault", where="azure-kv", hint="azure-kv:VAULT/SECRET")
    vault, secret = parts.groups()
    host = vault if "." in vault or ":" in vault else f"{vault}.vault.azure.net"
    status, body = _get(host, f"/secrets/{quote(secret)}?api-version=7.4", _token(credential, name), tls)
    if status == 200:
        try:
            return msgspec.json.decode(body, type=_Secret).value
        except msgspec.MsgspecError:
            raise TransientError(f"azure-kv:{name}: the vault gives no secret") from None
    said = f"azure-kv:{name}: HTTP {status}"
    if status in (401, 403):
        raise AuthError(said, hint=_RIGHT)
    if status in _LATER:
        raise TransientError(said, hint="the vault asks to wait")
    raise ConfigError(
        f"the vault has no such secret (HTTP {status})", where=f"azure-kv:{name}", hint="correct the name"
    )


def _token(credential: Any, name: str) -> str:
    if credential is None and in_function_app():
        credential = ManagedIdentity()
    elif credential is None:
        from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - only where no function app is

        credential = DefaultAzureCredential()
    try:
        return str(credential.get_token(SCOPE).token)
    except Exception as error:  # noqa: BLE001 - credentials raise what their HTTP libraries do, too
        raise AuthError(f"azure-kv:{name}: no token ({type(error).__name__})", hint=_RIGHT) from None


def _get(host: str, path: str, token: str, tls: ssl.SSLContext | None) -> tuple[int, bytes]:
    name, _, port = host.partition(":")
    connection = http.client.HTTPSConnection(
        name, int(port) if port else None, timeout=_SECONDS, context=tls or ssl.create_default_context()
    )
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        return response.status, response.read(_ANSWER_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise TransientError(f"{host}: the vault does not answer ({type(error).__name__})") from None
    finally:
        connection.close()
