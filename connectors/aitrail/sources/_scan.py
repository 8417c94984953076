"""Where does a JSON value end? A structural scan that takes the text in pieces and tolerates what is not structure.

It only looks at strings, brackets and line ends, so a value with ``NaN``, a control character or a lone surrogate
still has an end; the decoder says later what is wrong with it. What cannot be inside a value - a raw line end in a
string, a bracket that closes another kind, a new line that starts a value where none can stand - is ``ILLEGAL``: that
is how one torn line is kept from swallowing the file.
"""

import re
from functools import lru_cache

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
# No decoder here takes more (Python's recursion limit), so such a value need not be followed to its end.
MOST_NESTED = 1_024
# Text of one value that is scanned bracket by bracket before it is taken in strides, which are many times faster.
_SLOW_BYTES = 512
_FIRST_STRIDE, _LONGEST_STRIDE, _SHORT_STRIDE = 2_048, 65_536, 256
_STRING = re.compile(rb'"(?:[^"\\\n]|\\.)*+"')
_STRING_REST = re.compile(rb'[^"\\\n]*+(?:\\[^\n][^"\\\n]*+)*+')
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


@lru_cache(maxsize=64)
def _steps(indent: bytes) -> re.Pattern[bytes]:
    """Match whole strings, and everything else but line ends before a value at ``indent``."""
    newline = rb"\n(?!" + re.escape(indent) + rb"[{\[])"
    return re.compile(rb'[^"\n]*+(?:(?:"(?:[^"\\\n]|\\.)*+"|' + newline + rb')[^"\n]*+)*+')


@lru_cache(maxsize=64)
def _chain(indent: bytes) -> re.Pattern[bytes]:
    """Match so many lines that open more than they close that they are too many: what would be found one by one."""
    line = rb"\n" + re.escape(indent) + rb'[{\[](?:[^\n}\]"]|"[^"\\\n]*")*+'
    return re.compile(rb"(?:" + line + rb"){%d}" % (_MOST_NESTED_LINES + 1))


class Scanner:
    """Finds the end of one value; ``step`` is called with more text until it does not say ``MORE``.

    Attributes:
        newline: whether a line end lies inside the part of the value seen so far.
        deep: whether it is nested more deeply than any decoder takes.
        nested: whether it was given up because its lines look nested into one another.
    """

    __slots__ = (
        "_escaped", "_indent", "_last", "_scalar", "_seen", "_stack", "_stride", "_string", "deep", "nested", "newline"
    )  # fmt: skip

    def __init__(self, indent: bytes = b"", *, open_brackets: bytes = b"", last: int = 0) -> None:
        """Start at a value with ``indent`` before it on its line, or in ``open_brackets`` behind the byte ``last``."""
        self._stack = bytearray(_CLOSER[byte] for byte in open_brackets)
        self._string = False
        self._escaped = False
        self._scalar = False
        self._last = last
        self._indent = indent
        self._seen = 0
        self._stride = _FIRST_STRIDE
        self.newline = False
        self.deep = False
        self.nested = False

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
        strides_from = start + max(0, _SLOW_BYTES - self._seen)
        while at < len(text):
            if at >= strides_from and not self._string:
                before, at = at, self._in_strides(text, at)
                # What does not go in one stride (its end, a torn line, a long escape) is looked at closely.
                strides_from = at + (_SHORT_STRIDE if at == before else 0)
                if at == len(text):
                    break
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
                if len(stack) > MOST_NESTED:
                    self.deep = True
                    return ILLEGAL, place
            elif byte == _NEWLINE:
                verdict = self._next_line(text, place)
                if verdict == DONE and len(stack) == 1 and _chain(self._indent).match(text, place):
                    self.nested = self.newline = True
                    verdict = ILLEGAL
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
        self._seen += at - start
        return MORE, at

    def _in_strides(self, text: bytes, at: int) -> int:
        """Step over as much text as shows neither the value's end nor anything wrong; return where that ends.

        Strings go in one substitution, pairs of brackets in a few; only what is left is counted one by one.
        """
        stop = self._stride_end(text, at)
        if stop - at < _SHORT_STRIDE:
            return at
        tokens = _STRING.sub(b"", text[at:stop]).translate(None, _NOT_BRACKETS)
        for _ in range(3):
            tokens = tokens.replace(b"[]", b"").replace(b"{}", b"")
        stack = self._stack[:]
        for byte in tokens:
            closer = _CLOSER.get(byte)
            if closer is not None:
                stack.append(closer)
            elif stack.pop() != byte or not stack:
                break
        else:
            if len(stack) <= MOST_NESTED:
                self.newline = self.newline or text.find(b"\n", at, stop) >= 0
                self._stack[:] = stack
                self._stride = min(2 * self._stride, _LONGEST_STRIDE)
                return stop
        self._stride = max(self._stride // 4, _SHORT_STRIDE)
        return at

    def _stride_end(self, text: bytes, at: int) -> int:
        """Return the end of what holds whole strings only, and no line that starts a value at the indentation."""
        match = _steps(self._indent).match(text, at, min(len(text), at + self._stride))
        stop = match.end() if match else at
        newline = text.rfind(b"\n", at, stop)  # what follows the last one may not be there yet
        return newline if newline >= stop - len(self._indent) - 1 else stop

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
        match = _STRING_REST.match(text, at)
        at = match.end() if match else at
        if at < len(text) and text[at] == _BACKSLASH:
            self._escaped = True
            at += 1
        if at == len(text):
            return MORE, at
        if text[at] == _NEWLINE:
            return ILLEGAL, at
        self._string = False
        return DONE, at + 1

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
            self.nested = True
            return ILLEGAL
        return DONE if last in b"[:\0" or (last == 0x2C and inside_array) else ILLEGAL

    def _remember(self, text: bytes, start: int, end: int) -> None:
        """Keep the last significant byte, for a line that starts in the next piece."""
        seen = text[max(start, end - _LOOK_BACK) : end].rstrip(_SPACE)
        if seen:
            self._last = seen[-1]
