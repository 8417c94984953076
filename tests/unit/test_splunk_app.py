"""The Splunk app beyond AppInspect: everything named is there, every search reads, every click is bound."""

import csv
import io
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from aitrail.compiler.build import content
from aitrail.compiler.emit import Content, splunk
from aitrail.compiler.emit.packs import present, source_tree
from aitrail.compiler.emit.splunk_icon import icon
from aitrail.compiler.emit.splunk_panels import tokens
from aitrail.compiler.emit.splunk_searches import columns, stanza_name
from aitrail.contentdir import content_path
from aitrail.detection.rules import RISK
from parity import splunk_engine
from parity.expressions import BadQueryError
from parity.splunk_display import shown

ROOT = source_tree() or Path()
APP = ROOT / "splunk_app" / "aitrail"
# Bytes: the package, and the app unpacked.
MOST, MOST_UNPACKED = 1_000_000, 1_250_000
# What a page's searches may read that no event has: made by Splunk, or by the search itself.
_CLICKED = re.compile(r"^(row\.\w+\.value|name|value)$")


@pytest.fixture(scope="module")
def of() -> Content:
    return content(content_path("detections"))


@pytest.fixture(scope="module")
def made(of: Content) -> dict[str, bytes]:
    return splunk.files(of)


def stanzas(text: str) -> dict[str, dict[str, str]]:
    """A ``.conf`` file, strictly: no stanza and no key twice."""
    found: dict[str, dict[str, str]] = {}
    section: dict[str, str] = {}
    for line in re.sub(r" ?\\\n", "\n\x00", text).split("\n"):
        if line.startswith("\x00"):
            section[list(section)[-1]] += "\n" + line[1:]
        elif line.startswith("["):
            name = line[1:-1]
            assert line.endswith("]"), line
            assert name not in found, name
            section = found.setdefault(name, {})
        elif line.strip() and not line.startswith("#"):
            key, equals, value = line.partition("=")
            assert equals, line
            assert key.strip() not in section, line
            section[key.strip()] = value.strip()
    return found


def conf(name: str) -> dict[str, dict[str, str]]:
    return stanzas((APP / "default" / f"{name}.conf").read_text(encoding="utf-8"))


def definition(path: Path) -> dict[str, Any]:
    root = ET.fromstring(path.read_text(encoding="utf-8"))
    assert root.attrib["version"] == "2"
    found: dict[str, Any] = json.loads(root.findtext("definition") or "")
    return found


# The settings page is a form that a script makes: tests/e2e/test_splunk_settings.py.
PAGES = sorted((APP / "default" / "data" / "ui" / "views").glob("*.xml"))
VIEWS = [path for path in PAGES if path.stem != "settings"]
BOARDS = [path for path in VIEWS if path.stem.startswith("aitrail_")]
SAVED = conf("savedsearches")
RULES = {name: keys for name, keys in SAVED.items() if name.endswith((" - Rule", " - Hunt"))}


# --- the build


def test_the_same_content_gives_the_same_bytes(of: Content, made: dict[str, bytes]) -> None:
    assert splunk.files(of) == made
    held = present(APP)
    (name, first), (_, second) = *splunk.archives(held).items(), *splunk.archives(dict(reversed(held.items()))).items()
    assert name.endswith(".spl")
    assert first == second


def test_what_is_committed_is_what_is_made(made: dict[str, bytes]) -> None:
    held = present(APP)
    assert {path for path, data in made.items() if held.get(path) != data} == set()


def test_it_is_small_and_holds_nothing_that_does_not_belong() -> None:
    held = present(APP)
    assert sum(map(len, held.values())) < MOST_UNPACKED
    assert all(len(data) < MOST for data in splunk.archives(held).values())
    assert not [path for path in held if path.startswith("local/") or path.endswith((".pyc", "local.meta"))]
    wanted = ("LICENSE", "README.md", "app.manifest", "metadata/default.meta", "README/aitrail.conf.spec")
    assert set(wanted) <= set(held)
    for path, data in held.items():
        if path.endswith(".conf"):
            assert b"http://" not in data, path
            assert not re.search(rb"(?i)(password|secret|token)\s*=\s*\S", data), path


