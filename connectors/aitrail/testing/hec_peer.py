"""A HTTP Event Collector for tests: the documented answers of Splunk's, all its codes, acknowledgements, and faults.

It is written from the documentation and from what clients report, not from Splunk's code; where versions differ
(the base of ``invalid-event-number``, or whether it is given at all) there is a switch.
"""

import contextlib
import itertools
import json
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from aitrail.destinations._hec_codes import CODES
from aitrail.testing.certificates import Authority, Flaw
from aitrail.testing.faults import (
    HTTP_TRANSPORT_FAULTS,
    HttpServer,
    Reply,
    Request,
    http_date,
    reply_json,
    retry_header,
)
from aitrail.testing.peer import Behaviour, Fault, Peer, Script, Traffic
from aitrail.testing.surroundings import ELSEWHERE, NO_SUCH_HOST, Surroundings

_EVENT_PATHS = frozenset({"/services/collector", "/services/collector/event", "/services/collector/event/1.0"})
_ACK_PATHS = frozenset({"/services/collector/ack", "/services/collector/ack/1.0"})
_HEALTH_PATHS = frozenset({"/services/collector/health", "/services/collector/health/1.0"})
_ACK_FAULTS: frozenset[Fault] = frozenset({"ack_never", "ack_slow", "ack_lost", "ack_error", "ack_restart"})
_ELSEWHERE: frozenset[Fault] = ELSEWHERE | {"proxy_407"}
_FAULTS: frozenset[Fault] = (
    HTTP_TRANSPORT_FAULTS
    | _ELSEWHERE
    | {"throttle", "busy", "retry_items", "refuse_items", "too_large", "unauthorized", "forbidden", "rotate", "kill"}
)
# What a load balancer in front of it says, without a HEC body.
_GATEWAY_STATUSES = (500, 502, 503, 504)
_MARK = b'"fields":{"event_id":"'


class _Refused(Exception):  # noqa: N818 - ends the reading of a request
    def __init__(self, code: int, at: int) -> None:
        super().__init__(code)
        self.code = code
        self.at = at


class Taken(msgspec.Struct, frozen=True):
    """One event as it is indexed: what its envelope says, and its body as the collector understood it."""

    event_id: str
    body: bytes
    index: str
    sourcetype: str
    time: float


class _Waiting(msgspec.Struct):
    """One request that awaits its acknowledgement."""

    events: list[Taken]
    true_at: float
    lost: bool = False


