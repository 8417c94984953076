"""The Kibana dashboards: everything named is there, every panel computes what its page says, every click is bound."""

import base64
import json
import random
import re
from datetime import datetime, timedelta
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec
import pytest

from aitrail.clock import iso_ms
from aitrail.compiler.build import content
from aitrail.compiler.dashboard import Panel
from aitrail.compiler.dialects import metrics_esql
from aitrail.compiler.dialects.scope import columns
from aitrail.compiler.emit import Content, kibana, kibana_lens
from aitrail.compiler.emit.kibana_objects import FLEET_VIEW, OWN_VIEW, dashboard_id
from aitrail.compiler.emit.packs import present, source_tree
from aitrail.compiler.expr import And, Expr, Not, OneOf, Or, Text
from aitrail.compiler.metric import Dataset, Metric
from aitrail.contentdir import content_path
from aitrail.destinations.elastic_documents import DataStream
from aitrail.destinations.elastic_records import RecordDocuments
from aitrail.event import AccessEvent
from aitrail.schema.catalog import fields
from aitrail.schema.ecs import to_ecs
from aitrail.streams import encoded
from parity import elastic_engine, kuery_engine, lens_engine
from parity.elastic_engine import Row, document
from parity.test_parity_metrics import END, START, make_event, make_record

ROOT = source_tree() or Path()
PACK = ROOT / kibana.FOLDER
MOST = 3_000_000
_STATES = {"formBased", "textBased"}
_ACCESSORS = re.compile(r"Accessor$")


@pytest.fixture(scope="module")
def of() -> Content:
    return content(content_path("detections"))


@pytest.fixture(scope="module")
def made(of: Content) -> dict[str, bytes]:
    return kibana.files(of)


@pytest.fixture(scope="module")
def world(of: Content) -> dict[Dataset, list[Row]]:
    """Documents of each kind whose fields hold what the pages ask for, or something else."""
    rng = random.Random(7)
    asked: dict[tuple[Dataset, str], list[Any]] = {}
    for page in of.dashboards:
        for panel in page.panels:
            if panel.query:
                values = panel.query.values if isinstance(panel.query, Metric) else ()
                for where in (panel.query.where, *(value.where for value in values)):
                    _asked(where, panel.query.dataset, asked)
    access = [_event(rng, number, asked) for number in range(150)]
    held = [document(to_ecs(event), _milliseconds(event.timestamp)) for event in access]
    found: dict[Dataset, list[Row]] = {"access": held, "finding": [], "health": []}
    for dataset in ("finding", "health"):
        make = RecordDocuments(DataStream(f"ai_audit.{dataset}", "default"), dataset)
        for number in range(60):
            record = make_record(rng, number, dataset)
            changed = {name: rng.choice(items) for (kind, name), items in asked.items() if kind == dataset}
            record = msgspec.convert(msgspec.to_builtins(record) | changed, type(record))
            tree = msgspec.json.decode(make.document(encoded(record)))
            found[dataset].append(document(tree, _milliseconds(tree["@timestamp"])))
    return found