def test_icons_have_the_sizes_that_splunk_asks_for() -> None:
    for name, size in (("appIcon", 36), ("appIcon_2x", 72), ("appIconAlt", 36), ("appIconAlt_2x", 72)):
        data = (APP / "static" / f"{name}.png").read_bytes()
        assert data == icon(size)
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        assert (int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")) == (size, size)


def test_the_manifest_and_app_conf_agree() -> None:
    manifest = json.loads((APP / "app.manifest").read_text(encoding="utf-8"))
    app = conf("app")
    name, version = manifest["info"]["id"]["name"], manifest["info"]["id"]["version"]
    assert name == app["package"]["id"] == app["id"]["name"] == APP.name
    assert version == app["launcher"]["version"] == app["id"]["version"]
    assert app["ui"]["setup_view"] in {path.stem for path in PAGES}
    own = {path.stem for path in (APP / "README").glob("*.conf.spec")} - {"alert_actions.conf", "savedsearches.conf"}
    assert {f"reload.{one.removesuffix('.conf')}" for one in own} == set(app["triggers"])


# --- searches


def runs(query: str) -> None:
    """The grammar reads all of it; on no event at all it gives nothing or one row of zeros."""
    query = re.sub(r"\$[\w.]+\|s\$", '"*"', query).replace("$$", "$")
    # Of a command of its own kind the engine has no database.
    query = query.replace("\n| iplocation src_ip\n", "\n")
    assert len(shown(query, [], (0.0, 1.0))) <= 1


def macros(text: str) -> set[str]:
    """As macros.conf names them: with the number of arguments."""
    found = re.findall(r"`(\w+)(?:\(([^`]*)\))?`", text)
    return {f"{name}({arguments.count(',') + 1})" if arguments else name for name, arguments in found}


def lookups(text: str) -> set[str]:
    return set(re.findall(r"\| (?:inputlookup|outputlookup|lookup) (\w+)", text))


def test_every_rule_is_a_saved_search(of: Content) -> None:
    assert set(RULES) == {stanza_name(rule) for rule in (*of.detections, *of.behaviors)}
    kinds = [rule.meta.kind for rule in (*of.detections, *of.behaviors)]
    assert sum(name.endswith(" - Hunt") for name in RULES) == kinds.count("hunt") > 20
    assert kinds.count("detection") > 100


@pytest.mark.parametrize("name", sorted(RULES))
def test_a_saved_search_reads_and_runs(name: str) -> None:
    keys = RULES[name]
    runs(keys["search"])
    assert macros(keys["search"]) <= set(conf("macros"))
    assert "index=" not in keys["search"]
    assert keys["dispatch.latest_time"] == "now"
    assert keys["dispatch.earliest_time"].startswith("-")


def test_schedules_are_off_and_apart() -> None:
    crons = []
    for name, keys in RULES.items():
        if name.endswith(" - Hunt"):
            assert keys["enableSched"] == "0"
            assert "cron_schedule" not in keys
            continue
        assert keys["disabled"] == keys["enableSched"] == "1"
        assert keys["realtime_schedule"] == "0"
        step = re.fullmatch(r"\d+(-59/(\d+))? \* \* \* \*", keys["cron_schedule"])
        assert step, keys["cron_schedule"]
        assert not step[2] or int(step[2]) >= 5
        crons.append(keys["cron_schedule"])
    assert max(map(crons.count, crons)) < len(crons) / 3


def test_findings_and_risk_name_fields_of_the_result(of: Content) -> None:
    for rule in (*of.detections, *of.behaviors):
        keys, there = RULES[stanza_name(rule)], set(columns(rule))
        if rule.meta.kind != "detection":
            assert not [key for key in keys if key.startswith("action.")]
            continue
        assert set(keys["alert.suppress.fields"].split(",")) <= there, rule.meta.name
        risk = json.loads(keys["action.risk.param._risk"])
        objects = [one for one in risk if "risk_object_field" in one]
        assert objects, rule.meta.name
        for one in objects:
            assert one["risk_object_field"] in there
            assert one["risk_object_type"] in ("user", "system", "other")
            assert one["risk_score"] == RISK[rule.meta.severity]
            assert set(tokens(one["risk_message"])) <= there
        assert {one["threat_object_field"] for one in risk if "threat_object_field" in one} <= there
        if "action.notable" in keys:
            assert set(tokens(keys["action.notable.param.rule_title"])) <= there
            assert set(keys["action.notable.param.nes_fields"].split(",")) <= there
            entities = json.loads(keys["action.notable.param._entities"])
            assert {one["risk_object_field"] for one in entities} <= there
        assert ("action.notable" in keys) is (rule.meta.severity in ("medium", "high", "critical"))


def test_annotations_are_lists_of_what_the_rule_says(of: Content) -> None:
    for rule in (*of.detections, *of.behaviors):
        if rule.meta.kind == "detection":
            keys = RULES[stanza_name(rule)]
            found = json.loads(keys["action.correlationsearch.annotations"])
            assert all(isinstance(values, list) and values for values in found.values()), rule.meta.name
            assert {one.lower() for one in found.get("mitre_atlas", [])} == {
                tag.removeprefix("atlas.") for tag in rule.meta.tags if tag.startswith("atlas.")
            }
            assert {one.lower().replace(":", "-") for one in found.get("owasp_llm", [])} == {
                tag.removeprefix("owasp.") for tag in rule.meta.tags if tag.startswith("owasp.")
            }
            assert json.loads(keys["action.correlationsearch.metadata"])["detection_id"] == rule.meta.id


def test_drilldowns_are_bound_and_read(of: Content) -> None:
    counted = 0
    for rule in (*of.detections, *of.behaviors):
        keys, there = RULES[stanza_name(rule)], set(columns(rule))
        for drill in json.loads(keys.get("action.notable.param.drilldown_searches", "[]")):
            counted += 1
            assert set(tokens(drill["search"])) | set(tokens(drill["name"])) <= there, rule.meta.name
            # A value of an event is always a quoted literal.
            assert re.sub(r"\$\w+\|s\$", "", drill["search"]).count("$") == 0
            assert macros(drill["search"]) <= set(conf("macros"))
            if drill["search"].startswith("`aitrail_index`"):
                first, *_ = re.sub(r"=\$\w+\|s\$", '="x"', drill["search"]).split(" | ")
                splunk_engine.spl(first, [])
    assert counted > 200


def test_lists_and_lookups_are_there() -> None:
    transforms, collections = conf("transforms"), conf("collections")
    for name, keys in transforms.items():
        if keys.get("external_type") == "kvstore":
            fields = {key.removeprefix("field.") for key in collections[keys["collection"]] if key.startswith("field.")}
            assert set(keys["fields_list"].replace(" ", "").split(",")) == fields | {"_key"}, name
        else:
            head = next(csv.reader(io.StringIO((APP / "lookups" / keys["filename"]).read_text(encoding="utf-8"))))
            assert len(head) == len(set(head))
    assert {keys["collection"] for keys in transforms.values() if "collection" in keys} == set(collections)
    used = set().union(*(lookups(keys["search"]) for keys in SAVED.values()))
    for keys in conf("props").values():
        used |= {value.split()[0] for key, value in keys.items() if key.startswith("LOOKUP-")}
    assert used <= set(transforms)
    with (APP / "lookups" / "aitrail_rules.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(RULES)


def test_alert_actions_have_their_script_their_form_and_their_description() -> None:
    spec = stanzas_of_spec((APP / "README" / "alert_actions.conf.spec").read_text(encoding="utf-8"))
    actions = conf("alert_actions")
    assert set(actions) == set(spec) == {"aitrail_finding", "aitrail_case", "aitrail_block"}
    for name, keys in actions.items():
        assert (APP / "bin" / f"{name}.py").is_file()
        assert (APP / "static" / keys["icon_path"]).is_file()
        assert (keys["python.required"], keys["payload_format"]) == ("3.13", "json")
        assert {"category", "task", "subject", "technology"} <= set(json.loads(keys["param._cam"]))
        params = {key for key in keys if key.startswith("param.")}
        assert params == spec[name]
        form = (APP / "default" / "data" / "ui" / "alerts" / f"{name}.html").read_text(encoding="utf-8")
        named = set(re.findall(r'name="action\.(\w+)\.(param\.\w+)"', form))
        assert named == {(name, param) for param in params - {"param._cam"}}
    spec = stanzas_of_spec((APP / "README" / "aitrail.conf.spec").read_text(encoding="utf-8"))
    assert {name: set(keys) for name, keys in conf("aitrail").items()} == spec
    saved = (APP / "README" / "savedsearches.conf.spec").read_text(encoding="utf-8")
    for name, keys in actions.items():
        params = {f"action.{name}.{key}" for key in keys if key.startswith("param.") and key != "param._cam"}
        assert {f"action.{name}", *params} == set(re.findall(rf"(action\.{name}[\w.]*) = <", saved))


def stanzas_of_spec(text: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        if line.startswith("["):
            keys = found.setdefault(line[1:-1], set())
        elif match := re.match(r"([\w.]+) = <", line):
            keys.add(match[1])
    return found


def test_a_wrong_search_does_not_run() -> None:
    for wrong in (
        '`aitrail_index` sourcetype="x"\n| statz count',
        '`aitrail_index` sourcetype="x"\n| where lower(a=="b"',
        '`aitrail_index` sourcetype="x"\n| stats count BY',
        '`aitrail_index` sourcetype="x"\n| table a b',
        '`aitrail_index` sourcetype="x"\n| fillnull valu=0',
    ):
        with pytest.raises((BadQueryError, KeyError, IndexError)):
            runs(wrong)


# --- pages


def test_the_menu_names_all_pages() -> None:
    nav = ET.fromstring((APP / "default" / "data" / "ui" / "nav" / "default.xml").read_text(encoding="utf-8"))
    named = [view.attrib["name"] for view in nav.iter("view")]
    assert {path.stem for path in PAGES} == set(named) - {"search", "reports", "alerts"}
    assert [view.attrib["name"] for view in nav.iter("view") if view.get("default")] == ["aitrail_usage"]


@pytest.mark.parametrize("path", VIEWS, ids=lambda path: path.stem)
def test_a_page_holds_together(path: Path) -> None:
    found = definition(path)
    sources, drawn, inputs = found["dataSources"], found["visualizations"], found["inputs"]
    assert set(found) <= {"title", "description", "visualizations", "dataSources", "defaults", "inputs", "layout"}
    bound = [name for item in (*drawn.values(), *inputs.values()) for name in item.get("dataSources", {}).values()]
    assert set(bound) == set(sources)
    layout = found["layout"]
    assert sorted(block["item"] for block in layout["structure"]) == sorted(drawn)
    assert layout["globalInputs"] == list(inputs)
    for item in drawn.values():
        # Every series that an option or a colour rule names is given by a search of this panel.
        text = json.dumps([item.get("options"), item.get("context")])
        roles = set(re.findall(r"> (\w+) \|", text)) - {"majorValue", "trendValue"}
        assert roles <= set(item.get("dataSources", {})), item
        assert set(re.findall(r"(?:rangeValue|gradient)\((\w+)\)", text)) <= set(item.get("context", {}))


@pytest.mark.parametrize("path", VIEWS, ids=lambda path: path.stem)
def test_blocks_fill_the_grid_without_overlap(path: Path) -> None:
    layout = definition(path)["layout"]
    rows: dict[int, list[tuple[int, int, int]]] = {}
    for block in layout["structure"]:
        at = block["position"]
        rows.setdefault(at["y"], []).append((at["x"], at["w"], at["h"]))
    down = 0
    for y, blocks in sorted(rows.items()):
        assert y == down
        blocks.sort()
        assert blocks[0][0] == 0
        assert all(x + w == after for (x, w, _), (after, _, _) in pairwise(blocks))
        assert sum(w for _, w, _ in blocks) == layout["options"]["width"]
        assert len({h for _, _, h in blocks}) == 1
        down = y + blocks[0][2]


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_every_search_of_a_page_reads_and_every_token_is_bound(path: Path) -> None:
    found = definition(path)
    given = {item["options"]["token"] for item in found["inputs"].values()}
    given |= {"global_time.earliest", "global_time.latest"}
    for source in found["dataSources"].values():
        query = source["options"]["query"]
        runs(query)
        assert set(tokens(query)) <= given
        # What a viewer chose is always a quoted literal.
        assert "$" not in re.sub(r"\$[\w.]+\|s\$", "", query).replace("$$", "")
        assert macros(query) <= set(conf("macros"))
    for item in found["visualizations"].values():
        for handler in item.get("eventHandlers", []):
            clicked(handler, given)


def clicked(handler: dict[str, Any], given: set[str]) -> None:
    options = handler["options"]
    if handler["type"] == "drilldown.linkToDashboard":
        assert (APP / "default" / "data" / "ui" / "views" / f"{options['dashboard']}.xml").is_file()
        goal = definition(APP / "default" / "data" / "ui" / "views" / f"{options['dashboard']}.xml")
        takes = {item["options"]["token"] for item in goal["inputs"].values()}
        assert {one["token"].removeprefix("form.").partition(".")[0] for one in options["tokens"]} <= takes
        assert {one["value"] for one in options["tokens"]} <= given
        return
    assert handler["type"] == "drilldown.linkToSearch"
    query = options["query"]
    assert {one for one in tokens(query) if not _CLICKED.match(one)} <= given
    assert "$" not in re.sub(r"\$[\w.]+\|s\$", "", query).replace("$$", "")
    runs(query)


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_a_click_carries_a_field_that_the_row_has(path: Path) -> None:
    found = definition(path)
    for item in found["visualizations"].values():
        for handler in item.get("eventHandlers", []):
            query = handler["options"].get("query", "")
            wanted = {one.split(".")[1] for one in tokens(query) if one.startswith("row.")}
            search = found["dataSources"][item["dataSources"]["primary"]]["options"]["query"]
            last = re.findall(r"\n\| (?:table|xyseries) ([^\n]+)", search)
            assert wanted <= set(re.split(r"[, ]+", last[-1])), (path.stem, item["title"])


def test_a_page_says_how_to_read_it_and_has_its_panels(of: Content) -> None:
    for board in of.dashboards:
        found = definition(APP / "default" / "data" / "ui" / "views" / f"aitrail_{board.name}.xml")
        drawn = found["visualizations"]
        assert drawn["viz_about"]["options"]["markdown"] == board.description
        panels = {panel.id: panel for panel in board.panels}
        assert 8 <= len(panels) <= 14
        explained = drawn["viz_explained"]["options"]["markdown"]
        for name, panel in panels.items():
            assert f"**{panel.title}.** {panel.help}" in explained
            assert panel.empty in explained
            # Studio shows one line: nothing that it would cut, and whole sentences.
            line = drawn[f"viz_{name}"].get("description", "")
            assert len(line) <= panel.width * 19
            assert panel.help.startswith(line)
            assert not line or line[-1] in ".?!"
        assert set(found["inputs"]) == {"input_time", *(f"input_{field.name}" for field in board.filters)}


def test_every_single_value_has_its_course() -> None:
    """A number for the range, its change, and a row for every bucket of the range, also where nothing was."""
    start = 1_795_000_000.0
    seen = 0
    for path in BOARDS:
        found = definition(path)
        for name, item in found["visualizations"].items():
            if item["type"] != "splunk.singlevalue":
                continue
            seen += 1
            assert item["options"]["sparklineDisplay"] == "below", name
            assert item["options"]["sparklineNullValueDisplay"] in ("zero", "gaps")
            column = re.fullmatch(r"> course \| seriesByName\('(\w+)'\)", item["options"]["sparklineValues"])
            assert column, name
            query = found["dataSources"][item["dataSources"]["course"]]["options"]["query"]
            rows = shown(re.sub(r"\$[\w.]+\|s\$", '"*"', query).replace("$$", "$"), [], (start, start + 86_400))
            times = [float(row["_time"]) for row in rows]
            assert 24 <= len(times) == len(set(times)) <= 120, name
            assert {after - before for before, after in pairwise(times)} == {times[1] - times[0]}
            assert times[0] <= start < start + 86_400 - (times[1] - times[0]) <= times[-1]
            assert {row.get(column[1]) for row in rows} <= {0, None}
    assert seen == 26


def test_an_event_falls_into_one_of_those_rows() -> None:
    found = definition(APP / "default" / "data" / "ui" / "views" / "aitrail_usage.xml")
    query = found["dataSources"]["course_calls"]["options"]["query"]
    start = 1_795_000_000.0
    events = [
        splunk_engine.indexed(
            {"event_id": f"e{n}", "action_kind": "inference", "tenant_id": "acme"}, start + 40_000 + n
        )
        for n in range(3)
    ]
    rows = shown(re.sub(r"\$[\w.]+\|s\$", '"*"', query), events, (start, start + 86_400))
    assert sorted(row["calls"] for row in rows)[-2:] == [0, 3]
