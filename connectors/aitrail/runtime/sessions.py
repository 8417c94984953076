"""The session view over stored events: what calls show together that carry no history of their own.

It is derived and not stored: a function of the events that are in the store, taken in the order of their own time (and
of their ids, where times are equal). Whatever order they were collected in, and however often the collector was killed
on the way, the same events give the same findings; an event that arrives late changes the answer the next time that it
is asked, and no event that was delivered ever has to be taken back.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from aitrail.classify.session import SessionView, Turn
from aitrail.classify.taxonomy import tags_of
from aitrail.event import AccessEvent
from aitrail.store import queries
from aitrail.store.queries import Connection, Filters

# Turns of one session before an event that `aitrail explain` looks at.
BEFORE = 200


class SessionFinding(Struct, frozen=True):
    """What one event completes in its session: signals with their taxonomy ids, and whose session it was."""

    event_id: str
    timestamp: datetime
    tenant: str
    session: str
    who: str
    signals: tuple[str, ...]
    atlas: tuple[str, ...]
    owasp: tuple[str, ...]


def find(
    connection: Connection,
    filters: Filters,
    judge: Callable[[str], float],
    *,
    newest: int = 1 << 62,
    suspicious: float = 0.45,
) -> Iterator[SessionFinding]:
    """Give the findings in the events that pass ``filters``, oldest first; memory does not grow with the store.

    Args:
        connection: the store's.
        filters: which events.
        judge: the injection score of a text, for payloads split over turns.
        newest: look at so many of the newest calls only.
        suspicious: from which score on a prompt is noticed by itself.
    """
    view = SessionView(judge, suspicious=suspicious)
    for row in queries.stream(connection, "session_turns", filters, top=newest):
        signals = view.update(_turn(row))
        if signals:
            yield _finding(row, signals)


def of_event(connection: Connection, event: AccessEvent, judge: Callable[[str], float]) -> tuple[str, ...]:
    """What ``event`` completes in its session, given the calls before it; nothing for an event without a session."""
    if event.action_kind != "inference" or not (event.session_id or event.user_id):
        return ()
    moment = datetime.fromisoformat(event.timestamp).astimezone(UTC).replace(tzinfo=None)
    rows = queries.run(
        connection,
        "session_before",
        top=BEFORE,
        tenant_is=event.tenant_id,
        session_is=event.session_id,
        user_is=event.user_id,
        moment=moment,
        one=event.event_id,
    ).dicts()
    view = SessionView(judge)
    signals: list[str] = []
    for row in rows:
        signals = view.update(_turn(row))
    return tuple(signals) if rows and rows[-1]["event_id"] == event.event_id else ()


def _turn(row: dict[str, Any]) -> Turn:
    # Sealed text is cipher text; what is not stored is not compared, but an equal prompt still has an equal hash.
    text = row["prompt_text"] if row["content_mode"] in ("redacted", "full") else ""
    return Turn(
        session=f"{row['tenant']}\0{row['kind']}\0{row['session']}",
        at=row["timestamp"].replace(tzinfo=UTC).timestamp(),
        prompt=text,
        answered=bool(row["answered"]),
        refused=bool(row["refused"]),
        score=row["score"] or 0.0,
        same=row["prompt_hash"],
    )


def _finding(row: dict[str, Any], signals: list[str]) -> SessionFinding:
    tags = tags_of(frozenset(signals))
    return SessionFinding(
        row["event_id"], row["timestamp"], row["tenant"], row["session"], row["who"], tuple(signals), tags.atlas,
        tags.owasp,
    )  # fmt: skip
