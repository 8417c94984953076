"""What may happen to blobs, against Azurite: they grow, tear, are rewritten, deleted, late: nothing is lost."""

import gzip
import os
import time
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from aitrail.errors import AuthError, TransientError
from aitrail.ports import Budget
from aitrail.secrets import Secrets
from aitrail.testing.azure_flow import APIM, Flow, StillClock, audit, correlation, gateway, lines, llm

azure_storage = pytest.importorskip("aitrail.testing.azure_storage", reason="needs the extra azure")
from azure.storage.blob import BlobBlock  # noqa: E402

from aitrail.sources._azure_blobs_settings import AzureBlobsSettings  # noqa: E402
from aitrail.sources.azure_blobs import AzureBlobsSource  # noqa: E402

HOUR = 3_600.0
_names = iter(range(10_000))


@pytest.fixture(scope="module")
def emulator():
    why = azure_storage.missing()
    if why:
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    return azure_storage.azurite()


@pytest.fixture
def clock():
    return StillClock(time.time())  # the emulator stamps blobs with real time


@pytest.fixture
def container(emulator, monkeypatch):
    monkeypatch.setenv("STORE", emulator.connection_string)
    with emulator.container(f"insights-logs-requestresponse-{next(_names)}") as client:
        yield client


@pytest.fixture
def flows(clock, container, tmp_path):
    made = []

    def make(name="store", options=None, **more):
        def source():
            settings = AzureBlobsSettings(
                connection_string="env:STORE", **{"containers": (container.container_name,), **more}
            )
            return AzureBlobsSource(
                settings, name="azure_blobs", clock=clock, key=b"key", secrets=Secrets(), options=options
            )

        flow = Flow(tmp_path / name, source, clock)
        made.append(flow)
        return flow

    yield make
    for flow in made:
        flow.close()


def hour(clock, ago=0.0, resource="/ACME-OPENAI"):
    moment = datetime.fromtimestamp(clock.now() - ago * HOUR, UTC)
    return f"resourceId={resource}/y={moment:%Y}/m={moment:%m}/d={moment:%d}/h={moment:%H}/m=00/PT1H.json"


def append(container, name, data):
    blob = container.get_blob_client(name)
    if not blob.exists():
        blob.create_append_blob()
    blob.append_block(data)
    blob.close()


def rows(first, count):
    return lines([audit(n) for n in range(first, first + count)])


def ids(first, count):
    return [correlation(n) for n in range(first, first + count)]


def requests(transport, what):
    return [url for method, url in transport.requests if what in url]


def test_growing_blob_with_a_torn_line_read_by_ranges(clock, container, flows):
    flow = flows()
    data = rows(0, 400)
    cuts = [0, 1, 40_000, 40_001, 99_999, len(data) - 1, len(data)]
    for start, stop in pairwise(cuts):
        append(container, hour(clock), data[start:stop])
        flow.run()
    flow.judge(ids(0, 400), "growing blob, torn last line")
    assert sum(flow.report.times.values()) == 400
    assert flow.pipeline.run().records == 0


def test_only_the_tail_is_fetched(clock, container, flows):
    transport = azure_storage.Faulty()
    flow = flows(options={"transport": transport})
    append(container, hour(clock), rows(0, 500))
    flow.run()
    append(container, hour(clock), rows(500, 1))
    done = flow.run()
    assert done.records == 1
    assert done.bytes < 2_000
    transport.requests.clear()
    assert flow.run().records == 0
    assert requests(transport, "PT1H.json") == []  # the listing says that nothing changed


@pytest.mark.parametrize("at", [1, 2])
def test_crash_between_fetch_and_commit(clock, container, flows, at, monkeypatch):
    monkeypatch.setattr("aitrail.pipeline.COMMIT_EVENTS", 200)
    for ago in range(3):
        append(container, hour(clock, ago), rows(1_000 * ago, 250))
    flow = flows()
    flow.crash(at=at)
    append(container, hour(clock), rows(10_000, 50))
    flow.run()
    sent = [one for ago in range(3) for one in ids(1_000 * ago, 250)] + ids(10_000, 50)
    flow.judge(sent, f"crash before commit {at}")


