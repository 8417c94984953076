"""A Log Analytics workspace for tests: the Logs Query API over TLS, with its limits, its late rows, and faults.

Written from the documentation of the API and from what clients report: answers above a limit come with status 200, a
part of the rows and ``PartialError``; a row can be seen some time after it came in; throttling is 429. It understands
the queries that the source asks, word by word, and refuses every other one as the service does, so that a query with
anything else in it fails the test.
"""

import email.utils
import http.server
import json
import re
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from zlib import crc32

import msgspec

from aitrail.clock import Clock
from aitrail.testing.azure_flow import SUBSCRIPTION
from aitrail.testing.certificates import Authority

WORKSPACE = "00000000-0000-4000-8000-0000000000aa"
_TICKS = 10_000_000
_TIME = r"datetime\((\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}Z)\)"
_QUERY = re.compile(
    rf"(?P<table>\w+)\n\| where ingestion_time\(\) >= {_TIME} and ingestion_time\(\) < {_TIME}"
    r"(?P<filter>\n\| where ResourceProvider in~ \((?P<providers>[^)]*)\))?"
    r"(?:\n\| where hash\(tostring\(pack_all\(\)\), (?P<slices>\d+)\) == (?P<slice>\d+))?"
    r"\n\| extend aitrail_ingested = ingestion_time\(\)"
)
_PROBE = re.compile(r"(?P<table>\w+)\n\| take 0")


class Stored(msgspec.Struct):
    """One row: its columns, when it came in, from when on it is seen (epoch seconds)."""

    columns: dict[str, Any]
    ingested: float
    visible: float


class Token:
    """What a credential gives."""

    def __init__(self, token: str, expires_on: int) -> None:
        self.token = token
        self.expires_on = expires_on


class Credential:
    """Gives the workspace's token of the moment; ``asked`` counts."""

    def __init__(self, workspace: "LogsWorkspace") -> None:
        self._workspace = workspace
        self.asked = 0

    def get_token(self, *scopes: str, **_more: Any) -> Token:
        """Give a token."""
        assert scopes == ("https://api.loganalytics.io/.default",), scopes
        self.asked += 1
        return Token(self._workspace.token, int(self._workspace.clock.now()) + 3_600)


class LogsWorkspace:
    """A running workspace on 127.0.0.1.

    Attributes:
        tables: rows by table; a table that is not here does not exist.
        most_rows, most_bytes: the limits of one answer.
        script: what the next requests get instead of an answer: (status, error code, headers).
        token: the only one that is good.
        queries: what was asked.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.tables: dict[str, list[Stored]] = {}
        self.most_rows, self.most_bytes = 500_000, 64 << 20
        self.script: list[tuple[int, str, dict[str, str]]] = []
        self.token = "token-1"  # noqa: S105 - made up
        self.allowed = True
        self.queries: list[str] = []
        self.partial = 0
        self._authority = Authority()
        self.ca_file = self._authority.ca_file
        owner = self

        class Handler(_Handler):
            workspace = owner

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.socket = self._authority.context().wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://localhost:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def add(self, table: str, rows: Sequence[dict[str, Any]], *, ingested: float, visible: float = 0.0) -> None:
        """Store rows that came in at ``ingested``, to be seen from ``visible`` on."""
        self.tables.setdefault(table, []).extend(Stored(row, ingested, visible) for row in rows)

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
        self._authority.close()

    def answer(self, path: str, headers: Any, body: bytes) -> tuple[int, dict[str, Any], dict[str, str]]:
        """Answer one call: status, body, headers."""
        if headers.get("Authorization") != f"Bearer {self.token}":
            return _error(401, "InvalidTokenError")
        if path != f"/v1/workspaces/{WORKSPACE}/query":
            return _error(404, "WorkspaceNotFoundError")
        if not self.allowed:
            return _error(403, "InsufficientAccessError")
        if self.script:
            status, code, more = self.script.pop(0)
            return _error(status, code, more)
        asked = json.loads(body)
        query = asked["query"]
        self.queries.append(query)
        probe = _PROBE.fullmatch(query)
        match = probe or _QUERY.fullmatch(query)
        if match is None:
            return _error(400, "BadArgumentError", inner="SyntaxError")
        if match["table"] not in self.tables:
            return _error(400, "BadArgumentError", inner="SemanticError")
        rows = [] if probe else self._select(match, asked["timespan"])
        return self._shaped(rows)

    def _select(self, match: re.Match[str], timespan: str) -> list[Stored]:
        begin, end = _epoch_ticks(match[2]), _epoch_ticks(match[3])
        first, last = (_epoch_ticks(one) for one in timespan.split("/"))
        providers = {one.strip(' "').lower() for one in (match["providers"] or "").split(",")}
        now = self.clock.now()
        found = []
        for row in self.tables[match["table"]]:
            ticks = int(row.ingested * 1_000_000) * 10
            happened = _epoch_ticks(row.columns["TimeGenerated"])
            if not (begin <= ticks < end and first <= happened <= last and row.visible <= now):
                continue
            if match["filter"] and row.columns.get("ResourceProvider", "").lower() not in providers:
                continue
            if match["slices"] and crc32(json.dumps(row.columns).encode()) % int(match["slices"]) != int(
                match["slice"]
            ):
                continue
            found.append(row)
        return found

    def _shaped(self, rows: list[Stored]) -> tuple[int, dict[str, Any], dict[str, str]]:
        names = sorted({name for row in rows for name in row.columns})
        cells: list[list[Any]] = []
        size, error = 0, None
        for row in rows:
            one = [_cell(row.columns.get(name)) for name in names] + [_text(row.ingested)]
            size += sum(len(str(value)) for value in one)
            if len(cells) >= self.most_rows or size > self.most_bytes:
                error = {"code": "PartialError", "message": "There were some errors when processing your query."}
                self.partial += 1
                break
            cells.append(one)
        columns = [{"name": name, "type": "string"} for name in [*names, "aitrail_ingested"]]
        body: dict[str, Any] = {"tables": [{"name": "PrimaryResult", "columns": columns, "rows": cells}]}
        return 200, body if error is None else {**body, "error": error}, {}


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    workspace: LogsWorkspace

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        status, content, headers = self.workspace.answer(self.path, self.headers, body)
        data = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The workspace's clock, not the machine's."""
        return email.utils.formatdate(self.workspace.clock.now() if timestamp is None else timestamp, usegmt=True)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """Say nothing."""


