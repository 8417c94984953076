"""What a conformance case works with: a spool and a courier around the destination under test, watched from outside.

Time runs as fast as nothing happens: the clock that decides when to retry is moved on whenever there is nothing to do,
while deadlines keep to real seconds (``BenchClock``). So a wait of five minutes costs no test five minutes, and how
long the flow waited is still known exactly.
"""

import contextlib
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, cast

import msgspec

from aitrail.delivery import Courier
from aitrail.errors import AitrailError, AuthError, ConfigError, TransientError
from aitrail.ports import Ack, Destination, EncodedEvent, Limits, Verdict
from aitrail.spool import DeadLetterFilter, Intake, OutboxBatch, Spool
from aitrail.testing.events import make_events
from aitrail.testing.peer import Peer

Make = Callable[[Peer], Destination]

SEND_SECONDS = 3.0
_IDLE_SECONDS = 0.004


class BenchClock:
    """A clock whose ``now`` can be moved on; ``monotonic`` and ``sleep`` are the machine's."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def now(self) -> float:
        """Epoch seconds, with what was skipped."""
        return time.time() + self._ahead

    def monotonic(self) -> float:
        """Real monotonic seconds: time-outs of sockets cannot be hurried."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def skip(self, seconds: float) -> None:
        """Move on."""
        self._ahead += seconds


class Sending(msgspec.Struct, frozen=True, gc=False):
    """One call of ``send`` as it was seen: simulated and real time at its start, how long it took, its error if any."""

    at: float
    started: float
    seconds: float
    events: int
    error: str = ""
    retry_after: float | None = None


class Watched:
    """A destination, watched: calls, errors, and every "delivered" that the peer cannot back.

    Deadlines are shortened, so that a silent peer costs a test seconds and not minutes.
    """

    def __init__(self, inner: Destination, peer: Peer, clock: BenchClock) -> None:
        self._inner = inner
        self._peer = peer
        self._clock = clock
        self.name = inner.name
        self.limits: Limits = inner.limits
        self.dedupe: Literal["by_id", "none"] = inner.dedupe
        self.sendings: list[Sending] = []
        self.false_delivered: set[str] = set()
        self.late_seconds = 0.0
        self.verdicts: Counter[str] = Counter()
        self.send_seconds = SEND_SECONDS
        self.tokens: dict[str, list[str]] = {}

    def check(self) -> list[str]:
        """As the destination."""
        return self._inner.check()

    def send(self, batch: Sequence[EncodedEvent], deadline: float) -> Ack:
        """As the destination, noted."""
        at, started = self._clock.now(), time.monotonic()
        until = min(deadline, started + self.send_seconds)
        error: AitrailError | None = None
        try:
            ack = self._inner.send(batch, until)
        except AitrailError as raised:
            error = raised
            raise
        finally:
            ended = time.monotonic()
            self.late_seconds = max(self.late_seconds, ended - until)
            self.sendings.append(
                Sending(
                    at,
                    started,
                    ended - started,
                    len(batch),
                    type(error).__name__ if error is not None else "",
                    getattr(error, "retry_after", None),
                )
            )
        if len(ack.verdicts) != len(batch):
            raise AssertionError(f"{self.name}: {len(ack.verdicts)} verdicts for {len(batch)} events")
        self._judge([event.event_id for event in batch], ack.verdicts)
        return ack

    def confirm(self, token: str) -> Verdict:
        """As the destination, noted."""
        verdict = self._inner.confirm(token)
        ids = self.tokens.get(token, [])
        if verdict.status != "pending":
            self._judge(ids, [verdict] * len(ids))
        return verdict

    def close(self) -> None:
        """As the destination."""
        self._inner.close()

    def _judge(self, ids: Sequence[str], verdicts: Sequence[Verdict]) -> None:
        claimed = []
        for one, verdict in zip(ids, verdicts, strict=True):
            self.verdicts[verdict.status] += 1
            if verdict.status in ("delivered", "duplicate"):
                claimed.append(one)
            elif verdict.status == "pending":
                self.tokens.setdefault(verdict.token, []).append(one)
        if claimed:
            self.false_delivered |= set(claimed) - set(self._peer.received())


