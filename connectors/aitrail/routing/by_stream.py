"""One configured destination that takes several kinds of events, each through an instance with settings of its own.

Accesses go first: what fails for them fails the call. What fails for another kind only (a stream that is not set up at
the receiver) never holds up accesses: those events are asked for again a minute later, and ``trouble`` says why.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from aitrail.errors import AitrailError, TransientError
from aitrail.ports import ACCESS, Ack, Destination, EncodedEvent, Verdict

_UNSUPPORTED = Verdict("rejected", code="stream_unsupported")
_MARK = "|"
_REFUSED_SECONDS = 60.0


def upkeep(destination: object) -> None:
    """Let a destination look after itself, if it is one that does (a lake compacts); raises its errors."""
    tend = getattr(destination, "upkeep", None)
    if tend is not None:
        tend()


class ByStream:
    """Hands accesses to ``main`` and other kinds of events to their own destinations; verdicts come back in order.

    Attributes:
        trouble: what is wrong for a kind of events other than accesses; empty while all is well.
    """

    def __init__(self, main: Destination, others: Mapping[str, Destination]) -> None:
        self._all: dict[str, Destination] = {ACCESS: main, **others}
        self.name = main.name
        self.limits = main.limits
        self.dedupe: Literal["by_id", "none"] = main.dedupe
        self._troubles: dict[str, str] = {}

    @property
    def trouble(self) -> str:
        """What is wrong for other kinds of events."""
        return "; ".join(f"{stream}: {why}" for stream, why in sorted(self._troubles.items()))

    def check(self) -> list[str]:
        """What is wrong for accesses, and for other kinds of events what is wrong for those only."""
        wrong = self._all[ACCESS].check()
        for stream, one in self._all.items():
            if one is not self._all[ACCESS]:
                own = [problem for problem in one.check() if problem not in wrong]
                wrong += [f"{stream} events (`streams` says which are sent): {problem}" for problem in own]
        return wrong

    def send(self, batch: Sequence[EncodedEvent], deadline: float) -> Ack:
        """Send each kind by itself; raises as the destination of accesses does, before anything else is sent."""
        places: dict[str, list[int]] = {}
        for place, event in enumerate(batch):
            places.setdefault(event.stream, []).append(place)
        if list(places) == [ACCESS]:
            return self._marked(ACCESS, self._all[ACCESS].send(batch, deadline))
        verdicts: list[Verdict] = [_UNSUPPORTED] * len(batch)
        for stream in sorted(places, key=lambda one: one != ACCESS):
            mine = places[stream]
            found = self._send(stream, [batch[place] for place in mine], deadline)
            for place, verdict in zip(mine, found, strict=True):
                verdicts[place] = verdict
        return Ack(verdicts)

    def confirm(self, token: str) -> Verdict:
        """Ask the destination that gave the token."""
        stream, _, own = token.partition(_MARK)
        destination = self._all.get(stream)
        return self._mark(stream, destination.confirm(own)) if destination else Verdict("retry", code="unknown_token")

    def upkeep(self) -> None:
        """Let each of them look after itself."""
        for one in self._each():
            upkeep(one)

    def close(self) -> None:
        """Close all of them."""
        for one in self._each():
            one.close()

    def _each(self) -> list[Destination]:
        """Every destination once: several kinds may share one."""
        return list({id(one): one for one in self._all.values()}.values())

    def _send(self, stream: str, events: Sequence[EncodedEvent], deadline: float) -> Sequence[Verdict]:
        destination = self._all.get(stream)
        if destination is None:
            return [_UNSUPPORTED] * len(events)
        try:
            found = self._marked(stream, destination.send(events, deadline)).verdicts
        except AitrailError as error:
            if stream == ACCESS:
                raise
            self._troubles[stream] = error.sentence
            after = error.retry_after if isinstance(error, TransientError) else None
            later = Verdict("retry", code="interrupted", retry_after=_REFUSED_SECONDS if after is None else after)
            return [later] * len(events)
        self._troubles.pop(stream, None)
        return found

    def _marked(self, stream: str, ack: Ack) -> Ack:
        if all(verdict.status != "pending" for verdict in ack.verdicts):
            return ack
        return Ack([self._mark(stream, verdict) for verdict in ack.verdicts])

    @staticmethod
    def _mark(stream: str, verdict: Verdict) -> Verdict:
        if verdict.status != "pending":
            return verdict
        return Verdict("pending", verdict.code, verdict.retry_after, f"{stream}{_MARK}{verdict.token}")
