"""Queries to a Log Analytics workspace: text made of settings and times only, answers taken as complete or not at all.

Facts: Azure Monitor Logs Query API (``POST /v1/workspaces/{id}/query``): an answer is at most 500,000 rows or about
100 MB and 10 minutes of work; beyond, it comes with status 200, a part of the rows and ``error`` in its body.
Throttling is 429 with ``Retry-After``. ``ingestion_time()`` is when a row came in, in 100 ns.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import msgspec

from aitrail.clock import Clock
from aitrail.destinations._azure_token import Tokens
from aitrail.errors import AuthError, ConfigError, TransientError
from aitrail.net.http import AnswerTooLong, Endpoint, HttpSender, Response
from aitrail.sources._log_analytics_settings import LogAnalyticsSettings

TICKS = 10_000_000
MOST_ROWS = 500_000
ANSWER_BYTES = 104 << 20
_INGESTED = "aitrail_ingested"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TOO_MUCH = frozenset({"PartialError", "GatewayTimeout", "QueryTimeout", "ResponsePayloadTooLarge"})
_LATER = frozenset({429, 500, 502, 503, 504})
# AzureDiagnostics holds the logs of every resource that still writes there: only these concern AI.
_FILTERS = {
    "AzureDiagnostics": '| where ResourceProvider in~ ("MICROSOFT.COGNITIVESERVICES", "MICROSOFT.APIMANAGEMENT", '
    '"MICROSOFT.MACHINELEARNINGSERVICES")',
}


class Window(NamedTuple):
    """A stretch of ingestion time in ticks (100 ns since 1970), the end not in it; of it one slice of ``slices``."""

    begin: int
    end: int
    slices: int = 1
    slice: int = 0


class Row(NamedTuple):
    """One row: when it came in (ticks), and its columns as one JSON object."""

    ticks: int
    record: bytes


class Answer(NamedTuple):
    """What a query gave; not ``complete`` when the service held rows back."""

    rows: list[Row]
    complete: bool
    size: int


class NoTableError(TransientError):
    """The workspace has no such table (yet)."""


class _Column(msgspec.Struct, gc=False):
    name: str


class _Table(msgspec.Struct, gc=False):
    columns: list[_Column]
    rows: list[list[msgspec.Raw]]


class _Error(msgspec.Struct, gc=False):
    code: str = ""
    innererror: dict[str, Any] | None = None


class _Body(msgspec.Struct, gc=False):
    tables: list[_Table] = []
    error: _Error | None = None


_decode = msgspec.json.Decoder(_Body).decode
_decode_text = msgspec.json.Decoder(str).decode
_EMPTY = frozenset({b"null", b'""', b'"{}"', b'"[]"'})


def ticks_of(epoch: float) -> int:
    """Epoch seconds as ticks."""
    return int(epoch * 1_000_000) * 10


def literal(ticks: int) -> str:
    """A KQL datetime, exact to 100 ns."""
    moment = _EPOCH + timedelta(seconds=ticks // TICKS)
    return f"datetime({moment:%Y-%m-%dT%H:%M:%S}.{ticks % TICKS:07d}Z)"


def parse_ticks(text: str) -> int:
    """Ticks of a time as the service writes it, with up to seven decimals; raises ``ValueError``."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    seconds = int((datetime.fromisoformat(whole).replace(tzinfo=UTC) - _EPOCH).total_seconds())
    return seconds * TICKS + int(fraction[:7].ljust(7, "0") or "0")


def text_of(table: str, window: Window) -> str:
    """The query for one window of one table. Nothing in it comes from a record."""
    parts = [
        table,
        f"| where ingestion_time() >= {literal(window.begin)} and ingestion_time() < {literal(window.end)}",
        _FILTERS.get(table, ""),
        f"| where hash(tostring(pack_all()), {window.slices}) == {window.slice}" if window.slices > 1 else "",
        f"| extend {_INGESTED} = ingestion_time()",
    ]
    return "\n".join(part for part in parts if part)


