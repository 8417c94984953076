"""Servers that misbehave on request: TCP (plain or TLS) and HTTP/1.1, on the loopback interface only.

They do the faults of the transport (silence, slowness, resets in the middle, redirects, floods, refused connections,
bad certificates). What a protocol answers in its own words is the peer's: it gives an ``answer`` function.
"""

import contextlib
import email.utils
import gzip
import http.server
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

import msgspec
from isal import igzip, isal_zlib

from aitrail.testing.peer import Behaviour, Fault, Script, Traffic

# What every peer on ``HttpServer`` can show without doing anything for it.
HTTP_TRANSPORT_FAULTS: frozenset[Fault] = frozenset(
    {"silent", "silent_stored", "slow", "reset_mid_body", "reset_mid_response", "redirect", "flood", "down"}
)
# What ``canned`` answers in plain HTTP.
HTTP_STATUS_FAULTS: Mapping[Fault, int] = {
    "throttle": 429,
    "busy": 503,
    "unauthorized": 401,
    "forbidden": 403,
    "too_large": 413,
}
REDIRECT_TARGET = "https://elsewhere.example.com/services/collector/event"
_BODY_CAP = 64 << 20
_FLOOD_CHUNK = 1 << 16


class Request(msgspec.Struct, gc=False):
    """One HTTP request as it came in; header names are lower-case, ``plain`` is the body without its gzip."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    plain: bytes | None


class Reply(msgspec.Struct, gc=False):
    """One HTTP answer."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = {}


Answer = Callable[[Request, Behaviour | None], Reply]


def reply_json(status: int, content: Any, headers: Mapping[str, str] | None = None) -> Reply:
    """Give an answer with a JSON body."""
    return Reply(status, msgspec.json.encode(content), {"Content-Type": "application/json", **(headers or {})})


def retry_header(behaviour: Behaviour) -> dict[str, str]:
    """Give the Retry-After header of a behaviour; none when it has no text."""
    return {"Retry-After": behaviour.retry_after} if behaviour.retry_after else {}


def canned(behaviour: Behaviour) -> Reply | None:
    """Give the plain HTTP answer for a fault of ``HTTP_STATUS_FAULTS``; None for others."""
    status = HTTP_STATUS_FAULTS.get(behaviour.fault)
    return reply_json(behaviour.code or status, {}, retry_header(behaviour)) if status else None


def http_date(epoch_seconds: float) -> str:
    """Format a Retry-After date (RFC 9110, IMF-fixdate)."""
    return email.utils.formatdate(epoch_seconds, usegmt=True)


