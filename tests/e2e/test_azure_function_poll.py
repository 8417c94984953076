"""The timers of a function app: blobs, workspaces, feeds; overlaps, trouble with the state, time."""

import http.server
import json
import logging
import os
import re
import threading
import time
import typing
from datetime import UTC, datetime

import pytest

pytest.importorskip("azure.functions", reason="needs the dev extra")
pytest.importorskip("azure.storage.blob", reason="needs the extra azure")
from azure_platform import BLOBS, lines_of, names, platform_of

from aitrail.runtime.scheduled import azure_runs
from aitrail.runtime.scheduled.azure_line import RunError
from aitrail.runtime.scheduled.azure_state import WaitingEvents
from aitrail.testing import azure_storage
from aitrail.testing.azure_flow import APIM, audit, correlation, lines
from aitrail.testing.azure_function import event_batch, timer
from aitrail.testing.azure_state import Scripted


@pytest.fixture
def platform(monkeypatch):
    with platform_of(monkeypatch) as made:
        yield made


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.INFO, logger="aitrail.run")
    return lambda: lines_of(caplog)


# -- polling


@pytest.fixture
def logs(platform, monkeypatch):
    emulator = azure_storage.azurite()
    monkeypatch.setenv("LOGS", emulator.connection_string)
    name = f"insights-logs-{os.getpid()}-{next(names)}"
    with emulator.container(name) as container:
        moment = datetime.fromtimestamp(time.time(), UTC)
        path = f"resourceId={APIM}/y={moment:%Y}/m={moment:%m}/d={moment:%d}/h={moment:%H}/m=00/PT1H.json"
        with container.get_blob_client(path) as blob:
            blob.create_append_blob()
            yield name, blob


def test_polled_blobs_go_on_where_the_last_run_stopped(platform, logs, told):
    name, blob = logs
    worker = platform.worker(BLOBS.format(container=name))
    blob.append_block(lines([audit(number) for number in range(10)]))
    worker.call("poll_blobs", timer())
    blob.append_block(lines([audit(number) for number in range(10, 13)]))
    worker.call("poll_blobs", timer(past_due=True))
    worker.call("poll_blobs", timer())
    assert sorted(platform.arrived()) == sorted(correlation(number) for number in range(13))
    assert [line.new for line in told()] == [10, 3, 0]
    assert [line.past_due for line in told()] == [False, True, False]
    again = platform.worker(BLOBS.format(container=name))  # another worker process
    again.call("poll_blobs", timer())
    assert told()[-1].records == 0


def test_one_of_two_overlapping_runs_polls(platform, logs, told):
    from aitrail.clock import SystemClock
    from aitrail.runtime.scheduled.azure_state import BlobLeases

    name, blob = logs
    blob.append_block(lines([audit(0)]))
    leases = BlobLeases(platform.blobs, SystemClock(), "another run")
    lease = leases.acquire("blobs", 60.0)
    worker = platform.worker(BLOBS.format(container=name))
    worker.call("poll_blobs", timer())
    assert told()[-1].outcome == "held"
    assert platform.arrived() == []
    leases.release([lease])
    worker.call("poll_blobs", timer())
    assert platform.arrived() == [correlation(0)]


def test_a_run_that_was_overtaken_commits_nothing(platform, logs, told, monkeypatch):
    """A run stalls, its lease expires, another run commits: the first one's cursors are refused by their ETag."""
    name, blob = logs
    blob.append_block(lines([audit(0)]))
    slow, fast = (platform.worker(BLOBS.format(container=name)) for _ in range(2))
    whole = azure_runs.poll
    stalled = []

    def overtaken(pipeline, left):
        if not stalled:
            stalled.append(True)
            platform.blobs.put("leases/blobs", b'{"owner":"","token":9,"expires":0.0}')  # it has expired
            fast.call("poll_blobs", timer())
        return whole(pipeline, left)

    monkeypatch.setattr(azure_runs, "poll", overtaken)
    with pytest.raises(RunError, match="state Conflict"):
        slow.call("poll_blobs", timer())
    assert [line.outcome for line in told()] == ["ok", "failed"]
    assert set(platform.arrived()) == {correlation(0)}
    slow.call("poll_blobs", timer())
    assert told()[-1].outcome == "ok"


