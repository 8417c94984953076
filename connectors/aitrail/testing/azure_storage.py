"""Azurite, the storage emulator, for tests: installed once from npm into a cache folder, started once per process.

It is a program of others (npm ``azurite``, MIT), so that what is read through it was written by somebody else. It needs
node and npm. Where they are missing, ``missing()`` says so; tests skip then, but fail in CI (``CI`` is set there).
"""

import atexit
import base64
import contextlib
import functools
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from azure.core.exceptions import HttpResponseError
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import BlobServiceClient, ContainerClient
from filelock import FileLock

VERSION = "3.35.0"
ACCOUNT = "devstoreaccount1"
# The emulator's published account key (Microsoft Learn, "Use the Azurite emulator"); it opens nothing else.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_INSTALL_SECONDS = 300
_START_SECONDS = 60.0
_ATTEMPTS = 3
T = TypeVar("T")


def _cache() -> Path:
    chosen = os.environ.get("AITRAIL_TEST_CACHE")
    if chosen:
        return Path(chosen)
    here = Path(__file__).resolve().parents[3]
    return here / ".cache" if (here / "pyproject.toml").exists() else Path(tempfile.gettempdir()) / "aitrail-test-cache"


def missing() -> str:
    """Say why Azurite cannot run here; empty when it can."""
    lacking = [program for program in ("node", "npm") if shutil.which(program) is None]
    return f"Azurite needs {' and '.join(lacking)}: install Node.js 18 or newer" if lacking else ""


def installed() -> Path:
    """Give the program, installing it when it is not there; one process at a time does that."""
    root = _cache() / f"azurite-{VERSION}"
    program = root / "node_modules/azurite/dist/src/blob/main.js"
    done = root / "installed"
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / "lock", timeout=2 * _INSTALL_SECONDS):
        if not done.exists():
            npm = shutil.which("npm") or "npm"
            command = [npm, "install", "--no-audit", "--no-fund", "--silent", "--prefix", str(root)]
            for attempt in range(3):
                found = subprocess.run(  # noqa: S603 - a fixed command
                    [*command, f"azurite@{VERSION}"],
                    check=False,
                    capture_output=True,
                    text=True,
                    timeout=_INSTALL_SECONDS,
                    cwd=root,
                )
                if found.returncode == 0 and program.exists():
                    break
                if attempt == 2:
                    raise RuntimeError(f"npm install azurite failed: {found.stderr[-500:]}")
            done.touch()
    return program


class Azurite:
    """A running emulator on 127.0.0.1, in memory.

    Args:
        certificate, key: PEM files; with them it serves TLS and takes bearer tokens (``token_of``).
    """

    def __init__(self, certificate: str = "", key: str = "") -> None:
        node = shutil.which("node") or "node"
        self._folder = tempfile.TemporaryDirectory(prefix="aitrail-azurite-")
        self.port = _free_port()
        options = f"--blobHost 127.0.0.1 --blobPort {self.port} --inMemoryPersistence --skipApiVersionCheck --silent"
        self._scheme = "https" if certificate else "http"
        tls = ["--oauth", "basic", "--cert", certificate, "--key", key] if certificate else []
        self._process = subprocess.Popen(  # noqa: S603 - a fixed command
            [node, str(installed()), *options.split(), "--disableTelemetry", *tls],
            cwd=self._folder.name,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        atexit.register(self.stop)
        until = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise RuntimeError("Azurite does not start")
            time.sleep(0.05)

    @property
    def url(self) -> str:
        """The account's blob endpoint."""
        return f"{self._scheme}://127.0.0.1:{self.port}/{ACCOUNT}"

    @property
    def connection_string(self) -> str:
        """For the SDK, and for ``connection_string`` settings."""
        return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={self.url};"

    @contextlib.contextmanager
    def container(self, name: str) -> Iterator[ContainerClient]:
        """Make a container for a test and remove it at the end."""
        with BlobServiceClient.from_connection_string(self.connection_string, retry_total=0) as service:
            with contextlib.suppress(HttpResponseError):
                service.delete_container(name)
            with service.create_container(name) as client:
                try:
                    yield client
                finally:
                    with contextlib.suppress(HttpResponseError):
                        client.delete_container()

    def stop(self) -> None:
        """End it."""
        atexit.unregister(self.stop)
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
        self._folder.cleanup()

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


@functools.lru_cache(maxsize=1)
def azurite() -> Azurite:
    """The emulator of this process, started when it is first asked for; it ends with the process."""
    return started(Azurite)


def started(make: Callable[[], T]) -> T:
    """Start a server; another port when somebody took the one that was free a moment ago."""
    for _ in range(_ATTEMPTS - 1):
        with contextlib.suppress(RuntimeError):
            return make()
    return make()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def token_of(now: float, seconds: float = 3_600.0) -> str:
    """A bearer token as Microsoft Entra ID makes it for storage; the emulator looks at its claims only."""
    claims = {
        "iss": "https://sts.windows.net/00000000-0000-4000-8000-0000000000aa/",
        "aud": "https://storage.azure.com",
        "nbf": int(now) - 600,
        "iat": int(now) - 600,
        "exp": int(now + seconds),
    }
    parts = [base64.urlsafe_b64encode(json.dumps(one).encode()).rstrip(b"=") for one in ({"alg": "RS256"}, claims)]
    return b".".join([*parts, b"c2lnbmF0dXJl"]).decode()


class Faulty(RequestsTransport):  # type: ignore[misc]  # it is Any to mypy
    """An SDK transport that gives an error instead of what the service answered, for some requests.

    Args:
        script: what to do with the next requests: a status and headers to answer with, or None to pass it on. Behind
            its end everything is passed on.
    """

    def __init__(self, script: Sequence[tuple[int, Mapping[str, str]] | None] = ()) -> None:
        super().__init__()
        self.script = list(script)
        self.requests: list[tuple[str, str]] = []

    def close(self) -> None:
        """Close; the next connection of the source under test opens it again."""
        super().close()
        self._has_been_opened = False

    def send(self, request: Any, **kwargs: Any) -> Any:
        """Send one request, and give its answer or the next fault of the script."""
        self.requests.append((request.method, request.url))
        fault = self.script.pop(0) if self.script else None
        response = super().send(request, **kwargs)
        if fault is not None:
            status, headers = fault
            code = headers.get("code", "ServerBusy")
            inner = response.internal_response
            inner._content = f"<Error><Code>{code}</Code><Message>made up</Message></Error>".encode()  # noqa: SLF001
            inner._content_consumed = True  # noqa: SLF001
            if not code:  # a proxy's page: no code, no words that the SDK knows
                inner._content = b"<html><body>busy</body></html>"  # noqa: SLF001
            response.status_code = inner.status_code = status
            response.reason = inner.reason = "made up"
            response.headers = {**response.headers, "Content-Type": "application/xml", **headers}
            response.headers |= {"x-ms-error-code": code} if code else {}
        return response