class Workspace:
    """One workspace. Asks again with a new token once; everything else is the caller's to repeat.

    Args:
        settings: which, and how to reach it.
        credential: gives tokens.
        who: the source, for messages.
        clock: for the time that the service asks to wait until.

    Attributes:
        skew: by how much the service's clock is ahead of ours, seconds.
    """

    def __init__(self, settings: LogAnalyticsSettings, credential: Any, who: str, clock: Clock) -> None:
        self._url = f"{settings.endpoint.rstrip('/')}/v1/workspaces/{settings.workspace_id}/query"
        self._seconds = settings.request_seconds
        self._who, self._clock = who, clock
        self._tokens = Tokens(credential, settings.scope, clock.now, who)
        endpoint = Endpoint(
            where=f"sources.{who}", ca_file=settings.ca_file, proxy=settings.proxy, seconds=settings.request_seconds
        )
        self._sender = HttpSender(endpoint, now=clock.now, cap=ANSWER_BYTES)
        self.skew = 0.0

    def rows(self, table: str, window: Window, *, since: int) -> Answer:
        """Ask for the rows of one window that happened at ``since`` or later (ticks).

        Raises:
            AuthError: the identity is refused, lacks a role, or there is no such workspace.
            NoTableError: there is no such table.
            TransientError: the service does not answer or asks to wait.
        """
        span = f"{literal(since)[9:-1]}/{literal(window.end + 86_400 * TICKS)[9:-1]}"
        try:
            response = self._ask({"query": text_of(table, window), "timespan": span}, table)
        except AnswerTooLong:
            return Answer([], complete=False, size=ANSWER_BYTES)
        if response is None:
            return Answer([], complete=False, size=0)
        try:
            body = _decode(response.body)
        except (msgspec.DecodeError, RecursionError):
            hint = "look for a proxy in between"
            raise TransientError(f"{self._who}: the answer is no answer of this API", hint=hint) from None
        if body.error is not None and body.error.code not in _TOO_MUCH:
            raise TransientError(f"{self._who}: {table}: {body.error.code[:64]}", hint="it is tried again")
        found = _rows(body.tables[0], table) if body.tables else []
        complete = body.error is None and len(found) < MOST_ROWS
        return Answer(found, complete=complete, size=len(response.body))

    def probe(self, table: str) -> None:
        """Ask for nothing of ``table``; raises as ``rows``."""
        self._ask({"query": f"{table}\n| take 0"}, table)

    def close(self) -> None:
        """Close connections."""
        self._sender.close()

    def _ask(self, question: dict[str, str], table: str) -> Response | None:
        """The answer with status 200; None when the service ran out of time over the question."""
        content = msgspec.json.encode(question)
        token = self._tokens.current()
        response = self._send(content, token)
        if response.status == 401:
            response = self._send(content, self._tokens.current(instead_of=token))
        if response.status == 200:
            return response
        if response.status == 504:
            return None
        raise self._refusal(response, table)

    def _send(self, content: bytes, token: str) -> Response:
        headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "Prefer": f"wait={max(1, int(self._seconds) - 10)}",
        }
        try:
            response = self._sender.request(
                "POST", self._url, deadline=time.monotonic() + self._seconds, content=content, headers=headers
            )
        except ConfigError as error:  # a fetch has no such error; the next turn may find it mended
            raise TransientError(str(error), hint=error.hint) from None
        try:
            there = parsedate_to_datetime(response.headers.get("date", "")).timestamp()
            self.skew = there - self._clock.now()
        except (ValueError, TypeError, OverflowError):
            pass
        return response

    def _refusal(self, response: Response, table: str) -> AuthError | TransientError:
        """What a status other than 200 means."""
        status, codes = response.status, _codes(response.body)
        said = f"{self._who}: {table}: {codes[0] if codes else 'refused'} (HTTP {status})"
        if status == 401:
            return AuthError(said, hint="the identity's token is refused: check its tenant, and `scope`")
        if status == 403:
            hint = (
                "grant the identity the role Log Analytics Reader on the workspace (workspace > Access control (IAM) > "
                "Add role assignment), and table access if the table is restricted"
            )
            return AuthError(said, hint=hint)
        if status == 404:
            return AuthError(said, hint="check workspace_id: it is the GUID on the workspace's overview page")
        if status in _LATER:
            wait = response.retry_after(self._clock.now())
            return TransientError(said, retry_after=wait, hint="the service asks to wait; nothing is lost")
        if status == 400 and {"SemanticError", "SEM0100"} & set(codes):
            hint = "send the logs there (diagnostic setting, resource-specific tables), or take it out of `tables`"
            return NoTableError(said, hint=hint)
        return TransientError(said, hint="see the code in the documentation of the Logs Query API")


def _codes(body: bytes) -> list[str]:
    """The error codes of a body from the outside to the inside; messages may quote the query and are left out."""
    try:
        node = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return []
    node = node.get("error") if isinstance(node, dict) else None
    codes: list[str] = []
    while isinstance(node, dict) and len(codes) < 5:
        code = node.get("code")
        codes.append("".join(c for c in code if c.isalnum())[:64] if isinstance(code, str) else "")
        node = node.get("innererror")
    return codes


def _rows(table: _Table, name: str) -> list[Row]:
    """Rows as the records that the normalizers know: one member a column, empty ones left out, times as they are."""
    names = [column.name for column in table.columns]
    place = names.index(_INGESTED)
    keys = [msgspec.json.encode(one) + b":" for one in names]
    typed = b'"Type":' + msgspec.json.encode(name)
    add_type = "Type" not in names
    columns: Sequence[tuple[int, bytes]] = [(at, key) for at, key in enumerate(keys) if at != place]
    found: list[Row] = []
    for cells in table.rows:
        values = [(key, bytes(cells[at])) for at, key in columns]
        members = [key + value for key, value in values if value not in _EMPTY]
        if add_type:
            members.append(typed)
        found.append(Row(parse_ticks(_decode_text(cells[place])), b"{" + b",".join(members) + b"}"))
    return found
