"""A syslog receiver for tests: RFC 5424 messages over TCP, TLS or UDP, read strictly, and faults.

It reads as rsyslog and syslog-ng do: each message is taken as soon as it is complete, and the end of a connection is
answered in good order (with TLS by a close_notify of its own). CEF and LEEF texts are taken apart by a reader that
knows nothing of the writer.
"""

import contextlib
import json
import re
import socket
import ssl
import threading
from collections.abc import Mapping, Sequence

from aitrail.testing.certificates import Authority, Flaw
from aitrail.testing.faults import TcpServer, reset
from aitrail.testing.peer import Behaviour, Fault, Peer, Script, Traffic
from aitrail.testing.surroundings import ELSEWHERE, NO_SUCH_HOST, Surroundings

_FAULTS: frozenset[Fault] = ELSEWHERE | {
    "silent",
    "silent_stored",
    "slow",
    "reset_mid_body",
    "reset_mid_response",
    "flood",
    "down",
    "kill",
}
_LONGEST_COUNT = 8
_CHUNK = 1 << 16

# RFC 5424 section 6, with the lengths of the ABNF.
_HEADER = re.compile(
    rb"<(?P<pri>0|[1-9]\d{0,2})>1 "
    rb"(?P<time>-|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)) "
    rb"(?P<host>[\x21-\x7e]{1,255}) (?P<app>[\x21-\x7e]{1,48}) (?P<proc>[\x21-\x7e]{1,128}) (?P<id>[\x21-\x7e]{1,32}) "
    rb"(?P<data>-|(?:\[[\x21\x23-\x3c\x3e-\x5c\x5e-\x7e]{1,32}(?: [\x21\x23-\x3c\x3e-\x5c\x5e-\x7e]{1,32}="
    rb'"(?:[^"\\\]]|\\.)*")*\])+)(?: (?P<text>.*))?',
    re.DOTALL,
)


class NotSyslog(ValueError):  # noqa: N818 - said of what came in
    """The bytes are no RFC 5424 message; says nothing of what they hold."""


def parse_syslog(message: bytes) -> tuple[dict[str, str], bytes]:
    """Take a message apart: header fields and text; raises ``NotSyslog``."""
    found = _HEADER.fullmatch(message)
    if found is None or int(found["pri"]) > 191:
        raise NotSyslog("header")
    names = ("pri", "time", "host", "app", "proc", "id", "data")
    return {name: found[name].decode("ascii", "replace") for name in names}, found["text"] or b""


_CEF_KEY = re.compile(r"(?:^| )([A-Za-z0-9_.]+)=")


def parse_cef(text: str) -> tuple[list[str], dict[str, str]]:
    """Take a CEF text apart: the seven header fields and the extension; raises ``NotSyslog``.

    Headers end at the seventh unescaped pipe; a key is what stands before an unescaped equals sign.
    """
    if any(ord(one) < 0x20 or one in "\x7f\x85\u2028\u2029" for one in text):
        raise NotSyslog("a line break or control character")
    header: list[str] = []
    current: list[str] = []
    at = 0
    while len(header) < 7:
        if at >= len(text):
            raise NotSyslog("header ends early")
        if text[at] == "\\":
            if text[at + 1 : at + 2] not in ("\\", "|"):
                raise NotSyslog("escape in header")
            current.append(text[at + 1])
            at += 2
        elif text[at] == "|":
            header.append("".join(current))
            current = []
            at += 1
        else:
            current.append(text[at])
            at += 1
    return header, _extension(text[at:])


def _extension(rest: str) -> dict[str, str]:
    # An escaped character is neither a sign nor part of a key: it is hidden while keys are looked for.
    hidden = re.sub(r"\\.", "\0\0", rest)
    if "=" in _CEF_KEY.sub("", hidden):
        raise NotSyslog("an unescaped equals sign in a value")
    keys = list(_CEF_KEY.finditer(hidden))
    found: dict[str, str] = {}
    for number, key in enumerate(keys):
        end = keys[number + 1].start() if number + 1 < len(keys) else len(rest)
        value = rest[key.end() : end]
        if key[1] in found:
            raise NotSyslog("a key twice")
        found[key[1]] = re.sub(r"\\(.)", _unescape, value)
    return found


