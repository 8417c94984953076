"""Which destinations get an event: asked once, when the event is taken in, in the transaction that stores it.

What a destination does not get is never in its outbox; it is counted (``filtered.<destination>``) in that same
transaction. A condition that is changed later concerns what is taken in from then on.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from aitrail.ports import ACCESS, STREAM_KEY, EncodedEvent
from aitrail.routing.where import Test, Where
from aitrail.schema.catalog import by_name

_TYPES: Mapping[str, tuple[Any, Any]] = {
    "integer": (int | None, None),
    "number": (float | None, None),
    "boolean": (bool | None, None),
    "list": (tuple[str, ...], ()),
}


class Rule(msgspec.Struct, frozen=True):
    """What one destination asks for: kinds of events, and a condition that accesses have to meet."""

    streams: frozenset[str]
    where: Where | None = None


class Selector:
    """Judges events for several destinations at once: each is decoded once, and only the fields that are asked for."""

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        self._rules = dict(rules)
        asked = sorted({name for rule in rules.values() if rule.where is not None for name in rule.where.fields})
        self._decode = msgspec.json.Decoder(_kind(asked)).decode if asked else None

    def select(self, events: Sequence[EncodedEvent], destinations: Sequence[str]) -> dict[str, list[int]]:
        """Give the places that each of ``destinations`` gets, for those that do not get all of them."""
        rules = {name: self._rules[name] for name in destinations if name in self._rules}
        if not rules:
            return {}
        if self._decode is None and not any(event.body.startswith(STREAM_KEY) for event in events):
            # The usual case: accesses, and nobody who has a condition.
            return {name: [] for name, rule in rules.items() if ACCESS not in rule.streams}
        streams = [event.stream for event in events]
        # An event that cannot be read goes to everybody who takes accesses: each says itself what is wrong with it.
        seen = [self._read(event) if stream == ACCESS else None for event, stream in zip(events, streams, strict=True)]
        chosen: dict[str, list[int]] = {}
        for name, rule in rules.items():
            test: Test | None = rule.where.test if rule.where is not None else None
            places = [
                place
                for place, stream in enumerate(streams)
                if stream in rule.streams and (test is None or seen[place] is None or test(seen[place]))
            ]
            if len(places) < len(events):
                chosen[name] = places
        return chosen

    def takers(self, stream: str) -> list[str]:
        """Who takes events of a kind."""
        return [name for name, rule in self._rules.items() if stream in rule.streams]

    def _read(self, event: EncodedEvent) -> Any:
        if self._decode is None:
            return None
        try:
            return self._decode(event.body)
        except (msgspec.MsgspecError, RecursionError):
            return None


def _kind(names: Sequence[str]) -> type[msgspec.Struct]:
    """A Struct of just these fields, with the values that stand for their absence."""
    known = by_name()
    members = [(name, *_TYPES.get(known[name].kind, (str, ""))) for name in names]
    return msgspec.defstruct("Seen", members, kw_only=True, gc=False)
