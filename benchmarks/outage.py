"""One destination is down for an hour while another one is up: what it costs, and how fast it is made good.

    python benchmarks/outage.py                       # an hour at 500 events/s, with a simulated clock
    python benchmarks/outage.py --rate 2000 --cap 200 # the outbox may take 200 MB: the source pauses

The clock is simulated, everything else is real: the outbox with its journal and SQLite, the couriers, the bytes on
disk. Receivers answer at once, so the catch-up rate is what the outbox can give, in wall and in CPU time.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec import Struct

from aitrail.clock import iso_ms
from aitrail.delivery import Courier
from aitrail.errors import TransientError
from aitrail.event import encode
from aitrail.ports import Ack, EncodedEvent, Limits, Verdict
from aitrail.schema.catalog import example_event
from aitrail.spool import Cap, Intake, Spool

HOUR = 3_600.0
# Numbers to ids that look random, and back (a multiplication modulo 2^128): a bit per event tells what came.
_TIMES = 0x9E3779B97F4A7C15F39CC0605CEDC835
_SPACE = 1 << 128
_BACK = pow(_TIMES, -1, _SPACE)


class SimulatedClock:
    """A clock that only ``sleep`` moves."""

    def __init__(self) -> None:
        self.time = 1_800_000_000.0

    def now(self) -> float:
        """Seconds since the epoch."""
        return self.time

    def monotonic(self) -> float:
        """The same."""
        return self.time

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.time += seconds


class Receiver:
    """Counts what it gets; refuses everything until ``back``."""

    dedupe = "none"
    limits = Limits(max_events=2_000, max_batch_bytes=8_000_000)

    def __init__(self, name: str, clock: SimulatedClock, back: float = 0.0) -> None:
        self.name = name
        self.count = 0
        self.repeats = 0
        self.attempts = 0
        self._clock = clock
        self._back = back
        self._seen = bytearray()

    def check(self) -> list[str]:
        """Nothing is wrong."""
        return []

    def send(self, batch: Sequence[EncodedEvent], deadline: float) -> Ack:
        """Take the batch, or refuse it while the outage lasts."""
        del deadline
        self.attempts += 1
        if self._clock.time < self._back:
            raise TransientError("the receiver is down")
        for event in batch:
            number = int(event.event_id, 16) * _BACK % _SPACE
            self._seen.extend(bytes(max(0, number + 1 - len(self._seen))))
            self.repeats += self._seen[number]
            self.count += 1 - self._seen[number]
            self._seen[number] = 1
        return Ack.all_delivered(len(batch))

    def confirm(self, token: str) -> Verdict:
        """Nothing is ever pending."""
        del token
        return Verdict("retry")

    def close(self) -> None:
        """Nothing to give back."""


class Outage(Struct):
    """What happened. Seconds are simulated unless they say wall or CPU."""

    made: int = 0
    lost: int = 0
    repeats: int = 0
    attempts: int = 0
    backlog_events: int = 0
    backlog_bytes: int = 0
    disk_bytes: int = 0
    growth_bytes: int = 0
    healthy_lag: float = 0.0
    paused: float = 0.0
    recovery_wall: float = 0.0
    recovery_cpu: float = 0.0
    left_bytes: int = 0

    @property
    def rate_wall(self) -> float:
        """Events per second of wall time while the backlog is made good."""
        return self.backlog_events / self.recovery_wall

    @property
    def rate_cpu(self) -> float:
        """The same per second of CPU."""
        return self.backlog_events / self.recovery_cpu


def simulate(directory: Path, *, rate: int, body_bytes: int = 1_000, seconds: float = HOUR, cap: int = 0) -> Outage:
    """Run one outage.

    Args:
        directory: for the store.
        rate: events per second that the source has.
        body_bytes: about so many bytes per event.
        seconds: how long the destination is down.
        cap: bytes that the outbox may take; 0: no limit.
    """
    clock = SimulatedClock()
    found = Outage()
    up, down = Receiver("up", clock), Receiver("down", clock, back=clock.time + seconds)
    step = min(10.0, 2_000 / rate)
    with Spool.open(directory, clock) as spool:
        spool.cap = Cap(bytes=cap)
        couriers = [Courier(spool, one, clock) for one in (up, down)]  # type: ignore[arg-type]
        resting = resident_bytes()
        source = _Source(rate * step, body_bytes)
        end = clock.time + seconds
        while clock.time < end:
            if spool.over_cap():
                found.paused += step
            else:
                spool.commit(Intake("source", ["up", "down"], source.take(clock.time), {"at": b"%d" % source.made}))
            for courier in couriers:
                courier.drain()
            found.healthy_lag = max(found.healthy_lag, spool.backlog("up").oldest_seconds)
            found.growth_bytes = max(found.growth_bytes, resident_bytes() - resting)
            clock.sleep(step)
        backlog = spool.backlog("down")
        found.backlog_events, found.backlog_bytes = backlog.events, backlog.bytes
        found.disk_bytes = _size(directory)
        found.attempts = down.attempts
        began = time.perf_counter(), time.process_time()
        clock.sleep(60.0)  # the longest pause between two attempts
        couriers[1].drain()
        found.recovery_wall = time.perf_counter() - began[0]
        found.recovery_cpu = time.process_time() - began[1]
        found.growth_bytes = max(found.growth_bytes, resident_bytes() - resting)
        found.left_bytes = sum(path.stat().st_size for path in (directory / "outbox").iterdir())
    found.made = source.made
    found.lost = 2 * source.made - down.count - up.count
    found.repeats = down.repeats + up.repeats
    return found


class _Source:
    """Makes events of one size, each with an id of its own."""

    def __init__(self, batch: float, body_bytes: int) -> None:
        self.made = 0
        self._batch = max(1, round(batch))
        event = example_event()
        event.prompt_text = ""
        event.prompt_text = "What is the limit? " * (max(0, body_bytes - len(encode(event))) // 19)
        self._head, self._tail = encode(event).split(event.event_id.encode(), 1)

    def take(self, now: float) -> list[EncodedEvent]:
        """Give what one step brings."""
        at = iso_ms(now)
        ids = [f"{(self.made + number) * _TIMES % _SPACE:032x}" for number in range(self._batch)]
        self.made += self._batch
        return [EncodedEvent(one, at, b"".join((self._head, one.encode(), self._tail))) for one in ids]


def resident_bytes() -> int:
    """Resident memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def report(found: Outage) -> str:
    """Give the figures, one a line."""
    rows = [
        ("events made, lost, repeated", f"{found.made:,}, {found.lost:,}, {found.repeats:,}"),
        ("attempts at the one that is down", f"{found.attempts:,}"),
        ("backlog at the end of the outage", f"{found.backlog_events:,} events, {found.backlog_bytes / 1e6:,.0f} MB"),
        ("store on disk then", f"{found.disk_bytes / 1e6:,.0f} MB"),
        ("outbox on disk afterwards", f"{found.left_bytes / 1e6:,.1f} MB"),
        ("most that memory grew", f"{found.growth_bytes / 1e6:,.0f} MB"),
        ("longest wait for the one that is up", f"{found.healthy_lag:.1f} s"),
        ("source paused", f"{found.paused:,.0f} s"),
        ("catch-up", f"{found.rate_wall:,.0f} events/s (wall), {found.rate_cpu:,.0f} per core"),
    ]
    return "\n".join(f"{name:<36}{value}" for name, value in rows)


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=500, help="events per second (default: 500)")
    parser.add_argument("--bytes", type=int, default=2_200, help="bytes per event (default: 2200)")
    parser.add_argument("--cap", type=float, default=0.0, help="MB that the outbox may take (default: no limit)")
    asked = parser.parse_args()
    with TemporaryDirectory(prefix="aitrail-outage-") as directory:
        found = simulate(Path(directory), rate=asked.rate, body_bytes=asked.bytes, cap=int(asked.cap * 1e6))
    print(report(found))


if __name__ == "__main__":
    main()
