"""A moto server for tests: S3, SQS, CloudWatch Logs and STS over real HTTP, started once per process.

``gate()`` puts a gate in front of it that forwards every request as it is, except where a test wants a fault: a code
for an operation, a body that is cut off. The names of buckets, queues and groups are the caller's to make unique.
"""

import contextlib
import http.client
import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from botocore.config import Config
from msgspec import Struct

from aitrail.sources._aws_calls import new_session

KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
REGION = "us-east-1"


@lru_cache(maxsize=1)
def moto_url() -> str:
    """Start the server and give its URL."""
    from moto.server import ThreadedMotoServer  # noqa: PLC0415 - a second of imports that only its users pay

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    return f"http://{host}:{port}"


@lru_cache(maxsize=16)
def aws_client(service: str, url: str = "", region: str = REGION) -> Any:
    """A client of the server for setting up and looking."""
    session = new_session()
    config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})
    return session.create_client(
        service, region_name=region, endpoint_url=url or moto_url(), aws_access_key_id=KEY,
        aws_secret_access_key=SECRET, config=config,
    )  # fmt: skip


class Fault(Struct):
    """What the gate does with requests of one operation.

    Attributes:
        operation: ``GetObject``, ``ReceiveMessage``, ...; ``*``: any.
        code: the error code of the answer; empty: the request is forwarded, see ``cut``.
        status: HTTP status of the error.
        times: how many requests are answered so; the rest is forwarded.
        cut: forward, and break the connection after this many bytes of the body.
        key: only requests whose path or body holds this text.
        after: let this many matching requests pass before.
    """

    operation: str
    code: str = ""
    status: int = 400
    times: int = 1
    cut: int = -1
    key: str = ""
    after: int = 0


class Gate:
    """A forwarding server that can fail on purpose.

    Attributes:
        url: where it listens.
        calls: operations, in the order in which they came.
        on_call: called with the operation before it is forwarded.
    """

    def __init__(self, upstream: str) -> None:
        self.calls: list[str] = []
        self.identities: list[str] = []
        self.faults: list[Fault] = []
        self.on_call: Callable[[str], None] = lambda operation: None
        self._upstream = upstream.removeprefix("http://")
        self._lock = threading.Lock()
        gate = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                gate.serve(self)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve  # noqa: N815 - names of http.server

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - name of http.server
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        operation = operation_of(request.command, request.path, dict(request.headers.items()), body)
        identity = re.search(r"Credential=([^/]+)/", request.headers.get("Authorization", ""))
        with self._lock:
            self.calls.append(operation)
            self.identities.append(identity[1] if identity else "")
            fault = self._fault(operation, request.path + body.decode("latin-1"))
        self.on_call(operation)
        with contextlib.suppress(ConnectionError):
            if fault is not None and fault.code:
                _refuse(request, fault)
            else:
                self._forward(request, body, fault.cut if fault is not None else -1)

    def _fault(self, operation: str, text: str) -> Fault | None:
        for fault in self.faults:
            if fault.operation in ("*", operation) and fault.key in text and fault.times > 0:
                if fault.after > 0:
                    fault.after -= 1
                    continue
                fault.times -= 1
                return fault
        return None

    def _forward(self, request: BaseHTTPRequestHandler, body: bytes, cut: int) -> None:
        connection = http.client.HTTPConnection(self._upstream, timeout=30)
        try:
            connection.request(request.command, request.path, body, dict(request.headers.items()))
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        request.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                request.send_header(name, value)
        length = answer.getheader("Content-Length") if request.command == "HEAD" else str(len(data))
        request.send_header("Content-Length", length or "0")
        request.end_headers()
        if cut >= 0:
            request.wfile.write(data[:cut])
            request.close_connection = True
        else:
            request.wfile.write(data)


def _refuse(request: BaseHTTPRequestHandler, fault: Fault) -> None:
    if request.headers.get("X-Amz-Target"):
        text, kind = f'{{"__type":"{fault.code}","message":"by order of the test"}}', "application/x-amz-json-1.1"
    else:
        text = f"<Error><Code>{fault.code}</Code><Message>by order of the test</Message></Error>"
        if b"Action=" in request.requestline.encode() or request.headers.get("Content-Type", "").startswith(
            "application/x-www-form"
        ):
            text = f"<ErrorResponse>{text}<RequestId>1</RequestId></ErrorResponse>"
        kind = "application/xml"
    data = text.encode()
    request.send_response(fault.status)
    request.send_header("Content-Type", kind)
    request.send_header("Content-Length", str(len(data)))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(data)


def operation_of(method: str, path: str, headers: Mapping[str, str], body: bytes) -> str:
    """The name of the operation of a request."""
    target = headers.get("X-Amz-Target")
    if target:
        return target.rpartition(".")[2]
    action = re.search(rb"(?:^|&)Action=(\w+)", body)
    if action:
        return action[1].decode()
    if method == "GET":
        return "ListObjectsV2" if "list-type=2" in path else "GetObject"
    return {"PUT": "PutObject", "HEAD": "HeadObject", "DELETE": "DeleteObject"}.get(method, method)


@contextlib.contextmanager
def gate() -> Iterator[Gate]:
    """A gate in front of the moto server."""
    one = Gate(moto_url())
    try:
        yield one
    finally:
        one.close()
