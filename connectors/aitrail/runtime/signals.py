"""How a running command is told to stop, and how its threads wake its main loop."""

import contextlib
import os
import select
import signal
from types import FrameType
from typing import Self


class Bell:
    """Wakes one waiting thread from other threads and from signal handlers.

    It is a pipe: a lock, as ``threading.Event`` has one, would hang when a signal handler rings while the very thread
    it interrupted holds it.
    """

    def __init__(self) -> None:
        self._out, self._in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else _pipe()

    def ring(self) -> None:
        """Wake the waiting thread, or the next that waits."""
        with contextlib.suppress(BlockingIOError, OSError):  # full: it rings already; closed: nobody waits any more
            os.write(self._in, b"\0")

    def wait(self, seconds: float) -> None:
        """Wait until it rings, at most ``seconds``."""
        if select.select([self._out], [], [], max(0.0, seconds))[0]:
            with contextlib.suppress(BlockingIOError):
                os.read(self._out, 4096)

    def close(self) -> None:
        """Give the pipe back; may be called twice."""
        ends, self._out, self._in = (self._out, self._in), -1, -1
        for end in ends:
            if end >= 0:
                os.close(end)

    def __del__(self) -> None:
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _pipe() -> tuple[int, int]:
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    return ends


class Stop:
    """Set by SIGTERM and SIGINT; the loop ends after the commit in hand."""

    def __init__(self) -> None:
        self.requested = False
        self.bell = Bell()

    def request(self) -> None:
        """Ask for the end; from any thread."""
        self.requested = True
        self.bell.ring()

    def install(self) -> None:
        """Listen to SIGTERM and SIGINT; a second one ends the process at once: what is lost was not committed."""

        def handle(number: int, frame: FrameType | None) -> None:
            del frame
            if self.requested:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            self.request()

        signal.signal(signal.SIGTERM, handle)
        signal.signal(signal.SIGINT, handle)