def _error(
    status: int, code: str, headers: dict[str, str] | None = None, *, inner: str = ""
) -> tuple[int, dict[str, Any], dict[str, str]]:
    error: dict[str, Any] = {"code": code, "message": "The request had some invalid properties"}
    if inner:
        error["innererror"] = {"code": inner, "message": "A semantic error occurred."}
    return status, {"error": error}, headers or {}


def _cell(value: Any) -> Any:
    """Dynamic columns come as text; so do columns without a value, where they are text."""
    return json.dumps(value) if isinstance(value, (dict, list)) else value


def _epoch_ticks(text: str) -> int:
    whole, _, fraction = text.removesuffix("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())
    return seconds * _TICKS + int((fraction or "0").ljust(7, "0"))


def _text(epoch: float) -> str:
    ticks = int(epoch * 1_000_000) * 10
    moment = datetime.fromtimestamp(ticks // _TICKS, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ticks % _TICKS:07d}Z"


def gateway_row(number: int, correlation: str, time: str = "2026-11-23T09:14:05.4465902Z") -> dict[str, Any]:
    """A row of ApiManagementGatewayLogs; synthetic, in the real shape."""
    return {
        "TenantId": WORKSPACE,
        "TimeGenerated": time,
        "OperationName": "Microsoft.ApiManagement/GatewayLogs",
        "CorrelationId": correlation,
        "Region": "East US",
        "IsRequestSuccess": True,
        "Category": "GatewayLogs",
        "TotalTime": 884,
        "CallerIpAddress": "203.0.113.9",
        "Url": "https://acme-apim.azure-api.net/openai/deployments/gpt-4o-retail/chat/completions",
        "ResponseCode": 200,
        "ApiId": "retail-bot-api",
        "OperationId": "ChatCompletions_Create",
        "UserId": "",
        "LastErrorReason": None,
        "BackendRequestHeaders": {"x-caller-upn": f"user{number}@example.com"},
        "Type": "ApiManagementGatewayLogs",
    }


def llm_row(number: int, correlation: str, time: str = "2026-11-23T09:14:06.3305902Z") -> dict[str, Any]:
    """A row of ApiManagementGatewayLlmLog; synthetic, in the real shape."""
    return {
        "TimeGenerated": time,
        "CorrelationId": correlation,
        "RequestId": f"chatcmpl-{number}",
        "SequenceNumber": 0,
        "OperationName": "ChatCompletions_Create",
        "DeploymentName": "gpt-4o-retail",
        "ModelName": "gpt-4o-2024-11-20",
        "Region": "East US",
        "PromptTokens": 31,
        "CompletionTokens": 9,
        "TotalTokens": 40,
        "RequestMessages": [{"role": "user", "content": "What is the limit on my card?"}],
        "ResponseMessages": '[{"role":"assistant","content":"2,000 EUR."}]',
        "Type": "ApiManagementGatewayLlmLog",
    }


def diagnostics_row(correlation: str, time: str, provider: str = "MICROSOFT.COGNITIVESERVICES") -> dict[str, Any]:
    """A RequestResponse row of AzureDiagnostics; synthetic, in the real shape."""
    properties = {"objectId": "6b1f8c52-0000-4000-8000-0000000000aa", "modelName": "gpt-4o", "promptTokens": 3}
    return {
        "TimeGenerated": time,
        "Category": "RequestResponse",
        "ResourceProvider": provider,
        "ResourceId": f"{SUBSCRIPTION}/PROVIDERS/{provider}/A/B",
        "OperationName": "ChatCompletions_Create",
        "CorrelationId": correlation,
        "DurationMs": 812,
        "ResultSignature": "200",
        "CallerIPAddress": "203.0.113.***",
        "properties_s": json.dumps({**properties, "completionTokens": 9}),
        "Type": "AzureDiagnostics",
    }
