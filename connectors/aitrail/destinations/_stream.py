"""One TCP connection, plain or TLS, that keeps to a deadline: what the syslog and the forward protocol are spoken over.

It promises: certificates are always verified (see ``net.http.tls_context``); the connection goes to an address that was
checked, never to a link-local or metadata address; every operation ends by its deadline; a connection that the peer has
reset is an error, also when all bytes were handed to the kernel before.
"""

import contextlib
import fcntl
import ipaddress
import os
import socket
import ssl
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from aitrail.errors import AitrailError, ConfigError, TransientError
from aitrail.net.http import Endpoint, forbidden_address

CONNECT_SECONDS = 10.0
_CHUNK = 1 << 16
# A receiver of a one-way protocol says nothing; a little is read and dropped, more is not a receiver's.
_CHATTER_CAP = 1 << 16
_DRAIN_STEP_SECONDS = 0.002

Resolve = Callable[[str, int], list[str]]


def resolve(host: str, port: int) -> list[str]:
    """Give the addresses of a name, in the system's order."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


def addresses_of(host: str, port: int, where: str, resolver: Resolve = resolve) -> list[str]:
    """Resolve a name to addresses that events may be sent to.

    Raises:
        ConfigError: one of the addresses is off limits.
        TransientError: the name does not resolve.
    """
    try:
        found = resolver(host, port)
    except (socket.gaierror, UnicodeError):
        raise TransientError(
            f"{host}: the host name does not resolve", hint="check the name in host, and the name server"
        ) from None
    for one in found:
        reason = forbidden_address(one)
        if reason:
            raise ConfigError(f"{host} is {one}, {reason}", where=where, hint="name the host of the receiver itself")
    return found


class Stream:
    """An open connection; use ``Stream.connect``. Not thread-safe.

    Every method takes ``deadline`` in ``time.monotonic`` seconds and raises ``TransientError`` when it passes or the
    connection breaks.
    """

    def __init__(self, plain: socket.socket, origin: str, endpoint: Endpoint) -> None:
        self._socket = plain
        self._origin = origin
        self._endpoint = endpoint
        self._tls = False

    @classmethod
    def connect(
        cls,
        host: str,
        port: int,
        endpoint: Endpoint,
        deadline: float,
        *,
        tls: ssl.SSLContext | None = None,
        resolver: Resolve = resolve,
    ) -> "Stream":
        """Connect to the first address that answers, and shake hands.

        Args:
            host: name or address; with TLS it has to be in the certificate.
            port: TCP port.
            endpoint: where the settings come from, for errors.
            deadline: for all of it.
            tls: the client context; None for plain TCP.
            resolver: gives addresses; injected for tests.

        Raises:
            ConfigError: the certificate is refused, the port speaks no TLS, or the address is off limits.
            TransientError: nobody answers.
        """
        origin = f"{host}:{port}"
        failure: Exception = TimeoutError()
        for address in addresses_of(host, port, endpoint.where, resolver):
            left = min(CONNECT_SECONDS, deadline - time.monotonic())
            if left <= 0:
                break
            try:
                plain = socket.create_connection((address, port), left)
            except OSError as error:
                failure = error
                continue
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            stream = cls(plain, origin, endpoint)
            if tls is not None:
                stream._start_tls(tls, host, deadline)
            return stream
        raise explain(failure, origin, endpoint)

    def _start_tls(self, context: ssl.SSLContext, host: str, deadline: float) -> None:
        plain = self._socket
        try:
            plain.settimeout(self._left(min(deadline, time.monotonic() + CONNECT_SECONDS)))
            self._socket = context.wrap_socket(plain, server_hostname=host)
            self._tls = True
        except (OSError, ValueError) as error:
            plain.close()
            raise explain(error, self._origin, self._endpoint) from None

    def send(self, data: bytes, deadline: float) -> None:
        """Hand all of ``data`` to the kernel, as fast as the peer takes it."""
        view = memoryview(data)
        with self._failing():
            for start in range(0, len(view), _CHUNK):
                self._socket.settimeout(self._left(deadline))
                self._socket.sendall(view[start : start + _CHUNK])

    def receive(self, deadline: float) -> bytes:
        """Wait for what comes next; ``b""`` when the peer has closed in good order."""
        with self._failing():
            self._socket.settimeout(self._left(deadline))
            return self._socket.recv(_CHUNK)

    def finish(self, deadline: float) -> None:
        """Say that this is all, and wait until the peer has closed in good order; the connection is closed then.

        A peer that closes in good order after our end has read every byte: a kernel whose process went away with
        unread bytes resets instead. With TLS the peer's close_notify is required, which only its process can send.
        """
        try:
            with self._failing():
                if isinstance(self._socket, ssl.SSLSocket):
                    self._socket.settimeout(self._left(deadline))
                    self._socket = self._socket.unwrap()
                self._socket.shutdown(socket.SHUT_WR)
                read = 0
                while True:
                    self._socket.settimeout(self._left(deadline))
                    part = self._socket.recv(_CHUNK)
                    if not part:
                        return
                    read += len(part)
                    if read > _CHATTER_CAP:
                        raise OSError("the peer talks without end")
        finally:
            self.close()

    def drain(self, deadline: float) -> None:
        """Wait until the peer's kernel has acknowledged every byte, and make sure that it has not closed since."""
        with self._failing():
            while self._unacknowledged():
                self._left(deadline)
                self._still_open()
                time.sleep(_DRAIN_STEP_SECONDS)
            self._still_open()

    def still_open(self) -> bool:
        """Whether the peer has neither closed nor reset, as far as is known here."""
        try:
            self._still_open()
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close; what is not finished may be lost."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def abort(self) -> None:
        """Close with a reset, so that nothing that is still queued here arrives later."""
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def _still_open(self) -> None:
        error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        self._socket.settimeout(0.0)
        read = 0
        try:
            while True:
                part = self._socket.recv(_CHUNK)
                if not part:
                    raise ConnectionResetError("the peer has closed")
                read += len(part)
                if read > _CHATTER_CAP:
                    raise OSError("the peer talks without end")
        except (BlockingIOError, ssl.SSLWantReadError):
            return

    def _unacknowledged(self) -> int:
        """Bytes that the peer's kernel has not acknowledged; 0 where the system does not tell."""
        counted = bytearray(4)
        try:
            # On Linux TIOCOUTQ is SIOCOUTQ: unsent and unacknowledged bytes (tcp(7)).
            fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, counted)
        except OSError:
            return 0
        return int(struct.unpack("i", counted)[0])

    def _left(self, deadline: float) -> float:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    @contextlib.contextmanager
    def _failing(self) -> Any:
        try:
            yield
        except (OSError, ValueError) as error:
            self.abort()
            raise explain(error, self._origin, self._endpoint, established=self._tls) from None


