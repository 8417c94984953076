"""The dashboards as pages use them: which there are, what is behind a mark, and a panel's answer as JSON."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from aitrail.store import panels
from aitrail.store.boards import Board, Column, Panel
from aitrail.store.panels import PanelResult
from aitrail.web.console import shown
from aitrail.web.console.data import Data
from aitrail.web.console.events import Where
from aitrail.web.console.view import RANGES, View

# Lists show the beginning of a text.
_CELL = 280
_FOLDED = {"hour": "hour_of_day", "day": "day_of_week"}
_PAGES = {"events": "/events", "finding_records": "/findings"}


class Boards:
    """The shipped dashboards."""

    def __init__(self, listed: tuple[Board, ...]) -> None:
        self.listed = listed
        self._by_name = {board.name: board for board in listed}

    def get(self, name: str) -> Board | None:
        """The dashboard of that name."""
        return self._by_name.get(name)

    def panel(self, path: str) -> Panel | None:
        """The panel ``board/panel``."""
        name, _, panel = path.partition("/")
        board = self._by_name.get(name)
        return board.panel(panel) if board else None

    def title(self, path: str) -> str:
        """Title of the panel ``board/panel``; empty when there is none."""
        found = self.panel(path)
        return found.title if found else ""

    def behind(self, path: str, value: str, relation: str) -> Where | None:
        """Condition for the rows of ``relation`` behind a panel (and one of its values); None without such a panel."""
        panel = self.panel(path)
        if panel is None or panel.behind is None or panel.behind.relation != relation:
            return None
        if value and value not in {column.name for column in panel.columns if column.role == "value"}:
            return None
        parts = [text for text in (panel.behind.where, panel.behind.values.get(value, "")) if text]
        return Where(" AND ".join(parts) or "true", {})


def default_range(board: Board) -> str:
    """The range that a dashboard shows first."""
    return next((name for name, (_, seconds) in RANGES.items() if seconds == board.range), "7d")


def bounds(data: Data, view: View) -> tuple[datetime, datetime]:
    """The range of a view with both ends: those of the store where it has none."""
    since = view.since or data.oldest() or data.now() - timedelta(days=1)
    newest = data.newest()
    until = view.until or (newest + timedelta(seconds=1) if newest else data.now())
    return since, max(until, since + timedelta(seconds=1))


def answer(data: Data, path: str, panel: Panel, view: View) -> PanelResult:
    """Run a panel for a view; the same question is asked once as long as the store stays the same."""
    since, until = bounds(data, view)
    filters: Mapping[str, tuple[str, ...]] = dict(view.bar.equal)
    key = ("panel", path, since, until, view.bar.equal)
    return data.remembered(key, lambda connection: panels.run(connection, panel, filters, since, until))


def base_link(path: str, panel: Panel, view: View) -> str:
    """Where a click on a panel leads before what was clicked is added; empty when it leads nowhere."""
    if panel.drill is not None and panel.drill.to not in ("events", ""):
        return f"/board/{panel.drill.to}{view.bar.query()}"
    page = _PAGES.get(panel.behind.relation, "") if panel.behind else ""
    return page + view.bar.query(panel=path) if page else ""


def picked(panel: Panel, result: PanelResult, row: tuple[Any, ...], view: View) -> dict[str, str | None]:
    """What a click on a row adds to ``base_link``: its dimensions, its time."""
    carry = panel.drill.carry if panel.drill else ()
    found: dict[str, str | None] = {}
    for column, value in zip(result.columns, row, strict=True):
        if column.role == "time" and isinstance(value, datetime):
            first, last = max(value, view.since or value), value + timedelta(seconds=result.bucket_seconds)
            last = min(last, view.until) if view.until else last
            found |= {"range": None, "since": first.isoformat(), "until": last.isoformat()}
        elif column.role in _FOLDED and value is not None:
            found[_FOLDED[column.role]] = str(int(value))
        elif column.role == "dimension" and column.name in carry:
            name = "rule" if panel.dataset == "finding" and column.name == "rule_name" else column.name
            found[name] = str(value) or "(none)"
    return found


def row_link(path: str, panel: Panel, result: PanelResult, row: tuple[Any, ...], view: View) -> str:
    """Where a row leads: its event or finding, or the list of what it counts; empty when it leads nowhere."""
    for column, value in zip(result.columns, row, strict=True):
        if column.role == "id":
            return f"/{'finding' if panel.dataset == 'finding' else 'event'}/{value}"
    page = _PAGES.get(panel.behind.relation, "") if panel.behind else ""
    if not page:
        return ""
    return page + view.bar.query(panel=path, **picked(panel, result, row, view))


def as_json(path: str, panel: Panel, result: PanelResult, view: View) -> dict[str, Any]:
    """A panel's answer for the page's script. Texts are clean; ``raws`` gives back what a link has to say for them."""
    raws: dict[str, str] = {}
    rows = [
        [_cell(column, value, raws) for column, value in zip(result.columns, row, strict=True)] for row in result.rows
    ]
    carry = panel.drill.carry if panel.drill else ()
    return {
        "form": panel.form,
        "title": panel.title,
        "columns": [
            {"name": one.name, "role": one.role, "label": one.label, "unit": one.unit, "kind": one.kind}
            for one in result.columns
        ],
        "rows": rows,
        "truncated": result.truncated,
        "value": panel.value or next((one.name for one in result.columns if one.role == "value"), ""),
        "stacked": panel.stacked,
        "tone": panel.tone,
        "thresholds": list(panel.thresholds),
        "empty": panel.empty,
        "bucket": result.bucket_seconds * 1000,
        "trend": {
            "columns": list(result.trend_columns),
            "rows": [[_plain(one) for one in row] for row in result.trend],
        },
        "before": _plain(result.before),
        "ignored": list(result.ignored),
        "present": result.present_state,
        "milliseconds": result.milliseconds,
        "since": _plain(view.since),
        "until": _plain(view.until),
        "link": base_link(path, panel, view),
        "item": "/finding/" if panel.dataset == "finding" else "/event/",
        "carry": [_parameter(panel, name) for name in carry],
        "fields": list(carry),
        "valued": sorted(panel.behind.values) if panel.behind else [],
        "raws": raws,
    }


def _parameter(panel: Panel, name: str) -> str:
    return "rule" if panel.dataset == "finding" and name == "rule_name" else name


def _cell(column: Column, value: Any, raws: dict[str, str]) -> Any:
    if isinstance(value, str) and column.role in ("dimension", "field"):
        if column.kind == "time" and value:
            return value[:19].replace("T", " ")
        text = shown.flat(value) if column.kind == "text" else shown.text(value)
        if column.role == "field" and len(text) > _CELL:
            text = text[:_CELL] + "…"
        if text != value and column.role == "dimension":
            raws[text] = value
        return text
    if isinstance(value, datetime) and column.role == "field":
        return shown.moment(value)
    if isinstance(value, list | tuple):
        return shown.text(value)[:_CELL]
    return _plain(value)


def _plain(value: Any) -> Any:
    """A value as JSON has it: times are milliseconds since the epoch, what is no number is none."""
    if isinstance(value, datetime):
        return round(value.replace(tzinfo=UTC).timestamp() * 1000)
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, float) and not -1e308 < value < 1e308:
        return None
    return str(value) if isinstance(value, date | bytes) else value
