"""Kibana's saved objects: identities, references, and the two forms in which they travel.

Facts (Kibana guide, "Export saved objects"; package-spec 3.6): in NDJSON the JSON fields of a dashboard are strings, in
a package they are values; both say with which version of Kibana's and the type's own format they were written, and
import into the same or a newer version. So the oldest supported format is written: 8.8.0, of dashboards 10.2.0.
"""

import hashlib
import json
from typing import Any

from msgspec import Struct

Json = dict[str, Any]
PREFIX = "aitrail"
# Of the data streams of all kinds; in a package the view that Fleet makes, because a package cannot hold one.
OWN_VIEW, FLEET_VIEW = "aitrail-ai-audit", "logs-*"
TAG = f"{PREFIX}-tag"
_CORE = "8.8.0"
_TYPES = {"dashboard": "10.2.0", "search": "10.2.0", "index-pattern": "8.0.0", "tag": "8.0.0"}


class Saved(Struct, frozen=True):
    """One saved object; JSON fields of ``attributes`` are values."""

    type: str
    id: str
    attributes: Json
    references: tuple[Json, ...] = ()


def identity(*parts: str) -> str:
    """A UUID that follows from ``parts``: the same object has the same one in every build."""
    digest = hashlib.blake2b("/".join((PREFIX, *parts)).encode(), digest_size=16).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-8{digest[17:20]}-{digest[20:]}"


def dashboard_id(name: str) -> str:
    """The saved object of a page."""
    return f"{PREFIX}-{name.replace('_', '-')}"


def reference(kind: str, name: str, target: str) -> Json:
    """A reference to another saved object."""
    return {"id": target, "name": name, "type": kind}


def decoded(one: Saved) -> Json:
    """The object as a file of a package has it."""
    return {
        "attributes": one.attributes,
        "coreMigrationVersion": _CORE,
        "id": one.id,
        "managed": False,
        "references": list(one.references),
        "type": one.type,
        "typeMigrationVersion": _TYPES[one.type],
    }


def line(one: Saved) -> str:
    """The object as one line of an import file."""
    return compact({**decoded(one), "attributes": _strings(one.attributes)})


def compact(value: Any) -> str:
    """JSON without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def pretty(value: Any) -> bytes:
    """JSON that people can compare."""
    return json.dumps(value, ensure_ascii=False, indent=1).encode() + b"\n"


def _strings(value: Json) -> Json:
    """Fields that are JSON within JSON: everything whose name ends so."""
    return {
        key: compact(inner) if key.endswith("JSON") else _strings(inner) if isinstance(inner, dict) else inner
        for key, inner in value.items()
    }