class Streams:
    """Connections that several threads use at the same time, each by itself, at most so many. Thread-safe.

    Args:
        most: how many may be in use; further threads wait.
        connect: makes one, by a deadline.
    """

    def __init__(self, most: int, connect: Callable[[float], Stream]) -> None:
        self._connect = connect
        self._room = threading.BoundedSemaphore(most)
        self._lock = threading.Lock()
        self._idle: list[Stream] = []
        self._closed = 0

    @contextlib.contextmanager
    def use(self, deadline: float) -> Iterator["Lease"]:
        """Give a connection: an idle one that the peer has not closed, else a new one.

        It is kept for the next use when ``Lease.keep`` was set, else closed with a reset.

        Raises:
            TransientError: none became free in time; or as ``connect`` does.
        """
        if not self._room.acquire(timeout=max(deadline - time.monotonic(), 0)):
            raise TransientError("all connections are in use", hint="send from fewer threads, or raise connections")
        with self._lock:
            closed = self._closed
        try:
            lease = Lease(self._take() or self._connect(deadline))
            try:
                yield lease
            finally:
                with self._lock:
                    kept = lease.keep and closed == self._closed
                    if kept:
                        self._idle.append(lease.stream)
                if not kept:
                    lease.stream.abort()
        finally:
            self._room.release()

    def close(self) -> None:
        """Close what is idle; what is in use is closed when it comes back."""
        with self._lock:
            self._closed += 1
            idle, self._idle = self._idle, []
        for one in idle:
            one.close()

    def _take(self) -> Stream | None:
        """The connection used last, unless its peer has left: receivers close idle ones."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                stream = self._idle.pop()
            if stream.still_open():
                return stream
            stream.abort()


class Lease:
    """A connection in use; ``keep`` says that it is in good order and may be used again."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.keep = False


_NOT_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE"})
_TOO_OLD = frozenset(
    {"TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE", "SSLV3_ALERT_HANDSHAKE_FAILURE"}
)
_CLIENT = frozenset({"TLSV13_ALERT_CERTIFICATE_REQUIRED", "TLSV1_ALERT_UNKNOWN_CA", "SSLV3_ALERT_BAD_CERTIFICATE"})


def explain(error: Exception, origin: str, endpoint: Endpoint, *, established: bool = False) -> AitrailError:
    """Say what went wrong with a connection, in the error tree.

    Garbage on an ``established`` TLS connection is the receiver's fault of this moment (rsyslog has been seen to write
    the contents of its output file into one), not a wrong port: worth another try.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConfigError(
            f"{origin}: the server's certificate is refused: {error.verify_message}",
            where=endpoint.where,
            hint="renew the certificate, use the host name that is in it, or name its authority in ca_file",
        )
    if isinstance(error, ssl.SSLError):
        reason = error.reason or ""
        if reason in _NOT_TLS and established:
            return TransientError(f"{origin}: the receiver broke the TLS protocol", hint="see the receiver's own log")
        if reason in _NOT_TLS:
            return ConfigError(f"{origin}: the port does not speak TLS", where=endpoint.where, hint="use its TLS port")
        if reason in _TOO_OLD:
            return ConfigError(f"{origin}: the server offers no TLS 1.2 or newer", where=endpoint.where)
        if reason in _CLIENT:
            return ConfigError(
                f"{origin}: the server wants a client certificate that it trusts",
                where=endpoint.where,
                hint="set client_certificate and client_key, and let the server trust their authority",
            )
    if isinstance(error, TimeoutError):
        return TransientError(f"{origin}: no answer in time", hint="check firewall and load of the receiver")
    number = error.errno if isinstance(error, OSError) else None
    detail = os.strerror(number) if number is not None and number > 0 else "the connection was lost"
    return TransientError(f"{origin}: {detail}", hint="check that the receiver runs and the port is right")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine: events may go there in the clear."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
