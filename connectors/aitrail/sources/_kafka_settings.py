"""What ``[sources.NAME]`` of type ``kafka`` may say, and what librdkafka is told."""

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta, Struct

from aitrail.destinations._kafka_settings import KafkaSettings, Mechanism, Security
from aitrail.errors import ConfigError
from aitrail.ports import SecretResolver
from aitrail.sources._azure_start import START_HELP, check_start

# Settings of librdkafka that the promise rests on; ``extra`` may not change them.
PROMISED: Mapping[str, Any] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    # Never silently to one end: without a committed offset, and behind the oldest one, this source decides and says so.
    "auto.offset.reset": "error",
    "enable.partition.eof": True,
    "isolation.level": "read_committed",
    "enable.ssl.certificate.verification": True,
    "ssl.endpoint.identification.algorithm": "https",
    # Eager: at a rebalance everything is given up and taken anew, so that no partition has two owners.
    "partition.assignment.strategy": "range,roundrobin",
}


class KafkaSourceSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which topics are read from where, and as which consumer group."""

    brokers: Annotated[tuple[str, ...], Meta(description="Bootstrap servers, host:port.")]
    topics: Annotated[tuple[str, ...], Meta(description="Topics; they must exist.")]
    group: Annotated[
        str, Meta(description="Consumer group; collectors of one group share the partitions.", min_length=1)
    ] = "aitrail"
    start: Annotated[str, Meta(description=START_HELP)] = "earliest"
    security: Annotated[
        Security, Meta(description="tls, sasl_tls, or without encryption: plaintext, sasl_plaintext.")
    ] = "tls"
    mechanism: Annotated[Mechanism, Meta(description="SASL mechanism; Event Hubs: PLAIN.")] = "SCRAM-SHA-512"
    username: Annotated[str, Meta(description="SASL user name; Event Hubs: $ConnectionString.")] = ""
    password: Annotated[str, Meta(description="Reference to the SASL password, e.g. env:KAFKA_PASSWORD.")] = ""
    ca_file: Annotated[str, Meta(description="PEM file of the authorities to trust; empty: the system's.")] = ""
    client_certificate: Annotated[str, Meta(description="PEM file of a client certificate, for mutual TLS.")] = ""
    client_key: Annotated[str, Meta(description="PEM file of its key.")] = ""
    idle_seconds: Annotated[
        float, Meta(description="A look ends when this long nothing came and no partition is known to have more.", gt=0)
    ] = 2.0
    join_seconds: Annotated[float, Meta(description="The longest that a look waits to be given partitions.", gt=0)] = (
        30.0
    )
    down_seconds: Annotated[
        float, Meta(description="A look ends with an error this long after no broker can be reached.", gt=0)
    ] = 15.0
    poll_seconds: Annotated[
        int,
        Meta(description="A collector that does not look for this long loses its partitions to others.", ge=10),
    ] = 600
    message_bytes: Annotated[int, Meta(description="The largest message.", ge=10_000)] = 16_000_000
    extra: Annotated[
        dict[str, str], Meta(description="Further librdkafka settings; those that the promise rests on are refused.")
    ] = {}

    def __post_init__(self) -> None:
        check_start(self.start)
        if not self.topics or not all(self.topics):
            raise ValueError('topics is empty: name some, e.g. ["insights-logs"]')
        if any(topic.startswith("^") for topic in self.topics):
            raise ValueError("topics are names, not patterns")

    def consumer(self, where: str, secrets: SecretResolver) -> dict[str, Any]:
        """Give the consumer's configuration, without callbacks; secrets are read here, each time.

        Raises:
            ConfigError: a setting is missing or would break the promise.
        """
        taken = [key for key in self.extra if key in PROMISED or key.startswith(("sasl.", "bootstrap.", "group.id"))]
        if taken:
            raise ConfigError(
                f"{taken[0]} cannot be set here",
                where=f"{where}.extra",
                hint="aitrail sets it, see docs/sources/kafka.md",
            )
        connecting = KafkaSettings(
            brokers=self.brokers,
            security=self.security,
            mechanism=self.mechanism,
            username=self.username,
            password=self.password,
            ca_file=self.ca_file,
            client_certificate=self.client_certificate,
            client_key=self.client_key,
        ).client(where, secrets)
        largest = self.message_bytes
        return {
            **connecting,
            "group.id": self.group,
            "max.poll.interval.ms": self.poll_seconds * 1_000,
            "session.timeout.ms": min(45_000, self.poll_seconds * 1_000),
            "fetch.message.max.bytes": min(largest, 1_000_000),
            "fetch.max.bytes": max(largest, 8_000_000),
            # Not below librdkafka's own: a broker that gives more than was asked for would never be heard.
            "receive.message.max.bytes": max(100_000_000, 4 * largest),
            # What librdkafka reads ahead while nobody looks: memory, and work for others after a rebalance.
            "queued.max.messages.kbytes": max(16_384, largest // 1_000),
            **self.extra,
            **PROMISED,
        }
