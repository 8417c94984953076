"""The console over HTTP: what each page says, and what it must not."""

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from console_support import FORMULAS, RAW, SESSION, TEMPLATES, Clock, client, day, event, make_store
from starlette.testclient import TestClient

from aitrail.store import boards
from aitrail.web import console
from aitrail.web.console.app import PAGES, build
from aitrail.web.console.data import Data, TooMuchError
from aitrail.web.console.guard import POLICY
from aitrail.web.console.settings import ConsoleSettings

BOARDS = [board.name for board in boards.load()]
# Two pages have every form; the browser opens the panels of all of them.
PANELS = [(board.name, panel.id) for board in boards.load()[:2] for panel in board.panels if panel.form != "text"]


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with client(tmp_path_factory.mktemp("console") / "store", events=day(), detect=True) as made:
        yield made


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    store = make_store(tmp_path_factory.mktemp("named") / "store", [event(1)])
    with client(store, names=("audit.example.com",)) as made:
        yield made


def _first(web: TestClient, page: str, kind: str) -> str:
    found = re.search(rf"/{kind}/([0-9a-f]{{32}})", web.get(page).text)
    assert found is not None, f"{page} lists no {kind}"
    return found[1]


def _every_page(web: TestClient) -> list[str]:
    """One address for each route, with real ids in it."""
    event_id, finding_id = _first(web, "/events?range=all", "event"), _first(web, "/findings?range=all", "finding")
    filled = [
        path.format(board="threats", panel="attackers", event_id=event_id, finding_id=finding_id) for path in PAGES
    ]
    return [*filled, *(f"/board/{name}" for name in BOARDS), f"/event/{event_id}?raw=1", "/search?q=instructions"]


class _Page(HTMLParser):
    """What a browser would run or load."""

    def __init__(self) -> None:
        super().__init__()
        self.bad: list[str] = []
        self.loaded: list[str] = []
        self._script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name.startswith("on") or name in ("style", "srcdoc"):
                self.bad.append(f"<{tag} {name}>")
            if name in ("src", "href", "action", "formaction", "data", "poster", "srcset", "xlink:href"):
                self.loaded.append(value or "")
        if tag in ("iframe", "object", "embed", "base", "style", "meta") and tag != "meta":
            self.bad.append(f"<{tag}>")
        if tag == "script" and not any(name == "src" for name, _ in attrs):
            self.bad.append("<script> without src")


# --- headers


def test_every_answer_carries_the_policy(web: TestClient) -> None:
    for path in [
        *_every_page(web),
        "/static/console.css",
        "/nowhere",
        "/event/nothing",
        "/api/panel/x/y",
        "/events?sort=x",
    ]:
        answer = web.get(path)
        assert answer.headers["content-security-policy"] == POLICY, path
        assert answer.headers["x-content-type-options"] == "nosniff", path
        assert answer.headers["referrer-policy"] == "no-referrer", path
        assert answer.headers["cross-origin-opener-policy"] == "same-origin", path
        assert answer.headers["cross-origin-resource-policy"] == "same-origin", path
        assert "set-cookie" not in answer.headers, path
        assert "access-control-allow-origin" not in answer.headers, path
        kept = "immutable" if path.startswith("/static/") and answer.status_code == 200 else "no-store"
        assert kept in answer.headers["cache-control"], path


def test_the_policy_has_no_hole() -> None:
    parts = dict(part.strip().split(" ", 1) for part in POLICY.split(";"))
    assert parts["default-src"] == "'none'"
    assert parts["script-src"] == parts["style-src"] == parts["connect-src"] == "'self'"
    assert parts["frame-ancestors"] == parts["base-uri"] == "'none'"
    assert not re.search(r"unsafe|\*|data:|http", POLICY)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_only_reading_is_possible(web: TestClient, method: str) -> None:
    for path in ("/", "/events", "/board/usage", "/api/choices", "/static/console.css"):
        assert web.request(method, path).status_code == 405, path


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:8642", True),
        ("localhost:1", True),
        ("LOCALHOST", True),
        ("[::1]:8642", True),
        ("192.0.2.7", True),
        ("audit.example.com", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("audit.example.com.evil.example", False),
        ("", False),
        ("[::1", False),
        ("user@localhost", False),
    ],
)
def test_a_name_that_was_pointed_here_gets_nothing(named: TestClient, host: str, allowed: bool) -> None:
    answer = named.get("/findings", headers={"host": host})
    assert answer.status_code == (200 if allowed else 421)
    assert ("Findings" in answer.text) is allowed


