"""``[destinations.NAME]`` with ``type = "elastic"``: the settings of an Elasticsearch destination."""

import re
from typing import Annotated

from msgspec import Meta, Struct

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
from aitrail.destinations.elastic_documents import DataStream
from aitrail.errors import ConfigError
from aitrail.net.http import Endpoint
from aitrail.streams import Stream

# Elastic, "Data stream naming scheme": no dash inside a part, lower case, none of \/*?"<>| ,#: - narrowed to what is
# safe in a URL, too.
_PART = re.compile(r"[a-z0-9][a-z0-9_.]{0,99}")


class ElasticSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where and how events go to Elasticsearch: one data stream for each kind of events."""

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
    stream: Annotated[Stream, Meta(description="The kind of events that is sent.")] = "access"
    datasets: Annotated[
        dict[Stream, str],
        Meta(
            description='Middle part of data streams, e.g. `{ finding = "ai_audit.finding" }`; usual: ai_audit.access, '
            "ai_audit.finding, ai_audit.health, ai_audit.checkpoint."
        ),
    ] = {}
    retention: Annotated[
        str, Meta(description="How long `aitrail elastic install` has events kept, e.g. 365d; empty: always.")
    ] = ""
    batch_events: Annotated[int, Meta(description="Events per request, at most.", ge=1, le=20_000)] = 2_000
    batch_bytes: Annotated[int, Meta(description="Bytes per request before gzip, at most.", ge=10_000)] = 8_000_000
    event_bytes: EventBytes = 1_000_000
    oversize: OversizePolicy = "truncate"
    request_seconds: RequestSeconds = 60.0
    ca_file: CaFile = ""
    client_certificate: ClientCertificate = ""
    client_key: ClientKey = ""
    proxy: Proxy = ""
    plain_http: PlainHttp = False

    def endpoint(self, where: str) -> Endpoint:
        """Give the part that the HTTP sender needs."""
        return endpoint_of(self, where, self.request_seconds)

    def data_stream(self, where: str) -> DataStream:
        """Give the data stream; raises ``ConfigError`` when a part cannot be part of its name."""
        dataset = self.dataset(self.stream)
        for name, text in (("namespace", self.namespace), ("datasets", dataset)):
            if not _PART.fullmatch(text):
                raise ConfigError(
                    f"{text!r} cannot be part of a data stream's name",
                    where=f"{where}.{name}",
                    hint="lower-case letters, digits, '_' and '.', at most 100, no dash",
                )
        return DataStream(dataset=dataset, namespace=self.namespace)

    def dataset(self, stream: Stream) -> str:
        """The middle part of the data stream of one kind of events."""
        return self.datasets.get(stream) or f"ai_audit.{stream}"
