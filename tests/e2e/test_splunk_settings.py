"""The Splunk app's settings page in headless Chromium, against splunkd's REST API behind a web server like Splunk's."""

import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from splunk_support import Splunkd

from aitrail.compiler.emit.packs import source_tree

ROOT = source_tree() or Path()
APP = ROOT / "splunk_app" / "aitrail"
SHOTS = ROOT / ".cache" / "screenshots"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]  # fmt: skip
PATIENCE = 60_000
RAW = "/en-US/splunkd/__raw"
TOKEN, FORM_KEY = "a-token-of-the-collector", "1234567890123456789"

pytestmark = pytest.mark.skipif(
    not CHROMIUM and not os.environ.get("CI"), reason="no chromium on this machine: .ci/browser installs it"
)


class Web(ThreadingHTTPServer):
    """Splunk Web, as far as the page needs it: the view, the app's static files, and the way to splunkd."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.splunkd = Splunkd()
        self.answers: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def page(self) -> str:
        """What Splunk makes of the view: its HTML panel, its style and its script, after its own globals."""
        view = (APP / "default" / "data" / "ui" / "views" / "settings.xml").read_text(encoding="utf-8")
        panel = re.search(r"<html>(.*)</html>", view, re.DOTALL)
        names = re.search(r'script="([\w.]+)" stylesheet="([\w.]+)"', view)
        assert panel is not None
        assert names is not None
        known = json.dumps({"LOCALE": "en-US", "SPLUNKD_PATH": RAW, "MRSPARKLE_PORT_NUMBER": self.server_port})
        return (
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Settings</title>'
            f'<link rel="stylesheet" href="/static/{names[2]}">'
            '<body style="background:#111215;font-family:DejaVu Sans">'
            f"<script>window.$C = {known}</script><div id='page'></div><script src='/static/{names[1]}'></script>"
            # Drawn after the script has run, as a page that loads piece by piece.
            f"<script>document.getElementById('page').innerHTML = {json.dumps(panel[1])}</script>"
        )


class Handler(BaseHTTPRequestHandler):
    server: Web

    def do_GET(self) -> None:
        if self.path == "/":
            self._send(200, "text/html", self.server.page().encode())
        elif self.path.startswith("/static/"):
            path = APP / "appserver" / "static" / self.path.rpartition("/")[2]
            self._send(200, "text/css" if path.suffix == ".css" else "text/javascript", path.read_bytes())
        elif self.path.startswith(RAW):
            self._call("")
        else:
            self._send(404, "text/plain", b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        # Splunk Web takes no change without the key of its cookie ("CSRF validation failed").
        if self.headers["X-Splunk-Form-Key"] != FORM_KEY or self.headers["X-Requested-With"] != "XMLHttpRequest":
            self._send(401, "application/json", b'{"messages": [{"text": "CSRF validation failed"}]}')
            return
        self._call(body)

    def _call(self, body: str) -> None:
        status, content = self.server.splunkd.call(self.command, self.path.removeprefix(RAW), body)
        text = json.dumps(content)
        self.server.answers.append(text)
        self._send(status, "application/json", text.encode())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Set-Cookie", f"splunkweb_csrf_token_{self.server.server_port}={FORM_KEY}; Path=/")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web() -> Iterator[Web]:
    server = Web()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM or "/usr/bin/chromium", args=FLAGS)
        yield made
        made.close()


@pytest.fixture
def page(browser: Browser, web: Web) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 900, "height": 1000})
    made = context.new_page()
    made.set_default_timeout(PATIENCE)
    made.trouble = []  # type: ignore[attr-defined]
    made.on("pageerror", lambda error: made.trouble.append(str(error)))  # type: ignore[attr-defined]
    made.on("dialog", lambda dialog: made.trouble.append(dialog.message))  # type: ignore[attr-defined]
    yield made
    assert made.trouble == []  # type: ignore[attr-defined]
    context.close()


def opened(page: Page, web: Web) -> None:
    page.goto(web.url + "/")
    expect(page.locator("#aitrail-index")).not_to_have_value("", timeout=PATIENCE)


def saved(page: Page) -> None:
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_contain_text("Saved.", timeout=PATIENCE)


def test_from_nothing_to_set_up(page: Page, web: Web) -> None:
    splunkd = web.splunkd
    opened(page, web)
    assert page.get_by_label("Index").input_value() == "ai_audit"
    page.get_by_label("Index").fill("ai_prod")
    page.get_by_label("Least severity that is kept").select_option("medium")
    page.get_by_label("Most findings of one run").fill("50")
    page.get_by_label("Response API").fill("https://collector.example.com:8088")
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_label("File of certificate authorities").fill("/opt/splunk/etc/auth/collector.pem")
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / "splunk-settings.png", full_page=True)
    saved(page)
    assert splunkd.conf["conf-macros/aitrail_index"]["definition"] == "index=ai_prod"
    assert splunkd.conf["conf-aitrail/findings"] == {"index": "", "least_severity": "medium", "max_per_run": "50"}
    response = splunkd.conf["conf-aitrail/response"]
    assert (response["url"], response["ca_file"]) == (
        "https://collector.example.com:8088", "/opt/splunk/etc/auth/collector.pem")  # fmt: skip
    assert splunkd.passwords == {"aitrail:response:": TOKEN}
    assert splunkd.app["configured"] == "1"
    expect(page.get_by_role("status")).to_contain_text("does not know the index ai_prod")
    # The token is in storage/passwords and nowhere else: not in a conf file, not in an answer, not in the page.
    assert TOKEN not in json.dumps(splunkd.conf)
    assert not [answer for answer in web.answers if TOKEN in answer]
    assert page.get_by_label("Token").input_value() == ""
    assert TOKEN not in page.content()


def test_what_is_there_is_shown_and_only_changes_are_sent(page: Page, web: Web) -> None:
    splunkd = web.splunkd
    splunkd.passwords["aitrail:response:"] = "an-older-token"
    splunkd.conf["conf-aitrail/response"] |= {"url": "https://old.example.com", "timeout_seconds": "20"}
    opened(page, web)
    assert page.get_by_label("Response API").input_value() == "https://old.example.com"
    assert "is stored" in (page.get_by_label("Token").get_attribute("placeholder") or "")
    page.get_by_label("Seconds to wait for an answer").fill("30")
    splunkd.calls.clear()
    saved(page)
    changed = [path.removeprefix("/servicesNS/nobody/aitrail/") for method, path in splunkd.calls if method == "POST"]
    assert changed == ["configs/conf-aitrail/response", "apps/local/aitrail"]
    assert splunkd.passwords == {"aitrail:response:": "an-older-token"}
    page.get_by_label("Token").fill(TOKEN)
    saved(page)
    assert splunkd.passwords == {"aitrail:response:": TOKEN}
    assert not [answer for answer in web.answers if "an-older-token" in answer]


def test_a_macro_of_somebodys_own_is_kept(page: Page, web: Web) -> None:
    own = web.splunkd.conf["conf-macros/aitrail_index"]
    own["definition"] = "(index=ai_a OR index=ai_b)"
    page.goto(web.url + "/")
    expect(page.get_by_label("Index")).to_have_attribute("placeholder", "(index=ai_a OR index=ai_b)", timeout=PATIENCE)
    saved(page)
    assert own["definition"] == "(index=ai_a OR index=ai_b)"


WRONG = [
    ("Index", "Main Index", "lower-case letters"),
    ("Index", "a | delete", "lower-case letters"),
    ("Index", "", "This is needed"),
    ("Response API", "http://collector.example.com", "https://"),
    ("Response API", "https://u:p@collector.example.com", "no user"),
    ("Response API", "collector", "no address"),
    ("Response API", "https://collector.example.com", "An address needs a token"),
    ("Token", "short", "8 to 1024"),
    ("Most findings of one run", "0", "from 1 to 5000"),
    ("Seconds to wait for an answer", "61", "from 1 to 60"),
    ("File of certificate authorities", "ca.pem", "begins with /"),
]


def test_what_is_wrong_is_told_and_not_sent(page: Page, web: Web) -> None:
    opened(page, web)
    for label, text, told in WRONG:
        field = page.get_by_label(label)
        right = field.input_value()
        field.fill(text)
        page.get_by_role("button", name="Save").click()
        expect(page.locator(".aitrail-wrong", has_text=told)).to_be_visible(timeout=PATIENCE)
        assert page.locator("[aria-invalid=true]").count() == 1, (label, text)
        field.fill(right)
    assert not [path for method, path in web.splunkd.calls if method == "POST"]


def test_without_the_right_that_is_told(page: Page, web: Web) -> None:
    web.splunkd.forbidden = "conf-aitrail/findings"
    opened(page, web)
    page.get_by_label("Most findings of one run").fill("5")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_contain_text("Your role may not change the app", timeout=PATIENCE)
    assert web.splunkd.app["configured"] == "0"


def test_what_comes_back_is_text(page: Page, web: Web) -> None:
    hostile = '"><img src=x onerror=alert(1)>'
    web.splunkd.conf["conf-aitrail/response"]["url"] = hostile
    web.splunkd.conf["conf-macros/aitrail_index"]["definition"] = hostile
    page.goto(web.url + "/")
    expect(page.get_by_label("Response API")).to_have_value(hostile, timeout=PATIENCE)
    assert page.locator("#aitrail-settings img").count() == 0


def test_settings_that_cannot_be_read_are_not_saved(page: Page, web: Web) -> None:
    web.splunkd.session = "another"
    page.goto(web.url + "/")
    expect(page.get_by_role("status")).to_contain_text("cannot be read", timeout=PATIENCE)
    expect(page.get_by_role("button", name="Save")).to_be_disabled(timeout=PATIENCE)
