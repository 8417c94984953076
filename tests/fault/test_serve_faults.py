"""`aitrail serve` under fault: kill -9 at any moment loses no 202, a full disk takes nothing and loses nothing."""

import base64
import gzip
import hashlib
import hmac
import json
import resource
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from aitrail.testing.certificates import Authority
from aitrail.testing.served import Served, stored_events, wait_for

FIXTURES = Path(__file__).parents[1] / "fixtures"
SECRET = "s3cret-of-this-test"
ENVIRONMENT = {"AITRAIL_TEST_TOKEN": SECRET}
CONFIG = """
[store]
dir = "store"
[serve]
read_seconds = 4
grace_seconds = 5
[receivers.gateway]
path = "/in"
record_type = "litellm"
tokens = ["env:AITRAIL_TEST_TOKEN"]
max_body_mb = 1
max_text_mb = 4
[receivers.signed]
path = "/signed"
[receivers.signed.hmac]
secrets = ["env:AITRAIL_TEST_TOKEN"]
"""
RIGHT = {"authorization": f"Bearer {SECRET}"}


def payload(number: int) -> dict[str, Any]:
    return {
        "litellm_call_id": f"call-{number}",
        "call_type": "acompletion",
        "status": "success",
        "startTime": 1_795_000_000.0 + number,
        "endTime": 1_795_000_001.0 + number,
        "model": "openai/gpt-4o-mini",
        "messages": [{"role": "user", "content": f"question {number}"}],
        "response": {"choices": [{"message": {"content": "an answer"}}]},
        "metadata": {"user_api_key_user_id": "ines.moreau"},
    }


class Senders:
    """A few clients that post one record after another and remember which were answered 202."""

    def __init__(self, url: str, first: int, clients: int = 6) -> None:
        self.acknowledged: list[int] = []
        self.statuses: set[int] = set()
        self._url = url
        self._next = first
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, headers=RIGHT, timeout=100.0) as client:
            while not self._stop.is_set():
                with self._lock:
                    number, self._next = self._next, self._next + 1
                try:
                    status = client.post("/in", json=payload(number)).status_code
                except httpx.HTTPError:
                    return
                with self._lock:
                    self.statuses.add(status)
                    if status == 202:
                        self.acknowledged.append(number)

    def end(self) -> list[int]:
        self._stop.set()
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive()
        return self.acknowledged


def stored(folder: Path) -> list[int]:
    return sorted(int(row["source_event_id"].removeprefix("call-")) for row in stored_events(folder / "store"))


def test_no_202_is_lost_by_kill_9(tmp_path: Path) -> None:
    acknowledged: list[int] = []
    for turn in range(2):
        with Served(tmp_path, CONFIG, environment=ENVIRONMENT) as served:
            senders = Senders(served.url, first=turn * 1_000_000)
            wait_for(
                "acknowledgements",
                lambda senders=senders, turn=turn: len(senders.acknowledged) >= 40 + 30 * turn,
                180.0,
                0.001,
            )
            served.kill()
            acknowledged += senders.end()
    found = stored(tmp_path)
    assert len(acknowledged) >= 100
    assert set(acknowledged) - set(found) == set()
    assert len(found) == len(set(found))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("served"), CONFIG, environment=ENVIRONMENT) as one:
        yield one


@contextmanager
def disk_full(served: Served) -> Iterator[None]:
    """No file of the server may grow: what a full disk looks like to it."""
    process = psutil.Process(served.process.pid)
    process.rlimit(resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        process.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def test_a_full_disk(tmp_path: Path) -> None:
    with Served(tmp_path, CONFIG, environment=ENVIRONMENT) as served:
        assert served.post("/in", json.dumps(payload(1)).encode(), **RIGHT).status_code == 202
        with disk_full(served):
            for number in (2, 3):
                answer = served.post("/in", json.dumps(payload(number)).encode(), **RIGHT)
                assert (answer.status_code, answer.json()["error"]) == (503, "store_full")
                assert int(answer.headers["retry-after"]) >= 1
            assert httpx.get(served.url + "/health", timeout=60).status_code == 503
        again = wait_for("the store to take again", lambda: taken(served, 3), 180.0, 0.2)
        assert again.json() == {"records": 1, "accepted": 1}
        wait_for("good health", lambda: httpx.get(served.url + "/health", timeout=60).status_code == 200)
        assert served.stop() == 0
    assert stored(tmp_path) == [1, 3]


def taken(served: Served, number: int) -> httpx.Response | None:
    answer = served.post("/in", json.dumps(payload(number)).encode(), **RIGHT)
    return answer if answer.status_code == 202 else None


def test_a_replayed_signature_is_refused(served: Served) -> None:
    body = json.dumps(payload(10)).encode()
    when = str(int(time.time()))
    digest = hmac.new(SECRET.encode(), b"msg_10." + when.encode() + b"." + body, hashlib.sha256).digest()
    signed = {
        "webhook-id": "msg_10",
        "webhook-timestamp": when,
        "webhook-signature": "v1," + base64.b64encode(digest).decode(),
    }
    assert httpx.post(served.url + "/signed", content=body, headers=signed, timeout=60).status_code == 202
    replayed = httpx.post(served.url + "/signed", content=body, headers=signed, timeout=60)
    assert (replayed.status_code, replayed.json()["error"]) == (409, "replayed")
    assert httpx.post(served.url + "/signed", content=body + b" ", headers=signed, timeout=60).status_code == 401
    assert httpx.post(served.url + "/signed", content=body, timeout=60).status_code == 401


def talk(served: Served, *pieces: bytes, pause: float = 0.0) -> bytes:
    """Speak HTTP by hand; gives everything the server says until it hangs up."""
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=120) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause)
        said = b""
        try:
            while piece := connection.recv(65536):
                said += piece
        except ConnectionResetError:
            pass
        return said


