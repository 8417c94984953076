"""The receiver as an ASGI application over a fake flow: answers, group commits, what a failing commit does."""

import asyncio
import gzip
import json
import threading
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

import pytest

from aitrail.errors import TransientError
from aitrail.normalize.outcome import Rejected
from aitrail.pipeline import Totals
from aitrail.ports import Budget
from aitrail.testing.served import wait_for
from aitrail.web.app import App, Receiver
from aitrail.web.auth import Gate
from aitrail.web.body import Limits
from aitrail.web.intake import Committer, PushSource, Stats
from aitrail.web.metrics import render
from aitrail.web.settings import ReceiverSettings

LIMITS = Limits(body=1 << 20, text=4 << 20, ratio=100, seconds=5.0)
RIGHT = {"authorization": "Bearer right"}
OTLP = {"content-type": "application/json"}


class Vault:
    def resolve(self, reference: str) -> str:
        return reference.removeprefix("env:")


class Clock:
    def now(self) -> float:
        return 0.0

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        pass


class Flow:
    """A pipeline without a store: rejects records that say so, fails while it is told to, counts commits."""

    def __init__(self, source: PushSource, world: "World") -> None:
        self.source, self.world = source, world

    def run(self, budget: Budget | None = None, *, flush_older_than: float | None = None) -> Totals:
        self.world.gate.wait(10)
        totals = Totals()
        batches = list(self.source.fetch(None, Budget()))  # type: ignore[arg-type]
        if self.world.trouble is not None:
            raise self.world.trouble
        for batch in batches:
            for record in batch.records:
                totals.records += 1
                if b"bad" in record.data:
                    self.source.refused(batch.origin, Rejected("type_unknown"))
        self.world.commits.append(totals.records)
        self.source.acknowledge([batch.receipt for batch in batches])
        return totals


class World:
    def __init__(self, waiting: int = 1 << 20, **settings: Any) -> None:
        self.trouble: BaseException | None = None
        self.commits: list[int] = []
        self.crashes: list[BaseException] = []
        self.gate = threading.Event()
        self.gate.set()
        self.committer = Committer(waiting, self.crashes.append, lambda: 0.0)
        self.receivers = [
            self._receiver("x", ReceiverSettings(path="/x", tokens=("env:right",), **settings)),
            self._receiver("o", ReceiverSettings(type="otlp", open=True)),
        ]
        self.health = ""
        self.app = App(
            self.receivers, self.committer, lambda: render(self.receivers, self.committer), lambda: self.health
        )
        self.committer.start()

    def _receiver(self, name: str, settings: ReceiverSettings) -> Receiver:
        source = PushSource(name, b"key")
        self.committer.add(source, lambda of: Flow(of, self), 0.0)
        return Receiver(name, settings, Gate(name, settings, Vault(), Clock()), source, LIMITS, Stats())

    async def call(
        self, path: str, body: bytes = b"", headers: dict[str, str] | None = None, method: str = "POST"
    ) -> tuple[int, dict[str, str], bytes]:
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        await self.app({"type": "http", "method": method, "path": path, "headers": raw}, receive, send)
        named = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], named, sent[1]["body"]

    def __call__(self, *args: Any, **more: Any) -> tuple[int, dict[str, str], bytes]:
        return asyncio.run(self.call(*args, **more))


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.gate.set()
    made.committer.stop(10)
    assert not made.committer.alive


def test_taken(world: World) -> None:
    status, headers, body = world("/x", b'[{"a":1},{"b":2}]', RIGHT)
    assert (status, json.loads(body)) == (202, {"records": 2, "accepted": 2})
    assert headers["content-type"] == "application/json"
    assert world.commits == [2]


def test_some_are_bad(world: World) -> None:
    status, _, body = world("/x", b'{"a":1}\n{"bad":2}\n{"bad":3}\n', RIGHT)
    assert status == 202
    assert json.loads(body) == {"records": 3, "accepted": 1, "rejected": 2, "reasons": {"type_unknown": 2}}


SECRET_TEXT = "the-text-of-a-prompt"


