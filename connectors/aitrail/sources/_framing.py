"""Text -> records: JSON lines, values after one another, arrays and ``Records`` envelopes, told apart by content.

What is a record
    - a JSON object at the top level, alone on its line, spread over lines, or next to others;
    - an element of a top-level array;
    - an element of an envelope: an object that names ``Records`` (CloudTrail) or ``records`` (Azure) with an array of
      objects within its first ``HEAD_BYTES``; its other members are no records. OTLP's ``resourceSpans`` is one record.
What is between records
    White space, NUL (holes that ``copytruncate`` leaves), byte order marks and commas. Lines end at LF only: texts hold
    U+2028, U+0085 and VT.
What is neither
    - a line that starts no value, or a value with something behind it: passed on as one record, the decoder says why;
    - a value broken in its own line: that line; broken in a later line: up to the next line that starts a value at the
      same indentation. The rest of a broken array is read as top-level text.
    - a value nested more deeply than any decoder takes: an error, up to the same place.

The framer takes text in pieces of any size and gives the same records for every cut. ``Run.resume`` says for every
record where a new framer must start to give exactly the records behind it.
"""

import re

import msgspec

from aitrail.ports import RawRecord
from aitrail.sources._caps import CHUNK, Caps
from aitrail.sources._scan import DONE, ILLEGAL, MORE, Scanner
from aitrail.sources._values import (
    NOT_THERE,
    REFUSALS,
    decode_items,
    decode_top,
    envelope_array,
    next_start,
    probe,
)

_GAP = re.compile(rb"[ \t\r\n\x00,]*")
_SAME_LINE = re.compile(rb"[ \t\r\x00,]*")
_SPACE = b" \t\r\n"
_BRACE, _BRACKET, _CLOSE_BRACE, _CLOSE_BRACKET, _BOM = 0x7B, 0x5B, 0x7D, 0x5D, 0xEF

# After a window of array elements did not divide, this many are framed one by one before the next try.
_BACK_OFF = 64
_LONGEST_INDENT = 64
# Lines that look nested into one another without end are given up this many at a time: one by one, each of them would
# be followed through all that come after it.
_NESTED_TOGETHER = 16
_TOP_LEVEL, _ITEMS, _ENVELOPE_END = "top", "items", "end"
_VALUE, _LINE, _RESYNC = "value", "line", "resync"
_NEED_MORE, _CHANGED = -1, -2


class Run(msgspec.Struct, gc=False):
    """Records of one place: of the top level (``anchor`` -1) or of the container behind ``anchor``.

    Attributes:
        first: how many records of the container lie before this run.
    """

    records: list[RawRecord]
    anchor: int = -1
    first: int = 0

    def resume(self, count: int) -> tuple[int, int]:
        """Return (offset, skip) of a framer that starts behind the first ``count`` (1 or more) records of this run."""
        if self.anchor >= 0:
            return self.anchor, self.first + count
        return self.records[count - 1].end, 0


class Tail(msgspec.Struct, frozen=True):
    """What is left at the end of the text.

    Attributes:
        kind: ``line``: the last line has no line end yet; ``document``: a value over several lines, an array or an
            envelope is not closed; empty: nothing.
        position: where the rest starts.
        length: bytes of it.
    """

    kind: str = ""
    position: int = 0
    length: int = 0


class _Hunt:
    """The search for the end of what starts at ``start``: offsets in the text, ``end`` is -1 until it is known."""

    __slots__ = ("deep", "end", "indent", "kind", "large", "lines", "place", "probed", "scanner", "start")

    def __init__(self, kind: str, start: int, indent: bytes) -> None:
        self.kind = kind
        self.start = start
        self.place = start
        self.end = -1
        self.indent = indent
        self.large = False
        self.deep = False
        self.lines = 0
        self.probed = False
        self.scanner = Scanner(indent)


