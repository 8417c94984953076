"""A shipping process that the suite kills: ``python -m aitrail.testing.worker SPEC.json``.

Mode ``kills``: children, one after the other, take events in and ship them; each is killed with SIGKILL at a random
moment, the last one runs to the end. Mode ``ship``: ships until done or until SIGTERM, and then ends in good order.
"""

import importlib
import importlib.util
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from types import FrameType
from typing import Any, cast

import msgspec

from aitrail.clock import SystemClock
from aitrail.delivery import Courier
from aitrail.errors import AitrailError, TransientError
from aitrail.ports import Ack, Destination, EncodedEvent
from aitrail.spool import Intake, Spool
from aitrail.testing.events import make_event
from aitrail.testing.harness import Make, Narrow
from aitrail.testing.peer import PeerAddress

BATCH = 50
_TAKE = 40


class Spec(msgspec.Struct, frozen=True):
    """What the process is to do.

    Attributes:
        file: the Python file that defines ``make``.
        make: its qualified name there.
        peer: the peer's name.
        address: the peer's address.
        directory: the spool.
        mode: ``kills`` or ``ship``.
        events: how many events there are; in mode ``kills`` there are always more until the last child.
        label: names the events.
        kills: how many children are killed.
        seed: of the moments.
        longest: a child lives at most so many seconds before it is killed.
        pause: seconds between two batches.
    """

    file: str
    make: str
    peer: str
    address: dict[str, str]
    directory: str
    mode: str
    events: int
    label: str
    kills: int = 0
    seed: int = 0
    longest: float = 0.3
    pause: float = 0.0


def load_make(spec: Spec) -> Make:
    """Import ``make`` from its file."""
    loader = importlib.util.spec_from_file_location("aitrail_conformance_make", spec.file)
    if loader is None or loader.loader is None:
        raise SystemExit(f"{spec.file} cannot be imported")
    module = importlib.util.module_from_spec(loader)
    sys.modules[loader.name] = module
    loader.loader.exec_module(module)
    return cast(Make, reduce(getattr, spec.make.split("."), cast(Any, module)))


class _Stopping:
    """A destination that refuses to begin once a stop was asked for."""

    def __init__(self, inner: Destination, pause: float) -> None:
        self._inner = inner
        self._pause = pause
        self.stop = False
        self.name, self.limits, self.dedupe = inner.name, inner.limits, inner.dedupe
        self.check, self.confirm, self.close = inner.check, inner.confirm, inner.close

    def send(self, batch: Sequence[EncodedEvent], deadline: float) -> Ack:
        """As the inner one, unless stopping."""
        if self.stop:
            raise TransientError("stopping")
        ack = self._inner.send(batch, deadline)
        time.sleep(self._pause)
        return ack


def ship(spec: Spec, make: Make) -> int:
    """Take events in and ship them until there are none left, or until SIGTERM."""
    inner = make(PeerAddress(spec.peer, spec.address))
    destination = _Stopping(cast(Destination, Narrow(inner, BATCH)), spec.pause)

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        destination.stop = True

    signal.signal(signal.SIGTERM, stop)
    spool = Spool.open(Path(spec.directory), SystemClock())
    courier = Courier(spool, cast(Destination, destination), SystemClock())
    at = 0
    try:
        # To be stopped in the middle there must be more than one batch waiting.
        while spec.mode == "ship" and at < spec.events:
            at = _take(spool, spec, destination.name)
        while not destination.stop:
            at = _take(spool, spec, destination.name)
            try:
                courier.drain()
                _confirm(spool, destination)
            except AitrailError:
                time.sleep(0.01)
            if at >= spec.events and not spool.backlog(destination.name).events:
                break
            if courier.state.waiting_until > time.time():
                time.sleep(0.01)
    finally:
        destination.close()
        spool.close()
    return 0


def _take(spool: Spool, spec: Spec, name: str) -> int:
    """One step of the source: the next events and the cursor behind them, in one commit."""
    at = int(spool.cursors("conformance").get("n") or b"0")
    if at >= spec.events:
        return at
    end = min(at + _TAKE, spec.events)
    events = [make_event(number, spec.label) for number in range(at, end)]
    spool.commit(Intake("conformance", (name,), events, {"n": str(end).encode()}))
    return end


def _confirm(spool: Spool, destination: _Stopping) -> None:
    batch = spool.awaiting(destination.name)
    if batch is not None:
        answers = {token: destination.confirm(token) for token in dict.fromkeys(batch.tokens)}
        spool.settle(batch, Ack([answers[token] for token in batch.tokens]), time.time())


def kill(spec: Spec, make: Make) -> int:
    """Fork children that ship, kill each at a random moment, and let the last one finish."""
    moments = random.Random(spec.seed)  # noqa: S311 - moments, not secrets
    killed = 0
    for left in range(spec.kills, -1, -1):
        child = os.fork()
        if child == 0:
            os._exit(ship(msgspec.structs.replace(spec, events=1 << 40 if left else 0), make))
        if left:
            time.sleep(moments.uniform(0.01, spec.longest))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status)
        if left == 0:
            print(f"killed {killed}", flush=True)  # noqa: T201 - read by the suite
        if left == 0 or os.waitstatus_to_exitcode(status) not in (0, -signal.SIGKILL):
            return abs(os.waitstatus_to_exitcode(status))
    return 0


def main(path: str) -> int:
    """Do what the file at ``path`` says."""
    spec = msgspec.json.decode(Path(path).read_bytes(), type=Spec)
    make = load_make(spec)
    print("ready", flush=True)  # noqa: T201 - the suite waits for it
    return kill(spec, make) if spec.mode == "kills" else ship(spec, make)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
