"""What an ingest node does with the processors that the pack uses, on one document.

Written from the Elasticsearch reference, "Ingest processor reference": processors run in order; a condition that is
false passes one over; a failure without a handler of its own ends the list and runs the pipeline's ``on_failure``.
Places and clients come from small tables instead of databases: an address that is not in it has no place.
"""

import re
from collections.abc import Callable
from copy import deepcopy
from typing import Any

Json = dict[str, Any]
NOW = "2026-11-23T12:00:00.000Z"
PLACES: Json = {"203.0.113.7": {"country_iso_code": "CH", "country_name": "Switzerland", "city_name": "Zurich"}}
NETWORKS: Json = {"203.0.113.7": {"asn": 64500, "organization_name": "Example Net"}}
CLIENTS: Json = {"Mozilla/5.0 (Example)": {"name": "Example", "version": "5.0", "original": "Mozilla/5.0 (Example)"}}
_TEST = re.compile(r"ctx((?:\??\.\w+)+) (==|!=) (null|'[^']*')")


class Failed(Exception):  # noqa: N818
    """A processor failed, and nothing around it says what then."""


def run(pipeline: Json, document: Json) -> Json:
    """The document as it is indexed; the one that came in is not changed."""
    found = deepcopy(document)
    for one in pipeline["processors"]:
        ((kind, settings),) = one.items()
        try:
            if holds(settings.get("if", ""), found):
                _PROCESSORS[kind](settings, found)
        except Failed as error:
            meta = {"type": kind, "tag": settings["tag"], "pipeline": "test", "message": str(error)}
            for handler in pipeline["on_failure"]:
                ((kind_, own),) = handler.items()
                _PROCESSORS[kind_](_said(own, meta), found)
            break
    return found


def _said(settings: Json, meta: Json) -> Json:
    """Mustache over ``_ingest.on_failure_*``; a name that is not there is a bug of the pipeline."""

    def fill(found: re.Match[str]) -> str:
        name = found[1].removeprefix("on_failure_")
        return str(meta[{"processor_type": "type", "processor_tag": "tag"}.get(name, name)])

    return {
        key: re.sub(r"\{\{\{_ingest\.(\w+)\}\}\}", fill, one) if isinstance(one, str) else one
        for key, one in settings.items()
    }


def holds(condition: str, document: Json) -> bool:
    """Painless, as far as it is comparisons of fields that are joined by ``||``; all else is refused."""
    if not condition:
        return True
    found = False
    for part in condition.split(" || "):
        match = _TEST.fullmatch(part.strip())
        if match is None:
            raise ValueError(part)
        steps = re.findall(r"(\??\.)(\w+)", match[1])
        # Without the question mark a parent that is missing is an exception.
        assert all(dot == "?." for dot, _ in steps[1:]), part
        held = value(document, ".".join(name for _, name in steps))
        same = held is None if match[3] == "null" else held == match[3][1:-1]
        found = found or same is (match[2] == "==")
    return found


def value(document: Json, name: str) -> Any:
    for part in name.split("."):
        document = document.get(part) if isinstance(document, dict) else None  # type: ignore[assignment]
    return document


def put(document: Json, name: str, item: Any) -> None:
    *parents, leaf = name.split(".")
    for parent in parents:
        document = document.setdefault(parent, {})
        if not isinstance(document, dict):
            raise Failed(f"cannot set [{leaf}] with parent object of type {type(document).__name__}")
    document[leaf] = item


def _read(settings: Json, document: Json) -> Any:
    found = value(document, settings["field"])
    if found is None and not settings.get("ignore_missing"):
        raise Failed(f"field [{settings['field']}] not present")
    return found


def _geoip(settings: Json, document: Json) -> None:
    address = _read(settings, document)
    if address is None:
        return
    if not isinstance(address, str):
        raise Failed(f"field [{settings['field']}] should contain only string or array of strings")
    table = NETWORKS if settings.get("database_file") == "GeoLite2-ASN.mmdb" else PLACES
    if address in table:
        put(document, settings["target_field"], value(document, settings["target_field"]) or {})
        value(document, settings["target_field"]).update(table[address])


def _rename(settings: Json, document: Json) -> None:
    held = _read(settings, document)
    if held is not None:
        if value(document, settings["target_field"]) is not None:
            raise Failed(f"field [{settings['target_field']}] already exists")
        parent, _, leaf = settings["field"].rpartition(".")
        del value(document, parent)[leaf]
        put(document, settings["target_field"], held)


def _user_agent(settings: Json, document: Json) -> None:
    client = _read(settings, document)
    if client is not None:
        put(document, "user_agent", CLIENTS.get(client, {"name": "Other", "original": client}))


def _set(settings: Json, document: Json) -> None:
    if settings.get("override") is False and value(document, settings["field"]) is not None:
        return
    source = settings.get("copy_from")
    assert source in (None, "_ingest.timestamp")
    put(document, settings["field"], NOW if source else settings["value"])


def _append(settings: Json, document: Json) -> None:
    held = value(document, settings["field"])
    listed = held if isinstance(held, list) else [] if held is None else [held]
    put(document, settings["field"], [*listed, settings["value"]])


def _pipeline(settings: Json, document: Json) -> None:
    assert settings["ignore_missing_pipeline"] is True


_PROCESSORS: dict[str, Callable[[Json, Json], None]] = {
    "append": _append,
    "geoip": _geoip,
    "pipeline": _pipeline,
    "rename": _rename,
    "set": _set,
    "user_agent": _user_agent,
}