def test_kept_place_after_a_budget(clock, container, flows):
    append(container, hour(clock), rows(0, 600))
    flow = flows()
    for _ in range(5):
        flow.run(Budget(records=150))
        flow.restart()
    flow.judge(ids(0, 600), "small budgets, restarted each time")
    assert sum(flow.report.times.values()) == 600


def test_late_growth_of_past_hours(clock, container, flows):
    for ago in (0, 1, 2, 20, 100):
        append(container, hour(clock, ago), rows(100 * ago, 10))
    flow = flows()
    flow.run()
    late = {}
    for ago in (1, 2, 20, 100):
        append(container, hour(clock, ago), rows(50_000 + 100 * ago, 10))
        late[ago] = ids(50_000 + 100 * ago, 10)
    flow.run()  # the hours before the last look
    seen = {event.request_id for event in flow.delivered()}
    assert set(late[1]) <= seen
    assert not set(late[100]) & seen
    clock.time += 1_000
    flow.run()  # a quarter of an hour later: the last day
    assert set(late[20]) <= {event.request_id for event in flow.delivered()}
    clock.time += 6 * HOUR
    flow.run()  # the last days
    sent = [one for ago in (0, 1, 2, 20, 100) for one in ids(100 * ago, 10)] + [x for one in late.values() for x in one]
    flow.judge(sent, "late growth of past hours")


def test_a_pause_of_days_is_made_up_for(clock, container, flows):
    append(container, hour(clock), rows(0, 10))
    flow = flows(late_days=1)
    flow.run()
    clock.time += 80 * HOUR
    append(container, hour(clock, 60), rows(10, 10))
    append(container, hour(clock, 30), rows(20, 10))
    flow.restart()
    flow.run()
    flow.judge(ids(0, 30), "collector was down for days")


def test_rewritten_in_place_is_read_again(clock, container, flows):
    """The same length and the same end, but other blocks before the place that was reached."""
    blob = container.get_blob_client(hour(clock))
    first, second, third = rows(0, 20), rows(20, 20), rows(40, 20)
    for number, data in enumerate((first, second, third)):
        blob.stage_block(f"{number:08d}", data)
    blob.commit_block_list([BlobBlock("00000000"), BlobBlock("00000001"), BlobBlock("00000002")])
    flow = flows()
    flow.run()
    other = rows(60, 20)
    blob.stage_block("00000009", other)
    blob.commit_block_list([BlobBlock("00000000"), BlobBlock("00000009"), BlobBlock("00000002")])
    flow.run()
    assert "rewritten" in flow.source.notes[0]
    blob.stage_block("00000003", rows(80, 20))
    blob.commit_block_list([BlobBlock(name) for name in ("00000000", "00000009", "00000002", "00000003")])
    done = flow.run()
    assert done.records == 20  # grown at its end: only that is read
    flow.judge(ids(0, 100), "block list rewritten before the place")
    blob.close()


def test_envelope_that_is_rewritten_as_it_grows(clock, container, flows):
    blob = container.get_blob_client(hour(clock))
    flow = flows()
    blobs = flow.source._listing.blobs
    flow.source._listing.blobs = lambda plan: (one._replace(created=1.0) for one in blobs(plan))
    for count in (3, 4, 9):
        body = b'{"records":[' + b",".join(audit(n) for n in range(count)) + b"]}"
        blob.upload_blob(body, overwrite=True)
        flow.run()
    assert "rewritten" in flow.source.notes[0]  # its end moved on: nothing but reading it again is safe
    assert flow.dead() == []
    flow.judge(ids(0, 9), "envelope rewritten as it grows")
    blob.close()


@pytest.mark.parametrize("how", ["shorter", "anew", "head"])
def test_truncated_replaced_or_made_anew(clock, container, flows, how):
    name = hour(clock)
    append(container, name, rows(0, 50))
    flow = flows()
    flow.run()
    container.delete_blob(name)
    data = {"shorter": rows(100, 10), "anew": rows(0, 50) + rows(100, 10), "head": rows(200, 50) + rows(100, 10)}[how]
    append(container, name, data)
    flow.run()
    assert flow.source.notes or how == "anew"  # what is the same up to the place has only grown
    sent = ids(0, 50) + ids(100, 10) + (ids(200, 50) if how == "head" else [])
    flow.judge(sent, f"blob replaced ({how})")


