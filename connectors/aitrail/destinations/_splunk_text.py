"""What Splunk is given of an event, whichever way: its text, and its time."""

from datetime import datetime
from functools import lru_cache

import msgspec

from aitrail.destinations._raw_fields import texts_last

# Searches extract the fields of a JSON event from its first 5,000 bytes only (limits.conf, [spath] extraction_cutoff),
# and 10,240 characters ([kv] maxchars). In events above this size texts go last, so that verdicts are within.
_TEXTS_LAST_ABOVE = 4_096

_syntax = msgspec.json.Decoder(msgspec.Raw).decode


def event_text(body: bytes, *, with_texts: bool) -> bytes | None:
    """What is sent of an event; None when it is not one JSON object alone: the rest would end the envelope.

    Args:
        body: canonical bytes.
        with_texts: it is an access, which may hold long texts.
    """
    if body[:1] != b"{":
        return None
    shown = body
    try:
        if with_texts and len(body) > _TEXTS_LAST_ABOVE:
            shown = texts_last(body)
        else:
            _syntax(body)
        body.decode()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return shown


def epoch(timestamp: str) -> bytes:
    """Give a canonical timestamp as Splunk's time: seconds with three decimals, as text, so that nothing is rounded."""
    return _second(timestamp[:19]) + (timestamp[19:23] if len(timestamp) == 24 else ".000").encode()


@lru_cache(maxsize=4096)
def _second(text: str) -> bytes:
    try:
        return b"%d" % int(datetime.fromisoformat(text + "+00:00").timestamp())
    except ValueError:
        return b"0"
