"""Access logs of no known type (vLLM, Ollama, NIM, TGI, nginx, Traefik, your own gateway) through a field map.

The map comes with the context (``field_map``); without one nothing can be told about such a record. What a path does
not find stays empty; a value that a field cannot hold is left out and flagged ``value_unmapped``.
"""

from collections.abc import Sequence
from typing import Any

from aitrail.event import AccessEvent
from aitrail.normalize.common import split_address
from aitrail.normalize.field_map import FieldMap, Rule
from aitrail.normalize.loose import (
    Object,
    amount,
    by_status,
    close,
    count,
    fill_chat,
    fill_total,
    moment,
    read,
    start,
    text,
)
from aitrail.normalize.openai_chat import request_messages, text_of
from aitrail.normalize.outcome import Content, Context, Message, Outcome, Rejected

SOURCE = "generic_access"
_TRUE, _FALSE = frozenset({"true", "1", "yes"}), frozenset({"false", "0", "no"})


def normalize(raw: bytes, context: Context) -> Sequence[Outcome]:
    """Turn one record into one event by the context's field map; total, pure."""
    found = context.field_map
    if not isinstance(found, FieldMap):
        return (Rejected("map_missing", "", SOURCE),)
    record = read(raw, SOURCE)
    if isinstance(record, Rejected):
        return (record,)
    return (_event(raw, record, found, context),)


def _event(raw: bytes, record: Object, mapped: FieldMap, context: Context) -> Outcome:
    path, starts = mapped.only
    if starts and not text(value_at(record, path)).startswith(starts):
        return Rejected("not_ai_related", "", SOURCE)
    rule = mapped.timestamp
    when = moment(_value(record, rule), rule.factor)
    one = "|".join(text(value_at(record, path)) for path in mapped.identity)
    event = start(raw, SOURCE, context, when, rule.paths[0] if rule.paths else "timestamp", one.strip("|"))
    if isinstance(event, Rejected):
        return event
    event.service = mapped.service
    unfit = [rule.target for rule in mapped.rules if not _fill(event, rule, _value(record, rule), mapped)]
    if event.outcome_status == "unknown":
        event.outcome_status = by_status(event.http_status)
    event.action_kind = event.action_kind or "inference"
    content = _content(event, record, mapped.content)
    fill_total(event)
    if unfit:
        event.flags = (*event.flags, "value_unmapped")
    return close(event, content)


def value_at(record: Any, path: str) -> Any:
    """The value at a dotted path; at each level a key that holds the dots itself goes first. Lists take numbers."""
    if isinstance(record, dict):
        if path in record:
            return record[path]
        for place in [index for index, letter in enumerate(path) if letter == "."]:
            if path[:place] in record:
                found = value_at(record[path[:place]], path[place + 1 :])
                if found is not None:
                    return found
        return None
    if isinstance(record, list):
        head, _, rest = path.partition(".")
        if head.isascii() and head.isdigit() and len(head) < 6 and int(head) < len(record):
            return value_at(record[int(head)], rest) if rest else record[int(head)]
    return None


def _value(record: Object, rule: Rule) -> Any:
    if not rule.paths:
        return rule.value
    for path in rule.paths:
        found = value_at(record, path)
        if found is not None and found not in ("", "-", [], {}):
            return found
    return None


def _fill(event: AccessEvent, rule: Rule, value: Any, mapped: FieldMap) -> bool:
    """Set one field; False when the value is there but cannot be what the field holds."""
    if value is None:
        return True
    if rule.target == "outcome_status":
        known = mapped.outcomes.get(text(value).lower())
        value = known if known is not None else value
    filled = _converted(rule, value)
    if filled is None:
        return False
    if rule.kind == "ip":
        event.src_ip, event.src_host = filled
    else:
        setattr(event, rule.target, filled)
    return True


def _converted(rule: Rule, value: Any) -> Any:
    kind = rule.kind
    if kind in ("text", "lower"):
        found = text(value)
        return (found.lower() if kind == "lower" else found) or None
    if kind == "count":
        found_count = count(value)
        return found_count if rule.target != "http_status" or found_count is None or 100 <= found_count < 600 else None
    if kind == "number":
        return amount(value, rule.factor)
    if kind == "ip":  # of a whole X-Forwarded-For list the client is the first
        return split_address(text(value).partition(",")[0]) if text(value) else None
    if kind == "flag":
        said = str(value).lower()
        return True if said in _TRUE else False if said in _FALSE else None
    if kind == "choice":
        return text(value).lower() if text(value).lower() in rule.choices else None
    items = value if isinstance(value, list) else [value]
    return tuple(text(item).lower() for item in items if text(item)) or None


def _content(event: AccessEvent, record: Object, places: dict[str, str]) -> Content | None:
    if not places:
        return None
    found = {name: value_at(record, path) for name, path in places.items()}
    content = fill_chat(event, found.get("request"), found.get("response"))
    prompt, answer = found.get("prompt"), found.get("answer")
    if prompt is not None:
        messages = [Message("user", prompt)] if isinstance(prompt, str) and prompt else request_messages(prompt)
        content.messages = [*content.messages, *messages]
    if answer is not None:
        content.response = "\n".join(part for part in (content.response, text_of(answer)) if part)
    return content
