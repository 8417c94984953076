"""Show a raw record without showing more than its event's content mode allows.

The rule is one that can be checked: unless the mode is ``full``, a text of the record is shown only when the event
itself holds it: as a field's value, or - as it is or masked - inside its stored prompt or answer. Everything else
appears as ``[31 characters]``. Numbers, booleans, the record's shape and keys that look like a schema's are always
shown. A record without any content (mode empty: an administrative call) is shown whole, but for secrets and personal
data that the classifier finds in it.
"""

import json
import re
from collections.abc import Callable
from typing import Any

import msgspec

from aitrail.event import AccessEvent

# What a key of a log's own schema looks like; any other may be somebody's text.
_KEY = re.compile(r"[A-Za-z_$@][A-Za-z0-9_.\-:/]{0,63}")
_MAX_DEPTH = 60
# Shorter pieces (tokens of a streamed answer) occur in any text by chance: together they could spell what was masked.
_MIN_PIECE = 8
Show = Callable[[str], str]


def masked_json(raw: bytes, event: AccessEvent, hide_leaks: Show) -> str:
    """Give the record as indented JSON text, masked by ``event.content_mode``.

    Args:
        raw: the record as the source holds it.
        event: what it became.
        hide_leaks: gives a text back with secrets and personal data masked (for records without content).
    """
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return f"[{len(raw):,} bytes that are not JSON]"
    show = _shower(event, hide_leaks)
    return json.dumps(_walk(document, show, 0, keys=event.content_mode != "full"), indent=2, ensure_ascii=False)


def _shower(event: AccessEvent, hide_leaks: Show) -> Show:
    if event.content_mode == "full":
        return lambda text: text
    if event.content_mode == "":
        return hide_leaks
    values: set[str] = set()
    for value in msgspec.to_builtins(event).values():
        values.update(item.lower() for item in (value if isinstance(value, list) else [value]) if isinstance(item, str))
    texts = (event.prompt_text, event.response_text) if event.content_mode == "redacted" else ()

    def show(text: str) -> str:
        if not text or text.lower() in values:
            return text
        if len(text) >= _MIN_PIECE and not text.isdigit():
            for candidate in (text, hide_leaks(text)):
                if any(candidate in stored for stored in texts):
                    return candidate
        return f"[{len(text):,} characters]"

    return show


def _walk(node: Any, show: Show, depth: int, *, keys: bool) -> Any:
    if depth > _MAX_DEPTH:
        return "[nested too deep to show]"
    if isinstance(node, dict):
        return {
            key if not keys or _KEY.fullmatch(key) else f"[key of {len(key):,} characters]": _walk(
                value, show, depth + 1, keys=keys
            )
            for key, value in node.items()
        }
    if isinstance(node, list):
        return [_walk(value, show, depth + 1, keys=keys) for value in node]
    return show(node) if isinstance(node, str) else node