def test_events_of_a_destination_that_is_away_wait_and_the_cursor_moves(platform, logs, told):
    name, blob = logs
    blob.append_block(lines([audit(number) for number in range(4)]))
    platform.peer.dialect.role = False
    worker = platform.worker(BLOBS.format(container=name))
    worker.call("poll_blobs", timer())
    assert told()[-1].waiting == 4
    platform.peer.dialect.role = True
    worker.call("poll_blobs", timer())
    assert told()[-1].records == 0
    worker.call("waiting", timer())
    assert sorted(platform.arrived()) == sorted(correlation(number) for number in range(4))


def test_a_source_that_refuses_fails_the_run_and_names_the_cause(platform, told, monkeypatch):
    emulator = azure_storage.azurite()
    wrong = emulator.connection_string.replace("AccountKey=E", "AccountKey=F")
    monkeypatch.setenv("LOGS", wrong)
    with pytest.raises(RunError, match="source AuthError"):
        platform.worker(BLOBS.format(container="any")).call("poll_blobs", timer())
    assert "Storage Blob Data Reader" in told()[-1].detail


def test_settings_that_are_missing_are_named(platform, told):
    with pytest.raises(RunError, match="AITRAIL_STATE_URL"):
        platform.worker(AITRAIL_STATE_URL="").call("waiting", timer())
    with pytest.raises(RunError, match="AITRAIL_PUSH_SECONDS"):
        platform.worker(AITRAIL_PUSH_SECONDS="soon").call("hub_hub", event_batch([b"{}"]))


def test_events_that_wait_for_a_destination_that_is_gone_are_told(platform, told):
    from aitrail.ports import EncodedEvent

    WaitingEvents(platform.blobs).keep("splunk", [EncodedEvent("0" * 32, "2026-11-23T10:00:00.000Z", b"{}")])
    with pytest.raises(RunError, match="gone"):
        platform.worker().call("waiting", timer())
    assert told()[-1].waiting_seconds >= 0
    assert len(platform.waiting()) == 1


# -- the state misbehaves


@pytest.mark.parametrize(
    ("place", "script", "ends"),
    [
        ("/seen/", [(503, "ServerBusy")] * 2, "ok"),
        ("/seen/", [(503, "ServerBusy")] * 4, "state TransientError"),
        ("/seen/", ["lost"], "ok"),
        ("/cursors/", [(500, "InternalError"), "down"], "ok"),
        ("/cursors/", ["lost"], "ok"),
        ("/cursors/", [(503, "ServerBusy")] * 4, "state TransientError"),
        ("/cursors/", [(412, "ConditionNotMet")], "state Conflict"),
        ("/cursors/", [(409, "BlobAlreadyExists")], "state Conflict"),
        ("/cursors/", [(403, "AuthorizationPermissionMismatch")], "state AuthError"),
    ],
)
def test_trouble_with_the_state_loses_nothing(platform, logs, told, place, script, ends):
    """Ids of what is settled are noted before the cursor moves; either write may fail in any way."""
    name, blob = logs
    worker = platform.worker(BLOBS.format(container=name))
    worker.call("poll_blobs", timer())
    blob.append_block(lines([audit(number) for number in range(6)]))
    runs = worker._runs[0]
    whole = runs._state.blobs._sender
    runs._state.blobs._sender = Scripted(whole, script, place, retry_after="0")
    ended = "ok"
    try:
        worker.call("poll_blobs", timer())
    except RunError as error:
        ended = str(error)
    assert ended.startswith(ends)
    runs.close()
    platform.blobs.put("leases/blobs", b"{}")  # as if a lease that was not given back has expired
    worker.call("poll_blobs", timer())
    assert told()[-1].outcome == "ok"
    assert set(platform.arrived()) == {correlation(number) for number in range(6)}
    repeated = len(platform.peer.received()) - 6
    assert repeated == (6 if place == "/seen/" and ended != "ok" else 0), "at most the batch in flight"


# -- workspaces and feeds