HEAD = b"POST /in HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + SECRET.encode() + b"\r\n"


def test_slow_clients_are_given_up(served: Served) -> None:
    began = time.monotonic()
    assert talk(served, HEAD) == b""  # the head never ends
    assert b" 408 " in talk(served, HEAD + b"Content-Length: 100\r\n\r\n{")  # the body never ends
    assert time.monotonic() - began < 60
    assert served.post("/in", json.dumps(payload(20)).encode(), **RIGHT).status_code == 202


def test_slow_clients_hold_up_nobody(served: Served) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    slow = [socket.create_connection((host, int(port)), timeout=120) for _ in range(50)]
    try:
        for connection in slow:
            connection.sendall(HEAD)
        assert served.post("/in", json.dumps(payload(21)).encode(), **RIGHT).status_code == 202
    finally:
        for connection in slow:
            connection.close()


def test_bodies_that_are_too_large(served: Served) -> None:
    large = b"[" + b" " * (2 << 20) + b"]"
    assert served.post("/in", large, **RIGHT).status_code == 413
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n" % len(large) + large + b"\r\n0\r\n\r\n"
    assert b" 413 " in talk(served, chunked)[:40]


def test_a_gzip_bomb_costs_no_memory(served: Served) -> None:
    bomb = gzip.compress(b"\0" * (256 << 20), 9)
    assert len(bomb) < 1 << 20
    process = psutil.Process(served.process.pid)
    before = process.memory_info().rss
    for _ in range(3):
        answer = served.post("/in", bomb, **RIGHT, content_encoding="gzip")
        assert (answer.status_code, answer.json()["error"][:5]) == (413, "bomb_")
    assert process.memory_info().rss - before < 64 << 20


def test_broken_http_does_not_end_the_server(served: Served) -> None:
    for nonsense in (
        b"\x00" * 100 + b"\r\n\r\n",
        b"GET\r\n\r\n",
        HEAD + b"Content-Length: -5\r\n\r\n",
        b"\x16\x03\x01" * 50,
    ):
        talk(served, nonsense)
    assert served.post("/in", json.dumps(payload(30)).encode(), **RIGHT).status_code == 202


def test_part_of_an_array_is_bad(served: Served) -> None:
    bad = {"litellm_call_id": "no-time", "call_type": "acompletion", "startTime": "never", "messages": "a-secret-text"}
    answer = served.post("/in", json.dumps([payload(40), bad, payload(41)]).encode(), **RIGHT)
    assert answer.status_code == 202
    assert answer.json() == {"records": 3, "accepted": 2, "rejected": 1, "reasons": {"time_invalid": 1}}
    assert "a-secret-text" not in served.output


def test_a_stop_lets_held_answers_go(tmp_path: Path) -> None:
    text = '[store]\ndir = "store"\n[receivers.otel]\ntype = "otlp"\nopen = true\njoin_seconds = 60\n'
    record = (FIXTURES / "otel_genai" / "legacy_logs_of_one_span.json").read_bytes()
    answers: list[httpx.Response] = []
    with Served(tmp_path, text) as served:

        def post() -> None:
            answers.append(served.post("/v1/logs", record, content_type="application/json"))

        sender = threading.Thread(target=post)
        sender.start()
        # Its span never comes: the answer waits, and what waits is counted.
        wait_for("the held request", lambda: waiting_bytes(served) > 0)
        assert not answers
        assert served.stop() == 0
        sender.join(60)
    assert [answer.status_code for answer in answers] == [200]
    (event,) = stored_events(tmp_path / "store")
    assert "late_part" in event["flags"]


def waiting_bytes(served: Served) -> float:
    text = httpx.get(served.url + "/metrics", timeout=60).text
    return float(text.partition("\naitrail_receiver_waiting_bytes ")[2].partition("\n")[0])


def test_tls_and_client_certificates(tmp_path: Path) -> None:
    authority = Authority()
    try:
        issued = authority._authority.issue_cert("127.0.0.1")
        (tmp_path / "server.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(tmp_path / "server.key"))
        tls = f'tls_certificate = "server.pem"\ntls_key = "server.key"\nclient_ca = "{authority.ca_file}"'
        text = CONFIG.replace("[serve]", f"[serve]\n{tls}")
        trusting = ssl.create_default_context(cafile=authority.ca_file)
        with Served(tmp_path, text, environment=ENVIRONMENT) as served:
            assert served.url.startswith("https://")
            with pytest.raises(httpx.HTTPError):  # no certificate of the client's
                httpx.get(served.url + "/health", verify=trusting, timeout=60)
            trusting.load_cert_chain(*authority.client_certificate())
            assert httpx.get(served.url + "/health", verify=trusting, timeout=60).status_code == 200
            assert served.stop() == 0
    finally:
        authority.close()
