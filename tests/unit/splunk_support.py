"""splunkd as the app's scripts and its settings page meet it: what they ask for, from Splunk's REST API reference.

Configuration files, stored passwords, apps, indexes, a collection of the KV store and the receiver of single events; a
call with a wrong session is answered 401, one that the role may not make 403.
"""

import json
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

_OWN = "/servicesNS/nobody/aitrail/"


class Splunkd:
    """Its state, and ``call``: method, path and body in; status and JSON out."""

    def __init__(self) -> None:
        self.conf: dict[str, dict[str, str]] = {
            "conf-aitrail/response": {"url": "", "timeout_seconds": "5", "ca_file": ""},
            "conf-aitrail/findings": {"index": "", "least_severity": "informational", "max_per_run": "200"},
            "conf-macros/aitrail_index": {"definition": "index=ai_audit"},
        }
        self.passwords: dict[str, str] = {}
        self.indexes = {"ai_audit", "main"}
        self.app: dict[str, str] = {"configured": "0"}
        self.rows: dict[str, dict[str, Any]] = {}
        self.events: list[tuple[dict[str, str], str]] = []
        self.calls: list[tuple[str, str]] = []
        self.session = "s3ssion"
        self.forbidden = ""
        self.failing = ""

    def call(self, method: str, target: str, body: str = "", session: str = "s3ssion") -> tuple[int, Any]:
        parts = urlsplit(target)
        path, query = parts.path, dict(parse_qsl(parts.query))
        self.calls.append((method, path))
        if session != self.session:
            return 401, _told("call not properly authenticated")
        if self.forbidden and self.forbidden in path and method != "GET":
            return 403, _told("you do not have permission to perform this operation")
        if self.failing and self.failing in path and method != "GET":
            return 500, _told("internal error")
        if path == "/services/receivers/simple":
            if query["index"] not in self.indexes:
                return 400, _told("the index does not exist")
            self.events.append((query, body))
            return 200, {}
        assert path.startswith(_OWN), path
        name = path.removeprefix(_OWN)
        if name.startswith("storage/collections/data/aitrail_findings"):
            return self._row(method, name.partition("aitrail_findings")[2].strip("/"), query, body)
        shown = {value for key, value in parse_qsl(parts.query) if key == "f"}
        return self._entity(method, unquote(name), dict(parse_qsl(body, keep_blank_values=True)), shown)

    def _row(self, method: str, key: str, query: dict[str, str], body: str) -> tuple[int, Any]:
        if method == "DELETE":
            if key:
                return (200, {}) if self.rows.pop(key, None) else (404, {})
            oldest = json.loads(query["query"])["at"]["$lt"]
            self.rows = {one: row for one, row in self.rows.items() if row["at"] >= oldest}
            return 200, {}
        if method == "GET":
            return (200, self.rows[key]) if key in self.rows else (404, {})
        row = json.loads(body)
        name = key or row["_key"]
        if not key and name in self.rows:
            return 409, _told("A document with the same key and user already exists.")
        self.rows[name] = {"_key": name, **row}
        return (200 if key else 201), {"_key": name}

    def _stored(self, key: str, shown: set[str]) -> dict[str, Any]:
        """With the password, unless only other fields are asked for."""
        realm, name, _ = key.split(":")
        content = {"realm": realm, "username": name, "clear_password": self.passwords[key]}
        return {"name": key, "content": {one: text for one, text in content.items() if not shown or one in shown}}

    def _entity(self, method: str, name: str, form: dict[str, str], shown: set[str]) -> tuple[int, Any]:
        form.pop("output_mode", None)
        if name.startswith("configs/"):
            return self._of(self.conf, method, name.removeprefix("configs/"), form)
        if name == "storage/passwords" and method == "GET":
            return 200, {"entry": [self._stored(key, shown) for key in self.passwords]}
        if name == "storage/passwords" and method == "POST":
            key = f"{form['realm']}:{form['name']}:"
            if key in self.passwords:
                return 409, _told("object already exists")
            self.passwords[key] = form["password"]
            return 201, {"entry": []}
        if name.startswith("storage/passwords/"):
            key = name.removeprefix("storage/passwords/")
            if key not in self.passwords:
                return 404, _told("Could not find object")
            if method == "POST":
                self.passwords[key] = form["password"]
            return 200, {"entry": [{"name": key, "content": {"clear_password": self.passwords[key]}}]}
        if name.startswith("data/indexes/"):
            there = name.removeprefix("data/indexes/") in self.indexes
            return (200, {"entry": [{"content": {}}]}) if there else (404, _told("Could not find object"))
        if name.startswith("apps/local/aitrail"):
            self.app |= form
            return 200, {"entry": [{"content": self.app}]}
        return 404, _told("Not Found")

    @staticmethod
    def _of(known: dict[str, dict[str, str]], method: str, name: str, form: dict[str, str]) -> tuple[int, Any]:
        if name not in known:
            return 404, _told("Could not find object")
        if method == "POST":
            known[name] |= form
        return 200, {"entry": [{"name": name, "content": known[name]}]}

    # --- as ``splunk.rest`` has it

    def simpleRequest(  # noqa: N802
        self,
        path: str,
        *,
        sessionKey: str,  # noqa: N803
        method: str = "GET",
        jsonargs: str | None = None,
        rawResult: bool = False,  # noqa: N803
    ) -> tuple[Any, bytes]:
        assert rawResult, "without it splunk.rest raises on its own"
        status, content = self.call(method, path, jsonargs or "", sessionKey)
        return SimpleNamespace(status=status), json.dumps(content).encode()


def _told(text: str) -> dict[str, Any]:
    return {"messages": [{"type": "ERROR", "text": text}]}
