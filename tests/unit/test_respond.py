"""The response API: who may ask, what is done once, what a gateway is asked, what is written down."""

import asyncio
import json
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from aitrail.clock import SystemClock
from aitrail.config import Config, parse
from aitrail.errors import ConfigError, StoreError
from aitrail.event import decode
from aitrail.runtime.cli import cli
from aitrail.runtime.responding import make_responder
from aitrail.secrets import Secrets
from aitrail.spool import Spool
from aitrail.testing.faults import HttpServer, Reply, Request
from aitrail.testing.peer import Behaviour, Script
from aitrail.web.app import App
from aitrail.web.auth import Gate
from aitrail.web.intake import Committer
from aitrail.web.respond import Responses
from aitrail.web.settings import ReceiverSettings, RespondSettings, served

KEY = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
CASE = {"title": "A secret in an answer", "severity": "high", "finding": "f1", "evidence": {"tenant_id": "acme"}}
BLOCK = {"kind": "credential", "value": KEY, "reason": "Leaked", "finding": "f1", "evidence": {"tenant_id": "acme"}}


class LiteLLM:
    """The proxy's management calls, as its documentation has them."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.status = 200
        self._server = HttpServer(self._answer, Script(frozenset()), is_data=lambda request: False)
        self.url = self._server.url

    def _answer(self, request: Request, behaviour: Behaviour | None) -> Reply:
        del behaviour
        if request.headers.get("authorization") != "Bearer sk-admin":
            return Reply(401, b"{}")
        self.asked.append((request.path, json.loads(request.body)))
        known = request.path in ("/key/block", "/customer/block")
        return Reply(self.status if known else 404, b"{}")

    def close(self) -> None:
        self._server.close()


class World:
    """The server's application with a store and one gateway."""

    def __init__(self, folder: Path, gateway: str, respond: str, more: str = "") -> None:
        self.spool = Spool.open(folder / "store", SystemClock())
        text = f'[respond]\ntokens = ["env:RESPOND_TOKEN"]\n{respond}\n'
        text += f'[respond.gateways.proxy]\nurl = "{gateway}"\nkey = "env:PROXY_KEY"\n' if gateway else ""
        text += more
        self.config = parse(text, folder / "aitrail.toml")
        settings = served(self.config).respond
        self.woken = 0
        self.responder = make_responder(
            self.config, settings, self.spool, ("store",), Secrets(), SystemClock(), self._wake
        )
        gate = Gate("respond", ReceiverSettings(tokens=settings.tokens), Secrets(), SystemClock())
        committer = Committer(1 << 20, lambda error: None, lambda: 0.0)
        self.app = App([], committer, lambda: "", lambda: "", responses=Responses(gate, self.responder))

    def _wake(self) -> None:
        self.woken += 1

    def __call__(
        self, path: str, body: Any, *, token: str = "t0ken", method: str = "POST", key: str = ""
    ) -> tuple[int, dict[str, Any]]:
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            return {"type": "http.request", "body": raw, "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        headers = [(b"authorization", f"Bearer {token}".encode()), (b"idempotency-key", key.encode())]
        scope = {"type": "http", "method": method, "path": f"/v1/response/{path}", "headers": headers}
        asyncio.run(self.app(scope, receive, send))
        return sent[0]["status"], json.loads(sent[1]["body"])

    def events(self) -> list[Any]:
        """What is in the outbox for the store."""
        batch = self.spool.pending("store", 100, 1 << 20)
        return [decode(event.body) for event in batch.events] if batch is not None else []

    def close(self) -> None:
        self.responder.close()
        self.spool.close()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[LiteLLM]:
    monkeypatch.setenv("RESPOND_TOKEN", "t0ken")
    monkeypatch.setenv("PROXY_KEY", "sk-admin")
    peer = LiteLLM()
    yield peer
    peer.close()


@pytest.fixture
def dry(proxy: LiteLLM, tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, proxy.url, "")
    yield world
    world.close()


@pytest.fixture
def live(proxy: LiteLLM, tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, proxy.url, "dry_run = false")
    yield world
    world.close()


def test_a_case_is_a_number_and_an_event(dry: World) -> None:
    status, told = dry("case", CASE)
    assert (status, told["state"], told["finding"]) == (200, "opened", "f1")
    assert "no ticket system was asked" in told["message"]
    again = dry("case", {**CASE, "title": "another title"})
    assert again == (200, {**told, "repeated": True})
    (event,) = dry.events()
    assert (event.action, event.resource_type, event.resource_id) == ("response.case", "finding", "f1")
    assert (event.tenant_id, event.purpose, event.source) == ("acme", "a secret in an answer", "aitrail")
    assert dry.woken == 1


def test_a_key_is_blocked_once(live: World, proxy: LiteLLM) -> None:
    status, told = live("block", BLOCK)
    assert (status, told["state"], told["gateways"]) == (200, "blocked", ["proxy"])
    assert proxy.asked == [("/key/block", {"key": KEY})]
    assert live("block", BLOCK) == (200, {**told, "repeated": True})
    assert live("block", BLOCK, key="another") == (200, {**told, "repeated": True})
    assert len(proxy.asked) == 1
    (event,) = live.events()
    assert (event.action, event.resource_type, event.resource_id) == ("response.block", "credential", KEY)
    assert (event.outcome_status, event.related_ids, event.purpose) == ("success", ("f1",), "leaked")
    # Another finding: done.
    assert live("block", {**BLOCK, "finding": "f2"})[0] == 200
    assert proxy.asked[1:] == [("/key/block", {"key": KEY})]


def test_an_end_user_is_blocked_where_the_gateway_heeds_it(proxy: LiteLLM, tmp_path: Path) -> None:
    world = World(tmp_path, proxy.url, "dry_run = false", "users = true\n")
    assert world("block", {**BLOCK, "kind": "user", "value": "ines.moreau"})[0] == 200
    assert proxy.asked == [("/customer/block", {"user_ids": ["ines.moreau"]})]
    world.close()


def test_without_leave_nothing_is_blocked_and_that_is_said(dry: World, proxy: LiteLLM) -> None:
    status, told = dry("block", BLOCK)
    assert (status, told["state"], told["gateways"]) == (200, "dry_run", ["proxy"])
    assert told["message"].startswith("Nothing was blocked")
    assert proxy.asked == []
    (event,) = dry.events()
    assert (event.flags, event.resource_id) == (("dry_run",), KEY)
    assert dry("block", BLOCK)[1]["repeated"]


def test_once_blocking_is_allowed_the_same_request_blocks(proxy: LiteLLM, tmp_path: Path) -> None:
    for respond, state, calls in (("", "dry_run", 0), ("dry_run = false", "blocked", 1), ("", "blocked", 1)):
        world = World(tmp_path, proxy.url, respond)
        assert world("block", BLOCK)[1]["state"] == state
        assert len(proxy.asked) == calls
        world.close()


def test_a_gateway_that_fails_is_told_and_asked_again(live: World, proxy: LiteLLM) -> None:
    proxy.status = 500
    status, told = live("block", BLOCK)
    assert (status, told["error"]) == (502, "gateway_failed")
    assert "proxy: http_500" in told["message"]
    proxy.status = 200
    assert live("block", BLOCK)[1]["state"] == "blocked"
    assert len(proxy.asked) == 2
    assert [(one.outcome_status, one.error_code) for one in live.events()] == [("error", "http_500"), ("success", "")]


def test_a_gateway_that_is_gone_is_told(live: World, proxy: LiteLLM) -> None:
    proxy.close()
    status, told = live("block", BLOCK)
    assert (status, "proxy: unreachable" in told["message"]) == (502, True)


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ({"value": "AKIAIOSFODNN7EXAMPLE"}, ""),
        ({"evidence": {"tenant_id": "globex"}}, 'tenant = "acme"\n'),
        ({"kind": "user", "value": "ines.moreau"}, ""),
    ],
)
def test_what_no_gateway_can_block_is_refused(
    proxy: LiteLLM, tmp_path: Path, changes: dict[str, Any], more: str
) -> None:
    world = World(tmp_path, proxy.url, "dry_run = false", more)
    status, told = world("block", {**BLOCK, **changes})
    assert (status, told["error"]) == (422, "not_blockable")
    assert (proxy.asked, world.events()) == ([], [])
    assert world("block", BLOCK)[0] == 200
    world.close()


