"""What the conformance suite asks of a receiver: the ``Peer`` protocol, and the faults that one can be told to show.

A peer is a running receiver for one protocol (HEC, Elasticsearch bulk, syslog, ...) that keeps what it accepted and
misbehaves on request. Faults are named by what the sender sees, not by a protocol's codes, so that one suite serves
all; a peer says in ``faults`` which of them its protocol has, and the suite skips the others by name.

To write one: keep accepted events under a lock, ask ``Script.next()`` once per data request (not for health or
acknowledgement polls), and show the behaviour it gives. ``aitrail.testing.faults`` has the HTTP and TCP servers that do
the transport faults; only what a protocol says in its own words (refused items, acknowledgements) is left to the peer.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, get_args

import msgspec

Fault = Literal[
    # --- one request after the other, by ``script``
    "throttle",  # F5: asks to slow down; ``retry_after`` is sent as it is (seconds, HTTP date, nonsense, "" for none)
    "busy",  # F6: cannot take anything now; ``code`` is the protocol's own, 0 its usual one
    "silent",  # F7: takes nothing, answers nothing for ``seconds``, then closes
    "silent_stored",  # F7: takes all, answers nothing for ``seconds``, then closes
    "slow",  # takes all, answers after ``seconds``
    "reset_mid_body",  # F8: resets the connection in the middle of the request; takes nothing
    "reset_mid_response",  # F8: takes all, then resets the connection in the middle of the answer
    "retry_items",  # F9: takes some items and asks to send the others again: every ``every``-th one, or - where the
    # protocol only says how far it came - those from the ``every``-th on
    "duplicate_items",  # F9: answers "already there" for what it holds; standing, see Behaviour.times
    "refuse_items",  # F9, F10: refuses the events ``ids`` for good, however often they come; standing
    "too_large",  # F12: refuses requests of more than ``limit`` bytes (as the protocol counts them); standing
    "ack_never",  # F11: accepts, but the delayed acknowledgement never comes, and the events are not kept
    "ack_slow",  # F11: the delayed acknowledgement comes after ``seconds``
    "ack_lost",  # F11: keeps the events, but the acknowledgement is lost on its way
    "ack_error",  # F11: asking for the acknowledgement fails with ``code``; the events are not kept
    "ack_restart",  # F11: at once, the receiver restarts: what it had not indexed and what it knew of acks is gone
    "unauthorized",  # F28: refuses the credentials
    "forbidden",  # misuse: the credentials lack a permission, or name a target that is not there
    "rotate",  # F28: at once, the credential changes here and in the place that ``address`` names
    "redirect",  # answers with a redirect to another host
    "flood",  # F27: answers with ``limit`` bytes (or a small compressed body that becomes as many)
    "down",  # F15: refuses connections until ``heal``; at once
    # --- somewhere else, by ``elsewhere``
    "nxdomain",  # F29: a host name that does not resolve
    "proxy_407",  # F29: a proxy that wants credentials
    "tls_expired",  # F30: the certificate has expired
    "tls_wrong_host",  # F30: the certificate is for another host
    "tls_self_signed",  # F30: nobody that the client trusts has signed the certificate
    "tls_old",  # F30: speaks nothing newer than TLS 1.1
    # --- properties of the peer
    "kill",  # F1, F3: reachable from another process, through ``address`` alone
]
FAULTS: tuple[Fault, ...] = get_args(Fault)


class Behaviour(msgspec.Struct, frozen=True):
    """One fault and how to show it; what a field means stands beside the fault's name in ``Fault``.

    Attributes:
        fault: which fault.
        times: for how many data requests; 0 until ``heal``. Standing faults (refuse_items, too_large, down, ...) and
            the ack faults with 0 stay beside scripted ones; those are shown in their order.
        seconds: how long.
        code: the protocol's status or code.
        retry_after: text of the waiting time.
        limit: bytes.
        every: every how many-th item.
        ids: which events.
    """

    fault: Fault
    times: int = 1
    seconds: float = 1.0
    code: int = 0
    retry_after: str = ""
    limit: int = 0
    every: int = 3
    ids: tuple[str, ...] = ()


class Traffic(msgspec.Struct):
    """What came in, whether it was accepted or not.

    Attributes:
        requests: data requests (or frames, for protocols without requests).
        bytes: bytes of their bodies as they came over the wire; on an ``elsewhere`` peer: bytes that leaked.
        largest: the largest of them, in the unit of ``Behaviour.limit`` (usually before compression).
        connections: connections accepted.
    """

    requests: int = 0
    bytes: int = 0
    largest: int = 0
    connections: int = 0


class Peer(Protocol):
    """A running receiver.

    Attributes:
        name: protocol and variant, for the report.
        faults: what ``script`` and ``elsewhere`` can be asked for; anything else raises ``ValueError``.
        busy_codes: the protocol's codes for "not now": the suite shows each of them (F6).
        address: all that a client needs, as text: ``url``, ``host``, ``port``, ``token``, ``token_file``, ``ca_file``,
            ``directory`` ... A destination under test is made from nothing else, also in another process.
        traffic: counters since the start.
    """

    name: str
    faults: frozenset[Fault]
    busy_codes: Sequence[int]
    address: Mapping[str, str]
    traffic: Traffic

    def received(self) -> list[str]:
        """The event ids accepted durably, in the order of arrival, repeats included.

        What the peer has confirmed to the sender before this call is in it. What it only took note of (a HEC request
        that awaits its indexer acknowledgement) is not. A peer that suppresses repeats by id lists each id once.
        """
        ...

    def bodies(self, event_id: str) -> list[bytes]:
        """The JSON objects accepted under ``event_id``, as the receiver understood them; one per acceptance."""
        ...

    def script(self, *behaviours: Behaviour) -> None:
        """Add behaviours; each data request takes the next one, and without any the peer behaves well.

        Raises:
            ValueError: the fault is not in ``faults``.
        """
        ...

    def heal(self) -> None:
        """Forget all behaviours and behave well; after ``down``, listen again at the same address."""
        ...

    def elsewhere(self, fault: Fault) -> "Peer":
        """Give another peer of this kind that nobody should deliver to (``nxdomain``, ``tls_*``, ``proxy_407``).

        It is closed with this one. Its ``received`` must stay empty, its ``traffic.bytes`` 0.
        """
        ...

    def close(self) -> None:
        """Stop; may be called twice."""
        ...


class PeerAddress:
    """A peer as another process sees it: its address and nothing else. Everything else raises ``RuntimeError``."""

    def __init__(self, name: str, address: Mapping[str, str]) -> None:
        self.name = name
        self.address: Mapping[str, str] = dict(address)
        self.faults: frozenset[Fault] = frozenset()
        self.busy_codes: Sequence[int] = ()
        self.traffic = Traffic()

    def received(self) -> list[str]:
        """Not known here."""
        raise RuntimeError(f"{self.name}: a destination is made from peer.address alone")

    def bodies(self, event_id: str) -> list[bytes]:
        """Not known here."""
        raise RuntimeError(f"{self.name}: a destination is made from peer.address alone, not {event_id}")

    def script(self, *behaviours: Behaviour) -> None:
        """Not possible here."""
        raise RuntimeError(f"{self.name}: a destination is made from peer.address alone, not {len(behaviours)} faults")

    def heal(self) -> None:
        """Not possible here."""
        raise RuntimeError(f"{self.name}: a destination is made from peer.address alone")

    def elsewhere(self, fault: Fault) -> Peer:
        """Not possible here."""
        raise RuntimeError(f"{self.name}: a destination is made from peer.address alone, not {fault}")

    def close(self) -> None:
        """Nothing to close."""


# These describe a state, not an answer to one request.
STANDING: frozenset[Fault] = frozenset(
    {"refuse_items", "too_large", "duplicate_items", "ack_never", "ack_slow", "ack_lost", "ack_error"}
)


class Script:
    """The behaviours a peer still has to show. Thread-safe; peers hold one and delegate ``script`` to it."""

    def __init__(self, faults: frozenset[Fault]) -> None:
        self._faults = faults
        self._queue: list[Behaviour] = []
        self._standing: list[Behaviour] = []
        self._lock = threading.Lock()

    def add(self, behaviours: Sequence[Behaviour]) -> None:
        """Take behaviours; raises ``ValueError`` for a fault that this peer does not have."""
        for one in behaviours:
            if one.fault not in self._faults:
                raise ValueError(f"this peer cannot show {one.fault}; it can: {', '.join(sorted(self._faults))}")
        with self._lock:
            for one in behaviours:
                if one.fault in STANDING and one.times == 0:
                    self._standing.append(one)
                else:
                    self._queue.append(one)

    def next(self) -> Behaviour | None:
        """Give the behaviour for this data request; None to behave well."""
        with self._lock:
            if not self._queue:
                return None
            one = self._queue[0]
            if one.times == 1:
                self._queue.pop(0)
            elif one.times > 1:
                self._queue[0] = msgspec.structs.replace(one, times=one.times - 1)
            return one

    def standing(self, fault: Fault) -> Behaviour | None:
        """Give the latest standing behaviour of this fault, if any."""
        with self._lock:
            return next((one for one in reversed(self._standing) if one.fault == fault), None)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._queue.clear()
            self._standing.clear()