@pytest.mark.parametrize(
    ("path", "body", "headers", "method", "status", "code"),
    [
        ("/y", b"{}", RIGHT, "POST", 404, "path_unknown"),
        ("/x/", b"{}", RIGHT, "POST", 404, "path_unknown"),
        ("/x", b"", RIGHT, "GET", 405, "method_unknown"),
        ("/x", b"{}", {}, "POST", 401, "token_missing"),
        ("/x", b"{}", {"authorization": "Bearer wrong"}, "POST", 403, "token_wrong"),
        ("/x", b"", RIGHT, "POST", 400, "body_empty"),
        ("/x", b'{"a": ' + SECRET_TEXT.encode(), RIGHT, "POST", 400, "json_torn"),
        ("/x", SECRET_TEXT.encode() + b"\n", RIGHT, "POST", 400, "json_invalid"),
        ("/x", b"{}", RIGHT | {"content-encoding": "br"}, "POST", 415, "encoding_unknown"),
        ("/x", SECRET_TEXT.encode(), RIGHT | {"content-encoding": "gzip"}, "POST", 400, "encoding_wrong"),
        ("/x", b"{}", RIGHT | {"content-length": "99999999"}, "POST", 413, "body_too_large"),
        ("/x", gzip.compress(b"\0" * (2 << 20)), RIGHT | {"content-encoding": "gzip"}, "POST", 413, "bomb_ratio"),
    ],
)
def test_refused(
    world: World, path: str, body: bytes, headers: dict[str, str], method: str, status: int, code: str
) -> None:
    found, answered, told = world(path, body, headers, method=method)
    assert (found, json.loads(told)["error"]) == (status, code)
    assert SECRET_TEXT not in told.decode()
    assert len(json.loads(told)["message"]) > 15
    assert world.commits == []
    assert "right" not in told.decode()
    assert answered.get("www-authenticate", "") == ("Bearer" if status == 401 else "")


def test_of_two_tokens_the_first_header_counts(world: World) -> None:
    async def go() -> int:
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"{}", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        raw = [(b"authorization", b"Bearer wrong"), (b"Authorization", b"Bearer right")]
        await world.app({"type": "http", "method": "POST", "path": "/x", "headers": raw}, receive, send)
        return int(sent[0]["status"])

    assert asyncio.run(go()) == 403


def test_nothing_is_taken_when_the_store_is_full(world: World) -> None:
    world.trouble = TransientError("disk full", retry_after=7)
    status, headers, body = world("/x", b'{"a":1}', RIGHT)
    assert (status, headers["retry-after"], json.loads(body)["error"]) == (503, "7", "store_full")
    assert world.committer.trouble == "disk full"
    assert "aitrail_receiver_refusing 1" in render(world.receivers, world.committer)
    world.trouble = None
    assert world("/x", b'{"a":1}', RIGHT)[0] == 202
    wait_for("the end of the trouble", lambda: not world.committer.trouble)
    assert world.commits == [1]


def test_a_bug_ends_everything_and_nobody_is_told_202(world: World) -> None:
    world.trouble = ZeroDivisionError()
    assert world("/x", b'{"a":1}', RIGHT)[0] == 503
    assert [type(crash) for crash in world.crashes] == [ZeroDivisionError]
    assert world("/x", b'{"a":1}', RIGHT)[0] == 503
    assert world.commits == []


def test_the_outbox_is_over_its_limit(world: World) -> None:
    world.committer.paused = "1 byte waits"
    status, headers, body = world("/x", b'{"a":1}', RIGHT)
    assert (status, headers["retry-after"], json.loads(body)["error"]) == (503, "5", "outbox_full")


def test_many_requests_share_a_commit(world: World) -> None:
    world.gate.clear()

    async def go() -> list[int]:
        calls = [asyncio.create_task(world.call("/x", b'{"a":1}', RIGHT)) for _ in range(50)]
        await asyncio.sleep(0.1)
        assert not any(call.done() for call in calls)  # nobody is told anything before the commit
        world.gate.set()
        return [(await call)[0] for call in calls]

    assert asyncio.run(go()) == [202] * 50
    assert sum(world.commits) == 50
    assert len(world.commits) <= 3