@pytest.mark.parametrize("token", ["", "wrong", "t0ken2"])
@pytest.mark.parametrize(("path", "body"), [("case", CASE), ("block", BLOCK)])
def test_who_has_not_the_token_gets_nothing(live: World, proxy: LiteLLM, token: str, path: str, body: Any) -> None:
    status, told = live(path, body, token=token)
    assert (status, told["error"].startswith("token_")) == (401, True)
    assert (proxy.asked, live.events()) == ([], [])


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        ("case", b"no json", 400, "request_invalid"),
        ("case", b"[" * 50_000, 400, "request_invalid"),
        ("case", {**CASE, "severity": "awful"}, 400, "request_invalid"),
        ("case", {**CASE, "title": ""}, 400, "request_invalid"),
        ("case", {**CASE, "title": "a\nb"}, 400, "request_invalid"),
        ("case", {**CASE, "finding": ""}, 400, "key_missing"),
        ("block", {**BLOCK, "kind": "host"}, 400, "request_invalid"),
        ("block", {**BLOCK, "value": "x" * 1025}, 400, "request_invalid"),
        ("block", CASE, 400, "request_invalid"),
        ("block", b"x" * 70_000, 413, "body_too_large"),
        ("other", CASE, 404, "path_unknown"),
    ],
)
def test_what_is_wrong_is_refused(live: World, path: str, body: Any, status: int, told: str) -> None:
    found, answer = live(path, body)
    assert (found, answer["error"]) == (status, told)
    assert "secret" not in json.dumps(answer).lower()
    assert live.events() == []


