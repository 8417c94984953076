"""A receiver of the forward protocol for tests: packed chunks, plain and gzip, acks, HELO/PING/PONG, faults.

Written from "Forward Protocol Specification v1". It reads msgpack with a reader of its own, so that what the sender's
library encodes is checked by something else, and it is as strict about strings and binary as receivers are.
"""

import gzip
import hashlib
import json
import secrets
import socket
import struct
import tempfile
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from aitrail.testing.certificates import Authority, Flaw
from aitrail.testing.faults import TcpServer, reset
from aitrail.testing.peer import Behaviour, Fault, Peer, Script, Traffic
from aitrail.testing.surroundings import ELSEWHERE, NO_SUCH_HOST, Surroundings

USER = "aitrail"
SERVER_NAME = "forward.example.com"
_FAULTS: frozenset[Fault] = ELSEWHERE | {
    "silent",
    "silent_stored",
    "slow",
    "reset_mid_body",
    "reset_mid_response",
    "unauthorized",
    "forbidden",
    "rotate",
    "flood",
    "down",
    "kill",
}
_CHUNK = 1 << 16


class EventTime(bytes):
    """The extension type for times: seconds and nanoseconds."""

    __slots__ = ()

    def seconds(self) -> float:
        """Epoch seconds."""
        whole, nano = struct.unpack(">II", self)
        return float(whole + nano / 1e9)


