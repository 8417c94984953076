"""Collections that a test kills: commits and segments are small, so that kills fall between.

Usage: killable.py. For each line on standard input, the path of a configuration, one process is forked that collects by
it, from the very beginning of a run; what is imported and compiled before that is the same every time, and so is done
once. Prints the process id, and when it has ended its exit code (minus the signal that killed it).
"""

import os
import signal
import sys
import traceback
from pathlib import Path

import msgspec

import aitrail.pipeline as pipeline
from aitrail.config import load
from aitrail.destinations.store import StoreDestination
from aitrail.runtime.collect import collect
from aitrail.runtime.judging import default_classifier as classifier

original = StoreDestination.__init__


def small(self: StoreDestination, *args: object, **kwargs: object) -> None:
    original(self, *args, **kwargs)  # type: ignore[arg-type]
    self.limits = msgspec.structs.replace(self.limits, max_events=150)


pipeline.COMMIT_EVENTS = 40
StoreDestination.__init__ = small  # type: ignore[method-assign]
classifier()  # compiled before the clock of the kills starts
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            collect(load(Path(line.strip())))
            code = 0
        except BaseException:  # noqa: BLE001  (the process ends here)
            traceback.print_exc()
        finally:
            os._exit(code)
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
