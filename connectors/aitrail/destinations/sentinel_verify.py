"""Count in a Log Analytics workspace what arrived, through azure-monitor-query.

Rows become visible some minutes after Azure has taken them. Azure suppresses no repeats: an event id with more than one
row was sent again.
"""

import re
from collections.abc import Mapping
from typing import Any

from aitrail.clock import iso_ms
from aitrail.destinations._azure_token import Credential, default_credential
from aitrail.destinations._sentinel_settings import SentinelSettings
from aitrail.errors import AitrailError, AuthError, ConfigError, TransientError
from aitrail.net.http import Endpoint, check_url

ROLE = "Log Analytics Reader"
# The service gives at most 500,000 rows and 64 MB; both are far away from this.
COUNTED_IDS = 100_000
_SERVER_SECONDS = 300
_TABLE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
_GUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class Workspace:
    """Asks one Log Analytics workspace.

    Args:
        settings: ``workspace_id`` must be set; ``query_url`` for sovereign clouds.
        table: what to count in, e.g. ``AIAudit_CL``.
        time_column: its column with the time of the event.
        credential: gives tokens; azure-identity's default unless given.
        name: the destination's name, for errors.
    """

    def __init__(
        self,
        settings: SentinelSettings,
        credential: Credential | None = None,
        *,
        table: str,
        time_column: str = "EventTime",
        name: str = "sentinel",
    ) -> None:
        self._where = where = f"destinations.{name}"
        if not _GUID.fullmatch(settings.workspace_id):
            raise ConfigError(
                "the workspace's id is missing" if not settings.workspace_id else "not the id of a workspace",
                where=f"{where}.workspace_id",
                hint="the workspace's GUID, from its overview in the Azure portal (Workspace ID)",
            )
        if not _TABLE.fullmatch(table):
            raise ConfigError("not the name of a table", where=f"{where}.stream_name", hint="e.g. Custom-AIAudit_CL")
        self._id, self._table, self._time = settings.workspace_id, table, time_column
        self._client = _client(settings, credential or default_credential(where), settings.endpoint(where))

    def close(self) -> None:
        """Give back connections."""
        self._client.close()

    def counts(self, start: int, end: int) -> dict[str, int] | None:
        """Count rows by event id, for events whose time is in [start, end) (epoch milliseconds).

        Returns:
            How often each id is there; None when there are too many for one answer.

        Raises:
            AuthError: the role Log Analytics Reader is missing; no token.
            ConfigError: the table is not there. TransientError: not now.
        """
        found = self._ask(count_query(self._table, self._time, start, end))
        tables = getattr(found, "tables", None)
        if not tables:  # a partial answer has partial_data instead
            return None
        counted = {str(row[0]): int(row[1]) for row in tables[0].rows}
        return counted if len(counted) < COUNTED_IDS else None

    def _ask(self, kql: str) -> Any:
        try:
            return self._client.query_workspace(self._id, kql, timespan=None, server_timeout=_SERVER_SECONDS)
        except Exception as error:  # noqa: BLE001 - the SDK raises what its HTTP libraries do, too
            raise self._explained(error) from None

    def _explained(self, error: Exception) -> AitrailError:
        """Name what is missing; messages of the SDK may quote the query and the request."""
        kind, status = type(error).__name__, getattr(error, "status_code", None)
        codes = set(_codes(getattr(error, "error", None)))
        if kind in ("ClientAuthenticationError", "CredentialUnavailableError") or status in (401, 403):
            return AuthError(
                f"{self._where}: the workspace {self._id} may not be read: the role {ROLE} is missing "
                f"({f'HTTP {status}' if status else kind})",
                hint=f"give the identity the role {ROLE} on the workspace (Access control > Add role assignment)",
            )
        if status == 400 and codes & {"SemanticError", "BadArgumentError", "SEM0100"}:
            return ConfigError(
                f"the workspace {self._id} has no table {self._table} with the columns EventUid and {self._time}",
                where=f"{self._where}.workspace_id",
                hint="deploy the table and the data collection rule of this version of aitrail; name their workspace",
            )
        if status == 404:
            return ConfigError(
                f"there is no workspace {self._id}", where=f"{self._where}.workspace_id", hint="look for its GUID"
            )
        return TransientError(
            f"{self._where}: the workspace cannot be queried now ({f'HTTP {status}' if status else kind})",
            hint="try again later",
        )


def count_query(table: str, time: str, start: int, end: int) -> str:
    """Give KQL that counts the rows of ``table`` by event id, for its column ``time`` in [start, end) (epoch ms)."""
    first, behind = iso_ms(start / 1000), iso_ms(end / 1000)
    return (
        f"{table}\n| where {time} >= datetime({first}) and {time} < datetime({behind})\n"
        f"| summarize Count = count() by EventUid\n| take {COUNTED_IDS}"
    )


def _codes(error: Any) -> list[str]:
    """All codes of an OData error, outermost first."""
    found = []
    while error is not None:
        code = error.get("code") if isinstance(error, Mapping) else getattr(error, "code", None)
        if code:
            found.append(str(code))
        error = error.get("innererror") if isinstance(error, Mapping) else getattr(error, "innererror", None)
    return found


def _client(settings: SentinelSettings, credential: Any, endpoint: Endpoint) -> Any:
    try:
        from azure.monitor.query import LogsQueryClient  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigError(
            "counting in Microsoft Sentinel needs azure-monitor-query",
            where=endpoint.where,
            hint="pip install 'aitrail[azure]'",
        ) from None
    check_url(settings.query_url, endpoint)
    options: dict[str, Any] = {"connection_verify": endpoint.ca_file} if endpoint.ca_file else {}
    if endpoint.proxy == "none":
        options["use_env_settings"] = False
    elif endpoint.proxy:
        options["proxies"] = {"https": endpoint.proxy}
    return LogsQueryClient(credential, endpoint=settings.query_url.rstrip("/"), retry_total=3, **options)
