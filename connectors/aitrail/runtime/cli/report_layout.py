"""The sections of the report: which query, which columns, in which order. A new section is one entry here."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import msgspec

from aitrail.runtime import sessions
from aitrail.runtime.cli.render import NARROW, Column
from aitrail.store import queries
from aitrail.store.queries import Connection, Filters, Rows


class Section(msgspec.Struct, frozen=True):
    """One table of the report: ``bar`` names the column that a bar shows, ``empty`` is said when there are no rows."""

    name: str
    title: str
    columns: tuple[Column, ...]
    empty: str
    bar: str = ""


class Filled(msgspec.Struct, frozen=True):
    """A section with its rows, in the order of its columns."""

    section: Section
    rows: list[tuple[Any, ...]]


class Report(msgspec.Struct, frozen=True):
    """Everything that a report shows, before it is laid out."""

    filters: Filters
    overview: dict[str, Any]
    bucket: timedelta
    timeline: list[dict[str, Any]]
    sections: list[Filled]


C = Column
SECTIONS: tuple[Section, ...] = (
    Section(
        "detections",
        "What the rules found",
        (
            C("severity", "severity"),
            C("summary", "what"),
            C("events", "events", "count"),
            C("first_seen", "from (UTC)", "time"),
            C("last_seen", "to (UTC)", "time", from_width=NARROW + 60),
            C("event_id", "finding", "id"),
        ),
        "nothing; `aitrail detect` runs the rules",
    ),
    Section(
        "findings",
        "Look at these first",
        (
            C("risk", "risk", "count"),
            C("who", "who"),
            C("department", "department", from_width=NARROW),
            C("why", "why"),
            C("action", "action", from_width=NARROW),
            C("target", "model or resource", from_width=NARROW + 60),
            C("outcome", "outcome"),
            C("events", "events", "count"),
            C("last_seen", "last (UTC)", "time", from_width=NARROW),
            C("event_id", "last event", "id"),
        ),
        "nothing stands out",
    ),
    Section(
        "users",
        "Who",
        (
            C("who", "who"),
            C("type", "type", from_width=NARROW),
            C("department", "department"),
            C("events", "events", "count"),
            C("models", "models", "count", from_width=NARROW),
            C("tokens", "tokens", "count"),
            C("cost_usd", "cost $", "usd"),
            C("failed", "not allowed", "count", from_width=NARROW),
            C("notable", "findings", "count"),
            C("max_risk", "top risk", "count", from_width=NARROW),
        ),
        "no events",
        bar="events",
    ),
    Section(
        "departments",
        "Departments",
        (
            C("department", "department"),
            C("events", "events", "count"),
            C("principals", "who", "count"),
            C("tokens", "tokens", "count"),
            C("cost_usd", "cost $", "usd"),
            C("leaks", "leaks", "count"),
            C("notable", "findings", "count"),
        ),
        "no events",
        bar="events",
    ),
    Section(
        "models",
        "Which model",
        (
            C("model", "model"),
            C("provider", "provider"),
            C("events", "events", "count"),
            C("principals", "who", "count"),
            C("tokens", "tokens", "count"),
            C("cost_usd", "cost $", "usd"),
            C("p50_ms", "p50 ms", "ms", from_width=NARROW),
            C("p95_ms", "p95 ms", "ms", from_width=NARROW),
            C("failed", "not allowed", "count", from_width=NARROW),
        ),
        "no event names a model",
        bar="events",
    ),
    Section(
        "actions",
        "What was done",
        (
            C("kind", "kind"),
            C("action", "action"),
            C("events", "events", "count"),
            C("principals", "who", "count"),
            C("failed", "not allowed", "count"),
        ),
        "no events",
        bar="events",
    ),
    Section(
        "prompts",
        "What was asked and answered",
        (
            C("classification", "classification"),
            C("prompts", "prompts", "count"),
            C("responses", "responses", "count"),
        ),
        "no inference in this range",
        bar="prompts",
    ),
    Section(
        "outcomes",
        "Outcomes",
        (C("outcome", "outcome"), C("events", "events", "count"), C("users", "users", "count")),
        "no events",
        bar="events",
    ),
    Section(
        "injections",
        "Prompt injection",
        (
            C("tier", "tier"),
            C("events", "events", "count"),
            C("principals", "who", "count"),
            C("blocked", "blocked", "count"),
            C("went_through", "went through", "count"),
            C("max_score", "top score", "score"),
        ),
        "none found",
    ),
    Section(
        "leaks",
        "Secrets, personal and financial data",
        (
            C("place", "where"),
            C("kind", "kind"),
            C("events", "events", "count"),
            C("principals", "who", "count"),
            C("blocked", "blocked", "count"),
        ),
        "none found",
        bar="events",
    ),
    Section(
        "guardrails",
        "Guardrail verdicts",
        (
            C("guardrail", "guardrail"),
            C("verdict", "verdict"),
            C("categories", "categories"),
            C("events", "events", "count"),
            C("principals", "who", "count"),
        ),
        "no guardrail stopped, flagged or masked anything",
    ),
    Section(
        "agreement",
        "What other judges said, beside aitrail's own verdict",
        (
            C("judge", "judge"),
            C("what", "about"),
            C("said", "said"),
            C("own", "aitrail"),
            C("events", "events", "count"),
            C("last_seen", "last (UTC)", "time", from_width=NARROW),
            C("event_id", "last event", "id"),
        ),
        "no guardrail, filter or scorer said anything about attacks or leaks",
    ),
    Section(
        "sessions",
        "What calls of one session show together",
        (
            C("signals", "signals"),
            C("who", "who"),
            C("session", "session", from_width=NARROW),
            C("timestamp", "time (UTC)", "time"),
            C("event_id", "event", "id"),
        ),
        "nothing in the newest calls; `aitrail classify sessions` looks at more of them",
    ),
    Section(
        "control_plane",
        "Changes to guardrails, logging, keys and models; access to weights",
        (
            C("kind", "kind"),
            C("action", "action"),
            C("who", "who"),
            C("resource", "resource", from_width=NARROW),
            C("outcome", "outcome"),
            C("events", "events", "count"),
            C("last_seen", "last (UTC)", "time", from_width=NARROW),
            C("max_risk", "risk", "count"),
        ),
        "none",
    ),
    Section(
        "sources",
        "Sources",
        (
            C("source", "source"),
            C("events", "events", "count"),
            C("first_seen", "first (UTC)", "time", from_width=NARROW),
            C("last_seen", "last (UTC)", "time"),
            C("last_read", "read (UTC)", "time", from_width=NARROW),
            C("flagged", "with a quality flag", "count"),
        ),
        "nothing was collected",
    ),
    Section(
        "dead_letters",
        "Dead letters",
        (
            C("source", "source"),
            C("code", "reason"),
            C("record_type", "record type"),
            C("records", "records", "count"),
            C("newest", "newest (UTC)", "time"),
        ),
        "none: every record became an event or was skipped on purpose",
    ),
)
NAMES: tuple[str, ...] = tuple(section.name for section in SECTIONS)

# The bucket of the time line: the smallest one that gives at most this many bars.
_BUCKETS = tuple(
    timedelta(**span)
    for span in (
        {"minutes": 1},
        {"minutes": 5},
        {"minutes": 15},
        {"hours": 1},
        {"hours": 3},
        {"hours": 12},
        {"days": 1},
        {"days": 7},
        {"days": 28},
    )
)
_MAX_BARS = 60


def bucket_for(length: timedelta) -> timedelta:
    """The width of one bar of a time line over ``length``."""
    return next((bucket for bucket in _BUCKETS if length / bucket <= _MAX_BARS), max(_BUCKETS[-1], length / _MAX_BARS))


def make_report(connection: Connection, filters: Filters, top: int, wanted: tuple[str, ...] = ()) -> Report:
    """Ask everything that the report shows; ``wanted`` limits it to some sections."""
    overview = queries.run(connection, "overview", filters).dicts()[0]
    bucket = timedelta(hours=1)
    timeline: list[dict[str, Any]] = []
    if overview["events"]:
        bucket = bucket_for(overview["last_seen"] - overview["first_seen"])
        timeline = queries.run(connection, "timeline", filters, bucket=bucket).dicts()
    sections = []
    for section in SECTIONS:
        if wanted and section.name not in wanted:
            continue
        derived = _DERIVED.get(section.name)
        if derived is not None:
            rows = derived(connection, filters, top)
        else:
            rows = _in_order(section, queries.run(connection, section.name, filters, top=top))
        sections.append(Filled(section, rows))
    return Report(filters, overview, bucket, timeline, sections)


# A report takes seconds: it looks at so many of the newest calls, and does not judge joined prompts.
_SESSION_CALLS = 5_000


def _sessions(connection: Connection, filters: Filters, top: int) -> list[tuple[Any, ...]]:
    found = list(sessions.find(connection, filters, lambda _text: 0.0, newest=_SESSION_CALLS))
    newest = sorted(found, key=lambda one: (one.timestamp, one.event_id), reverse=True)[:top]
    return [(", ".join(one.signals), one.who, one.session, one.timestamp, one.event_id) for one in newest]


# Sections that no query gives.
_DERIVED: Mapping[str, Callable[[Connection, Filters, int], list[tuple[Any, ...]]]] = {"sessions": _sessions}


def _in_order(section: Section, found: Rows) -> list[tuple[Any, ...]]:
    places = [found.columns.index(column.name) for column in section.columns]
    return [tuple(row[place] for place in places) for row in found.rows]