def test_deleted_before_it_was_read(clock, container, flows):
    keep, gone = hour(clock), hour(clock, 1)
    append(container, keep, rows(0, 10))
    append(container, gone, rows(10, 10))
    flow = flows()
    listing = flow.source._listing
    blobs = listing.blobs

    def and_then_delete(plan):
        found = list(blobs(plan))
        container.delete_blob(gone)
        return iter(found)

    listing.blobs = and_then_delete
    flow.run()
    listing.blobs = blobs
    flow.judge(ids(0, 10), "blob deleted before it was read")
    (letter,) = flow.dead()
    assert (letter.code, letter.position) == ("object_gone", 0)
    assert gone.rpartition("/")[0] in letter.origin
    assert letter.end == len(rows(10, 10))
    flow.run()
    assert len(flow.dead()) == 1


def test_rewritten_between_listing_and_reading(clock, container, flows):
    name = hour(clock)
    container.upload_blob(name, rows(0, 10))
    flow = flows()
    listing = flow.source._listing
    blobs = listing.blobs

    def and_then_rewrite(plan):
        found = list(blobs(plan))
        container.upload_blob(name, rows(10, 10), overwrite=True)
        return iter(found)

    listing.blobs = and_then_rewrite
    assert flow.run().records == 0
    assert "changed just now" in flow.source.notes[0]
    listing.blobs = blobs
    flow.run()
    flow.judge(ids(10, 10), "rewritten between listing and reading")
    assert flow.dead() == []


def test_equal_rows_in_two_blobs_and_disorder_are_one_event_each(clock, container, flows):
    append(container, hour(clock), rows(0, 20) + rows(5, 5))
    append(container, hour(clock, 1), rows(10, 30))
    flow = flows()
    flow.run()
    flow.judge(ids(0, 40), "duplicates across blobs")


def test_throttled_and_unavailable(clock, container, flows):
    for ago in range(2):
        append(container, hour(clock, ago), rows(100 * ago, 100))
    transport = azure_storage.Faulty([None, (503, {"Retry-After": "3"}), None, (429, {"code": ""}), None, (500, {})])
    flow = flows(options={"transport": transport})
    flow.run()
    assert clock.slept[0] == 3.0
    assert len(clock.slept) == 3
    flow.judge(ids(0, 100) + ids(100, 100), "throttled (503, 429, 500)")
    transport.script = [(503, {"Retry-After": "900"})]
    with pytest.raises(TransientError) as caught:
        flow.run()
    assert caught.value.retry_after == 900.0


def test_credentials_expire_mid_run(clock, container, flows, emulator, monkeypatch):
    for ago in range(3):
        append(container, hour(clock, ago), rows(100 * ago, 100))
    transport = azure_storage.Faulty([None] * 4 + [(401, {"code": "InvalidAuthenticationInfo"})])
    flow = flows(options={"transport": transport})
    resolved = []
    resolve = flow.source._secrets.resolve
    flow.source._secrets = type("S", (), {"resolve": lambda self, ref: (resolved.append(ref), resolve(ref))[1]})()
    flow.run()
    assert len(resolved) == 2  # read anew once
    flow.judge([one for ago in range(3) for one in ids(100 * ago, 100)], "credential expired mid-run")
    transport.script = [(401, {"code": "InvalidAuthenticationInfo"})] * 5
    with pytest.raises(AuthError):
        flow.run()
    transport.script = [(403, {"code": "AuthorizationPermissionMismatch"})]
    with pytest.raises(AuthError) as caught:
        flow.run()
    assert "Storage Blob Data Reader" in caught.value.hint
    transport.script = [(403, {"code": "AuthorizationPermissionMismatch"})]
    (problem,) = flow.source.check()
    assert "Storage Blob Data Reader" in problem


