"""Children for the crash tests of the store: works on a store, and dies where it is told to.

Modes (first argument): ``kills DIR COUNT SEED`` forks COUNT workers one after the other, each of which is killed with
SIGKILL, half of them at a random step (SQL statement, write, sync, rename, unlink), half at a random time;
``full DIR`` works with a file size limit or on a small disk until that is lifted.
"""

import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from aitrail.clock import SystemClock
from aitrail.destinations.store import StoreDestination
from aitrail.errors import TransientError
from aitrail.event import AccessEvent, encode, make_event_id
from aitrail.ports import EncodedEvent
from aitrail.spool import DeadLetter, Intake, Spool, dead_letter_id, journal
from aitrail.store import identity, maintenance

STEP_NAMES = ("fsync", "pwrite", "ftruncate", "rename", "unlink", "fchmod")


def event(number: int) -> EncodedEvent:
    one = AccessEvent(
        event_id=make_event_id("acme", "crash", str(number)),
        timestamp=f"2026-11-{20 + number % 2}T09:00:00.{number % 1000:03d}Z",
        tenant_id="acme",
        source="cloudtrail",
        prompt_text=f"number {number} " * 20,
    )
    return EncodedEvent(one.event_id, one.timestamp, encode(one))


def letter(number: int) -> DeadLetter:
    return DeadLetter(
        id=dead_letter_id("s", "o", number, number, "bad"), source="s", origin="o", position=number, end=number,
        index=number, code="bad", field="", record_type="", stage="frame", first_seen=float(number),
    )  # fmt: skip


def commit_some(spool: Spool, rng: random.Random) -> None:
    """One commit: new events, some old ones again, the cursor, a dead letter, a counter."""
    at = int(spool.cursors("s").get("n") or b"0")
    count = rng.randrange(1, 40)
    numbers = [*range(at, at + count), *rng.choices(range(at + 1), k=3)]
    new_numbers = sorted(set(numbers))
    end = max(new_numbers) + 1
    spool.commit(
        Intake(
            source="s",
            destinations=("store", "slow"),
            events=[event(n) for n in new_numbers],
            cursors={"n": str(end).encode()},
            dead=[letter(at)],
            counts={"commits": 1, "numbers": end - at},
        )
    )


def deliver(spool: Spool, store: StoreDestination, limit: int) -> bool:
    batch = spool.pending("store", limit, 1 << 40)
    if batch is None:
        return False
    spool.settle(batch, store.send(batch.events, 0.0), spool.database.clock.now())
    return True


def small_sizes() -> None:
    """Make rare things frequent: file changes, compression, merges of the identity tail."""
    journal.FILE_BYTES = 30_000
    journal.COMPRESS_ABOVE_BYTES = 40_000
    identity.TAIL_KEYS = 150


def work(directory: Path, seed: int, on_open: Callable[[Spool], None]) -> None:
    """Commit, deliver and compact until killed."""
    small_sizes()
    rng = random.Random(seed)
    spool = Spool.open(directory, SystemClock())
    on_open(spool)
    store = StoreDestination(spool, directory)
    for _ in range(10_000):
        commit_some(spool, rng)
        while rng.random() < 0.6:
            deliver(spool, store, rng.randrange(1, 90))
        if rng.random() < 0.3:
            # The second destination is down: it looks and never settles, so all of its events must stay.
            spool.pending("slow", 10, 1 << 40)
        if rng.random() < 0.15:
            maintenance.compact(spool, grace_seconds=rng.choice([0.0, 0.05]))


def die_at_step(step: int) -> Callable[[Spool], None]:
    """Arrange that this process is killed just before its step number ``step``."""
    left = [step]

    def tick(*_: object) -> None:
        left[0] -= 1
        if left[0] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(name: str) -> None:
        real = getattr(os, name)

        def wrapped(*args: object, **more: object) -> object:
            tick()
            return real(*args, **more)

        setattr(os, name, wrapped)

    for name in STEP_NAMES:
        wrap(name)

    def on_open(spool: Spool) -> None:
        spool.database._connection.set_trace_callback(tick)

    return on_open


def kills(directory: Path, count: int, seed: int) -> dict[str, object]:
    """Fork and kill ``count`` workers."""
    rng = random.Random(seed)
    killed = ended = 0
    for number in range(count):
        step = rng.randrange(1, 260) if number % 2 else 0
        delay = 0.03 + rng.random() * 0.35
        child = os.fork()
        if child == 0:
            try:
                work(directory, seed * 1000 + number, die_at_step(step) if step else lambda spool: None)
            except BaseException as error:  # noqa: BLE001 - reported through the exit code
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
                os._exit(9)
            os._exit(0)
        if not step:
            time.sleep(delay)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            killed += 1
        else:
            ended = status
            break
    return {"killed": killed, "ended": ended}


def full(directory: Path, limit: str) -> dict[str, object]:
    """Work until there is no room, see that nothing half-done shows, make room, go on to the end."""
    rng = random.Random(5)
    ballast = Path(limit) if limit.startswith("/") else None
    spool = Spool.open(directory, SystemClock())
    store = StoreDestination(spool, directory)
    if ballast is None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
    refused: list[str] = []
    while len(refused) < 3:
        before = (spool.cursors("s").get("n"), spool.counters(), spool.backlog("store").events)
        try:
            commit_some(spool, rng)
        except TransientError as error:
            refused.append(f"commit: {error}")
            assert (spool.cursors("s").get("n"), spool.counters(), spool.backlog("store").events) == before
    while len(refused) < 5:
        before = spool.backlog("store").events
        try:
            if not deliver(spool, store, 200):
                break
        except TransientError as error:
            refused.append(f"deliver: {error}")
            assert spool.backlog("store").events == before
    if ballast is None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    else:
        ballast.unlink()
    for _ in range(3):
        commit_some(spool, rng)
    while deliver(spool, store, 200):
        pass
    store.close()
    spool.close()
    return {"refused": refused}


if __name__ == "__main__":
    mode, place, *rest = sys.argv[1:]
    answer = kills(Path(place), int(rest[0]), int(rest[1])) if mode == "kills" else full(Path(place), rest[0])
    print(json.dumps(answer))
