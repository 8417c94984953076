"""The Elasticsearch mapping of what ``to_ecs`` writes: the ``mappings`` of an index or component template.

Types of ECS names are ECS's own; prompt and response text are ``match_only_text``, because ECS 9.5's flattened
``gen_ai.input.messages`` refuses leaves over 32 kB. Nothing is mapped dynamically: a field that is not listed stays in
``_source`` and cannot blow up the index.
"""

import json
from typing import Any

from aitrail.schema.catalog import Kind, fields
from aitrail.schema.ecs import DERIVED

_TYPES: dict[Kind, dict[str, Any]] = {
    "string": {"type": "keyword", "ignore_above": 1024},
    "time": {"type": "date"},
    "ip": {"type": "ip"},
    "text": {"type": "match_only_text"},
    "integer": {"type": "long"},
    "number": {"type": "double"},
    "boolean": {"type": "boolean"},
    "list": {"type": "keyword", "ignore_above": 1024},
}
# ECS declares another type than the catalog's for these; ECS wins, shared data views need one type per name.
_ECS_TYPES: dict[str, dict[str, Any]] = {
    "event.risk_score": {"type": "float"},
    "gen_ai.usage.input_tokens": {"type": "long"},
    "gen_ai.usage.output_tokens": {"type": "long"},
}


def leaf_types() -> dict[str, dict[str, Any]]:
    """Every dotted name that ``to_ecs`` can write, with its mapping."""
    leaves = {name: _TYPES["string"] if kind == "keyword" else {"type": kind} for name, kind in DERIVED.items()}
    for field in fields():
        name = field.exact_in("ecs")
        leaves[name] = _ECS_TYPES.get(name, _TYPES[field.kind])
    return dict(sorted(leaves.items()))


def mapping() -> dict[str, Any]:
    """The mapping as a dict with nested ``properties``."""
    root: dict[str, Any] = {"dynamic": False, "date_detection": False, "properties": {}}
    for name, kind in leaf_types().items():
        *parents, leaf = name.split(".")
        node = root["properties"]
        for parent in parents:
            node = node.setdefault(parent, {"properties": {}})["properties"]
        node[leaf] = dict(kind)
    return root


def document() -> str:
    """A component template as JSON text."""
    return json.dumps({"template": {"mappings": mapping()}}, indent=2) + "\n"
