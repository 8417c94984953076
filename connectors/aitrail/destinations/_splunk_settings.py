"""``[destinations.NAME]`` with ``type = "splunk"``: the settings of a HEC destination, and what their values mean."""

import socket
from typing import Annotated

from msgspec import Meta, Struct, field

from aitrail.destinations._settings import (
    CaFile,
    ClientCertificate,
    ClientKey,
    EventBytes,
    OversizePolicy,
    PlainHttp,
    Proxy,
    RequestSeconds,
    endpoint_of,
)
from aitrail.net.http import Endpoint
from aitrail.streams import Stream

# Sourcetypes of the Splunk app, by what a record is.
SOURCETYPES: dict[Stream, str] = {
    "access": "ai:access:audit",
    "finding": "ai:access:alert",
    "checkpoint": "ai:access:chain",
    "health": "ai:access:health",
}


class SplunkSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where and how events go to Splunk.

    One index and one token per destination: a wrong index refuses a whole batch.
    """

    urls: Annotated[
        tuple[str, ...],
        Meta(description="HEC endpoints, https://host:port, used in turn; one that fails rests, the others go on."),
    ]
    token: Annotated[str, Meta(description="Reference to the HEC token, e.g. env:SPLUNK_HEC_TOKEN.")]
    index: Annotated[str, Meta(description="Index; empty: the token's default index.")] = "ai_audit"
    sourcetype: Annotated[str, Meta(description="Sourcetype; the Splunk app expects the default.")] = SOURCETYPES[
        "access"
    ]
    sourcetypes: Annotated[
        dict[Stream, str],
        Meta(description='Sourcetypes of other kinds of events, e.g. `{ finding = "ai:access:alert" }`.'),
    ] = {}
    stream: Annotated[Stream, Meta(description="The kind of events that is sent.")] = "access"
    source: Annotated[str, Meta(description="Splunk's source field.")] = "aitrail"
    host: Annotated[str, Meta(description="Splunk's host field; default: this machine's name.")] = field(
        default_factory=socket.gethostname
    )
    ack: Annotated[
        bool,
        Meta(description="Wait for indexer acknowledgement (Splunk Enterprise only; the token must allow it)."),
    ] = False
    ack_timeout_seconds: Annotated[float, Meta(description="Send again after so long without one.", gt=0)] = 120.0
    ack_poll_seconds: Annotated[float, Meta(description="Ask for acknowledgements this often.", ge=0)] = 2.0
    batch_events: Annotated[int, Meta(description="Events per request, at most.", ge=1, le=100_000)] = 500
    batch_bytes: Annotated[
        int, Meta(description="Bytes per request before gzip, at most (Splunk Cloud: about 1 MB).", ge=10_000)
    ] = 1_000_000
    event_bytes: EventBytes = 900_000
    oversize: OversizePolicy = "truncate"
    request_seconds: RequestSeconds = 30.0
    ca_file: CaFile = ""
    client_certificate: ClientCertificate = ""
    client_key: ClientKey = ""
    proxy: Proxy = ""
    plain_http: PlainHttp = False
    management_url: Annotated[
        str,
        Meta(description="splunkd, https://host:8089; only for `aitrail splunk install` and `aitrail splunk verify`."),
    ] = ""
    management_token: Annotated[
        str, Meta(description="Reference to an authentication token of Splunk (Settings > Tokens) for management_url.")
    ] = ""

    @property
    def sent_as(self) -> str:
        """The sourcetype of what is sent."""
        return (
            self.sourcetype if self.stream == "access" else self.sourcetypes.get(self.stream, SOURCETYPES[self.stream])
        )

    def endpoint(self, where: str) -> Endpoint:
        """Give the part that the HTTP sender needs."""
        return endpoint_of(self, where, self.request_seconds)
