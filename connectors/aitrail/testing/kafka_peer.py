"""A Kafka broker for tests: one node, what an idempotent producer needs of the protocol, and faults.

It speaks ApiVersions 0, Metadata 1, InitProducerId 0-1, Produce 3-7, SaslHandshake 1 and SaslAuthenticate 0-1 with
record batches of format 2, and checks sequence numbers as a broker does. Written from the protocol guide of Apache
Kafka. It is no broker for consumers: what arrived is read through ``received`` and ``bodies``.
"""

import contextlib
import gzip
import socket
import struct
import tempfile
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import zstandard

from aitrail.testing.certificates import Authority, Flaw
from aitrail.testing.faults import TcpServer, reset
from aitrail.testing.peer import Behaviour, Fault, Peer, Script, Traffic
from aitrail.testing.surroundings import ELSEWHERE, NO_SUCH_HOST, Surroundings

TOPIC = "aitrail.events"
USER = "aitrail"
# No "throttle": a broker that enforces a quota takes the records and holds the connection up (``throttle_ms``).
_FAULTS: frozenset[Fault] = ELSEWHERE | {
    "busy",
    "silent",
    "silent_stored",
    "slow",
    "reset_mid_body",
    "reset_mid_response",
    "refuse_items",
    "too_large",
    "unauthorized",
    "forbidden",
    "rotate",
    "flood",
    "down",
    "kill",
}
# Partition errors that mean "not now".
_BUSY = (19, 5, 6, 7, 9, 20, 56)
_UNAUTHORIZED, _FORBIDDEN, _TOO_LARGE, _INVALID_RECORD, _OUT_OF_ORDER, _UNKNOWN_TOPIC = 58, 29, 10, 87, 45, 3
_APIS = ((0, 3, 7), (1, 4, 10), (3, 1, 1), (10, 0, 0), (17, 1, 1), (18, 0, 0), (22, 0, 1), (36, 0, 1))
_REQUEST_CAP = 64 << 20
_CACHED_BATCHES = 5


class _Cut(OSError):  # noqa: N818 - a signal
    """This connection is to end."""


class _Event(msgspec.Struct, gc=False):
    """One record: its id and key, its body and its headers."""

    event_id: str
    key: bytes
    body: bytes
    headers: dict[str, bytes]
    partition: int


class _Sequence(msgspec.Struct):
    """What the broker remembers of one producer in one partition."""

    next: int = 0
    seen: list[int] = []