class HecPeer:
    """A running collector on 127.0.0.1.

    Args:
        ack: the token uses indexer acknowledgement.
        base: what ``invalid-event-number`` counts from.
        numbers: whether it is given at all.
        tls: serve HTTPS with a certificate of a private authority.
        flaw: what is wrong with that certificate.
        index: the only index that the token may write to.
        keep: False only counts events (for measurements).
        latency: seconds before each answer.
        authority: share one; made when needed.
        token: the token that it takes; a new one unless given.
    """

    def __init__(
        self,
        *,
        ack: bool = False,
        base: int = 1,
        numbers: bool = True,
        tls: bool = False,
        flaw: Flaw = "",
        index: str = "ai_audit",
        keep: bool = True,
        latency: float = 0.0,
        authority: Authority | None = None,
        token: str = "",
    ) -> None:
        self.name = f"hec{'+ack' if ack else ''}"
        self.faults: frozenset[Fault] = _FAULTS | (_ACK_FAULTS if ack else frozenset())
        self.busy_codes: Sequence[int] = (8, 9, 18, 19, 20, 23, 26, *((27,) if ack else ()), *_GATEWAY_STATUSES)
        self._ack, self._base, self._numbers, self._index, self._keep = ack, base, numbers, index, keep
        self._around = Surroundings(tls=tls, flaw=flaw, authority=authority)
        self._lock = threading.RLock()
        self._token = token or str(uuid.uuid4())
        self._disabled = False
        self._stored: list[Taken] = []
        self._by_id: dict[str, list[bytes]] = {}
        self._channels: dict[str, dict[int, _Waiting]] = {}
        self._next_ack = itertools.count()
        self.counted = 0
        self.polls = 0
        self.skew = 0.0
        self.health = 17
        self._directory = tempfile.TemporaryDirectory(prefix="aitrail-hec-")
        token_file = Path(self._directory.name) / "token"
        token_file.write_text(self._token)
        self._script = Script(self.faults)
        self._server = HttpServer(
            self._answer, self._script, is_data=_is_data, tls=self._around.context, latency=latency
        )
        self.traffic: Traffic = self._server.traffic
        self.address: Mapping[str, str] = {
            "url": self._server.url,
            "host": "localhost",
            "port": str(self._server.tcp.port),
            "token_file": str(token_file),
            "ca_file": self._around.ca_file,
            "index": index,
            "ack": "1" if ack else "",
            "proxy": "",
        }

    # --- the peer

    def received(self) -> list[str]:
        """Ids of indexed events; without acknowledgement, of accepted ones."""
        with self._lock:
            self._index_due()
            return [one.event_id for one in self._stored]

    def indexed(self) -> list[Taken]:
        """Everything that is indexed, for searches."""
        with self._lock:
            self._index_due()
            return list(self._stored)

    def forget(self, event_id: str) -> None:
        """Lose an event, as a broken indexer does."""
        with self._lock:
            self._stored = [one for one in self._stored if one.event_id != event_id]

    def bodies(self, event_id: str) -> list[bytes]:
        """The ``event`` member of every envelope that was taken for this id."""
        with self._lock:
            self._index_due()
            return list(self._by_id.get(event_id, ()))

    def script(self, *behaviours: Behaviour) -> None:
        """Take behaviours; those that act at once do."""
        for one in behaviours:
            if one.fault not in self.faults:
                raise ValueError(f"{self.name} cannot show {one.fault}")
            if one.fault == "down":
                self._server.tcp.down()
            elif one.fault == "rotate":
                with self._lock:
                    self._token = str(uuid.uuid4())
                Path(self.address["token_file"]).write_text(self._token)
            elif one.fault == "ack_restart":
                with self._lock:
                    self._index_due()
                    self._channels.clear()
                    self._next_ack = itertools.count()
            else:
                self._script.add([one])

    def heal(self) -> None:
        """Behave well again."""
        self._script.clear()
        self.health = 17
        self._server.tcp.up()

    def elsewhere(self, fault: Fault) -> Peer:
        """Give a peer with a bad certificate, name or proxy."""
        if fault not in _ELSEWHERE:
            raise ValueError(f"{self.name} has no other peer for {fault}")
        other = self._around.elsewhere(
            fault,
            lambda flaw, authority: HecPeer(ack=self._ack, flaw=flaw, index=self._index, authority=authority),
            {"url": f"https://{NO_SUCH_HOST}:8088"},
        )
        if fault == "proxy_407":
            other.refuse_as_proxy()
        return other

    def close(self) -> None:
        """Stop, and the peers made by ``elsewhere`` with it."""
        self._around.close()
        self._server.close()
        self._directory.cleanup()

    # --- switches of the tests

    def disable_token(self, *, disabled: bool = True) -> None:
        """Disable the token at the server."""
        self._disabled = disabled

    def refuse_as_proxy(self) -> None:
        """From now on, answer everything as a proxy that wants credentials; a client is sent to it for another host."""
        self._server.refuse_as_proxy()
        self.address = self._server.address_of_proxy(self.address)

    # --- answering

    def _answer(self, request: Request, behaviour: Behaviour | None) -> Reply:
        if request.path in _HEALTH_PATHS:
            return self._say(self.health)
        if request.path in _ACK_PATHS:
            return self._polled(request)
        if request.path not in _EVENT_PATHS:
            return Reply(404, b"<html>404</html>", {"Content-Type": "text/html"})
        refusal = self._unwelcome(request, behaviour)
        if refusal is not None:
            return refusal
        with self._lock:
            return self._take(request, behaviour)

    def _unwelcome(self, request: Request, behaviour: Behaviour | None) -> Reply | None:
        """What is refused before a single event is looked at; None for nothing."""
        code = self._check_token(request)
        if code is not None:
            return self._say(code)
        fault = behaviour.fault if behaviour is not None else ""
        if behaviour is not None and fault in ("throttle", "busy"):
            number = behaviour.code or (26 if fault == "throttle" else 9)
            if number >= 100:
                return Reply(number, b"<html></html>", {"Content-Type": "text/html", **retry_header(behaviour)})
            return self._say(number, headers=retry_header(behaviour))
        if fault == "unauthorized":
            return self._say(4)
        limit = self._script.standing("too_large")
        size = len(request.plain or b"")
        if limit is not None and limit.limit and size > limit.limit:
            return Reply(413, b"<html></html>", {"Content-Type": "text/html"})
        if request.plain is None:
            return self._say(6, number=self._base if self._numbers else None)
        if not request.plain.strip():
            return self._say(5)
        if fault == "forbidden":
            return self._say(7, number=self._base)
        return None

    def _check_token(self, request: Request) -> int | None:
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        if not scheme:
            return 16 if "token" in request.query else 2
        if scheme.lower() != "splunk" or not value:
            return 3
        if value != self._token:
            return 4
        if self._disabled:
            return 1
        channel = _channel(request)
        if self._ack and not channel:
            return 10
        if self._ack:
            with contextlib.suppress(ValueError):
                uuid.UUID(channel)
                return None
            return 11
        return None

    def _take(self, request: Request, behaviour: Behaviour | None) -> Reply:
        assert request.plain is not None
        if not self._keep:
            self.counted += request.plain.count(_MARK)
            return self._accepted(request, [], behaviour)
        taken: list[Taken] = []
        poison = self._script.standing("refuse_items")
        stop_at = behaviour.every if behaviour is not None and behaviour.fault == "retry_items" else None
        try:
            for number, accepted in enumerate(self._envelopes(request.plain, poison)):
                _stop(number, stop_at)
                taken.append(accepted)
        except _Refused as refused:
            # With acknowledgement nothing of a refused request can be confirmed; whether it is kept is left open here
            # the hard way: it is kept, so that a sender that sends it again shows it.
            self._store(taken)
            return self._say(refused.code, number=refused.at + self._base if self._numbers else None)
        return self._accepted(request, taken, behaviour)

    def _accepted(self, request: Request, taken: list[Taken], behaviour: Behaviour | None) -> Reply:
        if not self._ack:
            self._store(taken)
            return self._say(0)
        ack = next(self._next_ack)
        shown = behaviour
        for fault in sorted(_ACK_FAULTS):
            shown = shown or self._script.standing(fault)
        true_at = time.monotonic()
        if shown is not None and shown.fault in ("ack_never", "ack_error"):
            true_at = float("inf")
        elif shown is not None and shown.fault == "ack_slow":
            true_at += shown.seconds
        lost = shown is not None and shown.fault == "ack_lost"
        self._channels.setdefault(_channel(request), {})[ack] = _Waiting(taken, true_at, lost)
        return self._say(0, ack=ack)

    def _polled(self, request: Request) -> Reply:
        code = self._check_token(request)
        if code is not None:
            return self._say(code)
        if not self._ack:
            return self._say(14)
        broken = self._script.standing("ack_error")
        with self._lock:
            self.polls += 1
            if broken is not None:
                return self._say(broken.code) if broken.code in CODES else Reply(broken.code or 404, b"")
            self._index_due()
            waiting = self._channels.get(_channel(request), {})
            told = {}
            for ack in msgspec.json.decode(request.plain or b"", type=dict[str, list[int]])["acks"]:
                one = waiting.get(ack)
                true = one is not None and not one.events and one.true_at <= time.monotonic()
                told[str(ack)] = true and one is not None and not one.lost
                if true:
                    # An ackId that was read as true is deleted.
                    del waiting[ack]
            return reply_json(200, {"acks": told})

    def _index_due(self) -> None:
        now = time.monotonic()
        for waiting in self._channels.values():
            for one in waiting.values():
                if one.true_at <= now and one.events:
                    self._store(one.events)
                    one.events = []

    def _store(self, events: Sequence[Taken]) -> None:
        for one in events:
            self._stored.append(one)
            self._by_id.setdefault(one.event_id, []).append(one.body)

    def _envelopes(self, text: bytes, poison: Behaviour | None) -> Iterator[Taken]:
        """Read envelopes one after the other, as HEC does: what stands before a bad one is taken."""
        refused = frozenset(poison.ids) if poison is not None else frozenset()
        decoder = json.JSONDecoder()
        try:
            rest = text.decode()
        except UnicodeDecodeError as error:
            rest = text[: error.start].decode() + "\x00"
        at = number = 0
        while True:
            while at < len(rest) and rest[at] in " \t\r\n":
                at += 1
            if at >= len(rest):
                return
            try:
                envelope, at = decoder.raw_decode(rest, at)
            except (ValueError, RecursionError):
                raise _Refused(6, number) from None
            taken = self._event(envelope, number)
            if taken.event_id in refused:
                raise _Refused(poison.code or 6 if poison is not None else 6, number)
            yield taken
            number += 1

    def _event(self, envelope: Any, number: int) -> Taken:
        if not isinstance(envelope, dict):
            raise _Refused(6, number)
        if "event" not in envelope:
            raise _Refused(12, number)
        event, fields = envelope["event"], envelope.get("fields", {})
        if event in ("", None, {}):
            raise _Refused(13, number)
        if envelope.get("index", self._index) != self._index:
            raise _Refused(7, number)
        if not isinstance(fields, dict) or any(not _flat(value) for value in fields.values()):
            raise _Refused(15, number)
        one = fields.get("event_id", "")
        if isinstance(event, dict) and event.get("event_id", one) != one:
            raise _Refused(15, number)
        try:
            seconds = float(envelope.get("time", 0.0))
        except (TypeError, ValueError):
            raise _Refused(6, number) from None
        return Taken(
            str(one),
            json.dumps(event).encode(),
            str(envelope.get("index", self._index)),
            str(envelope.get("sourcetype", "")),
            seconds,
        )

    def _say(
        self, code: int, *, number: int | None = None, ack: int | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        rule = CODES[code]
        content: dict[str, Any] = {"text": rule.meaning.capitalize(), "code": code}
        if number is not None:
            content["invalid-event-number"] = number
        if ack is not None:
            content["ackId"] = ack
        date = {"Date": http_date(time.time() + self.skew)} if self.skew else {}
        return reply_json(rule.http, content, {**(headers or {}), **date})


def _stop(number: int, stop_at: int | None) -> None:
    """The queue is full from this event on."""
    if stop_at is not None and number >= stop_at:
        raise _Refused(9, number)


def _is_data(request: Request) -> bool:
    """Whether the request brings events: an empty one only checks."""
    return request.path in _EVENT_PATHS and request.headers.get("content-length", "0") != "0"


def _channel(request: Request) -> str:
    return request.headers.get("x-splunk-request-channel", "") or request.query.get("channel", "")


def _flat(value: object) -> bool:
    """Whether an indexed field may have this value: text, or a list of texts (numbers are taken as text)."""
    if isinstance(value, list):
        return all(isinstance(one, (str, int, float)) for one in value)
    return isinstance(value, (str, int, float))