class ForwardPeer:
    """A running forward input on 127.0.0.1.

    Args:
        tls: serve TLS with a certificate of a private authority.
        auth: want a shared key and a user.
        flaw: what is wrong with the certificate.
        keep: False only counts entries (for measurements).
        latency: seconds before each ack.
        authority: share one; made when needed.

    Attributes:
        counted: entries taken.
        wrong_ack: acknowledge other chunks than the ones that came.
    """

    def __init__(
        self,
        *,
        tls: bool = False,
        auth: bool = False,
        flaw: Flaw = "",
        keep: bool = True,
        latency: float = 0.0,
        authority: Authority | None = None,
    ) -> None:
        self.name = f"forward{'+auth' if auth else ''}{'+tls' if tls or flaw else ''}"
        self.faults: frozenset[Fault] = _FAULTS if auth else _FAULTS - {"unauthorized", "forbidden", "rotate"}
        self.busy_codes: Sequence[int] = ()
        self._auth, self._keep, self._latency = auth, keep, latency
        self._around = Surroundings(tls=tls, flaw=flaw, authority=authority)
        self._lock = threading.RLock()
        self._key = str(uuid.uuid4())
        self._password = str(uuid.uuid4())
        self._refusing: Fault | None = None
        self._events: list[tuple[str, str, EventTime, dict[str, Any]]] = []
        self.counted = 0
        self.wrong_ack = False
        context = self._around.context
        self._directory = tempfile.TemporaryDirectory(prefix="aitrail-forward-")
        self._key_file = Path(self._directory.name) / "key"
        self._key_file.write_text(self._key)
        password_file = Path(self._directory.name) / "password"
        password_file.write_text(self._password)
        self._script = Script(self.faults)
        self.traffic = Traffic()
        self._tcp = TcpServer(self._talk, tls=context, traffic=self.traffic)
        self.address: Mapping[str, str] = {
            "host": "localhost",
            "port": str(self._tcp.port),
            "tls": "1" if context else "",
            "token_file": str(self._key_file) if auth else "",
            "username": USER if auth else "",
            "password_file": str(password_file) if auth else "",
            "ca_file": self._around.ca_file,
        }

    # --- the peer

    def received(self) -> list[str]:
        """Event ids of the entries taken."""
        with self._lock:
            return [one for one, *_ in self._events]

    def bodies(self, event_id: str) -> list[bytes]:
        """The records taken under this id, as JSON."""
        with self._lock:
            return [json.dumps(record).encode() for one, _, _, record in self._events if one == event_id]

    def entries(self) -> list[tuple[str, EventTime, dict[str, Any]]]:
        """Tag, time and record of everything taken."""
        with self._lock:
            return [(tag, time, record) for _, tag, time, record in self._events]

    def script(self, *behaviours: Behaviour) -> None:
        """Take behaviours; those that act at once do."""
        for one in behaviours:
            if one.fault not in self.faults:
                raise ValueError(f"{self.name} cannot show {one.fault}")
            if one.fault == "down":
                self._tcp.down()
            elif one.fault == "rotate":
                with self._lock:
                    self._key = str(uuid.uuid4())
                    self._key_file.write_text(self._key)
                self._drop_connections()
            elif one.fault in ("unauthorized", "forbidden"):
                # Credentials are looked at when a connection is made.
                self._refusing = one.fault
                self._drop_connections()
            else:
                self._script.add([one])

    def heal(self) -> None:
        """Behave well again."""
        self._script.clear()
        self._refusing = None
        self._tcp.up()

    def elsewhere(self, fault: Fault) -> Peer:
        """Give a receiver with a bad certificate or name."""
        if fault not in ELSEWHERE:
            raise ValueError(f"{self.name} has no other peer for {fault}")
        return self._around.elsewhere(
            fault,
            lambda flaw, authority: ForwardPeer(auth=self._auth, tls=True, flaw=flaw, authority=authority),
            {"host": NO_SUCH_HOST},
        )

    def close(self) -> None:
        """Stop, and the peers made by ``elsewhere`` with it."""
        self._around.close()
        self._tcp.close()
        self._directory.cleanup()

    def _drop_connections(self) -> None:
        self._tcp.down()
        self._tcp.up()

    # --- connections

    def _talk(self, connection: socket.socket) -> None:
        stream = connection.makefile("rb")
        try:
            if self._auth and not self._handshake(connection, stream):
                return
            while stream.peek(1):
                behaviour = self._script.next()
                if not self._exchange(connection, stream, behaviour):
                    stream.close()
                    reset(connection)
                    return
        finally:
            stream.close()

    def _handshake(self, connection: socket.socket, stream: BinaryIO) -> bool:
        nonce, salt = secrets.token_bytes(16), secrets.token_bytes(16)
        connection.sendall(_pack(["HELO", {"nonce": nonce, "auth": salt, "keepalive": True}]))
        answer = unpack(stream)
        if not (isinstance(answer, list) and len(answer) == 6 and answer[0] == "PING"):
            return False
        _, hostname, shared_salt, proof, user, secret = answer
        reason = ""
        if not isinstance(hostname, str) or not isinstance(shared_salt, bytes):
            reason = "types"
        elif self._refusing == "unauthorized" or proof != _digest(
            shared_salt, hostname.encode(), nonce, self._key.encode()
        ):
            reason = "shared key mismatch"
        elif self._refusing == "forbidden" or (user, secret) != (
            USER,
            _digest(salt, USER.encode(), self._password.encode()),
        ):
            reason = "username/password mismatch"
        ours = "" if reason else _digest(shared_salt, SERVER_NAME.encode(), nonce, self._key.encode())
        connection.sendall(_pack(["PONG", not reason, reason, SERVER_NAME, ours]))
        return not reason

    def _exchange(self, connection: socket.socket, stream: BinaryIO, behaviour: Behaviour | None) -> bool:
        """Take one chunk and acknowledge it; False to reset the connection."""
        fault = behaviour.fault if behaviour is not None else ""
        with self._lock:
            self.traffic.requests += 1
        if behaviour is not None and fault == "silent":
            self._tcp.stopping.wait(behaviour.seconds)
            return False
        if fault == "reset_mid_body":
            stream.read(64)
            return False
        message = unpack(stream)
        name = self._take(message)
        if behaviour is not None and fault in ("slow", "silent_stored"):
            self._tcp.stopping.wait(behaviour.seconds)
        if fault == "silent_stored":
            return False
        if behaviour is not None and fault == "flood":
            # The head of a string of 4 GB, and then no end.
            connection.sendall(b"\xdb\xff\xff\xff\xff")
            for _ in range((behaviour.limit or 64 << 20) // _CHUNK):
                connection.sendall(b"x" * _CHUNK)
            return False
        if self._latency:
            self._tcp.stopping.wait(self._latency)
        answer = _pack({"ack": "AAAA" if self.wrong_ack else name})
        if fault == "reset_mid_response":
            connection.sendall(answer[: len(answer) // 2])
            return False
        connection.sendall(answer)
        return True

    def _take(self, message: Any) -> str:
        if not (isinstance(message, list) and len(message) == 3 and isinstance(message[1], bytes)):
            raise OSError("no PackedForward")
        tag, packed, options = message
        with self._lock:
            self.traffic.bytes += len(packed)
        if options.get("compressed") == "gzip":
            packed = gzip.decompress(packed)
        if not self._keep:
            self.counted += options["size"]
            return str(options["chunk"])
        reader = _Buffer(packed)
        taken = []
        while reader.left():
            time, record = unpack(reader)
            if not isinstance(time, EventTime) or not isinstance(record, dict):
                raise OSError("no entry")
            taken.append((str(record.get("event_id", "")), str(tag), time, record))
        if len(taken) != options["size"]:
            raise OSError("another number of entries")
        with self._lock:
            self._events += taken
            self.counted += len(taken)
            self.traffic.largest = max(self.traffic.largest, len(packed))
        return str(options["chunk"])


def _digest(*parts: bytes) -> str:
    return hashlib.sha512(b"".join(parts)).hexdigest()


# --- msgpack


class _Buffer:
    """Bytes with the ``read`` of a stream."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def left(self) -> int:
        return len(self._data) - self._at

    def read(self, size: int) -> bytes:
        found = self._data[self._at : self._at + size]
        self._at += size
        return found


def unpack(stream: Any) -> Any:
    """Read one msgpack value; raises ``OSError`` at an early end or for what this protocol does not use."""
    head = _exactly(stream, 1)[0]
    if head < 0x80:
        return head
    if head >= 0xE0:
        return head - 0x100
    if head < 0x90:
        return _map(stream, head & 0x0F)
    if head < 0xA0:
        return [unpack(stream) for _ in range(head & 0x0F)]
    if head < 0xC0:
        return _exactly(stream, head & 0x1F).decode()
    read = _TYPES.get(head)
    if read is None:
        raise OSError("an unknown msgpack type")
    return read(stream)


def _exactly(stream: Any, size: int) -> bytes:
    found: bytes = stream.read(size)
    if len(found) < size:
        raise OSError("an early end")
    return found


def _length(stream: Any, size: int) -> int:
    return int.from_bytes(_exactly(stream, size), "big")


def _map(stream: Any, count: int) -> dict[Any, Any]:
    found = {}
    for _ in range(count):
        key = unpack(stream)
        found[key] = unpack(stream)
    return found


def _number(size: int, form: str) -> Callable[[Any], Any]:
    return lambda stream: struct.unpack(form, _exactly(stream, size))[0]


def _extension(stream: Any, size: int) -> EventTime:
    kind = _exactly(stream, 1)[0]
    if kind != 0 or size != 8:
        raise OSError("an unknown extension")
    return EventTime(_exactly(stream, size))


_TYPES: Mapping[int, Callable[[Any], Any]] = {
    0xC0: lambda stream: None,
    0xC2: lambda stream: False,
    0xC3: lambda stream: True,
    0xC4: lambda stream: _exactly(stream, _length(stream, 1)),
    0xC5: lambda stream: _exactly(stream, _length(stream, 2)),
    0xC6: lambda stream: _exactly(stream, _length(stream, 4)),
    0xC7: lambda stream: _extension(stream, _length(stream, 1)),
    0xCA: _number(4, ">f"),
    0xCB: _number(8, ">d"),
    0xCC: _number(1, ">B"),
    0xCD: _number(2, ">H"),
    0xCE: _number(4, ">I"),
    0xCF: _number(8, ">Q"),
    0xD0: _number(1, ">b"),
    0xD1: _number(2, ">h"),
    0xD2: _number(4, ">i"),
    0xD3: _number(8, ">q"),
    0xD7: lambda stream: _extension(stream, 8),
    0xD9: lambda stream: _exactly(stream, _length(stream, 1)).decode(),
    0xDA: lambda stream: _exactly(stream, _length(stream, 2)).decode(),
    0xDB: lambda stream: _exactly(stream, _length(stream, 4)).decode(),
    0xDC: lambda stream: [unpack(stream) for _ in range(_length(stream, 2))],
    0xDD: lambda stream: [unpack(stream) for _ in range(_length(stream, 4))],
    0xDE: lambda stream: _map(stream, _length(stream, 2)),
    0xDF: lambda stream: _map(stream, _length(stream, 4)),
}


def _pack(value: Any) -> bytes:
    """Write the few types that a receiver sends."""
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, str):
        text = value.encode()
        return b"\xda" + len(text).to_bytes(2, "big") + text
    if isinstance(value, bytes):
        return b"\xc5" + len(value).to_bytes(2, "big") + value
    if isinstance(value, list):
        return bytes([0x90 + len(value)]) + b"".join(map(_pack, value))
    return bytes([0x80 + len(value)]) + b"".join(_pack(key) + _pack(one) for key, one in value.items())