@pytest.mark.parametrize(
    ("site", "mode", "dest", "status"),
    [
        ("same-origin", "cors", "empty", 200),
        ("none", "navigate", "document", 200),
        ("cross-site", "navigate", "document", 200),
        ("cross-site", "navigate", "iframe", 403),
        ("cross-site", "no-cors", "script", 403),
        ("cross-site", "no-cors", "image", 403),
        ("same-site", "cors", "empty", 403),
    ],
)
def test_a_page_elsewhere_can_load_nothing(web: TestClient, site: str, mode: str, dest: str, status: int) -> None:
    headers = {"sec-fetch-site": site, "sec-fetch-mode": mode, "sec-fetch-dest": dest}
    assert web.get("/events", headers=headers).status_code == status


# --- texts stay texts


def test_no_page_runs_or_loads_anything_of_an_event(web: TestClient) -> None:
    pages = [*_every_page(web), "/events?range=all&q=evil", "/search?q=pwned&range=all", "/search?q={{7*7}}"]
    pages += [f"/board/{name}?tables=1&range=all" for name in BOARDS]
    ids = re.findall(r"/event/([0-9a-f]{32})", web.get("/events?range=all&q=window.pwned").text)
    assert len(ids) >= 2
    pages += [f"/event/{one}" for one in ids] + [f"/session/{ids[0]}"]
    for path in pages:
        answer = web.get(path)
        if "text/html" not in answer.headers.get("content-type", ""):
            continue
        page = _Page()
        page.feed(answer.text)
        assert not page.bad, (path, page.bad)
        assert all(link.startswith(("/", "#")) and not link.startswith("//") for link in page.loaded), path
        assert not [char for char in RAW if char in answer.text], path


def test_templates_are_not_computed(web: TestClient) -> None:
    page = web.get("/events", params={"range": "all", "q": "{{7*7}}"}).text
    assert "{{7*7}} ${7*7}" in page
    assert TEMPLATES.split()[0] in web.get("/search", params={"q": "{{7*7}}"}).text


@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_every_panel_answers_clean_json(web: TestClient, board: str, panel: str) -> None:
    answer = web.get(f"/api/panel/{board}/{panel}?range=all")
    assert answer.status_code == 200
    told = answer.json()
    assert told["form"]
    assert told["empty"]
    shown = json.dumps({key: value for key, value in told.items() if key != "raws"}, ensure_ascii=False)
    assert not [char for char in RAW if char in shown]
    assert told["link"].startswith(("/events?", "/findings?", "/board/")) or told["link"] == ""


def test_a_click_finds_the_event_with_the_raw_value(web: TestClient) -> None:
    told = web.get("/api/panel/usage/apps?range=all").json()
    hostile = [text for text in told["raws"] if "gnp.exe" in text]
    assert hostile, "the name with escape sequences is shown clean and known raw"
    page = web.get("/events", params={"range": "all", "panel": "usage/apps", "app": told["raws"][hostile[0]]})
    assert "1 event" in page.text


# --- exports


def test_csv_disarms_formulas(web: TestClient) -> None:
    answer = web.get("/events.csv?range=all&injection_tier=high")
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["content-disposition"] == 'attachment; filename="aitrail-events.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    texts = {row["prompt_text"] for row in rows}
    for formula in FORMULAS:
        assert not any(text.startswith(formula) for text in texts), formula
    for row in rows:
        for name, value in row.items():
            number = re.fullmatch(r"-?[0-9.]+(e-?[0-9]+)?", value or "")
            assert number or not (value or "").lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r")), name
    assert "'=1+1" in texts
    assert "'@SUM(A1)" in texts
    assert not [char for char in RAW if char in answer.text]


