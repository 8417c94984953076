"""One message of a bus -> its records: a JSON object, an array, lines, or an envelope such as ``{"records": [...]}``.

Event Hubs export of diagnostic settings: one message holds ``{"records": [...]}`` (Microsoft Learn, "Azure resource
logs"); other writers send one object a message, or a bare array.
"""

from aitrail.errors import CorruptInputError
from aitrail.ports import RawRecord
from aitrail.sources._caps import Caps
from aitrail.sources._framing import Framer
from aitrail.sources._inflate import detect, open_text
from aitrail.sources._values import NOT_THERE, REFUSALS, decode_top


class _Whole:
    """A message's bytes, for ``open_text``."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def read(self, count: int) -> bytes:
        """The next bytes; empty at the end."""
        part = self._data[self.position : self.position + count]
        self.position += len(part)
        return part


def records_of(message: bytes, position: int, caps: Caps) -> list[RawRecord]:
    """Give the records of one message, at least one unless it is blank.

    Args:
        message: its body, plain, gzip or zstd.
        position: its place in its partition; every record has it, and ``index`` numbers the records of one message.
        caps: bounds.
    """
    if len(message) > caps.record_bytes:
        return [RawRecord(b"", position, 0, position + 1, "record_too_large")]
    if message[:1] == b"{":
        try:
            top = decode_top(message)
        except REFUSALS:
            pass
        else:
            if top.Records is NOT_THERE and top.records is NOT_THERE:
                return [RawRecord(message, position, 0, position + 1)]
    found: list[RawRecord] = []
    framer = Framer(caps)
    text = open_text(_Whole(message), detect(message), caps)
    fault = ""
    try:
        while data := text.read():
            for run in framer.feed(data):
                found += run.records
    except CorruptInputError as error:
        fault = error.code
    runs, tail = framer.finish()
    for run in runs:
        found += run.records
    fault = fault or ("record_torn" if tail.kind else "")
    if fault == "record_torn" and not found:
        found.append(RawRecord(message))  # no JSON at all: the decoder says what it is
    elif fault:
        found.append(RawRecord(b"", error=fault))
    return [RawRecord(one.data, position, index, position + 1, one.error) for index, one in enumerate(found)]
