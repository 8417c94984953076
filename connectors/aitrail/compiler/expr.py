"""The condition of a rule as a typed tree: what every dialect renders, and nothing that one of them could not.

Meaning, the same in every engine (Sigma specification, with the canonical form of ``AccessEvent``): strings compare
without case; a missing string is the empty one; a comparison with a missing value is false, its negation true; a test
of a list holds when it holds for any of its elements.
"""

from typing import Literal

from msgspec import Struct

from aitrail.schema.catalog import FieldInfo

TextOp = Literal["equals", "contains", "startswith", "endswith"]
NumberOp = Literal["==", "<", "<=", ">", ">="]


class And(Struct, frozen=True):
    """All of ``items``; at least one."""

    items: tuple["Expr", ...]


class Or(Struct, frozen=True):
    """Any of ``items``; at least one."""

    items: tuple["Expr", ...]


class Not(Struct, frozen=True):
    """The opposite of ``item``; never unknown."""

    item: "Expr"


class Text(Struct, frozen=True):
    """A string or any element of a list against a literal, without case."""

    field: FieldInfo
    op: TextOp
    value: str


class OneOf(Struct, frozen=True):
    """A string or any element of a list is one of ``values``, without case."""

    field: FieldInfo
    values: tuple[str, ...]


class Number(Struct, frozen=True):
    """A number against a constant."""

    field: FieldInfo
    op: NumberOp
    value: int | float


class Flag(Struct, frozen=True):
    """A boolean is exactly ``value``; null is neither."""

    field: FieldInfo
    value: bool


class Present(Struct, frozen=True):
    """The field carries a value: not null, not the empty string, not the empty list."""

    field: FieldInfo


class SameText(Struct, frozen=True):
    """Two strings, both present, are the same without case."""

    field: FieldInfo
    other: FieldInfo


class InNetwork(Struct, frozen=True):
    """An address lies in a network (CIDR notation); an absent one does not."""

    field: FieldInfo
    network: str


class Matches(Struct, frozen=True):
    """A string matches an RE2 expression somewhere, with case; fields are lower-case where the catalog says so."""

    field: FieldInfo
    pattern: str


Expr = And | Or | Not | Text | OneOf | Number | Flag | Present | SameText | InNetwork | Matches


def fields_of(expr: Expr) -> set[str]:
    """The names of all fields that ``expr`` reads."""
    if isinstance(expr, And | Or):
        return {name for item in expr.items for name in fields_of(item)}
    if isinstance(expr, Not):
        return fields_of(expr.item)
    names = {expr.field.name}
    return names | {expr.other.name} if isinstance(expr, SameText) else names
