"""``/metrics`` and ``/health`` of a running collector, on a small server of its own (``aitrail run --listen``).

It reads the store as any other process would: it answers, and says that the collector hangs, when that is so. There is
no authentication: it belongs on the loopback interface or behind something that asks.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import structlog

from aitrail.errors import AitrailError, ConfigError
from aitrail.runtime import status
from aitrail.runtime.metrics import CONTENT_TYPE, render_health, render_metrics

_REQUEST_SECONDS = 10.0


class Address(NamedTuple):
    """Where to listen."""

    host: str
    port: int


def parse_address(text: str) -> Address:
    """Read ``HOST:PORT`` (``:PORT`` is the loopback interface); raises ``ConfigError``."""
    host, colon, port = text.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"{text!r} is no address", where="--listen", hint="write HOST:PORT, e.g. 127.0.0.1:9464")
    return Address(host, int(port))


@contextmanager
def listening(address: Address, store: Path) -> Iterator[Address]:
    """Answer requests about ``store`` while the block runs; gives the address with the port that was taken.

    Raises:
        ConfigError: the address cannot be had.
    """

    class Handler(_Handler):
        directory = store

    try:
        server = (_Server6 if ":" in address.host else _Server)(address, Handler)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {address.host}:{address.port} ({error.strerror or error})",
            where="--listen",
            hint="another program has that port, or the address is not this machine's: name another",
        ) from None
    thread = threading.Thread(target=server.serve_forever, args=(0.2,), name="monitor", daemon=True)
    thread.start()
    taken = Address(address.host, server.server_address[1])
    structlog.get_logger("aitrail.monitor").info("listening", host=taken.host, port=taken.port)
    try:
        yield taken
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    """Answers two paths; everything else is 404."""

    directory = Path()
    timeout = _REQUEST_SECONDS
    server_version = "aitrail"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer one request."""
        path = self.path.partition("?")[0]
        if path not in ("/metrics", "/health"):
            self._answer(404, "text/plain; charset=utf-8", b"/metrics and /health are here\n")
            return
        try:
            snapshot = status.take(self.directory)
        except AitrailError as error:
            self._answer(503, "text/plain; charset=utf-8", f"the store cannot be read: {error}\n".encode())
            return
        if path == "/metrics":
            self._answer(200, CONTENT_TYPE, render_metrics(snapshot).encode())
        else:
            code, body = render_health(snapshot)
            self._answer(code, "application/json", body)

    def _answer(self, code: int, kind: str, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the name is the base class's)
        """Requests are not logged: their text is the caller's."""
