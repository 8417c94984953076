"""The HTTP sender that sources and destinations hold: one place for TLS, time limits, addresses off limits, and errors.

It promises: certificates are always verified (TLS 1.2 or newer, a CA file of your own adds to nothing and replaces
nothing but the default roots); a call ends by its deadline, however slowly the peer talks; a request goes to the
configured host or nowhere, never to a link-local or cloud metadata address, whatever its name resolves to; no secret is
in an error. It judges no answer: whoever asks has a table of its own for that.
"""

import email.utils
import ipaddress
import math
import os
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

import httpcore
import httpx
import msgspec

from aitrail import __version__
from aitrail.errors import AitrailError, ConfigError, TransientError
from aitrail.net._connect import (
    CHUNK_BYTES,
    CheckedBackend,
    ForbiddenAddress,
    PoolTransport,
    UnresolvedHost,
    forbidden_address,
    resolve_host,
)

__all__ = [
    "LONGEST_RETRY_AFTER",
    "AnswerTooLong",
    "Endpoint",
    "HttpSender",
    "Response",
    "check_url",
    "clock_trouble",
    "forbidden_address",
    "parse_retry_after",
    "proxy_for",
    "tls_context",
]

LONGEST_RETRY_AFTER = 300.0
_RESPONSE_CAP = 4 << 20
_SAME_HOST_REDIRECTS = 2
# Tokens and signatures are refused from about here on.
_SKEW_SECONDS = 300.0
_USER_AGENT = f"aitrail/{__version__}"


class AnswerTooLong(TransientError):  # noqa: N818 - names what is wrong with the answer
    """The answer is longer than its cap; what was sent may have been taken."""


class Endpoint(msgspec.Struct, frozen=True):
    """How to reach one server.

    Attributes:
        where: the setting that this comes from, for errors, e.g. ``destinations.splunk``.
        ca_file: PEM file of the authorities to trust instead of the default ones; "" for the default.
        client_certificate: PEM file with a certificate (and key, unless ``client_key``) to show to the server.
        client_key: PEM file with its key.
        proxy: URL of an HTTP proxy; "" takes HTTPS_PROXY / NO_PROXY of the environment, ``none`` uses none.
        seconds: the longest that one request may take, whatever the deadline allows.
        plain_http: allow ``http://`` to hosts other than this one.
    """

    where: str = ""
    ca_file: str = ""
    client_certificate: str = ""
    client_key: str = ""
    proxy: str = ""
    seconds: float = 30.0
    plain_http: bool = False


