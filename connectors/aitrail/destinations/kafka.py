"""Kafka as a destination: an idempotent producer whose delivery reports, and nothing else, are the verdicts.

"Delivered" means that the leader has written the event and all in-sync replicas have it (acks=all). Inside one
producer session Kafka suppresses repeats itself; after a restart, or when an answer was lost, the same event may lie
there twice, with the same ``event_id`` in body and header. When a send ends, nothing of it is left in a queue: what the
brokers have not confirmed by then is withdrawn and asked for again.

Key: ``tenant_id/user_id``, so that one person's events keep their order within a partition. Headers: ``event_id`` and
``schema_version``.
"""

import contextlib
import threading
import time
from collections.abc import Sequence
from functools import cache, lru_cache, partial
from hashlib import blake2b
from importlib import import_module
from typing import Any, Literal

import msgspec

from aitrail.destinations import _batching
from aitrail.destinations._batching import OVERSIZE_CODE
from aitrail.destinations._kafka_codes import RETRY, STOPPING, Rule, error_of, rule_of
from aitrail.destinations._kafka_settings import LONGEST_KEY, KafkaSettings
from aitrail.errors import AitrailError, ConfigError, TransientError
from aitrail.event import SCHEMA_VERSION
from aitrail.ports import DELIVERED, Ack, EncodedEvent, Limits, SecretResolver, Verdict

_POLL_SECONDS = 0.05
_TURN_SECONDS = 0.01
_CHECK_SECONDS = 5.0
_CHECK_STEP_SECONDS = 0.5
_PURGE_SECONDS = 2.0
_LONGEST_THROTTLE = 300.0
_NOT_AN_EVENT = Verdict("rejected", code="unencodable")
_TOO_LARGE = Verdict("rejected", code=OVERSIZE_CODE)
_LATER = Verdict("retry", code="unconfirmed")
_DONE = ""
# The library's names for "nobody is there".
_DOWN = frozenset({"_ALL_BROKERS_DOWN", "_RESOLVE", "_TRANSPORT"})
_SPENT = STOPPING | {"fatal"}

# Key, event id and body.
_Message = tuple[bytes, str, bytes]


class _Keyed(msgspec.Struct, gc=False):
    """The fields of the canonical bytes that choose the partition."""

    event_id: str
    tenant_id: str = ""
    user_id: str = ""


_keyed = msgspec.json.Decoder(_Keyed).decode
_SCHEMA_HEADER = ("schema_version", SCHEMA_VERSION.encode())


class _Trouble(msgspec.Struct):
    """What the client library reported beside delivery reports, since the last success."""

    name: str = ""
    rule: Rule = RETRY
    since: float = 0.0


class _Session(msgspec.Struct):
    """One producer. It is thrown away whenever its state is in doubt; the next send makes a new one."""

    producer: Any
    password: Any
    trouble: _Trouble
    turn: Any = msgspec.field(default_factory=threading.Lock)
    spent: bool = False


