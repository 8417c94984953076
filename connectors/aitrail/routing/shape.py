"""What one destination gets of an event: its content lowered, its fields chosen. Pure; the same bytes every time."""

import difflib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from aitrail.classify.contract import Classifier, Text
from aitrail.errors import ConfigError
from aitrail.event import AccessEvent, ContentMode, decode, encode
from aitrail.ports import EncodedEvent
from aitrail.privacy.lower import Redact, lower
from aitrail.privacy.masking import Masked, mask
from aitrail.schema.catalog import by_name, fields

# Without these it is no event any more, and no destination could file it.
ALWAYS = tuple(field.name for field in fields() if field.required)
# In JSON a quote inside a text is escaped, so this is never part of a value: no content, nothing to lower.
_HAS_CONTENT = b'"content_mode":'

Reshape = Callable[[EncodedEvent], EncodedEvent]


def chosen_fields(include: Sequence[str], exclude: Sequence[str], at: Callable[[str], str]) -> tuple[str, ...]:
    """Give the fields that a destination gets, in catalog order; empty: all of them.

    Args:
        include: only these (and those that have to be there); empty: all.
        exclude: all but these.
        at: names a setting for an error.

    Raises:
        ConfigError: both lists are given, one names a field that is not there, or excludes one that has to stay.
    """
    if include and exclude:
        raise ConfigError(
            "fields and exclude_fields cannot both be given", where=at("exclude_fields"), hint="keep one of them"
        )
    known = by_name()
    for setting, names in (("fields", include), ("exclude_fields", exclude)):
        for name in names:
            if name not in known:
                close = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean {close[0]!r}?" if close else "`aitrail schema` lists the fields"
                raise ConfigError(f"there is no field {name!r}", where=at(setting), hint=hint)
    kept = [name for name in exclude if name in ALWAYS]
    if kept:
        raise ConfigError(
            f"{kept[0]} cannot be left out",
            where=at("exclude_fields"),
            hint=f"an event is nothing without {', '.join(ALWAYS)}",
        )
    if include:
        return tuple(name for name in known if name in include or name in ALWAYS)
    return tuple(name for name in known if name not in exclude) if exclude else ()


def reshaping(content: ContentMode | None, names: Sequence[str], redact: Redact) -> Reshape | None:
    """Give what turns a stored event into the one that the destination gets; None when it gets it as it is.

    What it gives raises ``ValueError`` for bytes that are no AccessEvent: they must not go out unseen.
    """
    steps: list[Callable[[bytes], bytes]] = []
    if content is not None:
        steps.append(_lowering(content, redact))
    if names:
        steps.append(_choosing(names))
    if not steps:
        return None

    def reshape(event: EncodedEvent) -> EncodedEvent:
        body = event.body
        for step in steps:
            body = step(body)
        return event if body is event.body else EncodedEvent(event.event_id, event.timestamp, body)

    return reshape


def _lowering(content: ContentMode, redact: Redact) -> Callable[[bytes], bytes]:
    def step(body: bytes) -> bytes:
        if _HAS_CONTENT not in body and b'_text":' not in body and b'_hash":' not in body:
            return body
        try:
            event = decode(body)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise ValueError("no AccessEvent") from error
        return encode(event) if lower(event, content, redact) else body

    return step


def _choosing(names: Sequence[str]) -> Callable[[bytes], bytes]:
    """Decode into a Struct of just these fields: what it does not know is passed over, defaults stay absent."""
    kinds = {field.name: (field.type, field.default) for field in msgspec.structs.fields(AccessEvent)}
    members: list[Any] = [
        (name, kinds[name][0]) if kinds[name][1] is msgspec.NODEFAULT else (name, kinds[name][0], kinds[name][1])
        for name in names
    ]
    kind = msgspec.defstruct("Chosen", members, kw_only=True, omit_defaults=True, gc=False)
    read, write = msgspec.json.Decoder(kind).decode, msgspec.json.Encoder().encode

    def step(body: bytes) -> bytes:
        try:
            return write(read(body))
        except (msgspec.MsgspecError, RecursionError) as error:
            raise ValueError("no AccessEvent") from error

    return step


def redacting(classifier: Callable[[], Classifier]) -> Redact:
    """Give what masks the texts of an event that holds them in full, as taking it in under ``redacted`` does.

    Args:
        classifier: finds what is to be hidden; asked for only when there is something to mask.
    """

    def redact(event: AccessEvent) -> None:
        texts = [Text(place, role, getattr(event, f"{place}_text")) for place, role in _PLACES]
        spans: list[list[tuple[int, int, str]]] = [[], []]
        for leak in classifier().classify(texts).leaks:
            spans[leak.text_index].append((leak.start, leak.end, leak.kind))
        prompt, response = (mask(text.text, found) for text, found in zip(texts, spans, strict=True))
        event.prompt_text, event.response_text = prompt.text, response.text
        event.evidence = tuple(_moved(item, prompt, response) for item in event.evidence)

    return redact


_PLACES: tuple[tuple[Literal["prompt", "response"], str], ...] = (("prompt", "user"), ("response", "assistant"))


def _moved(evidence: str, prompt: Masked, response: Masked) -> str:
    """Move the offsets of one piece of evidence to where they are in the masked text."""
    head, bar, span = evidence.rpartition("|")
    start, dash, end = span.partition("-")
    if not (bar and dash and start.isdecimal() and end.isdecimal()):
        return evidence
    masked = response if head.endswith("|response") else prompt
    first, last = masked.move(int(start)), masked.move(int(end))
    return f"{head}|{first}-{max(first, last)}"
