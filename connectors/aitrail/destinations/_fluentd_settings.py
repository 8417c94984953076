"""``[destinations.NAME]`` with ``type = "fluentd"``: the settings of a Fluentd or Fluent Bit destination."""

import socket
from typing import Annotated

from msgspec import Meta, Struct, field

from aitrail.destinations._settings import (
    CaFile,
    ClientCertificate,
    ClientKey,
    Connections,
    EventBytes,
    OversizePolicy,
    endpoint_of,
)
from aitrail.net.http import Endpoint
from aitrail.streams import Stream


class FluentdSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where and how events go to a receiver of the forward protocol (version 1)."""

    host: Annotated[str, Meta(description="Host of the receiver; with TLS the name in its certificate.")]
    port: Annotated[int, Meta(description="Port of its forward input.", ge=1, le=65_535)] = 24_224
    tag: Annotated[str, Meta(description="Tag of the events; findings have TAG.finding, health events TAG.health.")] = (
        "aitrail.events"
    )
    stream: Annotated[Stream, Meta(description="The kind of events that is sent.")] = "access"
    tls: Annotated[bool, Meta(description="Speak TLS.")] = True
    cleartext: Annotated[
        bool, Meta(description="Allow connections without TLS to other machines: everything is readable.")
    ] = False
    shared_key: Annotated[
        str,
        Meta(description="Reference to the shared key, e.g. env:FLUENT_SHARED_KEY; empty: the receiver wants none."),
    ] = ""
    username: Annotated[str, Meta(description="User name, where the receiver wants one.")] = ""
    password: Annotated[str, Meta(description="Reference to its password.")] = ""
    hostname: Annotated[str, Meta(description="Our name in the handshake; default: this machine's.")] = field(
        default_factory=socket.gethostname
    )
    gzip: Annotated[bool, Meta(description="Compress chunks (Fluentd 0.14.7 or newer, Fluent Bit).")] = True
    batch_events: Annotated[int, Meta(description="Events per chunk, at most.", ge=1, le=50_000)] = 1_000
    batch_bytes: Annotated[
        int, Meta(description="Bytes per chunk before gzip, at most; below the receiver's chunk_limit_size.", ge=10_000)
    ] = 4_000_000
    event_bytes: EventBytes = 900_000
    oversize: OversizePolicy = "truncate"
    connections: Connections = 8
    send_seconds: Annotated[float, Meta(description="The longest that one chunk may wait for its ack.", gt=0)] = 30.0
    ca_file: CaFile = ""
    client_certificate: ClientCertificate = ""
    client_key: ClientKey = ""

    @property
    def full_tag(self) -> str:
        """The tag of what is sent: receivers route by it."""
        return self.tag if self.stream == "access" else f"{self.tag}.{self.stream}"

    def endpoint(self, where: str) -> Endpoint:
        """Give the part that TLS needs."""
        return endpoint_of(self, where, self.send_seconds)
