"""What may happen to queries of a workspace: nothing is lost, nothing is stored twice, a part is never all."""

import random
from datetime import UTC, datetime

import pytest

from aitrail.errors import AuthError, TransientError
from aitrail.ports import Budget
from aitrail.secrets import Secrets
from aitrail.testing.azure_flow import Flow, StillClock, correlation

azure_logs = pytest.importorskip("aitrail.testing.azure_logs", reason="needs the dev extra")
from aitrail.sources._log_analytics_settings import LogAnalyticsSettings  # noqa: E402
from aitrail.sources.log_analytics import LogAnalyticsSource  # noqa: E402

HOUR = 3_600.0
DIAGNOSTICS = "AzureDiagnostics"


@pytest.fixture
def clock():
    return StillClock()


@pytest.fixture
def workspace(clock):
    running = azure_logs.LogsWorkspace(clock)
    running.tables[DIAGNOSTICS] = []
    yield running
    running.close()


@pytest.fixture
def flows(clock, workspace, tmp_path):
    made = []

    def make(name="store", **more):
        credential = azure_logs.Credential(workspace)

        def source():
            settings = LogAnalyticsSettings(
                workspace_id=azure_logs.WORKSPACE,
                endpoint=workspace.url,
                ca_file=workspace.ca_file,
                proxy="none",
                **{"tables": (DIAGNOSTICS,), "start": text(clock.now() - 6 * HOUR), **more},
            )
            return LogAnalyticsSource(
                settings, name="log_analytics", clock=clock, key=b"key", secrets=Secrets(), credential=credential
            )

        flow = Flow(tmp_path / name, source, clock)
        flow.credential = credential
        made.append(flow)
        return flow

    yield make
    for flow in made:
        flow.close()


def text(epoch):
    return datetime.fromtimestamp(epoch, UTC).isoformat()


def stamp(epoch):
    return f"{datetime.fromtimestamp(epoch, UTC):%Y-%m-%dT%H:%M:%S.%f}0Z"


def add(workspace, first, count, *, ingested, happened=None, visible=0.0):
    for number in range(first, first + count):
        moment = ingested(number) if callable(ingested) else ingested
        row = azure_logs.diagnostics_row(correlation(number), stamp(happened if happened is not None else moment - 60))
        workspace.add(DIAGNOSTICS, [row], ingested=moment, visible=visible)
    return [correlation(number) for number in range(first, first + count)]


def test_equal_times_late_rows_and_disorder(clock, workspace, flows):
    now = clock.now()
    shuffled = random.Random(1)
    sent = add(workspace, 0, 300, ingested=lambda n: now - 5 * HOUR + shuffled.random() * 4 * HOUR)
    sent += add(workspace, 300, 500, ingested=now - HOUR)  # one moment for all
    sent += add(workspace, 800, 10, ingested=now - HOUR, happened=now - 26 * HOUR)  # a day late
    flow = flows()
    flow.run()
    # Came in before the last look, can be seen only now: within the overlap, and within the wide look.
    sent += add(workspace, 810, 20, ingested=now - 200, visible=now + 30)
    sent += add(workspace, 830, 20, ingested=now - 0.5 * HOUR, visible=now + 30)
    clock.time += 60
    flow.run()
    clock.time += 1_900
    sent += add(workspace, 850, 20, ingested=clock.now() - 1_000)
    flow.run()
    flow.judge(sent, "late, out of order, equal times")
    before = flow.run()
    assert (before.records, before.new) == (0, 0)  # the overlap is known by the cursor's hashes


def test_rows_are_read_only_once_they_settled(clock, workspace, flows):
    flow = flows()
    add(workspace, 0, 5, ingested=clock.now() - 10)
    assert flow.run().records == 0
    clock.time += 200
    assert flow.run().records == 5


