"""Worker processes of a function app that a test kills: imports once, then forks a child for each call.

Usage: azure_function_worker.py SETTINGS (JSON). Reads calls from standard input, one JSON a line: ``function``,
``bodies`` and ``first`` for messages, ``life`` (seconds until the child is killed with SIGKILL; 0: it may end). Answers
each with one line: ``status`` (0 it returned, 1 it raised, -9 it was killed) and ``seconds``.
"""

import base64
import json
import logging
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Sequence

import azure.storage.blob  # noqa: F401  (imported before the first fork)

import aitrail.destinations.sentinel
import aitrail.pipeline as pipeline
import aitrail.sources.azure_blobs
import aitrail.sources.event_hubs  # noqa: F401
from aitrail.classify.contract import Text, Verdict
from aitrail.classify.scorer import Panel
from aitrail.classify.scoring import DEFAULT_THRESHOLDS
from aitrail.runtime.judging import Judging
from aitrail.runtime.scheduled import parts
from aitrail.testing.azure_function import Worker, event_batch, timer


class Judge:
    """Finds nothing: compiling patterns would be most of a short life."""

    version = "none"
    thresholds = DEFAULT_THRESHOLDS

    def classify(self, texts: Sequence[Text]) -> Verdict:
        return Verdict()

    def score(self, text: str) -> float:
        return 0.0


def child(environment: dict[str, str], call: dict) -> int:
    """One call in a worker of its own."""
    worker = Worker(environment)
    if "bodies" in call:
        argument = event_batch([base64.b64decode(body) for body in call["bodies"]], call["first"])
    else:
        argument = timer()
    try:
        worker.call(call["function"], argument)
    except Exception:  # noqa: BLE001
        if call.get("loud"):
            traceback.print_exc()
        return 1
    return 0


def answer(environment: dict[str, str], call: dict) -> dict:
    """Fork, and kill when its life is over."""
    reading, writing = os.pipe()
    begun = time.monotonic()
    pid = os.fork()
    if pid == 0:
        status = 3
        try:
            os.close(reading)
            status = child(environment, call)
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writing)
    # The pipe ends when the child does.
    if call["life"] and not select.select([reading], [], [], call["life"])[0]:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    os.close(reading)
    return {"status": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - begun}


def main() -> None:
    """Answer calls until standard input ends."""
    logging.disable(logging.CRITICAL)
    environment = json.loads(sys.argv[1])
    pipeline.COMMIT_EVENTS = 25
    parts.make_judging = lambda *_: Judging(Judge(), None, Panel((), time.monotonic))
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(environment, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
