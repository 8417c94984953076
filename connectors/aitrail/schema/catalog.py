"""The field catalog: what ``AccessEvent``'s annotations say about each field, as typed data.

Nothing here repeats the list of fields; a new field of ``AccessEvent`` appears in every view by itself.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any, Literal, get_args

import msgspec

from aitrail.event import AccessEvent

Kind = Literal["string", "time", "ip", "text", "integer", "number", "boolean", "list"]
Standard = Literal["ocsf", "ecs", "otel", "cim", "asim", "sentinel"]
STANDARDS: tuple[Standard, ...] = get_args(Standard)

_PYTHON: dict[Kind, str] = {
    "string": "str",
    "time": "str",
    "ip": "str",
    "text": "str",
    "integer": "int | None",
    "number": "float | None",
    "boolean": "bool | None",
    "list": "tuple[str, ...]",
}
_WIRE: dict[Kind, str] = {
    "string": "string",
    "time": "string (RFC 3339, UTC, milliseconds)",
    "ip": "string (IPv4 or IPv6)",
    "text": "string",
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
    "list": "array of strings",
}


class FieldInfo(msgspec.Struct, frozen=True):
    """What is known about one field of ``AccessEvent``.

    Attributes:
        name: its name in Python and on the wire.
        kind: its type, told apart as far as any target system needs it.
        description, unit, example: for readers; ``unit`` is empty where there is none.
        lower: whether the value is lower-case, always.
        group: the section of the catalog (record, who, where, what, model, content, verdict, outcome, ...).
        required: whether it is always there.
        enum: its closed set of values, empty when open.
        names: its names elsewhere, by standard; ``<standard>_exact`` where the unchanged value has a place of its own.
    """

    name: str
    kind: Kind
    description: str
    unit: str
    example: Any
    lower: bool
    group: str
    required: bool
    enum: tuple[str, ...]
    names: dict[str, str]

    @property
    def python_type(self) -> str:
        """The Python type as it is written in a signature."""
        return f"Literal[{', '.join(map(repr, self.enum))}]" if self.enum else _PYTHON[self.kind]

    @property
    def wire_type(self) -> str:
        """The JSON type of the canonical bytes."""
        return _WIRE[self.kind]

    def name_in(self, standard: Standard) -> str:
        """Its name in ``standard``, as that standard's own reader expects it; empty when there is none."""
        if standard == "sentinel":
            return self.names.get("sentinel") or pascal_case(self.name)
        return self.names.get(standard, "")

    def exact_in(self, standard: Standard) -> str:
        """Where ``standard``'s export keeps the unchanged value: what a rule must compare against."""
        return self.names.get(f"{standard}_exact") or self.name_in(standard)


def pascal_case(name: str) -> str:
    """Turn ``user_id`` into ``UserId``, the spelling of Azure Monitor tables."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def _flatten(kind: Any) -> Iterable[Any]:
    if isinstance(kind, msgspec.inspect.UnionType):
        for member in kind.types:
            yield from _flatten(member)
    else:
        yield kind


_KINDS: dict[type, Kind] = {
    msgspec.inspect.StrType: "string",
    msgspec.inspect.LiteralType: "string",
    msgspec.inspect.IntType: "integer",
    msgspec.inspect.FloatType: "number",
    msgspec.inspect.BoolType: "boolean",
    msgspec.inspect.VarTupleType: "list",
}
_FORMS: dict[str, Kind] = {"time": "time", "ip": "ip", "text": "text"}


def _field(field: msgspec.inspect.Field) -> FieldInfo:
    meta = field.type
    if not isinstance(meta, msgspec.inspect.Metadata) or meta.extra is None or meta.extra_json_schema is None:
        raise TypeError(f"AccessEvent.{field.name} has no description: annotate it with _f(...)")
    members = [kind for kind in _flatten(meta.type) if not isinstance(kind, msgspec.inspect.NoneType)]
    kind = _KINDS[type(members[0])]
    values = [value for member in members if isinstance(member, msgspec.inspect.LiteralType) for value in member.values]
    return FieldInfo(
        name=field.encode_name,
        kind=_FORMS.get(meta.extra.get("form", ""), kind),
        description=meta.extra_json_schema["description"],
        unit=meta.extra["unit"],
        example=meta.extra_json_schema["examples"][0],
        lower=meta.extra["lower"],
        group=meta.extra["group"],
        required=field.required,
        enum=tuple(sorted(str(value) for value in values)),
        names={key: value for key, value in meta.extra["names"].items() if value},
    )


@cache
def fields() -> tuple[FieldInfo, ...]:
    """All fields in catalog order; raises ``TypeError`` for a field without a description."""
    info = msgspec.inspect.type_info(AccessEvent)
    if not isinstance(info, msgspec.inspect.StructType):  # pragma: no cover - it is one
        raise TypeError("AccessEvent is not a Struct")
    return tuple(_field(field) for field in info.fields)


@cache
def by_name() -> dict[str, FieldInfo]:
    """The same fields by name."""
    return {field.name: field for field in fields()}


def example_event() -> AccessEvent:
    """Build an event of the catalog's examples: every field is set."""
    return msgspec.convert({field.name: field.example for field in fields()}, AccessEvent)
