"""The Elastic destination: every row of its tables, the documents, and answers that lie."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("elasticsearch")

from aitrail.destinations._elastic_codes import (
    BAD_REQUESTS,
    ITEM_ERRORS,
    ITEM_STATUSES,
    PRIVILEGES,
    STATUSES,
    judge_call,
    judge_item,
)
from aitrail.destinations._elastic_settings import ElasticSettings
from aitrail.destinations._verified import compare, counted_slices
from aitrail.destinations.elastic import ElasticDestination, read_items
from aitrail.destinations.elastic_install import artefacts, index_template, mappings_template
from aitrail.errors import AuthError, ConfigError, TransientError
from aitrail.event import AccessEvent, encode
from aitrail.ports import EncodedEvent, Verdict
from aitrail.schema.catalog import example_event
from aitrail.schema.views.elastic import leaf_types
from aitrail.secrets import Secrets
from aitrail.testing.elastic_peer import STREAM, elastic_peer
from aitrail.testing.events import HOSTILE_TEXTS, hostile_events, make_event, make_events, oversize_event
from aitrail.testing.peer import Behaviour


@pytest.fixture
def peer():
    one = elastic_peer()
    yield one
    one.close()


@pytest.fixture
def destination(peer):
    one = make(peer)
    yield one
    one.close()


def make(peer, **settings):
    address = peer.address
    given = {"urls": (address["url"],), "api_key": f"file:{address['token_file']}", "proxy": "none"}
    return ElasticDestination(ElasticSettings(**(given | settings)), Secrets())


def send(destination, events, seconds=30.0):
    return destination.send(events, time.monotonic() + seconds).verdicts


def tally(verdicts):
    return Counter((verdict.status, verdict.code) for verdict in verdicts)


# --- tables


# Written out again on purpose: a change of the table has to be made twice, and be meant.
ITEM_ROWS = [
    (429, "es_rejected_execution_exception", "retry", "es_rejected_execution"),
    (429, "circuit_breaking_exception", "retry", "es_circuit_breaker"),
    (503, "unavailable_shards_exception", "retry", "es_unavailable_shards"),
    (503, "no_shard_available_action_exception", "retry", "es_unavailable_shards"),
    (503, "primary_missing_action_exception", "retry", "es_unavailable_shards"),
    (500, "node_closed_exception", "retry", "es_node_closed"),
    (500, "node_disconnected_exception", "retry", "es_node_closed"),
    (500, "node_not_connected_exception", "retry", "es_node_closed"),
    (503, "process_cluster_event_timeout_exception", "retry", "es_timeout"),
    (500, "timeout_exception", "retry", "es_timeout"),
    (403, "cluster_block_exception", "retry", "es_cluster_block"),
    (429, "cluster_block_exception", "retry", "es_cluster_block"),
    (409, "version_conflict_engine_exception", "duplicate", ""),
    (400, "mapper_parsing_exception", "rejected", "es_mapping"),
    (400, "document_parsing_exception", "rejected", "es_mapping"),
    (400, "strict_dynamic_mapping_exception", "rejected", "es_mapping"),
    (400, "mapper_exception", "rejected", "es_mapping"),
    (400, "illegal_argument_exception", "rejected", "es_illegal_argument"),
    (400, "action_request_validation_exception", "rejected", "es_illegal_argument"),
    (500, "illegal_argument_exception", "retry", "es_500"),
    (400, "ingest_processor_exception", "rejected", "es_ingest_pipeline"),
    (400, "fail_processor_exception", "rejected", "es_ingest_pipeline"),
    (400, "script_exception", "rejected", "es_ingest_pipeline"),
    (400, "brand_new_exception", "rejected", "es_400"),
    (408, "brand_new_exception", "retry", "es_408"),
    (409, "brand_new_exception", "retry", "es_409"),
    (413, "brand_new_exception", "rejected", "event_too_large"),
    (418, "brand_new_exception", "rejected", "es_4xx"),
    (429, "brand_new_exception", "retry", "es_429"),
    (500, "brand_new_exception", "retry", "es_500"),
    (502, "brand_new_exception", "retry", "es_502"),
    (503, "brand_new_exception", "retry", "es_503"),
    (504, "brand_new_exception", "retry", "es_504"),
    (507, "brand_new_exception", "retry", "es_5xx"),
]
TROUBLE_ROWS = [
    (401, "brand_new_exception", AuthError, "create_doc"),
    (403, "security_exception", AuthError, "create_doc"),
    (403, "brand_new_exception", AuthError, "create_doc"),
    (404, "index_not_found_exception", ConfigError, STREAM),
    (404, "brand_new_exception", ConfigError, STREAM),
    (400, "index_closed_exception", ConfigError, STREAM),
    (400, "invalid_index_name_exception", ConfigError, STREAM),
    (400, "invalid_alias_name_exception", ConfigError, STREAM),
]


@pytest.mark.parametrize(("status", "kind", "verdict", "code"), ITEM_ROWS)
def test_every_item_row(peer, destination, status, kind, verdict, code):
    peer.dialect.item_fault = (status, kind)
    assert tally(send(destination, make_events(3))) == {(verdict, code): 3}
    assert peer.received() == []


@pytest.mark.parametrize(("status", "kind", "error", "names"), TROUBLE_ROWS)
def test_an_item_that_says_the_target_is_wrong_judges_nothing(peer, destination, status, kind, error, names):
    peer.dialect.item_fault = (status, kind)
    with pytest.raises(error, match=names) as raised:
        send(destination, make_events(3))
    assert raised.value.hint


def test_the_rows_above_are_all_rows_of_the_tables():
    assert {kind for _, kind, *_ in ITEM_ROWS + TROUBLE_ROWS} == {*ITEM_ERRORS, "brand_new_exception"}
    assert set(ITEM_STATUSES) - {201} <= {status for status, *_ in ITEM_ROWS + TROUBLE_ROWS}
    assert set(STATUSES) | {500, 502, 503, 504, 418} == {status for status, *_ in CALL_ROWS}
    assert set(BAD_REQUESTS) == set(BAD_ROWS)


CALL_ROWS = [
    (200, "taken"), (400, "config"), (401, "auth"), (403, "auth"), (404, "config"), (405, "config"), (406, "config"),
    (407, "config"), (408, "retry"), (413, "too_large"), (415, "config"), (418, "config"), (425, "retry"),
    (429, "retry"), (500, "retry"), (502, "retry"), (503, "retry"), (504, "retry"),
]  # fmt: skip
BAD_ROWS = {
    "media_type_header_exception": "config",
    "parse_exception": "data",
    "parsing_exception": "data",
    "x_content_parse_exception": "data",
    "json_parse_exception": "data",
    "json_e_o_f_exception": "data",
    "illegal_argument_exception": "data",
    "action_request_validation_exception": "data",
    "security_exception": "auth",
}


@pytest.mark.parametrize(("status", "action"), CALL_ROWS)
@pytest.mark.parametrize("body", [None, {}, "text", {"error": "text"}], ids=["none", "empty", "text", "word"])
def test_every_call_row_whatever_the_body(status, action, body):
    assert judge_call(status, body).action == action


@pytest.mark.parametrize(("kind", "action"), BAD_ROWS.items())
def test_every_bad_request_row(kind, action):
    assert judge_call(400, {"error": {"type": kind}}).action == action
    assert judge_call(400, {"error": {"type": ["no", "text"]}}).action == "data"


@pytest.mark.parametrize(
    "outcome",
    [None, [], "201", {}, {"status": "201"}, {"status": 200}, {"status": 202}, {"status": 201, "error": {"type": "x"}}],
)
def test_what_is_no_item_is_not_judged(outcome):
    assert judge_item(outcome) is None


def test_the_failure_store_is_no_delivery(peer, destination):
    """Elasticsearch 9.1 answers 201 for a document that went into the stream's failure store instead."""
    peer.dialect.items = lambda items: [
        {"create": {**one["create"], "failure_store": ("used", "not_applicable_or_unknown")[number % 2]}}
        for number, one in enumerate(items)
    ]
    assert tally(send(destination, make_events(4))) == {("rejected", "es_failure_store"): 2, ("delivered", ""): 2}