class KafkaDestination:
    """Produces events to one topic. Thread-safe; one producer, made at the first send.

    Args:
        settings: where and how.
        secrets: resolves the password when a producer is made, and once more when the broker refuses it.
        name: the destination's name in the outbox.
    """

    dedupe: Literal["by_id", "none"] = "none"

    def __init__(self, settings: KafkaSettings, secrets: SecretResolver | None = None, *, name: str = "kafka") -> None:
        self.name = name
        self._settings = settings
        self._secrets = secrets
        self._where = f"destinations.{name}"
        self._brokers = ",".join(settings.brokers)
        self._lock = threading.Lock()
        self._session: _Session | None = None
        self._lone: _Session | None = None
        self._throttled_until = 0.0
        self.limits = Limits(
            max_events=settings.batch_events, max_batch_bytes=settings.batch_bytes, max_event_bytes=settings.event_bytes
        )

    # --- sending

    def send(self, batch: Sequence[EncodedEvent], deadline: float) -> Ack:
        """Produce ``batch`` and wait for the delivery reports.

        Raises:
            ConfigError: a setting here or at the cluster is wrong (topic, TLS, mechanism); says which.
            AuthError: credentials or permissions are refused, also after the password was read anew.
            TransientError: no broker took anything in time; nothing was judged.
        """
        rest = self._throttled_until - time.monotonic()
        if rest > 0:
            raise TransientError(f"{self._brokers}: the quota is used up", retry_after=rest)
        until = min(deadline, time.monotonic() + self._settings.send_seconds)
        verdicts: list[Verdict | None] = [None] * len(batch)
        messages = self._messages(batch, verdicts)
        if not messages:
            return Ack([verdict or _LATER for verdict in verdicts])
        session = self._open(lone=False)
        names = self._run(session, messages, until)
        if session.trouble.rule.action == "auth" and _DONE not in names.values() and self._renew(session):
            session = self._open(lone=False)
            names = self._run(session, messages, until)
        if list(names.values()).count(_DONE) == len(batch):  # by far the usual case, and quick to see
            return Ack.all_delivered(len(batch))
        failed = {place: name for place, name in names.items() if name != _DONE}
        alone = {place: messages[place] for place, name in failed.items() if rule_of(name).action == "alone"}
        if alone:
            # Requests are refused as a whole: one event per request tells whose fault it is.
            failed |= self._run(self._open(lone=True), alone, until)
        for place in names:
            verdicts[place] = _verdict(failed[place]) if place in failed else DELIVERED
        if failed and all(verdict is not None and verdict.status == "retry" for verdict in verdicts):
            raise self._error(session.trouble, failed)
        return Ack([verdict or _LATER for verdict in verdicts])

    def confirm(self, token: str) -> Verdict:
        """Nothing is ever pending here."""
        del token
        return Verdict("retry", code="unknown_token")

    def close(self) -> None:
        """Let sends under way finish for ``close_seconds``, withdraw the rest, and give back connections."""
        with self._lock:
            sessions = [one for one in (self._session, self._lone) if one is not None]
            self._session = self._lone = None
        for session in sessions:
            with contextlib.suppress(_library().KafkaException):
                session.producer.flush(self._settings.close_seconds)
            _withdraw(session)

    def check(self) -> list[str]:
        """Say what is wrong: brokers, credentials, topic, permissions, and a topic that takes less than we send."""
        topic = self._settings.topic
        try:
            session = self._open(lone=False)
        except AitrailError as error:
            return [f"{error} {error.hint}".strip()]
        session.trouble = _Trouble()
        found, name = None, ""
        until = time.monotonic() + _CHECK_SECONDS
        while found is None and time.monotonic() < until and session.trouble.rule.action not in _SPENT:
            try:
                found = session.producer.list_topics(topic, timeout=_CHECK_STEP_SECONDS).topics.get(topic)
            except _library().KafkaException as error:
                name = error.args[0].name()
            _serve(session, 0)
        if found is None or session.trouble.rule.action in _SPENT:
            return [_sentence(self._error(session.trouble, {0: name}))]
        if found.error is not None:
            return [_sentence(self._error(_Trouble(), {0: found.error.name()}))]
        return self._check_size()

    def _check_size(self) -> list[str]:
        """Compare ``event_bytes`` with the topic's limit, as far as this user may read it."""
        _library()
        admin: Any = import_module("confluent_kafka.admin")
        topic = self._settings.topic
        try:
            client = admin.AdminClient(self._settings.client(self._where, self._secrets))
            asked = client.describe_configs([admin.ConfigResource(admin.ResourceType.TOPIC, topic)])
            limit = int(next(iter(asked.values())).result(_CHECK_SECONDS)["max.message.bytes"].value)
        except (_library().KafkaException, KeyError, ValueError, TypeError, TimeoutError, StopIteration):
            return []
        if limit >= self._settings.event_bytes:
            return []
        ours = f"{self._where}.event_bytes is {self._settings.event_bytes}"
        return [f"{ours}, but topic {topic} takes {limit} (max.message.bytes); lower the one or raise the other."]

    # --- one run

    def _messages(self, batch: Sequence[EncodedEvent], verdicts: list[Verdict | None]) -> dict[int, _Message]:
        """Give what is to be produced, by place in the batch; events that cannot be sent are judged."""
        limit = self._settings.event_bytes
        messages: dict[int, _Message] = {}
        for place, event in enumerate(batch):
            key = _key(event)
            if key is None:
                verdicts[place] = _NOT_AN_EVENT
                continue
            body = event.body
            if len(body) > limit:
                shorter = _batching.fit(event, limit, self._settings.oversize)
                if shorter is None:
                    verdicts[place] = _TOO_LARGE
                    continue
                body = shorter.body
            messages[place] = (key, event.event_id, body)
        return messages

    def _run(self, session: _Session, messages: dict[int, _Message], until: float) -> dict[int, str]:
        """Produce and wait; gives for every place "" (delivered) or the name of what went wrong."""
        names: dict[int, str] = {}
        session.trouble = _Trouble()
        producer, topic, failure = session.producer, self._settings.topic, _library().KafkaException
        produce = producer.produce
        for place, (key, event_id, body) in messages.items():
            headers = [("event_id", event_id), _SCHEMA_HEADER]
            while True:
                try:
                    produce(topic, body, key, headers=headers, on_delivery=partial(_report, names, place))
                except BufferError:
                    # Its queue is full: serve reports until there is room.
                    _serve(session, _POLL_SECONDS)
                    if not self._hopeless(session, names, until):
                        continue
                    names[place] = "_QUEUE_FULL"
                except failure as error:
                    names[place] = error.args[0].name()
                break
        while len(names) < len(messages) and not self._hopeless(session, names, until):
            _serve(session, min(_POLL_SECONDS, max(until - time.monotonic(), 0)), flush=True)
        if len(names) < len(messages):
            # Whatever is left would go out behind our back, after the outbox has been told to send it again.
            _withdraw(session)
        elif any(name != _DONE and rule_of(name).action in _SPENT for name in names.values()):
            # librdkafka remembers a topic that was forbidden or missing: only a new producer asks again.
            _withdraw(session)
        return names if len(names) == len(messages) else {one: names.get(one, "_UNCONFIRMED") for one in messages}

    def _hopeless(self, session: _Session, names: dict[int, str], until: float) -> bool:
        """Whether waiting longer is of no use: the time is over, or the library has said why nothing will come."""
        now = time.monotonic()
        if now >= until:
            return True
        trouble = session.trouble
        if not trouble.name or _DONE in names.values():
            return False
        if trouble.rule.action in _SPENT:
            return True
        return trouble.name in _DOWN and now - trouble.since > self._settings.down_seconds

    def _error(self, trouble: _Trouble, names: dict[int, str]) -> AitrailError:
        """Say why nothing of a batch was taken: what the library reported, else what most events came back with."""
        named = [trouble.name, *dict.fromkeys(names.values())]
        for name in named:
            rule = rule_of(name)
            if rule.action in STOPPING:
                return error_of(rule, name, self._brokers, self._settings.topic, self._where)
        reason = next((name for name in named if name and not name.startswith("_PURGE")), "_UNCONFIRMED")
        return TransientError(
            f"{self._brokers}: no broker confirmed anything in time ({reason})",
            hint="check that the brokers run, that their advertised addresses can be reached, and the in-sync replicas",
        )

    # --- sessions

    def _open(self, *, lone: bool) -> _Session:
        """Give the producer; make one when there is none or its state is in doubt."""
        with self._lock:
            session = self._lone if lone else self._session
            if session is not None and not session.spent:
                return session
            trouble = _Trouble()
            settings = self._settings.producer(self._where, self._secrets)
            session = _Session(None, settings.get("sasl.password", ""), trouble)
            settings |= {
                "error_cb": partial(_note, session),
                "throttle_cb": self._throttled,
                **({"batch.num.messages": 1, "linger.ms": 0} if lone else {}),
            }
            try:
                session.producer = _library().Producer(settings)
            except _library().KafkaException as error:
                raise ConfigError(
                    f"librdkafka refuses the settings: {error.args[0].str()}", where=self._where
                ) from None
            if lone:
                self._lone = session
            else:
                self._session = session
            return session

    def _renew(self, session: _Session) -> bool:
        """After a refusal: whether the password has changed since, so that another try makes sense."""
        if not self._settings.password or self._secrets is None:
            return False
        _withdraw(session)
        return bool(self._secrets.resolve(self._settings.password) != session.password)

    def _throttled(self, event: Any) -> None:
        """Keep to the quota that a broker reported; brokers since 2.0 hold the connection up themselves as well."""
        seconds = min(max(float(event.throttle_time), 0.0), _LONGEST_THROTTLE)
        self._throttled_until = max(self._throttled_until, time.monotonic() + seconds)


