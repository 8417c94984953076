"""An Elasticsearch for tests: bulk ``create`` into one data stream, templates, privileges, search by id, and faults.

Written from the API reference and from what clients report. It holds requests to what the server checks: NDJSON that
ends with a line break, only ``create`` in a data stream, ``@timestamp`` in every document, one document per ``_id``.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from aitrail.testing.faults import Reply, Request, retry_header
from aitrail.testing.http_peer import HttpPeer, standing
from aitrail.testing.peer import Behaviour, Fault, Script

STREAM = "logs-ai_audit.access-default"
_GATEWAYS = (502, 504)
_ITEM_TYPES: Mapping[int, str] = {
    429: "es_rejected_execution_exception",
    503: "unavailable_shards_exception",
    403: "security_exception",
    404: "index_not_found_exception",
}
_STREAM_PATH = re.compile(r"/logs-ai_audit\.[a-z]+-default")
_CREATE = b'{"create":'


class ElasticDialect:
    """The server's side of the API.

    Attributes:
        keep: False only counts documents (for measurements).
        product: whether answers carry ``X-Elastic-Product``.
        privileges: what the credentials may do.
        templates: what was put, by path.
        items: how bulk answers are changed before they are sent; for tests of answers that lie.
        rolled_over: documents in older backing indices, which no ``create`` compares with.
        number: the version that it says it is.
    """

    def __init__(self, *, keep: bool = True) -> None:
        self.name = "elastic"
        self.faults: frozenset[Fault] = frozenset({"retry_items", "duplicate_items"})
        self.busy_codes: Sequence[int] = (500, 502, 503, 504)
        self.address: Mapping[str, str] = {"namespace": "default"}
        self.keep = keep
        self.product = True
        self.privileges = {"create_doc": True, "auto_configure": True}
        self.templates: dict[str, Any] = {}
        self.items: Any = None
        self.item_fault: tuple[int, str] | None = None
        self.number = "9.2.0"
        self.counted = 0
        self.requests: list[Request] = []
        self.rolled_over: list[bytes] = []
        self._documents: dict[str, bytes] = {}
        self._canned: dict[int, bytes] = {}

    def is_data(self, request: Request) -> bool:
        """Bulk requests are."""
        return request.path.endswith("/_bulk")

    def received(self) -> list[str]:
        """Ids of the documents, each once: the same ``_id`` is stored once."""
        return list(self._documents)

    def bodies(self, event_id: str) -> list[bytes]:
        """The document of an id."""
        return [self._documents[event_id]] if event_id in self._documents else []

    def answer(self, request: Request, behaviour: Behaviour | None, script: Script, token: str) -> Reply:
        """Answer one call."""
        if self.keep:
            self.requests.append(request)
        if request.headers.get("authorization", "") != f"ApiKey {token}" or _is(behaviour, "unauthorized"):
            return self._error(401, "security_exception")
        if self.is_data(request):
            return self._bulk(request, behaviour, script)
        return self._manage(request)

    # --- bulk

    def _bulk(self, request: Request, behaviour: Behaviour | None, script: Script) -> Reply:
        if behaviour is not None and behaviour.fault in ("throttle", "busy"):
            status = behaviour.code or (429 if behaviour.fault == "throttle" else 503)
            if status in _GATEWAYS:
                return Reply(status, b"<html></html>", {"Content-Type": "text/html", **retry_header(behaviour)})
            return self._error(status, "es_rejected_execution_exception", retry_header(behaviour))
        if _is(behaviour, "forbidden"):
            return self._error(403, "security_exception")
        large = standing(script, behaviour, "too_large")
        if large is not None and len(request.plain or b"") > large.limit:
            return Reply(413, b"<html></html>", {"Content-Type": "text/html"})
        if _STREAM_PATH.fullmatch(request.path.removesuffix("/_bulk")) is None:
            return self._error(404, "index_not_found_exception")
        if request.plain is None or not request.plain.endswith(b"\n"):
            return self._error(400, "illegal_argument_exception")
        if not self.keep:
            return self._counted(request.plain)
        return self._lines(request.plain, behaviour, script)

    def _lines(self, text: bytes, behaviour: Behaviour | None, script: Script) -> Reply:
        lines = text[:-1].split(b"\n")
        if len(lines) % 2:
            return self._error(400, "illegal_argument_exception")
        poison = standing(script, behaviour, "refuse_items")
        refused = frozenset(poison.ids) if poison is not None else frozenset()
        outcomes: list[dict[str, Any]] = []
        for number in range(len(lines) // 2):
            action = _object(lines[2 * number])
            inner = action.get("create") if action is not None and len(action) == 1 else None
            if not isinstance(inner, dict) or not isinstance(inner.get("_id"), str):
                return self._error(400, "illegal_argument_exception")
            again = behaviour is not None and behaviour.fault == "retry_items" and (number + 1) % behaviour.every == 0
            outcomes.append(self._item(inner["_id"], lines[2 * number + 1], refused, again=again, number=number))
        items: Any = [{"create": outcome} for outcome in outcomes]
        if self.items is not None:
            items = self.items(items)
        return self._json(200, {"errors": any(one["status"] != 201 for one in outcomes), "items": items})

    def _item(self, one: str, document: bytes, refused: frozenset[str], *, again: bool, number: int) -> dict[str, Any]:
        if self.item_fault is not None:
            status, kind = self.item_fault
            return {"status": status, "error": {"type": kind}}
        if again:
            status = (429, 503)[number % 2]
            return {"status": status, "error": {"type": _ITEM_TYPES[status]}}
        if len(one.encode()) > 512:
            return {"status": 400, "error": {"type": "illegal_argument_exception"}}
        content = _object(document)
        if one in refused or content is None or not isinstance(content.get("@timestamp"), str):
            return {"status": 400, "error": {"type": "document_parsing_exception"}}
        if one in self._documents:
            return {"status": 409, "error": {"type": "version_conflict_engine_exception"}}
        self._documents[one] = document
        return {"status": 201}

    def _counted(self, text: bytes) -> Reply:
        count = text.count(_CREATE)
        self.counted += count
        if count not in self._canned:
            self._canned[count] = msgspec.json.encode({"errors": False, "items": [{"create": {"status": 201}}] * count})
        return self._reply(200, self._canned[count])

    # --- everything else

    def _manage(self, request: Request) -> Reply:
        path = request.path
        if path == "/":
            return self._json(200, {"version": {"number": self.number}, "tagline": "You Know, for Search"})
        if path == "/_security/user/_has_privileges":
            asked = (_object(request.plain or b"") or {})["index"][0]["names"]
            return self._json(200, {"index": dict.fromkeys(asked, self.privileges)})
        if request.method == "PUT" and path.startswith(("/_component_template/", "/_index_template/")):
            return self._put(path, request.plain or b"")
        if path.startswith("/_index_template/"):
            if path not in self.templates:
                return self._error(404, "resource_not_found_exception")
            return self._json(200, {"index_templates": [{"index_template": self.templates[path]}]})
        if path.endswith("/_refresh") and _STREAM_PATH.fullmatch(path.removesuffix("/_refresh")):
            return self._json(200, {})
        if path.endswith("/_search") and _STREAM_PATH.fullmatch(path.removesuffix("/_search")):
            return self._search(request.plain or b"")
        return self._error(404, "index_not_found_exception")

    def _put(self, path: str, body: bytes) -> Reply:
        content = _object(body)
        if content is None or not {"template", "index_patterns"} & set(content):
            return self._error(400, "x_content_parse_exception")
        for name in set(content.get("composed_of", ())) - set(content.get("ignore_missing_component_templates", ())):
            if f"/_component_template/{name}" not in self.templates:
                return self._error(400, "invalid_index_template_exception")
        self.templates[path] = content
        return self._json(200, {"acknowledged": True})

    def _search(self, body: bytes) -> Reply:
        """Count by ``event.id`` in a range of ``@timestamp``: what ``ElasticDestination.counts`` asks for."""
        if not self.privileges.get("read", True):
            return self._error(403, "security_exception")
        query = _object(body) or {}
        times = query["query"]["range"]["@timestamp"]
        asked = query["aggs"]["ids"]["terms"]
        if asked["field"] != "event.id":
            return self._error(400, "illegal_argument_exception")
        counted = Counter(
            document["event"]["id"]
            for document in map(json.loads, [*self._documents.values(), *self.rolled_over])
            if times["gte"] <= document["@timestamp"] < times["lt"]
        )
        listed = counted.most_common(asked["size"])
        rest = sum(counted.values()) - sum(count for _, count in listed)
        buckets = [{"key": one, "doc_count": count} for one, count in listed]
        ids = {"doc_count_error_upper_bound": 0, "sum_other_doc_count": rest, "buckets": buckets}
        return self._json(200, {"timed_out": False, "_shards": {"failed": 0}, "aggregations": {"ids": ids}})

    def _error(self, status: int, kind: str, headers: Mapping[str, str] | None = None) -> Reply:
        error = {"type": kind, "reason": "a reason that may quote a value", "root_cause": [{"type": kind}]}
        return self._json(status, {"error": error, "status": status}, headers)

    def _json(self, status: int, content: Any, headers: Mapping[str, str] | None = None) -> Reply:
        return self._reply(status, msgspec.json.encode(content), headers)

    def _reply(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Reply:
        product = {"X-Elastic-Product": "Elasticsearch"} if self.product else {}
        kind = "application/vnd.elasticsearch+json;compatible-with=9"
        return Reply(status, body, {"Content-Type": kind, **product, **(headers or {})})


def elastic_peer(*, tls: bool = False, keep: bool = True, latency: float = 0.0) -> HttpPeer:
    """Start an Elasticsearch for tests; see ``HttpPeer`` and ``ElasticDialect``."""
    return HttpPeer(lambda: ElasticDialect(keep=keep), tls=tls, latency=latency)


def _is(behaviour: Behaviour | None, fault: Fault) -> bool:
    return behaviour is not None and behaviour.fault == fault


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        # The standard library's parser knows nothing of the sender's: two readers must agree on every document.
        value = json.loads(line.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _no_constant(name: str) -> None:
    raise ValueError(name)
