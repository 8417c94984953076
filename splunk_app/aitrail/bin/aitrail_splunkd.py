"""What the alert actions ask of Splunk itself: settings, secrets, the KV store, and a line into an index.

Runs in Splunk's own Python (3.9 to 3.13), standard library only. Splunk's ``splunk.rest`` knows how splunkd is reached
and trusted. What is raised names the thing and the status, never a value.
"""

# ruff: noqa: INP001  (Splunk runs the scripts of a folder, no package)
from __future__ import annotations

import json
import sys
import urllib.parse
from typing import Any

APP = "/servicesNS/nobody/aitrail"
CONF = APP + "/configs/conf-aitrail/"


class ActionError(Exception):
    """Why nothing was done, or what came back."""


def read(path: str, session: str, what: str) -> dict[str, Any]:
    """Give the content of one entity; raises ``ActionError`` that says ``what`` cannot be read."""
    status, content = ask("GET", path + "?output_mode=json", session, what)
    try:
        found: dict[str, Any] = json.loads(content)["entry"][0]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        raise ActionError(f"cannot read {what}: splunkd answered {status}") from None
    return found


def ask(method: str, path: str, session: str, what: str, body: str | None = None) -> tuple[int, bytes]:
    """Give status and body of an answer of splunkd; raises ``ActionError`` when there is none."""
    from splunk import rest  # noqa: PLC0415  (there only within Splunk)

    try:
        answer, content = rest.simpleRequest(path, sessionKey=session, method=method, jsonargs=body, rawResult=True)
    except Exception as error:  # noqa: BLE001  (its classes of errors differ between versions)
        raise ActionError(f"cannot reach {what}: {type(error).__name__}") from None
    return int(answer.status), content


class Marks:
    """Which findings are kept already: one row each in a collection, whose key makes it one."""

    def __init__(self, session: str, collection: str = "aitrail_findings") -> None:
        """Use ``collection`` with the rights of ``session``."""
        self._session = session
        self._path = f"{APP}/storage/collections/data/{collection}"

    def begin(self, key: str, now: float, patience: float) -> bool:
        """Say whether this run is the one to write ``key``: it is new, or was begun long ago and never done."""
        row = json.dumps({"_key": key, "state": "begun", "at": now})
        status, _ = ask("POST", self._path, self._session, "the KV store", row)
        if status in (200, 201):
            return True
        if status != 409:
            raise ActionError(f"the KV store answered {status}")
        status, content = ask("GET", f"{self._path}/{key}", self._session, "the KV store")
        try:
            held = json.loads(content)
            stuck = held["state"] == "begun" and now - float(held["at"]) > patience
        except (ValueError, KeyError, TypeError):
            raise ActionError(f"the KV store answered {status} and no row") from None
        return stuck

    def done(self, key: str, now: float) -> None:
        """Say that ``key`` is written."""
        row = json.dumps({"state": "done", "at": now})
        status, _ = ask("POST", f"{self._path}/{key}", self._session, "the KV store", row)
        if status not in (200, 201):
            raise ActionError(f"the KV store answered {status}")

    def forget(self, key: str) -> None:
        """Let the next run try ``key`` again."""
        ask("DELETE", f"{self._path}/{key}", self._session, "the KV store")

    def forget_before(self, moment: float) -> None:
        """Remove what no search looks back to any more."""
        query = urllib.parse.quote(json.dumps({"at": {"$lt": moment}}))
        ask("DELETE", f"{self._path}?query={query}", self._session, "the KV store")


def write(line: str, index: str, sourcetype: str, source: str, session: str) -> None:
    """Put one event into an index (REST API, "receivers/simple"); raises ``ActionError`` when it is not taken."""
    query = urllib.parse.urlencode({"index": index, "sourcetype": sourcetype, "source": source})
    status, _ = ask("POST", f"/services/receivers/simple?{query}", session, "the indexing pipeline", line)
    if status in (401, 403):
        raise ActionError(f"splunkd answered {status}: the owner of the search needs the capability edit_tcp")
    if not 200 <= status < 300:
        raise ActionError(f"splunkd answered {status}: is the index {index} there?")


def say(level: str, action: str, text: str) -> None:
    """Tell ``index=_internal component=sendmodalert``."""
    sys.stderr.write(f"{level} aitrail_{action}: {text}\n")
