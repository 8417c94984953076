"""The console in headless Chromium: the way from a spike to the evidence, and texts that try to act on the viewer."""

import csv
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from console_support import SESSION, day, make_store
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Route, expect, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from aitrail.runtime.cli.detect import run_rules
from aitrail.store import boards

ROOT = Path(__file__).parents[2]
SHOTS = ROOT / ".cache" / "screenshots"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip
# Generous: what is waited for comes at once, unless the machine is very busy.
PATIENCE = 60_000
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}
BOARDS = [board.name for board in boards.load()]
LOADING = "[data-panel]:not([data-state=ready]):not([data-state=empty]):not([data-state=error])"

pytestmark = pytest.mark.skipif(
    not CHROMIUM and not os.environ.get("CI"), reason="no chromium on this machine: .ci/browser installs it"
)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A console in a process of its own, as a person starts it."""
    store = make_store(tmp_path_factory.mktemp("browser") / "store", day())
    run_rules(store)
    command = [sys.executable, "-m", "aitrail", "console", "--store", str(store), "--port", "0"]
    environment = {**os.environ, "COLUMNS": "200"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        try:
            told = process.stderr.readline()
            found = re.search(r"http://[0-9.:]+/", told)
            assert found is not None, told + process.stderr.read()
            yield found[0].rstrip("/")
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM or "/usr/bin/chromium", args=FLAGS)
        yield made
        made.close()


class Seen:
    """What a page did that it must not do."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.trouble: list[str] = []
        self._url = url
        context.on("request", self._request)
        context.on("page", self._opened)

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self._url + "/", "blob:" + self._url)):
            self.trouble.append(f"asked for {request.url}")

    def _opened(self, page: Page) -> None:
        page.on("dialog", lambda dialog: (self.trouble.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.trouble.append(f"error {error}"))

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.trouble.append(f"console: {message.text}")


@contextmanager
def _page(browser: Browser, url: str, **options: Any) -> Iterator[tuple[Page, Seen]]:
    context = browser.new_context(**{"viewport": DESK, "base_url": url, **options})
    context.set_default_timeout(PATIENCE)
    seen = Seen(context, url)
    page = context.new_page()
    try:
        yield page, seen
    finally:
        context.close()


def _shot(page: Page, name: str) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png")


def _loaded(page: Page, *, every: bool = False) -> None:
    """Wait until the panels in view (or all of them) show something."""
    if every:
        height = page.evaluate("document.documentElement.scrollHeight")
        page.set_viewport_size({"width": page.evaluate("window.innerWidth"), "height": height})
        expect(page.locator(LOADING)).to_have_count(0, timeout=PATIENCE)
    else:
        expect(page.locator("[data-panel]").first).to_have_attribute("data-state", "ready", timeout=PATIENCE)


_PEAK = """box => {
    const chart = window.echarts.getInstanceByDom(box);
    const series = chart.getOption().series;
    const sums = series[0].data.map((_, place) => series.reduce((sum, one) => sum + (one.data[place] || 0), 0));
    const most = Math.max(...sums);
    // Half way up: at the top and at the foot there are points of single series, which lead to that series alone.
    const x = chart.convertToPixel({xAxisIndex: 0}, sums.indexOf(most));
    const y = chart.convertToPixel({yAxisIndex: 0}, most / 2);
    const at = box.getBoundingClientRect();
    return [at.left + x, at.top + y];
}"""


_UNNAMED = """found => found.filter(one =>
    !(one.textContent.trim() || one.getAttribute("aria-label") || one.title || one.labels?.length)
).map(one => one.outerHTML)"""


def _follow_peak(page: Page, panel: Locator, url: str) -> None:
    """Click the highest point; again when the page moved between the look and the click, as a person would."""
    board = page.url
    for _ in range(8):
        at = None
        while at != (at := panel.locator(".chart").evaluate(_PEAK)):
            page.wait_for_timeout(250)
        page.mouse.click(*at)
        with suppress(PlaywrightTimeout):
            page.wait_for_url(url, timeout=10_000)
            return
        if page.url != board:  # a bar beside it
            page.goto(board)
            expect(page.locator("[data-state=loading]")).to_have_count(0)
            expect(panel).to_have_attribute("data-state", "ready")
    raise AssertionError("no click on the spike leads to its events")


def test_from_a_spike_to_the_evidence_and_the_export(browser: Browser, url: str, tmp_path: Path) -> None:
    with _page(browser, url) as (page, seen):
        page.goto("/board/usage?range=all&tenant_id=acme")
        panel = page.locator("#calls_course")
        expect(panel).to_have_attribute("data-state", "ready")
        expect(page.locator("#calls .number")).to_contain_text(re.compile(r"\d"))
        _shot(page, "1-dashboard")
        # The spike.
        expect(page.locator("[data-state=loading]")).to_have_count(0)
        _follow_peak(page, panel, "**/events?*since=2026-11-23T15%3A00*")
        assert "panel=usage%2Fcalls_course" in page.url
        assert "tenant_id=acme" in page.url
        _shot(page, "2-behind-the-spike")
        # Filter.
        page.get_by_label("User").fill("mallory")
        page.get_by_role("button", name="Apply").click()
        page.wait_for_url("**user_id=mallory*")
        assert "since=2026-11-23T15" in page.url, "the time of the spike is kept"
        page.get_by_role("navigation", name="Sort by").get_by_role("link", name="risk").click()
        page.wait_for_url("**sort=risk*")
        # The event and its session.
        page.locator("table.events a.main").first.click()
        page.wait_for_url("**/event/*")
        expect(page.get_by_role("heading", name="mallory")).to_be_visible()
        _shot(page, "3-event")
        page.get_by_role("link", name="Open the session").click()
        page.wait_for_url("**/session/*")
        expect(page.locator(".turn")).to_have_count(5)
        # The evidence.
        marked = page.locator(".turn mark").first
        expect(marked).to_contain_text("ignore all previous instructions")
        expect(page.locator(".turn .evidence").first).to_contain_text("override_instructions")
        _shot(page, "4-session")
        # The export.
        with page.expect_download() as download:
            page.locator("#export-csv").click()
        download.value.save_as(tmp_path / "session.csv")
        assert not seen.trouble
    rows = list(csv.DictReader((tmp_path / "session.csv").read_text().splitlines()))
    assert {row["session_id"] for row in rows} == {SESSION}
    assert len(rows) == 5


def test_nothing_of_an_event_runs_or_is_fetched(browser: Browser, url: str) -> None:
    with _page(browser, url) as (page, seen):
        for name in BOARDS:
            page.set_viewport_size(DESK)
            page.goto(f"/board/{name}?range=all")
            _loaded(page, every=True)
            expect(page.locator("[data-state=error]")).to_have_count(0)
            # Tooltips draw texts, too.
            for chart in page.locator(".chart").all():
                box = chart.bounding_box()
                assert box is not None
                page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.6)
            for swap in page.locator("button.swap").all():
                swap.click()
            page.set_viewport_size(DESK)
            _shot(page, f"hostile-{name}")
        page.goto("/events?range=all&q=window.pwned")
        links = [link.get_attribute("href") for link in page.locator("table.events a.main").all()]
        assert len(links) >= 2
        for path in [
            *links,
            f"{links[0]}".replace("event", "session"),
            "/findings?range=all",
            "/search?q=%7B%7B7*7%7D%7D",
        ]:
            page.goto(f"{path}")
            assert page.evaluate("window.pwned === undefined"), path
        finding = page.goto("/findings?range=all") and page.locator("a.main").first.get_attribute("href")
        page.goto(f"{finding}")
        assert page.evaluate("document.querySelectorAll('main img, main svg[onload], iframe, object').length") == 0
        assert not seen.trouble, seen.trouble


