"""File -> store in a process of its own: CPU, wall time and peak memory of what ``aitrail collect`` does.

    python benchmarks/files.py DIRECTORY [--frame]      prints one JSON line

``--frame`` only reads, inflates and frames.
"""

import json
import resource
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from aitrail.clock import SystemClock
from aitrail.ports import Budget
from aitrail.runtime.collect import collect, one_off
from aitrail.sources.file import FileSource


class _Nothing:
    """No cursors: everything is new."""

    def get(self, key: str) -> bytes | None:
        del key
        return None

    def items(self):
        return iter(())


def peak_bytes() -> int:
    """Highest resident memory of this process so far.

    ``VmHWM`` where there is a /proc: ``ru_maxrss`` of a new process begins with that of the one that started it.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def frame(directory: str) -> int:
    """Read every record and throw it away; gives their number."""
    source = FileSource("bench", [directory], clock=SystemClock(), key=b"bench")
    return sum(len(batch.records) for batch in source.fetch(_Nothing(), Budget()))


def store(directory: str) -> int:
    """Collect into a new store; gives the number of new events."""
    with TemporaryDirectory(prefix="aitrail-bench-", dir=Path(directory).parent) as name:
        config = one_off(
            (directory,), Path(name) / "store", content="redacted", tenant="acme", record_type="", people=""
        )
        outcome = collect(config)
        if outcome.totals.rejected:
            raise SystemExit(f"generated records were rejected: {dict(outcome.totals.rejected)}")
        return outcome.totals.new


def main() -> None:
    directory, *more = sys.argv[1:]
    imported = peak_bytes()
    wall, cpu = time.perf_counter(), time.process_time()
    count = (frame if "--frame" in more else store)(directory)
    print(
        json.dumps(
            {
                "events": count,
                "cpu": time.process_time() - cpu,
                "wall": time.perf_counter() - wall,
                "peak": peak_bytes(),
                "imported": imported,
            }
        )
    )


if __name__ == "__main__":
    main()