# --- answers that lie


@pytest.mark.parametrize(
    "change",
    [
        lambda items: items[:-1],
        lambda items: items[:1],
        lambda items: [*items, items[0]],
        lambda items: [],
        lambda items: None,
        lambda items: [{"index": one["create"]} for one in items],
        lambda items: [{**one, "index": {"status": 201}} for one in items],
        lambda items: [{"create": {"status": 201, "error": {"type": "x"}}} for one in items],
        lambda items: [one["create"] for one in items],
        lambda items: {str(number): one for number, one in enumerate(items)},
    ],
    ids=["short", "one", "long", "empty", "null", "index", "both", "201+error", "bare", "object"],
)
def test_items_that_do_not_match_the_actions_judge_nothing(peer, destination, change):
    peer.dialect.items = change
    with pytest.raises(TransientError, match="what became of it"):
        send(destination, make_events(5))
    peer.dialect.items = None
    assert tally(send(destination, make_events(5))) == {("duplicate", ""): 5}


def test_a_server_without_the_product_header_is_not_trusted(peer, destination):
    peer.dialect.product = False
    with pytest.raises(ConfigError, match="not Elasticsearch"):
        send(destination, make_events(2))


@pytest.mark.parametrize("body", [None, [], "x", {"items": 3}, {"errors": False}])
def test_read_items_is_total(body):
    assert read_items(body, 1) is None


