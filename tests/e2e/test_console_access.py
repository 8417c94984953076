"""Who may see what on the console: content modes, log-in, and refusing to start open to others."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from console_support import Clock, client, event, make_store
from starlette.testclient import TestClient

from aitrail.errors import ConfigError
from aitrail.web.console.app import PAGES
from aitrail.web.console.settings import checked

# --- content above the viewer's mode


SECRET = "Send it to jane.doe@example.com with card 4111 1111 1111 1111 please."


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("full") / "store"
    events = [
        event(
            1,
            prompt_text=SECRET,
            response_text="Done, the code word is xylophone.",
            prompt_hash="hmac-sha256:k1:abcd",
            content_mode="full",
            evidence=("word|plain|user|0-4",),
        ),
        event(2, prompt_text="a masked [card] text", prompt_hash="hmac-sha256:k1:ef01", content_mode="redacted"),
        event(3, prompt_text="c2VhbGVk", prompt_hash="hmac-sha256:k1:9999", content_mode="sealed"),
    ]
    with client(store, events=events):
        return store


@pytest.mark.parametrize(
    ("mode", "seen", "hidden"),
    [
        ("full", ["4111 1111 1111 1111", "xylophone", "a masked [card] text", "hmac-sha256:k1:abcd"], ["c2VhbGVk"]),
        ("redacted", ["a masked [card] text", "hmac-sha256:k1:abcd"], ["4111", "jane.doe", "c2VhbGVk"]),
        ("hash", ["hmac-sha256:k1:abcd"], ["4111", "xylophone", "a masked", "c2VhbGVk"]),
        ("none", [], ["4111", "xylophone", "a masked", "c2VhbGVk", "hmac-sha256:"]),
        ("sealed", ["hmac-sha256:k1:abcd"], ["4111", "xylophone", "a masked"]),
    ],
)
def test_no_way_leads_to_content_above_the_mode(full: Path, mode: str, seen: list[str], hidden: list[str]) -> None:
    with client(full, content=mode) as web:
        ids = re.findall(r'class="main" href="/event/([0-9a-f]{32})"', web.get("/events?range=all").text)
        paths = [f"/events{kind}?range=all" for kind in ("", ".csv", ".json")]
        paths += ["/api/panel/usage/prompts?range=all", "/board/usage/prompts?range=all"]
        paths += ["/api/panel/departments/same_text?range=all", "/board/usage/prompts.csv?range=all"]
        paths += ["/search?q=please", "/search?q=xylophone", f"/session/{ids[0]}"]
        paths += [f"/event/{one}{end}" for one in ids for end in ("", ".json", "?raw=1")]
        everything = "".join(
            web.get(path).text.replace("for <b><bdi>xylophone", "").replace('value="xylophone"', "") for path in paths
        )
        for text in seen:
            assert text in everything, text
        for text in hidden:
            assert text not in everything, text


def test_hidden_text_cannot_be_guessed_by_searching(full: Path) -> None:
    """Neither a search nor a filter nor a sort says anything about a text that is not shown."""
    with client(full, content="redacted") as web:
        assert "No event holds these words" in web.get("/search?q=xylophone").text
        assert "No event is like this" in web.get("/events?range=all&q=4111").text
        assert ">3 events" in web.get("/events?range=all&prompt_text=x").text
    with client(full, content="full") as web:
        assert "<mark>xylophone</mark>" in web.get("/search?q=xylophone").text
    with client(full, content="none") as web:
        assert "No event is like this" in web.get("/events?range=all&prompt_hash=hmac-sha256:k1:abcd").text


def test_a_full_text_is_masked_for_who_may_see_redacted(full: Path) -> None:
    with client(full, content="redacted") as web:
        ids = re.findall(r'class="main" href="/event/([0-9a-f]{32})"', web.get("/events?range=all").text)
        pages = [web.get(f"/event/{one}").text for one in ids]
        masked = [page for page in pages if "The store keeps this text as <b>full</b>" in page]
        assert len(masked) == 1
        assert "[card_number]" in masked[0]
        assert "xylophone" in masked[0]
        assert "<mark>Send" in masked[0]


# --- log-in

TOKEN = "a-token-that-nobody-guesses-1234"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("small") / "store", [event(1)])


@pytest.fixture
def guarded(small: Path) -> Iterator[tuple[TestClient, Clock]]:
    clock = Clock()
    with client(small, token=TOKEN, clock=clock) as web:
        yield web, clock


def test_nothing_is_shown_before_log_in(guarded: tuple[TestClient, Clock]) -> None:
    web, _ = guarded
    for path in PAGES:
        real = path.format(board="usage", panel="calls", event_id="0" * 32, finding_id="0" * 32)
        answer = web.get(real, headers={"accept": "text/html"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/login"), path
        assert web.get(real, headers={"accept": "application/json"}).status_code == 401, path
    assert web.get("/login").status_code == 200
    assert web.get("/static/console.css").status_code == 200


def test_log_in_and_out(guarded: tuple[TestClient, Clock]) -> None:
    web, _ = guarded
    answer = web.post("/login", data={"token": f" {TOKEN}\n"})
    cookie = answer.headers["set-cookie"]
    assert answer.status_code == 303
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    assert web.get("/events").status_code == 200
    assert web.get("/login").headers["location"] == "/"
    assert "Log out" in web.get("/events").text
    old = web.cookies["aitrail"]
    assert web.post("/logout").headers["location"] == "/login"
    web.cookies.set("aitrail", old)
    assert web.get("/events").status_code == 401


def test_sessions_end(guarded: tuple[TestClient, Clock]) -> None:
    web, clock = guarded
    web.post("/login", data={"token": TOKEN})
    for _ in range(12):
        clock.time += 3000
        assert web.get("/health").status_code == 200
    clock.time += 3700
    assert web.get("/health").status_code == 401
    web.post("/login", data={"token": TOKEN})
    for _ in range(14):
        clock.time += 3000
        web.get("/health")
    clock.time += 3000
    assert web.get("/health").status_code == 401


def test_guessing_gets_slow(guarded: tuple[TestClient, Clock]) -> None:
    web, clock = guarded
    for _ in range(3):
        answer = web.post("/login", data={"token": "wrong"})
        assert answer.status_code == 401
        assert "not the token" in answer.text
        assert "set-cookie" not in answer.headers
    answer = web.post("/login", data={"token": TOKEN})
    assert answer.status_code == 429, "who guesses waits, even with the right token"
    assert answer.headers["retry-after"] == "2" or int(answer.headers["retry-after"]) <= 3
    clock.time += 3
    assert web.post("/login", data={"token": "wrong"}).status_code == 401
    clock.time += 3
    assert web.post("/login", data={"token": TOKEN}).status_code == 429
    clock.time += 5
    assert web.post("/login", data={"token": TOKEN}).status_code == 303


@pytest.mark.parametrize("body", [b"", b"token", b"token=%ff", b"x=1&" * 50, b"token=" + b"a" * 100_000, b"\xff\xfe"])
def test_a_broken_form_is_a_wrong_token(guarded: tuple[TestClient, Clock], body: bytes) -> None:
    answer = guarded[0].post("/login", content=body, headers={"content-type": "application/x-www-form-urlencoded"})
    assert answer.status_code == 401


def test_another_site_cannot_log_in_for_the_viewer(guarded: tuple[TestClient, Clock]) -> None:
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert guarded[0].post("/login", data={"token": TOKEN}, headers=headers).status_code == 403


def test_over_tls_the_cookie_stays_there(small: Path) -> None:
    with client(small, token=TOKEN, secure=True) as web:
        answer = web.post("/login", data={"token": TOKEN})
        assert answer.headers["set-cookie"].startswith("__Host-aitrail=")
        assert "Secure" in answer.headers["set-cookie"]
        assert "max-age" in answer.headers["strict-transport-security"]


# --- the command


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"host": "0.0.0.0"}, "without a token"),
        ({"host": "::"}, "without a token"),
        ({"host": "192.0.2.1", "token": TOKEN}, "without TLS"),
        ({"token": "short"}, "fewer than 20 characters"),
        ({"token": "two words are no token at all"}, "spaces"),
        ({"token": TOKEN, "mode": 0o644}, "can be read by others"),
        ({"token": None}, "cannot be read"),
        ({"names": ("-bad-",)}, "is no host name"),
        ({"certificate": Path("x")}, "needs both files"),
    ],
)
def test_it_refuses_to_start_open_to_others(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "content": "redacted", "token_file": None}
    if "token" in options:
        given["token_file"] = tmp_path / "token"
        if options["token"] is not None:
            given["token_file"].write_text(options["token"])
            given["token_file"].chmod(options.get("mode", 0o600))
    given |= {key: value for key, value in options.items() if key not in ("token", "mode")}
    with pytest.raises(ConfigError, match=message) as caught:
        checked(**given)
    assert TOKEN not in str(caught.value)
