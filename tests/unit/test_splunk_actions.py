"""The app's alert actions, as Splunk calls them: JSON on stdin, ``--execute``, and an answer by exit code."""

import io
import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trustme
from splunk_support import Splunkd

from aitrail.compiler.emit.packs import source_tree

BIN = (source_tree() or Path()) / "splunk_app" / "aitrail" / "bin"
CASE, BLOCK = ("title", "severity"), ("kind", "value", "reason")


class Receiver(BaseHTTPRequestHandler):
    asked: list[tuple[str, dict[str, str], Any]]
    status = 201

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.asked.append((self.path, dict(self.headers), json.loads(self.rfile.read(length))))
        self.send_response(self.status)
        self.send_header("Location", "https://elsewhere.example.com/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def splunk(monkeypatch: pytest.MonkeyPatch) -> Splunkd:
    peer, module = Splunkd(), ModuleType("splunk")
    peer.passwords["aitrail:response:"] = "t0ken"
    module.rest = peer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "splunk", module)
    monkeypatch.syspath_prepend(str(BIN))
    return peer


@pytest.fixture
def receiver(splunk: Splunkd, tmp_path: Path) -> Iterator[type[Receiver]]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    handler = type("Handler", (Receiver,), {"asked": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    splunk.conf["conf-aitrail/response"] |= {
        "url": f"https://localhost:{server.server_port}/",
        "ca_file": str(tmp_path / "ca.pem"),
    }
    yield handler
    server.shutdown()
    thread.join()
    server.server_close()


def run(action: str, names: tuple[str, ...], configuration: dict[str, str], **more: Any) -> int:
    from aitrail_response import main  # type: ignore[import-not-found]

    payload = {
        "session_key": "s3ssion",
        "sid": "scheduler_1",
        "search_name": "aitrail - A secret in an answer - Rule",
        "results_link": "https://splunk.example.com/app/search/@go?sid=scheduler_1",
        "configuration": configuration,
        "result": {"event_id": "e1", "tenant_id": "acme", "user_id": "ines.moreau", "prompt_text": "never sent"},
        **more,
    }
    code: int = main(action, names, ["x", "--execute"], io.StringIO(json.dumps(payload)))
    return code


BLOCKED = {"kind": "credential", "value": "AKIAIOSFODNN7EXAMPLE", "reason": "leaked"}


def test_a_block_is_asked_for(receiver: type[Receiver], splunk: Splunkd, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("block", BLOCK, BLOCKED) == run("block", BLOCK, BLOCKED) == 0
    (path, head, asked), (_, again, _) = receiver.asked
    assert path == "/v1/response/block"
    assert head["Authorization"] == "Bearer t0ken"
    assert head["Idempotency-Key"] == again["Idempotency-Key"]
    assert {name: asked[name] for name in BLOCK} == BLOCKED
    assert asked["evidence"] == {"event_id": "e1", "tenant_id": "acme", "user_id": "ines.moreau"}
    assert len(splunk.calls) == 4
    told = capsys.readouterr().err
    assert "INFO" in told
    assert not [one for one in ("t0ken", "AKIA", "ines", "never sent") if one in told]


def test_a_case_is_opened(receiver: type[Receiver]) -> None:
    assert run("case", CASE, {"title": "A secret in an answer", "severity": "high"}) == 0
    assert receiver.asked[0][0] == "/v1/response/case"
    assert receiver.asked[0][2]["severity"] == "high"


@pytest.mark.parametrize("status", [302, 403, 500])
def test_all_but_2xx_is_an_error_and_no_redirect_is_followed(
    receiver: type[Receiver], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver.status = status
    assert run("block", BLOCK, BLOCKED) == 3
    assert f"answered {status}" in capsys.readouterr().err
    assert len(receiver.asked) == 1


def test_a_certificate_that_nobody_vouches_for_is_refused(
    receiver: type[Receiver], splunk: Splunkd, capsys: pytest.CaptureFixture[str]
) -> None:
    splunk.conf["conf-aitrail/response"]["ca_file"] = ""
    assert run("block", BLOCK, BLOCKED) == 3
    assert "SSLCertVerificationError" in capsys.readouterr().err
    assert receiver.asked == []


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "no url"),
        ("http://collector.example.com", "must be https"),
        ("https://u:p@collector.example.com", "must be https"),
        ("file:///etc/passwd", "must be https"),
    ],
)
def test_an_address_that_will_not_do_is_told(
    splunk: Splunkd, url: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    splunk.conf["conf-aitrail/response"]["url"] = url
    assert run("block", BLOCK, BLOCKED) == 3
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("token", ["", "gone"])
def test_without_a_token_nothing_is_sent(
    receiver: type[Receiver], splunk: Splunkd, token: str, capsys: pytest.CaptureFixture[str]
) -> None:
    splunk.passwords = {"aitrail:response:": token} if token != "gone" else {}
    assert run("block", BLOCK, BLOCKED) == 3
    assert "storage/passwords" in capsys.readouterr().err
    assert receiver.asked == []


@pytest.mark.parametrize(
    "changes", [{"value": ""}, {"value": "$result.credential_id$"}, {"kind": "host"}, {"reason": "a\nb"}]
)
def test_a_setting_that_is_missing_or_wrong_is_told(
    splunk: Splunkd, changes: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("block", BLOCK, {**BLOCKED, **changes}) == 3
    assert next(iter(changes)) in capsys.readouterr().err
    assert splunk.calls == []


@pytest.mark.parametrize("name", ["aitrail_case", "aitrail_block"])
@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["--execute"], 3)])
def test_the_scripts_run_alone(name: str, arguments: list[str], code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-B", str(BIN / f"{name}.py"), *arguments],
        input=b"no payload",
        capture_output=True,
        check=False,
    )
    assert done.returncode == code
    assert done.stderr.startswith(f"ERROR {name}".encode())
