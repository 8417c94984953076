"""What a normalizer gives back: events, fragments that wait for their siblings, or rejections with a reason.

A normalizer is a pure and total function ``normalize(raw: bytes, context: Context) -> Sequence[Outcome]``: any bytes
give at least one outcome, nothing is raised, nothing is read or kept between calls.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from aitrail.event import AccessEvent

Role = Literal["system", "user", "assistant", "tool"]


class Message(msgspec.Struct, frozen=True, gc=False):
    """One message of the conversation, with the role that decides how it is judged."""

    role: Role
    text: str


class Content(msgspec.Struct, gc=False):
    """The texts of one call, apart from the event: classification reads them, the content mode decides what stays.

    Attributes:
        messages: everything that was sent, in order, roles kept apart.
        response: what came back (all choices, joined by a newline).
        tool_calls: arguments of tool calls that the model made, as text.
    """

    messages: list[Message] = []
    response: str = ""
    tool_calls: list[str] = []


class Context(msgspec.Struct, frozen=True):
    """What a normalizer may know besides the record's bytes.

    Attributes:
        tenant_id: tenant of the source (a record may name another through ``tenant_keys``).
        origin: the object that the record came from; some record types keep facts only there (S3 key, blob path).
        user_keys, department_keys, session_keys, purpose_keys, ticket_keys, tenant_keys: names of metadata entries
            (requestMetadata, LiteLLM metadata, resource or span attributes) that carry these facts, first match wins.
        field_map: for ``generic_access``: its ``normalize.field_map.FieldMap``.
    """

    tenant_id: str = "default"
    origin: str = ""
    user_keys: tuple[str, ...] = ("user_id", "user.id", "enduser.id", "user")
    department_keys: tuple[str, ...] = ("department", "team", "business_unit")
    session_keys: tuple[str, ...] = ("session_id", "session.id", "conversation_id")
    purpose_keys: tuple[str, ...] = ("purpose",)
    ticket_keys: tuple[str, ...] = ("ticket", "ticket_id")
    tenant_keys: tuple[str, ...] = ()
    field_map: object = None


class Normalized(msgspec.Struct, gc=False):
    """A whole event and its texts (None when the record holds none)."""

    event: AccessEvent
    content: Content | None = None


class Fragment(msgspec.Struct, gc=False):
    """A part of an event: the joiner (``normalize.join``) puts parts of one ``group`` together.

    Attributes:
        kind: which merge rule of ``normalize.join`` applies, e.g. ``apim``.
        group: the same for all parts of one event, unique within tenant and kind.
        part: which part this is; the same part twice is a duplicate.
        event: what this part knows; absent fields are filled from its siblings.
        prompt, response: pieces of text, put together in the order of ``order``.
        content: texts that are whole already.
    """

    kind: str
    group: str
    part: str
    event: AccessEvent
    order: int = 0
    prompt: str = ""
    response: str = ""
    content: Content | None = None


class Rejected(msgspec.Struct, gc=False):
    """The record cannot become an event.

    Attributes:
        code: bounded reason code (see ``REASONS``).
        field: the path in the record that is wrong, as ``userIdentity.type``; never a value.
        record_type: the detected record type, empty when none fits.
    """

    code: str
    field: str = ""
    record_type: str = ""


Outcome = Normalized | Fragment | Rejected
Normalizer = Callable[[bytes, Context], Sequence[Outcome]]

REASONS: dict[str, str] = {
    "json_invalid": "not valid JSON",
    "not_json": "the file holds no JSON, or begins with so many lines without that it is not read on",
    "json_too_deep": "nested deeper than the parser's limit",
    "json_not_object": "valid JSON, but not an object",
    "json_duplicate_key": "an identifying key occurs twice: parsers would disagree about its value",
    "utf8_invalid": "bytes that are not UTF-8 (or a lone surrogate escape)",
    "number_out_of_range": "a number that no 64-bit type holds, NaN or Infinity",
    "type_unknown": "no record type fits; set one with --type or open an issue with the record's shape",
    "type_unsupported": "a known record type that carries no access (Insight, Aggregated, digest)",
    "not_ai_related": "a well-formed record that concerns no AI system; counted, not kept",
    "field_missing": "a field without which the event has no identity or time is missing",
    "field_type": "a field has a type that the record type does not allow",
    "time_invalid": "the time does not parse or is out of range",
    "time_no_zone": "the time has no zone and the record type does not define one",
    "record_too_large": "larger than the cap for one record",
    "record_torn": "cut off before its end",
    "gzip_corrupt": "compressed data is damaged",
    "gzip_truncated": "compressed data ends too early",
    "bomb_ratio": "expands more than the allowed ratio",
    "bomb_size": "expands beyond the allowed size",
    "document_too_large": "one JSON document larger than the cap",
    "object_gone": "the object was deleted before it could be read",
    "object_foreign": "a notification names a bucket that is not among those that may be read",
    "message_unknown": "a queue's message that is of no known form",
    "offset_expired": "the service no longer held what came next: the record's place says from where to where",
    "window_partial": "a query gave only a part of its rows, however small the window: the place says which",
    "map_missing": "a record of type generic_access, but no field map is configured for it",
    "duplicate_part": "the same part of a joined event came twice",
    "internal_limit": "a bound of aitrail itself was reached",
}
