"""The pages about findings of detection rules, and the log-in."""

import re

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from aitrail.errors import ConfigError
from aitrail.safetext import as_csv
from aitrail.streams import SEVERITIES
from aitrail.web.console import findings, shown
from aitrail.web.console.site import Site, Trouble, not_found
from aitrail.web.console.view import View

_ID = re.compile(r"[0-9a-f]{32}")
_COLUMNS = ("severity", "title", "summary", "user_id", "tenant_id", "entities", "events", "first_seen", "last_seen",
    "risk_score", "rule", "event_id")  # fmt: skip
PHASES = {
    "validate": "Is it real?",
    "contain": "Stop the damage",
    "investigate": "Find out how far it went",
    "remediate": "Close the hole",
}


def findings_page(site: Site, request: Request) -> Response:
    """The list of findings."""
    view = site.view(request, default="30d")
    severities, rule, sort = _chosen(request)
    behind = _behind(site, view)
    unfiltered = findings.where(view, [], rule, behind)
    chosen = findings.where(view, severities, rule, behind)
    counts = site.data.read(lambda one: findings.counts(one, unfiltered))
    rows = site.data.read(lambda one: findings.listed(one, chosen, sort)).dicts()
    return site.page(
        request,
        "findings.html",
        view=view,
        rows=rows,
        counts=counts,
        severities=severities,
        rule=rule,
        sort=sort,
        sorts=findings.SORTS,
        panel=site.boards.title(view.panel) if view.panel else "",
        most=findings.LIMIT,
        default_range="30d",
    )


def findings_csv(site: Site, request: Request) -> Response:
    """The chosen findings as CSV, formulas disarmed."""
    view = site.view(request, default="30d")
    severities, rule, sort = _chosen(request)
    chosen = findings.where(view, severities, rule, _behind(site, view))
    rows = site.data.read(lambda one: findings.listed(one, chosen, sort, limit=10_000)).dicts()
    body = as_csv(_COLUMNS, [[row[name] for name in _COLUMNS] for row in rows])
    headers = {"Content-Disposition": 'attachment; filename="aitrail-findings.csv"'}
    return Response(body, 200, headers, "text/csv; charset=utf-8; header=present")


def finding_page(site: Site, request: Request) -> Response:
    """One finding: what it means, whom it is about, its events, what to do."""
    finding_id = request.path_params["finding_id"]
    found = site.explainer.finding(site.data, finding_id) if _ID.fullmatch(finding_id) else None
    if found is None:
        raise not_found()
    return site.page(
        request,
        "finding.html",
        finding=found,
        phases=PHASES,
        entities=[_entity(one) for one in found["entities"]],
        all_events="/events" + View(range="all", finding=finding_id).query(),
    )


def _behind(site: Site, view: View) -> str:
    """The condition of the panel that was clicked; empty without one."""
    if not view.panel:
        return ""
    found = site.boards.behind(view.panel, view.value, "finding_records")
    if found is None:
        raise ConfigError("there is no such panel", where="panel", hint="go back to the dashboard")
    return found.sql


def _chosen(request: Request) -> tuple[list[str], str, str]:
    severities: list[str] = [one for one in request.query_params.getlist("severity") if one in SEVERITIES]
    sort = request.query_params.get("sort", "severity")
    if sort not in findings.SORTS:
        raise ConfigError("this is no column to sort by", where="sort", hint=f"one of {', '.join(findings.SORTS)}")
    return severities, request.query_params.get("rule", "").strip()[:200], sort


# Kinds of entities (content/detections) that are a field of the event.
_ENTITY_FIELDS = {
    "user": "user_id",
    "ip": "src_ip",
    "model": "model",
    "session": "session_id",
    "app": "app",
    "application": "app",
    "role": "role",
    "resource": "resource_id",
    "credential": "credential_id",
    "department": "department",
    "account": "cloud_account",
    "host": "src_host",
    "agent": "agent",
    "tenant": "tenant_id",
}


def _entity(text: str) -> tuple[str, str, str]:
    """Kind, value and the list of its events (empty when it is no field)."""
    kind, _, value = text.partition(":")
    field = _ENTITY_FIELDS.get(kind, "")
    link = "/events" + View(range="all").narrowed(**{field: value}).query() if field and value else ""
    return shown.text(kind), shown.text(value), link


# --- log-in


def login_page(site: Site, request: Request) -> Response:
    """The form; who is logged in, or need not, goes on."""
    if site.login is None or site.login.known(request):
        return RedirectResponse("/", 303)
    return site.page(request, "login.html", bare=True, wrong=False)


async def login_post(site: Site, request: Request) -> Response:
    """Take a token. A wrong one costs time: each further try from an address waits twice as long."""
    login = site.login
    if login is None:
        return RedirectResponse("/", 303)
    address = request.client.host if request.client else ""
    wait = login.wait(address)
    if wait > 0:
        trouble = Trouble(429, "Too many wrong tokens", f"Wait {int(wait) + 1} seconds, then try again.")
        answer = site.page(request, "error.html", 429, bare=True, trouble=trouble)
        answer.headers["Retry-After"] = str(int(wait) + 1)
        return answer
    token = await _posted_token(request)
    answer_in = RedirectResponse("/", 303)
    if login.enter(token, address, answer_in):
        return answer_in
    return site.page(request, "login.html", 401, bare=True, wrong=True)


async def _posted_token(request: Request) -> str:
    """The form's one field; a body that is larger than any token is none."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > 4096:
            return ""
    from urllib.parse import parse_qs  # noqa: PLC0415  (here alone)

    try:
        return parse_qs(body.decode("utf-8", "replace"), max_num_fields=5).get("token", [""])[0]
    except ValueError:  # more fields than the form has
        return ""


def logout(site: Site, request: Request) -> Response:
    """End the session."""
    answer = RedirectResponse("/login", 303)
    if site.login is not None:
        site.login.leave(request, answer)
    return answer


def health(site: Site, request: Request) -> Response:
    """Whether the store can be read."""
    del request
    return JSONResponse({"status": "ok", "events": site.data.total()})
