"""What ``[sources.NAME]`` of type ``log_analytics`` may say."""

import re
from typing import Annotated

from msgspec import Meta, Struct

from aitrail.sources._azure_start import START_HELP, check_start

_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_WORKSPACE = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


class LogAnalyticsSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which tables of which workspace are read."""

    workspace_id: Annotated[str, Meta(description="Workspace id (a GUID, on the workspace's overview page).")]
    tables: Annotated[
        tuple[str, ...],
        Meta(description="Tables. Of AzureDiagnostics only rows of Azure OpenAI, Machine Learning and API Management."),
    ] = ("ApiManagementGatewayLogs", "ApiManagementGatewayLlmLog", "AzureDiagnostics")
    start: Annotated[str, Meta(description=START_HELP + " The earliest is 30 days ago.")] = "earliest"
    managed_identity: Annotated[
        str, Meta(description="Client id of a user-assigned managed identity; empty: the default chain.")
    ] = ""
    settle_seconds: Annotated[
        float,
        Meta(description="Rows are read this long after they came in: before, some of them cannot be seen.", ge=0),
    ] = 120.0
    overlap_seconds: Annotated[
        float,
        Meta(description="Every look reads this stretch before the last one again, for rows that showed late.", ge=0),
    ] = 180.0
    wide_seconds: Annotated[float, Meta(description="Every half hour a look goes back this far.", ge=0)] = 3_600.0
    window_seconds: Annotated[
        float, Meta(description="The longest stretch of one query; it is halved where an answer is incomplete.", ge=1)
    ] = 3_600.0
    late_days: Annotated[
        int, Meta(description="Rows may have happened this many days before they came in.", ge=1, le=90)
    ] = 7
    endpoint: Annotated[str, Meta(description="Endpoint of the Logs Query API; other in sovereign clouds.")] = (
        "https://api.loganalytics.azure.com"
    )
    scope: Annotated[str, Meta(description="Token scope; other in sovereign clouds.")] = (
        "https://api.loganalytics.io/.default"
    )
    ca_file: Annotated[str, Meta(description="PEM file of the authorities to trust; empty: the system's.")] = ""
    proxy: Annotated[
        str, Meta(description="Proxy URL; empty: HTTPS_PROXY and NO_PROXY of the environment; none: no proxy.")
    ] = ""
    request_seconds: Annotated[float, Meta(description="The longest that one query may take.", gt=0, le=600)] = 190.0

    def __post_init__(self) -> None:
        check_start(self.start)
        if not _WORKSPACE.fullmatch(self.workspace_id):
            raise ValueError("workspace_id must be the workspace's GUID, not its name or resource id")
        if not self.tables:
            raise ValueError('tables is empty: name some, e.g. ["ApiManagementGatewayLogs"]')
        for table in self.tables:
            if not _TABLE.fullmatch(table):  # it becomes part of a query
                raise ValueError("a table's name has letters, digits and underscores only")
