"""Connections of the HTTP sender: to addresses that were checked, and never longer than the call's deadline.

The name is resolved once and the connection goes to that very address, so a name that resolves differently the next
moment changes nothing (DNS rebinding).
"""

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import httpcore
import httpx

CHUNK_BYTES = 1 << 16
_CONNECT_SECONDS = 10.0

# Where instance credentials are served, beside the link-local ranges: AWS over IPv6 (docs: "Instance metadata"),
# Azure's host channel (docs: "What is IP address 168.63.129.16"), Alibaba Cloud and Oracle Cloud (their metadata docs).
_METADATA = frozenset(
    ipaddress.ip_address(one) for one in ("fd00:ec2::254", "168.63.129.16", "100.100.100.200", "192.0.0.192")
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def forbidden_address(text: str) -> str:
    """Say why a destination must not be at this IP address; "" when it may."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        address = inner or address
    if address in _METADATA:
        return "a cloud metadata address"
    if address.is_link_local:
        return "a link-local address (cloud metadata lives there)"
    if address.is_multicast:
        return "a multicast address"
    if address.is_unspecified:
        return "no address of a host"
    return ""


class ForbiddenAddress(Exception):  # noqa: N818 - carried through httpcore, never seen outside
    """The name resolves to an address that nothing may be sent to."""


def resolve_host(host: str, port: int) -> list[str]:
    """Give the addresses of a host name, as the system knows them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


class CheckedBackend(httpcore.NetworkBackend):
    """Connects to addresses that were checked, and holds every read and write to the call's deadline.

    The name is resolved once and the connection goes to that very address, so a name that resolves differently the
    next moment changes nothing.
    """

    def __init__(self, resolve: Callable[[str, int], list[str]], deadline: threading.local) -> None:
        self._resolve = resolve
        self._deadline = deadline
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        del timeout
        try:
            addresses = self._resolve(host, port)
        except (socket.gaierror, UnicodeError) as error:
            raise UnresolvedHost(host) from error
        for address in addresses:
            reason = forbidden_address(address)
            if reason:
                raise ForbiddenAddress(f"{host} is {address}, {reason}")
        failure: Exception = UnresolvedHost(host)
        for address in addresses:
            try:
                stream = self._inner.connect_tcp(
                    address, port, min(_CONNECT_SECONDS, seconds_left(self._deadline)), local_address, socket_options
                )
                return _Stream(stream, self._deadline)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        del timeout, socket_options
        raise ForbiddenAddress(f"{path} is a local socket")

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)


class UnresolvedHost(httpcore.ConnectError):
    """The host name is not known."""


class _Stream(httpcore.NetworkStream):
    """A connection whose every operation ends by the deadline of the call that uses it."""

    def __init__(self, inner: httpcore.NetworkStream, deadline: threading.local) -> None:
        self._inner = inner
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        del timeout
        return self._inner.read(max_bytes, seconds_left(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        del timeout
        # In pieces, so that the deadline counts for the whole and not for each send of a slow reader.
        for start in range(0, len(buffer), CHUNK_BYTES):
            self._inner.write(buffer[start : start + CHUNK_BYTES], seconds_left(self._deadline))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        del timeout
        return _Stream(
            self._inner.start_tls(ssl_context, server_hostname, seconds_left(self._deadline)), self._deadline
        )

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def seconds_left(deadline: threading.local) -> float:
    """Seconds until the deadline of this thread's call; raises when it has passed."""
    left = float(deadline.at) - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("deadline")
    return left


class PoolTransport(httpx.BaseTransport):
    """httpx over an httpcore pool of our own: the public way to choose how connections are made."""

    def __init__(self, pool: httpcore.ConnectionPool) -> None:
        self._pool = pool

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        answer = self._pool.handle_request(
            httpcore.Request(
                request.method, url, headers=request.headers.raw, content=request.stream, extensions=request.extensions
            )
        )
        return httpx.Response(
            answer.status, headers=answer.headers, stream=_Body(answer), extensions=dict(answer.extensions)
        )

    def close(self) -> None:
        self._pool.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        yield from self._answer.iter_stream()

    def close(self) -> None:
        self._answer.close()
