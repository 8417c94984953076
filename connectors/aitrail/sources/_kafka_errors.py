"""What librdkafka's errors mean for a consumer, and which right or setting mends them."""

from typing import NamedTuple

from confluent_kafka import KafkaError

from aitrail.errors import AuthError, TransientError

# librdkafka numbers its own errors below zero; confluent-kafka spells them with an underscore.
# ruff: noqa: SLF001
AUTHENTICATION = frozenset({KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError.SASL_AUTHENTICATION_FAILED})
POISON = frozenset(
    {KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION, KafkaError.INVALID_MSG, KafkaError.INVALID_RECORD}
)
_TOPIC_RIGHTS = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED})
_GROUP_RIGHTS = frozenset({KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED})
_NO_TOPIC = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION})
# Which of them it is depends on how far librdkafka had got when the time was over.
_NOBODY = frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE, KafkaError._TIMED_OUT})


class Permissions(NamedTuple):
    """Whom to grant what: the consumer group, and whether the brokers are Event Hubs."""

    group: str
    event_hubs: bool


def explain(error: KafkaError, where: str, permissions: Permissions) -> AuthError | TransientError:
    """Turn an error into ours; ``where`` begins the message."""
    code, said = error.code(), f"{where}: {error.name()}"
    if code in AUTHENTICATION:
        hint = (
            "check the connection string (Shared access policies > Listen)"
            if permissions.event_hubs
            else "check user name, password, mechanism and certificates"
        )
        return AuthError(said, hint=hint)
    if code in _TOPIC_RIGHTS:
        hint = (
            "grant Listen on the event hub (Shared access policies), or the role Azure Event Hubs Data Receiver"
            if permissions.event_hubs
            else "grant READ and DESCRIBE on the topic: kafka-acls --add --operation Read --topic TOPIC"
        )
        return AuthError(said, hint=hint)
    if code in _GROUP_RIGHTS:
        hint = (
            "grant Listen on the event hub; the namespace's tier must be Standard or higher for Kafka"
            if permissions.event_hubs
            else f"grant READ on the group: kafka-acls --add --operation Read --group {permissions.group}"
        )
        return AuthError(said, hint=hint)
    if code in _NO_TOPIC:
        return TransientError(said, hint="create the topic, or correct the setting topics")
    if code in _NOBODY:
        ports = (
            "port 9093" if permissions.event_hubs else "that the brokers run and their advertised addresses are right"
        )
        return TransientError(
            said, hint=f"no broker answers: check names, {ports}, TLS, and that this network reaches them"
        )
    return TransientError(said, hint="nothing is lost; it is tried again")