# --- one batch


def test_only_what_is_asked_for_is_sent_again(peer, destination):
    events = make_events(9)
    peer.script(Behaviour("retry_items", every=3))
    verdicts = send(destination, events)
    assert [verdict.status for verdict in verdicts] == ["delivered", "delivered", "retry"] * 3
    assert {verdict.code for verdict in verdicts} == {"", "es_rejected_execution", "es_unavailable_shards"}
    again = [event for event, verdict in zip(events, verdicts, strict=True) if verdict.status == "retry"]
    assert tally(send(destination, again)) == {("delivered", ""): 3}
    assert tally(send(destination, events)) == {("duplicate", ""): 9}
    assert sorted(peer.received()) == sorted(event.event_id for event in events)


def test_the_request_is_as_documented(peer, destination):
    events = make_events(40)
    send(destination, events)
    request = next(one for one in peer.dialect.requests if peer.dialect.is_data(one))
    assert request.method == "POST"
    assert request.path == f"/{STREAM}/_bulk"
    assert request.query == {"filter_path": "errors,items.*.status,items.*.error.type,items.*.failure_store"}
    assert request.headers["content-encoding"] == "gzip"
    assert "x-ndjson" in request.headers["content-type"]
    assert "compatible-with=" in request.headers["accept"]
    lines = request.plain.split(b"\n")
    assert lines[-1] == b""
    assert [json.loads(line) for line in lines[:-1:2]] == [{"create": {"_id": event.event_id}} for event in events]
    first = json.loads(lines[1])
    assert first["data_stream"] == {"type": "logs", "dataset": "ai_audit.access", "namespace": "default"}
    assert first["@timestamp"] == events[0].timestamp


def test_an_id_that_is_no_hex_is_quoted(peer, destination):
    event = AccessEvent(event_id='a"b\n', timestamp="2026-11-23T09:00:00.000Z", tenant_id="t", source="s")
    assert tally(send(destination, [EncodedEvent(event.event_id, event.timestamp, encode(event))])) == {
        ("delivered", ""): 1
    }
    assert peer.received() == ['a"b\n']


def test_large_poison_is_alone(peer):
    one = make(peer, event_bytes=50_000)
    bodies = [b'{"event_id":"\xff' + b"x" * 60_000 + b'"}', b"x" * 60_000, b'{"event_id":"' + b"x" * 60_000]
    poison = [EncodedEvent(f"{number:032x}", "", body) for number, body in enumerate(bodies)]
    verdicts = send(one, [*poison, *make_events(2)])
    assert [verdict.status for verdict in verdicts] == ["rejected"] * 3 + ["delivered"] * 2
    one.close()


def test_poison_is_alone(peer, destination):
    events = make_events(4)
    torn = EncodedEvent("0" * 32, events[0].timestamp, b'{"event_id":"')
    other = EncodedEvent("1" * 32, events[0].timestamp, events[0].body)
    verdicts = send(destination, [events[0], torn, events[1], other, *events[2:]])
    assert verdicts[1] == verdicts[3] == Verdict("rejected", code="unencodable")
    assert tally(verdicts)["delivered", ""] == 4
    assert len(peer.received()) == 4