def test_it_works_on_a_phone_and_in_the_dark(browser: Browser, url: str) -> None:
    with _page(browser, url, viewport=PHONE, color_scheme="dark", has_touch=True) as (page, seen):
        paths = ["/board/usage?range=all", "/board/threats?range=all", "/events?range=all", "/findings?range=all"]
        page.goto("/events?range=all&user_id=mallory&sort=risk")
        paths.append(f"{page.locator('table.events a.main').first.get_attribute('href')}")
        for path in [*paths, "/search?q=instructions", "/nowhere"]:
            page.goto(path)
            if path.startswith("/board"):
                _loaded(page)
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (
                f"{path} scrolls sideways"
            )
            _shot(page, f"phone-{re.sub('[^a-z]+', '-', path)[1:20]}")
        pages = page.locator("#pages")
        expect(pages).to_be_hidden()
        page.get_by_role("button", name="Pages").tap()
        expect(pages).to_be_visible()
        seen.trouble = [one for one in seen.trouble if "404" not in one]  # the page that is not there
        assert not seen.trouble


def test_the_keyboard_is_enough(browser: Browser, url: str) -> None:
    with _page(browser, url, reduced_motion="reduce") as (page, seen):
        page.goto("/board/usage?range=all")
        _loaded(page)
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
        page.keyboard.press("/")
        expect(page.locator("#find")).to_be_focused()
        summary = page.locator("#calls_course .help summary")
        summary.focus()
        page.keyboard.press("Enter")
        expect(page.locator("#calls_course .help p")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("#calls_course .help p")).to_be_hidden()
        swap = page.get_by_role("button", name="Show Calls over time, by model as a table")
        swap.focus()
        assert swap.evaluate("one => getComputedStyle(one).outlineStyle") == "solid"
        page.keyboard.press("Enter")
        row = page.locator("#calls_course table a").first
        row.focus()
        page.keyboard.press("Enter")
        page.wait_for_url("**/events?*since=*")
        # Everything that can be used has a name.
        for path in ("/board/threats?range=all", "/events?range=all", "/findings?range=all"):
            page.goto(path)
            unnamed = page.locator("a, button, input:not([type=hidden]), select, summary").evaluate_all(_UNNAMED)
            assert unnamed == []
        assert not seen.trouble


