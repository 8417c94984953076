"""splunkd's management API for tests: Atom feeds as splunk-sdk reads them, capabilities, and an export search.

Written from Splunk's REST API reference and from what splunk-sdk sends; not from Splunk's code. It knows what
``aitrail splunk install`` and ``verify`` need: indexes, HTTP inputs, saved searches, apps, the current context, and
``tstats count ... by event_id`` over what a ``HecPeer`` has indexed. And what a modular input needs, with the session
that splunkd gives it: ``storage/passwords``, and its own stanza. A call without the right capability is answered as
Splunk does: 403, and the message says which.
"""

import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote
from xml.sax.saxutils import escape, quoteattr

import msgspec

from aitrail.testing.certificates import Authority
from aitrail.testing.faults import HttpServer, Reply, Request, reply_json
from aitrail.testing.hec_peer import Taken
from aitrail.testing.peer import Behaviour, Script

_NAMESPACE = re.compile(r"/services(?:NS/[^/]+/[^/]+)?/")
_TSTATS = re.compile(r'\| tstats count where index="([^"]+)" sourcetype="([^"]+)" by event_id')
# Path of a collection -> (capability to look at it, capability to change it).
COLLECTIONS: Mapping[str, tuple[str, str]] = {
    "data/indexes": ("", "indexes_edit"),
    "data/inputs/http": ("edit_token_http", "edit_token_http"),
    "saved/searches": ("", "schedule_search"),
    "apps/local": ("", "edit_local_apps"),
}
CAPABILITIES = ("search", "indexes_edit", "edit_token_http", "schedule_search")
# splunk-sdk reads the body of an answer only if it is told what becomes of the connection; splunkd always says it.
_KEPT = {"Connection": "Keep-Alive"}
_MAKERS: Mapping[str, Callable[[str], str]] = {"data/inputs/http": lambda name: f"http://{name}"}


