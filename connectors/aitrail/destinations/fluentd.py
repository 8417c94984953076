"""Fluentd and Fluent Bit as a destination: the forward protocol with chunks that are acknowledged.

"Delivered" means that the receiver has acknowledged the chunk under its id: Fluentd does that once the chunk is in its
buffer (a file buffer survives a restart, a memory buffer does not). Without the ack the whole chunk is sent again,
under the same event ids. Chunks have no partial answers.
"""

import time
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from aitrail.destinations import _batching, _forward
from aitrail.destinations._batching import OVERSIZE_CODE
from aitrail.destinations._fluentd_settings import FluentdSettings
from aitrail.destinations._forward import Greeting, Login
from aitrail.destinations._raw_fields import UNENCODABLE_CODE
from aitrail.destinations._stream import Stream, Streams, is_loopback
from aitrail.destinations._work import judged_apart
from aitrail.errors import AitrailError, AuthError, ConfigError, TransientError
from aitrail.event import decode
from aitrail.net.http import tls_context
from aitrail.ports import Ack, EncodedEvent, Limits, SecretResolver, Verdict
from aitrail.schema.ocsf import epoch_ms
from aitrail.streams import decoded

_CHECK_SECONDS = 10.0
_HELO_SECONDS = 5.0
_LAST_SECOND = 2**32
_TOO_LARGE = Verdict("rejected", code=OVERSIZE_CODE)
_NOT_AN_EVENT = Verdict("rejected", code=UNENCODABLE_CODE)