@pytest.mark.parametrize("crash_at", [1])
def test_crash_between_fetch_and_commit(clock, workspace, flows, crash_at):
    sent = add(workspace, 0, 200, ingested=lambda n: clock.now() - 5 * HOUR + n * 60)
    flow = flows()
    flow.crash(at=crash_at)
    flow.run()
    flow.judge(sent, "crash between fetch and commit")


def test_budgets_end_between_stretches(clock, workspace, flows):
    sent = add(workspace, 0, 300, ingested=lambda n: clock.now() - 5 * HOUR + n * 50)
    flow = flows()
    for _ in range(12):
        flow.run(Budget(records=50))
    flow.judge(sent, "small budgets")


def test_partial_answers_are_halved_until_they_are_whole(clock, workspace, flows):
    workspace.most_rows = 40
    sent = add(workspace, 0, 300, ingested=lambda n: clock.now() - 5 * HOUR + n * 30)
    sent += add(workspace, 300, 200, ingested=clock.now() - HOUR)  # more than fit, at one moment: sliced
    flow = flows()
    flow.run()
    assert workspace.partial > 5
    flow.judge(sent, "partial answers (row limit)")
    assert (flow.source.gaps, flow.dead()) == (0, [])


def test_partial_answers_by_size(clock, workspace, flows):
    workspace.most_bytes = 20_000
    sent = add(workspace, 0, 200, ingested=lambda n: clock.now() - 5 * HOUR + n * 30)
    flow = flows()
    flow.run()
    flow.judge(sent, "partial answers (size limit)")


def test_what_never_fits_is_a_named_gap(clock, workspace, flows):
    workspace.most_rows = 1
    add(workspace, 0, 200, ingested=clock.now() - HOUR)
    flow = flows(window_seconds=1.0, start=text(clock.now() - HOUR - 0.5), overlap_seconds=0.0)
    flow.run(Budget(records=1))
    assert flow.source.gaps > 0
    assert {letter.code for letter in flow.dead()} == {"window_partial"}
    assert "was not given out" in flow.source.notes[0]


def test_throttling_is_waited_for_and_nothing_is_lost(clock, workspace, flows):
    sent = add(workspace, 0, 100, ingested=lambda n: clock.now() - 5 * HOUR + n * 60)
    flow = flows()
    workspace.script = [(429, "ThrottledError", {"Retry-After": "7"})]
    with pytest.raises(TransientError) as caught:
        flow.run()
    assert caught.value.retry_after == 7.0
    workspace.script = [(503, "ServiceUnavailable", {})]
    with pytest.raises(TransientError):
        flow.run()
    flow.run()
    flow.judge(sent, "throttled and unavailable")


def test_gateway_timeout_halves_the_stretch(clock, workspace, flows):
    sent = add(workspace, 0, 50, ingested=lambda n: clock.now() - 5 * HOUR + n * 60)
    flow = flows()
    workspace.script = [(504, "GatewayTimeout", {})] * 3
    flow.run()
    flow.judge(sent, "query timed out")
    assert len(workspace.queries) > 8


def test_token_expires_mid_run(clock, workspace, flows):
    sent = add(workspace, 0, 50, ingested=clock.now() - 5 * HOUR)
    flow = flows()
    flow.run()
    workspace.token = "token-2"
    sent += add(workspace, 50, 50, ingested=clock.now() - 100)
    clock.time += 60
    flow.run()
    assert flow.credential.asked == 2
    flow.judge(sent, "credential expired mid-run")
    workspace.allowed = False
    with pytest.raises(AuthError) as caught:
        flow.run()
    assert "Log Analytics Reader" in caught.value.hint


def test_two_collectors_store_the_same_events(clock, workspace, flows):
    sent = add(workspace, 0, 100, ingested=lambda n: clock.now() - 5 * HOUR + n * 60)
    one, two = flows("one"), flows("two")
    one.run()
    two.run()
    one.judge(sent, "two pollers")
    two.judge(sent, "two pollers")
    assert set(one.report.times) == set(two.report.times)


