"""One collection in a process of its own that a test kills: commits and segments are small, so that kills fall between.

Usage: killable.py CONFIG. Prints ``ready`` when the imports are done.
"""

import sys
from pathlib import Path

import msgspec

import aitrail.pipeline as pipeline
from aitrail.config import load
from aitrail.destinations.store import StoreDestination
from aitrail.runtime.collect import collect
from aitrail.runtime.judging import default_classifier as classifier

pipeline.COMMIT_EVENTS = 40
classifier()  # compiled before the clock of the kills starts
print("ready", flush=True)
original = StoreDestination.__init__


def small(self: StoreDestination, *args: object, **kwargs: object) -> None:
    original(self, *args, **kwargs)  # type: ignore[arg-type]
    self.limits = msgspec.structs.replace(self.limits, max_events=150)


StoreDestination.__init__ = small  # type: ignore[method-assign]
collect(load(Path(sys.argv[1])))