class FluentdDestination:
    """Sends events to one forward input, over connections that stay open. Thread-safe; one thread needs one connection.

    Args:
        settings: where and how.
        secrets: resolves shared key and password when a connection is made, and once more when they are refused.
        name: the destination's name in the outbox.

    Raises:
        ConfigError: the settings would send events in the clear to another machine without saying so.
    """

    dedupe: Literal["by_id", "none"] = "none"

    def __init__(
        self, settings: FluentdSettings, secrets: SecretResolver | None = None, *, name: str = "fluentd"
    ) -> None:
        self.name = name
        self._settings = settings
        self._secrets = secrets
        self._where = f"destinations.{name}"
        self._endpoint = settings.endpoint(self._where)
        self._origin = f"{settings.host}:{settings.port}"
        self._streams = Streams(settings.connections, self._renewed)
        self._login: Login | None = None
        self._check_settings()
        self.limits = Limits(
            max_events=settings.batch_events,
            max_batch_bytes=settings.batch_bytes,
            max_event_bytes=min(settings.event_bytes, settings.batch_bytes),
        )

    def send(self, batch: Sequence[EncodedEvent], deadline: float) -> Ack:
        """Send ``batch`` as one chunk and wait for its ack.

        Raises:
            ConfigError: certificate, TLS, or a shared key that one side wants and the other does not have.
            AuthError: the receiver refuses key or user, also after they were read anew.
            TransientError: the chunk was not acknowledged; it has to be sent again.
        """
        until = min(deadline, time.monotonic() + self._settings.send_seconds)
        verdicts, entries = judged_apart(batch, self._entry)
        if entries:
            message, name = _forward.chunk(self._settings.full_tag, entries, compress=self._settings.gzip)
            self._deliver(message, name, until)
        return Ack(verdicts)

    def confirm(self, token: str) -> Verdict:
        """Nothing is ever pending here."""
        del token
        return Verdict("retry", code="unknown_token")

    def close(self) -> None:
        """Give back the connections."""
        self._streams.close()

    def check(self) -> list[str]:
        """Say what is wrong: name, connection, certificate, shared key, user."""
        until = time.monotonic() + _CHECK_SECONDS
        try:
            self._connect(until).close()
        except AitrailError as error:
            return [f"{error}: {error.hint}." if error.hint else f"{error}."]
        return []

    # --- chunks

    def _entry(self, event: EncodedEvent) -> bytes | Verdict:
        """Give one entry, or the verdict why there is none."""
        if len(event.body) > self._settings.event_bytes:
            shorter = _batching.fit(event, self._settings.event_bytes, self._settings.oversize)
            if shorter is None:
                return _TOO_LARGE
            event = shorter
        try:
            record = decode(event.body) if self._settings.stream == "access" else decoded(event)
            if record.event_id != event.event_id:
                return _NOT_AN_EVENT
            return _forward.entry(min(max(epoch_ms(record.timestamp), 0), _LAST_SECOND * 1_000 - 1), record)
        except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
            return _NOT_AN_EVENT

    def _deliver(self, message: bytes, name: str, until: float) -> None:
        # A connection whose chunk was not acknowledged is not used again: a late ack must not meet the next chunk.
        with self._streams.use(until) as lease:
            lease.stream.send(message, until)
            answer = self._receive(lease.stream, until)
            lease.keep = isinstance(answer, dict) and answer.get("ack") == name
        if not lease.keep:
            if _forward.read_helo(answer) is not None:
                raise self._wants_key()
            raise TransientError(
                f"{self._origin}: the receiver acknowledged something else", hint="check host and port"
            )

    def _receive(self, stream: Stream, until: float) -> Any:
        """Wait for one whole answer."""
        data = b""
        while True:
            part = stream.receive(until)
            if not part:
                stream.abort()
                raise TransientError(f"{self._origin}: the receiver closed without an answer", hint="see its log")
            data += part
            try:
                answer = _forward.read_answer(data)
            except ValueError:
                stream.abort()
                raise TransientError(
                    f"{self._origin}: the answer is not of the forward protocol", hint="check host and port"
                ) from None
            if answer is not None:
                return answer

    # --- connections

    def _renewed(self, until: float) -> Stream:
        """Connect; once more when the receiver refuses a key or password that has changed since it was read."""
        try:
            return self._connect(until)
        except AuthError:
            before = self._login
            if before is None or self._credentials() == before:
                raise
            return self._connect(until)

    def _connect(self, until: float) -> Stream:
        tls = tls_context(self._endpoint) if self._settings.tls else None
        stream = Stream.connect(self._settings.host, self._settings.port, self._endpoint, until, tls=tls)
        if not self._settings.shared_key:
            return stream
        try:
            self._login = self._credentials()
            greeting = self._greeting(stream, min(until, time.monotonic() + _HELO_SECONDS))
            salt = _forward.new_salt()
            stream.send(_forward.ping(greeting, self._login, salt), until)
            _forward.check_pong(self._receive(stream, until), greeting, self._login, salt, self._origin)
        except BaseException:
            stream.abort()
            raise
        return stream

    def _greeting(self, stream: Stream, until: float) -> Greeting:
        try:
            greeting = _forward.read_helo(self._receive(stream, until))
        except TransientError as error:
            raise TransientError(
                f"{error} (no HELO)", hint="if the receiver has no <security> section, leave shared_key empty"
            ) from None
        if greeting is None:
            raise TransientError(f"{self._origin}: the greeting is none", hint="check host and port")
        if greeting.auth and not self._settings.username:
            raise ConfigError(
                "the receiver wants a user name and a password", where=self._where, hint="set username and password"
            )
        return greeting

    def _credentials(self) -> Login:
        settings, secrets = self._settings, self._secrets
        assert secrets is not None
        return Login(
            hostname=settings.hostname,
            shared_key=secrets.resolve(settings.shared_key),
            username=settings.username,
            password=secrets.resolve(settings.password) if settings.password else "",
        )

    def _wants_key(self) -> ConfigError:
        return ConfigError(
            f"{self._origin} wants a shared key", where=f"{self._where}.shared_key", hint='shared_key = "env:NAME"'
        )

    def _check_settings(self) -> None:
        settings = self._settings
        if settings.shared_key and self._secrets is None:
            raise ConfigError("a shared key needs something that resolves it", where=f"{self._where}.shared_key")
        if not settings.tls and not settings.cleartext and not is_loopback(settings.host):
            raise ConfigError(
                f"forwarding to {settings.host} without TLS would send events in the clear",
                where=self._where,
                hint="set tls = true, or cleartext = true for a receiver that you trust the way to",
            )
