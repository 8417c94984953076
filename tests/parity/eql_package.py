"""EQL run by the Python package ``eql``, an engine that this project has no hand in; only tests use it."""

from typing import Any

import eql
import msgspec
from eql.engine import PythonEngine
from eql.parser import allow_runs, elasticsearch_syntax, parse_query

from aitrail.event import AccessEvent
from aitrail.schema.ecs import to_ecs

_ANY = eql.Schema({}, allow_any=True, allow_generic=True, allow_missing=True)


def run(query: str, events: list[tuple[int, dict[str, Any]]]) -> list[list[str]]:
    """The ids of the events of each match of ``query`` in ``events``: times in milliseconds, ascending, and events."""
    with elasticsearch_syntax, allow_runs, _ANY:
        parsed = parse_query(query)
    found: list[list[str]] = []
    engine = PythonEngine()
    engine.add_query(parsed)
    engine.add_output_hook(lambda result: found.append([event.data["event"]["id"] for event in result.events]))
    # Its times are in units of 100 nanoseconds.
    engine.stream_events([eql.Event("any", moment * 10_000, _document(event)) for moment, event in events])
    return found


def _document(event: dict[str, Any]) -> Any:
    return _unwrapped(to_ecs(msgspec.convert(event, AccessEvent)))


def _unwrapped(item: Any) -> Any:
    """One value in an array is that value, as it is to Elasticsearch."""
    if isinstance(item, dict):
        return {key: _unwrapped(value) for key, value in item.items()}
    return item[0] if isinstance(item, list) and len(item) == 1 else item