def test_csv_of_findings_and_panels_disarms_formulas(web: TestClient) -> None:
    for path in ("/findings.csv?range=all", "/board/usage/users.csv?range=all", "/board/usage/apps.csv?range=all"):
        cells = [cell for row in csv.reader(io.StringIO(web.get(path).text)) for cell in row]
        assert len(cells) > 10, path
        assert not [cell for cell in cells if cell.startswith(("=", "@", "\t", "\r", "+"))], path


def test_json_export_is_json(web: TestClient) -> None:
    rows = json.loads(web.get("/events.json?range=all").text)
    assert len(rows) == len(day())
    assert not [char for char in RAW if char in web.get("/events.json?range=all").text]
    assert json.loads(web.get("/events.json?range=all&user_id=nobody").text) == []


def test_an_export_holds_what_the_list_shows(web: TestClient) -> None:
    query = "?range=all&user_id=mallory"
    listed = re.findall(r'class="main" href="/event/([0-9a-f]{32})"', web.get(f"/events{query}").text)
    exported = [row["event_id"] for row in csv.DictReader(io.StringIO(web.get(f"/events.csv{query}").text))]
    assert listed == exported
    assert len(listed) == 40


# --- lists


def test_paging_gives_every_event_once(web: TestClient) -> None:
    seen: list[str] = []
    path = "/events?range=all"
    while path:
        page = web.get(path).text
        seen += re.findall(r'class="main" href="/event/([0-9a-f]{32})"', page)
        following = re.search(r'rel="next" href="([^"]+)"', page)
        path = following[1].replace("&amp;", "&") if following else ""
    assert len(seen) == len(set(seen)) == len(day())


def test_filters_narrow_and_chips_take_them_away(web: TestClient) -> None:
    page = web.get("/events?range=all&user_id=mallory&injection_tier=high").text
    assert ">5 events" in page
    assert "/events?range=all&amp;user_id=mallory" in page
    assert ">1 event" in web.get("/events?range=all&leakage_types=response:financial/card_number").text
    assert web.get("/events?range=all&department=(none)").text.count('class="main"') == 1
    assert ">2 events" in web.get("/events?range=all&user_id=paul.keller&user_id=nobody").text
    assert "No event is like this" in web.get("/events?user_id=nobody&range=all").text


def test_a_day_without_events_says_where_there_are_some(web: TestClient) -> None:
    page = web.get("/events?since=2020-01-01&until=2020-01-02").text
    assert "The store holds events from 2026-11-23 to 2026-11-23" in page


def test_a_range_ends_at_the_newest_event_of_an_old_store(tmp_path: Path) -> None:
    with client(tmp_path / "store", events=[event(1)], clock=Clock(1_900_000_000.0)) as web:
        page = web.get("/board/usage?range=24h").text
        assert "No event is newer than 2026-11-23" in page
        assert ">1 event" in web.get("/events?range=24h").text


