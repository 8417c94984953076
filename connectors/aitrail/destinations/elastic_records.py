"""Findings, health records and checkpoints as documents of data streams of their own, and the mappings of these.

A field that accesses have, too, stands where it stands there; ``RECORD_NAMES`` has those that ECS knows; all others are
below ``ai_audit.<stream>``.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from aitrail.destinations._raw_fields import record_fields
from aitrail.destinations._record_kinds import record_kinds
from aitrail.destinations.elastic_documents import DataStream, node
from aitrail.ports import EncodedEvent
from aitrail.schema.catalog import Kind, by_name
from aitrail.schema.ecs import ECS_VERSION, RECORD_NAMES
from aitrail.schema.views.elastic import leaf_types

_EVENT_KINDS: Mapping[str, str] = {"finding": "alert", "health": "metric", "checkpoint": "state"}
_KEYWORD: Mapping[str, Any] = {"type": "keyword", "ignore_above": 1024}
_TYPES: Mapping[Kind, Mapping[str, Any]] = {
    "time": {"type": "date"},
    "text": {"type": "match_only_text"},
    "integer": {"type": "long"},
    "number": {"type": "double"},
}

_encode = msgspec.json.Encoder().encode


@lru_cache(maxsize=8)
def record_names(stream: str) -> Mapping[str, str]:
    """Give field -> dotted name in the document."""
    known = by_name()
    return {
        name: RECORD_NAMES[stream].get(name)
        or (known[name].exact_in("ecs") if name in known else f"ai_audit.{stream}.{name}")
        for name in record_kinds(stream)
    }


class RecordDocuments:
    """Makes documents of the records of one stream. Thread-safe."""

    def __init__(self, data_stream: DataStream, stream: str) -> None:
        self._places = {name: dotted.rpartition(".") for name, dotted in record_names(stream).items()}
        self._event = {"kind": _EVENT_KINDS[stream], "module": "ai_audit", "dataset": data_stream.dataset}
        self._constants = {"ecs": {"version": ECS_VERSION}, "data_stream": msgspec.to_builtins(data_stream)}

    def document(self, item: EncodedEvent) -> bytes:
        """Give the document as one line of JSON; raises ``Unencodable``."""
        tree: dict[str, Any] = {"@timestamp": "", "event": dict(self._event), **self._constants}
        for name, value in record_fields(item).items():
            parent, _, leaf = self._places[name]
            node(tree, parent)[leaf] = value
        return _encode(tree)


def record_mapping(stream: str) -> dict[str, Any]:
    """The mapping of the documents of one stream; nothing is mapped dynamically."""
    shared = leaf_types()
    types = {"event.kind": _KEYWORD, "event.module": _KEYWORD, "event.dataset": _KEYWORD, "ecs.version": _KEYWORD}
    for field, kind in record_kinds(stream).items():
        name = record_names(stream)[field]
        types[name] = shared.get(name) or _TYPES.get(kind, _KEYWORD)
    root: dict[str, Any] = {"dynamic": False, "date_detection": False, "properties": {}}
    for name, mapped in sorted(types.items()):
        *parents, leaf = name.split(".")
        place = root["properties"]
        for parent in parents:
            place = place.setdefault(parent, {"properties": {}})["properties"]
        place[leaf] = dict(mapped)
    return root
