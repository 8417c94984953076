"""What every peer has around its protocol: certificates of a private authority, and peers that nobody should reach."""

from collections.abc import Callable, Mapping
from ssl import SSLContext
from typing import Protocol, TypeVar

from aitrail.testing.certificates import Authority, Flaw
from aitrail.testing.peer import Fault, Peer

FLAWS: Mapping[Fault, Flaw] = {
    "tls_expired": "tls_expired",
    "tls_wrong_host": "tls_wrong_host",
    "tls_self_signed": "tls_self_signed",
    "tls_old": "tls_old",
}
# What another peer can be asked for; a peer that can be reached through a proxy has ``proxy_407``, too.
ELSEWHERE: frozenset[Fault] = frozenset({"nxdomain", *FLAWS})
NO_SUCH_HOST = "no-such-host.invalid"


class _Addressed(Peer, Protocol):
    """A peer whose address can be replaced."""

    address: Mapping[str, str]


P = TypeVar("P", bound=_Addressed)


class Surroundings:
    """Certificates and other peers of one peer.

    Args:
        tls: whether it serves TLS.
        flaw: what is wrong with its certificate; a flawed one is served over TLS in any case.
        authority: shared with another peer, which closes it; made when needed.

    Attributes:
        context: of the server; None for plain text.
    """

    def __init__(self, *, tls: bool, flaw: Flaw = "", authority: Authority | None = None) -> None:
        self._own = authority is None
        self._authority = authority
        self._others: list[Peer] = []
        self.context: SSLContext | None = self.authority.context(flaw) if tls or flaw else None

    @property
    def authority(self) -> Authority:
        """The authority of all certificates."""
        if self._authority is None:
            self._authority = Authority()
        return self._authority

    @property
    def ca_file(self) -> str:
        """The authority's certificate, for clients; empty for a peer without TLS."""
        return self.authority.ca_file if self.context is not None else ""

    def elsewhere(
        self,
        fault: Fault,
        make: Callable[[Flaw, Authority], P],
        unknown: Mapping[str, str],
        also: Mapping[str, str] = {},
    ) -> P:
        """Make another peer that nobody should deliver to.

        Args:
            fault: what is wrong there.
            make: makes a peer of this kind with a flaw in its certificate.
            unknown: what its address says for ``nxdomain``.
            also: what it says besides, for other faults.
        """
        other = make(FLAWS.get(fault, ""), self.authority)
        told = {**other.address, "ca_file": self.authority.ca_file, **also}
        other.address = {**told, **unknown} if fault == "nxdomain" else told
        self._others.append(other)
        return other

    def close(self) -> None:
        """Close the other peers, and the authority if it is its own."""
        for one in self._others:
            one.close()
        self._others.clear()
        if self._authority is not None and self._own:
            self._authority.close()
            self._authority = None
