"""Less content for one destination than the store keeps: the one place where content is taken out again.

The spool holds an event under the content mode of its tenant. A destination may get the same or less: ``none`` <
``hash`` < ``redacted`` < ``full``; ``sealed`` is its own, and less than it are ``hash`` and ``none``. What comes out is
what the tenant would have got under the lower mode: no text, no hash, no offset into a text that is not there.
"""

from collections.abc import Callable, Mapping

from aitrail.event import AccessEvent, ContentMode

# What a destination that may get KEY gets unchanged.
WITHIN: Mapping[ContentMode, frozenset[str]] = {
    "none": frozenset({"none"}),
    "hash": frozenset({"none", "hash"}),
    "redacted": frozenset({"none", "hash", "redacted"}),
    "full": frozenset({"none", "hash", "redacted", "full"}),
    "sealed": frozenset({"none", "hash", "sealed"}),
}
# Tenant modes from which a destination's mode can be made; any other asks for more than is there.
MADE_FROM: Mapping[ContentMode, frozenset[ContentMode]] = {
    "none": frozenset({"none", "hash", "redacted", "full", "sealed"}),
    "hash": frozenset({"hash", "redacted", "full", "sealed"}),
    "redacted": frozenset({"redacted", "full"}),
    "full": frozenset({"full"}),
    "sealed": frozenset({"sealed"}),
}
# Every field that holds content or tells of it. ``evidence`` holds offsets into the texts.
TEXTS = ("prompt_text", "response_text")
HASHES = ("prompt_hash", "response_hash", "system_hash")

# Masks the texts of an event in place: (event) -> None. Needed where ``redacted`` is made from ``full``.
Redact = Callable[[AccessEvent], None]


def lower(event: AccessEvent, wanted: ContentMode, redact: Redact) -> bool:
    """Take out of ``event``, in place, what ``wanted`` does not let through; says whether anything was changed.

    What cannot be made from the event's own mode (a sealed text for a destination that may get ``redacted``, a plain
    one for one that gets ``sealed``) is less, never more: the hashes stay, the texts go.
    """
    mode = event.content_mode
    if not mode and not any(getattr(event, name) for name in (*TEXTS, *HASHES)):
        return False
    # Content whose treatment is not told counts as full.
    if (mode or "full") in WITHIN[wanted]:
        return False
    if wanted == "redacted" and mode in ("full", ""):
        redact(event)
        event.content_mode = "redacted"
        return True
    for name in TEXTS if wanted != "none" else (*TEXTS, *HASHES):
        setattr(event, name, "")
    event.evidence = tuple(without_range(item) for item in event.evidence)
    event.content_mode = "none" if wanted == "none" else "hash"
    return True


def without_range(evidence: str) -> str:
    """``concept|layer|role|start-end`` without the offsets."""
    head, bar, _ = evidence.rpartition("|")
    return head + bar if bar else evidence
