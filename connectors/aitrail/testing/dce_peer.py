"""A data collection endpoint for tests: the Logs Ingestion API with its limits, its answers, and faults.

Written from the documentation (status 204, troubleshooting table, service limits) and from what clients report. A
request is taken whole or not at all; nothing is suppressed; values above 64 KB are cut, as Azure does, and counted.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from aitrail.testing.faults import Reply, Request, reply_json, retry_header
from aitrail.testing.http_peer import HttpPeer, standing
from aitrail.testing.peer import Behaviour, Fault, Script

DCR = "dcr-00112233445566778899aabbccddeeff"
STREAM = "Custom-AIAudit_CL"
MAX_BODY = 1 << 20
MAX_FIELD = 64 << 10
_PATH = re.compile(r"/dataCollectionRules/([^/]+)/streams/([^/]+)")
_ROW = b'{"TimeGenerated":'
_GATEWAYS = (502, 504)


class DceDialect:
    """The endpoint's side of the API.

    Attributes:
        keep: False only counts rows (for measurements).
        streams: those that the rule declares.
        tables: the rows taken, by the name of their stream.
        role: whether the identity has the role.
        cut: how many values were above 64 KB.
        over: how many requests were above 1 MB.
        span_seconds: refuse requests whose TimeGenerated spans more, as an auxiliary table does; 0 for no limit.
    """

    def __init__(self, *, keep: bool = True) -> None:
        self.name = "sentinel"
        self.faults: frozenset[Fault] = frozenset()
        self.busy_codes: Sequence[int] = (408, 500, 502, 503, 504)
        self.address: Mapping[str, str] = {"dcr": DCR, "stream": STREAM}
        self.keep = keep
        self.streams = {STREAM}
        self.tables: dict[str, list[bytes]] = {}
        self.role = True
        self.cut = 0
        self.over = 0
        self.counted = 0
        self.span_seconds = 0.0
        self.requests: list[Request] = []
        self._rows: list[tuple[str, bytes]] = []
        self._by_id: dict[str, list[bytes]] = {}

    def is_data(self, request: Request) -> bool:
        """Requests with rows are; an empty list only checks."""
        return request.path.startswith("/dataCollectionRules/") and request.headers.get("content-length") != "2"

    def received(self) -> list[str]:
        """``EventUid`` (or ``Id``) of every row, repeats included."""
        return [one for one, _ in self._rows]

    def bodies(self, event_id: str) -> list[bytes]:
        """The rows of an ``EventUid``."""
        return list(self._by_id.get(event_id, ()))

    def answer(self, request: Request, behaviour: Behaviour | None, script: Script, token: str) -> Reply:
        """Answer one call."""
        if self.keep:
            self.requests.append(request)
        refusal = self._unwelcome(request, behaviour, token)
        if refusal is not None:
            return refusal
        large = standing(script, behaviour, "too_large")
        size = max(len(request.body), len(request.plain or b""))
        self.over += size > MAX_BODY
        if size > MAX_BODY or (large is not None and size > large.limit):
            return _error(413, "ContentLengthLimitExceeded")
        if request.plain is None:
            return _error(400, "InvalidPayload")
        if not self.keep:
            self.counted += request.plain.count(_ROW)
            return Reply(204)
        return self._take(request, standing(script, behaviour, "refuse_items"))

    def _unwelcome(self, request: Request, behaviour: Behaviour | None, token: str) -> Reply | None:
        fault = behaviour.fault if behaviour is not None else ""
        if request.headers.get("authorization", "") != f"Bearer {token}" or fault == "unauthorized":
            return _error(401, "InvalidAuthenticationToken", {"WWW-Authenticate": "Bearer"})
        found = _PATH.fullmatch(request.path)
        if found is None or request.query.get("api-version") != "2023-01-01" or request.method != "POST":
            return Reply(404, b"")
        if found[1] != DCR:
            return _error(404, "NotFound")
        if not self.role or fault == "forbidden":
            return _error(403, "OperationFailed")
        if found[2] not in self.streams:
            return _error(404, "InvalidStream")
        if behaviour is not None and fault in ("throttle", "busy"):
            status = behaviour.code or (429 if fault == "throttle" else 503)
            if status in _GATEWAYS:
                return Reply(status, b"<html></html>", {"Content-Type": "text/html", **retry_header(behaviour)})
            return _error(status, "ServerBusy", retry_header(behaviour))
        return None

    def _take(self, request: Request, poison: Behaviour | None) -> Reply:
        text = request.plain or b""
        refused = frozenset(poison.ids) if poison is not None else frozenset()
        try:
            # The standard library's parser knows nothing of the sender's: two readers must agree on every row.
            rows = json.loads(text.decode(), parse_constant=_no_constant)
        except (ValueError, RecursionError):
            return _error(400, "InvalidPayload")
        if not isinstance(rows, list):
            return _error(400, "InvalidPayload")
        taken: list[tuple[str, bytes]] = []
        for row in rows:
            if not _is_row(row) or _uid(row) in refused:
                return _error(400, "InvalidRecord")
            taken.append((_uid(row), msgspec.json.encode({name: self._as_kept(row[name]) for name in row})))
        if self.span_seconds and _span(rows) > self.span_seconds:
            return _error(400, "RecordsTimeRangeIsMoreThan30Minutes")
        for one, body in taken:
            self._rows.append((one, body))
            self._by_id.setdefault(one, []).append(body)
        self.tables.setdefault(request.path.rpartition("/")[2], []).extend(body for _, body in taken)
        return Reply(204)

    def _as_kept(self, value: Any) -> Any:
        if isinstance(value, str) and len(value) * 4 > MAX_FIELD and len(value.encode()) > MAX_FIELD:
            self.cut += 1
            return value.encode()[:MAX_FIELD].decode("utf-8", "ignore")
        return value


def dce_peer(*, tls: bool = False, keep: bool = True, latency: float = 0.0) -> HttpPeer:
    """Start a data collection endpoint for tests; see ``HttpPeer`` and ``DceDialect``."""
    return HttpPeer(lambda: DceDialect(keep=keep), tls=tls, latency=latency)


def _is_row(row: object) -> bool:
    return isinstance(row, dict) and isinstance(row.get("TimeGenerated"), str) and bool(_uid(row))


def _uid(row: Mapping[str, Any]) -> str:
    """Identity of a row: ``EventUid`` of our tables, ``Id`` of Sentinel's table ``Anomalies``."""
    uid = row.get("EventUid", row.get("Id"))
    return uid if isinstance(uid, str) else ""


def _span(rows: Sequence[dict[str, Any]]) -> float:
    """Seconds between the earliest and the latest TimeGenerated."""
    times = [datetime.fromisoformat(row["TimeGenerated"]) for row in rows]
    return (max(times) - min(times)).total_seconds() if times else 0.0


def _error(status: int, code: str, headers: Mapping[str, str] | None = None) -> Reply:
    return reply_json(status, {"error": {"code": code, "message": "a message that may quote a value"}}, headers)


def _no_constant(name: str) -> None:
    raise ValueError(name)