def test_torn_for_good_is_told_once(clock, container, flows):
    append(container, hour(clock), rows(0, 3) + audit(3)[:100])
    flow = flows()
    flow.run()
    assert flow.dead() == []
    clock.time += 25 * HOUR
    flow.run()
    clock.time += 7 * HOUR
    flow.run()
    (letter,) = flow.dead()
    assert (letter.code, letter.position) == ("record_torn", len(rows(0, 3)))
    append(container, hour(clock, 32), audit(3)[100:] + b"\n")  # its rest comes after all
    clock.time += 6 * HOUR
    flow.run()
    flow.judge(ids(0, 4), "torn for a day, then completed")


def test_two_collectors_store_the_same_events(clock, container, flows):
    append(container, hour(clock), rows(0, 100))
    one, two = flows("one"), flows("two")
    one.run()
    two.run()
    assert set(one.report.times) == set(two.report.times)
    one.judge(ids(0, 100), "two pollers, two stores")
    two.judge(ids(0, 100), "two pollers, two stores")
    assert set(one.report.times) == set(two.report.times)


@pytest.mark.parametrize("start", ["latest", "time"])
def test_start_leaves_the_past_out_and_is_durable(clock, container, flows, start):
    append(container, hour(clock, 30), rows(0, 10))
    begin = "latest" if start == "latest" else datetime.fromtimestamp(clock.now(), UTC).isoformat()
    flow = flows(start=begin)
    flow.run(Budget(records=0))
    append(container, hour(clock), rows(10, 10))
    clock.time += 3 * HOUR
    flow.restart()
    flow.run()
    flow.judge(ids(10, 10), f"start = {start}")
    assert len(flow.report.events) == 10


def test_several_containers_prefix_and_plain_blobs(clock, emulator, container, flows):
    container.upload_blob("in/a.json", rows(0, 10))
    container.upload_blob("in/b.json.gz", gzip.compress(rows(10, 10)))
    container.upload_blob("in/c.json", b'{"records":[' + audit(20) + b"]}")
    container.upload_blob("in/notes.txt", b"not a log")
    container.upload_blob("in/picture.json", b"\x89PNG\r\n\x1a\n....")
    container.upload_blob("out/d.json", rows(30, 10))
    flow = flows(layout="plain", prefix="in/", match=("*.json", "*.gz"))
    flow.run()
    flow.judge(ids(0, 21), "plain, packed and enveloped blobs")
    assert [letter.code for letter in flow.dead()] == ["json_invalid"]
    assert flow.run().records == 0
    again = {}
    for event in flow.report.events:
        place, _, rest = event.source_ref.partition("#offset=")
        offset, _, index = rest.partition("&record=")
        end = int(offset) + len(audit(0))
        again[event.request_id] = flow.source.reread(place, int(offset), end, int(index))
    assert all(one.encode() in raw for one, raw in again.items())
    assert flow.source.reread("https://elsewhere.example.com/x/y", 0, 1, 0) is None


def test_gateway_and_llm_logs_join_across_containers_looks_and_a_crash(clock, emulator, container, flows):
    """The crash comes when one blob's place is durable and the other one's is still held back."""
    with (
        emulator.container("insights-logs-gatewaylogs") as who,
        emulator.container("insights-logs-gatewayllmlogs") as what,
    ):
        name = hour(clock, resource=APIM)
        append(who, name, lines([gateway(n) for n in range(40)]))
        append(what, name, lines([llm(n) for n in range(20)]))
        flow = flows(containers=("insights-logs-gateway*",))
        flow.run(flush_older_than=900.0)
        assert len(flow.delivered()) == 20
        flow.restart()  # 20 callers still wait for what was said: their blob is read again
        flow.run(flush_older_than=900.0)
        append(what, name, lines([llm(n) for n in range(20, 40)]))
        flow.run(flush_older_than=900.0)
        clock.time += 1_000
        flow.run(flush_older_than=900.0)
        flow.judge(
            [correlation(n) for n in range(40)], "gateway rows joined after a crash", lambda e: e.source_event_id
        )
        assert {event.user_id for event in flow.report.events} == {f"user{n}@example.com" for n in range(40)}
        assert {event.token_count for event in flow.report.events} == {40}


