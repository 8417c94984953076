"""Putting flat values at dotted places of nested dicts: what the OCSF and the ECS export share."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from aitrail.schema.catalog import Standard, fields


@cache
def exact_places(standard: Standard) -> Mapping[str, tuple[str, str]]:
    """Where each field's unchanged value goes in the export of ``standard``: field -> (dotted parent, last key).

    Places inside a list (``[]``) are not plain and left to the export itself.
    """
    places: dict[str, tuple[str, str]] = {}
    for field in fields():
        name = field.exact_in(standard)
        if name and "[]" not in name:
            parent, _, leaf = name.rpartition(".")
            places[field.name] = (parent, leaf)
    return places


def nest(values: Mapping[str, Any], places: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    """Put ``values`` at their ``places``; values without a place are left out."""
    out: dict[str, Any] = {}
    nodes = {"": out}  # every parent that exists, by its dotted name: one lookup per value, however deep it goes
    for name, value in values.items():
        place = places.get(name)
        if place is None:
            continue
        node = nodes.get(place[0])
        if node is None:
            node = _open(nodes, place[0])
        node[place[1]] = value
    return out


def _open(nodes: dict[str, dict[str, Any]], dotted: str) -> dict[str, Any]:
    """Make the dict at ``dotted``, and those above it."""
    if dotted in nodes:
        return nodes[dotted]
    parent, _, leaf = dotted.rpartition(".")
    node: dict[str, Any] = {}
    _open(nodes, parent)[leaf] = node
    nodes[dotted] = node
    return node
