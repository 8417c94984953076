"""What the alert actions share: read what Splunk hands over, ask the response API, say how it went.

Runs in Splunk's own Python (3.9 to 3.13), standard library only. Splunk's ``splunk.rest`` gives the app's settings and
the token (``storage/passwords``, realm ``aitrail``, name ``response``) with the session of the alert. What is logged
names the action and the status, never a value of a result.

The request: ``POST <url>/v1/response/<action>``, JSON, with an ``Idempotency-Key`` that is the same for the same alert
run, action and target, so that asking twice does it once. 2xx is success.
"""

# ruff: noqa: INP001  (Splunk runs the scripts of a folder, no package)
from __future__ import annotations

import hashlib
import json
import ssl
import sys
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, TextIO

_CONF = "/servicesNS/nobody/aitrail/configs/conf-aitrail/response"
_STORED = "/servicesNS/nobody/aitrail/storage/passwords/aitrail%3Aresponse%3A"
_CHOICES = {"kind": ("credential", "user"), "severity": ("informational", "low", "medium", "high", "critical")}
_LONGEST = 1024


class ResponseError(Exception):
    """Why nothing was asked for, or what came back."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The token goes to the address that was named and nowhere else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Refuse; urllib then raises the answer as an error."""


def main(action: str, names: tuple[str, ...], argv: list[str], stdin: TextIO) -> int:
    """Give the exit code that Splunk takes: 0 done, 2 not called by Splunk, 3 failed."""
    if len(argv) < 2 or argv[1] != "--execute":
        _say("ERROR", action, "called without --execute: Splunk runs this, people do not")
        return 2
    try:
        payload = json.load(stdin)
        status = send(action, body(action, names, payload), settings(payload["session_key"]))
    except ResponseError as error:
        _say("ERROR", action, str(error))
        return 3
    except (ValueError, KeyError, TypeError, AttributeError):
        _say("ERROR", action, "what Splunk handed over is not an alert action's payload")
        return 3
    _say("INFO", action, f"done, status {status}")
    return 0


def body(action: str, names: tuple[str, ...], payload: dict[str, Any]) -> dict[str, Any]:
    """What is asked for, from the action's settings; raises ``ResponseError`` when one is missing or wrong."""
    given = payload.get("configuration") or {}
    asked = {name: str(given.get(name) or "").strip() for name in names}
    for name, value in asked.items():
        if not value or value.startswith("$result."):
            raise ResponseError(f"{name} is empty: the result has no such field, or the setting is missing")
        if len(value) > _LONGEST or any(ord(char) < 32 for char in value):
            raise ResponseError(f"{name} is too long or holds control characters")
        if value not in _CHOICES.get(name, (value,)):
            raise ResponseError(f"{name} must be one of {', '.join(_CHOICES[name])}")
    result = payload.get("result") or {}
    evidence = {name: result[name] for name in ("event_id", "tenant_id", "user_id") if name in result}
    about = {
        "alert": payload.get("search_name", ""),
        "run": payload.get("sid", ""),
        "link": payload.get("results_link"),
    }
    return {"action": action, **asked, "evidence": evidence, **about}


def settings(session: str) -> dict[str, Any]:
    """Address, time-out, authorities and token; raises ``ResponseError``, naming what to set."""
    conf = _read(_CONF, session, "the settings of the app (aitrail.conf, [response])")
    url = (conf.get("url") or "").strip().rstrip("/")
    if not url:
        raise ResponseError("no url: set it in local/aitrail.conf, stanza [response]")
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ResponseError("url must be https://HOST[:PORT][/PATH]")
    try:
        timeout = min(max(int(conf.get("timeout_seconds") or 15), 1), 60)
    except ValueError:
        raise ResponseError("timeout_seconds is no whole number") from None
    token = _read(_STORED, session, "the token (storage/passwords, realm aitrail, name response)")
    if not token.get("clear_password"):
        raise ResponseError("the token is empty (storage/passwords, realm aitrail, name response)")
    return {
        "address": url[len("https://") :],
        "timeout": timeout,
        "ca": conf.get("ca_file") or None,
        "token": token["clear_password"],
    }


def _read(path: str, session: str, what: str) -> dict[str, Any]:
    from splunk import rest  # noqa: PLC0415  (Splunk's own: it knows how splunkd is reached and trusted)

    try:
        _, content = rest.simpleRequest(path, sessionKey=session, getargs={"output_mode": "json"}, raiseAllErrors=True)
        found: dict[str, Any] = json.loads(content)["entry"][0]["content"]
    except Exception as error:  # noqa: BLE001  (its classes of errors differ between versions)
        raise ResponseError(f"cannot read {what}: {type(error).__name__}") from None
    return found


def send(action: str, asked: dict[str, Any], to: dict[str, Any]) -> int:
    """Ask, and give the status; raises ``ResponseError`` with the status or the kind of error, never with a body."""
    key = json.dumps([asked["run"], action, asked.get("kind"), asked.get("value"), asked.get("title")])
    request = urllib.request.Request(
        "https://" + to["address"] + "/v1/response/" + action,
        data=json.dumps(asked).encode("utf-8"),
        method="POST",
        headers={
            "Authorization": "Bearer " + to["token"],
            "Content-Type": "application/json",
            "Idempotency-Key": hashlib.sha256(key.encode("utf-8")).hexdigest(),
        },
    )
    try:
        context = ssl.create_default_context(cafile=to["ca"])
        opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _NoRedirects())
        with opener.open(request, timeout=to["timeout"]) as answer:
            status: int = answer.status
    except urllib.error.HTTPError as error:
        raise ResponseError(f"the response API answered {error.code}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise ResponseError(f"the response API cannot be reached: {type(reason).__name__}") from None
    return status


def _say(level: str, action: str, text: str) -> None:
    sys.stderr.write(f"{level} aitrail_{action}: {text}\n")