# --- callbacks and small parts


def _report(names: dict[int, str], place: int, error: Any, message: Any) -> None:
    """Take one delivery report."""
    del message
    names[place] = _DONE if error is None else error.name()


def _note(session: _Session, error: Any) -> None:
    """Take what the library says beside delivery reports; the first that a person must mend is kept."""
    name = error.name()
    rule = rule_of("_FATAL" if error.fatal() and rule_of(name).action not in STOPPING else name)
    known = session.trouble
    if not known.name or (known.rule.action == "retry" and (rule.action != "retry" or name in _DOWN)):
        since = known.since if known.name in _DOWN and name in _DOWN else time.monotonic()
        session.trouble = _Trouble(name, rule, since)
    if error.fatal():
        session.spent = True


def _withdraw(session: _Session) -> None:
    """Take back everything that is not confirmed, and serve its reports; the producer is not used again."""
    session.spent = True
    with contextlib.suppress(_library().KafkaException):
        session.producer.purge()
        session.producer.flush(_PURGE_SECONDS)


def _serve(session: _Session, seconds: float, *, flush: bool = False) -> None:
    """Serve reports for so long, of all sends that share the producer; threads take turns, or they would only fight.

    With ``flush`` half-full requests leave at once: librdkafka does not linger while somebody flushes. A fatal error
    of the producer, which is raised here, is noted.
    """
    if not session.turn.acquire(timeout=max(seconds, _TURN_SECONDS)):
        return
    try:
        (session.producer.flush if flush else session.producer.poll)(seconds)
    except _library().KafkaException as error:
        _note(session, error.args[0])
    finally:
        session.turn.release()


def _verdict(name: str) -> Verdict:
    if name == _DONE:
        return DELIVERED
    rule = rule_of(name)
    if rule.action in ("alone", "reject"):
        return Verdict("rejected", code=rule.code)
    return Verdict("retry", code=name.lower().strip("_"))


def _key(event: EncodedEvent) -> bytes | None:
    """Give the message key; None when the bytes are no event of this identity."""
    try:
        found = _keyed(event.body)
        if not event.body.isascii():
            event.body.decode()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return _joined(found.tenant_id, found.user_id) if found.event_id == event.event_id else None


@lru_cache(maxsize=16_384)
def _joined(tenant_id: str, user_id: str) -> bytes:
    key = f"{tenant_id}/{user_id}".encode()
    return key if len(key) <= LONGEST_KEY else blake2b(key, digest_size=16).hexdigest().encode()


def _sentence(error: AitrailError) -> str:
    return f"{error}: {error.hint}." if error.hint else f"{error}."


@cache
def _library() -> Any:
    try:
        return import_module("confluent_kafka")
    except ImportError:
        raise ConfigError(
            "the Kafka client is not installed", where="destinations", hint="pip install 'aitrail[kafka]'"
        ) from None