class KafkaPeer:
    """A running broker on 127.0.0.1 with one topic.

    Args:
        tls: serve TLS with a certificate of a private authority.
        sasl: want SASL/PLAIN.
        flaw: what is wrong with the certificate.
        partitions: of the topic.
        keep: False only counts records (for measurements).
        latency: seconds before each answer to a Produce request.
        authority: share one; made when needed.

    Attributes:
        counted: records written.
        throttle_ms: what answers to Produce requests say about the quota.
    """

    def __init__(
        self,
        *,
        tls: bool = False,
        sasl: bool = False,
        flaw: Flaw = "",
        partitions: int = 2,
        keep: bool = True,
        latency: float = 0.0,
        authority: Authority | None = None,
    ) -> None:
        self.name = f"kafka{'+sasl' if sasl else ''}{'+tls' if tls or flaw else ''}"
        self.faults: frozenset[Fault] = _FAULTS if sasl else _FAULTS - {"unauthorized", "rotate"}
        self.busy_codes: Sequence[int] = _BUSY
        self._sasl, self._partitions, self._keep, self._latency = sasl, partitions, keep, latency
        self._around = Surroundings(tls=tls, flaw=flaw, authority=authority)
        self._lock = threading.RLock()
        self._password = str(uuid.uuid4())
        self._refusing = False
        self._events: list[_Event] = []
        self._sequences: dict[tuple[int, int, int], _Sequence] = {}
        self._offsets = [0] * partitions
        self._next_producer = 1
        self.counted = 0
        self.throttle_ms = 0
        self._directory = tempfile.TemporaryDirectory(prefix="aitrail-kafka-")
        self._secret = Path(self._directory.name) / "password"
        self._secret.write_text(self._password)
        self._script = Script(self.faults)
        context = self._around.context
        self.traffic = Traffic()
        self._tcp = TcpServer(self._talk, tls=context, traffic=self.traffic)
        security = ("sasl_" if sasl else "") + ("tls" if context else "plaintext")
        self.address: Mapping[str, str] = {
            "brokers": f"localhost:{self._tcp.port}",
            "host": "localhost",
            "port": str(self._tcp.port),
            "topic": TOPIC,
            "security": security,
            "username": USER,
            "token_file": str(self._secret),
            "ca_file": self._around.ca_file,
        }

    # --- the peer

    def received(self) -> list[str]:
        """Ids of the records that were written."""
        with self._lock:
            return [event.event_id for event in self._events]

    def bodies(self, event_id: str) -> list[bytes]:
        """The values of the records with this id."""
        with self._lock:
            return [event.body for event in self._events if event.event_id == event_id]

    def keys(self, event_id: str) -> list[tuple[bytes, int, dict[str, bytes]]]:
        """Key, partition and headers of the records with this id."""
        with self._lock:
            return [(one.key, one.partition, one.headers) for one in self._events if one.event_id == event_id]

    def script(self, *behaviours: Behaviour) -> None:
        """Take behaviours; those that act at once do."""
        for one in behaviours:
            if one.fault not in self.faults:
                raise ValueError(f"{self.name} cannot show {one.fault}")
            if one.fault == "down":
                self._tcp.down()
            elif one.fault == "rotate":
                with self._lock:
                    self._password = str(uuid.uuid4())
                    self._secret.write_text(self._password)
                self._drop_connections()
            elif one.fault == "unauthorized":
                # Credentials are looked at when a connection is made.
                self._refusing = True
                self._drop_connections()
            else:
                self._script.add([one])

    def heal(self) -> None:
        """Behave well again."""
        self._script.clear()
        self._refusing = False
        self._tcp.up()

    def elsewhere(self, fault: Fault) -> Peer:
        """Give a broker with a bad certificate or name."""
        if fault not in ELSEWHERE:
            raise ValueError(f"{self.name} has no other peer for {fault}")
        return self._around.elsewhere(
            fault,
            lambda flaw, authority: KafkaPeer(sasl=self._sasl, tls=True, flaw=flaw, authority=authority),
            {"brokers": f"{NO_SUCH_HOST}:9093"},
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
        state = {"authenticated": not self._sasl}
        with connection.makefile("rb") as stream:
            while head := stream.read(4):
                size = int.from_bytes(head, "big")
                if len(head) < 4 or not 8 <= size <= _REQUEST_CAP:
                    return
                start = stream.read(min(size, 8))
                if len(start) < 8:
                    return
                api, version, correlation = struct.unpack(">hhi", start)
                behaviour = self._script.next() if api == 0 else None
                if behaviour is not None and behaviour.fault == "reset_mid_body":
                    stream.read((size - 8) // 2)
                    self._count(size // 2)
                    stream.close()
                    reset(connection)
                    return
                request = _Reader(stream.read(size - 8))
                if api == 0:
                    self._count(size)
                with contextlib.suppress(_Cut):
                    answer = self._answer(api, version, request, behaviour, state, connection)
                    if answer is not None:
                        body = correlation.to_bytes(4, "big") + answer
                        self._send(connection, len(body).to_bytes(4, "big") + body, behaviour)
                    continue
                stream.close()
                reset(connection)
                return

    def _count(self, size: int) -> None:
        with self._lock:
            self.traffic.requests += 1
            self.traffic.bytes += size

    def _send(self, connection: socket.socket, frame: bytes, behaviour: Behaviour | None) -> None:
        fault = behaviour.fault if behaviour is not None else ""
        if behaviour is not None and fault in ("slow", "silent_stored"):
            self._tcp.stopping.wait(behaviour.seconds)
        if fault == "silent_stored":
            raise _Cut
        if fault == "reset_mid_response":
            connection.sendall(frame[: len(frame) // 2])
            raise _Cut
        connection.sendall(frame)

    def _answer(
        self,
        api: int,
        version: int,
        request: "_Reader",
        behaviour: Behaviour | None,
        state: dict[str, bool],
        connection: socket.socket,
    ) -> bytes | None:
        """Give the body of the answer; raises ``_Cut`` to end the connection."""
        if api == 18:
            return _versions(version)
        request.text()  # client id
        if api == 17:
            return _i16(0 if request.text() == "PLAIN" else 33) + _array([_text("PLAIN")])
        if api == 36:
            return self._authenticate(version, request, state)
        if not state["authenticated"]:
            raise _Cut
        if api == 3:
            return self._metadata(request)
        if api == 22:
            with self._lock:
                self._next_producer += 1
                return _i32(0) + _i16(0) + _i64(self._next_producer) + _i16(0)
        if api != 0:
            raise _Cut
        if behaviour is not None and behaviour.fault == "silent":
            self._tcp.stopping.wait(behaviour.seconds)
            raise _Cut
        if behaviour is not None and behaviour.fault == "flood":
            connection.sendall(_i32(behaviour.limit or 64 << 20))
            with contextlib.suppress(OSError):
                for _ in range((behaviour.limit or 64 << 20) // 65_536):
                    connection.sendall(bytes(65_536))
            raise _Cut
        if self._latency:
            self._tcp.stopping.wait(self._latency)
        return self._produce(version, request, behaviour)

    def _authenticate(self, version: int, request: "_Reader", state: dict[str, bool]) -> bytes:
        parts = request.blob().split(b"\x00")
        good = not self._refusing and parts[1:] == [USER.encode(), self._password.encode()]
        state["authenticated"] = good
        tail = _i64(0) if version >= 1 else b""
        return _i16(0) + _i16(-1) + _i32(0) + tail if good else _i16(_UNAUTHORIZED) + _text("refused") + _i32(0) + tail

    def _metadata(self, request: "_Reader") -> bytes:
        asked = [request.text() for _ in range(max(request.i32(), 0))]
        broker = _i32(1) + _text("localhost") + _i32(self._tcp.port) + _i16(-1)
        partitions = [_i16(0) + _i32(one) + _i32(1) + _array([_i32(1)]) + _array([_i32(1)]) for one in self._range()]
        topic = _i16(0) + _text(TOPIC) + b"\x00" + _array(partitions)
        unknown = [_i16(_UNKNOWN_TOPIC) + _text(one) + b"\x00" + _array([]) for one in asked if one != TOPIC]
        return _array([broker]) + _i32(1) + _array([topic, *unknown])

    def _range(self) -> range:
        return range(self._partitions)

    # --- Produce

    def _produce(self, version: int, request: "_Reader", behaviour: Behaviour | None) -> bytes:
        request.text()  # transactional id
        request.skip(6)  # acks, time-out
        topics = []
        for _ in range(request.i32()):
            topic = request.text()
            partitions = []
            for _ in range(request.i32()):
                number = request.i32()
                batch = request.blob()
                code, offset = self._append(topic, number, batch, behaviour)
                partitions.append(
                    _i32(number) + _i16(code) + _i64(offset) + _i64(-1) + (_i64(0) if version >= 5 else b"")
                )
            topics.append(_text(topic) + _array(partitions))
        return _array(topics) + _i32(self.throttle_ms)

    def _append(self, topic: str, partition: int, batch: bytes, behaviour: Behaviour | None) -> tuple[int, int]:
        """Write one record batch; gives error code and offset."""
        fault = behaviour.fault if behaviour is not None else ""
        with self._lock:
            self.traffic.largest = max(self.traffic.largest, len(batch))
            if topic != TOPIC or not 0 <= partition < self._partitions:
                return _UNKNOWN_TOPIC, -1
            limit = self._script.standing("too_large")
            if limit is not None and len(batch) > limit.limit:
                return _TOO_LARGE, -1
            if fault == "forbidden":
                return _FORBIDDEN, -1
            code = (behaviour.code or _BUSY[0]) if behaviour is not None and fault == "busy" else 0
            # 20 is "written, but not to enough replicas": the record is there, and will be sent again.
            if code and code != 20:
                return code, -1
            number, records = _read_batch(batch)
            if number.producer >= 0:
                verdict = self._sequence(number, partition, len(records))
                if verdict is not None:
                    return verdict, -1
            refused = self._script.standing("refuse_items")
            if refused is not None and {one.event_id for one in records} & set(refused.ids):
                self._forget(number, partition, len(records))
                return _INVALID_RECORD, -1
            offset = self._offsets[partition]
            self._offsets[partition] += len(records)
            self.counted += len(records)
            if self._keep:
                for one in records:
                    one.partition = partition
                self._events += records
            return code, offset

    def _sequence(self, number: "_Numbers", partition: int, count: int) -> int | None:
        """Check the sequence as a broker does: a repeat of a recent batch is answered as written, a gap is an error."""
        known = self._sequences.setdefault((number.producer, number.epoch, partition), _Sequence())
        if number.sequence in known.seen:
            return 0
        if number.sequence != known.next:
            return _OUT_OF_ORDER
        known.seen = [*known.seen[1 - _CACHED_BATCHES :], number.sequence]
        known.next = number.sequence + count
        return None

    def _forget(self, number: "_Numbers", partition: int, count: int) -> None:
        """A refused batch takes no sequence numbers."""
        known = self._sequences.get((number.producer, number.epoch, partition))
        if known is not None:
            known.next -= count
            known.seen = known.seen[:-1]


# --- the wire


class _Numbers(msgspec.Struct):
    """Who sent a record batch, and its place in the sender's sequence."""

    producer: int
    epoch: int
    sequence: int


def _read_batch(data: bytes) -> tuple[_Numbers, list[_Event]]:
    """Read one record batch of format 2."""
    magic, attributes = data[16], struct.unpack_from(">h", data, 21)[0]
    producer, epoch, sequence, count = struct.unpack_from(">qhii", data, 43)
    if magic != 2:
        raise _Cut
    reader = _Reader(_CODECS[attributes & 7](data[61:]))
    return _Numbers(producer, epoch, sequence), [_record(reader) for _ in range(count)]


def _record(reader: "_Reader") -> _Event:
    reader.varint()  # length
    reader.skip(1)
    reader.varint()
    reader.varint()
    key, body = reader.counted(), reader.counted()
    headers = {reader.counted().decode(): reader.counted() for _ in range(reader.varint())}
    return _Event(headers.get("event_id", b"").decode(), key, body, headers, 0)


def _unzstd(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


_CODECS: Mapping[int, Callable[[bytes], bytes]] = {0: bytes, 1: gzip.decompress, 4: _unzstd}


class _Reader:
    """Reads the protocol's primitive types; raises ``_Cut`` behind the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def skip(self, count: int) -> bytes:
        found = self._data[self._at : self._at + count]
        if len(found) < count or count < 0:
            raise _Cut
        self._at += count
        return found

    def i32(self) -> int:
        return int.from_bytes(self.skip(4), "big", signed=True)

    def text(self) -> str:
        length = int.from_bytes(self.skip(2), "big", signed=True)
        return self.skip(max(length, 0)).decode()

    def blob(self) -> bytes:
        return self.skip(max(self.i32(), 0))

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.skip(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return (value >> 1) ^ -(value & 1)

    def counted(self) -> bytes:
        return self.skip(max(self.varint(), 0))


def _versions(version: int) -> bytes:
    listed = _array([_i16(api) + _i16(first) + _i16(last) for api, first, last in _APIS])
    # Asked in a newer form, a broker answers in the oldest one with "unsupported version".
    return _i16(35 if version > 0 else 0) + listed


def _i16(value: int) -> bytes:
    return value.to_bytes(2, "big", signed=True)


def _i32(value: int) -> bytes:
    return value.to_bytes(4, "big", signed=True)


def _i64(value: int) -> bytes:
    return value.to_bytes(8, "big", signed=True)


def _text(value: str) -> bytes:
    return _i16(len(value)) + value.encode()


def _array(items: Sequence[bytes]) -> bytes:
    return _i32(len(items)) + b"".join(items)
