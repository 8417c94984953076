"""Syslog as a destination: RFC 5424 messages over TLS, TCP or UDP, with JSON, CEF or LEEF text.

Syslog has no acknowledgement, so what "delivered" means depends on ``confirm``, and none of it means "stored":

* ``close`` over TLS (the default): the receiving process has read every byte and answered our close_notify with its
  own, as RFC 5425 (4.4) demands of it. A receiver that is killed meanwhile cannot, and the batch is sent again.
* ``close`` over TCP: the receiver has closed in good order behind our last byte. Its kernel does so for a process that
  died after reading, too: what that had in memory is lost.
* ``drain``: the receiver's kernel has acknowledged every byte and the connection was open a moment later. What the
  kernel had not handed to the process when it died is lost.
* UDP: the message was handed to the network. What is lost there is lost.

There are no partial answers: a batch arrives, or all of it is sent again under the same event ids.
"""

import re
import socket
import ssl
import time
from collections.abc import Sequence
from typing import Literal

import msgspec

from aitrail import __version__
from aitrail.destinations import _batching
from aitrail.destinations._batching import OVERSIZE_CODE
from aitrail.destinations._raw_fields import UNENCODABLE_CODE, Unencodable
from aitrail.destinations._stream import Stream, Streams, addresses_of, explain, is_loopback
from aitrail.destinations._syslog_settings import SyslogSettings
from aitrail.destinations._work import judged_apart
from aitrail.destinations.cef import RENDERERS
from aitrail.errors import AitrailError, ConfigError
from aitrail.event import AccessEvent, decode
from aitrail.net.http import tls_context
from aitrail.ports import Ack, EncodedEvent, Limits, Verdict

MSGID = "AIAUDIT"
LARGEST_DATAGRAM = 65_507
_CHECK_SECONDS = 10.0
_TRIES = 6
_LEAST_SECONDS = 0.001
_TOO_LARGE = Verdict("rejected", code=OVERSIZE_CODE)
_NOT_AN_EVENT = Verdict("rejected", code=UNENCODABLE_CODE)
# Risk score from -> syslog severity (RFC 5424, table 2): critical, error, warning, notice; informational below.
_SEVERITIES = ((90, 2), (70, 3), (40, 4), (20, 5))
_INFORMATIONAL = 6
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)
_NOT_PRINTABLE = re.compile(r"[^\x21-\x7e]")