def _milliseconds(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def _asked(expr: Expr | None, dataset: Dataset, found: dict[tuple[Dataset, str], list[Any]]) -> None:
    """The values that conditions compare with, by field."""
    if isinstance(expr, And | Or):
        for item in expr.items:
            _asked(item, dataset, found)
    elif isinstance(expr, Not):
        _asked(expr.item, dataset, found)
    elif isinstance(expr, OneOf | Text):
        values = [expr.value + "x" * (expr.op == "startswith")] if isinstance(expr, Text) else expr.values
        listed = found.setdefault((dataset, expr.field.name), [])
        listed += [(one,) if expr.field.kind == "list" else one for one in values]


def _event(rng: random.Random, number: int, asked: dict[tuple[Dataset, str], list[Any]]) -> AccessEvent:
    made = make_event(rng, number) | {"timestamp": iso_ms((START + timedelta(minutes=30 * number)).timestamp())}
    for field in fields():
        if field.name in ("event_id", "timestamp", "tenant_id", "source"):
            continue
        choices = [*asked.get(("access", field.name), []), *field.enum]
        if choices:
            made[field.name] = rng.choice(choices)
        elif field.kind == "boolean":
            made[field.name] = rng.choice([None, True, False])
    return msgspec.convert(msgspec.to_builtins(made), AccessEvent)


def imported(name: str) -> list[dict[str, Any]]:
    """The objects of an import file, with what is JSON in JSON read."""
    text = (PACK / "import" / name).read_text(encoding="utf-8")
    return [_read(json.loads(line)) for line in text.splitlines()]


def _read(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: json.loads(inner) if key.endswith("JSON") and isinstance(inner, str) else _read(inner)
            for key, inner in value.items()
        }
    return value


SAVED = imported("dashboards.ndjson")
BOARDS = {one["id"]: one for one in SAVED if one["type"] == "dashboard"}
PACKAGED = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((PACK / "package" / "kibana" / "dashboard").glob("*.json"))
}
BOTH = [pytest.param(one, id=f"import-{name}") for name, one in BOARDS.items()] + [
    pytest.param(one, id=f"package-{name}") for name, one in PACKAGED.items()
]


def panels(board: dict[str, Any], kind: str = "") -> list[dict[str, Any]]:
    return [one for one in board["attributes"]["panelsJSON"] if not kind or one["type"] == kind]