def test_other_methods_are_refused(live: World) -> None:
    assert live("case", CASE, method="GET")[0] == 405


def test_without_a_finding_the_requests_own_key_makes_it_once(dry: World) -> None:
    bare = {**CASE, "finding": ""}
    first, second, third = (dry("case", bare, key=key)[1] for key in ("a", "a", "b"))
    assert (second["id"], second["repeated"]) == (first["id"], True)
    assert third["id"] != first["id"]
    assert dry("case", bare, key="x" * 300)[0] == 400


def test_a_tenant_that_is_none_is_the_default(dry: World) -> None:
    dry("case", {**CASE, "evidence": {"tenant_id": "../x"}})
    assert dry.events()[0].tenant_id == "default"


def test_what_cannot_be_recorded_is_not_done(live: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise StoreError("full")

    monkeypatch.setattr(live.spool, "commit", full)
    assert live("case", CASE)[0] == 503
    monkeypatch.undo()
    assert "repeated" not in live("case", CASE)[1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[respond]\ntokens = ["plain"]', "respond.tokens"),
        ("[respond]\ntoken = 1", "tokens"),
        ('[respond.gateways.a]\nurl = "https://a"\nkey = "env:A"', "respond.tokens"),
        ('[respond]\ntokens = ["env:A"]\n[respond.gateways.a]\nurl = "https://a"\nkey = "sk-1"', "gateways.a.key"),
        ('[respond]\ntokens = ["env:A"]\n[respond.gateways.a]\nurl = "https://a"', "key"),
        (
            '[respond]\ntokens = ["env:A"]\n[respond.gateways.a]\nurl = "https://a"\nkey = "env:A"\nca_file = "no"',
            "ca_",
        ),
        ('[receivers.a]\npath = "/v1/response/case"\nopen = true', "path"),
    ],
)
def test_settings_that_will_not_do(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as found:
        served(parse(text, tmp_path / "aitrail.toml"))
    assert said in found.value.sentence


def test_check_says_whether_it_blocks(proxy: LiteLLM, tmp_path: Path) -> None:
    path = tmp_path / "aitrail.toml"
    gateway = f'[respond.gateways.proxy]\nurl = "{proxy.url}"\nkey = "env:PROXY_KEY"\n'
    for setting, said in (("", "(dry run)"), ("dry_run = false\n", "(blocks at proxy)")):
        path.write_text(f'[respond]\ntokens = ["env:RESPOND_TOKEN"]\n{setting}{gateway}')
        done = CliRunner().invoke(cli, ["check", "-c", str(path)], env={"COLUMNS": "200"})
        assert said in done.output
        assert "nothing is wrong" in done.output
    path.write_text(path.read_text().replace("env:PROXY_KEY", "env:NOT_THERE"))
    done = CliRunner().invoke(cli, ["check", "-c", str(path)], env={"COLUMNS": "200"})
    assert "wrong: the environment variable NOT_THERE is not set" in done.output


def test_a_gateway_is_reached_by_https_or_not_at_all(proxy: LiteLLM, tmp_path: Path) -> None:
    del proxy
    for url in ("http://proxy.example.com", "https://u:p@proxy.example.com", "ftp://x"):
        with pytest.raises(ConfigError):
            World(tmp_path / url[:6].strip(":/"), url, "")
    with pytest.raises(ConfigError, match="no gateway"):
        World(tmp_path / "none", "", "dry_run = false")
    assert msgspec.structs.asdict(RespondSettings())["dry_run"] is True
    assert Config().respond == {}
