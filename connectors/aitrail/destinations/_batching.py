"""Fitting events into requests: limits counted on what is really sent, halving, and the event that is too large alone.

Used by composition: a destination encodes its items, packs them with ``pack``, and hands each pack to its own function.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from aitrail.event import AccessEvent, decode, encode
from aitrail.ports import EncodedEvent
from aitrail.privacy.sealing import PREFIX as SEALED

Oversize = Literal["truncate", "reject"]
OVERSIZE_CODE = "event_too_large"

# What may be cut, the longest first; hashes, scores and identities stay whole. ``prompt_hash`` and ``response_hash``
# are of the whole text, so a cut event still proves what was said.
_CUT_FIELDS = ("response_text", "prompt_text", "user_agent")
_CUT_LISTS = ("evidence", "risk_reasons", "related_ids", "flags")
_LEAST_CHARS = 256


def pack(sizes: Sequence[int], max_items: int, max_bytes: int) -> Iterator[tuple[int, int]]:
    """Cut a sequence into runs (start, end) that keep both limits; an item above ``max_bytes`` stands alone."""
    start = used = 0
    for place, size in enumerate(sizes):
        if place > start and (used + size > max_bytes or place - start >= max_items):
            yield start, place
            start, used = place, 0
        used += size
    if start < len(sizes):
        yield start, len(sizes)


def halves(start: int, end: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Cut a run of at least two in the middle."""
    middle = (start + end) // 2
    return (start, middle), (middle, end)


def fit(event: EncodedEvent, max_bytes: int, policy: Oversize = "truncate") -> EncodedEvent | None:
    """Make one event fit into ``max_bytes``: its texts are cut and ``truncated`` is set.

    Returns:
        The event itself when it fits, a shorter one with the same event_id, or None: it has to be rejected
        (``OVERSIZE_CODE``), because the policy says so, it is no ``AccessEvent``, or it is too large without texts.
    """
    if len(event.body) <= max_bytes:
        return event
    if policy == "reject":
        return None
    try:
        whole = decode(event.body)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None
    whole.truncated = True
    body = _shorten(whole, max_bytes)
    return None if body is None else EncodedEvent(event.event_id, event.timestamp, body)


def _shorten(event: AccessEvent, max_bytes: int) -> bytes | None:
    """Cut the longest text again and again, then drop lists; None when what is left is still too large."""
    body = encode(event)
    while len(body) > max_bytes:
        name = max(_CUT_FIELDS, key=lambda one: len(getattr(event, one)))
        text: str = getattr(event, name)
        if len(text) <= _LEAST_CHARS:
            break
        # Bytes per character differ (escapes, UTF-8): take away the share that is too much, and a little more.
        if text.startswith(SEALED):
            setattr(event, name, "")  # a part of a sealed text cannot be opened
            body = encode(event)
            continue
        keep = int(len(text) * (1 - (len(body) - max_bytes) / max(len(body), 1))) - 16
        setattr(event, name, text[: max(_LEAST_CHARS, min(keep, len(text) - 1))])
        body = encode(event)
    for name in (*_CUT_LISTS, *_CUT_FIELDS):
        if len(body) <= max_bytes:
            return body
        setattr(event, name, () if name in _CUT_LISTS else "")
        body = encode(event)
    return body if len(body) <= max_bytes else None
