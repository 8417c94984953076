"""The pages about single accesses: the list, one event, its session, exports, search."""

import re
from collections.abc import Iterator
from datetime import datetime
from itertools import groupby
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from aitrail.errors import ConfigError
from aitrail.event import AccessEvent
from aitrail.privacy.lower import HASHES, TEXTS
from aitrail.safetext import as_csv, as_json
from aitrail.schema.catalog import by_name, fields
from aitrail.schema.views.documents import GROUPS
from aitrail.store.queries import fetch
from aitrail.web.console import events, findings, search, shown
from aitrail.web.console.events import MAX_EXPORT, MAX_OFFSET, PAGE, SORTS
from aitrail.web.console.explainer import Explained
from aitrail.web.console.site import Site, not_found
from aitrail.web.console.view import BAR, NONE, View

_ID = re.compile(r"[0-9a-f]{32}")
_SESSION_SHOWN = 60
# Values that are of no use to look for others by.
_NOT_LINKED = frozenset({"event_id", "source_ref", "timestamp", "ingested_at", *TEXTS, "evidence", "prompt_chars",
    "response_chars", "truncated", "latency_ms", "first_token_ms", "cost_usd", "token_count", "prompt_tokens",
    "completion_tokens", "cached_tokens", "injection_score", "leakage_count", "ledger_index"})  # fmt: skip
_LINK_LENGTH = 300
_SEARCHED = "30d"
# Events of an export that are read and sent at once.
_BATCH = 2_000


def events_page(site: Site, request: Request) -> Response:
    """The list of events."""
    view = site.view(request)
    chosen = _chosen(site, view)
    sort, descending = _sorting(request)
    offset = min(_number(request, "offset"), MAX_OFFSET)
    found = site.data.remembered(
        ("events", chosen.sql, repr(chosen.values), sort, descending, offset),
        lambda one: events.page(one, chosen, sort=sort, descending=descending, offset=offset),
    )
    return site.page(
        request,
        "events.html",
        view=view,
        rows=found.rows,
        total=found.total,
        offset=offset,
        size=PAGE,
        most=MAX_OFFSET,
        most_exported=MAX_EXPORT,
        sort=sort,
        descending=descending,
        sorts=SORTS,
        chips=_chips(site, view),
        around=_around(site, view),
    )


def _around(site: Site, view: View) -> str:
    """Where an empty list could lead: the range in which there are events."""
    oldest, newest = site.data.oldest(), site.data.newest()
    if oldest is None or newest is None or view.range == "all":
        return ""
    return f"{oldest:%Y-%m-%d} to {newest:%Y-%m-%d}"


def export_csv(site: Site, request: Request) -> Response:
    """The chosen events as CSV, newest first, formulas disarmed."""
    batches = _exported(site, request)
    names = list(by_name())

    def body() -> Iterator[str]:
        yield as_csv(names, [])
        for rows in batches:
            # as_csv writes a head of its own; the lines of values follow it.
            yield as_csv([], [[row[name] for name in names] for row in rows]).partition("\n")[2]

    return _download(body(), "text/csv; charset=utf-8; header=present", "events.csv")


def export_json(site: Site, request: Request) -> Response:
    """The chosen events as a JSON array of their fields, newest first."""
    batches = _exported(site, request)

    def body() -> Iterator[str]:
        glue = "[\n"
        for rows in batches:
            kept = [{name: value for name, value in row.items() if value not in (None, "", [])} for row in rows]
            yield glue + ",\n".join(map(as_json, kept))
            glue = ",\n"
        yield "[]\n" if glue == "[\n" else "\n]\n"

    return _download(body(), "application/json", "events.json")


def _exported(site: Site, request: Request) -> Iterator[list[dict[str, Any]]]:
    """The rows of an export in batches; what is wrong with the question is known before the first byte is sent."""
    chosen = _chosen(site, site.view(request))
    ids = site.data.read(lambda one: events.export_ids(one, chosen))

    def batches() -> Iterator[list[dict[str, Any]]]:
        for start in range(0, len(ids), _BATCH):
            some = ids[start : start + _BATCH]
            yield site.data.read(lambda one, some=some: events.export_rows(one, some))  # type: ignore[misc]

    return batches()


