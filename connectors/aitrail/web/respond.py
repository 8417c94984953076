"""The response API: what alert actions of a SIEM ask the collector to do, checked before anything is done.

``POST /v1/response/case`` and ``/block``, JSON, a bearer token, at most 64 KiB. Who does it is behind ``Respond``
(``aitrail.runtime.responding``). A request names its finding, or carries an ``Idempotency-Key``: the same one again is
answered with what was done, and nothing is done again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Annotated, Any, Literal, Protocol

import msgspec
from msgspec import Meta, Struct

from aitrail.errors import AitrailError
from aitrail.streams import Severity
from aitrail.web.auth import Gate, Refusal
from aitrail.web.body import Limits, read_body
from aitrail.web.settings import RESPONSE_PATHS

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Kind = Literal["credential", "user"]

PATHS = RESPONSE_PATHS
_LIMITS = Limits(body=64 << 10, text=64 << 10, ratio=1, seconds=10.0)


_Line = Annotated[str, Meta(max_length=1024, pattern=r"^[^\x00-\x1f\x7f]*\Z")]
_Said = Annotated[str, Meta(min_length=1, max_length=1024, pattern=r"^[^\x00-\x1f\x7f]*\Z")]


class Evidence(Struct, frozen=True):
    """What the alert's first result names; further names are passed over."""

    event_id: _Line = ""
    tenant_id: _Line = ""
    user_id: _Line = ""


class CaseRequest(Struct, frozen=True):
    """``/v1/response/case``."""

    title: _Said
    severity: Severity = "medium"
    finding: _Line = ""
    evidence: Evidence = Evidence()


class BlockRequest(Struct, frozen=True):
    """``/v1/response/block``."""

    kind: Kind
    value: _Said
    reason: _Said
    finding: _Line = ""
    evidence: Evidence = Evidence()


class Done(Struct, frozen=True, omit_defaults=True):
    """What was done.

    Attributes:
        id: identity of this response; of a case its number.
        state: ``opened``, ``blocked`` or ``dry_run``.
        message: in a sentence.
        gateways: where it was blocked, or would be.
        repeated: it was done before; nothing was done now.
    """

    id: str
    action: str
    state: Literal["opened", "blocked", "dry_run"]
    message: str
    finding: str = ""
    gateways: tuple[str, ...] = ()
    repeated: bool = False


class Respond(Protocol):
    """Does what is asked. Thread-safe; blocks."""

    def case(self, asked: CaseRequest, key: str) -> Done | Refusal:
        """Open a case; ``key`` is the request's own, empty when it has none."""
        ...

    def block(self, asked: BlockRequest, key: str) -> Done | Refusal:
        """Block a credential or user."""
        ...


_case = msgspec.json.Decoder(CaseRequest).decode
_block = msgspec.json.Decoder(BlockRequest).decode


class Responses:
    """The HTTP side: method, token, size, JSON; then ``Respond`` in a thread of its own."""

    def __init__(self, gate: Gate, respond: Respond) -> None:
        self._gate = gate
        self._respond = respond

    async def take(self, path: str, method: str, headers: Mapping[str, str], receive: Receive) -> Done | Refusal:
        """Answer one request to one of ``PATHS``.

        Raises:
            Gone: the sender hung up.
        """
        if method != "POST":
            return Refusal(405, "method_unknown", "this path answers POST")
        refusal = self._gate.admit_headers(headers)
        if refusal is not None:
            # A wrong token is no token here (RFC 6750, "invalid_token").
            return msgspec.structs.replace(refusal, status=401)
        body = await read_body(receive, headers, _LIMITS)
        if isinstance(body, Refusal):
            return body
        key = headers.get("idempotency-key", "")
        if len(key) > 256 or not key.isprintable():
            return Refusal(400, "key_invalid", "Idempotency-Key takes at most 256 printable characters")
        try:
            if path == PATHS[0]:
                return await asyncio.to_thread(self._respond.case, _case(body), key)
            return await asyncio.to_thread(self._respond.block, _block(body), key)
        except AitrailError:
            return Refusal(503, "store_failed", "it could not be recorded; ask again", 30.0)
        except (msgspec.MsgspecError, RecursionError) as error:
            field = str(error).rpartition("`$.")[2].rstrip("`") if "`$." in str(error) else "the body"
            return Refusal(400, "request_invalid", f"{field} is missing or not as docs/respond.md describes it")