def test_the_theme_is_remembered(browser: Browser, url: str) -> None:
    with _page(browser, url, color_scheme="light") as (page, seen):
        page.goto("/board/cost?range=all")
        _loaded(page)
        light = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.get_by_role("button", name="Switch between light and dark").click()
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert light != dark
        _shot(page, "dark-cost")
        page.goto("/findings?range=all")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark
        assert not seen.trouble


def test_a_panel_that_fails_says_so_and_can_be_asked_again(browser: Browser, url: str) -> None:
    with _page(browser, url) as (page, _):
        broken = [True]

        def answer(route: Route) -> None:
            if broken[0]:
                route.fulfill(
                    status=503, json={"error": "this question took too long", "hint": "choose a shorter range"}
                )
            else:
                route.continue_()

        page.route("**/api/panel/usage/calls?*", answer)
        page.goto("/board/usage?range=all")
        panel = page.locator("#calls")
        expect(panel.get_by_role("alert")).to_contain_text("took too long; choose a shorter range")
        expect(page.locator("#people")).to_have_attribute("data-state", "ready")
        broken[0] = False
        panel.get_by_role("button", name="Try again").click()
        expect(panel).to_have_attribute("data-state", "ready")


def test_without_scripts_there_are_tables(browser: Browser, url: str) -> None:
    with _page(browser, url, java_script_enabled=False) as (page, seen):
        page.goto("/board/usage?range=all")
        page.get_by_role("link", name="Show this dashboard as tables").click()
        expect(page.locator("#users table tbody tr").first).to_be_visible()
        page.locator("#users").get_by_role("link", name="events").first.click()
        expect(page.locator("table.events tbody tr").first).to_be_visible()
        page.get_by_label("User").fill("mallory")
        page.get_by_role("button", name="Apply").click()
        expect(page.locator("#count")).to_contain_text("event")
        assert not seen.trouble
