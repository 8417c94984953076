"""A DuckDB connection for SQL that somebody typed: it reads the store's views and can touch nothing else.

Three layers, because none is enough alone:

* DuckDB's own: external access off except for the catalogued segment files, no extensions, no replacement scans of
  Python variables, nothing spilled to disk, and the configuration locked;
* only statements that read are run, judged by their type and by their plan: ``COPY ... TO`` could overwrite an allowed
  file, and DuckDB 2 takes it inside a WITH clause of what looks like a SELECT;
* segment files carry no write permission.
"""

import json
import re
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import duckdb

from aitrail.errors import AitrailError

_READS = frozenset({duckdb.StatementType.SELECT})
# How a reading statement begins, behind comments. DuckDB 1.4 rewrites some PRAGMA statements to a SELECT.
_COMMENTS = re.compile(r"(?:\s+|--[^\n]*(?:\n|$)|/\*.*?\*/)*", re.DOTALL)
_FIRST_WORDS = re.compile(r"(?:select|with|from|values|table|describe|desc|summarize|show)\b|\(", re.IGNORECASE)
_EXPLAIN = re.compile(r"explain\s+(?:analyze\s+)?(?P<rest>[^(\s].*)", re.IGNORECASE | re.DOTALL)
# Operators of DuckDB's physical plans that change something.
_WRITES = re.compile(r"COPY_TO|INSERT|UPDATE|DELETE|MERGE_INTO|CREATE|ATTACH|EXPORT|LOAD|DROP|ALTER", re.IGNORECASE)
_LINE = re.compile(r"LINE (\d+):")
_REMEMBERED = 2_000
_FETCHERS = frozenset({"fetchone", "fetchmany", "fetchall", "description", "rowcount", "interrupt"})


class QueryError(AitrailError):
    """SQL that cannot be run: not a reading statement, or DuckDB refuses it."""

    exit_code = 2


class GuardedConnection:
    """Wraps a locked-down DuckDB connection; only ``execute`` of one reading statement, and fetching, are possible."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        # Statements that were judged: what a statement may do hangs on its text, not on the values that are bound.
        self._reading: set[str] = set()

    def execute(self, sql: str, parameters: Sequence[Any] | dict[str, Any] | None = None) -> "GuardedConnection":
        """Run one SELECT (also WITH, FROM, VALUES, DESCRIBE, SUMMARIZE, SHOW) or EXPLAIN of one.

        Raises:
            QueryError: it is another statement, or DuckDB refuses it; the message says why.
            duckdb.IOException: a segment is gone (compacted away): take a fresh snapshot.
        """
        if sql not in self._reading:
            require_reading(self._connection, sql, parameters)
            if len(self._reading) < _REMEMBERED:
                self._reading.add(sql)
        try:
            self._connection.execute(sql, parameters)
        except duckdb.IOException:
            raise
        except duckdb.Error as error:
            raise QueryError(str(error), hint=_hint(error)) from error
        return self

    def __getattr__(self, name: str) -> Any:
        if name in _FETCHERS:
            return getattr(self._connection, name)
        raise AttributeError(f"{name}: a store connection only executes queries and fetches their rows")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def require_reading(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[Any] | dict[str, Any] | None
) -> None:
    """Raise ``QueryError`` unless ``sql`` is exactly one statement that only reads."""
    text = _bare(sql)
    try:
        statements = connection.extract_statements(sql)
        if len(statements) == 1 and statements[0].type == duckdb.StatementType.EXPLAIN:
            inner = _EXPLAIN.fullmatch(text)
            text = inner["rest"] if inner else ""
            statements = connection.extract_statements(text)
    except duckdb.Error as error:
        raise QueryError(str(error), hint="the dialect is DuckDB SQL; the tables are listed by SHOW TABLES") from error
    if len(statements) != 1:
        raise QueryError("one SELECT statement is expected", hint="run one statement at a time")
    kind = statements[0].type.name
    if statements[0].type in _READS and not _FIRST_WORDS.match(text):
        kind = text.split(maxsplit=1)[0].upper()[:20]
    elif statements[0].type in _READS:
        writing = [name for name in _operators(connection, statements[0].query, parameters) if _WRITES.search(name)]
        if not writing:
            return
        kind = writing[0]
    raise QueryError(
        f"{kind} is refused: queries only read",
        hint="use SELECT; `aitrail report --format csv` and `aitrail query --format ...` export",
    )


def _bare(sql: str) -> str:
    """Take leading comments and space off."""
    found = _COMMENTS.match(sql)
    return sql[found.end() :] if found else sql


def _operators(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[Any] | dict[str, Any] | None
) -> list[str]:
    """Give the operators of the physical plan of ``sql``, which is planned and not run."""
    try:
        plans = connection.execute(f"EXPLAIN (FORMAT json)\n{sql}", parameters).fetchall()
    except duckdb.IOException:
        raise
    except duckdb.Error as error:
        text = _LINE.sub(lambda line: f"LINE {int(line[1]) - 1}:", str(error))
        raise QueryError(text, hint=_hint(error)) from error
    found: list[str] = []
    todo: list[Any] = [json.loads(text) for _, text in plans]
    while todo:
        node = todo.pop()
        if isinstance(node, list):
            todo += node
        elif isinstance(node, dict):
            found.append(str(node.get("name", "")))
            todo += node.get("children", [])
    return found


def lock_down(connection: duckdb.DuckDBPyConnection, files: Sequence[str]) -> None:
    """Take from ``connection`` everything but reading ``files``; for good."""
    connection.execute("SET allowed_paths = ?", [list(files)])
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _hint(error: duckdb.Error) -> str:
    """Say what to do about a refusal."""
    if isinstance(error, duckdb.PermissionException):
        return "queries read the tables of the store and nothing else: no files, no other databases, no network"
    if isinstance(error, duckdb.CatalogException | duckdb.BinderException):
        return "SHOW TABLES lists the tables, DESCRIBE events the columns (`aitrail schema` explains them)"
    return ""
