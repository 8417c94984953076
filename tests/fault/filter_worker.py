"""A process that takes events in for two destinations, one of which wants half of them, until it is killed.

Usage: filter_worker.py STORE OUTPUT. Ids that the selective destination gets are appended to OUTPUT, one a line.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from aitrail.clock import SystemClock
from aitrail.delivery import Courier
from aitrail.event import AccessEvent, encode, make_event_id
from aitrail.ports import Ack, EncodedEvent, Limits, Verdict
from aitrail.routing.select import Rule, Selector
from aitrail.routing.where import parse_where
from aitrail.spool import Intake, Spool

BATCH = 20
TIME = "2026-11-23T09:00:00.000Z"


class Lines:
    """Appends what it gets to a file, durably."""

    dedupe = "none"
    limits = Limits(max_events=30)

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self._file = path.open("a")

    def check(self) -> list[str]:
        return []

    def send(self, batch: Sequence[EncodedEvent], deadline: float) -> Ack:
        del deadline
        self._file.write("".join(f"{event.event_id}\n" for event in batch))
        self._file.flush()
        os.fsync(self._file.fileno())
        return Ack.all_delivered(len(batch))

    def confirm(self, token: str) -> Verdict:
        del token
        return Verdict("retry")

    def close(self) -> None:
        self._file.close()


def event(number: int) -> EncodedEvent:
    made = AccessEvent(
        event_id=make_event_id("acme", "kill", str(number)),
        timestamp=TIME,
        tenant_id="acme",
        source="litellm",
        token_count=number,
        read_only=number % 2 == 0,
    )
    return EncodedEvent(made.event_id, TIME, encode(made))


def main() -> None:
    store, output = Path(sys.argv[1]), Path(sys.argv[2])
    with Spool.open(store, SystemClock()) as spool:
        spool.chooser = Selector({"siem": Rule(frozenset({"access"}), parse_where("read_only = true"))})
        courier = Courier(spool, Lines("siem", output), SystemClock())  # type: ignore[arg-type]
        other = Courier(spool, Lines("all", output.with_suffix(".all")), SystemClock())  # type: ignore[arg-type]
        cursor = spool.cursors("s").get("at")
        number = int(cursor) if cursor else 0
        began = number
        while True:
            events = [event(number + step) for step in range(BATCH)]
            number += BATCH
            spool.commit(Intake("s", ["siem", "all"], events, {"at": b"%d" % number}))
            courier.drain()
            other.drain()
            if number == began + BATCH:
                print("ready", flush=True)


if __name__ == "__main__":
    main()
