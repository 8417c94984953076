"""splunkd as a destination: events on standard output, as its modular inputs give them.

"Delivered" means that splunkd has taken the event out of the pipe; it confirms nothing beyond that. What it holds in
memory when it dies is lost, and the inputs' overlap does not bring it back: to be sure of more, send to the HTTP Event
Collector with acknowledgement from a collector outside.
"""

import fcntl
import select
import struct
import termios
import time
from collections.abc import Callable, Sequence
from typing import Literal, TextIO

from splunklib.modularinput import Event, EventWriter

from aitrail.destinations import _batching
from aitrail.destinations._batching import OVERSIZE_CODE
from aitrail.destinations._splunk_text import epoch, event_text
from aitrail.errors import ConfigError, TransientError
from aitrail.ports import ACCESS, DELIVERED, Ack, EncodedEvent, Limits, Verdict
from aitrail.splunk_schemes import SOURCETYPES

# XML 1.0 has no way to write these two; JSON does.
_NO_XML = str.maketrans({"\ufffe": "\\ufffe", "\uffff": "\\uffff"})
_NOT_JSON = Verdict("rejected", code="not_json")
_TOO_LARGE = Verdict("rejected", code=OVERSIZE_CODE)
_LOOK_SECONDS = 0.005
_LONGEST_LOOK = 0.1
# Below TRUNCATE of props.conf.
EVENT_BYTES = 900_000


class SplunkdDestination:
    """Writes events of one input.

    Args:
        writer: of splunk-sdk.
        output: what the writer writes to.
        stanza: the input, ``SCHEME://NAME``.
        index: where events go; empty, or ``default`` as splunkd calls it: its default index.
        sleep: waits.
    """

    dedupe: Literal["by_id", "none"] = "none"

    def __init__(
        self, writer: EventWriter, output: TextIO, stanza: str, index: str, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.name = "splunkd"
        self.limits = Limits(max_events=500, max_batch_bytes=1_000_000, max_event_bytes=EVENT_BYTES)
        self._writer = writer
        self._output = output
        self._stanza = stanza
        self._index = index if index != "default" else None
        self._sleep = sleep

    def check(self) -> list[str]:
        """Nothing can be wrong: splunkd has started this."""
        return []

    def send(self, batch: Sequence[EncodedEvent], deadline: float) -> Ack:
        """Write ``batch`` and wait until splunkd has read it.

        Raises:
            ConfigError: splunkd has closed the pipe: this run is over.
            TransientError: it does not read; what it has not read may come twice.
        """
        try:
            verdicts = [self._write(event) for event in batch]
            self._output.flush()
            self._drain(deadline)
        except BrokenPipeError:
            raise ConfigError("splunkd has closed the pipe", hint="the next run goes on where this one stops") from None
        return Ack(verdicts)

    def confirm(self, token: str) -> Verdict:
        """Nothing is ever pending."""
        del token
        return Verdict("retry", code="unknown_token")

    def close(self) -> None:
        """The stream ends with the process."""

    def _write(self, event: EncodedEvent) -> Verdict:
        fitting = _batching.fit(event, EVENT_BYTES)
        if fitting is None:
            return _TOO_LARGE
        stream = event.stream
        text = event_text(fitting.body, with_texts=stream == ACCESS)
        if text is None:
            return _NOT_JSON
        self._writer.write_event(
            Event(
                data=text.decode().translate(_NO_XML),
                stanza=self._stanza,
                time=epoch(event.timestamp).decode(),
                index=self._index or None,
                source=self._stanza,
                sourcetype=SOURCETYPES.get(stream, SOURCETYPES["access"]),  # type: ignore[call-overload]
            )
        )
        return DELIVERED

    def _drain(self, deadline: float) -> None:
        """Wait until the pipe is empty; what is no pipe is not asked."""
        wait = _LOOK_SECONDS
        while unread(self._output):
            if _is_closed(self._output):
                raise BrokenPipeError
            if time.monotonic() >= deadline:
                raise TransientError("splunkd does not read what this input writes", hint="its queues are full")
            self._sleep(wait)
            wait = min(wait * 2, _LONGEST_LOOK)


def _is_closed(output: TextIO) -> bool:
    """Whether nobody reads the pipe any more; what is in it then stays there."""
    watched = select.poll()
    watched.register(output.fileno(), 0)
    return bool(watched.poll(0))


def unread(output: TextIO) -> int:
    """How many bytes of a pipe its reader has not taken (Linux, pipe(7)); 0 for anything else."""
    try:
        return int(struct.unpack("i", fcntl.ioctl(output.fileno(), termios.FIONREAD, b"\0\0\0\0"))[0])
    except (OSError, ValueError):
        return 0