class SplunkdPeer:
    """A running splunkd on 127.0.0.1.

    Args:
        indexed: gives what is indexed, e.g. ``HecPeer.indexed``.
        tls: serve HTTPS with a certificate of a private authority.

    Attributes:
        capabilities: of the token's role.
        instance: what the server says it is; ``cloud`` for Splunk Cloud.
        collections: everything there is: collection -> name -> content.
        changes: the calls that changed something, as ``POST path``.
        version: what it says.
        searches: the searches that were asked for, with their time range.
        session: of modular inputs; it may do everything.
        passwords: ``realm:name:`` -> value.
        inputs: ``SCHEME/NAME`` -> app and settings, of modular inputs.
    """

    def __init__(self, indexed: Callable[[], Iterable[Taken]] = tuple, *, tls: bool = False) -> None:
        self._indexed = indexed
        self._authority = Authority() if tls else None
        self.token = uuid.uuid4().hex
        self.session = uuid.uuid4().hex
        self.passwords: dict[str, str] = {}
        self.inputs: dict[str, tuple[str, dict[str, str]]] = {}
        self.capabilities: list[str] = list(CAPABILITIES)
        self.instance = "enterprise"
        self.version = "10.2.0"
        self.collections: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in COLLECTIONS}
        self.collections["data/inputs/http"]["http"] = {"disabled": "1", "enableSSL": "1", "port": "8088"}
        self.collections["data/indexes"]["main"] = {"datatype": "event", "disabled": "0"}
        self.changes: list[str] = []
        self.searches: list[tuple[str, str, str]] = []
        self.message: tuple[str, str] | None = None
        context = self._authority.context("") if self._authority is not None else None
        self._server = HttpServer(self._answer, Script(frozenset()), is_data=lambda request: False, tls=context)
        self.url = self._server.url
        self.ca_file = self._authority.ca_file if self._authority is not None else ""

    def add_app(self, name: str, searches: Mapping[str, Mapping[str, str]]) -> None:
        """Install an app with saved searches."""
        self.collections["apps/local"][name] = {"disabled": "0", "label": name}
        for search, content in searches.items():
            self.collections["saved/searches"][search] = {"search": "| noop", "eai:appName": name, **content}

    def close(self) -> None:
        """Stop."""
        self._server.close()
        if self._authority is not None:
            self._authority.close()

    def _answer(self, request: Request, behaviour: Behaviour | None) -> Reply:
        del behaviour
        with self._server.lock:
            return self._call(request)

    def _call(self, request: Request) -> Reply:
        session = request.headers.get("authorization") == f"Splunk {self.session}"
        if not session and request.headers.get("authorization") != f"Bearer {self.token}":
            return _messages(401, "WARN", "call not properly authenticated")
        # Names with slashes are quoted twice in splunkd's links, and by clients once or twice.
        path = unquote(unquote(_NAMESPACE.sub("", request.path, count=1))).strip("/")
        form = dict(parse_qsl((request.plain or b"").decode(), keep_blank_values=True))
        if path == "server/info":
            return _feed("server-info", {"server-info": {"version": self.version, "instance_type": self.instance}})
        if path == "authentication/current-context":
            content = {"username": "auditor", "roles": ["auditor"], "capabilities": self.capabilities}
            return reply_json(200, {"entry": [{"name": "context", "content": content}]})
        if path in ("search/jobs/export", "search/v2/jobs/export"):
            return self._export(form)
        if session and path.startswith("storage/passwords"):
            return self._passwords(request.method, path, form)
        if session and path.startswith("data/inputs/"):
            return self._modular(request, path.removeprefix("data/inputs/"), form)
        return self._entities(request.method, path, form)

    def _passwords(self, method: str, path: str, form: dict[str, str]) -> Reply:
        """Entries are called ``realm:name:``; the value is in the answer, as splunkd gives it to who may see it."""
        name = path.removeprefix("storage/passwords").strip("/")
        if method == "POST" and not name:
            name = f"{form.get('realm', '')}:{form['name']}:"
            if name in self.passwords:
                return _messages(409, "ERROR", f"Could not create: {name} already exists")
        elif name not in self.passwords:
            return _messages(404, "ERROR", f"Could not find object id={name}")
        if method == "POST":
            self.changes.append(f"POST storage/passwords {name}")
            self.passwords[name] = form["password"]
        content = {"realm": name.split(":")[0], "clear_password": self.passwords[name]}
        return reply_json(200, {"entry": [{"name": name, "acl": {"app": "search"}, "content": content}]}, _KEPT)

    def _modular(self, request: Request, name: str, form: dict[str, str]) -> Reply:
        """Inputs are found in any app, and changed in the one that they are in."""
        if name not in self.inputs:
            return _messages(404, "ERROR", f"Could not find object id={name}")
        app, settings = self.inputs[name]
        if request.method == "POST":
            if f"/nobody/{app}/" not in request.path:
                return _messages(404, "ERROR", f"Could not find object id={name}")
            self.changes.append(f"POST data/inputs/{name}")
            settings |= form
        return reply_json(200, {"entry": [{"name": name, "acl": {"app": app}, "content": settings}]}, _KEPT)

    def _entities(self, method: str, path: str, form: dict[str, str]) -> Reply:
        known = next((one for one in COLLECTIONS if path == one or path.startswith(f"{one}/")), None)
        if known is None:
            return _messages(404, "ERROR", "Not Found")
        look, edit = COLLECTIONS[known]
        needed = look if method == "GET" else edit
        if needed and needed not in self.capabilities:
            text = "You (user=auditor) do not have permission to perform this operation"
            return _messages(403, "ERROR", f"{text} (requires capability: {needed}).")
        there = self.collections[known]
        name = path[len(known) :].strip("/")
        if method == "GET":
            if name and self._find(there, name) is None:
                return _messages(404, "ERROR", f"Could not find object id={name}")
            found = self._find(there, name)
            return _feed(known, {found: there[found]} if found is not None and name else there)
        self.changes.append(f"{method} {path}")
        if not name:
            return self._create(known, there, form)
        action = "enable" if name.endswith("/enable") else ""
        found = self._find(there, name.removesuffix("/enable"))
        if found is None:
            return _messages(404, "ERROR", f"Could not find object id={name}")
        there[found] |= {"disabled": "0"} if action else form
        return _feed(known, {found: there[found]})

    def _create(self, known: str, there: dict[str, dict[str, Any]], form: dict[str, str]) -> Reply:
        name = _MAKERS.get(known, str)(form.pop("name"))
        if name in there:
            return _messages(409, "ERROR", f"An object with name={name} already exists")
        there[name] = {"disabled": "0", "datatype": "event", **form}
        return _feed(known, {name: there[name]}, status=201)

    @staticmethod
    def _find(there: Mapping[str, Any], name: str) -> str | None:
        return next((one for one in there if one in (name, f"http://{name}")), None)

    def _export(self, form: dict[str, str]) -> Reply:
        if "search" not in self.capabilities:
            return _messages(403, "ERROR", "insufficient permission to access this resource")
        start, end = form["earliest_time"], form["latest_time"]
        self.searches.append((form["search"], start, end))
        asked = _TSTATS.fullmatch(form["search"])
        if asked is None or form.get("output_mode") != "json":
            return _messages(400, "FATAL", "Unknown search command")
        if self.message is not None:
            kind, text = self.message
            return Reply(200, msgspec.json.encode({"messages": [{"type": kind, "text": text}]}) + b"\n")
        counted = Counter(
            one.event_id
            for one in self._indexed()
            if (one.index, one.sourcetype) == asked.groups() and float(start) <= one.time < float(end)
        )
        lines = [
            {"preview": False, "offset": number, "result": {"event_id": one, "count": str(count)}}
            for number, (one, count) in enumerate(sorted(counted.items()))
        ]
        body = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        return Reply(200, body or b'{"preview":false}\n', {"Content-Type": "application/json"})


