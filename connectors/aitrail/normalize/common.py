"""What all normalizers share: safe decoding, times, addresses, identity. Total functions; nothing here raises."""

import re
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, TypeVar

import msgspec

from aitrail.normalize.outcome import Rejected

T = TypeVar("T")

# Times outside this range are broken clocks or broken parsers, not accesses (2000-01-01 .. 2100-01-01).
_MIN_EPOCH = 946_684_800.0
_MAX_EPOCH = 4_102_444_800.0
_CANONICAL_SECOND = re.compile(r"20\d\d-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\dZ")
_DOTNET_EPOCH_TICKS = 621_355_968_000_000_000  # .NET ticks (100 ns since year 1) at 1970-01-01
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_PATH_IN_ERROR = re.compile(r"at `\$\.?([^`]*)`")

_ESCAPED_LETTER = re.compile(rb"\\u00[4-7]")  # an ASCII letter written as an escape: no encoder does that


def decode(decoder: msgspec.json.Decoder[T], raw: bytes, record_type: str) -> T | Rejected:
    """Decode ``raw``, or say why not as a ``Rejected``; any bytes are fine."""
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        if "out of range" in str(error):
            return Rejected("number_out_of_range", "", record_type)
        path = _PATH_IN_ERROR.search(str(error))
        missing = re.search(r"missing required field `([^`]*)`", str(error))
        if missing:
            prefix = f"{path.group(1)}." if path else ""
            return Rejected("field_missing", prefix + missing.group(1), record_type)
        return Rejected("field_type", path.group(1) if path else "", record_type)
    except msgspec.DecodeError as error:
        code = _decode_code(str(error))
        if code == "record_torn" and raw.rstrip().endswith((b"}", b"]")):
            code = "utf8_invalid"  # a lone surrogate at a string's end reads as truncated input
        elif code == "json_invalid" and "escape" in str(error) and _SURROGATE.search(raw):
            code = "utf8_invalid"  # in a text that is skipped, a lone surrogate reads as a bad escape
        return Rejected(code, "", record_type)
    except RecursionError:
        return Rejected("json_too_deep", "", record_type)
    except UnicodeError:
        return Rejected("utf8_invalid", "", record_type)
    except (ValueError, OverflowError):
        return Rejected("number_out_of_range", "", record_type)


def _decode_code(message: str) -> str:
    text = message.lower()
    if "truncated" in text:
        return "record_torn"
    if "utf-8" in text or "surrogate" in text or "unicode" in text:
        return "utf8_invalid"
    if "number out of range" in text or "integer" in text:
        return "number_out_of_range"
    return "json_invalid"


def parse_time(text: str, *, assume_utc: bool = False) -> tuple[str, str]:
    """Turn an ISO 8601 time into the canonical form.

    Returns:
        ``(timestamp, "")``, or ``("", code)`` with code ``time_invalid`` or ``time_no_zone``. With ``assume_utc`` a
        time without zone is read as UTC and gives ``(timestamp, "time_zone_assumed")``.
    """
    if len(text) == 20 and _CANONICAL_SECOND.fullmatch(text):  # CloudTrail's form, by far the most frequent one
        if text[8:10] <= "28" or _real_day(text[:10]):
            return f"{text[:19]}.000Z", ""
        return "", "time_invalid"
    try:
        moment = datetime.fromisoformat(text.strip())  # cuts Azure's seventh decimal
    except (ValueError, OverflowError):
        return "", "time_invalid"
    if moment.tzinfo is None:
        if not assume_utc:
            return "", "time_no_zone"
        moment = moment.replace(tzinfo=UTC)
        stamp = epoch_to_time(moment.timestamp())
        return (stamp, "time_zone_assumed") if stamp else ("", "time_invalid")
    try:
        stamp = epoch_to_time(moment.timestamp())
    except (ValueError, OverflowError):
        return "", "time_invalid"
    return (stamp, "") if stamp else ("", "time_invalid")


@lru_cache(maxsize=256)
def _real_day(day: str) -> bool:
    try:
        datetime.fromisoformat(day)
    except ValueError:
        return False
    return True


def epoch_to_time(seconds: float) -> str:
    """Epoch seconds to the canonical form; empty when out of range or not a number."""
    if not _MIN_EPOCH <= seconds < _MAX_EPOCH:  # also False for NaN
        return ""
    whole, millis = divmod(round(seconds * 1000), 1000)
    minute, second = divmod(whole, 60)
    return _minute(minute) + _SECONDS[second] + _MILLIS[millis]


_SECONDS = tuple(f":{second:02d}." for second in range(60))
_MILLIS = tuple(f"{millis:03d}Z" for millis in range(1000))


@lru_cache(maxsize=16384)
def _minute(number: int) -> str:
    """Date and time of day of a minute counted from 1970-01-01T00:00 (UTC)."""
    return f"{datetime.fromtimestamp(number * 60, UTC):%Y-%m-%dT%H:%M}"


def ticks_to_epoch(ticks: int) -> float:
    """.NET ticks (100 ns since year 1) to epoch seconds (Azure OpenAI requestTime, responseTime)."""
    return (ticks - _DOTNET_EPOCH_TICKS) / 10_000_000


@lru_cache(maxsize=16384)
def split_address(text: str) -> tuple[str, str]:
    """Sort a caller's address into ``(src_ip, src_host)``; what does not parse as an IP address is a host.

    ``ip:port`` and ``[v6]:port`` lose their port. ``035.249.253.232`` (leading zero) is not an address.
    """
    value = text.strip().lower()
    if not value:
        return "", ""
    candidates = [value]
    if value.startswith("[") and "]" in value:
        candidates.append(value[1 : value.index("]")])
    elif value.count(":") == 1 and "." in value:
        candidates.append(value.rpartition(":")[0])
    for candidate in candidates:
        try:
            return str(ip_address(candidate)), ""
        except ValueError:
            continue
    return "", value[:255]


def has_duplicate_key(raw: bytes, keys: tuple[bytes, ...]) -> bool:
    """Whether one of the identifying ``keys`` (as ``b'"eventID"'``) occurs twice in one object of ``raw``.

    Every JSON library here keeps the last of two equal keys without a word, so two parsers in a row can disagree about
    who did what. Counting bytes is cheap and never misses; only a suspicious record pays for the exact check.
    """
    for key in keys:
        if raw.count(key) > 1:
            return _has_duplicate_key(raw)
    if b"\\u00" in raw and _ESCAPED_LETTER.search(raw):  # "event\u0049D" is the same key to a parser
        return _has_duplicate_key(raw)
    return False


class _Duplicate(Exception):  # noqa: N818  (a signal, not an error)
    pass


def _has_duplicate_key(raw: bytes) -> bool:
    import json  # noqa: PLC0415  (rare path)

    def hook(pairs: list[tuple[str, Any]]) -> None:
        if len({key for key, _ in pairs}) != len(pairs):
            raise _Duplicate

    try:
        json.loads(raw, object_pairs_hook=hook)
    except _Duplicate:
        return True
    except (ValueError, RecursionError):
        return False
    return False
