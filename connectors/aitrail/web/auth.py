"""Who may send: bearer tokens, and HMAC signatures that are good once.

Comparisons take the same time whatever was sent. Secrets are resolved at the start and again at most every minute, so
that a rotated one works without a restart; none is in an answer or a log.
"""

import hashlib
import hmac
import threading
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Literal

from msgspec import Struct

from aitrail.clock import Clock
from aitrail.errors import ConfigError
from aitrail.ports import SecretResolver
from aitrail.web.settings import HmacSettings, ReceiverSettings

_REFRESH_SECONDS = 60.0
_MAX_SIGNATURES = 8  # per request; Standard Webhooks sends one per active secret
_FIELD = 512  # a longer id or timestamp is none


class Refusal(Struct, frozen=True):
    """Why a request is not taken: HTTP status, a code for programs and a sentence that says what to fix."""

    status: int
    code: str
    message: str
    retry_after: float | None = None


class Secret:
    """The values of several references, looked up again when they are older than a minute. Thread-safe enough."""

    def __init__(self, references: Sequence[str], secrets: SecretResolver, clock: Clock) -> None:
        self._references = tuple(references)
        self._secrets = secrets
        self._clock = clock
        self._values = [secrets.resolve(reference).encode() for reference in self._references]
        self._due = clock.monotonic() + _REFRESH_SECONDS

    def values(self) -> list[bytes]:
        """The secrets now; the last good ones while a reference cannot be resolved."""
        if self._clock.monotonic() >= self._due:
            self._due = self._clock.monotonic() + _REFRESH_SECONDS
            with suppress(ConfigError):  # a file that is being replaced: what was right a minute ago still is
                self._values = [self._secrets.resolve(reference).encode() for reference in self._references]
        return self._values


Seen = Literal["new", "busy", "seen", "stale"]


class Replays:
    """Remembers what was accepted, bounded: when it is full, the oldest go and nothing as old as them is accepted.

    Args:
        entries: how many are remembered at most.
        tolerance: seconds around now in which a time is acceptable.
    """

    def __init__(self, entries: int, tolerance: float) -> None:
        self._entries = entries
        self._tolerance = tolerance
        self._times: OrderedDict[bytes, float] = OrderedDict()
        self._busy: set[bytes] = set()
        self._floor = float("-inf")
        self._lock = threading.Lock()

    def begin(self, key: bytes, sent: float, now: float) -> Seen:
        """Reserve ``key``: ``seen`` and ``busy`` ones are replays, ``stale`` is as old as what was forgotten."""
        with self._lock:
            while self._times:  # what is too old to be accepted needs no memory
                oldest = next(iter(self._times))
                if self._times[oldest] >= now - self._tolerance:
                    break
                del self._times[oldest]
            if key in self._times:
                return "seen"
            if key in self._busy:
                return "busy"
            if sent <= self._floor:
                return "stale"
            self._busy.add(key)
            return "new"

    def end(self, key: bytes, sent: float, *, taken: bool) -> None:
        """The request is done: one that was ``taken`` is remembered, another may come again."""
        with self._lock:
            self._busy.discard(key)
            if not taken:
                return
            self._times[key] = sent
            if len(self._times) > self._entries:
                _, forgotten = self._times.popitem(last=False)
                self._floor = max(self._floor, forgotten)


class Admitted(Struct):
    """An admitted request; ``end`` is called with whether its records were made durable."""

    end: Callable[[bool], None]


def _nothing(taken: bool) -> None:
    del taken


class Gate:
    """Decides who may post to one receiver."""

    def __init__(self, name: str, settings: ReceiverSettings, secrets: SecretResolver, clock: Clock) -> None:
        self._clock = clock
        self._header = settings.token_header.lower()
        self._tokens = Secret(settings.tokens, secrets, clock) if settings.tokens else None
        self._hmac = Signature(settings.hmac, secrets, clock) if settings.hmac is not None else None
        self.name = name

    @property
    def needs_body(self) -> bool:
        """Whether the body takes part: it is then read before the request is admitted."""
        return self._hmac is not None

    def admit_headers(self, headers: Mapping[str, str]) -> Refusal | None:
        """Check the token; None when it is right or none is asked for."""
        if self._tokens is None:
            return None
        sent = headers.get(self._header, "")
        if self._header == "authorization":
            scheme, _, sent = sent.partition(" ")
            if scheme.lower() != "bearer":
                sent = ""
        sent = sent.strip()
        if not sent:
            return Refusal(401, "token_missing", f"send the token in the header {self._header}{_FORM[self._bearer]}")
        return None if matches(sent.encode(), self._tokens.values()) else Refusal(403, "token_wrong", _NOT_OURS)

    def admit_body(self, headers: Mapping[str, str], body: bytes) -> Admitted | Refusal:
        """Check the signature over the body as it was sent (packed)."""
        return Admitted(_nothing) if self._hmac is None else self._hmac.admit(headers, body)

    @property
    def _bearer(self) -> bool:
        return self._header == "authorization"