def _messages(status: int, kind: str, text: str) -> Reply:
    body = f"<response><messages><msg type={quoteattr(kind)}>{escape(text)}</msg></messages></response>"
    return Reply(status, body.encode(), {"Content-Type": "text/xml; charset=UTF-8"})


def _feed(path: str, entries: Mapping[str, Mapping[str, Any]], *, status: int = 200) -> Reply:
    """An Atom feed as splunkd writes it: one entry for each object, its content a dictionary of keys."""
    parts = [_entry(path, name, content) for name, content in entries.items()]
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<feed xmlns="http://www.w3.org/2005/Atom" xmlns:s="http://dev.splunk.com/ns/rest" '
        'xmlns:opensearch="http://a9.com/-/spec/opensearch/1.1/">'
        f"<title>{escape(path)}</title><id>https://localhost/services/{escape(path)}</id>"
        f"<opensearch:totalResults>{len(parts)}</opensearch:totalResults>{''.join(parts)}</feed>"
    )
    return Reply(status, body.encode(), {"Content-Type": "text/xml; charset=UTF-8"})


def _entry(path: str, name: str, content: Mapping[str, Any]) -> str:
    app = str(content.get("eai:appName", "search"))
    link = f"/servicesNS/nobody/{app}/{path}/{name.replace('://', '%253A%252F%252F')}"
    keys = "".join(_key(key, value) for key, value in content.items())
    acl = {"app": app, "can_write": "1", "modifiable": "1", "owner": "nobody", "removable": "1", "sharing": "app"}
    access = f'<s:key name="eai:acl"><s:dict>{"".join(_key(*one) for one in acl.items())}</s:dict></s:key>'
    return (
        f"<entry><title>{escape(name)}</title><id>https://localhost{escape(link)}</id>"
        f"<updated>2026-11-23T09:00:00+00:00</updated>"
        f'<link href={quoteattr(link)} rel="alternate"/><author><name>nobody</name></author>'
        f'<content type="text/xml"><s:dict>{access}{keys}</s:dict></content></entry>'
    )


def _key(name: str, value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        inner = "".join(f"<s:item>{escape(str(one))}</s:item>" for one in value)
        return f"<s:key name={quoteattr(name)}><s:list>{inner}</s:list></s:key>"
    return f"<s:key name={quoteattr(name)}>{escape(str(value))}</s:key>"
