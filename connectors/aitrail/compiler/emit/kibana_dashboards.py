"""The six pages as Kibana dashboards: what stands where, what they are filtered by, and how they lead to one another.

Facts (package-spec, semantic rules SVR00001 to SVR00004): a dashboard has a filter, its visualizations are by value,
and every reference of a panel is one of the dashboard, named after the panel. The grid has 48 columns.
"""

from typing import Any

from aitrail.compiler.boards import label
from aitrail.compiler.dashboard import GRID_COLUMNS, Dashboard, Panel
from aitrail.compiler.dialects.esql import column
from aitrail.compiler.emit.kibana_lens import lens
from aitrail.compiler.emit.kibana_links import actions
from aitrail.compiler.emit.kibana_objects import (
    OWN_VIEW,
    TAG,
    Json,
    Saved,
    dashboard_id,
    identity,
    reference,
)
from aitrail.schema.catalog import FieldInfo
from aitrail.streams import STREAMS

COLUMNS = 48
_WIDER = COLUMNS // GRID_COLUMNS
_HIGHER = 3
_ROWS_OF = {"links": 2, "reading": 7, "heading": 3}
_OPTIONS = {
    "hidePanelTitles": False,
    "syncColors": True,
    "syncCursor": True,
    "syncTooltips": False,
    "useMargins": True,
}


class _Page:
    """Panels and references while a page is laid out, from the top."""

    def __init__(self, of: Dashboard) -> None:
        self.of = of
        self.panels: list[Json] = []
        self.references: list[Json] = []
        self.down = 0

    def put(self, name: str, kind: str, config: Json, place: tuple[int, int, int, int], needs: list[Json]) -> None:
        across, down, width, height = place
        index = identity(self.of.name, name)
        self.panels.append(
            {
                "embeddableConfig": config,
                "gridData": {"h": height, "i": index, "w": width, "x": across, "y": down},
                "panelIndex": index,
                "type": kind,
            }
        )
        self.references += [{**one, "name": f"{index}:{one['name']}"} for one in needs]

    def row(self, name: str, kind: str, config: Json, height: int, needs: list[Json]) -> None:
        self.put(name, kind, config, (0, self.down, COLUMNS, height), needs)
        self.down += height


def dashboard(of: Dashboard, pages: tuple[Dashboard, ...], view: str = OWN_VIEW) -> Saved:
    """One page.

    Args:
        of: the page.
        pages: all pages, for the links between them.
        view: id of the data view over all kinds of events.
    """
    page = _Page(of)
    page.row("links", "links", *_links(of, pages))
    page.row("reading", "visualization", markdown(_reading(of)), _ROWS_OF["reading"], [])
    for place, section in enumerate(of.sections):
        page.row(f"section-{place}", "visualization", markdown(f"### {section.title}"), _ROWS_OF["heading"], [])
        across = 0
        height = 0
        for panel in section.panels:
            if across + panel.width > GRID_COLUMNS:
                page.down, across = page.down + height, 0
            height = panel.height * _HIGHER
            where = (across * _WIDER, page.down, panel.width * _WIDER, height)
            page.put(panel.id, *_panel(of, panel, view, where))
            across += panel.width
        page.down += height
    controls, needed = _controls(of, view)
    index = "kibanaSavedObjectMeta.searchSourceJSON.filter[0].meta.index"
    attributes: Json = {
        "controlGroupInput": controls,
        "description": of.description,
        "kibanaSavedObjectMeta": {"searchSourceJSON": {"filter": [_kinds(of, index)], "query": _query()}},
        "optionsJSON": _OPTIONS,
        "panelsJSON": page.panels,
        "timeFrom": f"now-{of.range // 3600}h",
        "timeRestore": True,
        "timeTo": "now",
        "title": title(of),
        "version": 1,
    }
    references = [
        reference("index-pattern", index, view),
        *needed,
        reference("tag", f"tag-ref-{TAG}", TAG),
        *page.references,
    ]
    return Saved("dashboard", dashboard_id(of.name), attributes, tuple(references))


def title(of: Dashboard) -> str:
    """The page's title: in Kibana's list of all dashboards it says whose it is."""
    return f"[aitrail] {of.number} {of.title}"


