"""Where a click on a Kibana panel leads: the events behind a number in Discover, or another page.

A URL drilldown is a Handlebars template (Kibana guide, "URL drilldown"). What it puts in - what was clicked, the page's
filters and time range - comes from events and people, so it never stands in the address as it is: it is quoted for KQL
by ``json``, for the state by ``rison`` and for the address by ``encodeURIComponent``. Kibana must not encode the
address a second time (``encodeUrl``).

Every panel has the link in its menu. It carries the page's filters, and so what was clicked before; of a bar and of a
slice the value itself can be followed, because there the first point of a click is the dimension. "(none)" leads to no
event, as nothing holds it.
"""

from urllib.parse import quote

from aitrail.compiler.dashboard import Drill, Panel
from aitrail.compiler.dialects import kuery
from aitrail.compiler.dialects.esql import column
from aitrail.compiler.dialects.scope import wire
from aitrail.compiler.emit.kibana_objects import Json, dashboard_id, identity, reference
from aitrail.compiler.metric import Dataset, Listing, catalog

DASHBOARD, URL = "DASHBOARD_TO_DASHBOARD_DRILLDOWN", "URL_DRILLDOWN"
MENU, CLICK, FILTER = "CONTEXT_MENU_TRIGGER", "VALUE_CLICK_TRIGGER", "FILTER_TRIGGER"
_FOLLOWED = ("bar", "pie")
# What Discover shows of an event.
_SHOWN: dict[Dataset, tuple[str, ...]] = {
    "access": ("user_id", "app", "model", "action", "outcome_status", "injection_tier", "leakage_types", "prompt_text"),
    "finding": ("severity", "rule_name", "user_id", "summary", "evidence_count"),
    "health": ("collector", "kind", "name", "status", "reason", "lag_seconds"),
}


def actions(page: str, panel: Panel, view: str) -> tuple[list[Json], list[Json]]:
    """The panel's drilldowns and the references that they need, named without the panel."""
    drill = panel.drill
    if drill is None or panel.query is None:
        return [], []
    if drill.to != "events":
        return _page(page, panel, drill)
    events = [_url(page, panel.id, MENU, "Show the events", discover(panel, view))]
    if panel.form in _FOLLOWED and not isinstance(panel.query, Listing):
        events.append(_url(page, panel.id, CLICK, "Show the events of this value", discover(panel, view, clicked=True)))
    return events, []


def _page(page: str, panel: Panel, drill: Drill) -> tuple[list[Json], list[Json]]:
    """To another page, with the filters and the time range; what cannot be clicked has it in its menu."""
    if panel.form == "single":
        target = f"{{{{kibanaUrl}}}}/app/dashboards#/view/{dashboard_id(drill.to)}?_g=({_time()})&_a=({_filters()})"
        return [_url(page, panel.id, MENU, "Open the page behind it", target)], []
    event = identity(page, panel.id, DASHBOARD)
    action = {
        "config": {"openInNewTab": False, "useCurrentDateRange": True, "useCurrentFilters": True},
        "factoryId": DASHBOARD,
        "name": "Open the page behind it",
    }
    name = f"drilldown:{DASHBOARD}:{event}:dashboardId"
    return [{"action": action, "eventId": event, "triggers": [FILTER]}], [
        reference("dashboard", name, dashboard_id(drill.to))
    ]


def _url(page: str, panel: str, trigger: str, name: str, template: str) -> Json:
    return {
        "action": {
            "config": {"encodeUrl": False, "openInNewTab": True, "url": {"template": template}},
            "factoryId": URL,
            "name": name,
        },
        "eventId": identity(page, panel, URL, trigger),
        "triggers": [trigger],
    }


def discover(panel: Panel, view: str, *, clicked: bool = False) -> str:
    """The address of the events: of the panel's condition, the page's filters, and the value that was clicked."""
    assert panel.query is not None
    query = panel.query
    parts = [f'data_stream.dataset: "ai_audit.{query.dataset}"']
    if query.where is not None:
        parts.append(kuery.render(wire(query.where, query.dataset)))
    text = " and ".join(parts)
    if clicked and not isinstance(query, Listing):
        field = column(query.by[0])
        # A literal of Handlebars ends at an apostrophe, and takes a backslash as it is.
        if "'" in text:
            raise ValueError(f"{panel.id}: a condition with an apostrophe cannot stand in a template")
        shown = f"{{{{encodeURIComponent (rison (concat '{text} and {field}: ' (json event.value)))}}}}"
    else:
        shown = quote(_rison(text), safe="")
    known = catalog(query.dataset)
    columns = ",".join(quote(_rison(column(known[name])), safe="") for name in _SHOWN[query.dataset])
    state = f"dataSource:(dataViewId:{quote(_rison(view), safe='')},type:dataView),columns:!({columns})"
    return (
        f"{{{{kibanaUrl}}}}/app/discover#/?_g=({_time()})"
        f"&_a=({state},{_filters()},query:(language:kuery,query:{shown}))"
    )


def _time() -> str:
    ends = (f"{end}:{{{{encodeURIComponent (rison context.panel.timeRange.{end})}}}}" for end in ("from", "to"))
    return f"time:({','.join(ends)})"


def _filters() -> str:
    return "filters:{{encodeURIComponent (rison context.panel.filters)}}"


def _rison(text: str) -> str:
    """A text as RISON writes it."""
    return "'" + text.replace("!", "!!").replace("'", "!'") + "'"
