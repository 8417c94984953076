"""Databricks inference and usage tables through the SQL statement API (``POST /api/2.0/sql/statements``).

One statement a window, its result in chunks. A result that the service cuts (``truncated``) halves the window. Every
value comes as a text; the rows become JSON objects with the columns' names.
"""

import re
from typing import Any

import msgspec

from aitrail.clock import Clock
from aitrail.errors import ConfigError, TransientError
from aitrail.ports import SecretResolver
from aitrail.sources._feeds_settings import DatabricksSettings
from aitrail.sources._rest import Caller, Item, Page, PageExpired, PolledFeed, TooMuch, Window, epoch, iso

_PATH = "/api/2.0/sql/statements"
_PERMISSION = "a token that may use the SQL warehouse (CAN USE) and read the table (SELECT, USE SCHEMA, USE CATALOG)"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_ -]{0,254}")
# kind -> column of the time, columns of the id
_COLUMNS: dict[str, tuple[str, tuple[str, ...]]] = {
    "inference": ("request_time", ("databricks_request_id",)),
    "usage": ("event_time", ("event_id", "request_id", "databricks_request_id")),
}
_POLL_SECONDS = 1.0
_POLLS = 600
_ENDED = frozenset({"FAILED", "CANCELED", "CLOSED"})


class _Status(msgspec.Struct):
    state: str = ""
    error: dict[str, Any] | None = None


class _Column(msgspec.Struct):
    name: str = ""


class _Schema(msgspec.Struct):
    columns: list[_Column] = []


class _Manifest(msgspec.Struct):
    schema: _Schema = msgspec.field(default_factory=_Schema)
    truncated: bool = False


class _Result(msgspec.Struct):
    data_array: list[list[Any]] | None = None
    next_chunk_index: int | None = None


class _Statement(msgspec.Struct):
    statement_id: str = ""
    status: _Status = msgspec.field(default_factory=_Status)
    manifest: _Manifest | None = None
    result: _Result | None = None


_statement = msgspec.json.Decoder(_Statement).decode
_result = msgspec.json.Decoder(_Result).decode


class Tables:
    """How its rows are asked for and read."""

    record_type = "databricks_ai"

    def __init__(self, settings: DatabricksSettings, caller: Caller, clock: Clock, where: str) -> None:
        parts = settings.table.split(".")
        if len(parts) != 3 or not all(_NAME.fullmatch(part) for part in parts):
            raise ConfigError("this is no table", where=f"{where}.table", hint='table = "catalog.schema.table"')
        self._table = ".".join(f"`{part}`" for part in parts)
        self._settings = settings
        self._caller = caller
        self._clock = clock
        self._time, self._ids = _COLUMNS[settings.kind]
        self._columns: list[str] = []
        self.origin = f"{caller.base}/{settings.table}"

    def page(self, window: Window, token: str) -> Page:
        """One chunk of the window's result; the token names statement and chunk."""
        if token:
            statement, _, number = token.partition("/")
            answer = self._caller.get(f"{_PATH}/{statement}/result/chunks/{number}", {})
            if answer.status in (400, 404, 410):
                raise PageExpired
            return self._page(statement, self._decoded(answer.body, _result))
        found = self._run(
            f"SELECT * FROM {self._table} WHERE {self._time} >= CAST(:low AS TIMESTAMP) "  # noqa: S608  (checked names)
            f"AND {self._time} < CAST(:high AS TIMESTAMP) ORDER BY {self._time}",
            {"low": iso(window.low), "high": iso(window.high)},
        )
        if found.manifest is None or found.manifest.truncated:
            raise TooMuch
        self._columns = [column.name for column in found.manifest.schema.columns]
        return self._page(found.statement_id, found.result or _Result())

    def probe(self) -> None:
        """Ask for no row."""
        self._run(f"SELECT {self._time} FROM {self._table} LIMIT 0", {})  # noqa: S608  (checked names)

    def _run(self, statement: str, values: dict[str, str]) -> _Statement:
        body = {
            "warehouse_id": self._settings.warehouse_id,
            "statement": statement,
            "parameters": [{"name": name, "value": value, "type": "STRING"} for name, value in values.items()],
            "wait_timeout": "30s",
            "on_wait_timeout": "CONTINUE",
            "format": "JSON_ARRAY",
            "disposition": "INLINE",
        }
        headers = {"Content-Type": "application/json"}
        answer = self._caller.send("POST", _PATH, headers, msgspec.json.encode(body))
        for _ in range(_POLLS):
            if answer.status >= 300:
                raise TransientError(f"{self.origin}: the statement is refused ({answer.status})", hint=_PERMISSION)
            found: _Statement = self._decoded(answer.body, _statement)
            state = found.status.state
            if state == "SUCCEEDED":
                return found
            if state in _ENDED:
                code = str((found.status.error or {}).get("error_code", ""))[:64]
                raise TransientError(f"{self.origin}: the statement ended as {state} {code}".rstrip(), hint=_PERMISSION)
            self._clock.sleep(_POLL_SECONDS)
            answer = self._caller.get(f"{_PATH}/{found.statement_id}", {})
        raise TransientError(f"{self.origin}: the statement does not end", hint="make window_minutes smaller")

    def _decoded(self, data: bytes, decode: Any) -> Any:
        try:
            return decode(data)
        except (msgspec.DecodeError, RecursionError, ValueError):
            raise TransientError(f"{self.origin}: the answer is no statement's result") from None

    def _page(self, statement: str, result: _Result) -> Page:
        items = []
        for row in result.data_array or ():
            found = dict(zip(self._columns, row, strict=False))
            ident = next((str(found[name]) for name in self._ids if found.get(name)), "")
            items.append(Item(ident, epoch(found.get(self._time)), msgspec.json.encode(found)))
        more = result.next_chunk_index
        return Page(items, f"{statement}/{more}" if more is not None else "")


def from_settings(
    settings: DatabricksSettings, *, name: str, clock: Clock, key: bytes, secrets: SecretResolver
) -> PolledFeed:
    """Make the source."""
    caller = Caller(
        settings.base_url,
        settings,
        where=f"sources.{name}",
        reference=settings.token,
        secrets=secrets,
        clock=clock,
        permission=_PERMISSION,
    )
    tables = Tables(settings, caller, clock, f"sources.{name}")
    return PolledFeed(tables, settings, name=name, clock=clock, key=key)