def test_a_request_that_is_too_large_is_halved(peer, destination):
    peer.script(Behaviour("too_large", times=0, limit=6_000))
    events = [*make_events(30), oversize_event(99, 40_000)]
    verdicts = send(destination, events)
    assert tally(verdicts) == {("delivered", ""): 30, ("rejected", "event_too_large"): 1} or tally(verdicts) == {
        ("delivered", ""): 31
    }
    assert peer.traffic.requests < 40
    if verdicts[-1].status == "delivered":
        document = json.loads(peer.bodies(events[-1].event_id)[0])
        assert document["ai_audit"]["truncated"] is True
        assert document["ai_audit"]["prompt"]["hash"] == "hmac-sha256:k1:" + "ab" * 32


def test_an_event_above_its_limit_is_cut_and_marked_or_rejected_by_policy(peer):
    big = oversize_event(1, 200_000)
    for policy, expected in (("truncate", "delivered"), ("reject", "rejected")):
        one = make(peer, event_bytes=50_000, oversize=policy)
        assert send(one, [big])[0].status == expected
        one.close()
    document = json.loads(peer.bodies(big.event_id)[0])
    assert document["ai_audit"]["truncated"] is True
    assert len(peer.bodies(big.event_id)[0]) < 100_000
    assert peer.traffic.largest < 100_000


def test_limits_hold_for_what_is_really_sent(peer):
    one = make(peer, batch_bytes=20_000, event_bytes=10_000, batch_events=50)
    assert tally(send(one, make_events(200))) == {("delivered", ""): 200}
    one.close()
    assert peer.traffic.largest <= 20_000
    assert peer.traffic.requests >= 5


def test_a_request_that_is_refused_whole_is_halved_to_the_one(peer, destination, monkeypatch):
    """A 400 for the whole call does not say which line is at fault."""
    events = make_events(16)
    bad = events[11].event_id.encode()
    real = peer.dialect._bulk
    monkeypatch.setattr(
        peer.dialect,
        "_bulk",
        lambda request, *rest: (
            peer.dialect._error(400, "parse_exception") if bad in request.plain else real(request, *rest)
        ),
    )
    verdicts = send(destination, events)
    assert verdicts[11] == Verdict("rejected", code="es_bad_request")
    assert tally(verdicts)["delivered", ""] == 15


def test_when_every_event_is_refused_the_target_is_wrong_not_the_events(peer, destination):
    peer.dialect.item_fault = (400, "illegal_argument_exception")
    assert tally(send(destination, make_events(9))) == {("rejected", "es_illegal_argument"): 9}
    with pytest.raises(ConfigError, match="refuses every event"):
        send(destination, make_events(10))
    peer.dialect.item_fault = None
    send(destination, make_events(1))
    peer.dialect.item_fault = (400, "illegal_argument_exception")
    assert tally(send(destination, make_events(10, first=50))) == {("rejected", "es_illegal_argument"): 10}


def test_what_was_judged_before_a_failure_stays_judged(peer):
    one = make(peer, batch_events=10)
    peer.script(Behaviour("slow", seconds=0.0), Behaviour("throttle", retry_after="7"))
    verdicts = send(one, make_events(30))
    assert [verdict.status for verdict in verdicts] == ["delivered"] * 10 + ["retry"] * 20
    assert {verdict.retry_after for verdict in verdicts[10:]} == {7.0}
    one.close()


# --- credentials, nodes, versions


def test_a_new_secret_is_read_once(peer, destination):
    send(destination, make_events(1))
    peer.script(Behaviour("rotate"))
    assert tally(send(destination, make_events(3, first=5))) == {("delivered", ""): 3}
    peer.script(Behaviour("unauthorized", times=2))
    with pytest.raises(AuthError, match="401") as raised:
        send(destination, make_events(1, first=20))
    assert "API key" in raised.value.hint


def test_a_missing_privilege_is_named(peer, destination):
    peer.script(Behaviour("forbidden"))
    with pytest.raises(AuthError) as raised:
        send(destination, make_events(1))
    assert "auto_configure and create_doc" in raised.value.hint