def test_gateway_and_llm_rows_join_across_looks_and_a_crash(clock, workspace, flows):
    now = clock.now()
    tables = ("ApiManagementGatewayLogs", "ApiManagementGatewayLlmLog")
    for table in tables:
        workspace.tables[table] = []
    flow = flows(tables=tables)
    for number in range(30):
        row = azure_logs.llm_row(number, correlation(number), stamp(now - 300))
        workspace.add(tables[1], [row], ingested=now - 250)
    flow.run(flush_older_than=900.0)
    assert flow.delivered() == []  # they wait for who it was
    flow.restart()
    for number in range(30):
        row = azure_logs.gateway_row(number, correlation(number), stamp(now - 301))
        workspace.add(tables[0], [row], ingested=now + 100)
    clock.time += 400
    flow.run(flush_older_than=900.0)
    sent = [correlation(number) for number in range(30)]
    flow.judge(sent, "gateway rows joined after a crash", lambda event: event.source_event_id)
    assert {event.user_id for event in flow.report.events} == {f"user{n}@example.com" for n in range(30)}
    assert {event.flags for event in flow.report.events} == {()}


def test_identity_that_never_comes_is_said(clock, workspace, flows):
    tables = ("ApiManagementGatewayLogs", "ApiManagementGatewayLlmLog")
    for table in tables:
        workspace.tables[table] = []
    now = clock.now()
    workspace.add(tables[1], [azure_logs.llm_row(1, correlation(1), stamp(now - 300))], ingested=now - 250)
    flow = flows(tables=tables)
    flow.run(flush_older_than=900.0)
    clock.time += 901
    flow.run(flush_older_than=900.0)
    (event,) = flow.delivered()
    assert (event.flags, event.user_id, event.token_count) == (("identity_missing",), "", 40)


def test_missing_table_is_noted_and_the_others_are_read(clock, workspace, flows):
    sent = add(workspace, 0, 5, ingested=clock.now() - HOUR)
    flow = flows(tables=("NotThere_CL", DIAGNOSTICS))
    flow.run()
    flow.judge(sent, "a table is missing")
    assert "NotThere_CL" in flow.source.notes[0]
    (problem,) = flow.source.check()
    assert "diagnostic setting" in problem
    workspace.allowed = False
    (problem,) = flow.source.check()
    assert "Log Analytics Reader" in problem


def test_start_latest_is_durable(clock, workspace, flows):
    add(workspace, 0, 5, ingested=clock.now() - HOUR)
    flow = flows(start="latest")
    flow.run()
    clock.time += 60
    sent = add(workspace, 10, 5, ingested=clock.now())
    clock.time += 600
    flow.restart()
    flow.run()
    flow.judge(sent, "start = latest")
    assert len(flow.report.events) == 5


def test_only_rows_that_concern_ai_and_one_again_by_its_place(clock, workspace, flows):
    add(workspace, 0, 20, ingested=clock.now() - HOUR)
    row = azure_logs.diagnostics_row(correlation(99), stamp(clock.now() - HOUR), provider="MICROSOFT.SQL")
    workspace.add(DIAGNOSTICS, [row], ingested=clock.now() - HOUR)
    flow = flows()
    flow.run()
    assert len(flow.delivered()) == 20
    for event in flow.report.events:
        place, _, rest = event.source_ref.partition("#offset=")
        ticks, _, index = rest.partition("&record=")
        found = flow.source.reread(place, int(ticks), 0, int(index))
        assert event.request_id.encode() in found
    assert flow.source.reread("loganalytics://elsewhere/AzureDiagnostics", 0, 0, 0) is None


def test_a_stretch_of_the_past(clock, workspace, flows):
    add(workspace, 0, 10, ingested=clock.now() - 5 * HOUR)
    flow = flows(start="latest")
    inner = flow.source.ranged(clock.now() - 6 * HOUR, clock.now() - 4 * HOUR)
    records = [record for batch in inner.fetch(flow.pipeline.cursors, Budget()) for record in batch.records]
    inner.close()
    assert len(records) == 10
