"""A fake of CloudTrail's LookupEvents and ListPublicKeys over HTTP, with the habits of the real one.

Events come newest first (equal times in no promised order), at most 50 a page; more than two calls a second are
throttled; a page token is bound to its parameters and can expire; an event is not there until it was *delivered*, which
may be long after its time and before older ones. Time is the caller's clock. CloudTrail API reference, "LookupEvents".
"""

import base64
import contextlib
import json
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from msgspec import Struct

from aitrail.clock import Clock

_PAGE = 50


class HistoryEvent(Struct, frozen=True):
    """One event: its time, when it can be seen first (both epoch seconds), and its record."""

    id: str
    time: float
    delivered: float
    record: str
    source: str = "bedrock.amazonaws.com"


class History:
    """The server.

    Attributes:
        url: where it listens.
        events: the history; a test adds to it.
        calls, throttled: counts.
        expire_tokens: how many of the next page tokens are answered as expired.
        loop_pages: how many of the next answers repeat the token that was asked with.
        empty_pages: how many of the next pages are empty and have a token.
        public_keys: fingerprint -> DER (PKCS #1).
    """

    def __init__(self, clock: Clock, *, rate: float = 2.0) -> None:
        self.events: list[HistoryEvent] = []
        self.calls = 0
        self.throttled = 0
        self.expire_tokens = 0
        self.loop_pages = 0
        self.empty_pages = 0
        self.errors: deque[str] = deque()
        self.public_keys: dict[str, bytes] = {}
        self._clock = clock
        self._rate = rate
        self._recent: dict[str, deque[float]] = {}
        self._lock = threading.Lock()
        history = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                operation = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
                with history._lock:
                    # ``Credential=KEY/DATE/REGION/...``: the limit holds per account and region.
                    scope = self.headers.get("Authorization", "").partition("Credential=")[2].split("/")
                    place = "/".join((scope[0], *scope[2:3]))
                    status, answer = history.answer(operation, json.loads(body or b"{}"), place)
                data = json.dumps(answer).encode()
                with contextlib.suppress(ConnectionError):
                    self.send_response(status)
                    self.send_header("Content-Type", "application/x-amz-json-1.1")
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)

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

    def answer(self, operation: str, body: Mapping[str, Any], place: str) -> tuple[int, dict[str, Any]]:
        """Answer one call of one account and region: HTTP status and body."""
        if self.errors:
            return 400, {"__type": self.errors.popleft(), "message": "by order of the test"}
        if operation == "ListPublicKeys":
            return 200, {"PublicKeyList": [self._key(name) for name in self.public_keys]}
        if operation != "LookupEvents":
            return 400, {"__type": "UnknownOperationException", "message": operation}
        now = self._clock.monotonic()
        self.calls += 1
        # More than `rate` calls within one second: the last ones are refused, and refused calls do not count.
        recent = self._recent.setdefault(place, deque())
        while recent and now - recent[0] >= 1.0 - 1e-9:
            recent.popleft()
        if len(recent) >= self._rate:
            self.throttled += 1
            return 400, {"__type": "ThrottlingException", "message": "Rate exceeded"}
        recent.append(now)
        return self._lookup(body)

    def _key(self, name: str) -> dict[str, Any]:
        value = base64.b64encode(self.public_keys[name]).decode()
        return {"Value": value, "Fingerprint": name, "ValidityStartTime": 0, "ValidityEndTime": 4_000_000_000}

    def _lookup(self, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        asked = {name: value for name, value in body.items() if name != "NextToken"}
        place: list[Any] = []
        token = body.get("NextToken")
        if token:
            try:
                held = json.loads(base64.b64decode(token))
            except ValueError:
                held = {}
            if self.expire_tokens > 0 or held.get("asked") != asked:
                self.expire_tokens = max(0, self.expire_tokens - 1)
                return 400, {"__type": "InvalidNextTokenException", "message": "Invalid or expired token"}
            if self.loop_pages > 0:
                self.loop_pages -= 1
                return 200, {"Events": [], "NextToken": token}
            place = held["place"]
        if self.empty_pages > 0:
            self.empty_pages -= 1
            return 200, {"Events": [], "NextToken": self._token(asked, place, self.empty_pages)}
        # A page goes on behind the last event of the one before: what is delivered meanwhile in front is not seen.
        visible = [event for event in self._visible(body) if not place or _order(event) > place]
        size = min(_PAGE, int(body.get("MaxResults", _PAGE)))
        page = visible[:size]
        answer: dict[str, Any] = {"Events": [_shown(event) for event in page]}
        if size < len(visible):
            answer["NextToken"] = self._token(asked, _order(page[-1]))
        return 200, answer

    def _visible(self, body: Mapping[str, Any]) -> list[HistoryEvent]:
        """What can be seen now. The order within one second is turned over: nobody has promised any."""
        wanted = {one["AttributeValue"] for one in body.get("LookupAttributes", [])}
        now = self._clock.now()
        found = [
            event
            for event in self.events
            if event.delivered <= now
            and body.get("StartTime", 0) <= event.time <= body.get("EndTime", now) + 0.999
            and (not wanted or event.source in wanted)
        ]
        return sorted(found, key=_order)

    def _token(self, asked: Mapping[str, Any], place: list[Any], salt: int = 0) -> str:
        return base64.b64encode(json.dumps({"asked": asked, "place": place, "salt": salt}).encode()).decode()


def _order(event: HistoryEvent) -> list[Any]:
    return [-int(event.time), event.id[::-1]]


def _shown(event: HistoryEvent) -> dict[str, Any]:
    return {
        "EventId": event.id,
        "EventTime": int(event.time),
        "EventSource": event.source,
        "CloudTrailEvent": event.record,
        "Resources": [],
    }


@contextlib.contextmanager
def history(clock: Clock, *, rate: float = 2.0) -> Iterator[History]:
    """A history that listens while the block runs."""
    one = History(clock, rate=rate)
    try:
        yield one
    finally:
        one.close()
