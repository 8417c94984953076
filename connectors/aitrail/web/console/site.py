"""What all pages share: the store, the settings, the templates, and how an error looks."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import structlog
from jinja2 import Environment, PackageLoader, StrictUndefined
from msgspec import Struct
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from aitrail import __version__
from aitrail.clock import Clock
from aitrail.errors import AitrailError, ConfigError
from aitrail.web.console import shown
from aitrail.web.console.boards import Boards
from aitrail.web.console.data import Data, TooMuchError
from aitrail.web.console.explainer import Explainer
from aitrail.web.console.login import Login
from aitrail.web.console.settings import ConsoleSettings
from aitrail.web.console.static_files import StaticFiles
from aitrail.web.console.view import RANGES, View, read_view

_log = structlog.get_logger("aitrail.console")
Page = Callable[["Site", Request], Response]


class Trouble(Struct, frozen=True):
    """An error as a page shows it."""

    status: int
    title: str
    message: str
    hint: str = ""


_NOT_FOUND = Trouble(404, "Not here", "There is nothing under this address.", "It may have reached its retention.")


class Site:
    """Everything that answers a request."""

    def __init__(
        self,
        data: Data,
        settings: ConsoleSettings,
        explainer: Explainer,
        boards: Boards,
        clock: Clock,
        login: Login | None,
    ) -> None:
        self.data = data
        self.settings = settings
        self.explainer = explainer
        self.boards = boards
        self.login = login
        self.clock = clock
        self.static = StaticFiles()
        self._templates = Environment(
            loader=PackageLoader("aitrail.web.console"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(shown.FILTERS)
        self._templates.globals.update(
            asset=self.static.url,
            version=__version__,
            marked=shown.marked,
            snippet=shown.snippet,
            tag_name=explainer.tag_name,
            boards=boards.listed,
            ranges=RANGES,
            mode=settings.content,
            login=login is not None,
        )

    def view(self, request: Request, default: str = "7d") -> View:
        """What a request looks at; raises ``ConfigError`` when that makes no sense."""
        return read_view(request.query_params.multi_items(), now=self.now(), newest=self.data.newest(), default=default)

    def now(self) -> datetime:
        """Now, naive UTC."""
        return self.data.now()

    def page(self, request: Request, template: str, status: int = 200, /, **values: Any) -> HTMLResponse:
        """Render a page of the site."""
        base: dict[str, Any] = {
            "path": request.url.path,
            "view": View(),
            "default_range": "7d",
            "bare": False,
            "store": shown.text(str(self.data.directory)),
        }
        return HTMLResponse(self._templates.get_template(template).render(base | values), status)

    def answers(self, page: Page) -> Callable[[Request], Response]:
        """Make an endpoint of a page: what goes wrong in it becomes a page (or JSON) that says so."""

        def endpoint(request: Request) -> Response:
            try:
                return page(self, request)
            except HTTPException as error:
                return self.trouble(request, trouble_of(error))
            except AitrailError as error:
                return self.trouble(request, _explained(error))
            except Exception as error:  # noqa: BLE001  (a bug in one page must not end the others, nor print content)
                _log.error("a page failed", page=page.__name__, error=type(error).__name__, at=_place(error))
                return self.trouble(request, Trouble(500, "This page failed", "It is a bug of aitrail."))

        return endpoint

    def trouble(self, request: Request, what: Trouble) -> Response:
        """Answer with an error."""
        if request.url.path.startswith("/api/"):
            body = {"error": shown.text(what.message), "hint": shown.text(what.hint)}
            return JSONResponse(body, what.status)
        return self.page(request, "error.html", what.status, trouble=what)


def not_found() -> HTTPException:
    """What a page raises for an id that the store does not hold."""
    return HTTPException(404)


def trouble_of(error: HTTPException) -> Trouble:
    """How an error of the web framework looks."""
    if error.status_code == 404:
        return _NOT_FOUND
    return Trouble(error.status_code, "This cannot be answered", error.detail)


def _explained(error: AitrailError) -> Trouble:
    if isinstance(error, ConfigError):
        return Trouble(400, "This question makes no sense", str(error), error.hint)
    if isinstance(error, TooMuchError):
        return Trouble(503, "This is too much at once", str(error), error.hint)
    return Trouble(500, "The store cannot be read", str(error).splitlines()[0], error.hint)


def _place(error: BaseException) -> str:
    """File and line of an error; its text may quote what a record holds."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
