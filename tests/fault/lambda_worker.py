"""Invocations of the Lambda handler, each in a process of its own that a test may kill. Imports are done once.

Reads one JSON line per invocation from stdin: ``event``, ``seconds`` until the time-out, ``later`` (seconds that the
clock is ahead), ``die``: at which point the process kills itself (every call to AWS or the destination is two points:
before and after it; 0: at none). Prints the child's process id, and when it is gone ``{"answer": ...}``: null when it
was killed, ``{"error": NAME}`` when the handler raised. Commits and requests are small, so that there are many points.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aitrail.pipeline as pipeline
from aitrail.clock import SystemClock
from aitrail.runtime import aws_lambda
from aitrail.sources._aws_calls import Aws
from aitrail.testing.lambda_place import Context

pipeline.COMMIT_EVENTS = 15


class Ahead(SystemClock):
    """Time goes on between two runs."""

    later = 0.0

    def now(self) -> float:
        return time.time() + self.later


class Points:
    """Counts the points that this process has passed."""

    def __init__(self) -> None:
        self.die = 0
        self._passed = 0

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """``call`` with a point before and one after it."""

        def mortal(*args: Any, **kwargs: Any) -> Any:
            self._pass()
            result = call(*args, **kwargs)
            self._pass()
            return result

        return mortal

    def _pass(self) -> None:
        self._passed += 1
        if self._passed == self.die:
            os.kill(os.getpid(), signal.SIGKILL)


POINTS = Points()


def invoke(request: dict[str, Any]) -> dict[str, Any]:
    clock = Ahead()
    clock.later = request["later"]
    POINTS.die = request["die"]
    aws_lambda._workers[0].clock._clock = clock
    try:
        return aws_lambda.handler(request["event"], Context(request["seconds"]))
    except Exception as error:  # noqa: BLE001 - told to the test
        return {"error": type(error).__name__, "text": str(error)}


def main() -> None:
    worker = aws_lambda.Worker(os.environ, Path())
    aws_lambda._workers.append(worker)
    for route in worker.parts.routes:  # compiled and made before the first fork
        route.destination.send = POINTS.around(route.destination.send)  # type: ignore[method-assign]
    Aws.call = POINTS.around(Aws.call)  # type: ignore[method-assign]
    for service in ("s3", "dynamodb", "logs"):
        worker._aws.client(service, worker.region)  # its description is read; nothing is connected
    print("ready", flush=True)
    for line in sys.stdin:
        out, into = os.pipe()
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.write(into, json.dumps(invoke(json.loads(line))).encode())
            os._exit(0)
        os.close(into)
        print(child, flush=True)
        with os.fdopen(out, "rb") as answer:
            said = answer.read()
        os.waitpid(child, 0)
        print(json.dumps({"answer": json.loads(said) if said else None}), flush=True)


if __name__ == "__main__":
    main()