def lenses(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [one["embeddableConfig"]["attributes"] for one in panels(board, "lens")]


# --- the build


def test_the_same_content_gives_the_same_bytes(of: Content, made: dict[str, bytes]) -> None:
    assert kibana.files(of) == made
    held = present(PACK)
    assert kibana.archives(held) == kibana.archives(dict(reversed(held.items())))
    assert len(kibana.archives(held)) == 5


def test_what_is_committed_is_what_is_made(made: dict[str, bytes]) -> None:
    held = present(PACK)
    assert {path for path, data in made.items() if held.get(path) != data} == set()
    folders = ("import/", "elasticsearch/", "package/kibana/")
    assert {path for path in held if path.startswith(folders)} == {path for path in made if path.startswith(folders)}


def test_it_is_small() -> None:
    assert sum(map(len, present(PACK).values())) < MOST


def test_both_forms_are_the_same_pages(of: Content) -> None:
    assert list(BOARDS) == [dashboard_id(one.name) for one in of.dashboards]
    assert sorted(PACKAGED) == sorted(BOARDS)
    for name, packaged in PACKAGED.items():
        text = json.dumps(BOARDS[name]["attributes"]).replace(OWN_VIEW, FLEET_VIEW)
        assert unquote(json.dumps(packaged["attributes"])) == unquote(text)


# --- the page


@pytest.mark.parametrize("board", BOTH)
def test_every_reference_resolves_and_is_used(board: dict[str, Any]) -> None:
    known = {(one["type"], one["id"]) for one in SAVED} | {("index-pattern", FLEET_VIEW)}
    names = [one["name"] for one in board["references"]]
    assert len(names) == len(set(names))
    assert {(one["type"], one["id"]) for one in board["references"]} <= known
    attributes = board["attributes"]
    asked = {attributes["kibanaSavedObjectMeta"]["searchSourceJSON"]["filter"][0]["meta"]["indexRefName"]}
    for name, control in attributes["controlGroupInput"]["panelsJSON"].items():
        asked.add(control["explicitInput"]["dataViewRefName"])
        assert name == control["explicitInput"]["id"]
    for panel in panels(board, "links"):
        links = panel["embeddableConfig"]["attributes"]["links"]
        asked |= {f"{panel['panelIndex']}:{one['destinationRefName']}" for one in links}
        assert len(links) == len(BOARDS)
    for panel in panels(board, "lens"):
        for event in panel["embeddableConfig"]["enhancements"]["dynamicActions"]["events"]:
            if event["action"]["factoryId"].startswith("DASHBOARD"):
                asked.add(
                    f"{panel['panelIndex']}:drilldown:{event['action']['factoryId']}:{event['eventId']}:dashboardId"
                )
    assert asked == {name for name in names if not name.startswith("tag-ref-")}


@pytest.mark.parametrize("board", BOTH)
def test_the_grid_fits(board: dict[str, Any]) -> None:
    places = [one["gridData"] for one in panels(board)]
    indices = [one["panelIndex"] for one in panels(board)]
    assert len(indices) == len(set(indices))
    assert indices == [one["i"] for one in places]
    for one in places:
        assert one["x"] >= 0
        assert one["x"] + one["w"] <= 48
        assert min(one["w"], one["h"]) > 0
    for one, other in combinations(places, 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y
    # No row of the grid is empty.
    covered = {row for one in places for row in range(one["y"], one["y"] + one["h"])}
    assert covered == set(range(max(covered) + 1))


@pytest.mark.parametrize("board", BOTH)
def test_it_is_filtered_by_its_kinds_and_by_what_people_choose(board: dict[str, Any], of: Content) -> None:
    page = next(one for one in of.dashboards if dashboard_id(one.name) == board["id"])
    attributes = board["attributes"]
    (kinds,) = attributes["kibanaSavedObjectMeta"]["searchSourceJSON"]["filter"]
    wanted = {f"ai_audit.{panel.query.dataset}" for panel in page.panels if panel.query}
    assert set(kinds["meta"]["params"]) == wanted
    assert {one["match_phrase"]["data_stream.dataset"] for one in kinds["query"]["bool"]["should"]} == wanted
    controls = attributes["controlGroupInput"]["panelsJSON"]
    fields = ["organization.id", "user.group.name", "gen_ai.request.model", "user.id"]
    assert [one["explicitInput"]["fieldName"] for one in controls.values()] == fields
    assert set(fields) <= set(elastic_engine.TYPES)
    assert attributes["timeFrom"] == f"now-{page.range // 3600}h"


@pytest.mark.parametrize("board", BOTH)
def test_a_page_says_how_to_read_it_and_so_does_each_panel(board: dict[str, Any], of: Content) -> None:
    page = next(one for one in of.dashboards if dashboard_id(one.name) == board["id"])
    texts = [one["embeddableConfig"]["savedVis"]["params"]["markdown"] for one in panels(board, "visualization")]
    assert page.description.strip() in texts[0]
    assert texts[1:] == [f"### {section.title}" for section in page.sections]
    drawn = lenses(board)
    assert [one["title"] for one in drawn] == [panel.title for panel in page.panels]
    for panel, one in zip(page.panels, drawn, strict=True):
        assert panel.help.strip() in one["description"]
        assert panel.empty.strip() in one["description"]
    assert 8 <= len(drawn) <= 14


# --- panels


def _named(value: Any, found: set[str]) -> None:
    """The columns that a visualization draws."""
    if isinstance(value, list):
        for one in value:
            _named(one, found)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key == "columnId" or (_ACCESSORS.search(key) and isinstance(inner, str)):
                found.add(inner)
            elif key in ("accessors", "metrics", "primaryGroups"):
                found.update(inner)
            else:
                _named(inner, found)


@pytest.mark.parametrize("board", BOTH)
def test_panels_have_their_layers_and_draw_their_columns(board: dict[str, Any]) -> None:
    for one in lenses(board):
        state = one["state"]
        (kind,) = state["datasourceStates"]
        assert kind in _STATES
        layers = state["datasourceStates"][kind]["layers"]
        shown = state["visualization"]
        drawn = [shown] if "layerId" in shown else shown["layers"]
        asked = {layer["layerId"] for layer in drawn} | {shown[key] for key in ("trendlineLayerId",) if key in shown}
        assert asked == set(layers), one["title"]
        prefix = {"formBased": "indexpattern", "textBased": "textBasedLanguages"}[kind]
        held = {
            ref["name"].removeprefix(f"{prefix}-datasource-layer-"): ref["id"] for ref in state["internalReferences"]
        }
        assert set(held) == set(layers)
        assert set(held.values()) == set(state["adHocDataViews"])
        there: set[str] = set()
        for name, layer in layers.items():
            if kind == "textBased":
                there |= {column["columnId"] for column in layer["columns"]}
                assert layer["index"] == held[name]
                assert layer["query"] == state["query"]
            else:
                there |= set(layer["columns"])
                assert set(layer["columnOrder"]) == set(layer["columns"])
                for column in layer["columns"].values():
                    assert set(column.get("references", ())) <= set(layer["columns"])
                assert layer.get("linkToLayers", ["main"]) == ["main"]
        names: set[str] = set()
        _named(shown, names)
        assert names <= there, one["title"]


def esql_panels(of: Content) -> list[tuple[str, Panel, str]]:
    return [
        (page.name, panel, kibana_lens.query(panel))
        for page in of.dashboards
        for panel in page.panels
        if panel.query and panel.form != "single"
    ]


def test_queries_give_the_columns_that_panels_draw(of: Content, world: dict[Dataset, list[Row]]) -> None:
    bound = {"?_tstart": f'"{START.isoformat()}"', "?_tend": f'"{END.isoformat()}"'}
    counted = filled_ = 0
    for page, panel, text in esql_panels(of):
        assert panel.query is not None
        drawn = kibana_lens.lens(panel)["state"]["datasourceStates"]["textBased"]["layers"]["main"]["columns"]
        assert not set(re.findall(r"\?\w+", text)) - set(bound), (page, panel.id)
        if "?_tstart" in text:
            assert text.split("\n| ")[1] == kibana_lens.RANGE
            whole = (
                f"@timestamp >= {_milliseconds(START.isoformat())} AND @timestamp <= {_milliseconds(END.isoformat())}"
            )
            run = text.replace(kibana_lens.RANGE, f"WHERE {whole}", 1)
        else:
            run = text
        run = re.sub(r"\?_t\w+", lambda found: bound[found[0]], run)
        rows = elastic_engine.esql(run, world[panel.query.dataset])
        filled_ += bool(rows)
        names = [one["fieldName"] for one in drawn]
        assert len(names) == len(columns(panel.query))
        for row in rows:
            assert list(row) == names, (page, panel.id)
            for one in drawn:
                found = row[one["fieldName"]]
                if one["meta"]["type"] == "number" and found is not None:
                    assert isinstance(found, int | float), (page, panel.id, one)
                if one["meta"]["type"] == "string" and isinstance(panel.query, Metric):
                    assert isinstance(found, str), (page, panel.id, one)
        counted += 1
    assert counted == 58
    assert filled_ > 40


def test_a_dimension_has_the_name_of_its_field_so_that_a_click_can_filter(of: Content) -> None:
    for page, panel, _ in esql_panels(of):
        if isinstance(panel.query, Metric):
            drawn = kibana_lens.lens(panel)["state"]["datasourceStates"]["textBased"]["layers"]["main"]["columns"]
            texts = {one["fieldName"] for one in drawn if one["meta"]["type"] == "string"}
            assert texts - {"day_of_week", "hour_of_day"} <= set(elastic_engine.TYPES), (page, panel.id)


def test_numbers_are_those_of_the_model(of: Content, world: dict[Dataset, list[Row]]) -> None:
    """Lens's columns over the index against the ES|QL of the same metric, which the parity tests judge."""
    compared = nonzero = 0
    for page in of.dashboards:
        for panel in page.panels:
            if panel.form != "single":
                continue
            assert isinstance(panel.query, Metric)
            name = panel.value or panel.query.values[0].name
            whole = Metric(panel.query.values, panel.query.dataset, panel.query.where)
            held = world[panel.query.dataset]
            (row,) = elastic_engine.esql(metrics_esql.render(whole, kibana_lens.SCOPE), held)
            state = kibana_lens.lens(panel)["state"]
            layers, query = state["datasourceStates"]["formBased"]["layers"], state["query"]["query"]
            for layer, column in (("main", "now"), ("main", "before"), ("course", "course")):
                found = lens_engine.number(layers[layer], column, query, held)
                assert found == pytest.approx(row[name]), (page.name, panel.id)
            shifted = json.dumps([one for key, one in layers["main"]["columns"].items() if key.startswith("before")])
            assert "previous" in shifted
            compared, nonzero = compared + 1, nonzero + bool(row[name])
    assert compared == 26
    assert nonzero > 22


# --- where a click leads


HOSTILE = ["ines", "it's", 'a" or user.id: *', "b\\", "c!'),filters:!()", "d&_a=x#y", "é %27 {{x}}", "(none)"]


def _rison(text: str) -> str:
    """A text that is quoted, as RISON reads it."""
    assert text[0] == text[-1] == "'"
    assert not re.search(r"(?<!!)(?:!!)*'", text[1:-1])
    return re.sub(r"!(.)", r"\1", text[1:-1])


def filled(template: str, clicked: str) -> str:
    """What Kibana makes of the template, where nothing but three helpers is used; the values stand in base64."""

    def fill(found: re.Match[str]) -> str:
        inner = found[1]
        if inner == "kibanaUrl":
            return "https://kibana.example.com"
        helper, _, rest = inner.partition(" ")
        assert helper == "encodeURIComponent", inner
        assert re.match(r"\(rison .*\)$", rest, re.DOTALL), inner
        argument = rest[7:-1]
        joined = re.fullmatch(r"\(concat '([^']*)' \(json event\.value\)\)", argument)
        if joined is None:
            assert argument in ("context.panel.filters", "context.panel.timeRange.from", "context.panel.timeRange.to")
            return f"<{argument}>"
        return "<text:" + base64.b64encode((joined[1] + json.dumps(clicked)).encode()).decode() + ">"

    return re.sub(r"\{\{(.*?)\}\}", fill, template)


@pytest.mark.parametrize("board", BOTH)
def test_links_to_events_look_for_what_the_panel_shows(board: dict[str, Any], of: Content) -> None:
    page = next(one for one in of.dashboards if dashboard_id(one.name) == board["id"])
    by_title = {panel.title: panel for panel in page.panels}
    events: list[str] = []
    for panel in panels(board, "lens"):
        about = by_title[panel["embeddableConfig"]["attributes"]["title"]]
        found = panel["embeddableConfig"]["enhancements"]["dynamicActions"]["events"]
        assert bool(found) is (about.drill is not None)
        for event in found:
            events.append(event["eventId"])
            assert event["triggers"] in (["CONTEXT_MENU_TRIGGER"], ["VALUE_CLICK_TRIGGER"], ["FILTER_TRIGGER"])
            if event["action"]["factoryId"] != "URL_DRILLDOWN":
                continue
            config = event["action"]["config"]
            assert config["encodeUrl"] is False
            url = config["url"]["template"]
            clicks = HOSTILE if event["triggers"] == ["VALUE_CLICK_TRIGGER"] else [""]
            for clicked in clicks:
                _follows(filled(url, clicked), about, clicked)
    assert len(events) == len(set(events))


def _follows(url: str, about: Panel, clicked: str) -> None:
    assert " " not in url
    assert '"' not in url
    if "/app/dashboards" in url:
        assert re.search(r"#/view/([\w-]+)\?", url)[1] in BOARDS  # type: ignore[index]
        return
    query = re.search(r"query:\(language:kuery,query:(.*?)\)\)$", url)
    assert query
    if query[1].startswith("<text:"):
        text = base64.b64decode(query[1][6:-1]).decode()
        row = {"user.id": "x"}
        name = re.search(r" and ([\w.]+): \"", text[::1])
        assert name
        field = re.findall(r"([\w.]+): \"", text.replace(json.dumps(clicked), '"'))[-1]
        kuery_engine.parse(text)
        # Whatever was clicked, it is looked for as a value of its field and as nothing else.
        tail = text.rpartition(f" and {field}: ")[2]
        assert kuery_engine.holds(f"{field}: {tail}", {**row, field: clicked}) or "é" in clicked
    else:
        text = _rison(unquote(query[1]))
        kuery_engine.parse(text)
    assert about.query is not None
    assert text.startswith(f'data_stream.dataset: "ai_audit.{about.query.dataset}"')
    columns_ = re.search(r"columns:!\((.*?)\)", url)
    assert columns_
    assert {_rison(unquote(one)) for one in columns_[1].split(",")} <= set(elastic_engine.TYPES)
