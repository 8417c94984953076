"""What the alert actions share: read what Splunk hands over, ask the response API, say how it went.

Runs in Splunk's own Python (3.9 to 3.13), standard library only. The app's settings and the token
(``storage/passwords``, realm ``aitrail``, name ``response``) are read with the session of the alert. What is logged
names the action and the status, never a value of a result.

The request: ``POST <url>/v1/response/<action>``, JSON, with an ``Idempotency-Key`` that is the same for the same
finding, action and target, so that asking twice does it once. A search that is none of the app's rules has no finding:
there the key is the same within a run. 2xx is success.
"""

# ruff: noqa: INP001  (Splunk runs the scripts of a folder, no package)
from __future__ import annotations

import hashlib
import json
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, TextIO

from aitrail_finding import findings, rule_of
from aitrail_splunkd import APP, CONF, ActionError, read, say

_STORED = APP + "/storage/passwords/aitrail%3Aresponse%3A"
_CHOICES = {"kind": ("credential", "user"), "severity": ("informational", "low", "medium", "high", "critical")}
_LONGEST = 1024
_LONGEST_ANSWER = 65_536


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The token goes to the address that was named and nowhere else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Refuse; urllib then raises the answer as an error."""


def main(action: str, names: tuple[str, ...], argv: list[str], stdin: TextIO) -> int:
    """Give the exit code that Splunk takes: 0 done, 2 not called by Splunk, 3 failed."""
    if len(argv) < 2 or argv[1] != "--execute":
        say("ERROR", action, "called without --execute: Splunk runs this, people do not")
        return 2
    try:
        payload = json.load(stdin)
        status, state = send(action, body(action, names, payload), settings(payload["session_key"]))
    except ActionError as error:
        say("ERROR", action, str(error))
        return 3
    except (ValueError, KeyError, TypeError, AttributeError):
        say("ERROR", action, "what Splunk handed over is not an alert action's payload")
        return 3
    say("INFO", action, f"done, status {status}, {state}")
    return 0


def body(action: str, names: tuple[str, ...], payload: dict[str, Any]) -> dict[str, Any]:
    """What is asked for, from the action's settings; raises ``ActionError`` when one is missing or wrong."""
    given = payload.get("configuration") or {}
    asked = {name: str(given.get(name) or "").strip() for name in names}
    for name, value in asked.items():
        if not value or value.startswith("$result."):
            raise ActionError(f"{name} is empty: the result has no such field, or the setting is missing")
        if len(value) > _LONGEST or any(ord(char) < 32 for char in value):
            raise ActionError(f"{name} is too long or holds control characters")
        if value not in _CHOICES.get(name, (value,)):
            raise ActionError(f"{name} must be one of {', '.join(_CHOICES[name])}")
    result = payload.get("result") or {}
    evidence = {name: result[name] for name in ("event_id", "tenant_id", "user_id") if name in result}
    about = {
        "alert": payload.get("search_name", ""),
        "run": payload.get("sid", ""),
        "link": payload.get("results_link"),
    }
    return {"action": action, **asked, "finding": finding_of(payload), "evidence": evidence, **about}


def finding_of(payload: dict[str, Any]) -> str:
    """The id under which the app keeps what the first result belongs to; empty for a search that is no rule of its."""
    title = str(payload.get("search_name") or "").removeprefix("aitrail - ").removesuffix(" - Rule")
    try:
        rule = rule_of(title, "title")
    except ActionError:
        return ""
    made = findings(rule, [payload.get("result") or {}], time.time())
    return str(made[0]["event_id"])


def settings(session: str) -> dict[str, Any]:
    """Address, time-out, authorities and token; raises ``ActionError``, naming what to set."""
    conf = read(CONF + "response", session, "the settings of the app (aitrail.conf, [response])")
    url = (conf.get("url") or "").strip().rstrip("/")
    if not url:
        raise ActionError('no url: set it on the page "Settings" of the app (aitrail.conf, stanza [response])')
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ActionError("url must be https://HOST[:PORT][/PATH]")
    try:
        timeout = min(max(int(conf.get("timeout_seconds") or 15), 1), 60)
    except ValueError:
        raise ActionError("timeout_seconds is no whole number") from None
    token = read(_STORED, session, "the token (storage/passwords, realm aitrail, name response)")
    if not token.get("clear_password"):
        raise ActionError("the token is empty (storage/passwords, realm aitrail, name response)")
    return {
        "address": url[len("https://") :],
        "timeout": timeout,
        "ca": conf.get("ca_file") or None,
        "token": token["clear_password"],
    }


def send(action: str, asked: dict[str, Any], to: dict[str, Any]) -> tuple[int, str]:
    """Ask, and give status and state; raises ``ActionError`` with status or kind of error, never with a body."""
    once = [asked["finding"]] if asked["finding"] else [asked["run"], asked.get("title")]
    key = json.dumps([*once, action, asked.get("kind"), asked.get("value")])
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
            state = _state(answer.read(_LONGEST_ANSWER))
    except urllib.error.HTTPError as error:
        raise ActionError(f"the response API answered {error.code}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise ActionError(f"the response API cannot be reached: {type(reason).__name__}") from None
    return status, state


def _state(answer: bytes) -> str:
    """What the response API says it did, if that is one of its words."""
    try:
        told = json.loads(answer).get("state")
    except (ValueError, AttributeError):
        told = ""
    return told if told in ("opened", "blocked", "dry_run") else "the answer says no more"
