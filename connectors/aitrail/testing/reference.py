"""The reference destination, its peer in memory, and a destination that wraps another one in trouble.

``ReferenceDestination`` is the shortest thing that keeps every promise of the port: read it before writing one.
"""

import random
import threading
import time
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from aitrail.errors import AuthError, ConfigError, TransientError
from aitrail.net.http import parse_retry_after
from aitrail.ports import DELIVERED, DUPLICATE, Ack, Destination, EncodedEvent, Limits, Verdict
from aitrail.testing.peer import Behaviour, Fault, Peer, Script, Traffic

_FAULTS: frozenset[Fault] = frozenset(
    {
        "throttle", "busy", "silent", "silent_stored", "slow", "reset_mid_body", "reset_mid_response", "retry_items",
        "refuse_items", "too_large", "unauthorized", "forbidden", "rotate", "down",
    }
)  # fmt: skip


class MemoryPeer:
    """A receiver in this process, found by its address; keeps each event_id once."""

    _all: ClassVar[dict[str, "MemoryPeer"]] = {}

    def __init__(self) -> None:
        self.name = "memory"
        self.faults = _FAULTS
        self.busy_codes: Sequence[int] = (1, 2)
        self.traffic = Traffic()
        self.address: Mapping[str, str] = {"memory": str(id(self))}
        self.secret = 0
        self._script = Script(_FAULTS)
        self._down = False
        self._lock = threading.Lock()
        self._stored: dict[str, bytes] = {}
        self._all[self.address["memory"]] = self

    @classmethod
    def at(cls, address: Mapping[str, str]) -> "MemoryPeer":
        """Find the peer of an address."""
        return cls._all[address["memory"]]

    def received(self) -> list[str]:
        """Ids in the order of arrival, each once."""
        with self._lock:
            return list(self._stored)

    def bodies(self, event_id: str) -> list[bytes]:
        """The body kept for an id."""
        with self._lock:
            return [self._stored[event_id]] if event_id in self._stored else []

    def script(self, *behaviours: Behaviour) -> None:
        """Take behaviours."""
        for one in behaviours:
            if one.fault == "rotate":
                self.secret += 1
            elif one.fault == "down":
                self._down = True
            else:
                self._script.add([one])

    def heal(self) -> None:
        """Behave well again."""
        self._down = False
        self._script.clear()

    def elsewhere(self, fault: Fault) -> Peer:
        """There is no elsewhere in memory."""
        raise ValueError(f"{self.name} has no other peer for {fault}")

    def close(self) -> None:
        """Be found no more."""
        self._all.pop(self.address["memory"], None)

    def ask(self, batch: Sequence[EncodedEvent], secret: int, deadline: float) -> list[Verdict]:
        """Take a request, as a server would.

        Raises:
            ConnectionError: down, reset, or silent until ``deadline``.
            PermissionError: the secret is not the current one.
            ValueError: the request is too large.
        """
        if self._down:
            raise ConnectionRefusedError("down")
        self.traffic.requests += 1
        size = sum(len(event.body) for event in batch)
        behaviour = self._script.next()
        fault = behaviour.fault if behaviour is not None else ""
        if secret != self.secret or fault == "unauthorized":
            raise PermissionError("unauthorized")
        limit = self._script.standing("too_large")
        if limit is not None and size > limit.limit:
            raise ValueError("too large")
        self.traffic.largest = max(self.traffic.largest, size)
        if behaviour is not None and fault in ("throttle", "busy"):
            seconds = parse_retry_after(behaviour.retry_after, time.time())
            return [Verdict("retry", code=fault, retry_after=seconds)] * len(batch)
        if fault == "forbidden":
            raise LookupError("no such target")
        if fault == "reset_mid_body":
            raise ConnectionResetError("reset")
        if behaviour is not None and fault in ("silent", "silent_stored"):
            if fault == "silent_stored":
                self._take(batch, None)
            time.sleep(max(0.0, min(behaviour.seconds, deadline - time.monotonic())))
            raise ConnectionAbortedError("silent")
        verdicts = self._take(batch, behaviour)
        if fault == "reset_mid_response":
            raise ConnectionResetError("reset")
        return verdicts

    def _take(self, batch: Sequence[EncodedEvent], behaviour: Behaviour | None) -> list[Verdict]:
        poison = self._script.standing("refuse_items")
        refused = poison.ids if poison is not None else ()
        verdicts = []
        with self._lock:
            for number, event in enumerate(batch, 1):
                if event.event_id in refused:
                    verdicts.append(Verdict("rejected", code="refused"))
                elif behaviour is not None and behaviour.fault == "retry_items" and number % behaviour.every == 0:
                    verdicts.append(Verdict("retry", code="again"))
                elif event.event_id in self._stored:
                    verdicts.append(DUPLICATE)
                else:
                    self._stored[event.event_id] = event.body
                    verdicts.append(DELIVERED)
        return verdicts