def _download(body: Iterator[str], kind: str, name: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="aitrail-{name}"'}
    return StreamingResponse(body, 200, headers, kind)


def event_page(site: Site, request: Request) -> Response:
    """One event: fields, evidence, origin, session, findings."""
    found = _explained(site, request, raw="raw" in request.query_params)
    event = found.event
    row = _row(event)
    session = site.data.read(lambda one: events.session(one, row, _SESSION_SHOWN)).dicts()
    related = site.data.read(lambda one: findings.of_event(one, event.event_id))
    return site.page(
        request,
        "event.html",
        found=found,
        event=event,
        row=row,
        groups=_groups(event),
        session=session,
        session_full=len(session) >= _SESSION_SHOWN,
        findings=related,
    )


def event_json(site: Site, request: Request) -> Response:
    """One event as the viewer may see it, as JSON."""
    found = _explained(site, request, raw=False)
    return Response(as_json(msgspec.to_builtins(found.event)), media_type="application/json")


def session_page(site: Site, request: Request) -> Response:
    """The session of an event, turn by turn, with its texts and their evidence."""
    found = _explained(site, request, raw=False)
    row = _row(found.event)
    rows = site.data.read(lambda one: events.session(one, row)).dicts()
    offset = min(_number(request, "offset"), max(0, len(rows) - 1))
    shown_rows = rows[offset : offset + PAGE]
    turns = site.explainer.turns(site.data, [one["event_id"] for one in shown_rows])
    return site.page(
        request,
        "session.html",
        event=found.event,
        row=row,
        turns=turns,
        rows=rows,
        offset=offset,
        size=PAGE,
        full=len(rows) >= events.SESSION_LIMIT,
    )


def search_page(site: Site, request: Request) -> Response:
    """Everything that holds the words."""
    view = site.view(request, default=_SEARCHED)
    hits = None
    if view.words:
        hits = site.data.remembered(("search", repr(view)), lambda one: search.search(one, view))
        if len(hits.exact) == 1 and len(view.words) >= 12:
            kind, found = hits.exact[0]
            return RedirectResponse(f"/{kind}/{found}", 303)
    return site.page(
        request,
        "search.html",
        view=view,
        hits=hits,
        names=search.NAMES,
        most=search.EVENTS_SHOWN,
        default_range=_SEARCHED,
    )


def choices(site: Site, request: Request) -> Response:
    """Values of the filter bar's fields, for its suggestions."""
    del request

    def ask(connection: Any) -> dict[str, list[str]]:
        found = {}
        for name in ("tenant_id", "department", "model", "user_id"):
            sql = f"SELECT {name} FROM events GROUP BY ALL ORDER BY count(*) DESC, 1 LIMIT 200"  # noqa: S608
            found[name] = [shown.text(row[0]) or NONE for row in fetch(connection, sql).rows]
        return found

    return JSONResponse(site.data.remembered("choices", ask))


# --- parts


def _chosen(site: Site, view: View) -> events.Where:
    behind = site.boards.behind(view.panel, view.value, "events") if view.panel else None
    if view.panel and behind is None:
        raise ConfigError("there is no such panel", where="panel", hint="go back to the dashboard")
    return events.where(view, behind)


def _chips(site: Site, view: View) -> list[tuple[str, str, str]]:
    """What the list is narrowed by: label, value, the address without it."""
    found = [
        (name, shown.text(value) or NONE, view.without(name, value).query())
        for name, values in view.equal
        for value in values
        if name not in BAR or len(values) > 1  # the filter bar shows the others
    ]
    found += [(name.replace("_", " "), str(number), view.without(name).query()) for name, number in view.folds]
    if view.panel:
        found.append(("panel", site.boards.title(view.panel), view.without("panel").query()))
    if view.finding:
        found.append(("finding", shown.text(view.finding)[:12], view.without("finding").query()))
    if view.words:
        found.append(("words", shown.text(view.words), view.without("q").query()))
    return found


def _sorting(request: Request) -> tuple[str, bool]:
    sort = request.query_params.get("sort", "timestamp")
    if sort not in SORTS:
        raise ConfigError("this is no column to sort by", where="sort", hint=f"one of {', '.join(SORTS)}")
    return sort, request.query_params.get("order", "desc") != "asc"


def _number(request: Request, name: str) -> int:
    text = request.query_params.get(name, "0")
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ConfigError("a number is expected", where=name)
    return int(text)


def _explained(site: Site, request: Request, *, raw: bool) -> Explained:
    event_id = request.path_params["event_id"]
    found = site.explainer.event(site.data, event_id, raw=raw) if _ID.fullmatch(event_id) else None
    if found is None:
        raise not_found()
    return found


def _row(event: AccessEvent) -> dict[str, Any]:
    """The event as a row: what the session's question and the templates' filters take."""
    row = msgspec.structs.asdict(event)
    row["timestamp"] = datetime.fromisoformat(event.timestamp).replace(tzinfo=None)
    return row


def _groups(event: AccessEvent) -> list[tuple[str, list[dict[str, Any]]]]:
    """The fields that the event carries, as the catalog groups them; each value with a list of events like it."""
    carried = {**msgspec.to_builtins(event), "outcome_status": event.outcome_status}
    carried["principal_type"] = event.principal_type
    found = []
    for group, members in groupby(fields(), key=lambda field: field.group):
        rows = []
        for field in members:
            if field.name not in carried or field.name in (*TEXTS, "evidence"):
                continue
            value = carried[field.name]
            parts = value if isinstance(value, list | tuple) else [value]
            rows.append(
                {
                    "name": field.name,
                    "help": field.description,
                    "values": [(shown.text(part), _like(field.name, part)) for part in parts],
                    "mono": field.name in HASHES or field.name.endswith("_id") or field.kind == "ip",
                }
            )
        if rows:
            found.append((GROUPS.get(group, group).partition(" (")[0], rows))
    return found


def _like(name: str, value: Any) -> str:
    if name in _NOT_LINKED or value is None or len(str(value)) > _LINK_LENGTH:
        return ""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return "/events" + View(range="all").narrowed(**{name: text}).query()