def test_another_node_takes_over(peer):
    other = elastic_peer()
    down, up = other.address["url"], peer.address["url"]
    one = make(peer, urls=(down, up))
    other.script(Behaviour("down"))
    assert tally(send(one, make_events(5))) == {("delivered", ""): 5}
    one.close()
    other.close()


def test_a_client_of_another_major_version_is_named(peer, destination, monkeypatch):
    monkeypatch.setattr(peer.dialect, "_bulk", lambda *given: peer.dialect._error(400, "media_type_header_exception"))
    with pytest.raises(ConfigError) as raised:
        send(destination, make_events(1))
    assert "elasticsearch<9" in raised.value.hint


@pytest.mark.parametrize("text", ["7", "0", "soon", "", "1e9", "-3", "nan"])
def test_retry_after_is_capped_or_left_out(peer, destination, text):
    peer.script(Behaviour("busy", code=503, retry_after=text))
    with pytest.raises(TransientError) as raised:
        send(destination, make_events(1))
    assert raised.value.retry_after == {"7": 7.0, "0": 0.0, "1e9": 300.0}.get(text)


@pytest.mark.parametrize("namespace", ["", "Prod", "a-b", "a/b", "..", "a b", "a*", "x" * 101])
def test_a_namespace_is_part_of_a_path(peer, namespace):
    with pytest.raises(ConfigError, match="data stream"):
        make(peer, namespace=namespace)


@pytest.mark.parametrize(
    "settings", [{"urls": ()}, {"api_key": ""}, {"username": "u"}, {"urls": ("https://localhost:1/?q=1",)}]
)
def test_settings_that_cannot_work_are_refused(peer, settings):
    with pytest.raises(ConfigError) as raised:
        make(peer, **settings)
    assert "destinations.elastic" in str(raised.value)


def test_nothing_of_an_event_is_logged_or_quoted(peer, caplog):
    caplog.set_level(logging.DEBUG)
    one = make(peer)
    secret = "zebra-crossing-7781"
    send(one, [make_event(1, prompt_text=secret)])
    peer.script(Behaviour("refuse_items", ids=(make_event(2).event_id,)))
    verdicts = send(one, [make_event(2, prompt_text=secret)])
    peer.script(Behaviour("reset_mid_response"))
    with pytest.raises(TransientError) as raised:
        send(one, [make_event(3, prompt_text=secret)])
    one.close()
    assert verdicts[0].code == "es_mapping"
    assert secret not in caplog.text + str(raised.value) + raised.value.hint


# --- the rest of the way


def test_hostile_texts_arrive_unchanged(peer, destination):
    events = hostile_events()
    assert tally(send(destination, events)) == {("delivered", ""): len(events)}
    for event, text in zip(events, HOSTILE_TEXTS.values(), strict=True):
        assert json.loads(peer.bodies(event.event_id)[0])["ai_audit"]["prompt"]["text"] == text


# --- install, check, verify


def test_templates_are_derived_from_the_catalog():
    mapped = mappings_template()["template"]["mappings"]
    assert mapped["dynamic"] is False
    for name in leaf_types():
        node = mapped
        for part in name.split("."):
            node = node["properties"][part]
        assert "type" in node
    template = index_template("365d")
    assert template["index_patterns"] == ["logs-ai_audit.access-*"]
    assert template["priority"] == 501
    assert template["data_stream"] == {}
    assert template["template"] == {"lifecycle": {"enabled": True, "data_retention": "365d"}}
    assert "data_retention" not in json.dumps(index_template())
    assert "index.lifecycle.name" not in json.dumps(artefacts())
    assert list(artefacts())[2] == "/_index_template/logs-ai_audit.access"
    for stream in ("finding", "health", "checkpoint"):
        index = artefacts("30d")[f"/_index_template/logs-ai_audit.{stream}"]
        assert index["index_patterns"] == [f"logs-ai_audit.{stream}-*"]
        assert index["template"]["lifecycle"]["data_retention"] == "30d"


WHOLE_DAY = (1_795_392_000_000, 1_795_478_400_000)


