"""A peer for any protocol over HTTP: server, certificates, credential, faults; what it says is a ``Dialect``'s."""

import contextlib
import tempfile
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from aitrail.testing.certificates import Authority, Flaw
from aitrail.testing.faults import HTTP_TRANSPORT_FAULTS, HttpServer, Reply, Request
from aitrail.testing.peer import Behaviour, Fault, Peer, Script, Traffic
from aitrail.testing.surroundings import ELSEWHERE, NO_SUCH_HOST, Surroundings

_ELSEWHERE: frozenset[Fault] = ELSEWHERE | {"proxy_407"}
_BASE: frozenset[Fault] = (
    HTTP_TRANSPORT_FAULTS
    | _ELSEWHERE
    | {"throttle", "busy", "too_large", "refuse_items", "unauthorized", "forbidden", "rotate", "kill"}
)


class Dialect(Protocol):
    """What one protocol says. Called under the peer's lock.

    Attributes:
        name: for the report.
        faults: which faults it shows beside the transport's.
        busy_codes: see ``Peer``.
        address: what a client needs beside url, token and CA file.
    """

    name: str
    faults: frozenset[Fault]
    busy_codes: Sequence[int]
    address: Mapping[str, str]

    def is_data(self, request: Request) -> bool:
        """Whether the request brings events."""
        ...

    def answer(self, request: Request, behaviour: Behaviour | None, script: Script, token: str) -> Reply:
        """Answer; ``token`` is the credential that is right now."""
        ...

    def received(self) -> list[str]:
        """See ``Peer``."""
        ...

    def bodies(self, event_id: str) -> list[bytes]:
        """See ``Peer``."""
        ...


class HttpPeer:
    """A running receiver on 127.0.0.1.

    Args:
        make_dialect: gives the protocol's side; called again for each peer made by ``elsewhere``.
        tls: serve HTTPS with a certificate of a private authority.
        flaw: what is wrong with that certificate.
        latency: seconds before each answer.
        authority: share one; made when needed.

    Attributes:
        dialect: the protocol's side, for tests that look closer.
    """

    def __init__(
        self,
        make_dialect: Callable[[], Dialect],
        *,
        tls: bool = False,
        flaw: Flaw = "",
        latency: float = 0.0,
        authority: Authority | None = None,
    ) -> None:
        self._make_dialect = make_dialect
        self.dialect = make_dialect()
        self.name = self.dialect.name
        self.faults: frozenset[Fault] = _BASE | self.dialect.faults
        self.busy_codes: Sequence[int] = self.dialect.busy_codes
        self._around = Surroundings(tls=tls, flaw=flaw, authority=authority)
        self._lock = threading.RLock()
        self._token = uuid.uuid4().hex
        self._script = Script(self.faults)
        self._directory = tempfile.TemporaryDirectory(prefix="aitrail-peer-")
        self._token_file = Path(self._directory.name) / "token"
        self._token_file.write_text(self._token)
        self._server = HttpServer(
            self._answer, self._script, is_data=self.dialect.is_data, tls=self._around.context, latency=latency
        )
        self.traffic: Traffic = self._server.traffic
        self.address: Mapping[str, str] = {
            "url": self._server.url,
            "host": "localhost",
            "port": str(self._server.tcp.port),
            "token_file": str(self._token_file),
            "ca_file": self._around.ca_file,
            "proxy": "",
            **self.dialect.address,
        }

    def received(self) -> list[str]:
        """Ids of accepted events."""
        with self._lock:
            return self.dialect.received()

    def bodies(self, event_id: str) -> list[bytes]:
        """What was accepted under an id."""
        with self._lock:
            return self.dialect.bodies(event_id)

    def script(self, *behaviours: Behaviour) -> None:
        """Take behaviours; those that act at once do."""
        for one in behaviours:
            if one.fault not in self.faults:
                raise ValueError(f"{self.name} cannot show {one.fault}")
            if one.fault == "down":
                self._server.tcp.down()
            elif one.fault == "rotate":
                with self._lock:
                    self._token = uuid.uuid4().hex
                    self._token_file.write_text(self._token)
            else:
                self._script.add([one])

    def heal(self) -> None:
        """Behave well again."""
        self._script.clear()
        self._server.tcp.up()

    def elsewhere(self, fault: Fault) -> Peer:
        """Give a peer with a bad certificate, name or proxy."""
        if fault not in _ELSEWHERE:
            raise ValueError(f"{self.name} has no other peer for {fault}")
        other = self._around.elsewhere(
            fault,
            lambda flaw, authority: HttpPeer(self._make_dialect, flaw=flaw, authority=authority),
            {"url": f"https://{NO_SUCH_HOST}:9443"},
        )
        if fault == "proxy_407":
            other.refuse_as_proxy()
        return other

    def close(self) -> None:
        """Stop, and the peers made by ``elsewhere`` with it."""
        self._around.close()
        self._server.close()
        with contextlib.suppress(FileNotFoundError):
            self._directory.cleanup()

    def refuse_as_proxy(self) -> None:
        """From now on, answer everything as a proxy that wants credentials; a client is sent to it for another host."""
        self._server.refuse_as_proxy()
        self.address = self._server.address_of_proxy(self.address)

    def _answer(self, request: Request, behaviour: Behaviour | None) -> Reply:
        with self._lock:
            return self.dialect.answer(request, behaviour, self._script, self._token)


def standing(script: Script, behaviour: Behaviour | None, fault: Fault) -> Behaviour | None:
    """Give the behaviour of ``fault`` that counts for this request: the one that is its turn, or a standing one."""
    return behaviour if behaviour is not None and behaviour.fault == fault else script.standing(fault)
