"""A function app under test: the platform's own classes in, the state in Azurite, a data collection endpoint behind.

The Functions host itself runs nowhere but on its platform. What it does with an app is done here with the classes of
``azure-functions``, as the Python worker does it: import, ask for the functions and their bindings once, decode trigger
data with its converters, call. The identity endpoint is the platform's REST interface.
"""

import contextlib
import http.server
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import azure.functions as func
from azure.functions.eventhub import EventHubTriggerConverter
from azure.functions.meta import Datum
from azure.functions.timer import TimerRequestConverter

from aitrail.clock import iso_ms
from aitrail.runtime.azure_function import make_app
from aitrail.runtime.scheduled.azure_runs import Runs
from aitrail.testing.azure_storage import token_of

SECRET = "a-header-of-the-sandbox"  # noqa: S105 - of a made-up sandbox
NAMESPACE = "acme.servicebus.windows.net"


class IdentityEndpoint:
    """The managed-identity endpoint of a function app's sandbox, on 127.0.0.1.

    Attributes:
        tokens: by resource, what gives the token.
        asked: the queries that came.
        status: what it answers; anything but 200 is without a token.
    """

    def __init__(self) -> None:
        self.tokens: dict[str, Callable[[], str]] = {"https://storage.azure.com": lambda: token_of(time.time())}
        self.asked: list[dict[str, str]] = []
        self.status = 200
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = endpoint.answer(self.path, self.headers)
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                with contextlib.suppress(ConnectionError):  # a worker that was killed does not read it
                    self.end_headers()
                    self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def settings(self) -> dict[str, str]:
        """What the platform puts into the environment."""
        address = f"http://127.0.0.1:{self._server.server_address[1]}/msi/token"
        return {"IDENTITY_ENDPOINT": address, "IDENTITY_HEADER": SECRET, "AZURE_CLIENT_ID": "client-of-the-app"}

    def answer(self, path: str, headers: Any) -> tuple[int, Any]:
        """Answer one request."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(path).query).items()}
        if headers.get("X-IDENTITY-HEADER") != SECRET:
            return 401, {"statusCode": 401, "message": "no secret"}
        self.asked.append(query)
        make = self.tokens.get(query.get("resource", "").rstrip("/"))
        if self.status != 200 or make is None or query.get("api-version") != "2019-08-01":
            return (self.status if self.status != 200 else 400), {"statusCode": 400, "message": "no identity"}
        expires = str(int(time.time()) + 3_600)
        return 200, {
            "access_token": make(),
            "expires_on": expires,
            "resource": query["resource"],
            "token_type": "Bearer",
        }

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


def event_batch(
    bodies: Sequence[bytes],
    first: int = 0,
    *,
    partition: str = "0",
    hub: str = "ai-logs",
    enqueued: float | None = None,
) -> list[func.EventHubEvent]:
    """Messages as the worker decodes them of what the host sends for a batch (cardinality many, binary)."""
    at = time.time() if enqueued is None else enqueued
    properties = [
        {
            "SequenceNumber": first + number,
            "Offset": str((first + number) * 64),
            "PartitionKey": None,
            "EnqueuedTimeUtc": iso_ms(at),
        }
        for number in range(len(bodies))
    ]
    place = {
        "FullyQualifiedNamespace": NAMESPACE,
        "EventHubName": hub,
        "ConsumerGroup": "aitrail",
        "PartitionId": partition,
        "IsCheckpointingAfterInvocation": True,
    }
    metadata = {
        "SystemPropertiesArray": Datum(json.dumps(properties), "json"),
        "PropertiesArray": Datum(json.dumps([{} for _ in bodies]), "json"),
        "PartitionContext": Datum(json.dumps(place), "json"),
        "sys": Datum(json.dumps({"MethodName": "hub", "UtcNow": iso_ms(at), "RandGuid": "r"}), "json"),
    }
    data = Datum(SimpleNamespace(bytes=list(bodies)), "collection_bytes")
    found: Any = EventHubTriggerConverter.decode(data, trigger_metadata=metadata)
    return list(found)


def timer(*, past_due: bool = False) -> Any:
    """A timer's request as the worker decodes it."""
    told = {
        "Schedule": {"AdjustForDST": True},
        "ScheduleStatus": {"Last": "2026-11-23T09:00:00", "Next": "2026-11-23T09:05:00"},
        "IsPastDue": past_due,
    }
    return TimerRequestConverter.decode(Datum(json.dumps(told), "json"), trigger_metadata={})


class Worker:
    """An app as the Python worker holds it: its functions are asked for once, and called by name."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._runs: list[Runs] = []
        self.app = make_app(environment, self._runs)
        self.functions = {one.get_function_name(): one for one in self.app.get_functions()}
        self.bindings = {name: json.loads(one.get_function_json()) for name, one in self.functions.items()}

    def call(self, name: str, argument: Any) -> Any:
        """Call a function; raises what it raises."""
        return self.functions[name].get_user_function()(argument)

    def close(self) -> None:
        """End it in order; the platform's workers are simply killed."""
        for one in self._runs:
            one.close()