_FORM = {True: " as: Bearer TOKEN", False: ""}
_NOT_OURS = "this token is not one of the receiver's; ask its owner for the current one"


class Signature:
    """HMAC-SHA-256 over ``id.timestamp.body`` with a tolerance in time and a memory for replays."""

    def __init__(self, settings: HmacSettings, secrets: SecretResolver, clock: Clock) -> None:
        self._settings = settings
        self._secret = Secret(settings.secrets, secrets, clock)
        self._clock = clock
        self._replays = Replays(settings.replay_entries, settings.tolerance_seconds)

    def admit(self, headers: Mapping[str, str], body: bytes) -> Admitted | Refusal:
        """Check time, signature and replay, in this order."""
        settings = self._settings
        signatures = headers.get(settings.signature_header.lower(), "")
        stamp = headers.get(settings.timestamp_header.lower(), "")
        one = headers.get(settings.id_header.lower(), "") if settings.id_header else ""
        for value, name in ((signatures, settings.signature_header), (stamp, settings.timestamp_header)):
            if not value:
                return Refusal(401, "signature_missing", f"the header {name} is missing")
        if settings.id_header and not one:
            return Refusal(401, "signature_missing", f"the header {settings.id_header} is missing")
        sent = _seconds(stamp)
        if sent is None or len(one) > _FIELD:
            return Refusal(401, "signature_invalid", f"{settings.timestamp_header} must be epoch seconds")
        now = self._clock.now()
        if abs(now - sent) > settings.tolerance_seconds:
            return Refusal(
                401,
                "timestamp_out_of_tolerance",
                f"the time of sending is more than {settings.tolerance_seconds:g} s from ours; set the sender's clock",
            )
        text = b".".join(part for part in (one.encode(), stamp.encode()) if part) + b"." + body
        expected = [hmac.new(_key(secret), text, hashlib.sha256).digest() for secret in self._secret.values()]
        given = [digest for digest in map(_digest, _split(signatures)) if digest]
        # every pair is compared, so that the time tells nothing
        right = [hmac.compare_digest(digest, other) for digest in given for other in expected]
        if not any(right):
            return Refusal(401, "signature_wrong", "the signature is not right for this body; check secret and headers")
        return self._once(expected[0], one, sent, now)

    def _once(self, digest: bytes, one: str, sent: float, now: float) -> Admitted | Refusal:
        key = hashlib.blake2b(one.encode(), digest_size=16).digest() if one else digest[:16]
        seen = self._replays.begin(key, sent, now)
        if seen == "busy":
            return Refusal(503, "replay_in_hand", "the same request is being taken in just now", 1.0)
        if seen == "seen":
            return Refusal(409, "replayed", "this request was accepted before; nothing was taken again")
        if seen == "stale":
            return Refusal(
                401, "timestamp_out_of_tolerance", "too old among so many requests; sign it again and resend"
            )
        return Admitted(lambda taken: self._replays.end(key, sent, taken=taken))


def matches(sent: bytes, values: Sequence[bytes]) -> bool:
    """Whether ``sent`` is one of ``values``; every one is compared, over digests of equal length."""
    digest = hashlib.sha256(sent).digest()
    right = [hmac.compare_digest(digest, hashlib.sha256(value).digest()) for value in values]
    return any(right)


def _key(secret: bytes) -> bytes:
    """Standard Webhooks writes secrets as ``whsec_`` and base64; every other one is taken as it is."""
    if not secret.startswith(b"whsec_"):
        return secret
    try:
        return b64decode(secret[6:], validate=True)
    except ValueError:
        return secret


def _seconds(text: str) -> float | None:
    text = text.strip()
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        return None
    number = int(text)
    return number / 1000 if number > 100_000_000_000 else float(number)  # some senders count milliseconds


def _split(signatures: str) -> list[str]:
    """Single signatures: separated by spaces (``v1,a v1,b``) or commas (``t=1,v1=a``)."""
    found: list[str] = []
    for word in signatures[:4096].split():
        for part in word.split(","):
            name, equals, value = part.partition("=")
            # base64 ends in "=": then there is no name in front
            found.append(value if equals and name.lower() in ("v1", "v0", "sha256", "s") else part)
    return found[:_MAX_SIGNATURES]


def _digest(text: str) -> bytes:
    """The 32 bytes of a hex or base64 digest; empty when it is none."""
    try:
        if len(text) == 64:
            return bytes.fromhex(text)
        if len(text) in (43, 44):
            return b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        pass
    return b""
