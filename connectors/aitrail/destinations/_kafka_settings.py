"""``[destinations.NAME]`` with ``type = "kafka"``: the settings of a Kafka destination, and what librdkafka is told."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from aitrail import __version__
from aitrail.destinations._settings import CaFile, ClientCertificate, ClientKey, OversizePolicy
from aitrail.errors import ConfigError
from aitrail.ports import SecretResolver

Security = Literal["tls", "plaintext", "sasl_tls", "sasl_plaintext"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
Compression = Literal["zstd", "lz4", "gzip", "snappy", "none"]

_PROTOCOLS: Mapping[Security, str] = {
    "tls": "ssl",
    "plaintext": "plaintext",
    "sasl_tls": "sasl_ssl",
    "sasl_plaintext": "sasl_plaintext",
}
# What a record adds to key and body: headers (names, schema version, event id) and the lengths of the record format.
RECORD_OVERHEAD = 512
LONGEST_KEY = 512
# Settings of librdkafka that the promise rests on; ``extra`` may not change them.
PROMISED: Mapping[str, Any] = {
    "enable.idempotence": True,
    "acks": "all",
    "enable.gapless.guarantee": False,
    "enable.ssl.certificate.verification": True,
    "ssl.endpoint.identification.algorithm": "https",
    "delivery.report.only.error": False,
}


class KafkaSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where and how events go to Kafka (or anything that speaks its protocol, such as Event Hubs)."""

    brokers: Annotated[tuple[str, ...], Meta(description="Bootstrap servers, host:port.")]
    topic: Annotated[str, Meta(description="Topic; it must exist.")] = "aitrail.events"
    security: Annotated[
        Security, Meta(description="tls, sasl_tls, or without encryption: plaintext, sasl_plaintext.")
    ] = "tls"
    mechanism: Annotated[Mechanism, Meta(description="SASL mechanism.")] = "SCRAM-SHA-512"
    username: Annotated[str, Meta(description="SASL user name; Event Hubs: $ConnectionString.")] = ""
    password: Annotated[str, Meta(description="Reference to the SASL password, e.g. env:KAFKA_PASSWORD.")] = ""
    ca_file: CaFile = ""
    client_certificate: ClientCertificate = ""
    client_key: ClientKey = ""
    compression: Annotated[Compression, Meta(description="Codec; zstd needs brokers of 2.1 or newer.")] = "zstd"
    batch_events: Annotated[int, Meta(description="Events per send, at most.", ge=1, le=50_000)] = 5_000
    batch_bytes: Annotated[int, Meta(description="Bytes per send, at most.", ge=10_000)] = 8_000_000
    event_bytes: Annotated[
        int, Meta(description="Bytes per event, at most; keep below the topic's max.message.bytes.", ge=4_096)
    ] = 900_000
    oversize: OversizePolicy = "truncate"
    send_seconds: Annotated[float, Meta(description="The longest that one send waits for the brokers.", gt=0)] = 30.0
    down_seconds: Annotated[
        float, Meta(description="End a send this long after no broker can be reached any more.", gt=0)
    ] = 1.5
    close_seconds: Annotated[float, Meta(description="The longest that a stop waits for sends under way.", ge=0)] = 5.0
    linger_ms: Annotated[
        int, Meta(description="Fill a request for so long while there is more to send, in milliseconds.", ge=0)
    ] = 50
    extra: Annotated[
        dict[str, str], Meta(description="Further librdkafka settings; those that the promise rests on are refused.")
    ] = {}

    def client(self, where: str, secrets: SecretResolver | None) -> dict[str, Any]:
        """Give librdkafka's configuration for connecting, without callbacks; secrets are read here, each time.

        Raises:
            ConfigError: a setting is missing or would break the promise.
        """
        if not self.brokers or not all(self.brokers):
            raise ConfigError(
                "no broker is named", where=f"{where}.brokers", hint='brokers = ["kafka.example.com:9093"]'
            )
        found: dict[str, Any] = {
            "bootstrap.servers": ",".join(self.brokers),
            "client.id": "aitrail",
            "client.software.name": "aitrail",
            "client.software.version": __version__,
            "security.protocol": _PROTOCOLS[self.security],
            "socket.keepalive.enable": True,
            "reconnect.backoff.max.ms": 1_000,
            # A broker's answer is small; anything longer is not a broker's.
            "receive.message.max.bytes": 8_000_000,
            "fetch.message.max.bytes": 1_000_000,
            "fetch.max.bytes": 1_000_000,
            "log_level": 0,
        }
        if self.security.endswith("tls"):
            found |= {
                key: value
                for key, value in (
                    ("ssl.ca.location", self.ca_file),
                    ("ssl.certificate.location", self.client_certificate),
                    ("ssl.key.location", self.client_key),
                )
                if value
            }
        if self.security.startswith("sasl"):
            if not self.username or not self.password or secrets is None:
                raise ConfigError(
                    f"security = {self.security} needs a user name and a password",
                    where=f"{where}.username",
                    hint='username = "...", password = "env:KAFKA_PASSWORD"',
                )
            found |= {
                "sasl.mechanism": self.mechanism,
                "sasl.username": self.username,
                "sasl.password": secrets.resolve(self.password),
            }
        return found

    def producer(self, where: str, secrets: SecretResolver | None) -> dict[str, Any]:
        """Give the producer's configuration, without callbacks.

        Raises:
            ConfigError: as ``client``.
        """
        taken = [key for key in self.extra if key in PROMISED or key.startswith(("sasl.", "bootstrap."))]
        if taken:
            raise ConfigError(
                f"{taken[0]} cannot be set here", where=f"{where}.extra", hint="aitrail sets it, see docs/destinations"
            )
        largest = self.event_bytes + LONGEST_KEY + RECORD_OVERHEAD
        return {
            "compression.type": self.compression,
            "linger.ms": self.linger_ms,
            # What Kafka's own clients use: the same key lands in the same partition as from a Java producer.
            "partitioner": "murmur2_random",
            "message.max.bytes": largest,
            "batch.size": min(largest, 1_000_000),
            "queue.buffering.max.messages": max(2 * self.batch_events, 1_000),
            "queue.buffering.max.kbytes": max(4 * max(self.batch_bytes, largest) // 1024, 1_024),
            "message.timeout.ms": max(int(self.send_seconds * 2_000), 2_000),
            "request.timeout.ms": max(int(self.send_seconds * 1_000), 1_000),
            # Longer than a new topic needs to be known everywhere, short enough to say in one send that there is none.
            "topic.metadata.propagation.max.ms": 5_000,
            **self.extra,
            **self.client(where, secrets),
            **PROMISED,
        }
