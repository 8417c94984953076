"""Settings that several types of destinations have: each is described here, once, and named in their Structs."""

from typing import Annotated, Any

from msgspec import Meta
from msgspec.structs import fields

from aitrail.destinations._batching import Oversize
from aitrail.net.http import Endpoint

CaFile = Annotated[str, Meta(description="PEM file of the authorities to trust; empty: the system's.")]
ClientCertificate = Annotated[str, Meta(description="PEM file of a client certificate, for mutual TLS.")]
ClientKey = Annotated[str, Meta(description="PEM file of its key.")]
Proxy = Annotated[
    str, Meta(description="Proxy URL; empty: HTTPS_PROXY and NO_PROXY of the environment; none: no proxy.")
]
PlainHttp = Annotated[bool, Meta(description="Allow http:// to other machines: everything is readable.")]
RequestSeconds = Annotated[float, Meta(description="The longest that one request may take.", gt=0)]
SendSeconds = Annotated[float, Meta(description="The longest that one send may take.", gt=0)]
Connections = Annotated[
    int, Meta(description="Connections at the same time, at most, when several threads send.", ge=1, le=64)
]
EventBytes = Annotated[int, Meta(description="Bytes per event, at most.", ge=4_096)]
OversizePolicy = Annotated[
    Oversize, Meta(description="An event above event_bytes: truncate its texts (marked), or reject it.")
]

_SHARED = ("ca_file", "client_certificate", "client_key", "proxy", "plain_http")


def endpoint_of(settings: Any, where: str, seconds: float) -> Endpoint:
    """Give what the HTTP sender and TLS need of a destination's settings; those that it does not have are as usual.

    Args:
        settings: the Struct of a destination.
        where: its section, for errors.
        seconds: the longest that one request or connection may take.
    """
    own = {field.name for field in fields(settings)}
    return Endpoint(where=where, seconds=seconds, **{name: getattr(settings, name) for name in _SHARED if name in own})