class TcpServer:
    """Accepts connections on 127.0.0.1 and runs ``handle(connection)`` for each in a thread of its own.

    Args:
        handle: reads and answers; the connection is closed when it returns. ``OSError`` and ``ssl.SSLError`` end it;
            with TLS, reading behind a sender that ended without close_notify (RFC 8446, 6.1) raises such an error.
        tls: server context; None for plain TCP.
        traffic: counters to add to.

    Attributes:
        port: where it listens; stays the same through ``down`` and ``up``.
        stopping: set by ``close``; handlers wait on it instead of sleeping.
    """

    def __init__(
        self, handle: Callable[[socket.socket], None], *, tls: ssl.SSLContext | None = None, traffic: Traffic
    ) -> None:
        self._handle = handle
        self._tls = tls
        self._traffic = traffic
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self.stopping = threading.Event()
        self.port = 0
        self._listener: socket.socket | None = None
        self.up()

    def up(self) -> None:
        """Listen, at the same port as before."""
        if self._listener is not None:
            return
        listener = socket.create_server(("127.0.0.1", self.port), backlog=64, reuse_port=False)
        self.port = int(listener.getsockname()[1])
        self._listener = listener
        self._start(self._accept, listener)

    def down(self) -> None:
        """Refuse new connections and reset those that are open."""
        with self._lock:
            listener, self._listener = self._listener, None
            open_now = list(self._connections)
        if listener is not None:
            # shutdown wakes a thread that waits in accept; close alone does not.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for one in open_now:
            _abort(one)

    def close(self) -> None:
        """Stop listening, reset what is open, wait for the handlers."""
        self.stopping.set()
        self.down()
        with self._lock:
            threads = list(self._threads)
        for one in threads:
            if one is not threading.current_thread():
                one.join(5.0)

    def _start(self, target: Callable[[socket.socket], None], argument: socket.socket) -> None:
        thread = threading.Thread(target=target, args=(argument,), daemon=True)
        with self._lock:
            thread.start()  # inside the lock: close() must not join a thread that was never started
            self._threads = {one for one in self._threads if one.is_alive()} | {thread}

    def _accept(self, listener: socket.socket) -> None:
        while not self.stopping.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self._traffic.connections += 1
            self._start(self._serve, connection)

    def _serve(self, plain: socket.socket) -> None:
        connection = plain
        try:
            plain.settimeout(30.0)
            if self._tls is not None:
                # A connection that ends without a TLS goodbye (its sender was killed) is an error here, not an end.
                connection = self._tls.wrap_socket(plain, server_side=True, suppress_ragged_eofs=False)
            # A request and its answer are small writes: waiting to merge them only adds latency.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._connections.add(connection)
            self._handle(connection)
        except (OSError, ValueError):
            pass
        finally:
            with self._lock:
                self._connections.discard(connection)
            with contextlib.suppress(OSError):
                connection.close()
            plain.close()


def reset(connection: socket.socket) -> None:
    """End a connection with RST, without TLS goodbye: what is in flight is lost, as when a host dies.

    Files made of it (``makefile``) have to be closed, too, before the kernel sends it.
    """
    with contextlib.suppress(OSError, ValueError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError, ValueError):
        connection.close()


def _abort(connection: socket.socket) -> None:
    """End a connection that another thread uses: it is woken with an error."""
    with contextlib.suppress(OSError, ValueError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError, ValueError):
        # Not SSLSocket.shutdown: that takes the TLS state away from the thread that uses it.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


class HttpServer:
    """HTTP/1.1 over ``TcpServer``: transport faults here, everything else by ``answer``.

    Args:
        answer: gives the answer; the behaviour is one that it has to show itself, None to behave well.
        script: what to show.
        is_data: whether a request takes the next behaviour (health checks and polls do not).
        tls: server context; None for plain HTTP.
        latency: seconds to wait before each answer, as a distant receiver would.
    """

    def __init__(
        self,
        answer: Answer,
        script: Script,
        *,
        is_data: Callable[[Request], bool] = lambda request: request.method == "POST",
        tls: ssl.SSLContext | None = None,
        latency: float = 0.0,
    ) -> None:
        self.answer = answer
        self.script = script
        self.is_data = is_data
        self.latency = latency
        self.traffic = Traffic()
        self.lock = threading.Lock()
        self.scheme = "https" if tls is not None else "http"
        self.tcp = TcpServer(self._talk, tls=tls, traffic=self.traffic)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{self.scheme}://localhost:{self.tcp.port}"

    def close(self) -> None:
        """Stop."""
        self.tcp.close()

    def refuse_as_proxy(self) -> None:
        """From now on, answer everything as a proxy that wants credentials."""
        self.is_data = lambda request: True
        self.answer = lambda request, behaviour: Reply(407, b"", {"Proxy-Authenticate": "Basic"})

    def address_of_proxy(self, address: Mapping[str, str]) -> dict[str, str]:
        """Give an address at which a client asks this server as its proxy: a proxy is asked for other hosts only."""
        return {
            **address,
            "url": "https://receiver.example.com:9443",
            "proxy": f"http://localhost:{self.tcp.port}",
        }

    def _talk(self, connection: socket.socket) -> None:
        _Handler(connection, self)


