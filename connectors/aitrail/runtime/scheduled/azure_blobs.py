"""The few calls of the Blob service that a function's state needs, with conditions, over the senders' HTTP.

Promise: a write whose answer was lost is looked at before it counts as a conflict, so that our own success is never
taken for somebody else's. Every call ends; what the service cannot take now is a ``TransientError``. Only bearer tokens
are sent, never account keys. Facts: Microsoft Learn "Blob service REST API" (Put Blob, Append Block, List Blobs,
"Specifying conditional headers", "Status and error codes").
"""

import random
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from msgspec import Struct

from aitrail.clock import Clock
from aitrail.destinations._azure_token import Tokens
from aitrail.errors import AitrailError, AuthError, ConfigError, TransientError
from aitrail.net.http import Endpoint, HttpSender, Response, check_url

SCOPE = "https://storage.azure.com/.default"
VERSION = "2021-12-02"
_TRIES = 4
_CALL_SECONDS = 30.0
_LONGEST_WAIT = 5.0
_ANSWER_BYTES = 64 << 20
_PAGE = 5_000
_LATER = frozenset({408, 429, 500, 502, 503, 504})
_EXPIRED = frozenset({"AuthenticationFailed", "InvalidAuthenticationInfo", "ExpiredAuthenticationToken"})
_RIGHT = (
    "grant the app's managed identity the role Storage Blob Data Contributor on this container "
    "(the container > Access control (IAM)), and let the account's network rules accept the app"
)


class Conflict(TransientError):  # noqa: N818  (the caller decides what it means)
    """Somebody else has written the blob since it was read, or made it first."""


class Blob(Struct, frozen=True):
    """What there is to know of a blob without reading it."""

    name: str
    etag: str
    size: int
    modified: str = ""


