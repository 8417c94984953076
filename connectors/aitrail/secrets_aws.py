"""Secrets of AWS Secrets Manager: ``aws-sm:NAME``, ``aws-sm:ARN``, and ``aws-sm:NAME#FIELD`` for a field of a JSON one.

The value is asked for whenever it is needed and never kept here, so that a rotated one is picked up by whoever asks
again. Credentials and region are the process's own; a full ARN names its region itself.
Source: Secrets Manager API reference, "GetSecretValue" and its errors.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from aitrail.errors import ConfigError

_HINTS: Mapping[str, str] = {
    "ResourceNotFoundException": "create it, or correct its name",
    "AccessDeniedException": "grant secretsmanager:GetSecretValue on it, and kms:Decrypt on its own key, if any",
    "DecryptionFailure": "grant kms:Decrypt on the key that it is encrypted with",
    "InvalidRequestException": "restore it: it is marked for deletion, or has no current version",
    "ExpiredTokenException": "renew the credentials of this process",
    "UnrecognizedClientException": "renew the credentials of this process",
}


def resolve(name: str) -> str:
    """Return the secret; raises ``ConfigError`` that names the secret and what is missing, never a value."""
    ident, _, field = name.partition("#")
    answer = _ask(ident)
    text = answer.get("SecretString")
    if not isinstance(text, str) or not text:
        raise ConfigError(f"the secret {ident} has no text", hint="store it as a string, not as binary")
    return _field(text, field, ident) if field else text


def _ask(ident: str) -> Any:
    # A tenth of a second of imports that only users of these references pay.
    import botocore.config  # noqa: PLC0415
    import botocore.exceptions  # noqa: PLC0415
    import botocore.session  # noqa: PLC0415

    parts = ident.split(":")
    region = parts[3] if ident.startswith("arn:") and len(parts) > 5 else None
    config = botocore.config.Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 3})
    try:
        client = botocore.session.get_session().create_client("secretsmanager", region_name=region, config=config)
        try:
            return client.get_secret_value(SecretId=ident)
        finally:
            client.close()
    except botocore.exceptions.ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        hint = _HINTS.get(code, "see the error code in the Secrets Manager API reference")
        raise ConfigError(f"the secret {ident} cannot be read ({code})", hint=hint) from None
    except botocore.exceptions.BotoCoreError as error:
        hint = "is there a route (or an interface endpoint) to Secrets Manager, and a region?"
        raise ConfigError(f"the secret {ident} cannot be read ({type(error).__name__})", hint=hint) from None


def _field(text: str, field: str, ident: str) -> str:
    try:
        value = msgspec.json.decode(text, type=dict[str, Any]).get(field)
    except (msgspec.DecodeError, RecursionError, ValueError):
        raise ConfigError(f"the secret {ident} is no JSON object", hint=f"leave out #{field}") from None
    if not isinstance(value, str) or not value:
        raise ConfigError(f"the secret {ident} has no text field {field}", hint="correct the name behind #")
    return value
