"""The console as an ASGI application: a literal table of addresses behind one guard."""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from aitrail.clock import Clock
from aitrail.store import boards as compiled
from aitrail.web.console import pages, pages_boards, pages_findings
from aitrail.web.console.boards import Boards
from aitrail.web.console.data import Data
from aitrail.web.console.explainer import Explainer
from aitrail.web.console.guard import Guard
from aitrail.web.console.login import Login
from aitrail.web.console.settings import ConsoleSettings
from aitrail.web.console.site import Page, Site, trouble_of

# Address -> what answers it; all of them only read.
PAGES: dict[str, Page] = {
    "/": pages_boards.home,
    "/board/{board}": pages_boards.board_page,
    "/board/{board}/{panel}.csv": pages_boards.panel_csv,
    "/board/{board}/{panel}": pages_boards.panel_page,
    "/api/panel/{board}/{panel}": pages_boards.panel_json,
    "/api/choices": pages.choices,
    "/events": pages.events_page,
    "/events.csv": pages.export_csv,
    "/events.json": pages.export_json,
    "/event/{event_id}.json": pages.event_json,
    "/event/{event_id}": pages.event_page,
    "/session/{event_id}": pages.session_page,
    "/findings": pages_findings.findings_page,
    "/findings.csv": pages_findings.findings_csv,
    "/finding/{finding_id}": pages_findings.finding_page,
    "/search": pages.search_page,
    "/health": pages_findings.health,
}


def build(data: Data, settings: ConsoleSettings, explainer: Explainer, clock: Clock) -> ASGIApp:
    """Make the application over one store for viewers with one content mode."""
    login = Login(settings.token, clock, secure=settings.secure) if settings.token else None
    site = Site(data, settings, explainer, Boards(compiled.load()), clock, login)
    routes = [Route(path, site.answers(page), methods=["GET"]) for path, page in PAGES.items()]
    routes.append(Route("/static/{name:path}", site.answers(_static), methods=["GET"]))
    routes.append(Route("/login", site.answers(pages_findings.login_page), methods=["GET"]))
    routes.append(Route("/logout", site.answers(pages_findings.logout), methods=["POST"]))

    async def enter(request: Request) -> Response:
        return await pages_findings.login_post(site, request)

    routes.append(Route("/login", enter, methods=["POST"]))

    def failed(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return site.trouble(request, trouble_of(error))

    application = Starlette(routes=routes, exception_handlers={HTTPException: failed})
    return Guard(
        application,
        names=settings.names,
        known=login.known if login is not None else None,
        secure=settings.secure,
    )


def _static(site: Site, request: Request) -> Response:
    return site.static.answer(request)
