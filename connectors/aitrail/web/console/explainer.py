"""What the pages need to know about one event or finding beyond its row; the run time fills it in.

The console depends on this Protocol and not on the command line, which explains the same things in a terminal.
"""

from typing import Any, Protocol

from msgspec import Struct

from aitrail.event import AccessEvent
from aitrail.web.console.data import Data


class Span(Struct, frozen=True):
    """A marked place in a text of the event; ``number`` is that of the evidence."""

    field: str
    start: int
    end: int
    number: int


class Explained(Struct, frozen=True):
    """One event with everything that was found out about it, as the viewer may see it.

    Attributes:
        event: with content above the viewer's mode masked or taken out.
        stored: content mode in which the store holds it; ``hidden`` says that the viewer sees less.
        before, evidence, after: why it was judged so, as sentences in this order.
        spans: where the evidence is in the texts.
        together: what it completes in its session.
        origin: label and value of where the raw record lies; ``record`` its masked text when it was asked for.
    """

    event: AccessEvent
    stored: str
    hidden: bool
    before: list[str]
    evidence: list[str]
    after: list[str]
    spans: list[Span]
    together: list[str]
    origin: list[tuple[str, str]]
    readable: bool = False
    record: str = ""


class Explainer(Protocol):
    """Explains events and findings of a store."""

    def event(self, data: Data, event_id: str, *, raw: bool = False) -> Explained | None:
        """The event with this id; with ``raw`` its record is read again. None when there is none."""
        ...

    def turns(self, data: Data, event_ids: list[str]) -> list[Explained]:
        """Several events, in the order of the ids, without origin and session."""
        ...

    def finding(self, data: Data, finding_id: str) -> dict[str, Any] | None:
        """The finding with this id, with its rule, its events and what to do; None when there is none."""
        ...

    def tag_name(self, tag: str) -> str:
        """Name of an ATLAS technique or an OWASP entry; empty when the taxonomy does not know it."""
        ...