class Blobs:
    """Reads and writes the blobs of one container.

    Args:
        url: of the container, ``https://ACCOUNT.blob.core.windows.net/CONTAINER``.
        credential: gives tokens.
        clock: waits between tries.
        where: the setting that the URL comes from, for errors.
        ca_file: PEM file of the authorities to trust instead of the default ones.
        jitter: in [0, 1); injected so that tests are exact.
    """

    def __init__(
        self,
        url: str,
        credential: Any,
        clock: Clock,
        *,
        where: str = "AITRAIL_STATE_URL",
        ca_file: str = "",
        jitter: Callable[[], float] = random.random,
    ) -> None:
        endpoint = Endpoint(where=where, ca_file=ca_file, seconds=_CALL_SECONDS)
        check_url(url, endpoint)
        self._url = url.rstrip("/")
        self._clock = clock
        self._where = where
        self._sender = HttpSender(endpoint, now=clock.now, cap=_ANSWER_BYTES)
        self._tokens = Tokens(credential, SCOPE, clock.now, where)
        self._jitter = jitter

    def read(self, name: str, start: int = 0) -> tuple[bytes, str] | None:
        """Give a blob's bytes from ``start`` on, and its ETag; None when there is none, or nothing behind ``start``."""
        headers = {"x-ms-range": f"bytes={start}-"} if start else {}
        response = self._call("GET", self._blob(name), headers=headers, allowed=(200, 206, 404, 416))
        if response.status in (404, 416):
            if _code(response) == "ContainerNotFound":
                raise self._refused(response, "reading")
            return None
        body = response.body[start:] if response.status == 200 else response.body
        return None if start and not body else (body, response.headers.get("etag", ""))

    def write(self, name: str, body: bytes, *, etag: str = "") -> str:
        """Write a whole blob if it is still the one with ``etag`` (empty: if there is none yet); gives the new ETag.

        Raises:
            Conflict: it is another one.
        """
        condition = {"If-Match": etag} if etag else {"If-None-Match": "*"}
        headers = {"x-ms-blob-type": "BlockBlob", "Content-Type": "application/octet-stream", **condition}
        found, unsure = self._tried("PUT", self._blob(name), body, headers, (201, 404, 409, 412))
        if found.status == 201:
            return found.headers.get("etag", "")
        if found.status == 404:
            raise self._refused(found, "writing")
        if unsure:
            there = self.read(name)
            if there is not None and there[0] == body:
                return there[1]
        raise Conflict(f"{self._where}: {name} was written by another run")

    def put(self, name: str, body: bytes) -> None:
        """Write a whole blob, whatever was there: for names that tell their content."""
        headers = {"x-ms-blob-type": "BlockBlob", "Content-Type": "application/x-ndjson"}
        self._call("PUT", self._blob(name), body, headers, (201,))

    def append(self, name: str, body: bytes) -> None:
        """Append to an append blob, making it when there is none. A lost answer may leave ``body`` there twice."""
        for _ in range(2):
            done = self._call("PUT", f"{self._blob(name)}?comp=appendblock", body, {}, (201, 404))
            if done.status == 201:
                return
            if _code(done) == "ContainerNotFound":
                break
            made = {"x-ms-blob-type": "AppendBlob", "If-None-Match": "*"}
            self._call("PUT", self._blob(name), b"", made, (201, 409, 412))
        raise self._refused(done, "appending")

    def remove(self, name: str) -> None:
        """Delete a blob; one that is gone already is fine."""
        self._call("DELETE", self._blob(name), allowed=(202, 404))

    def listed(self, prefix: str, most: int = 1 << 31) -> Iterator[Blob]:
        """Give the blobs whose names begin with ``prefix``, in the order of their names."""
        marker, left = "", most
        while left > 0:
            query = {"restype": "container", "comp": "list", "prefix": prefix, "maxresults": str(min(_PAGE, left))}
            response = self._call("GET", f"{self._url}?{urlencode(query | ({'marker': marker} if marker else {}))}")
            found, marker = _page(response.body)
            left -= len(found)
            yield from found
            if not marker:
                return

    def close(self) -> None:
        """Give back connections."""
        self._sender.close()

    # -- calling

    def _blob(self, name: str) -> str:
        return f"{self._url}/{quote(name, safe='/-_.~')}"

    def _call(
        self,
        method: str,
        url: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        allowed: tuple[int, ...] = (200,),
    ) -> Response:
        return self._tried(method, url, body, headers or {}, allowed)[0]

    def _tried(
        self, method: str, url: str, body: bytes, headers: Mapping[str, str], allowed: tuple[int, ...]
    ) -> tuple[Response, bool]:
        """Send until there is an answer; also says whether an earlier try may have been taken without our knowing."""
        unsure = False
        renewed = ""
        for attempt in range(1, _TRIES + 1):
            token = self._tokens.current(instead_of=renewed)
            try:
                response = self._sender.request(
                    method,
                    url,
                    deadline=self._clock.monotonic() + _CALL_SECONDS,
                    content=body,
                    headers=_all(headers, token),
                )
            except TransientError as error:
                unsure = True
                if attempt == _TRIES:
                    raise
                self._wait(attempt, error.retry_after)
                continue
            if response.status in allowed:
                return response, unsure
            if not renewed and (response.status == 401 or _code(response) in _EXPIRED):
                renewed = token
                continue
            failure = self._refused(response, method.lower())
            if not isinstance(failure, TransientError) or attempt == _TRIES:
                raise failure
            unsure = unsure or response.status >= 500
            self._wait(attempt, failure.retry_after)
        raise TransientError(f"{self._where}: the blob service does not answer", hint="nothing is lost")

    def _wait(self, attempt: int, asked: float | None) -> None:
        own = 0.2 * 2 ** (attempt - 1) * (0.5 + self._jitter())
        self._clock.sleep(min(_LONGEST_WAIT, max(own, asked or 0.0)))

    def _refused(self, response: Response, what: str) -> AitrailError:
        """What an answer means; the answer's own text is left out."""
        code = _code(response)
        said = f"{self._where}: {what} the state: {code or 'refused'} (HTTP {response.status})"
        if response.status in (401, 403):
            return AuthError(said, hint=_RIGHT)
        if response.status in _LATER:
            return TransientError(said, retry_after=response.retry_after(self._clock.now()), hint="nothing is lost")
        if code in ("ContainerNotFound", "ResourceNotFound", "InvalidResourceName"):
            return ConfigError(said, where=self._where, hint="make the container, or correct the URL")
        return TransientError(said, hint="see the code in the documentation of the Blob service; nothing is lost")


def _all(headers: Mapping[str, str], token: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {token}", "x-ms-version": VERSION, **headers}


def _code(response: Response) -> str:
    code = response.headers.get("x-ms-error-code", "")[:64]
    return code if code.isascii() and code.isalnum() else ""


def _page(body: bytes) -> tuple[list[Blob], str]:
    """The blobs of one page of a listing, and where the next one begins."""
    try:
        root = ET.fromstring(body)  # noqa: S314 - the storage service's own answer, over verified TLS
    except ET.ParseError:
        raise TransientError("the blob service gives a listing that is no XML", hint="nothing is lost") from None
    found = [
        Blob(
            one.findtext("Name", ""),
            one.findtext("Properties/Etag", ""),
            int(one.findtext("Properties/Content-Length", "0")),
            one.findtext("Properties/Last-Modified", ""),
        )
        for one in root.iterfind("Blobs/Blob")
    ]
    return found, root.findtext("NextMarker", "") or ""
