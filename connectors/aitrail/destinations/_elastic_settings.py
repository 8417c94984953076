"""``[destinations.NAME]`` with ``type = "elastic"``: the settings of an Elasticsearch destination."""

import re
from typing import Annotated

from msgspec import Meta, Struct

from aitrail.destinations._batching import Oversize
from aitrail.destinations._http import Endpoint
from aitrail.destinations.elastic_documents import DataStream
from aitrail.errors import ConfigError

# Elastic, "Data stream naming scheme": no dash inside a part, lower case, none of \/*?"<>| ,#: - narrowed to what is
# safe in a URL, too.
_NAMESPACE = re.compile(r"[a-z0-9][a-z0-9_.]{0,99}")


class ElasticSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where and how events go to Elasticsearch. One data stream per destination."""

    urls: Annotated[
        tuple[str, ...],
        Meta(description="Elasticsearch nodes, https://host:9200; one that fails rests, the others go on."),
    ]
    api_key: Annotated[
        str, Meta(description="Reference to an API key in its encoded form, e.g. env:ELASTIC_API_KEY.")
    ] = ""
    username: Annotated[str, Meta(description="User, when there is no API key.")] = ""
    password: Annotated[str, Meta(description="Reference to that user's password.")] = ""
    namespace: Annotated[str, Meta(description="Last part of the data stream logs-ai_audit.access-NAMESPACE.")] = (
        "default"
    )
    retention: Annotated[
        str, Meta(description="How long `aitrail elastic install` has events kept, e.g. 365d; empty: always.")
    ] = ""
    batch_events: Annotated[int, Meta(description="Events per request, at most.", ge=1, le=20_000)] = 2_000
    batch_bytes: Annotated[int, Meta(description="Bytes per request before gzip, at most.", ge=10_000)] = 8_000_000
    event_bytes: Annotated[int, Meta(description="Bytes per event, at most.", ge=4_096)] = 1_000_000
    oversize: Annotated[
        Oversize, Meta(description="An event above event_bytes: truncate its texts (marked), or reject it.")
    ] = "truncate"
    request_seconds: Annotated[float, Meta(description="The longest that one request may take.", gt=0)] = 60.0
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

    def stream(self, where: str) -> DataStream:
        """Give the data stream; raises ``ConfigError`` when the namespace cannot be part of its name."""
        if not _NAMESPACE.fullmatch(self.namespace):
            raise ConfigError(
                f"{self.namespace!r} cannot be part of a data stream's name",
                where=f"{where}.namespace",
                hint="lower-case letters, digits, '_' and '.', at most 100, no dash",
            )
        return DataStream(namespace=self.namespace)
