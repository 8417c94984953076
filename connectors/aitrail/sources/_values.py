"""What one piece of text says about the value at a place in it: the decoder's answers, and the head of an envelope."""

import re
from functools import lru_cache

import msgspec

from aitrail.sources._caps import HEAD_BYTES
from aitrail.sources._scan import DONE, MORE, Scanner

NOT_THERE = msgspec.Raw(b"")


class _Top(msgspec.Struct, gc=False):
    """Checks that bytes are one JSON object and sees its envelope key in the same pass."""

    Records: msgspec.Raw = NOT_THERE
    records: msgspec.Raw = NOT_THERE


decode_top = msgspec.json.Decoder(_Top).decode
decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_raw = msgspec.json.Decoder(msgspec.Raw).decode
REFUSALS = (msgspec.DecodeError, RecursionError)

_TRAILING = re.compile(r"trailing characters \(byte (\d+)\)$")
_OPEN = re.compile(rb"\{\s*")
_KEY = re.compile(rb'"((?:[^"\\\n]|\\.)*)"\s*:\s*')
_ARRAY = re.compile(rb"\[\s*[{\]]")
_ARRAY_PART = re.compile(rb"(?:\[\s*)?\Z")
_NEXT_MEMBER = re.compile(rb"\s*,\s*")
_SPACE = b" \t\r\n"
_QUOTE = 0x22


def envelope_array(whole: bytes, at: int, *, eof: bool) -> int:
    """Return the place of the envelope's array, 0 when the object at ``at`` is no envelope, -1 to ask for more text."""
    text = whole[at : at + HEAD_BYTES]
    short = -1 if len(text) < HEAD_BYTES and not eof else 0
    if short == 0 and b'ecords"' not in text:
        return 0
    match = _OPEN.match(text)
    place = match.end() if match else 1
    while True:
        key = _KEY.match(text, place)
        if key is None:
            return short if place >= len(text) or text[place] == _QUOTE else 0
        place = key.end()
        if key[1] in (b"Records", b"records"):
            if _ARRAY.match(text, place):
                return at + place
            return short if _ARRAY_PART.match(text, place) else 0
        if place >= len(text):
            return short
        verdict, place = Scanner().step(text, place)
        if verdict != DONE:
            return short if verdict == MORE else 0
        comma = _NEXT_MEMBER.match(text, place)
        if comma is None:
            return short if not text[place:].strip(_SPACE) else 0
        place = comma.end()


@lru_cache(maxsize=64)
def next_start(indent: bytes) -> re.Pattern[bytes]:
    """Match the line end before a line that starts a value behind ``indent``."""
    return re.compile(rb"\n" + re.escape(indent) + rb"[{\[]")


def is_value(data: bytes) -> bool:
    """Say whether ``data`` is exactly one JSON value."""
    return data == data.strip(_SPACE) and _trailing(data) == 0


def probe(text: bytes, at: int) -> tuple[int, int]:
    """Ask the decoder where the value at ``at`` ends: many times faster than the scan, but only sure when it knows."""
    if text[at] not in b'{["':
        return MORE, at  # a number may go on in the next piece
    trailing = _trailing(memoryview(text)[at:])
    if trailing < 0:
        return MORE, at
    end = at + trailing - _TRAILING_SHIFT if trailing else len(text)
    return DONE, at + len(text[at:end].rstrip(_SPACE))


def _trailing(text: bytes | memoryview) -> int:
    """Return what the decoder says about text behind the first value: its place, 0 for none, -1 for no answer."""
    try:
        _decode_raw(text)
    except msgspec.DecodeError as error:
        match = _TRAILING.search(str(error))
        return int(match[1]) if match else -1
    except RecursionError:
        return -1
    return 0


# The decoder counts the place it reports from 1 in some versions and from 0 in others; ask the one that is here.
_TRAILING_SHIFT = _trailing(b"{}x") - 2