def test_install_then_check_then_count(peer):
    one = make(peer, retention="30d")
    assert one.check() == [
        "elastic: the index template logs-ai_audit.access is not there; run: aitrail elastic install."
    ]
    assert one.install() == one.install() == list(artefacts())
    assert one.check() == []
    lifecycle = peer.dialect.templates["/_index_template/logs-ai_audit.access"]["template"]["lifecycle"]
    assert lifecycle == {"enabled": True, "data_retention": "30d"}
    events = make_events(2_500)
    send(one, events[:-1], 20.0)
    counted = one.counts(*WHOLE_DAY)
    assert counted == {event.event_id: 1 for event in events[:-1]}
    assert one.counts(WHOLE_DAY[0] - 1_000, WHOLE_DAY[0]) == {}
    one.close()


def test_more_ids_than_one_answer_lists_are_never_taken_for_all(peer, monkeypatch):
    one = make(peer)
    send(one, make_events(60), 20.0)
    monkeypatch.setattr("aitrail.destinations.elastic._COUNTED_IDS", 50)
    assert one.counts(*WHOLE_DAY) is None
    found = compare(lambda start, end: [], one.counts, *WHOLE_DAY)
    assert found.extra == 60
    one.close()


def test_check_names_what_is_missing(peer, destination):
    destination.install()
    peer.dialect.privileges["create_doc"] = False
    peer.dialect.templates["/_index_template/logs-ai_audit.access"]["version"] = 0
    wrong = " ".join(destination.check())
    assert f"create_doc are missing on {STREAM}" in wrong
    assert "older aitrail" in wrong
    peer.dialect.number = "7.17.1"
    assert "7.17.1" in destination.check()[0]
    peer.script(Behaviour("down"))
    assert "refused" in destination.check()[0]


def test_without_the_client_the_extra_is_named(peer, monkeypatch):
    monkeypatch.setitem(sys.modules, "aitrail.destinations.elastic_client", None)
    with pytest.raises(ConfigError) as raised:
        make(peer)
    assert "aitrail[elastic]" in raised.value.hint


def test_nothing_is_ever_pending(destination):
    assert destination.confirm("x").status == "retry"


# --- a server that others wrote


@pytest.fixture
def other_server(tmp_path, unused_port):
    pytest.importorskip("noida_db")
    program = Path(sys.executable).with_name("noida-db")
    command = [program, "start", "--data-dir", tmp_path, "--only", "elasticsearch", "--elasticsearch-port"]
    with subprocess.Popen(
        [*map(str, command), str(unused_port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        yield f"http://127.0.0.1:{unused_port}"
        os.killpg(process.pid, signal.SIGTERM)


@pytest.fixture
def unused_port():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


def test_against_noida_db(other_server, monkeypatch):
    """noida-db speaks the Elasticsearch API and is written by others; it has no data streams' rules and no security."""
    monkeypatch.setenv("AITRAIL_TEST_KEY", "none")
    one = ElasticDestination(
        ElasticSettings(urls=(other_server,), api_key="env:AITRAIL_TEST_KEY", proxy="none"), Secrets()
    )
    until = time.monotonic() + 20
    while "refused" in " ".join(one.check()) and time.monotonic() < until:
        time.sleep(0.1)
    assert one.install() == list(artefacts())
    assert one.check() == []
    whole = example_event()
    events = [*make_events(300), *hostile_events(), EncodedEvent(whole.event_id, whole.timestamp, encode(whole))]
    assert tally(send(one, events, 30.0)) == {("delivered", ""): len(events)}
    assert tally(send(one, events, 30.0)) == {("duplicate", ""): len(events)}
    one.refresh()
    counted = [found for _, _, found in counted_slices(one.counts, WHOLE_DAY[0], WHOLE_DAY[1])]
    assert {one: 1 for found in counted for one in found} == {event.event_id: 1 for event in events}
    assert {count for found in counted for count in found.values()} == {1}
    mapping = one._ask("GET", f"/{STREAM}/_mapping").body[STREAM]["mappings"]["properties"]
    assert mapping["source"]["properties"]["ip"]["type"] == "ip"
    one.close()


def test_the_page_names_every_row():
    page = (Path(__file__).parents[2] / "docs/destinations/elastic.md").read_text()
    for kind in (*ITEM_ERRORS, "media_type_header_exception", *PRIVILEGES):
        assert f"`{kind}`" in page, kind
    for status in STATUSES:
        assert str(status) in page, status
    for path in artefacts():
        assert f"`{path[1:]}`" in page
