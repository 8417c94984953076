"""Lambda's own bootstrap (awslambdaric) with our handler, against a small server of the Lambda Runtime API.

Source: Lambda developer guide, "Using the Lambda runtime API". The server hands out events, and the process is ended
like Lambda ends one that takes too long.
"""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from aitrail.testing.aws_flow import MORNING, invocation_record
from aitrail.testing.lambda_place import Place, queue_event, subscription
from aitrail.testing.peer import Behaviour

_ARN = "arn:aws:lambda:us-east-1:111122223333:function:aitrail-reader"
PREFIX = "/2018-06-01/runtime"


class RuntimeApi:
    """The server; ``said`` gets (path behind the prefix, body) of whatever the bootstrap posts."""

    def __init__(self) -> None:
        self.events: queue.Queue[tuple[str, Any, float] | None] = queue.Queue()
        self.said: queue.Queue[tuple[str, Any]] = queue.Queue()
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                assert self.path == f"{PREFIX}/invocation/next"
                api.said.put(("next", None))
                event = api.events.get()
                if event is None:
                    self.close_connection = True
                    return
                ident, body, seconds = event
                data = json.dumps(body).encode()
                self.send_response(200)
                for name, value in (
                    ("Lambda-Runtime-Aws-Request-Id", ident),
                    ("Lambda-Runtime-Deadline-Ms", str(int((time.time() + seconds) * 1_000))),
                    ("Lambda-Runtime-Invoked-Function-Arn", _ARN),
                    ("Lambda-Runtime-Trace-Id", "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700"),
                    ("Content-Type", "application/json"), ("Content-Length", str(len(data))),
                ):  # fmt: skip
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                api.said.put((self.path.removeprefix(PREFIX), json.loads(body or b"null")))
                self.send_response(202)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def take(self, seconds: float = 60.0) -> tuple[str, Any]:
        return self.said.get(timeout=seconds)

    def close(self) -> None:
        self.events.put(None)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Function:
    """A process of Lambda's bootstrap."""

    def __init__(self, api: RuntimeApi, environment: dict[str, str], handler: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "awslambdaric", handler], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, **environment, "AWS_LAMBDA_RUNTIME_API": api.address,
                 "AWS_LAMBDA_FUNCTION_NAME": "aitrail",
                 "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1024",
                 "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/aitrail", "AWS_LAMBDA_LOG_STREAM_NAME": "one",
                 "LAMBDA_TASK_ROOT": "/nonexistent"},
        )  # fmt: skip

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def place() -> Iterator[Place]:
    one = Place()
    yield one
    one.close()


@pytest.fixture
def api() -> Iterator[RuntimeApi]:
    one = RuntimeApi()
    yield one
    one.close()


@pytest.fixture
def started(place: Place, api: RuntimeApi) -> Iterator[list[Function]]:
    running: list[Function] = []
    yield running
    for one in running:
        one.close()


HANDLER = "aitrail.runtime.aws_lambda.handler"


def test_init_invoke_error_and_time_out(place: Place, api: RuntimeApi, started: list[Function]) -> None:
    started.append(Function(api, place.environment(), HANDLER))
    assert api.take() == ("next", None)  # the handler was imported
    # An invocation with its answer.
    event = queue_event([("m-1", place.objects.told(place.objects.log(5)), "h")])
    api.events.put(("r-1", event, 30.0))
    assert api.take() == ("/invocation/r-1/response", {"batchItemFailures": []})
    assert api.take() == ("next", None)
    assert place.arrived() == place.objects.expected
    # One that fails: the bootstrap reports the error, without content, and asks for the next event.
    secret = {"awslogs": {"data": subscription([invocation_record(1, MORNING)])}}
    place.hec.script(Behaviour("throttle", retry_after="3600", times=0))
    api.events.put(("r-2", secret, 30.0))
    path, error = api.take()
    assert path == "/invocation/r-2/error"
    assert error["errorType"] == "GivenBackError"
    assert "destination:siem" in error["errorMessage"]
    assert "question" not in json.dumps(error)
    assert api.take() == ("next", None)
    # The time that is left decides, not a signal: nothing is begun that cannot be ended, and the answer comes in time.
    place.hec.heal()
    began = time.monotonic()
    late = queue_event([("m-2", place.objects.told(place.objects.log(5)), "h")])
    api.events.put(("r-3", late, 0.9))  # less than the margin
    assert api.take() == ("/invocation/r-3/response", {"batchItemFailures": [{"itemIdentifier": "m-2"}]})
    assert time.monotonic() - began < 20.0
    assert len(place.arrived()) == 5
    assert api.take() == ("next", None)
    # A process that is ended in the middle, and its successor: the event is handed over again, nothing is lost.
    place.hec._server._latency = 30.0
    api.events.put(("r-4", late, 60.0))
    deadline = time.monotonic() + 30
    while place.hec.traffic.requests < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert place.hec.traffic.requests == 2
    started[0].close()
    place.hec._server._latency = 0.0
    started.append(Function(api, place.environment(), HANDLER))
    assert api.take() == ("next", None)
    api.events.put(("r-5", late, 30.0))
    assert api.take() == ("/invocation/r-5/response", {"batchItemFailures": []})
    assert set(place.arrived()) == set(place.objects.expected)


def test_a_handler_that_cannot_be_imported(place: Place, api: RuntimeApi, started: list[Function]) -> None:
    """Init fails: Lambda is told so before any event is asked for."""
    started.append(Function(api, place.environment(), "aitrail.runtime.aws_lambda.no_such_handler"))
    path, error = api.take()
    assert path == "/init/error"
    assert "no_such_handler" in error["errorMessage"]