class Response(msgspec.Struct, frozen=True, gc=False):
    """An answer: status, lower-case headers, body up to the cap."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def retry_after(self, now: float) -> float | None:
        """Seconds that the peer asked to wait, capped; None when it did not ask, or not in a way that makes sense."""
        return parse_retry_after(self.headers.get("retry-after", ""), now)


def clock_trouble(headers: Mapping[str, str], now: float, server: str) -> list[str]:
    """Say when the Date of an answer is more than five minutes off ``now``; empty when it is not, or is not given."""
    try:
        skew = email.utils.parsedate_to_datetime(headers.get("date", "")).timestamp() - now
    except (ValueError, TypeError, OverflowError):
        return []
    if abs(skew) <= _SKEW_SECONDS:
        return []
    return [f"the clock of {server} is {skew:+.0f} s off this one; synchronise both (NTP)."]


def parse_retry_after(text: str, now: float, longest: float = LONGEST_RETRY_AFTER) -> float | None:
    """Read a Retry-After header (RFC 9110): seconds or an HTTP date.

    Args:
        text: the header's value.
        now: epoch seconds, for dates.
        longest: cap; a peer cannot silence us for longer.

    Returns:
        Seconds between 0 and ``longest``; None for an absent or senseless value.
    """
    text = text.strip()[:64]
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - now
        except (ValueError, TypeError, OverflowError):
            return None
        return min(max(seconds, 0.0), longest)
    return min(seconds, longest) if math.isfinite(seconds) and seconds >= 0 else None


def check_url(url: str, endpoint: Endpoint) -> str:
    """Give the URL's ``scheme://host:port``.

    Raises:
        ConfigError: it is no URL that data may be sent to; the message does not repeat user info or query.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ConfigError("not a valid URL", where=endpoint.where, hint="https://host:port") from None
    if parts.scheme not in ("https", "http") or not host:
        raise ConfigError("not a valid URL", where=endpoint.where, hint="https://host:port")
    if parts.username or parts.password:
        raise ConfigError(
            "a URL must not hold credentials", where=endpoint.where, hint="put a reference such as env:NAME in token"
        )
    if parts.scheme == "http" and not endpoint.plain_http and not _is_loopback(host):
        raise ConfigError(
            f"http://{host} would send events and credentials in the clear",
            where=endpoint.where,
            hint="use https, or set plain_http = true for a host that you trust the way to",
        )
    try:
        reason = forbidden_address(host)
    except ValueError:
        reason = ""  # a name: what it resolves to is checked when it does
    if reason:
        raise ConfigError(f"{host} is {reason}", where=endpoint.where, hint="name the host of the receiver itself")
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}:{port or (443 if parts.scheme == 'https' else 80)}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class HttpSender:
    """Sends requests over kept-alive connections. Thread-safe.

    Args:
        endpoint: how to reach the server.
        now: epoch seconds, for Retry-After dates.
        resolve: gives the addresses of a host name; injected for tests.
        cap: the longest answer in bytes.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        now: Callable[[], float] = time.time,
        resolve: Callable[[str, int], list[str]] | None = None,
        cap: int = _RESPONSE_CAP,
    ) -> None:
        self._cap = cap
        self.endpoint = endpoint
        self.now = now
        self._deadline = threading.local()
        self._backend = CheckedBackend(resolve or resolve_host, self._deadline)
        self._lock = threading.Lock()
        self._clients: dict[str, httpx.Client] = {}
        self._tls: ssl.SSLContext | None = None

    def request(
        self, method: str, url: str, *, deadline: float, content: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Response:
        """Send one request and read the answer, by ``deadline`` (``time.monotonic`` seconds).

        A redirect is followed only on the same host and only where it keeps method and body (307, 308).

        Raises:
            ConfigError: URL, CA file, certificate or a redirect elsewhere: a person has to change something.
            TransientError: nobody answered in time; whether the request was taken is not known.
        """
        origin = check_url(url, self.endpoint)
        self._deadline.at = min(deadline, time.monotonic() + self.endpoint.seconds)
        if self._deadline.at <= time.monotonic():
            raise TransientError(f"{origin}: no time left to send", retry_after=0.0)
        client = self._client(origin)
        try:
            for _ in range(_SAME_HOST_REDIRECTS + 1):
                response = self._once(client, method, url, content, headers or {})
                if response.status not in (301, 302, 303, 307, 308):
                    return response
                url = self._redirected(origin, url, response)
            raise ConfigError(f"{origin} redirects in a circle", where=self.endpoint.where)
        except ForbiddenAddress as error:
            raise ConfigError(
                f"{origin}: {error}", where=self.endpoint.where, hint="name the host of the receiver itself"
            ) from None
        except _FAILURES as error:
            raise _explain(error, origin, self.endpoint) from None

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()

    def _once(
        self, client: httpx.Client, method: str, url: str, content: bytes, headers: Mapping[str, str]
    ) -> Response:
        # Answers are small: no compression means no bomb, and the cap below counts what is really read.
        sent = {"Accept-Encoding": "identity", "User-Agent": _USER_AGENT, **headers}
        with client.stream(method, url, content=content, headers=sent) as response:
            parts: list[bytes] = []
            size = 0
            for part in response.iter_raw(CHUNK_BYTES):
                parts.append(part)
                size += len(part)
                if size > self._cap:
                    raise AnswerTooLong(
                        f"{_host(url)}: the answer is longer than {self._cap} bytes",
                        hint="this is not the receiver's own answer; look for a proxy in between",
                    )
            body = b"" if response.headers.get("content-encoding", "identity") != "identity" else b"".join(parts)
            return Response(
                response.status_code, {name.lower(): value for name, value in response.headers.items()}, body
            )

    def _redirected(self, origin: str, url: str, response: Response) -> str:
        target = httpx.URL(url).join(response.headers.get("location", "") or "/")
        try:
            there = check_url(str(target.copy_with(userinfo=b"")), self.endpoint)
        except ConfigError:
            there = "a place that is no URL"
        if there != origin or response.status not in (307, 308):
            raise ConfigError(
                f"{origin} redirects to {there}; events are not sent there",
                where=self.endpoint.where,
                hint="if that is your receiver, set the url to it",
            )
        return str(target)

    def _client(self, origin: str) -> httpx.Client:
        with self._lock:
            client = self._clients.get(origin)
            if client is None:
                transport = PoolTransport(self._pool(origin))
                client = self._clients[origin] = httpx.Client(
                    transport=transport, trust_env=False, follow_redirects=False, timeout=httpx.Timeout(None)
                )
            return client

    def _pool(self, origin: str) -> httpcore.ConnectionPool:
        common: dict[str, Any] = {
            "ssl_context": self._context() if origin.startswith("https") else None,
            "network_backend": self._backend,
            "max_connections": 64,
            "max_keepalive_connections": 64,
            # Splunk and Azure close idle connections after a minute or more; ours goes first.
            "keepalive_expiry": 30.0,
        }
        proxy = proxy_for(origin, self.endpoint.proxy)
        if proxy:
            parts = urlsplit(proxy)
            secret = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
            bare = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
            return httpcore.HTTPProxy(proxy_url=bare, proxy_auth=secret, **common)
        return httpcore.ConnectionPool(**common)

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = tls_context(self.endpoint)
        return self._tls


def tls_context(endpoint: Endpoint) -> ssl.SSLContext:
    """Make the client context: always verifying, TLS 1.2 or newer.

    Raises:
        ConfigError: the CA file or the client certificate cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=endpoint.ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"the CA file {endpoint.ca_file} cannot be read ({error.strerror or 'not PEM'})",
            where=f"{endpoint.where}.ca_file",
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if endpoint.client_certificate:
        try:
            context.load_cert_chain(endpoint.client_certificate, endpoint.client_key or None, password=_no_password)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"the client certificate {endpoint.client_certificate} cannot be used "
                f"({error.strerror or 'certificate and key do not fit'})",
                where=f"{endpoint.where}.client_certificate",
            ) from None
    return context