class SyslogDestination:
    """Sends events to one syslog receiver. Thread-safe.

    Args:
        settings: where and how.
        name: the destination's name in the outbox.

    Raises:
        ConfigError: the settings would send events in the clear to another machine without saying so.
    """

    dedupe: Literal["by_id", "none"] = "none"

    def __init__(self, settings: SyslogSettings, *, name: str = "syslog") -> None:
        self.name = name
        self._settings = settings
        self._where = f"destinations.{name}"
        self._endpoint = settings.endpoint(self._where)
        self._origin = f"{settings.host}:{settings.port}"
        self._render = RENDERERS[settings.format]
        self._limit = min(settings.message_bytes, LARGEST_DATAGRAM) if self._udp else settings.message_bytes
        self._tail = self._header_tail()
        self._streams = Streams(settings.connections, self._connect)
        self._tls: ssl.SSLContext | None = None
        self._refuse_cleartext()
        self.limits = Limits(
            max_events=settings.batch_events,
            max_batch_bytes=settings.batch_bytes,
            max_event_bytes=min(self._limit, settings.batch_bytes),
        )

    @property
    def _udp(self) -> bool:
        return self._settings.transport == "udp"

    def send(self, batch: Sequence[EncodedEvent], deadline: float) -> Ack:
        """Send ``batch`` and wait for what ``confirm`` counts as delivered.

        Raises:
            ConfigError: the certificate is refused, the port speaks no TLS, or an address is off limits.
            TransientError: the batch was not confirmed; it has to be sent again as a whole.
        """
        until = min(deadline, time.monotonic() + self._settings.send_seconds)
        verdicts, messages = judged_apart(batch, self._message)
        if messages:
            if self._udp:
                self._send_datagrams(messages, until)
            else:
                self._send_stream(messages, until)
        return Ack(verdicts)

    def confirm(self, token: str) -> Verdict:
        """Nothing is ever pending here."""
        del token
        return Verdict("retry", code="unknown_token")

    def close(self) -> None:
        """Give back the connections."""
        self._streams.close()

    def check(self) -> list[str]:
        """Say what is wrong: name, connection, certificate. Whether messages are kept cannot be asked for."""
        until = time.monotonic() + _CHECK_SECONDS
        try:
            if self._udp:
                addresses_of(self._settings.host, self._settings.port, self._where)
            else:
                self._connect(until).finish(until)
        except AitrailError as error:
            return [f"{error}: {error.hint}." if error.hint else f"{error}."]
        return []

    # --- messages

    def _message(self, event: EncodedEvent) -> bytes | Verdict:
        """Give the whole message, cut short where the policy allows it, or the verdict why there is none."""
        try:
            message = self._format(event)
            for _ in range(_TRIES):
                if len(message) <= self._limit:
                    return message
                if self._settings.oversize == "reject":
                    break
                # Text grows by different escapes in each format: cut by the share that is too much, and look again.
                target = len(event.body) * self._limit // len(message) - 64
                shorter = _batching.fit(event, target, "truncate") if target > 0 else None
                if shorter is None:
                    break
                event, message = shorter, self._format(shorter)
        except Unencodable:
            return _NOT_AN_EVENT
        return message if len(message) <= self._limit else _TOO_LARGE

    def _format(self, event: EncodedEvent) -> bytes:
        decoded = _decoded(event)
        timestamp = event.timestamp if _TIME.fullmatch(event.timestamp) else "-"
        head = _priority(self._settings.facility, decoded) + timestamp.encode()
        return head + self._tail + self._render(decoded, event.body)

    def _header_tail(self) -> bytes:
        """What stands between the time and the text; ``origin`` is a registered structured-data element."""
        host = _NOT_PRINTABLE.sub("", self._settings.hostname)[:255] or "-"
        app = _NOT_PRINTABLE.sub("", self._settings.app_name)[:48] or "-"
        return f' {host} {app} - {MSGID} [origin software="aitrail" swVersion="{__version__}"] '.encode()

    # --- ways

    def _send_stream(self, messages: Sequence[bytes], until: float) -> None:
        if self._settings.framing == "octets":
            data = b"".join([b"%d %b" % (len(message), message) for message in messages])
        else:
            data = b"".join([message + b"\n" for message in messages])
        with self._streams.use(until) as lease:
            lease.stream.send(data, until)
            if self._settings.confirm == "drain":
                lease.stream.drain(until)
                lease.keep = True
            else:
                lease.stream.finish(until)

    def _connect(self, until: float) -> Stream:
        if self._settings.transport == "tls" and self._tls is None:
            self._tls = tls_context(self._endpoint)
        return Stream.connect(self._settings.host, self._settings.port, self._endpoint, until, tls=self._tls)

    def _send_datagrams(self, messages: Sequence[bytes], until: float) -> None:
        settings = self._settings
        address = addresses_of(settings.host, settings.port, self._where)[0]
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as sender:
                # Connected, so that "port unreachable" comes back as an error of a later send.
                sender.connect((address, settings.port))
                for message in messages:
                    sender.settimeout(max(until - time.monotonic(), _LEAST_SECONDS))
                    sender.send(message)
                number = sender.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        except OSError as error:
            raise explain(error, self._origin, self._endpoint) from None
        if number:
            raise explain(OSError(number, ""), self._origin, self._endpoint)

    def _refuse_cleartext(self) -> None:
        settings = self._settings
        if settings.transport == "tls" or settings.cleartext or is_loopback(settings.host):
            return
        raise ConfigError(
            f"{settings.transport} to {settings.host} would send events in the clear",
            where=self._where,
            hint='use transport = "tls", or set cleartext = true for a receiver that you trust the way to',
        )


def _decoded(event: EncodedEvent) -> AccessEvent:
    """Read the event; raises ``Unencodable`` when the bytes are none, or one of another identity."""
    try:
        found = decode(event.body)
        if not event.body.isascii():
            event.body.decode()  # fields that the catalog does not know are not looked at above
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise Unencodable(UNENCODABLE_CODE) from None
    if found.event_id != event.event_id:
        raise Unencodable(UNENCODABLE_CODE)
    return found


def _priority(facility: int, event: AccessEvent) -> bytes:
    score = event.risk_score or 0
    severity = next((number for floor, number in _SEVERITIES if score >= floor), _INFORMATIONAL)
    return _PRIORITIES[facility * 8 + severity]


_PRIORITIES = [f"<{number}>1 ".encode() for number in range(192)]
