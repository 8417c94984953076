"""The server as an ASGI application: a literal table of paths, and for each request read, admit, unpack, hand over.

Answers say what to fix and never repeat anything of the request. Order of the checks: path and method, token, size,
time, signature, packing, JSON; so an unknown sender costs no more than its headers.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from aitrail.ports import RawRecord
from aitrail.web import otlp
from aitrail.web.auth import Gate, Refusal
from aitrail.web.body import SMALL_BODY, Gone, Limits, encoding_of, read_body, records_of, unpack
from aitrail.web.intake import Answer, Committer, Posted, PushSource, Stats
from aitrail.web.respond import PATHS, Responses
from aitrail.web.settings import ReceiverSettings, paths_of

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_encode = msgspec.json.Encoder().encode
_JSON = ("content-type", "application/json")
# What Cloudflare Logpush sends to see whether a destination works; and where it keeps the token of an ownership check.
_TESTS = (b'{"content":"tests"}', b'{"content":"test"}', b"tests", b"test")
_CHALLENGE = b"ownership-challenge"
_TEST_BYTES = 512
_log = structlog.get_logger("aitrail.serve")


class Receiver(Struct):
    """One configured receiver, ready to take requests."""

    name: str
    settings: ReceiverSettings
    gate: Gate
    source: PushSource
    limits: Limits
    stats: Stats

    @property
    def otlp(self) -> bool:
        """Whether it speaks OTLP."""
        return self.settings.type == "otlp"


class _Route(Struct, frozen=True):
    receiver: Receiver
    signal: str


class App:
    """The ASGI application of ``aitrail serve``.

    Args:
        metrics: gives the text of /metrics.
        health: gives what is wrong; empty when all is well.
        metrics_gate: who may read /metrics.
        responses: the response API, where it is configured.
    """

    def __init__(
        self,
        receivers: Iterable[Receiver],
        committer: Committer,
        metrics: Callable[[], str],
        health: Callable[[], str],
        metrics_gate: Gate | None = None,
        responses: Responses | None = None,
    ) -> None:
        self._committer = committer
        self._metrics = metrics
        self._health = health
        self._metrics_gate = metrics_gate
        self._responses = responses
        self._routes = {
            path: _Route(receiver, path.rpartition("/")[2] if receiver.otlp else "")
            for receiver in receivers
            for path in paths_of(receiver.settings)
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        path = scope["path"]
        route = self._routes.get(path)
        if route is not None:
            await self._post(route, scope, receive, send)
        elif path == "/health":
            await self._say_health(scope, send)
        elif path == "/metrics":
            await self._say_metrics(scope, send)
        elif self._responses is not None and path in PATHS:
            await self._respond_to(self._responses, scope, receive, send)
        else:
            await _refuse(send, Refusal(404, "path_unknown", "no receiver has this path; see [receivers.*].path"))

    # --- what the server says about itself

    async def _say_health(self, scope: Scope, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            await _refuse(send, _only("GET"))
            return
        trouble = self._health()
        body = _encode({"status": "failing", "reason": trouble} if trouble else {"status": "ok"})
        await _respond(send, 503 if trouble else 200, body, (_JSON,))

    async def _say_metrics(self, scope: Scope, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            await _refuse(send, _only("GET"))
            return
        if self._metrics_gate is not None:
            refusal = self._metrics_gate.admit_headers(_headers(scope))
            if refusal is not None:
                await _refuse(send, refusal)
                return
        text = await asyncio.to_thread(self._metrics)
        kind = ("content-type", "text/plain; version=0.0.4; charset=utf-8")
        await _respond(send, 200, text.encode(), (kind,))

    # --- what a SIEM asks for

    async def _respond_to(self, responses: Responses, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            found = await responses.take(scope["path"], scope["method"], _headers(scope), receive)
        except Gone:
            return
        if isinstance(found, Refusal):
            await _refuse(send, found)
        else:
            await _respond(send, 200, _encode(found), (_JSON,))

    # --- what is posted

    async def _post(self, route: _Route, scope: Scope, receive: Receive, send: Send) -> None:
        receiver = route.receiver
        headers = _headers(scope)
        media = otlp.media_type(headers) if receiver.otlp else otlp.JSON
        try:
            found = await self._take(route, scope, headers, media, receive)
        except Gone:
            receiver.stats.requests["gone"] += 1
            return
        receiver.stats.requests[found.code if isinstance(found, Refusal) else "accepted"] += 1
        shown = media if isinstance(media, str) else otlp.JSON
        if isinstance(found, Refusal):
            body = otlp.failure(found, shown) if receiver.otlp else None
            await _refuse(send, found, body, shown)
            return
        receiver.stats.records += found.records
        rejected = sum(found.rejected.values())
        receiver.stats.rejected += rejected
        if receiver.otlp:
            why = ", ".join(f"{code}: {count}" for code, count in found.rejected.items())
            await _respond(send, 200, otlp.success(route.signal, shown, rejected, why), (("content-type", shown),))
            return
        told: dict[str, Any] = {"records": found.records, "accepted": max(0, found.records - rejected)}
        if rejected:
            told |= {"rejected": rejected, "reasons": dict(found.rejected)}
        await _respond(send, 202, _encode(told), (_JSON,))

    async def _take(
        self, route: _Route, scope: Scope, headers: Mapping[str, str], media: str | Refusal, receive: Receive
    ) -> Answer | Refusal:
        """Check, read, unpack, and wait until it is durable."""
        receiver = route.receiver
        if scope["method"] != "POST":
            return _only("POST")
        refusal = receiver.gate.admit_headers(headers)
        if refusal is not None:
            return refusal
        if isinstance(media, Refusal):
            return media
        encoding = encoding_of(headers)
        if isinstance(encoding, Refusal):
            return encoding
        body = await read_body(receive, headers, receiver.limits)
        if isinstance(body, Refusal):
            return body
        receiver.stats.bytes += len(body)
        admitted = receiver.gate.admit_body(headers, body)
        if isinstance(admitted, Refusal):
            return admitted
        answer: Answer | Refusal = Answer(False)
        try:
            answer = await self._durable(route, body, encoding, media)
        finally:
            admitted.end(isinstance(answer, Answer) and answer.taken)
        return answer

    async def _durable(self, route: _Route, body: bytes, encoding: str, media: str) -> Answer | Refusal:
        receiver = route.receiver
        if len(body) > SMALL_BODY:
            records = await asyncio.to_thread(_open, route, body, encoding, media)
        else:
            records = _open(route, body, encoding, media)
        if isinstance(records, Refusal):
            return records
        if not records:
            return Answer(True)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()

        def done(answer: Answer) -> None:
            loop.call_soon_threadsafe(_settle, future, answer)

        posted = Posted(
            receiver=receiver.source.name,
            records=records,
            size=sum(len(record.data) for record in records),
            done=done,
            record_type="otel_genai" if receiver.otlp else "",
            fingerprint=receiver.source.fingerprint(body),
        )
        answer = self._committer.post(posted) or await future
        if answer.taken:
            return answer
        return Refusal(503, answer.code, answer.message, answer.retry_after)


def _open(route: _Route, body: bytes, encoding: str, media: str) -> list[RawRecord] | Refusal:
    """Unpack a body and cut it into records; OTLP in protobuf becomes OTLP/JSON, one record for one export."""
    text = unpack(body, encoding, route.receiver.limits)
    if isinstance(text, Refusal):
        return text
    if not route.receiver.otlp:
        if len(text) <= _TEST_BYTES and _is_test(text):
            _log.warning("a test of the destination came and was answered", receiver=route.receiver.name)
            return []
        return records_of(text)
    if media == otlp.PROTOBUF:
        converted = otlp.to_json(text, route.signal)
        return converted if isinstance(converted, Refusal) else [RawRecord(converted, end=len(converted))]
    records = records_of(text)
    if isinstance(records, list) and len(records) != 1:
        return Refusal(400, "json_invalid", "send one OTLP export as one JSON object")
    return records


def _is_test(text: bytes) -> bool:
    """Whether this is Cloudflare's test of a destination and not a record."""
    bare = text.translate(None, b" \t\r\n")
    return bare in _TESTS or (_CHALLENGE in bare and bare.startswith(b'{"content":'))


def _settle(future: "asyncio.Future[Answer]", answer: Answer) -> None:
    if not future.done():  # the sender may have hung up meanwhile
        future.set_result(answer)


def _headers(scope: Scope) -> dict[str, str]:
    """Headers by lower-case name; of several of one name the first, so that nobody can add one behind a proxy's."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
    return found


def _only(method: str) -> Refusal:
    return Refusal(405, "method_unknown", f"this path answers {method}")


async def _refuse(send: Send, refusal: Refusal, body: bytes | None = None, media: str = otlp.JSON) -> None:
    headers = [("content-type", media)]
    if refusal.retry_after is not None:
        headers.append(("retry-after", str(max(1, round(refusal.retry_after)))))
    if refusal.status == 401:
        headers.append(("www-authenticate", "Bearer"))
    if refusal.status in (408, 413):
        headers.append(("connection", "close"))  # the rest of the body is not read
    if refusal.status == 415:
        headers.append(("accept-encoding", "gzip, zstd"))
    told = body if body is not None else _encode({"error": refusal.code, "message": refusal.message})
    await _respond(send, refusal.status, told, headers)


async def _respond(send: Send, status: int, body: bytes, headers: Iterable[tuple[str, str]]) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers]
    raw.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