@pytest.mark.parametrize(
    "query",
    [
        "range=never", "since=yesterday", "until=%00", "since=2026-11-24&until=2026-11-23", "sort=evil;--", "offset=-1",
        "offset=abc", "panel=no/panel", "panel=usage/calls&value=nothing", "hour_of_day=24", "hour_of_day=1%20or%201",
        "since=0000-01-01", "since=99999-01-01", "q=" + "a" * 3000,
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_said_and_not_repeated(web: TestClient, query: str) -> None:
    answer = web.get(f"/events?{query}")
    assert answer.status_code == 400
    assert "makes no sense" in answer.text
    assert "evil" not in answer.text
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("value", ["' OR 1=1 --", "'); DROP VIEW events; --", "\\", "%", "_", "$user_id", '"', "🙂"])
def test_values_are_values(web: TestClient, value: str) -> None:
    for name in ("user_id", "q", "flags", "finding", "http_status"):
        answer = web.get("/events", params={"range": "all", name: value})
        assert answer.status_code == 200, name
    assert web.get("/findings", params={"range": "all", "rule": value, "q": value}).status_code == 200
    assert web.get("/search", params={"q": value}).status_code == 200
    assert web.get("/api/panel/usage/calls", params={"user_id": value}).json()["rows"] is not None


@pytest.mark.parametrize(
    "path",
    [
        "/event/" + "0" * 32, "/event/zz", "/event/../../etc/passwd", "/finding/" + "0" * 32, "/finding/x'",
        "/session/1", "/board/nothing", "/board/usage/nothing", "/api/panel/usage/nothing", "/static/../settings.py",
        "/static/vendor", "/static/%2e%2e/app.py", "/.git/config", "/docs",
    ],
)  # fmt: skip
def test_what_is_not_there_is_a_page(web: TestClient, path: str) -> None:
    answer = web.get(path)
    assert answer.status_code == 404
    assert "There is nothing under this address" in answer.text


# --- one event


def test_an_event_shows_its_evidence_in_the_text(web: TestClient) -> None:
    found = re.findall(r"/event/([0-9a-f]{32})", web.get(f"/events?range=all&session_id={SESSION}").text)
    page = web.get(f"/event/{found[-1]}").text
    assert '<mark>ignore all previous instructions<a class="ref" href="#evidence-1"' in page
    assert 'id="evidence-1"' in page
    assert "override_instructions in user text" in page
    assert "LLM Prompt Injection: Direct" in page
    assert page.count('href="/event/') >= 5, "the session's calls are listed"
    assert "not on this machine" in page


def test_overlapping_evidence_marks_every_piece(tmp_path: Path) -> None:
    text = "one two three four"
    one = event(
        1,
        prompt_text=text,
        content_mode="redacted",
        evidence=("a|plain|user|0-7", "b|plain|user|4-13", "c|plain|user|900-901", "d|base64|user|", "broken"),
    )
    with client(tmp_path / "store", events=[one]) as web:
        page = web.get(f"/event/{one.event_id}").text
        plain = re.sub(
            r"<[^>]+>", "", re.sub(r'<a class="ref".*?</a>', "", page[page.index("<pre") : page.index("</pre>")])
        )
        assert plain == text
        assert page.count("<mark>") == 3
        assert "3 more pieces of evidence" in page


def test_the_session_of_an_event_is_read_in_order(web: TestClient) -> None:
    found = re.findall(r"/event/([0-9a-f]{32})", web.get(f"/events?range=all&session_id={SESSION}").text)
    page = web.get(f"/session/{found[0]}").text
    places = [page.index(f"Turn {turn}: ") for turn in range(5)]
    assert places == sorted(places)
    assert "5 calls" in page
    assert web.get(f"/session/{found[0]}?offset=3").text.count("Turn ") == 2


def test_a_finding_says_what_to_do(web: TestClient) -> None:
    finding = _first(web, "/findings?range=all", "finding")
    page = web.get(f"/finding/{finding}").text
    for phase in ("Validate", "Contain", "Investigate", "Remediate", "What it means", "Events that show it"):
        assert phase in page
    evidence = web.get(f"/events?range=all&finding={finding}").text
    assert re.search(r'class="main" href="/event/[0-9a-f]{32}"', evidence)
    assert (
        f"/finding/{finding}" in web.get("/event/" + _first(web, f"/events?range=all&finding={finding}", "event")).text
    )


def test_findings_are_narrowed_by_severity_rule_and_panel(web: TestClient) -> None:
    page = web.get("/findings?range=all").text
    severities = set(re.findall(r'badge [a-z]*">(critical|high|medium|low|informational)<', page))
    assert severities
    for severity in sorted(severities):
        shown = web.get(f"/findings?range=all&severity={severity}").text
        assert set(re.findall(r'badge [a-z]*">(critical|high|medium|low|informational)<', shown)) == {severity}
    assert "No finding like this" in web.get("/findings?range=all&rule=no_such_rule").text
    assert web.get("/findings?range=all&panel=threats/serious_findings").status_code == 200
    assert web.get("/findings?range=all&panel=usage/calls").status_code == 400


def test_search_finds_ids_names_findings_and_words(web: TestClient) -> None:
    event_id = _first(web, "/events?range=all", "event")
    assert web.get(f"/search?q={event_id[:14]}").headers["location"] == f"/event/{event_id}"
    page = web.get("/search?q=mallory").text
    assert "user_id=mallory" in page
    page = web.get("/search?q=PREVIOUS+instructions").text
    assert "<mark>previous instructions</mark>" in page
    assert "No event holds these words" in web.get("/search?q=xyzzyx").text


# --- trouble


def test_an_empty_store_has_pages(tmp_path: Path) -> None:
    make_store(tmp_path / "store")
    with client(tmp_path / "store") as web:
        tables = [f"/board/{name}?tables=1" for name in ("threats", "health")]
        for path in ("/events", "/findings", "/search?q=x", "/board/usage", *tables):
            assert web.get(path).status_code == 200, path
        assert "The store is empty" in web.get("/events?range=all").text
        assert web.get("/api/panel/usage/calls").json()["rows"] == [[0]]


def test_new_events_are_seen_without_a_restart(tmp_path: Path) -> None:
    clock = Clock()
    with client(tmp_path / "store", events=[event(1)], clock=clock) as web:
        assert ">1 event" in web.get("/events").text
        make_store(tmp_path / "store", [event(2)])
        clock.time += 2
        assert ">2 events" in web.get("/events").text


def test_a_bug_in_a_page_is_said_without_content(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class Broken:
        def event(self, *_: object, **__: object) -> None:
            raise RuntimeError("a secret of an event")

    make_store(tmp_path / "store", [event(1)])
    clock = Clock()
    data = Data(tmp_path / "store", "redacted", clock)
    broken: Any = Broken()
    broken.tag_name = str
    with TestClient(build(data, ConsoleSettings(), broken, clock), base_url="http://127.0.0.1") as web:
        answer = web.get("/event/" + "0" * 32)
    assert answer.status_code == 500
    assert "This page failed" in answer.text
    assert answer.headers["content-security-policy"] == POLICY
    told = capfd.readouterr()
    assert "secret" not in answer.text + told.out + told.err


def test_a_question_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    make_store(tmp_path / "store", [event(1)])
    data = Data(tmp_path / "store", "redacted", Clock(), seconds=0.05)
    heavy = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE hash(a.range, b.range) = 1"
    with pytest.raises(TooMuchError, match="too long"):
        data.read(lambda connection: connection.execute(heavy).fetchall())
    data._seconds = 60.0  # the next one is quick, but not on every machine
    assert data.read(lambda connection: connection.execute("SELECT count(*) FROM events").fetchall()) == [(1,)]
    data.close()


def test_the_vendored_library_is_what_it_says() -> None:
    folder = Path(console.__file__).parent / "static" / "vendor"
    told = (folder / "README.md").read_text()
    assert hashlib.sha256((folder / "echarts.min.js").read_bytes()).hexdigest() in told
    assert "Apache License" in (folder / "LICENSE.echarts").read_text()
    assert "Apache ECharts" in (folder / "NOTICE.echarts").read_text()


def test_no_asset_names_another_host() -> None:
    folder = Path(console.__file__).parent
    for path in sorted([*folder.glob("templates/*.html"), *folder.glob("static/*")]):
        if path.is_file():
            found = set(re.findall(r"(?:https?:)?//[a-z0-9.-]+[.][a-z]{2,}", path.read_text()))
            assert found <= {"http://www.w3.org"}, (path.name, found)