class Bench:
    """One case's world: a fresh spool, the destination under test, and what was handed in.

    Attributes:
        messages: the last message of each class of error that the destination raised.
        recovery_seconds: real seconds that the last ``drain`` took.
        holds: the case ends with events still waiting, as it should.
        note: what else there is to say in the report.
        marks_controls: the format has no control characters, so that they arrive as marks or spaces (F25).
    """

    def __init__(self, make: Make, peer: Peer, directory: Path) -> None:
        self.make = make
        self.peer = peer
        self.directory = directory
        self.clock = BenchClock()
        self.spool = Spool.open(directory / "spool", self.clock)
        self.watched = Watched(make(peer), peer, self.clock)
        self.courier = self._courier(self.watched)
        self.sent: dict[str, EncodedEvent] = {}
        self._before = frozenset(peer.received())
        self.messages: dict[str, str] = {}
        self.holds = False
        self.note = ""
        self.marks_controls = False
        self.recovery_seconds = 0.0
        # Ids differ between the cases that share a peer, and between runs on a peer that outlives the process.
        self.label = f"{time.time_ns():x}-"
        self._number = 0

    def _courier(self, destination: Watched) -> Courier:
        return Courier(self.spool, cast(Destination, destination), self.clock)

    def reconnect(self) -> None:
        """Close the destination and make it anew, as a restart would; what was seen of it is kept."""
        old = self.watched
        old.close()
        self.watched = Watched(self.make(self.peer), self.peer, self.clock)
        self.watched.sendings, self.watched.tokens = old.sendings, old.tokens
        self.watched.verdicts, self.watched.false_delivered = old.verdicts, old.false_delivered
        self.courier = self._courier(self.watched)

    def reopen(self) -> None:
        """Close and open the spool as well."""
        self.spool.close()
        self.spool = Spool.open(self.directory / "spool", self.clock)
        self.reconnect()

    def put(self, events: Sequence[EncodedEvent], *, also: Sequence[str] = ()) -> None:
        """Hand events in, as one source step of the pipeline."""
        self._number += 1
        self.spool.commit(
            Intake(
                source="conformance",
                destinations=(self.watched.name, *also),
                events=events,
                cursors={"n": str(self._number).encode()},
            )
        )
        self.sent.update((event.event_id, event) for event in events)

    def events(self, count: int, label: str, first: int = 0) -> list[EncodedEvent]:
        """Make ``count`` events that no other case has."""
        return make_events(count, self.label + label, first)

    def turn(self) -> int:
        """Let the courier send what it can and ask for what is pending; gives how many events left the outbox."""
        before = self.backlog
        try:
            self.courier.drain()
        except (TransientError, AuthError, ConfigError) as error:
            self._note(error)
        else:
            if self.courier.state.last_error:
                self._note(TransientError(self.courier.state.last_error))
        self._confirm()
        return before - self.backlog

    def _note(self, error: AitrailError) -> None:
        self.messages[type(error).__name__] = f"{error} {error.hint}"

    def _confirm(self) -> None:
        """Ask for pending deliveries once each; harmless where the courier has done it."""
        batch: OutboxBatch | None = self.spool.awaiting(self.watched.name)
        if batch is None:
            return
        answers = {token: self.watched.confirm(token) for token in dict.fromkeys(batch.tokens)}
        self.spool.settle(batch, Ack([answers[token] for token in batch.tokens]), self.clock.now())

    def drain(self, seconds: float = 60.0, *, skip: float = 0.5) -> bool:
        """Go on until the outbox is empty; False when ``seconds`` (real) were not enough."""
        started = time.monotonic()
        while self.backlog:
            if time.monotonic() - started > seconds:
                break
            if not self.turn():
                self.clock.skip(skip)
                time.sleep(_IDLE_SECONDS)
        self.recovery_seconds = time.monotonic() - started
        return not self.backlog

    def turns(self, count: int, *, skip: float = 0.5) -> None:
        """Take ``count`` turns, ``skip`` simulated seconds apart."""
        for _ in range(count):
            self.turn()
            self.clock.skip(skip)
            time.sleep(_IDLE_SECONDS)

    def errors(self) -> Counter[str]:
        """How many calls of ``send`` ended in an error, by class."""
        return Counter(one.error for one in self.watched.sendings if one.error)

    @property
    def backlog(self) -> int:
        """How many events have not left the outbox."""
        return self.spool.backlog(self.watched.name).events

    def dead(self) -> dict[str, str]:
        """Open dead letters of this destination: event id -> code."""
        letters = self.spool.deadletters(DeadLetterFilter(destination=self.watched.name))
        return {letter.event_id: letter.code for letter in letters}

    def arrived(self) -> list[str]:
        """What the peer has taken durably since the case began, in the order of arrival, repeats included."""
        return [one for one in self.peer.received() if one not in self._before]

    def close(self) -> None:
        """Close the destination and the spool."""
        self.watched.close()
        self.spool.close()


@contextlib.contextmanager
def bench(make: Make, peer: Peer, directory: Path) -> Iterator[Bench]:
    """Make a bench; heals the peer and closes everything behind it."""
    peer.heal()
    one = Bench(make, peer, directory)
    try:
        yield one
    finally:
        peer.heal()
        one.close()


class Narrow:
    """A destination with smaller batches, so that what interrupts falls between them."""

    def __init__(self, inner: Destination, max_events: int) -> None:
        self._inner = inner
        self.name = inner.name
        self.dedupe: Literal["by_id", "none"] = inner.dedupe
        self.limits: Limits = msgspec.structs.replace(inner.limits, max_events=min(max_events, inner.limits.max_events))

    def check(self) -> list[str]:
        """As the destination."""
        return self._inner.check()

    def send(self, batch: Sequence[EncodedEvent], deadline: float) -> Ack:
        """As the destination."""
        return self._inner.send(batch, deadline)

    def confirm(self, token: str) -> Verdict:
        """As the destination."""
        return self._inner.confirm(token)

    def close(self) -> None:
        """As the destination."""
        self._inner.close()


def reset_peak() -> None:
    """Begin a new measurement of ``peak_mb`` where the system can (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_mb() -> float:
    """Peak resident memory in MB, since ``reset_peak`` where the system can, else since the start."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1_000
    unit = 1_000_000 if sys.platform == "darwin" else 1_000
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
