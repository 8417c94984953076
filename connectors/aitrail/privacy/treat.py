"""Apply a content mode to one event: hash, mask, seal or drop its texts before the event is encoded.

The prompt that is kept is what was asked in this turn: user and tool text after the last answer in the request. Hashes
are over the whole unmasked text, so that equal prompts stay equal whatever the mode hides.
"""

from collections.abc import Sequence

from msgspec import Struct

from aitrail.event import AccessEvent, ContentMode
from aitrail.privacy.keys import KeyRing, cached_keyed_hash, keyed_hash
from aitrail.privacy.masking import Masked, Span, mask
from aitrail.privacy.sealing import Sealer

# Long enough for any prompt that a person writes; longer ones are documents, of which the SIEM needs the beginning.
MAX_TEXT = 32_000


class Piece(Struct, gc=False):
    """One text of a call: where it belongs and which spans of it masking must hide."""

    place: str
    role: str
    text: str
    spans: list[Span] = []


class Stored(Struct, frozen=True, gc=False):
    """Where the pieces went: per piece the offset in the stored text and the masking, None when it is not stored."""

    offsets: Sequence[tuple[int, Masked] | None]

    def place(self, index: int, start: int, end: int) -> tuple[int, int] | None:
        """Turn a span of piece ``index`` into a span of the stored prompt or response."""
        entry = self.offsets[index]
        if entry is None:
            return None
        offset, masked = entry
        new_start, new_end = offset + masked.move(start), offset + masked.move(end)
        return (new_start, max(new_end, new_start)) if new_start < MAX_TEXT else None


def this_turn(pieces: Sequence[Piece]) -> list[int]:
    """Indexes of the prompt pieces of this turn: user and tool text behind the last assistant text."""
    chosen: list[int] = []
    for index, piece in enumerate(pieces):
        if piece.place != "prompt":
            continue
        if piece.role == "assistant":
            chosen.clear()
        elif piece.role != "system":
            chosen.append(index)
    return chosen


class Privacy:
    """Treats events by the content mode of their tenant."""

    def __init__(self, ring: KeyRing, sealer: Sealer | None = None) -> None:
        self._ring = ring
        self._sealer = sealer

    def treat(self, event: AccessEvent, pieces: Sequence[Piece], mode: ContentMode) -> Stored:
        """Set hashes, lengths, texts and mode on ``event``; says where each piece went for evidence offsets."""
        nothing = Stored([None] * len(pieces))
        if not pieces:
            return nothing
        event.content_mode = mode
        prompt = this_turn(pieces)
        response = [index for index, piece in enumerate(pieces) if piece.place == "response"]
        prompt_text = _whole(pieces, prompt)
        response_text = _whole(pieces, response)
        if prompt_text:
            event.prompt_chars = len(prompt_text)
        if response_text:
            event.response_chars = len(response_text)
        if mode == "none":
            return nothing
        self._hash(event, pieces, prompt_text, response_text)
        if mode == "hash":
            return nothing
        hide = mode == "redacted"
        offsets: list[tuple[int, Masked] | None] = [None] * len(pieces)
        if prompt_text:
            event.prompt_text = self._keep(event, _join(pieces, prompt, prompt_text, offsets, hide=hide), mode)
        if response_text:
            event.response_text = self._keep(event, _join(pieces, response, response_text, offsets, hide=hide), mode)
        return nothing if mode == "sealed" else Stored(offsets)

    def _hash(self, event: AccessEvent, pieces: Sequence[Piece], prompt: str, response: str) -> None:
        key_id, key = self._ring.active(event.tenant_id)
        if prompt:
            event.prompt_hash = keyed_hash(key_id, key, prompt)
        if response:
            event.response_hash = keyed_hash(key_id, key, response)
        system = [piece.text for piece in pieces if piece.role == "system"]
        if system:
            event.system_hash = cached_keyed_hash(key_id, key, "\n".join(system))

    def _keep(self, event: AccessEvent, text: str, mode: ContentMode) -> str:
        if len(text) > MAX_TEXT:
            text = text[:MAX_TEXT]
            event.truncated = True
        if mode != "sealed":
            return text
        if self._sealer is None:
            raise RuntimeError("content mode sealed without a sealer")
        return self._sealer.seal(event.tenant_id, event.user_id, event.event_id, text)


def _whole(pieces: Sequence[Piece], chosen: Sequence[int]) -> str:
    if len(chosen) == 1:
        return pieces[chosen[0]].text
    return "\n".join([pieces[index].text for index in chosen])


def _join(
    pieces: Sequence[Piece], chosen: Sequence[int], whole: str, offsets: list[tuple[int, Masked] | None], *, hide: bool
) -> str:
    """The chosen texts as they are stored; ``whole`` is what they are together when nothing is hidden."""
    texts: list[str] = []
    length = 0
    hidden = False
    for index in chosen:
        piece = pieces[index]
        if hide and piece.spans:
            masked = mask(piece.text, piece.spans)
            hidden = True
        else:
            masked = Masked(piece.text)
        offsets[index] = (length, masked)
        texts.append(masked.text)
        length += len(masked.text) + 1
    return "\n".join(texts) if hidden else whole
