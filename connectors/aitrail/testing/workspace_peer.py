"""A Log Analytics workspace for tests: the query API over TLS, for the one query that ``aitrail sentinel verify`` asks.

Written from the documentation of the Azure Monitor Log Analytics API and from what azure-monitor-query sends; that
client refuses to send a token without TLS. A missing role is 403 ``InsufficientAccessError``, a table that is not there
400 with the code ``SemanticError`` inside, too many rows an answer with ``PartialError``.
"""

import json
import re
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from aitrail.testing.certificates import Authority
from aitrail.testing.faults import HttpServer, Reply, Request, reply_json
from aitrail.testing.peer import Behaviour, Script

_PATH = re.compile(r"/v1/workspaces/([^/]+)/query")
_QUERY = re.compile(
    r"(?P<table>\w+)\n\| where (?P<time>\w+) >= datetime\((?P<start>[^)]+)\) "
    r"and (?P=time) < datetime\((?P<end>[^)]+)\)\n"
    r"\| summarize Count = count\(\) by EventUid\n\| take (?P<most>\d+)"
)


class WorkspacePeer:
    """A running query endpoint on 127.0.0.1.

    Args:
        tables: gives the rows (JSON objects) of each table by its name.

    Attributes:
        token: the bearer token that is right.
        role: whether the identity may read the workspace.
        most: rows per answer; more make it partial.
        queries: what was asked.
    """

    def __init__(self, tables: Callable[[], Mapping[str, Sequence[bytes]]]) -> None:
        self._tables = tables
        self._authority = Authority()
        self.workspace = str(uuid.uuid4())
        self.token = uuid.uuid4().hex
        self.role = True
        self.most = 100_000
        self.queries: list[str] = []
        self._server = HttpServer(
            self._answer, Script(frozenset()), is_data=lambda request: False, tls=self._authority.context("")
        )
        self.url = self._server.url
        self.ca_file = self._authority.ca_file

    def close(self) -> None:
        """Stop."""
        self._server.close()
        self._authority.close()

    def _answer(self, request: Request, behaviour: Behaviour | None) -> Reply:
        del behaviour
        found = _PATH.fullmatch(request.path)
        if found is None or request.method != "POST":
            return _error(404, "PathNotFoundError")
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return _error(401, "InvalidTokenError")
        if found[1] != self.workspace:
            return _error(404, "WorkspaceNotFoundError")
        if not self.role:
            return _error(403, "InsufficientAccessError")
        text = json.loads(request.plain or b"")["query"]
        self.queries.append(text)
        asked = _QUERY.fullmatch(text)
        if asked is None:
            return _error(400, "BadArgumentError", "SyntaxError")
        tables = self._tables()
        if asked["table"] not in tables:
            return _error(400, "BadArgumentError", "SemanticError")
        rows = [json.loads(row) for row in tables[asked["table"]]]
        counted = Counter(row["EventUid"] for row in rows if asked["start"] <= row[asked["time"]] < asked["end"])
        listed = [[one, count] for one, count in counted.most_common(min(self.most, int(asked["most"])))]
        columns = [{"name": "EventUid", "type": "string"}, {"name": "Count", "type": "long"}]
        answer: dict[str, object] = {"tables": [{"name": "PrimaryResult", "columns": columns, "rows": listed}]}
        if len(counted) > self.most:
            answer["error"] = {"code": "PartialError", "message": "the result was too large"}
        return reply_json(200, answer)


def _error(status: int, code: str, inner: str = "") -> Reply:
    error: dict[str, object] = {"code": code, "message": "a message that may quote the query"}
    if inner:
        error["innererror"] = {"code": inner, "message": "the same"}
    return reply_json(status, {"error": error})