class Framer:
    """Frames one text; see the module docstring for the rules."""

    def __init__(self, caps: Caps | None = None, *, offset: int = 0, index: int = 0, skip: int = 0) -> None:
        """Start at ``offset`` of the text; the first ``skip`` records of the container there were given before."""
        self._record_bytes = (caps or Caps()).record_bytes
        self._text = b""
        self._base = offset
        self._at = 0
        self._settled = offset  # the end of the last thing that was not a gap
        self._skip = skip
        self._stage = _TOP_LEVEL
        self._anchor = -1
        self._envelope = False
        self._taken = 0
        self._comma = False
        self._separator = b","
        self._windows_off = 0
        self._next_line_end = -1  # in this piece, at or behind the last place asked for
        self._tail_scanner = Scanner()
        self._lead: bytes | None = b"" if offset == 0 else None
        self._hunt: _Hunt | None = None
        self._runs: list[Run] = []
        self.index = index

    def feed(self, data: bytes) -> list[Run]:
        """Take the next piece of text and return what is complete."""
        self._text = self._text[self._at :] + data if self._at < len(self._text) else data
        self._base += self._at
        self._at = 0
        self._next_line_end = self._text.find(b"\n")
        return self._drain(eof=False)

    def finish(self, *, final: bool = True) -> tuple[list[Run], Tail]:
        """Say that the text ends here (for now, unless ``final``) and return the last records and what is left."""
        runs = self._drain(eof=True)
        tail = self._tail()
        # A torn line that a later line seems to continue: nothing will come that settles it, so the later line wins.
        while final and tail.kind == "document" and self._give_way():
            runs += self._drain(eof=True)
            tail = self._tail()
        return runs, tail

    def first_of(self, tail: Tail) -> bytes:
        """Return the first byte of what is left, where it is still known."""
        at = tail.position - self._base
        return self._text[at : at + 1] if tail.kind and at >= 0 else b""

    def resume(self) -> tuple[int, int]:
        """Return (offset, skip) of a framer that goes on behind all that was given out."""
        if self._stage == _TOP_LEVEL:
            return self._settled, 0
        return self._anchor, max(self._taken, self._skip)

    def _drain(self, *, eof: bool) -> list[Run]:
        self._runs = []
        going = True
        while going:
            if self._hunt is not None:
                going = self._pursue(self._hunt, eof=eof)
            elif self._stage == _TOP_LEVEL:
                going = self._top_level(eof=eof)
            elif self._stage == _ITEMS:
                going = self._items(eof=eof)
            else:
                going = self._envelope_end()
        runs, self._runs = self._runs, []
        return runs

    # -- giving out

    def _give(self, start: int, end: int, data: bytes, error: str = "") -> None:
        """Add one record of the current place; ``start`` and ``end`` are offsets in the text."""
        anchor = self._anchor
        if anchor >= 0:
            self._taken += 1
            if self._taken <= self._skip:
                return
        record = RawRecord(data, start, self.index, end, error)
        self.index += 1
        first = self._taken - 1 if anchor >= 0 else 0
        last = self._runs[-1] if self._runs else None
        if last is not None and last.anchor == anchor and (anchor < 0 or last.first + len(last.records) == first):
            last.records.append(record)
        else:
            self._runs.append(Run([record], anchor, first))

    def _leave_container(self) -> None:
        self._stage = _TOP_LEVEL
        self._anchor = -1
        self._skip = 0

    # -- the top level

    def _gap(self) -> int:
        """Step over what may lie between records; return the place of the next value (or the end)."""
        text = self._text
        at = _gap_end(text, self._at)
        if at > self._at:
            gap = text[self._at : at]
            line = gap.rfind(b"\n")
            if line >= 0:
                self._lead = gap[line + 1 :]
            elif self._lead is not None:
                self._lead += gap
            if self._lead is not None and len(self._lead) > _LONGEST_INDENT:
                self._lead = None
            if b"," in gap:
                self._comma = True
            self._at = at
        return at

    def _indent(self) -> bytes:
        lead = self._lead
        return lead if lead is not None and not lead.strip(b" \t") else b""

    def _top_level(self, *, eof: bool) -> bool:
        at = self._gap()
        text = self._text
        if at == len(text) or (text[at] == _BOM and len(text) - at < 3 and not eof):
            return False
        # Only at the start of a line: behind a value on the same line, the line is not one object.
        if text[at] == _BRACE and self._lead is not None and self._line_end(at) >= 0 and self._lines():
            return True
        newline = self._line_end(at)
        if newline < 0 and len(text) - at < CHUNK and not eof:
            return False  # most likely a line whose rest comes with the next piece
        if text[at] == _BRACKET:
            self._open_container(at, envelope=False)
            return True
        if text[at] == _BRACE:
            array = envelope_array(text, at, eof=eof)
            if array < 0:
                return False
            if array:
                self._open_container(array, envelope=True)
                return True
        elif newline < 0 and eof:
            return False
        kind = _VALUE if text[at] == _BRACE else _LINE
        self._hunt = _Hunt(kind, self._base + at, self._indent())
        return True

    def _line_end(self, at: int) -> int:
        """Return the next line end from ``at`` on, -1 when this piece has none; remembered for values on one line."""
        if at > self._next_line_end >= 0:
            self._next_line_end = self._text.find(b"\n", at)
        return self._next_line_end

    def _lines(self) -> bool:
        """Take lines that are one object each, as long as they are; return whether there was one.

        This is the hot loop: everything unusual is left to the slow way.
        """
        text, at, base, index = self._text, self._at, self._base, self.index
        find, cap = text.find, self._record_bytes
        records: list[RawRecord] = []
        add = records.append
        while True:
            newline = find(b"\n", at)
            if newline < 0 or newline - at > cap:
                break
            line = text[at:newline]
            try:
                top = decode_top(line)
            except REFUSALS:
                break
            if (top.Records is not NOT_THERE or top.records is not NOT_THERE) and envelope_array(text, at, eof=False):
                break
            if line[0] == _BRACE and line[-1] == _CLOSE_BRACE:
                add(RawRecord(line, base + at, index, base + newline))
            else:
                body = line.strip(_SPACE)
                start = base + at + line.index(b"{")
                add(RawRecord(body, start, index, start + len(body)))
            index += 1
            at = newline + 1
        if not records:
            return False
        self.index = index
        self._at = at
        self._settled = base + at - 1
        self._lead = b""
        last = self._runs[-1] if self._runs else None
        if last is not None and last.anchor < 0:
            last.records += records
        else:
            self._runs.append(Run(records))
        return True

    # -- one value, line or stretch of garbage

    def _pursue(self, hunt: _Hunt, *, eof: bool) -> bool:
        """Go on with the search; return False when it needs more text."""
        end = _CHANGED
        while end == _CHANGED:
            place = max(hunt.place - self._base, 0)
            if hunt.kind == _VALUE:
                end = self._value_end(hunt, place, eof=eof)
            elif hunt.kind == _LINE:
                end = self._text.find(b"\n", place)
                hunt.place = self._base + (end if end >= 0 else len(self._text))
            else:
                end = self._resync_end(hunt, place, eof=eof)
        if end == _NEED_MORE:
            hunt.large = hunt.large or hunt.place - hunt.start > self._record_bytes
            if hunt.large or hunt.deep:  # from here on only the end matters: let go of the text
                self._at = max(self._at, hunt.place - self._base)
            return False
        self._hunt = None
        start = hunt.start - self._base
        if hunt.deep:
            self._give(hunt.start, self._base + end, b"", "json_too_deep")
        elif hunt.large or end - start > self._record_bytes:
            self._give(hunt.start, self._base + end, b"", "record_too_large")
        else:
            data = self._text[start:end].rstrip(_SPACE)
            self._give(hunt.start, hunt.start + len(data), data)
        self._at = end
        self._settled = self._base + end
        self._lead = None
        self._comma = False
        return True

    def _value_end(self, hunt: _Hunt, place: int, *, eof: bool) -> int:
        text = self._text
        if hunt.end < 0:
            verdict, end = MORE, place
            if not hunt.probed:
                hunt.probed = True
                verdict, end = probe(text, place)
            if verdict != DONE and place < len(text):
                verdict, end = hunt.scanner.step(text, place)
            if verdict == ILLEGAL:
                self._leave_container()
                hunt.large = hunt.large or self._base + end - hunt.start > self._record_bytes
                hunt.deep = hunt.scanner.deep
                hunt.lines = _NESTED_TOGETHER if hunt.scanner.nested else 0
                hunt.kind = _RESYNC if hunt.scanner.newline else _LINE
                hunt.place = self._base + end if hunt.large or hunt.kind == _LINE else hunt.start
                return _CHANGED
            hunt.place = self._base + end
            if verdict == MORE:
                return _NEED_MORE
            hunt.end = hunt.place
        end = hunt.end - self._base
        if self._anchor >= 0:
            return end
        # At the top level a line end, another value or nothing must follow; else the line is broken as a whole.
        match = _SAME_LINE.match(text, end)
        follow = match.end() if match else end
        if follow == len(text):
            return end if eof or follow - end > CHUNK else _NEED_MORE
        if text[follow] in b"\n{[":
            return end
        hunt.kind = _LINE
        hunt.scanner.newline |= text.find(b"\n", max(hunt.start - self._base, 0), end) >= 0
        return _CHANGED

    def _resync_end(self, hunt: _Hunt, place: int, *, eof: bool) -> int:
        text = self._text
        match = next_start(hunt.indent).search(text, place)
        while match is not None and hunt.lines:
            hunt.lines -= 1
            place = match.end()
            match = next_start(hunt.indent).search(text, place)
        if match is not None:
            return match.start()
        if eof and text.endswith(b"\n"):
            return len(text)
        hunt.place = self._base + max(place, len(text) - len(hunt.indent) - 1)
        return _NEED_MORE

    # -- containers

    def _open_container(self, array: int, *, envelope: bool) -> None:
        self._stage = _ITEMS
        self._envelope = envelope
        # Not the bracket itself but the gap before it: a framer that starts there sees the same indentation.
        self._anchor = self._settled
        self._taken = 0
        self._comma = False
        self._separator = b","
        self._windows_off = 0
        self._at = array + 1

    def _items(self, *, eof: bool) -> bool:
        before = self._at
        at = self._gap()
        text = self._text
        if at == len(text) or (text[at] == _BOM and len(text) - at < 3 and not eof):
            return False
        if text[at] == _CLOSE_BRACKET:
            self._at = at + 1
            self._settled = self._base + at + 1
            self._lead = None
            if self._envelope:
                self._stage = _ENVELOPE_END
                self._tail_scanner = Scanner(self._indent(), open_brackets=b"{", last=_CLOSE_BRACKET)
            else:
                self._leave_container()
            return True
        if self._taken and not self._comma:
            # The array was torn between two elements; what follows is read as top-level text.
            self._leave_container()
            self._give(self._settled, self._settled, b"", "record_torn")
            return True
        if self._taken and 0 < at - before < _LONGEST_INDENT:
            self._separator = text[before:at]
        if self._windows_off:
            self._windows_off -= 1
        elif self._window(at):
            return True
        elif len(text) - at > CHUNK // 8:
            self._windows_off = _BACK_OFF  # not just the rest of a piece: the guess does not work here
        self._hunt = _Hunt(_VALUE, self._base + at, self._indent())
        return True

    def _window(self, at: int) -> bool:
        """Take all elements of this piece but the last in one decode; return whether that went well.

        A cut between two elements is guessed from the text between the last two; a wrong guess (inside a string or a
        nested array) leaves brackets or quotes open, so what decodes was cut rightly.
        """
        text = self._text
        needle = b"}" + self._separator + b"{"
        cut = len(text)
        for _ in range(3):
            cut = text.rfind(needle, at, cut)
            if cut < 0:
                return False
            try:
                items = decode_items(b"".join((b"[", memoryview(text)[at : cut + 1], b"]")))
            except REFUSALS:
                continue
            return self._take(items, at)
        return False

    def _take(self, items: list[msgspec.Raw], at: int) -> bool:
        text, base, index, cap = self._text, self._base, self.index, self._record_bytes
        step = len(self._separator)
        records: list[RawRecord] = []
        taken, skip = self._taken, self._skip
        first = max(taken, skip)
        for item in items:
            data = bytes(item)
            if not text.startswith(data, at):
                at = _gap_end(text, at - step)
            taken += 1
            end = at + len(data)
            if taken > skip:
                if len(data) > cap:
                    records.append(RawRecord(b"", base + at, index, base + end, "record_too_large"))
                else:
                    records.append(RawRecord(data, base + at, index, base + end))
                index += 1
            at = end + step
        self._taken, self.index = taken, index
        self._at = at - step
        self._settled = base + at - step
        self._comma = False
        self._lead = None
        if records:
            self._runs.append(Run(records, self._anchor, first))
        return True

    def _envelope_end(self) -> bool:
        """Step over the members behind the envelope's array; they are metadata, not records."""
        if self._at >= len(self._text):
            return False
        verdict, at = self._tail_scanner.step(self._text, self._at)
        self._at = at
        if verdict == MORE:
            return False
        self._leave_container()
        self._settled = self._base + at
        self._lead = None
        if verdict == ILLEGAL:
            self._give(self._base + at, self._base + at, b"", "record_torn")
        return True

    # -- the end

    def _tail(self) -> Tail:
        end = self._base + len(self._text)
        hunt = self._hunt
        start = hunt.start if hunt else self._base + self._at
        if start >= end and self._stage == _TOP_LEVEL:
            return Tail()
        lines = self._text.find(b"\n", max(start - self._base, 0)) >= 0 or (hunt is not None and hunt.scanner.newline)
        return Tail("document" if lines or self._stage != _TOP_LEVEL else "line", start, end - start)

    def _give_way(self) -> bool:
        """Treat an open value as broken when a later line starts one; return whether that is so."""
        hunt = self._hunt
        if hunt is None or hunt.kind != _VALUE or hunt.large or self._anchor >= 0:
            return False
        if next_start(hunt.indent).search(self._text, hunt.start - self._base) is None:
            return False
        hunt.kind = _RESYNC
        hunt.place = hunt.start
        return True


def _gap_end(text: bytes, at: int) -> int:
    """Return the end of the white space, NULs, commas and byte order marks at ``at``."""
    while True:  # a loop and not one pattern: a repeated group costs memory for each turn
        match = _GAP.match(text, at)
        at = match.end() if match else at
        if not text.startswith(b"\xef\xbb\xbf", at):
            return at
        at += 3