class _Handler(http.server.BaseHTTPRequestHandler):
    """Reads requests of one connection; the standard library parses, ``HttpServer`` decides."""

    protocol_version = "HTTP/1.1"
    # The base class writes the header and the body apart; buffered, they leave in one segment.
    wbufsize = -1

    def __init__(self, connection: socket.socket, owner: HttpServer) -> None:
        self._owner = owner
        super().__init__(connection, ("127.0.0.1", 0), cast(Any, None))

    def _any(self) -> None:
        owner = self._owner
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, parts.path, dict(parse_qsl(parts.query)), headers, b"", b"")
        data = owner.is_data(request)
        behaviour = owner.script.next() if data else None
        if behaviour is not None and behaviour.fault == "reset_mid_body":
            length = int(headers.get("content-length", "2"))
            read = self.rfile.read(length // 2)
            with owner.lock:
                owner.traffic.requests += 1
                owner.traffic.bytes += len(read)
            self._cut()
            return
        request.body = self._body(headers)
        request.plain = _plain(request)
        if data:
            with owner.lock:
                owner.traffic.requests += 1
                owner.traffic.bytes += len(request.body)
                owner.traffic.largest = max(owner.traffic.largest, len(request.plain or request.body))
        self._show(request, behaviour)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = do_CONNECT = _any  # noqa: N815 - the base class's names

    def _show(self, request: Request, behaviour: Behaviour | None) -> None:
        owner = self._owner
        fault = behaviour.fault if behaviour is not None else None
        if behaviour is None or fault is None:
            self._send(owner.answer(request, None))
        elif fault == "silent":
            owner.tcp.stopping.wait(behaviour.seconds)
            self._cut()
        elif fault == "silent_stored":
            owner.answer(request, None)
            owner.tcp.stopping.wait(behaviour.seconds)
            self._cut()
        elif fault == "slow":
            reply = owner.answer(request, None)
            owner.tcp.stopping.wait(behaviour.seconds)
            self._send(reply)
        elif fault == "reset_mid_response":
            reply = owner.answer(request, None)
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4096\r\n\r\n")
            self.wfile.write(reply.body[: max(1, len(reply.body) // 2)])
            self.wfile.flush()
            self._cut()
        elif fault == "redirect":
            self._send(Reply(behaviour.code or 307, b"", {"Location": REDIRECT_TARGET}))
        elif fault == "flood":
            self._flood(behaviour.limit or 64 << 20)
        else:
            self._send(owner.answer(request, behaviour))

    def _flood(self, size: int) -> None:
        """Answer 200 with a body without an end in sight, half of it as a compressed bomb."""
        bomb = gzip.compress(bytes(size), 9)
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Type: application/json\r\n")
        self.wfile.write(f"Content-Length: {size + len(bomb)}\r\n\r\n".encode())
        self.wfile.write(bomb)
        for _ in range(size // _FLOOD_CHUNK):
            self.wfile.write(b" " * _FLOOD_CHUNK)
        self.close_connection = True

    def _send(self, reply: Reply) -> None:
        if self._owner.latency:
            self._owner.tcp.stopping.wait(self._owner.latency)
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)
        self.wfile.flush()

    def _cut(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError, ValueError):
            self.wfile.flush()
        reset(self.connection)

    def _body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding", "").lower() != "chunked":
            length = min(int(headers.get("content-length", "0")), _BODY_CAP)
            body = self.rfile.read(length)
            if len(body) < length:
                raise ConnectionResetError("the sender went away within its request")
            return body
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing: requests hold events."""


def _plain(request: Request) -> bytes | None:
    """Give the body without its gzip; None when it is damaged."""
    if request.headers.get("content-encoding", "") != "gzip":
        return request.body
    try:
        return cast(bytes, igzip.decompress(request.body))  # type: ignore[no-untyped-call]
    except (OSError, EOFError, ValueError, isal_zlib.IsalError):  # type: ignore[misc]
        return None
