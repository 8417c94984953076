"""Where does a JSON value end? A structural scan that takes the text in pieces and tolerates what is not structure.

It only looks at strings, brackets and line ends, so a value with ``NaN``, a control character or a lone surrogate
still has an end; the decoder says later what is wrong with it. What cannot be inside a value - a raw line end in a
string, a bracket that closes another kind, a new line that starts a value where none can stand - is ``ILLEGAL``: that
is how one torn line is kept from swallowing the file.
"""

import re

DONE, MORE, ILLEGAL = 0, 1, 2

_STRUCTURE = re.compile(rb'["{}\[\]\n]')
_SCALAR = re.compile(rb"[^,\[\]{}\s\x00]*")
_CLOSER = {0x7B: 0x7D, 0x5B: 0x5D}
_QUOTE, _NEWLINE, _BACKSLASH = 0x22, 0x0A, 0x5C
_SPACE = b" \t\r\n"
_LOOK_BACK = 256
# Torn lines can look nested into one another. A real value that begins its inner values at its own indentation is not
# that deep; without a bound, N torn lines would cost N * N.
_MOST_NESTED_LINES = 32


class Scanner:
    """Finds the end of one value; ``step`` is called with more text until it does not say ``MORE``.

    Attributes:
        newline: whether a line end lies inside the part of the value seen so far.
    """

    __slots__ = ("_escaped", "_indent", "_last", "_scalar", "_stack", "_string", "newline")

    def __init__(self, indent: bytes = b"", *, open_brackets: bytes = b"", last: int = 0) -> None:
        """Start at a value with ``indent`` before it on its line, or in ``open_brackets`` behind the byte ``last``."""
        self._stack = bytearray(_CLOSER[byte] for byte in open_brackets)
        self._string = False
        self._escaped = False
        self._scalar = False
        self._last = last
        self._indent = indent
        self.newline = False

    def step(self, text: bytes, at: int) -> tuple[int, int]:
        """Go on at ``at``.

        Returns:
            ``(DONE, end)``, ``(ILLEGAL, place)`` or ``(MORE, place)``: call again with the text from ``place`` on and
            more behind it.
        """
        stack = self._stack
        start = at
        if self._scalar or (not stack and not self._string and text[at] not in b'{["'):
            return self._scalar_end(text, at)
        while at < len(text):
            if self._string:
                verdict, at = self._string_end(text, at)
                if verdict != DONE:
                    return verdict, at
                if not stack:
                    return DONE, at
                continue
            match = _STRUCTURE.search(text, at)
            if match is None:
                at = len(text)
                break
            place = match.start()
            byte = text[place]
            if byte == _QUOTE:
                quote = text.find(b'"', place + 1)
                if quote > 0 and text[quote - 1] != _BACKSLASH and text.find(b"\n", place, quote) < 0 and stack:
                    at = quote + 1  # a plain string, whole in this piece
                    continue
                self._string = True
            elif byte in _CLOSER:
                stack.append(_CLOSER[byte])
            elif byte == _NEWLINE:
                verdict = self._next_line(text, place)
                if verdict != DONE:
                    self._remember(text, start, place)
                    return verdict, place
                self.newline = True
            elif stack[-1] != byte:
                return ILLEGAL, place
            else:
                stack.pop()
                if not stack:
                    return DONE, place + 1
            at = place + 1
        self._remember(text, start, at)
        return MORE, at

    def _scalar_end(self, text: bytes, at: int) -> tuple[int, int]:
        match = _SCALAR.match(text, at)
        end = match.end() if match else at
        if end == at and not self._scalar:
            return ILLEGAL, at
        self._scalar = True
        return (DONE if end < len(text) else MORE), end

    def _string_end(self, text: bytes, at: int) -> tuple[int, int]:
        if self._escaped:
            if text[at] == _NEWLINE:
                return ILLEGAL, at
            at += 1
            self._escaped = False
        while True:
            quote = text.find(b'"', at)
            stop = quote if quote >= 0 else len(text)
            line_end = text.find(b"\n", at, stop)
            if line_end >= 0:
                return ILLEGAL, line_end
            odd = False
            if stop > at and text[stop - 1] == _BACKSLASH:
                body = text[at:stop]
                odd = (len(body) - len(body.rstrip(b"\\"))) % 2 == 1
            if quote < 0:
                self._escaped = odd
                return MORE, stop
            at = quote + 1
            if not odd:
                self._string = False
                return DONE, at

    def _next_line(self, text: bytes, newline: int) -> int:
        """Judge a line end outside strings: does the next line start a value where none can stand?"""
        lead = text[newline + 1 : newline + 2 + len(self._indent)]
        if len(lead) <= len(self._indent):
            return MORE if self._indent.startswith(lead) else DONE
        if lead[-1] not in _CLOSER or not lead.startswith(self._indent):
            return DONE
        before = text[max(0, newline - _LOOK_BACK) : newline].rstrip(_SPACE)
        last = before[-1] if before else self._last
        inside_array = self._stack[-1:] == b"]"
        if len(self._stack) > _MOST_NESTED_LINES:
            return ILLEGAL
        return DONE if last in b"[:\0" or (last == 0x2C and inside_array) else ILLEGAL

    def _remember(self, text: bytes, start: int, end: int) -> None:
        """Keep the last significant byte, for a line that starts in the next piece."""
        seen = text[max(start, end - _LOOK_BACK) : end].rstrip(_SPACE)
        if seen:
            self._last = seen[-1]
