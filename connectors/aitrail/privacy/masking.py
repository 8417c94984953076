"""Masking: replace found spans by ``[kind]`` and keep track of where everything else went."""

from bisect import bisect_right
from collections.abc import Iterable

from msgspec import Struct

Span = tuple[int, int, str]


class Masked(Struct, frozen=True, gc=False):
    """A masked text and the way from offsets in the original to offsets in it."""

    text: str
    starts: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()
    shifts: tuple[int, ...] = ()
    places: tuple[tuple[int, int], ...] = ()

    def move(self, offset: int) -> int:
        """Where the character at ``offset`` of the original is now; inside a mask: the mask's start."""
        index = bisect_right(self.starts, offset) - 1
        if index < 0:
            return offset
        if offset < self.ends[index]:
            return self.places[index][0]
        return offset + self.shifts[index]


def merge_spans(spans: Iterable[Span]) -> list[Span]:
    """Join overlapping spans; the kind of the longest one names the whole."""
    merged: list[Span] = []
    for start, end, kind in sorted(spans):
        if end <= start:
            continue
        if merged and start < merged[-1][1]:
            last_start, last_end, last_kind = merged[-1]
            longer = kind if end - start > last_end - last_start else last_kind
            merged[-1] = (last_start, max(end, last_end), longer)
        else:
            merged.append((start, end, kind))
    return merged


def mask(text: str, spans: Iterable[Span]) -> Masked:
    """Hide ``spans`` of ``text`` behind ``[kind]``; spans may overlap and come in any order."""
    merged = merge_spans(spans)
    if not merged:
        return Masked(text)
    pieces: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    shifts: list[int] = []
    places: list[tuple[int, int]] = []
    last = length = 0
    for start, found_end, kind in merged:
        end = min(found_end, len(text))
        label = f"[{kind}]"
        length += start - last
        pieces += (text[last:start], label)
        starts.append(start)
        ends.append(end)
        places.append((length, length + len(label)))
        length += len(label)
        shifts.append(length - end)
        last = end
    pieces.append(text[last:])
    return Masked("".join(pieces), tuple(starts), tuple(ends), tuple(shifts), tuple(places))
