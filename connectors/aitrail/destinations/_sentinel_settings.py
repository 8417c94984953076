"""``[destinations.NAME]`` with ``type = "sentinel"``: the settings of a Logs Ingestion API destination."""

import re
from typing import Annotated, Literal

from msgspec import Meta, Struct

from aitrail.destinations._settings import CaFile, OversizePolicy, Proxy, RequestSeconds, endpoint_of
from aitrail.errors import ConfigError
from aitrail.net.http import Endpoint
from aitrail.streams import Stream

_DCR = re.compile(r"dcr-[0-9a-f]{32}")
_STREAM = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}")


class SentinelSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where and how events go to Microsoft Sentinel: one data collection rule, a stream for each kind of events."""

    url: Annotated[
        str,
        Meta(description="Logs ingestion endpoint of the data collection rule (or of its data collection endpoint)."),
    ]
    dcr: Annotated[str, Meta(description="Immutable id of the data collection rule, dcr-...")]
    stream: Annotated[
        str, Meta(description="How accesses are sent: access (table AIAudit_CL) or agent_event (ASIM AgentEvent).")
    ] = "access"
    findings: Annotated[
        Literal["table", "anomalies"],
        Meta(description="How findings are sent: table (AIAuditFindings_CL) or anomalies (Sentinel's own Anomalies)."),
    ] = "table"
    stream_name: Annotated[
        str, Meta(description="Name of the rule's stream for accesses, when it is not the usual one of `stream`.")
    ] = ""
    stream_names: Annotated[
        dict[Stream, str],
        Meta(
            description='The same for other kinds of events, e.g. `{ finding = "Custom-Findings_CL" }`; '
            "usual: Custom-AIAuditFindings_CL, Custom-AIAuditHealth_CL, Custom-AIAuditCheckpoints_CL."
        ),
    ] = {}
    plan: Annotated[
        Literal["analytics", "basic", "auxiliary"],
        Meta(description="Plan of the table; a request to an auxiliary table spans at most 30 minutes."),
    ] = "analytics"
    time_generated: Annotated[
        Literal["event", "ingested"],
        Meta(
            description="TimeGenerated is the time of the access, or of reading its record; EventTime is the access's."
        ),
    ] = "event"
    scope: Annotated[str, Meta(description="Token scope; other in sovereign clouds.")] = (
        "https://monitor.azure.com/.default"
    )
    workspace_id: Annotated[str, Meta(description="Log Analytics workspace, for `aitrail sentinel verify`.")] = ""
    query_url: Annotated[
        str, Meta(description="Where the workspace is queried by `aitrail sentinel verify`; other in sovereign clouds.")
    ] = "https://api.loganalytics.io"
    batch_events: Annotated[int, Meta(description="Events per request, at most.", ge=1, le=20_000)] = 2_000
    batch_bytes: Annotated[
        int, Meta(description="Bytes per request before gzip, at most (Azure: 1 MB).", ge=10_000, le=1_000_000)
    ] = 950_000
    event_bytes: Annotated[int, Meta(description="Bytes per event, at most.", ge=4_096, le=950_000)] = 900_000
    oversize: OversizePolicy = "truncate"
    request_seconds: RequestSeconds = 60.0
    ca_file: CaFile = ""
    proxy: Proxy = ""

    def endpoint(self, where: str) -> Endpoint:
        """Give the part that the HTTP sender needs."""
        return endpoint_of(self, where, self.request_seconds)

    def named(self, usual_stream: str) -> str:
        """The name of the rule's stream for what is sent here."""
        own = self.stream_names.get(self.stream, "")  # type: ignore[call-overload]  # agent_event is none of them
        return own or (self.stream_name if self.stream in ("access", "agent_event") else "") or usual_stream

    def path(self, where: str, usual_stream: str) -> str:
        """Give path and query of the stream; raises ``ConfigError`` when id or name cannot be right."""
        stream = self.named(usual_stream)
        if not _DCR.fullmatch(self.dcr):
            raise ConfigError(
                "not the immutable id of a data collection rule",
                where=f"{where}.dcr",
                hint="dcr- and 32 hex digits, from the JSON view of the rule (immutableId); not its resource id",
            )
        if not _STREAM.fullmatch(stream):
            raise ConfigError("not the name of a stream", where=f"{where}.stream_name", hint="e.g. Custom-AIAudit_CL")
        return f"/dataCollectionRules/{self.dcr}/streams/{stream}?api-version=2023-01-01"