def test_what_waits_is_bounded() -> None:
    world = World(waiting=100)
    world.gate.clear()

    async def go() -> list[int]:
        calls = [asyncio.create_task(world.call("/x", b'{"a":"%s"}' % (b"x" * 60), RIGHT)) for _ in range(5)]
        await asyncio.sleep(0.1)
        world.gate.set()
        return sorted([(await call)[0] for call in calls])

    assert asyncio.run(go()) == [202, 503, 503, 503, 503]
    assert world("/x", b"{}", RIGHT)[0] == 202
    world.committer.stop(10)


def test_a_stopping_server_takes_nothing_more(world: World) -> None:
    world.committer.stop(10)
    assert world("/x", b"{}", RIGHT)[0] == 503


@pytest.mark.parametrize(
    "body", [b'{"content":"tests"}', b'{"content": "test"}\n', gzip.compress(b'{"content":"tests"}', mtime=0)]
)
def test_cloudflare_tests_its_destination(world: World, body: bytes) -> None:
    assert world("/x", body, RIGHT)[0] == 202
    assert world.commits == []


def test_health(world: World) -> None:
    assert world("/health", method="GET")[::2] == (200, b'{"status":"ok"}')
    world.health = "disk full"
    status, _, body = world("/health", method="GET")
    assert (status, json.loads(body)) == (503, {"status": "failing", "reason": "disk full"})
    assert world("/health", b"{}")[0] == 405


def test_metrics(world: World) -> None:
    world("/x", b"[{},{}]", RIGHT)
    world("/x", b"{}", {})
    status, headers, body = world("/metrics", method="GET")
    text = body.decode()
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'aitrail_receiver_requests_total{receiver="x",result="accepted"} 1' in text
    assert 'aitrail_receiver_requests_total{receiver="x",result="token_missing"} 1' in text
    assert 'aitrail_receiver_records_total{receiver="x"} 2' in text


# --- OTLP


def test_otlp_json(world: World) -> None:
    status, headers, body = world("/v1/traces", b'{"resourceSpans":[]}', OTLP)
    assert (status, headers["content-type"], body) == (200, "application/json", b"{}")
    status, _, body = world("/v1/logs", b'{"resourceLogs":[],"bad":1}', OTLP)
    assert json.loads(body) == {"partialSuccess": {"rejectedLogRecords": "1", "errorMessage": "type_unknown: 1"}}


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{}", {"content-type": "text/plain"}, 415),
        (b"{}", {}, 415),
        (b"{", OTLP, 400),
        (b"[{},{}]", OTLP, 400),
        (b"\xff\xff\xff", {"content-type": "application/x-protobuf"}, 400),
    ],
)
def test_otlp_refused(world: World, body: bytes, headers: dict[str, str], status: int) -> None:
    found, answered, told = world("/v1/traces", body, headers)
    assert found == status
    if answered["content-type"] == "application/json":
        assert set(json.loads(told)) == {"code", "message"}
    assert world.commits == []


def test_otlp_503_can_be_retried(world: World) -> None:
    world.trouble = TransientError("disk full")
    status, headers, body = world("/v1/traces", b'{"resourceSpans":[]}', OTLP)
    assert (status, headers["retry-after"]) == (503, "5")
    assert json.loads(body)["code"] == 14  # google.rpc UNAVAILABLE


def spans(count: int) -> Callable[[], bytes]:
    def make() -> bytes:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        request = ExportTraceServiceRequest()
        scope = request.resource_spans.add().scope_spans.add()
        for _ in range(count):
            scope.spans.add().name = "chat"
        return bytes(request.SerializeToString())

    return make


def test_otlp_protobuf(world: World) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    kind = {"content-type": "application/x-protobuf"}
    status, headers, body = world("/v1/traces", gzip.compress(spans(2)()), kind | {"content-encoding": "gzip"})
    assert (status, headers["content-type"], body) == (200, "application/x-protobuf", b"")
    from aitrail.web import otlp

    partial = ExportTraceServiceResponse.FromString(otlp.success("traces", otlp.PROTOBUF, 300, "why: 300"))
    assert (partial.partial_success.rejected_spans, partial.partial_success.error_message) == (300, "why: 300")
