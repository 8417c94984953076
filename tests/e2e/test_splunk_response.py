"""From an alert in Splunk to a blocked key: the app's scripts, `aitrail serve` over TLS, and a gateway."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from aitrail.compiler.emit.packs import source_tree
from aitrail.testing.faults import HttpServer, Reply, Request
from aitrail.testing.peer import Behaviour, Script
from aitrail.testing.served import Served

APP = (source_tree() or Path()) / "splunk_app" / "aitrail"
KEY = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
CONFIG = """
[store]
dir = "store"
[serve]
tls_certificate = "server.pem"
tls_key = "server.key"
[respond]
tokens = ["env:RESPOND_TOKEN"]
dry_run = false
[respond.gateways.proxy]
url = "{gateway}"
key = "env:PROXY_KEY"
"""
# Splunk's own module, as far as the scripts use it: answers from a file.
REST = """
import json, os
from types import SimpleNamespace
from urllib.parse import urlsplit

def simpleRequest(path, sessionKey, method="GET", jsonargs=None, rawResult=False):
    with open(os.environ["SPLUNK_ANSWERS"]) as file:
        content = json.load(file)[urlsplit(path).path.rpartition("/")[2]]
    return SimpleNamespace(status=200), json.dumps({"entry": [{"content": content}]}).encode()
"""


class Splunk:
    """Runs an alert action as splunkd does: the script, ``--execute``, and the payload on stdin."""

    def __init__(self, folder: Path) -> None:
        (folder / "splunk").mkdir()
        (folder / "splunk" / "__init__.py").touch()
        (folder / "splunk" / "rest.py").write_text(REST)
        self.folder = folder
        self.answers = folder / "answers.json"

    def configure(self, url: str, token: str) -> None:
        response = {"url": url, "timeout_seconds": "30", "ca_file": str(self.folder / "ca.pem")}
        stored = {"clear_password": token}
        self.answers.write_text(json.dumps({"response": response, "aitrail%3Aresponse%3A": stored}))

    def act(self, action: str, configuration: dict[str, str], sid: str, **result: str) -> tuple[int, str]:
        payload = {
            "app": "aitrail",
            "owner": "nobody",
            "results_file": "/opt/splunk/var/run/splunk/dispatch/x/results.csv.gz",
            "search_name": "aitrail - A secret in an answer - Rule",
            "server_uri": "https://127.0.0.1:8089",
            "session_key": "s3ssion",
            "sid": sid,
            "configuration": configuration,
            "result": {"_time": "1799999001.125", "tenant_id": "acme", "user_id": "ines", "event_id": "e1", **result},
        }
        environment = {"PYTHONPATH": str(self.folder), "SPLUNK_ANSWERS": str(self.answers)}
        done = subprocess.run(
            [sys.executable, "-B", str(APP / "bin" / f"aitrail_{action}.py"), "--execute"],
            input=json.dumps(payload),
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stderr


@pytest.fixture
def asked() -> list[Any]:
    return []


@pytest.fixture
def gateway(asked: list[Any]) -> Iterator[str]:
    def answer(request: Request, behaviour: Behaviour | None) -> Reply:
        del behaviour
        asked.append((request.path, request.headers.get("authorization"), json.loads(request.body)))
        return Reply(200, b"{}")

    server = HttpServer(answer, Script(frozenset()), is_data=lambda request: False)
    yield server.url
    server.close()


def test_an_alert_blocks_a_key_once_and_opens_a_case(tmp_path: Path, gateway: str, asked: list[Any]) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued = authority.issue_cert("127.0.0.1", "localhost")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    issued.private_key_pem.write_to_path(tmp_path / "server.key")
    splunk = Splunk(tmp_path)
    block = {"kind": "credential", "value": KEY, "reason": "A secret was sent"}
    case = {"title": "A secret in an answer", "severity": "high"}
    environment = {"RESPOND_TOKEN": "t0ken", "PROXY_KEY": "sk-admin"}
    with Served(tmp_path, CONFIG.format(gateway=gateway), environment=environment) as served:
        splunk.configure(served.url, "wrong")
        assert splunk.act("block", block, "scheduler_1") == (
            3, "ERROR aitrail_block: the response API answered 401\n")  # fmt: skip
        assert asked == []
        splunk.configure(served.url, "t0ken")
        # Two runs of the same search over the same event: one finding, one effect.
        for sid in ("scheduler_1", "scheduler_2"):
            code, told = splunk.act("block", block, sid)
            assert (code, told) == (0, "INFO aitrail_block: done, status 200, blocked\n")
            code, told = splunk.act("case", case, sid)
            assert (code, told) == (0, "INFO aitrail_case: done, status 200, opened\n")
        assert asked == [("/key/block", "Bearer sk-admin", {"key": KEY})]
        assert splunk.act("block", {**block, "value": "AKIAIOSFODNN7EXAMPLE"}, "scheduler_3")[0] == 3
        assert served.stop() == 0
    written = [(one["action"], one["resource_type"], one["tenant_id"], one["purpose"]) for one in served.events()]
    assert sorted(written) == [
        ("response.block", "credential", "acme", "a secret was sent"),
        ("response.case", "finding", "acme", "a secret in an answer"),
    ]
    assert "t0ken" not in served.output
    assert KEY not in served.output