class ReferenceDestination:
    """Delivers to a ``MemoryPeer``."""

    dedupe: Literal["by_id", "none"] = "by_id"
    limits = Limits(max_events=100, max_batch_bytes=200_000, max_event_bytes=100_000)

    def __init__(self, address: Mapping[str, str], name: str = "reference") -> None:
        self.name = name
        self._peer = MemoryPeer.at(address)
        self._secret = self._peer.secret

    def check(self) -> list[str]:
        """Say whether the secret is right."""
        return [] if self._secret == self._peer.secret else [f"{self.name}: the secret is refused; renew it."]

    def send(self, batch: Sequence[EncodedEvent], deadline: float) -> Ack:
        """Send ``batch``; one that is too large is halved, an event too large alone is rejected.

        Raises:
            TransientError: the peer did not answer; nothing was judged.
            AuthError: the peer refuses the secret, also the renewed one.
            ConfigError: the target is not there.
        """
        verdicts: list[Verdict] = []
        runs = [list(batch)]
        while runs:
            run = runs.pop()
            small = [event for event in run if len(event.body) <= self.limits.max_event_bytes]
            if len(small) < len(run) and len(run) == 1:
                verdicts.append(Verdict("rejected", code="event_too_large"))
                continue
            try:
                if len(small) < len(run):
                    raise ValueError("one is too large")  # noqa: TRY301 - the same way as the peer's answer
                verdicts += self._ask(run, deadline)
            except ValueError:
                if len(run) == 1:
                    verdicts.append(Verdict("rejected", code="event_too_large"))
                else:
                    runs += [run[len(run) // 2 :], run[: len(run) // 2]]
        return Ack(verdicts)

    def confirm(self, token: str) -> Verdict:
        """Nothing is ever pending here."""
        del token
        return Verdict("retry", code="unknown_token")

    def close(self) -> None:
        """Nothing to give back."""

    def _ask(self, run: Sequence[EncodedEvent], deadline: float) -> list[Verdict]:
        for last in (False, True):
            try:
                return self._peer.ask(run, self._secret, deadline)
            except PermissionError:
                if last:
                    break
                self._secret = self._peer.secret
            except LookupError:
                raise ConfigError("no such target", where=self.name, hint="make it") from None
            except OSError as error:
                raise TransientError(f"{self.name}: {error}", hint="it is tried again") from None
        raise AuthError(f"{self.name}: the secret is refused", hint="renew it")


class ChaosDestination:
    """Another destination in trouble: fails before and after sending, and answers less than it knows. Seeded.

    It never claims a delivery that did not happen, so everything around it must still lose nothing.

    Args:
        inner: the destination that delivers.
        seed: the same seed gives the same trouble.
        rate: share of calls that are disturbed.
    """

    def __init__(self, inner: Destination, seed: int, rate: float = 0.4) -> None:
        self._inner = inner
        self._random = random.Random(seed)  # noqa: S311 - trouble, not secrets
        self._rate = rate
        self.name = inner.name
        self.limits: Limits = inner.limits
        self.dedupe: Literal["by_id", "none"] = inner.dedupe

    def check(self) -> list[str]:
        """As the inner one."""
        return self._inner.check()

    def send(self, batch: Sequence[EncodedEvent], deadline: float) -> Ack:
        """As the inner one, disturbed.

        Raises:
            TransientError: also when the events were delivered.
        """
        if self._random.random() >= self._rate:
            return self._inner.send(batch, deadline)
        kind = self._random.randrange(4)
        if kind == 0:
            raise TransientError("chaos: before", retry_after=self._random.choice([None, 0.0, 2.0]))
        if kind == 1:
            return Ack([Verdict("retry", code="chaos")] * len(batch))
        ack = self._inner.send(batch, deadline)
        if kind == 2:
            raise TransientError("chaos: after")
        forget = Verdict("retry", code="chaos", retry_after=0.0)
        return Ack([forget if self._random.random() < 0.3 else verdict for verdict in ack.verdicts])

    def confirm(self, token: str) -> Verdict:
        """As the inner one, sometimes without news."""
        return Verdict("pending", token=token) if self._random.random() < self._rate else self._inner.confirm(token)

    def close(self) -> None:
        """As the inner one."""
        self._inner.close()