def test_identity_that_never_comes_is_said_once(clock, emulator, container, flows):
    with emulator.container("insights-logs-gatewayllmlogs") as what:
        append(what, hour(clock, resource=APIM), lines([llm(1)]))
        flow = flows(containers=("insights-logs-gatewayllm*",))
        flow.run(flush_older_than=900.0)
        assert flow.delivered() == []
        clock.time += 901
        flow.run(flush_older_than=900.0)
        (event,) = flow.delivered()
        assert ("identity_missing" in event.flags, event.user_id) == (True, "")
        flow.restart()
        flow.run(flush_older_than=900.0)
        assert len(flow.delivered()) == 1


def test_check_and_survey(clock, container, flows, emulator):
    append(container, hour(clock), rows(0, 10))
    flow = flows()
    assert flow.source.check() == []
    assert (flow.source.survey(flow.pipeline.cursors).objects, flow.run().records) == (1, 10)
    assert flow.source.survey(flow.pipeline.cursors).objects == 0
    (problem,) = flows("b", containers=("insights-nothing*",)).source.check()
    assert "no container matches" in problem
    (problem,) = flows("c", containers=("insights-nothing",)).source.check()
    assert "there is no container insights-nothing" in problem
    assert flows("d", containers=("insights-nothing",)).run().records == 0


def test_a_stretch_of_the_past(clock, container, flows):
    for ago in (1, 10, 90, 300):
        append(container, hour(clock, ago), rows(100 * ago, 5))
    flow = flows(start="latest", late_days=1)
    inner = flow.source.ranged(clock.now() - 91 * HOUR, clock.now() - 80 * HOUR)
    got = [record for batch in inner.fetch(flow.pipeline.cursors, Budget()) for record in batch.records]
    inner.close()
    assert len(got) == 5


class Identity:
    """A credential of azure-identity, as far as the SDK uses it: it gives tokens, and forgets them when asked again."""

    def __init__(self, tokens):
        self.tokens = list(tokens)
        self.asked = []

    def get_token_info(self, *scopes, options=None):
        from azure.core.credentials import AccessTokenInfo

        self.asked.append(scopes)
        token = self.tokens.pop(0) if len(self.tokens) > 1 else self.tokens[0]
        return AccessTokenInfo(token, int(time.time()) + 3_600)

    def get_token(self, *scopes, **more):
        raise AssertionError("the SDK asks for more")


def test_tokens_of_an_identity_over_tls_and_one_that_expired(clock, tmp_path, emulator):
    """Bearer tokens against the emulator over TLS; the first one has expired, as after a long pause of the machine."""
    from azure.storage.blob import BlobServiceClient
    from trustme import CA

    authority = CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    server = azure_storage.started(lambda: azure_storage.Azurite(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")))
    try:
        verify = {"connection_verify": str(tmp_path / "ca.pem")}
        service = BlobServiceClient.from_connection_string(server.connection_string, retry_total=0, **verify)
        with service, service.create_container("insights-logs-audit") as container:
            append(container, hour(clock), rows(0, 10))
        identity = Identity([azure_storage.token_of(time.time(), -60.0), azure_storage.token_of(time.time())])

        def source():
            settings = AzureBlobsSettings(account_url=server.url)
            options = {"credential": identity, **verify}
            return AzureBlobsSource(
                settings, name="azure_blobs", clock=clock, key=b"key", secrets=Secrets(), options=options
            )

        flow = Flow(tmp_path / "store", source, clock)
        flow.run()
        flow.judge(ids(0, 10), "token of an identity, the first one expired")
        assert len(identity.asked) == 2
        assert set(identity.asked) == {("https://storage.azure.com/.default",)}
        identity.tokens = [azure_storage.token_of(time.time(), -60.0)]
        flow.source.close()
        with pytest.raises(AuthError):
            flow.run()
        flow.close()
    finally:
        server.stop()
