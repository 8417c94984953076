"""Secrets of the Splunk add-on: ``storage/passwords``, realm ``TA-aitrail``, read with the session that splunkd gives.

Entries, per input ``SCHEME://NAME``: ``SCHEME.NAME.secret`` and ``SCHEME.NAME.proxy_password``; and for all inputs
``tenant_key``, which is made when it is first needed. Source: Splunk REST API reference, "storage/passwords".
"""

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from splunklib.binding import AuthenticationError, HTTPError
from splunklib.client import Service

from aitrail.errors import AuthError, ConfigError, TransientError
from aitrail.splunk_schemes import ADDON, MASK

TENANT_KEY = "tenant_key"
_PATH = "storage/passwords"
_OURS = {"owner": "nobody", "app": ADDON, "sharing": "app"}


class Passwords:
    """Reads and writes entries; keeps none, so that one that was changed counts the next time.

    Args:
        service: splunkd, as the session's user.
        given: values that are not stored yet: those of a form that is being checked.
    """

    def __init__(self, service: Service, given: Mapping[str, str] | None = None) -> None:
        self._service = service
        self._given = dict(given or {})

    def find(self, name: str) -> str:
        """The value of an entry; empty when there is none. Raises ``AuthError`` and ``TransientError``."""
        if name in self._given:
            return self._given[name]
        with _told(f"{_PATH} {ADDON}:{name}", "list_storage_passwords"):
            try:
                answer = self._service.get(f"{_PATH}/{_entry(name)}", output_mode="json", **_OURS)
            except HTTPError as error:
                if error.status == 404:
                    return ""
                raise
            return str(_content(answer).get("clear_password") or "")

    def keep(self, name: str, value: str) -> None:
        """Store an entry, or change it. Raises as ``find``."""
        with _told(f"{_PATH} {ADDON}:{name}", "edit_storage_passwords"):
            if not self._create(name, value):
                self._service.post(f"{_PATH}/{_entry(name)}", password=value, **_OURS)

    def resolve(self, name: str) -> str:
        """What a reference ``splunk:NAME`` stands for; raises ``ConfigError`` for an entry that is not there."""
        try:
            value = self.find(name)
        except (AuthError, TransientError) as error:
            raise ConfigError(str(error), hint=error.hint) from None
        if not value:
            hint = f"enter it in the input, or POST it to {_PATH} with realm={ADDON} and name={name}"
            raise ConfigError("there is no secret", where=f"{_PATH} {ADDON}:{name}", hint=hint)
        return value

    def tenant_key(self) -> str:
        """The key of keyed hashes; made by whichever input comes first. Raises as ``find``."""
        found = self.find(TENANT_KEY)
        if found:
            return found
        with _told(f"{_PATH} {ADDON}:{TENANT_KEY}", "edit_storage_passwords"):
            self._create(TENANT_KEY, secrets.token_hex(32))
        return self.find(TENANT_KEY)

    def mask(self, scheme: str, name: str, args: Mapping[str, str]) -> None:
        """Put ``********`` in place of secrets in ``inputs.conf``, wherever the input lies. Raises as ``find``."""
        place = f"data/inputs/{scheme}/{name}"
        with _told(place, f"edit_modinput_{scheme}"):
            answer = self._service.get(place, owner="nobody", app="-", sharing="app", output_mode="json")
            app = str(_entries(answer)[0].get("acl", {}).get("app") or ADDON)
            self._service.post(place, owner="nobody", app=app, sharing="app", **dict.fromkeys(args, MASK))

    def _create(self, name: str, value: str) -> bool:
        """Whether there was none before."""
        try:
            self._service.post(_PATH, name=name, password=value, realm=ADDON, **_OURS)
        except HTTPError as error:
            if error.status == 409:
                return False
            raise
        return True


def _entry(name: str) -> str:
    return f"{ADDON}:{name}:"


def _entries(answer: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(answer.body.read())["entry"]
    return found


def _content(answer: Any) -> dict[str, Any]:
    found: dict[str, Any] = _entries(answer)[0].get("content", {})
    return found


@contextmanager
def _told(what: str, capability: str) -> Iterator[None]:
    """Errors of splunkd in our tree; its messages are not repeated."""
    try:
        yield
    except AuthenticationError:
        raise AuthError(f"{what}: splunkd refuses the session", hint="restart the input") from None
    except HTTPError as error:
        if error.status in (401, 403):
            raise AuthError(f"{what}: splunkd refuses access", hint=f"the user needs {capability}") from None
        raise TransientError(f"{what}: splunkd answers {error.status}") from None
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise TransientError(f"{what}: splunkd gives no answer ({type(error).__name__})") from None