def _unescape(escape: re.Match[str]) -> str:
    known = {"\\": "\\", "=": "=", "n": "\n", "r": "\r", "|": "|"}
    if escape[1] not in known:
        raise NotSyslog("escape in a value")
    return known[escape[1]]


def parse_leef(text: str) -> tuple[list[str], dict[str, str]]:
    """Take a LEEF 2.0 text apart; raises ``NotSyslog``."""
    if any((ord(one) < 0x20 and one != "\t") or one in "\x7f\x85\u2028\u2029" for one in text):
        raise NotSyslog("a line break or control character")
    *header, rest = text.split("|", 6)
    pairs = [pair.partition("=") for pair in rest.split("\t")]
    if len(header) != 6 or any(not sign for _, sign, _ in pairs):
        raise NotSyslog("attributes")
    found = {key: value for key, _, value in pairs}
    if len(found) != len(pairs):
        raise NotSyslog("a key twice")
    return header, found


class SyslogPeer:
    """A running receiver on 127.0.0.1.

    Args:
        tls: serve TLS with a certificate of a private authority.
        flaw: what is wrong with that certificate.
        lines: messages end with a line feed instead of having their length in front.
        keep: False only counts bytes (for measurements).
        latency: seconds before the end of a connection is answered.
        authority: share one; made when needed.

    Attributes:
        garbled: streams that were wrong: no octet count where one must stand, or a sender that ended in good order
            within a message. Over TCP a killed sender looks like that, too; over TLS only a wrong one does.
        torn: connections that broke off within a message, as those of killed senders do; what came is not taken.
    """

    def __init__(
        self,
        *,
        tls: bool = False,
        flaw: Flaw = "",
        lines: bool = False,
        keep: bool = True,
        latency: float = 0.0,
        authority: Authority | None = None,
    ) -> None:
        self.name = f"syslog over {'tls' if tls or flaw else 'tcp'}"
        self.faults: frozenset[Fault] = _FAULTS
        self.busy_codes: Sequence[int] = ()
        self._lines, self._keep, self._latency = lines, keep, latency
        self._around = Surroundings(tls=tls, flaw=flaw, authority=authority)
        self._lock = threading.RLock()
        self._messages: list[tuple[str, bytes]] = []
        self.garbled = self.torn = 0
        self._script = Script(self.faults)
        context = self._around.context
        self.traffic = Traffic()
        self._tcp = TcpServer(self._talk, tls=context, traffic=self.traffic)
        self.address: Mapping[str, str] = {
            "host": "localhost",
            "port": str(self._tcp.port),
            "transport": "tls" if context else "tcp",
            "ca_file": self._around.ca_file,
        }

    # --- the peer

    def received(self) -> list[str]:
        """Event ids of the messages taken."""
        with self._lock:
            return [one for one, _ in self._messages]

    def bodies(self, event_id: str) -> list[bytes]:
        """The events of the messages with this id, as JSON; of a CEF or LEEF text its keys and values."""
        with self._lock:
            return [_as_json(message) for one, message in self._messages if one == event_id]

    def messages(self) -> list[bytes]:
        """All messages taken, as they came."""
        with self._lock:
            return [message for _, message in self._messages]

    def script(self, *behaviours: Behaviour) -> None:
        """Take behaviours; ``down`` acts at once."""
        for one in behaviours:
            if one.fault not in self.faults:
                raise ValueError(f"{self.name} cannot show {one.fault}")
            if one.fault == "down":
                self._tcp.down()
            else:
                self._script.add([one])

    def heal(self) -> None:
        """Behave well again."""
        self._script.clear()
        self._tcp.up()

    def elsewhere(self, fault: Fault) -> Peer:
        """Give a receiver with a bad certificate or name."""
        if fault not in ELSEWHERE:
            raise ValueError(f"{self.name} has no other peer for {fault}")
        return self._around.elsewhere(
            fault,
            lambda flaw, authority: SyslogPeer(tls=True, flaw=flaw, authority=authority),
            {"host": NO_SUCH_HOST},
        )

    def close(self) -> None:
        """Stop, and the peers made by ``elsewhere`` with it."""
        self._around.close()
        self._tcp.close()

    # --- connections

    def _talk(self, connection: socket.socket) -> None:
        first = connection.recv(_CHUNK)
        if not first:
            self._goodbye(connection)
            return
        behaviour = self._script.next()
        fault = behaviour.fault if behaviour is not None else ""
        with self._lock:
            self.traffic.requests += 1
        if behaviour is not None and fault == "silent":
            self._tcp.stopping.wait(behaviour.seconds)
            reset(connection)
            return
        if fault == "reset_mid_body":
            reset(connection)
            return
        self._read(connection, first)
        if behaviour is not None and fault in ("slow", "silent_stored"):
            self._tcp.stopping.wait(behaviour.seconds)
        if fault in ("silent_stored", "reset_mid_response"):
            reset(connection)
            return
        if behaviour is not None and fault == "flood":
            with contextlib.suppress(OSError):
                for _ in range((behaviour.limit or 64 << 20) // _CHUNK):
                    connection.sendall(bytes(_CHUNK))
            return
        if self._latency:
            self._tcp.stopping.wait(self._latency)
        self._goodbye(connection)

    def _read(self, connection: socket.socket, first: bytes) -> None:
        """Take messages until the sender says that this was all; raises ``OSError`` when it never does."""
        rest = first
        try:
            rest = self._take(first)
            while part := connection.recv(_CHUNK):
                rest = self._take(rest + part)
        except NotSyslog as error:
            self._count(garbled=1)
            raise OSError(str(error)) from None
        except OSError:
            self._count(torn=bool(rest))
            raise
        self._count(garbled=bool(rest))

    def _count(self, *, garbled: int = 0, torn: int = 0) -> None:
        with self._lock:
            self.garbled += garbled
            self.torn += torn

    def _goodbye(self, connection: socket.socket) -> None:
        """Close in good order."""
        if isinstance(connection, ssl.SSLSocket):
            connection.settimeout(5.0)
            plain = connection.unwrap()
            plain.shutdown(socket.SHUT_WR)
            plain.close()

    def _take(self, data: bytes) -> bytes:
        """Take the complete messages of ``data``; gives what is left."""
        with self._lock:
            self.traffic.bytes += len(data)
        if not self._keep:
            return b""
        taken, rest = self._by_lines(data) if self._lines else self._by_octets(data)
        known = [(_id_of(message), message) for message in taken]
        with self._lock:
            self.traffic.bytes -= len(rest)
            self._messages += known
            self.traffic.largest = max([self.traffic.largest, *map(len, taken)])
        return rest

    def _by_lines(self, data: bytes) -> tuple[list[bytes], bytes]:
        *lines, rest = data.split(b"\n")
        return lines, rest

    def _by_octets(self, data: bytes) -> tuple[list[bytes], bytes]:
        taken: list[bytes] = []
        at = 0
        while True:
            space = data.find(b" ", at, at + _LONGEST_COUNT + 1)
            if space < 0:
                if len(data) - at > _LONGEST_COUNT:
                    raise NotSyslog("no octet count")
                return taken, data[at:]
            if not data[at:space].isdigit():
                raise NotSyslog("no octet count")
            end = space + 1 + int(data[at:space])
            if end > len(data):
                return taken, data[at:]
            taken.append(data[space + 1 : end])
            at = end


class UdpPeer:
    """A receiver of datagrams on 127.0.0.1; keeps what came."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.5)
        self.port = int(self._socket.getsockname()[1])

    def messages(self) -> list[bytes]:
        """Read all that has arrived."""
        found = []
        with contextlib.suppress(TimeoutError):
            while True:
                found.append(self._socket.recv(1 << 17))
        return found

    def close(self) -> None:
        """Stop."""
        self._socket.close()


def _as_json(message: bytes) -> bytes:
    text = parse_syslog(message)[1]
    if text.startswith(b"CEF:"):
        return json.dumps(parse_cef(text.decode())[1]).encode()
    if text.startswith(b"LEEF:"):
        return json.dumps(parse_leef(text.decode())[1]).encode()
    return text


def _id_of(message: bytes) -> str:
    try:
        found = json.loads(_as_json(message))
    except (NotSyslog, ValueError):
        return "garbled"
    for name in ("event_id", "externalId"):
        if name in found:
            return str(found[name])
    return "unnamed"
