"""``[destinations.NAME]`` with ``type = "splunk"``: the settings of a HEC destination, and what their values mean."""

import socket
from typing import Annotated

from msgspec import Meta, Struct, field

from aitrail.destinations._batching import Oversize
from aitrail.destinations._http import Endpoint

# Sourcetypes of the Splunk app, by what a record is.
SOURCETYPES = {
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
    event_bytes: Annotated[int, Meta(description="Bytes per event, at most.", ge=4_096)] = 900_000
    oversize: Annotated[
        Oversize, Meta(description="An event above event_bytes: truncate its texts (marked), or reject it.")
    ] = "truncate"
    request_seconds: Annotated[float, Meta(description="The longest that one request may take.", gt=0)] = 30.0
    ca_file: Annotated[str, Meta(description="PEM file of the authorities to trust; empty: the system's.")] = ""
    client_certificate: Annotated[str, Meta(description="PEM file of a client certificate, for mutual TLS.")] = ""
    client_key: Annotated[str, Meta(description="PEM file of its key.")] = ""
    proxy: Annotated[
        str, Meta(description="Proxy URL; empty: HTTPS_PROXY and NO_PROXY of the environment; none: no proxy.")
    ] = ""
    plain_http: Annotated[bool, Meta(description="Allow http:// to other machines: everything is readable.")] = False

    def endpoint(self, where: str) -> Endpoint:
        """Give the part that the HTTP sender needs."""
        return Endpoint(
            where=where,
            ca_file=self.ca_file,
            client_certificate=self.client_certificate,
            client_key=self.client_key,
            proxy=self.proxy,
            seconds=self.request_seconds,
            plain_http=self.plain_http,
        )
