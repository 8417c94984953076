"""The generated page about dashboards: every page, every panel, what each answers."""

from aitrail.store.boards import Board, Panel, load

_HEAD = "| panel | form | how to read it | when it is empty |\n|---|---|---|---|\n"
_DATA = {"access": "", "finding": "findings", "health": "health reports"}


def dashboards_page() -> str:
    """docs/dashboards.md."""
    boards = load()
    parts = [
        "# Dashboards\n\n",
        f"{len(boards)} pages with {sum(len(board.panels) for board in boards)} panels, written once in ",
        "`content/dashboards` (its README says how) and drawn as Splunk Dashboard Studio, Sentinel workbooks, Kibana ",
        "dashboards and in the local console. What a panel measures is written in the language of ",
        "[dashboards-model.md](dashboards-model.md).\n\n",
        "Every page can be narrowed by time, tenant, department, model and user; findings have a tenant and a user, ",
        "reports on health neither. Times are UTC. A click leads to the events behind the mark unless the table names ",
        "a page. In the local console the health of collectors is the present state, in a SIEM their reports over the ",
        "range.\n",
    ]
    for board in boards:
        parts += _board(board)
    return "".join(parts)


def _board(board: Board) -> list[str]:
    parts = [f"\n## {board.number} {board.title}\n\n{board.description}\n"]
    for section in board.sections:
        parts.append(f"\n### {section.title}\n\n{_HEAD}")
        parts += [_row(panel) for panel in section.panels]
    return parts


def _row(panel: Panel) -> str:
    goal = panel.drill.to if panel.drill else ""
    marks = [
        f"of {_DATA[panel.dataset]}" if _DATA[panel.dataset] else "",
        f"leads to `{goal}`" if goal not in ("", "events") else "",
        _colours(panel),
    ]
    notes = "; ".join(mark for mark in marks if mark)
    return f"| {panel.title}{f' ({notes})' if notes else ''} | {panel.form} | {panel.help} | {panel.empty} |\n"


def _colours(panel: Panel) -> str:
    if not panel.thresholds:
        return ""
    percent = any(column.name == panel.value and column.unit == "%" for column in panel.columns)
    first, second = (f"{number:.0%}" if percent else f"{number:,.0f}" for number in panel.thresholds)
    return f"warning {'from' if panel.tone == 'good_low' else 'below'} {first}, alarm {second}"