@pytest.fixture
def workspace(platform):
    from aitrail.clock import SystemClock
    from aitrail.testing import azure_logs

    running = azure_logs.LogsWorkspace(SystemClock())
    platform.identity.tokens["https://api.loganalytics.io"] = lambda: running.token
    yield running
    running.close()


def rows_of(workspace, count):
    """Rows that came in during the last hour."""
    from aitrail.testing import azure_logs

    now = time.time()
    for number in range(count):
        at = now - 3_000 + number
        happened = f"{datetime.fromtimestamp(at - 5, UTC):%Y-%m-%dT%H:%M:%S}.0000000Z"
        row = azure_logs.diagnostics_row(correlation(number), happened)
        workspace.tables.setdefault("AzureDiagnostics", []).append(azure_logs.Stored(row, at, at))


TABLES = """
[sources.tables]
type = "log_analytics"
workspace_id = "00000000-0000-4000-8000-0000000000aa"
endpoint = "{url}"
ca_file = "{ca_file}"
proxy = "none"
tables = ["AzureDiagnostics"]
"""


def test_a_partial_answer_of_log_analytics_is_no_answer(platform, workspace, told):
    """Over its limits the service answers 200 with a part of the rows: the stretch is halved until all are there."""
    rows_of(workspace, 90)
    workspace.most_rows = 20
    worker = platform.worker(TABLES.format(url=workspace.url, ca_file=workspace.ca_file))
    worker.call("poll_tables", timer())
    assert workspace.partial > 0
    assert sorted(platform.arrived()) == sorted(correlation(number) for number in range(90))
    assert told()[-1].outcome == "ok"
    worker.call("poll_tables", timer())
    assert told()[-1].new == 0, "what the overlap reads again is known"
    assert {one["resource"] for one in platform.identity.asked} >= {"https://api.loganalytics.io"}


def test_a_workspace_that_refuses_is_named(platform, workspace, told):
    rows_of(workspace, 3)
    workspace.allowed = False
    worker = platform.worker(TABLES.format(url=workspace.url, ca_file=workspace.ca_file))
    with pytest.raises(RunError, match="source AuthError"):
        worker.call("poll_tables", timer())
    workspace.allowed = True
    worker.call("poll_tables", timer())
    assert len(platform.arrived()) == 3


def test_an_app_without_an_identity_is_named(platform, workspace, told):
    rows_of(workspace, 1)
    platform.identity.status = 400
    worker = platform.worker(TABLES.format(url=workspace.url, ca_file=workspace.ca_file))
    with pytest.raises(RunError, match="AuthError"):
        worker.call("poll_tables", timer())
    platform.identity.status = 200
    worker.call("poll_tables", timer())
    assert platform.arrived() == [correlation(0)]


class Feed(http.server.BaseHTTPRequestHandler):
    """An audit API with one page; what it was sent is in ``tokens``."""

    tokens: typing.ClassVar[list[str]] = []

    def do_GET(self):
        self.tokens.append(self.headers.get("Authorization", ""))
        low, high = (float(re.search(rf"{name}%5D=(\d+)", self.path)[1]) for name in ("gte", "lt"))
        when = int(time.time()) - 600
        entry = {"id": "audit_log-1", "type": "api_key.created", "effective_at": when, "actor": {}}
        data = [entry] if low <= when < high else []
        body = json.dumps({"object": "list", "data": data, "has_more": False, "last_id": None}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def test_a_feed_over_rest_is_polled_with_a_secret_of_the_settings(platform, told, monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Feed)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    monkeypatch.setenv("FEED_KEY", "a-key-of-the-vault")
    try:
        sources = (
            f'[sources.openai]\ntype = "openai_audit"\ntoken = "env:FEED_KEY"\n'
            f'base_url = "http://127.0.0.1:{server.server_address[1]}"\n'
        )
        worker = platform.worker(sources)
        worker.call("poll_openai", timer())
        worker.call("poll_openai", timer())
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
    assert set(Feed.tokens) == {"Bearer a-key-of-the-vault"}
    assert [line.new for line in told()] == [1, 0]
    assert len(platform.peer.received()) == 1
