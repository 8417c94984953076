"""``[destinations.NAME]`` with ``type = "syslog"``: the settings of a syslog destination."""

import socket
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from aitrail.destinations._batching import Oversize
from aitrail.destinations._settings import CaFile, ClientCertificate, ClientKey, Connections, SendSeconds, endpoint_of
from aitrail.destinations.cef import Format
from aitrail.net.http import Endpoint

Transport = Literal["tls", "tcp", "udp"]
Confirm = Literal["close", "drain"]
Framing = Literal["octets", "lines"]


class SyslogSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where and how events go to a syslog receiver (RFC 5424; over TLS RFC 5425, TCP RFC 6587, UDP RFC 5426)."""

    host: Annotated[str, Meta(description="Host of the receiver; with TLS the name in its certificate.")]
    port: Annotated[int, Meta(description="Port; 6514 is the registered one for TLS.", ge=1, le=65_535)] = 6514
    transport: Annotated[Transport, Meta(description="tls, tcp or udp.")] = "tls"
    cleartext: Annotated[
        bool, Meta(description="Allow tcp and udp to other machines: everything is readable, and udp loses.")
    ] = False
    format: Annotated[
        Format, Meta(description="json (canonical), json_exabeam, json_securonix (their names), cef or leef.")
    ] = "json"
    confirm: Annotated[
        Confirm,
        Meta(
            description="What counts as delivered over tls and tcp. close: the receiver has read everything and closed "
            "in good order, one connection per batch. drain: its kernel has acknowledged every byte, connections stay."
        ),
    ] = "close"
    framing: Annotated[
        Framing, Meta(description="octets (a count in front of each message) or lines (a line feed behind it).")
    ] = "octets"
    facility: Annotated[int, Meta(description="Facility; 13 is log audit.", ge=0, le=23)] = 13
    hostname: Annotated[str, Meta(description="HOSTNAME of the header; default: this machine's name.")] = field(
        default_factory=socket.gethostname
    )
    app_name: Annotated[str, Meta(description="APP-NAME of the header.")] = "aitrail"
    message_bytes: Annotated[
        int,
        Meta(
            description="Bytes per message, at most. Receivers cut longer ones: rsyslog above maxMessageSize (8 kB "
            "unless set), syslog-ng above log-msg-size (64 kB).",
            ge=1_024,
        ),
    ] = 8_192
    oversize: Annotated[
        Oversize, Meta(description="An event above message_bytes: truncate its texts (marked), or reject it.")
    ] = "truncate"
    batch_events: Annotated[int, Meta(description="Events per connection or burst, at most.", ge=1, le=50_000)] = 1_000
    batch_bytes: Annotated[int, Meta(description="Bytes per connection or burst, at most.", ge=10_000)] = 4_000_000
    connections: Connections = 8
    send_seconds: SendSeconds = 30.0
    ca_file: CaFile = ""
    client_certificate: ClientCertificate = ""
    client_key: ClientKey = ""

    def endpoint(self, where: str) -> Endpoint:
        """Give the part that TLS needs."""
        return endpoint_of(self, where, self.send_seconds)
