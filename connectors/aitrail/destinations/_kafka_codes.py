"""What each error of a Kafka broker or of librdkafka means for the flow: one table for every failed event.

Names are librdkafka's (``KafkaError.name()``); an underscore in front marks its local ones. What the broker's errors
mean is from the protocol guide of Apache Kafka ("Error codes"). What is not in the table is asked for again: nothing is
ever dropped because its error is new.
"""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from aitrail.errors import AitrailError, AuthError, ConfigError

# reject: this event, for good. alone: the request it was in was refused as a whole; sent by itself it shows whose fault
# that is. auth, config: a person has to change something. fatal: the producer is spent. retry: later.
Action = Literal["reject", "alone", "auth", "config", "fatal", "retry"]


class Rule(Struct, frozen=True):
    """What to do, the reason code of a rejected event, and for people: what is wrong and where to mend it."""

    action: Action
    code: str = ""
    text: str = ""
    hint: str = ""


RETRY = Rule("retry")
_SASL = "check username, password and mechanism"
_ACL = "grant WRITE and DESCRIBE on the topic to this user"

RULES: Mapping[str, Rule] = {
    # A batch above max.message.bytes is refused as a whole, also when each event would fit (KIP-126, KIP-467).
    "MSG_SIZE_TOO_LARGE": Rule("alone", "event_too_large"),
    "RECORD_LIST_TOO_LARGE": Rule("alone", "event_too_large"),
    "INVALID_RECORD": Rule("alone", "invalid_record"),
    "INVALID_TIMESTAMP": Rule("alone", "invalid_timestamp"),
    "SASL_AUTHENTICATION_FAILED": Rule("auth", text="the broker refuses the credentials", hint=_SASL),
    "_AUTHENTICATION": Rule("auth", text="the broker refuses the credentials", hint=_SASL),
    "UNSUPPORTED_SASL_MECHANISM": Rule("config", text="the broker does not offer this SASL mechanism", hint=_SASL),
    "ILLEGAL_SASL_STATE": Rule("config", text="the broker expects no SASL here", hint="check security"),
    "TOPIC_AUTHORIZATION_FAILED": Rule("auth", text="this user may not write to the topic", hint=_ACL),
    "CLUSTER_AUTHORIZATION_FAILED": Rule(
        "auth",
        text="this user may not write idempotently",
        hint="grant IDEMPOTENT_WRITE on the cluster (brokers before 2.8), or WRITE on the topic",
    ),
    "UNKNOWN_TOPIC_OR_PART": Rule("config", text="the topic does not exist", hint="create it, or correct topic"),
    "_UNKNOWN_TOPIC": Rule("config", text="the topic does not exist", hint="create it, or correct topic"),
    "TOPIC_EXCEPTION": Rule("config", text="the topic's name is not valid", hint="correct topic"),
    "POLICY_VIOLATION": Rule("config", text="a policy of the cluster forbids this", hint="ask its administrator"),
    "INVALID_REQUIRED_ACKS": Rule("config", text="the broker refuses acks=all", hint="check the topic's settings"),
    "UNSUPPORTED_FOR_MESSAGE_FORMAT": Rule(
        "config", text="the topic's message format is too old", hint="brokers of 0.11 or newer are needed"
    ),
    "_UNSUPPORTED_FEATURE": Rule("config", text="the broker is too old", hint="0.11 or newer; zstd: 2.1 or newer"),
    "UNSUPPORTED_COMPRESSION_TYPE": Rule("config", text="the broker refuses this codec", hint="set compression = lz4"),
    "_SSL": Rule(
        "config",
        text="the TLS connection is refused",
        hint="check ca_file, the broker's certificate and the host name in it, and that the port speaks TLS",
    ),
    "_FATAL": Rule("fatal"),
    "_FENCED": Rule("fatal"),
    "OUT_OF_ORDER_SEQUENCE_NUMBER": Rule("fatal"),
    "INVALID_PRODUCER_EPOCH": Rule("fatal"),
    "UNKNOWN_PRODUCER_ID": Rule("fatal"),
}

STOPPING = frozenset({"auth", "config"})


def rule_of(name: str) -> Rule:
    """The rule of an error; unknown ones are asked for again."""
    return RULES.get(name, RETRY)


def error_of(rule: Rule, name: str, brokers: str, topic: str, where: str) -> AitrailError:
    """Make the error that a stopping rule means."""
    message = f"{brokers}: {rule.text} (topic {topic}, {name})"
    if rule.action == "auth":
        return AuthError(f"{where}: {message}", hint=rule.hint)
    return ConfigError(message, where=where, hint=rule.hint)
