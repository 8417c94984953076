"""CEF, LEEF and JSON text of an event, for SIEMs that read syslog; nothing of an event can forge a field or a line.

Escaping is that of the CEF standard: in the header backslash and pipe, in values backslash and equals sign, and line
breaks as a backslash with n or r. LEEF has no escapes: its delimiter is the tab, which becomes a space, as line breaks
do. What else a receiver could take for a line break or a terminal command (other control characters, U+0085, U+2028,
U+2029) is U+FFFD in CEF and LEEF, and an escape in JSON, where nothing is lost.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from aitrail import __version__
from aitrail.destinations._siem_fields import (
    CEF_KEYS,
    CEF_LABELS,
    EXABEAM_KEYS,
    IPV6_KEY,
    IPV6_LABEL,
    LEEF_KEYS,
    SECURONIX_KEYS,
)
from aitrail.event import AccessEvent, encode
from aitrail.schema.ocsf import epoch_ms

Format = Literal["json", "json_exabeam", "json_securonix", "cef", "leef"]
# The event, and the bytes that it was read from, to the text of a message.
Render = Callable[[AccessEvent, bytes], bytes]

VENDOR = PRODUCT = "aitrail"
_TAB = "\t"
_json = msgspec.json.Encoder().encode
_split = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

_CONTROLS = "".join(map(chr, (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)))
_MARK = "\ufffd"
_HEADER = {**dict.fromkeys(_CONTROLS, _MARK), "\n": " ", "\r": " ", "\t": " ", "\\": "\\\\", "|": "\\|"}
_VALUE = {**dict.fromkeys(_CONTROLS, _MARK), "\t": " ", "\n": "\\n", "\r": "\\r", "\\": "\\\\", "=": "\\="}
_LEEF = {**dict.fromkeys(_CONTROLS, _MARK), "\t": " ", "\n": " ", "\r": " "}
_LEEF_HEADER = {**_LEEF, "|": "/"}


def _escaper(table: Mapping[str, str]) -> Callable[[str], str]:
    special = [one for one in table if one.isprintable()]
    translation = str.maketrans(dict(table))

    def escape(text: str) -> str:
        # All that is escaped is unprintable or in ``special``; most texts have neither.
        if text.isprintable() and not any(one in text for one in special):
            return text
        return text.translate(translation)

    return escape


_header, _value, _leef, _leef_header = map(_escaper, (_HEADER, _VALUE, _LEEF, _LEEF_HEADER))

# In JSON, DEL, C1 controls, U+2028 and U+2029 are escaped. Canonical bytes have no line breaks and no other raw control
# characters; other bytes may have them between tokens.
_RAW_CONTROLS = bytes(range(0x20))
_RAW_UNSAFE = bytes([0x7F, 0xC2, 0xE2])
_JSON_UNSAFE = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]")
# What stands around a value of each field in CEF.
_CEF_AROUND: Mapping[str, tuple[str, str]] = {
    name: (f"{key}=", f" {key}Label={CEF_LABELS[key]}" if key in CEF_LABELS else "") for name, key in CEF_KEYS.items()
}
_LEEF_BEFORE: Mapping[str, str] = {name: f"{key}=" for name, key in LEEF_KEYS.items()}


def severity(event: AccessEvent) -> int:
    """CEF and LEEF severity, 0 to 10: a tenth of the risk score."""
    return round((event.risk_score or 0) / 10)


def cef(event: AccessEvent, body: bytes) -> bytes:
    """CEF:0 with the keys of ``_siem_fields``; every field that is set is there."""
    del body
    kind = event.action_kind or "access"
    parts = []
    values: dict[str, Any] = msgspec.to_builtins(event)
    for name, value in values.items():
        if value is None or value == "":
            continue
        before, behind = _CEF_AROUND[name]
        if isinstance(value, str):
            if name == "timestamp":
                text = str(epoch_ms(value))
            elif name == "src_ip" and ":" in value:
                before, behind, text = f"{IPV6_KEY}=", f" {IPV6_KEY}Label={IPV6_LABEL}", _value(value)
            else:
                text = _value(value)
        else:
            text = _value(_text(value))
        parts.append(before + text + behind)
    head = "|".join(
        ("CEF:0", VENDOR, PRODUCT, __version__, f"{kind}:{event.outcome_status}", _header(event.action or kind))
    )
    return f"{head}|{severity(event)}|{' '.join(parts)}".encode("utf-8", "replace")


def leef(event: AccessEvent, body: bytes) -> bytes:
    """LEEF 2.0, tab-delimited, with the attributes of ``_siem_fields``."""
    del body
    kind = event.action_kind or "access"
    values: dict[str, Any] = msgspec.to_builtins(event)
    parts = [
        _LEEF_BEFORE[name] + _leef(_text(value)) for name, value in values.items() if value is not None and value != ""
    ]
    parts += [f"sev={max(severity(event), 1)}", "devTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSX"]
    identity = _leef_header(f"{kind}:{event.outcome_status}")
    return f"LEEF:2.0|{VENDOR}|{PRODUCT}|{__version__}|{identity}|x09|{_TAB.join(parts)}".encode("utf-8", "replace")


def _json_with(names: Mapping[str, str]) -> Render:
    def named(body: bytes) -> bytes:
        return _json({names.get(name, name): value for name, value in _split(body).items()}) if names else body

    def render(event: AccessEvent, body: bytes) -> bytes:
        # Deleting bytes is the quickest way to look for some: far quicker than a pattern.
        if len(body.translate(None, _RAW_CONTROLS)) != len(body):
            body = encode(event)
        text = named(body)
        if len(text.translate(None, _RAW_UNSAFE)) != len(text):
            text = _JSON_UNSAFE.sub(_escape, text)
        return text

    return render


RENDERERS: Mapping[Format, Render] = {
    "json": _json_with({}),
    "json_exabeam": _json_with(EXABEAM_KEYS),
    "json_securonix": _json_with(SECURONIX_KEYS),
    "cef": cef,
    "leef": leef,
}


def _escape(found: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % ord(found.group().decode())


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value)
