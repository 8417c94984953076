"""Secrets are typed references in the configuration and are resolved at the time of use, never stored or printed.

``env:NAME`` reads an environment variable, ``file:/path`` a file (its text without the trailing newline),
``aws-sm:NAME`` AWS Secrets Manager, ``azure-kv:VAULT/SECRET`` Azure Key Vault. The scheme ``splunk:`` belongs to the
runtime that has that client.
"""

import importlib
import os
from collections.abc import Callable
from pathlib import Path

from aitrail.errors import ConfigError


def _from_env(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise ConfigError(f"the environment variable {name} is not set", hint=f"export {name}=... before starting")
    return value


def _from_file(path: str) -> str:
    try:
        value = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise ConfigError(f"the secret file {path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"the secret file {path} is not UTF-8 text") from None
    if not value:
        raise ConfigError(f"the secret file {path} is empty")
    return value


def _from_aws(name: str) -> str:
    try:
        resolve: Callable[[str], str] = importlib.import_module("aitrail.secrets_aws").resolve
        return resolve(name)
    except ImportError as error:
        missing = f"aws-sm: needs a package that is not installed ({error.name})"
        raise ConfigError(missing, hint="pip install 'aitrail[aws]'") from None


def _from_azure(name: str) -> str:
    try:
        resolve: Callable[[str], str] = importlib.import_module("aitrail.secrets_azure").resolve
        return resolve(name)
    except ImportError as error:
        missing = f"azure-kv: needs a package that is not installed ({error.name})"
        raise ConfigError(missing, hint="pip install 'aitrail[azure]'") from None


SCHEMES: dict[str, Callable[[str], str]] = {
    "env": _from_env,
    "file": _from_file,
    "aws-sm": _from_aws,
    "azure-kv": _from_azure,
}


def check_reference(reference: str) -> str:
    """Say what is wrong with the form of ``reference`` ("" when nothing is); never echoes a literal secret."""
    scheme, colon, rest = reference.partition(":")
    if not colon or not scheme.replace("-", "").isalpha():
        return "a secret must be a reference such as env:NAME or file:/path, not the secret itself"
    if scheme not in SCHEMES:
        return f"unknown secret scheme {scheme!r}; known: {', '.join(sorted(SCHEMES))}"
    return "" if rest else f"nothing follows {scheme}:"


class Secrets:
    """Resolves references through the literal table ``SCHEMES``."""

    def resolve(self, reference: str) -> str:
        """Return the secret; raises ``ConfigError`` that names the reference's place, never a value."""
        wrong = check_reference(reference)
        if wrong:
            raise ConfigError(wrong)
        scheme, _, rest = reference.partition(":")
        return SCHEMES[scheme](rest)
