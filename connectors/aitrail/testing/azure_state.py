"""The blob store of a function app for tests: Azurite over TLS with bearer tokens, as managed identities use them."""

import atexit
import functools
import ssl
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from aitrail.clock import Clock, SystemClock
from aitrail.errors import TransientError
from aitrail.net.http import Response
from aitrail.runtime.scheduled.azure_blobs import VERSION, Blobs
from aitrail.testing.azure_storage import Azurite, started, token_of


class Token(NamedTuple):
    """What a credential gives."""

    token: str
    expires_on: int


class Identity:
    """Gives tokens that the emulator takes; first those that a test wants it to give.

    Attributes:
        asked: the scopes that were asked for.
        planned: tokens to give first; an exception is raised.
    """

    def __init__(self, planned: Sequence[Any] = ()) -> None:
        self.asked: list[str] = []
        self.planned = list(planned)

    def get_token(self, *scopes: str) -> Token:
        """Give a token."""
        self.asked += scopes
        one = self.planned.pop(0) if self.planned else token_of(time.time())
        if isinstance(one, Exception):
            raise one
        return Token(one, int(time.time()) + 3_600)


class Scripted:
    """The sender of a ``Blobs``, with troubles of its own.

    Args:
        sender: the real one.
        script: for the next requests: None passes it on; ``lost``: the service takes it, its answer is lost; ``down``:
            it never arrives; a status and an error code are answered instead.
        place: only writes to blobs whose URL has this in it count; empty: every request does.
        retry_after: what answered statuses ask for.
    """

    def __init__(self, sender: Any, script: Sequence[Any], place: str = "", *, retry_after: str = "1") -> None:
        self._retry_after = retry_after
        self.sender, self.script = sender, list(script)
        self.sent: list[str] = []
        self._place = place

    def request(self, method: str, url: str, **more: Any) -> Any:
        """As ``HttpSender.request``."""
        self.sent.append(method)
        counts = not self._place or (method == "PUT" and self._place in url)
        step = self.script.pop(0) if self.script and counts else None
        if step == "lost":
            self.sender.request(method, url, **more)
            raise TransientError("no answer in time")
        if step == "down":
            raise TransientError("the connection was lost")
        if step is not None:
            status, code = step
            return Response(status, {"x-ms-error-code": code, "retry-after": self._retry_after}, b"")
        return self.sender.request(method, url, **more)

    def close(self) -> None:
        """As ``HttpSender.close``."""
        self.sender.close()


class SecureAzurite:
    """A running emulator that serves TLS and takes tokens only, on 127.0.0.1."""

    def __init__(self) -> None:
        from trustme import CA  # noqa: PLC0415 - a test dependency

        self._folder = tempfile.TemporaryDirectory(prefix="aitrail-azurite-tls-")
        authority, folder = CA(), Path(self._folder.name)
        issued = authority.issue_cert("127.0.0.1", "localhost")
        issued.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
        issued.private_key_pem.write_to_path(str(folder / "key.pem"))
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        self.ca_file = str(folder / "ca.pem")
        self._server = started(lambda: Azurite(str(folder / "cert.pem"), str(folder / "key.pem")))
        self.url = self._server.url
        atexit.register(self.stop)

    def container(self, name: str) -> str:
        """Make an empty container; gives its URL."""
        context = ssl.create_default_context(cafile=self.ca_file)
        headers = {"Authorization": f"Bearer {token_of(time.time())}", "x-ms-version": VERSION}
        request = urllib.request.Request(  # noqa: S310 - our own server
            f"{self.url}/{name}?restype=container", method="PUT", headers=headers, data=b""
        )
        with urllib.request.urlopen(request, context=context, timeout=30):  # noqa: S310 - as above
            return f"{self.url}/{name}"

    def blobs(self, url: str, clock: Clock | None = None, identity: Identity | None = None) -> Blobs:
        """A client of a container."""
        clock = clock or SystemClock()
        return Blobs(url, identity or Identity(), clock, ca_file=self.ca_file, jitter=lambda: 0.5)

    def stop(self) -> None:
        """End it."""
        atexit.unregister(self.stop)
        self._server.stop()
        self._folder.cleanup()


@functools.lru_cache(maxsize=1)
def secure_azurite() -> SecureAzurite:
    """The emulator of this process; it ends with the process."""
    return SecureAzurite()
