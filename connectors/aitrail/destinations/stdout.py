"""Standard output as a destination: one canonical JSON object per line, for pipes and for looking.

There is no acknowledgement from the other end of a pipe: an event is delivered once its line is flushed. On a terminal
characters that could steer it (C1 controls, bidirectional overrides, line separators) are written as JSON escapes; C0
controls are escaped in canonical bytes anyway.
"""

import sys
from collections.abc import Sequence
from typing import BinaryIO, Literal

from msgspec.structs import replace

from aitrail.destinations._stdout_settings import StdoutSettings
from aitrail.errors import ConfigError, TransientError
from aitrail.ports import DELIVERED, Ack, EncodedEvent, Limits, Verdict

_STEERING = (
    *range(0x7F, 0xA0),
    *(0x061C, 0x200E, 0x200F, 0x2028, 0x2029),
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
)
_ESCAPES = {code: f"\\u{code:04x}" for code in _STEERING}

_BROKEN = Verdict("rejected", code="newline_in_event")


class StdoutDestination:
    """Writes events to ``stream`` (standard output unless given).

    Args:
        stream: a binary stream.
        terminal: whether a terminal reads it; None asks the stream.
        name: the destination's name in the outbox.
    """

    limits = Limits(max_events=1_000, max_batch_bytes=4_000_000, max_event_bytes=1 << 62)
    dedupe: Literal["by_id", "none"] = "none"

    def __init__(self, stream: BinaryIO | None = None, *, terminal: bool | None = None, name: str = "stdout") -> None:
        self.name = name
        self._stream = stream if stream is not None else sys.stdout.buffer
        self._terminal = self._stream.isatty() if terminal is None else terminal

    def check(self) -> list[str]:
        """Say when the stream is closed."""
        return ["standard output is closed; start the command with an open one."] if self._stream.closed else []

    def send(self, batch: Sequence[EncodedEvent], deadline: float) -> Ack:
        """Write and flush ``batch``; the reader sets the pace, so ``deadline`` is not needed.

        Raises:
            ConfigError: nobody reads the other end any more.
            TransientError: writing failed otherwise (a full disk behind a redirection).
        """
        del deadline
        # One event, one line: what would break the line is no canonical event (JSON escapes newlines in texts).
        verdicts = [_BROKEN if b"\n" in item.body else DELIVERED for item in batch]
        whole = [item.body for item, verdict in zip(batch, verdicts, strict=True) if verdict is DELIVERED]
        lines = [_visible(body) for body in whole] if self._terminal else whole
        try:
            self._stream.write(b"".join([line + b"\n" for line in lines]))
            self._stream.flush()
        except (BrokenPipeError, ValueError) as error:
            raise ConfigError(
                "nobody reads standard output any more", where="stdout", hint="events that were not written are kept"
            ) from error
        except OSError as error:
            raise TransientError(f"standard output: {error.strerror}", hint="nothing was lost") from error
        return Ack(verdicts)

    def confirm(self, token: str) -> Verdict:
        """Nothing is ever pending here."""
        del token
        return Verdict("retry", code="unknown_token")

    def close(self) -> None:
        """Leave the stream open: it is the process's."""


def from_settings(settings: StdoutSettings, *, name: str) -> StdoutDestination:
    """Make the destination ``[destinations.NAME]``."""
    made = StdoutDestination(name=name)
    made.limits = replace(made.limits, max_events=settings.batch_events)
    return made


def _visible(body: bytes) -> bytes:
    """Escape what could steer a terminal; the line stays the same JSON value."""
    return body.decode("utf-8", "replace").translate(_ESCAPES).encode()
