"""Numbers and times of LiteLLM records: what does not make sense becomes None, nothing raises."""

from datetime import datetime

import msgspec

_MAX_COUNT = 1 << 53
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  (for times without a zone)


class Moment(msgspec.Struct, frozen=True, gc=False):
    """Epoch seconds, None when there is no usable time; ``assumed`` when it had no zone and UTC was taken."""

    epoch: float | None
    assumed: bool = False


_NONE = Moment(None)


def moment(value: float | str | None) -> Moment:
    """Read a time: epoch seconds, or text with or without a zone."""
    if type(value) is float and 0 <= value < 1e15:
        return Moment(value)
    if value is None:
        return _NONE
    if isinstance(value, str):
        return _from_text(value)
    return Moment(float(value)) if -1e15 < value < 1e15 else _NONE


def _from_text(text: str) -> Moment:
    try:
        parsed = datetime.fromisoformat(text.strip())
        zone = parsed.tzinfo
        if zone is None:  # what older builds write
            gap = parsed - _EPOCH
            return Moment(((gap.days * 86_400 + gap.seconds) * 1_000_000 + gap.microseconds) / 1_000_000, assumed=True)
        return Moment(parsed.timestamp())
    except (ValueError, OverflowError):
        return _NONE


def span_ms(start: float | None, end: float | None) -> float | None:
    """Milliseconds from start to end, to the microsecond; None when one is missing or the clock ran backwards."""
    if start is None or end is None or not 0 <= end - start < 1e9:
        return None
    return round((end - start) * 1000, 3)


def count(value: float | None) -> int | None:
    """A number of tokens; None when it is no count."""
    if value is None or not 0 <= value < _MAX_COUNT:
        return None
    return value if type(value) is int else int(value)


def amount(value: float | str | None, factor: float = 1.0) -> float | None:
    """A cost or duration times ``factor``; None when it is none."""
    if type(value) is float and factor == 1.0:
        return value if 0 <= value < 1e15 else None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if value is None or not 0 <= value < 1e15:
        return None
    return round(value * factor, 3) if factor != 1.0 else float(value)
