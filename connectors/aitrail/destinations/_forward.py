"""The forward protocol of Fluentd, version 1: handshake, chunks and acknowledgements as bytes.

Facts: "Forward Protocol Specification v1" of the Fluentd project. Names and digests in the handshake are msgpack
strings, salts and the entries of a chunk are binary; receivers tell them apart.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import Any

import msgspec
from isal import igzip

from aitrail.errors import AuthError, TransientError

ANSWER_CAP = 1 << 16
_EVENT_TIME = 0

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class Greeting(msgspec.Struct, frozen=True):
    """What a HELO says: the nonce for the shared key, and the salt for a user when it wants one."""

    nonce: bytes
    auth: bytes


def read_answer(data: bytes) -> Any | None:
    """Read one whole answer; None when more bytes are needed.

    Raises:
        ValueError: these bytes are no answer of this protocol, or it is longer than any.
    """
    try:
        return _decode(data)
    except msgspec.DecodeError as error:
        if "truncated" in str(error) and len(data) <= ANSWER_CAP:
            return None
        raise ValueError("not the forward protocol") from None


def read_helo(answer: Any) -> Greeting | None:
    """Give the greeting, or None when the answer is none."""
    if not (isinstance(answer, list) and len(answer) == 2 and answer[0] == "HELO" and isinstance(answer[1], dict)):
        return None
    return Greeting(_blob(answer[1].get("nonce")), _blob(answer[1].get("auth")))


class Login(msgspec.Struct, frozen=True):
    """What we prove ourselves with."""

    hostname: str
    shared_key: str
    username: str = ""
    password: str = ""


def ping(greeting: Greeting, login: Login, salt: bytes) -> bytes:
    """Give the PING that answers a greeting."""
    user = secret = ""
    if greeting.auth:
        user = login.username
        secret = _digest(greeting.auth, login.username.encode(), login.password.encode())
    proof = _digest(salt, login.hostname.encode(), greeting.nonce, login.shared_key.encode())
    return _encode(["PING", login.hostname, salt, proof, user, secret])


def check_pong(answer: Any, greeting: Greeting, login: Login, salt: bytes, origin: str) -> None:
    """Make sure that the receiver let us in and that it knows the shared key, too.

    Raises:
        AuthError: it refuses us, or it does not know the key.
        TransientError: this is no PONG.
    """
    if not (isinstance(answer, list) and len(answer) >= 5 and answer[0] == "PONG"):
        raise TransientError(f"{origin}: the answer to the handshake is none", hint="check host and port")
    _, good, reason, hostname, proof = answer[:5]
    if not good:
        # Its own words, but none that could steer a terminal.
        said = "".join(one for one in str(reason)[:80] if one.isprintable())
        raise AuthError(
            f"{origin}: the receiver refuses the handshake ({said})",
            hint="check shared_key, and username and password if it wants them",
        )
    expected = _digest(salt, str(hostname).encode(), greeting.nonce, login.shared_key.encode())
    if not hmac.compare_digest(expected, str(proof)):
        raise AuthError(
            f"{origin}: the receiver does not know the shared key", hint="check that host is the receiver you mean"
        )


def new_salt() -> bytes:
    """Give 16 random bytes."""
    return secrets.token_bytes(16)


def entry(milliseconds: int, record: Any) -> bytes:
    """Give one entry: its time with the precision of the event, and the record (anything that msgspec encodes)."""
    seconds, rest = divmod(milliseconds, 1_000)
    stamp = seconds.to_bytes(4, "big") + (rest * 1_000_000).to_bytes(4, "big")
    return _encode((msgspec.msgpack.Ext(_EVENT_TIME, stamp), record))


def chunk(tag: str, entries: Sequence[bytes], *, compress: bool) -> tuple[bytes, str]:
    """Give a PackedForward or CompressedPackedForward message and the chunk id that its ack must hold."""
    name = base64.b64encode(secrets.token_bytes(16)).decode()
    options: dict[str, Any] = {"size": len(entries), "chunk": name}
    packed = b"".join(entries)
    if compress:
        packed = igzip.compress(packed, compresslevel=1)
        options["compressed"] = "gzip"
    return _encode([tag, packed, options]), name


def _blob(value: Any) -> bytes:
    """Salts come as binary, and as strings from older receivers."""
    return value if isinstance(value, bytes) else str(value or "").encode()


def _digest(*parts: bytes) -> str:
    return hashlib.sha512(b"".join(parts)).hexdigest()