def _no_password() -> str:
    raise ConfigError("the client key is encrypted", hint="give a key file without a passphrase, readable by aitrail")


def proxy_for(origin: str, setting: str) -> str:
    """Give the proxy to use for ``scheme://host:port``; "" for none."""
    if setting:
        return "" if setting == "none" else setting
    parts = urlsplit(origin)
    host = parts.hostname or ""
    if _is_loopback(host) or urllib.request.proxy_bypass(host):
        return ""
    return urllib.request.getproxies().get(parts.scheme, "")


# The pool below is httpcore's own, so these come as they are, not as httpx wraps them.
_FAILURES = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, httpcore.ProxyError, OSError)


# --- errors


def _host(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _explain(error: Exception, origin: str, endpoint: Endpoint) -> AitrailError:
    """Say what went wrong with the connection, in the error tree; headers and body are never quoted."""
    reasons = list(_causes(error))
    for one in reasons:
        if isinstance(one, ssl.SSLCertVerificationError):
            return ConfigError(
                f"{origin}: the server's certificate is refused: {one.verify_message}",
                where=endpoint.where,
                hint="renew the certificate, use the host name that is in it, or name its authority in ca_file",
            )
        if isinstance(one, ssl.SSLError) and one.reason in _TLS_REASONS:
            return ConfigError(
                f"{origin}: {_TLS_REASONS[one.reason]}", where=endpoint.where, hint=_TLS_HINTS.get(one.reason, "")
            )
    if any(isinstance(one, httpcore.ProxyError) for one in reasons):
        return ConfigError(
            f"{origin}: the proxy refuses to connect ({str(error)[:60]})",
            where=f"{endpoint.where}.proxy",
            hint="give the proxy's credentials in its URL by HTTPS_PROXY, or set proxy = 'none'",
        )
    if isinstance(error, UnresolvedHost):
        return TransientError(
            f"{origin}: the host name does not resolve", hint="check the name in url, and the name server"
        )
    for one in reasons:
        if isinstance(one, (httpcore.TimeoutException, TimeoutError)):
            return TransientError(f"{origin}: no answer in time", hint="check firewall and load of the receiver")
    number = next((one.errno for one in reasons if isinstance(one, OSError) and one.errno), None)
    detail = os.strerror(number) if number is not None and number > 0 else "the connection was lost"
    return TransientError(f"{origin}: {detail}", hint="check that the receiver runs and the port is right")


_TLS_REASONS = {
    "WRONG_VERSION_NUMBER": "the port does not speak TLS",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the server offers no TLS 1.2 or newer",
    "UNSUPPORTED_PROTOCOL": "the server offers no TLS 1.2 or newer",
    "NO_PROTOCOLS_AVAILABLE": "the server offers no TLS 1.2 or newer",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the server refuses the TLS handshake",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the server wants a client certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "the server does not trust the client certificate",
}
_TLS_HINTS = {
    "WRONG_VERSION_NUMBER": "use http:// if this is meant, or the TLS port",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "set client_certificate and client_key",
    "TLSV1_ALERT_UNKNOWN_CA": "let the server trust the authority of client_certificate",
}


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__
