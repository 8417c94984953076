"""kill -9 while events are filtered: each is delivered, waits, or is counted as not wanted - never none of it."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from filter_worker import BATCH, event

from aitrail.clock import SystemClock
from aitrail.ports import Ack
from aitrail.spool import Spool

KILLS = 8


def test_filtered_and_delivered_add_up_after_kills(tmp_path: Path) -> None:
    output = tmp_path / "siem"
    dice = random.Random(4)
    worker = [sys.executable, str(Path(__file__).with_name("filter_worker.py")), str(tmp_path / "store"), str(output)]
    for _ in range(KILLS):
        with subprocess.Popen(worker, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(dice.uniform(0.01, 0.15))
            process.send_signal(signal.SIGKILL)
    with Spool.open(tmp_path / "store", SystemClock()) as spool:
        taken = int(spool.cursors("s").get("at") or b"0")
        counted = spool.counters()["s"]["filtered.siem"]
        waiting = set()
        while (batch := spool.pending("siem", 1_000, 1_000_000)) is not None:
            waiting |= {one.event_id for one in batch.events}
            spool.settle(batch, Ack.all_delivered(len(batch.events)), 0.0)
    assert taken >= KILLS * BATCH
    delivered = output.read_text().split()
    wanted = {event(number).event_id for number in range(0, taken, 2)}
    assert set(delivered) | waiting == wanted
    assert counted == taken - len(wanted)
    # A kill repeats at most what was in flight: one send of the destination.
    assert len(delivered) - len(set(delivered)) <= KILLS * 30
