"""The dashboards: the shell of a page, each panel's answer, and both as plain tables."""

from datetime import datetime
from typing import Any

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from aitrail.errors import AitrailError
from aitrail.safetext import as_csv
from aitrail.store.boards import Board, Column, Panel
from aitrail.store.panels import PanelResult
from aitrail.web.console import shown
from aitrail.web.console.boards import answer, as_json, default_range, row_link
from aitrail.web.console.site import Site, not_found
from aitrail.web.console.view import NONE, View


class TableColumn(Struct, frozen=True):
    """A column of a panel as a table; ``place`` is where its values are in the rows."""

    label: str
    unit: str
    number: bool
    place: int


class PanelTable(Struct, frozen=True):
    """A panel as a table; ``failed`` says why it is none."""

    id: str
    title: str
    help: str
    empty: str
    columns: list[TableColumn] = []
    rows: list[tuple[list[Any], str]] = []
    failed: str = ""


def home(site: Site, request: Request) -> Response:
    """The first dashboard."""
    del request
    return RedirectResponse(f"/board/{site.boards.listed[0].name}", 303)


def board_page(site: Site, request: Request) -> Response:
    """The shell of a dashboard: everything but numbers, so that it is there at once."""
    board = _board(site, request)
    view = site.view(request, default=default_range(board))
    if "tables" in request.query_params:
        tables = [_table(site, board, panel, view) for panel in board.panels if panel.form != "text"]
        return _tables(site, request, board, board.title, tables)
    fixed = view.fixed().bar.query()
    return site.page(
        request,
        "board.html",
        board=board,
        sections=[(section.title, section.panels) for section in board.sections],
        view=view,
        fixed=fixed,
        default_range=default_range(board),
        tables=f"/board/{board.name}{view.bar.query(tables=1)}",
    )


def panel_json(site: Site, request: Request) -> Response:
    """One panel's answer."""
    board, panel, view = _asked(site, request)
    path = f"{board.name}/{panel.id}"
    result = answer(site.data, path, panel, view)
    return JSONResponse(as_json(path, panel, result, view))


def panel_page(site: Site, request: Request) -> Response:
    """One panel as a table."""
    board, panel, view = _asked(site, request)
    return _tables(site, request, board, panel.title, [_table(site, board, panel, view)])


def panel_csv(site: Site, request: Request) -> Response:
    """One panel as CSV, formulas disarmed."""
    board, panel, view = _asked(site, request)
    result = answer(site.data, f"{board.name}/{panel.id}", panel, view)
    body = as_csv([column.name for column in result.columns], result.rows)
    headers = {"Content-Disposition": f'attachment; filename="aitrail-{board.name}-{panel.id}.csv"'}
    return Response(body, 200, headers, "text/csv; charset=utf-8; header=present")


def _board(site: Site, request: Request) -> Board:
    board = site.boards.get(request.path_params["board"])
    if board is None:
        raise not_found()
    return board


def _asked(site: Site, request: Request) -> tuple[Board, Panel, View]:
    board = _board(site, request)
    panel = board.panel(request.path_params["panel"])
    if panel is None or panel.form == "text":
        raise not_found()
    return board, panel, site.view(request, default=default_range(board))


def _tables(site: Site, request: Request, board: Board, heading: str, tables: list[PanelTable]) -> Response:
    view = site.view(request, default=default_range(board))
    return site.page(
        request,
        "tables.html",
        board=board,
        heading=heading,
        tables=tables,
        view=view,
        default_range=default_range(board),
    )


def _table(site: Site, board: Board, panel: Panel, view: View) -> PanelTable:
    path = f"{board.name}/{panel.id}"
    empty = PanelTable(panel.id, panel.title, panel.help, panel.empty)
    try:
        result = answer(site.data, path, panel, view)
    except AitrailError as error:  # one that fails must not hide the others
        return PanelTable(panel.id, panel.title, panel.help, panel.empty, failed=str(error).splitlines()[0])
    if result.empty:
        return empty
    columns = [
        TableColumn(column.label, column.unit, column.role == "value", place)
        for place, column in enumerate(result.columns)
        if column.role != "id"
    ]
    rows = [
        ([_shown(result.columns[one.place], row[one.place]) for one in columns], _link(path, panel, result, row, view))
        for row in result.rows
    ]
    return PanelTable(panel.id, panel.title, panel.help, panel.empty, columns, rows)


def _link(path: str, panel: Panel, result: PanelResult, row: tuple[Any, ...], view: View) -> str:
    return row_link(path, panel, result, row, view)


def _shown(column: Column, value: Any) -> Any:
    if column.role == "value":
        return value
    if isinstance(value, datetime):
        return shown.moment(value)
    if column.role == "dimension" and value in ("", None):
        return NONE
    return shown.text(value)