def views() -> list[Saved]:
    """The data view and the tag that an import file brings along."""
    attributes = {
        "allowHidden": False,
        "name": "aitrail: accesses to AI systems",
        "timeFieldName": "@timestamp",
        "title": "logs-ai_audit.*",
    }
    tag = {"color": "#2f6fd6", "description": "Dashboards and hunts of aitrail", "name": "aitrail"}
    return [Saved("index-pattern", OWN_VIEW, attributes), Saved("tag", TAG, tag)]


def markdown(text: str) -> Json:
    """A panel of text, by value."""
    search = {"filter": [], "query": _query()}
    params = {"fontSize": 12, "markdown": text, "openLinksInNewTab": False}
    saved = {
        "data": {"aggs": [], "searchSource": search},
        "description": "",
        "params": params,
        "title": "",
        "type": "markdown",
        "uiState": {},
    }
    return {"enhancements": {}, "hidePanelTitles": True, "savedVis": saved}


def _reading(of: Dashboard) -> str:
    signs = (
        "The sign beside a panel's title says how to read it, and what it means when it is empty. The menu of a panel"
        " leads to its events; a click on a value filters the page."
    )
    return f"{of.description.strip()}\n\n{signs}"


def _links(of: Dashboard, pages: tuple[Dashboard, ...]) -> tuple[Json, int, list[Json]]:
    listed, needs = [], []
    for place, page in enumerate(pages):
        link = identity(of.name, "link", page.name)
        name = f"link_{link}_dashboard"
        listed.append(
            {
                "destinationRefName": name,
                "id": link,
                "label": f"{page.number} {page.title.partition(':')[0]}",
                "options": {"openInNewTab": False, "useCurrentDateRange": True, "useCurrentFilters": True},
                "order": place,
                "type": "dashboardLink",
            }
        )
        needs.append(reference("dashboard", name, dashboard_id(page.name)))
    config = {"attributes": {"layout": "horizontal", "links": listed}, "enhancements": {}, "hidePanelTitles": True}
    return config, _ROWS_OF["links"], needs


def _panel(
    of: Dashboard, panel: Panel, view: str, where: tuple[int, int, int, int]
) -> tuple[str, Json, tuple[int, int, int, int], list[Json]]:
    if panel.query is None:
        return "visualization", markdown(panel.text), where, []
    events, needs = actions(of.name, panel, view)
    config: Json = {"attributes": lens(panel), "enhancements": {"dynamicActions": {"events": events}}}
    return "lens", config, where, needs


def _query() -> Json:
    return {"language": "kuery", "query": ""}


def _kinds(of: Dashboard, index: str) -> Json:
    """The page's own filter: the kinds of events that it shows."""
    used = {panel.query.dataset for panel in of.panels if panel.query}
    values = [f"ai_audit.{stream}" for stream in STREAMS if stream in used]
    field = "data_stream.dataset"
    return {
        "$state": {"store": "appState"},
        "meta": {
            "alias": None,
            "disabled": False,
            "field": field,
            "indexRefName": index,
            "key": field,
            "negate": False,
            "params": values,
            "type": "phrases",
        },
        "query": {"bool": {"minimum_should_match": 1, "should": [{"match_phrase": {field: one}} for one in values]}},
    }


def _controls(of: Dashboard, view: str) -> tuple[Json, list[Json]]:
    panels: dict[str, Any] = {}
    needs = []
    for place, field in enumerate(of.filters):
        name = identity(of.name, "control", field.name)
        panels[name] = _control(field, name, place)
        needs.append(reference("index-pattern", f"controlGroup_{name}:optionsListDataView", view))
    never = dict.fromkeys(("ignoreFilters", "ignoreQuery", "ignoreTimerange", "ignoreValidations"), False)
    group = {
        "chainingSystem": "HIERARCHICAL",
        "controlStyle": "oneLine",
        "ignoreParentSettingsJSON": never,
        "panelsJSON": panels,
        "showApplySelections": False,
    }
    return group, needs


def _control(field: FieldInfo, name: str, place: int) -> Json:
    chosen = {
        "dataViewRefName": f"controlGroup_{name}:optionsListDataView",
        "exclude": False,
        "existsSelected": False,
        "fieldName": column(field),
        "id": name,
        "searchTechnique": "wildcard",
        "selectedOptions": [],
        "singleSelect": False,
        "sort": {"by": "_count", "direction": "desc"},
        "title": label(field.name),
    }
    return {"explicitInput": chosen, "grow": True, "order": place, "type": "optionsListControl", "width": "medium"}
