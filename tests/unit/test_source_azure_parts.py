"""Pieces of the Azure and bus sources that need no server: settings, places, messages, errors, joins after a crash."""

import gzip

import msgspec
import pytest

from aitrail.config import Config, SourceConfig
from aitrail.errors import AuthError, ConfigError, TransientError
from aitrail.ports import Budget, RawBatch, RawRecord
from aitrail.registry import SOURCES, make_source, source_settings
from aitrail.secrets import Secrets
from aitrail.sources._azure_blob_listing import Blob, Looked, Sweep, decode_sweep, hour_end, prefixes
from aitrail.sources._azure_blob_reading import BlobCursor, decode, unchanged
from aitrail.sources._azure_blobs_settings import AzureBlobsSettings
from aitrail.sources._azure_calls import Calls
from aitrail.sources._azure_start import start_epoch
from aitrail.sources._caps import Caps
from aitrail.sources._event_hubs_settings import EventHubsSettings
from aitrail.sources._kafka_messages import records_of
from aitrail.sources._kafka_settings import KafkaSourceSettings
from aitrail.sources._log_analytics_query import Window, literal, parse_ticks, text_of, ticks_of
from aitrail.sources._log_analytics_settings import LogAnalyticsSettings
from aitrail.testing.azure_flow import Flow, StillClock, gateway, llm

KINDS = {
    "azure_blobs": (AzureBlobsSettings, {"account_url": "https://acme.blob.core.windows.net"}),
    "event_hubs": (
        EventHubsSettings,
        {"namespace": "acme.servicebus.windows.net", "event_hub": "insights", "start": "earliest"},
    ),
    "log_analytics": (LogAnalyticsSettings, {"workspace_id": "00000000-0000-4000-8000-0000000000aa"}),
    "kafka": (KafkaSourceSettings, {"brokers": ["127.0.0.1:9092"], "topics": ["t"], "security": "plaintext"}),
}
WRONG = [
    ("azure_blobs", {"account_url": ""}, "either account_url or connection_string"),
    ("azure_blobs", {"account_url": "ftp://x"}, "must be like"),
    ("azure_blobs", {"account_url": "http://acme.example.com"}, "must be https"),
    ("azure_blobs", {"containers": []}, "containers is empty"),
    ("azure_blobs", {"containers": ["a*b"]}, "at the end"),
    ("azure_blobs", {"start": "yesterday"}, "start must be"),
    ("azure_blobs", {"start": "2026-11-01T00:00:00"}, "with its zone"),
    ("azure_blobs", {"bucket": "x"}, "unknown field"),
    ("event_hubs", {"namespace": ""}, "either namespace or connection_string"),
    ("event_hubs", {"checkpoint_url": "https://acme.blob.core.windows.net"}, "checkpoint_container"),
    ("event_hubs", {"namespace": "a b"}, "must be like"),
    ("log_analytics", {"workspace_id": "acme"}, "GUID"),
    ("log_analytics", {"tables": ["T | union *"]}, "letters, digits and underscores"),
    ("log_analytics", {"tables": []}, "tables is empty"),
    ("kafka", {"topics": []}, "topics is empty"),
    ("kafka", {"topics": ["^t.*"]}, "names, not patterns"),
    ("kafka", {"start": "tomorrow"}, "start must be"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_registered_and_made_from_a_table(kind):
    settings, table = KINDS[kind]
    config = Config(path="aitrail.toml", text="")
    source = SourceConfig(type=kind, options=table)
    assert isinstance(source_settings("x", source, config), settings)
    made = make_source("x", source, config, StillClock(), b"key")
    assert made.name == "x"
    made.close()
    assert SOURCES[kind].extra in ("azure", "kafka")


@pytest.mark.parametrize(("kind", "change", "said"), WRONG)
def test_wrong_settings_say_the_fix(kind, change, said):
    _, table = KINDS[kind]
    config = Config(path="aitrail.toml", text="")
    with pytest.raises(ConfigError) as caught:
        source_settings("x", SourceConfig(type=kind, options={**table, **change}), config)
    assert said in f"{caught.value} {caught.value.hint}"


def test_event_hubs_has_no_start_of_its_own():
    table = {name: value for name, value in KINDS["event_hubs"][1].items() if name != "start"}
    with pytest.raises(msgspec.ValidationError, match="start"):
        msgspec.convert(table, EventHubsSettings)


def test_kafka_keeps_its_promise_against_extra_settings():
    settings = KafkaSourceSettings(
        brokers=("b:1",), topics=("t",), security="plaintext", extra={"enable.auto.commit": "true"}
    )
    with pytest.raises(ConfigError, match=r"enable\.auto\.commit"):
        settings.consumer("sources.x", Secrets())
    config = KafkaSourceSettings(brokers=("b:1",), topics=("t",), security="plaintext").consumer("x", Secrets())
    assert (config["enable.auto.commit"], config["auto.offset.reset"]) == (False, "error")
    assert "queue.buffering.max.messages" not in config


class Nothing:
    """Cursors of a source that was never read."""

    def get(self, key):
        return None

    def items(self):
        return iter(())


@pytest.mark.parametrize(
    ("kind", "table"),
    [
        ("azure_blobs", {"connection_string": "env:BAD"}),
        ("event_hubs", {"event_hub": "x", "start": "earliest", "connection_string": "env:BAD"}),
        (
            "event_hubs",
            {
                "event_hub": "x",
                "start": "earliest",
                "namespace": "acme.servicebus.windows.net",
                "checkpoint_container": "c",
                "checkpoint_connection_string": "env:BAD",
            },
        ),
        ("kafka", {"brokers": ["b:1"], "topics": ["t"], "ca_file": "/nowhere/secret.pem"}),
    ],
)
def test_what_is_no_connection_string_is_said_without_it(kind, table, monkeypatch):
    monkeypatch.setenv("BAD", "AccountKey=hunter2")
    source = make_source("x", SourceConfig(type=kind, options=table), Config(), StillClock(), b"")
    (problem,) = source.check()
    with pytest.raises((ConfigError, AuthError)) as caught:
        list(source.fetch(Nothing(), Budget()))
    assert "hunter2" not in f"{problem}{caught.value}{caught.value.hint}"
    assert caught.value.hint
    source.close()


def test_starts():
    assert start_epoch("earliest", 5.0) == 0.0
    assert start_epoch("latest", 5.0) == 5.0
    assert start_epoch("1970-01-01T01:00:00+01:00", 5.0) == 0.0


# --- blobs


def test_prefixes_are_hours_then_days():
    since = start_epoch("2026-11-23T22:10:00Z", 0)
    assert list(prefixes("r/", since, since + 2 * 3_600)) == [
        "r/y=2026/m=11/d=23/h=22/",
        "r/y=2026/m=11/d=23/h=23/",
        "r/y=2026/m=11/d=24/h=00/",
    ]
    assert list(prefixes("r/", since, since + 2 * 86_400)) == [f"r/y=2026/m=11/d={day}/" for day in (23, 24, 25)]


def test_hours_of_names():
    assert hour_end("y=2026/m=11/d=23/h=09/m=00/PT1H.json") == start_epoch("2026-11-23T10:00:00Z", 0)
    assert hour_end("other/name.json") == float("inf")
    assert hour_end("x/y=2026/m=13/d=99/h=09/m=00/PT1H.json") == float("inf")


@pytest.mark.parametrize("data", [None, b"", b"{", b"[]", b'{"v":9}', b'{"folders":{"x":{}},"v":1}'])
def test_cursors_that_cannot_be_read_are_none(data):
    assert decode_sweep(data).folders == {}
    assert decode(data) is None


def test_sweep_and_cursor_come_back():
    sweep = Sweep({"k": Looked(1.0, 2.0, 3.0)}, 4.0)
    assert decode_sweep(msgspec.json.encode(sweep)) == sweep
    cursor = BlobCursor("e", 5, 1.0, done=True, v=1)
    assert decode(msgspec.json.encode(cursor)) == cursor
    blob = Blob("c", "n", "e", 5, 100.0, 1.0, append=True)
    assert unchanged(cursor, blob, 200.0)
    assert not unchanged(cursor, blob._replace(etag="f"), 200.0)
    waiting = msgspec.structs.replace(cursor, waits=True)
    assert unchanged(waiting, blob, 200.0)
    assert not unchanged(waiting, blob, 100.0 + 90_000)


# --- queries


def test_query_text_is_made_of_settings_and_times():
    window = Window(ticks_of(1_000_000.5), ticks_of(1_000_001.0), 16, 3)
    times = "datetime(1970-01-12T13:46:40.5000000Z)", "datetime(1970-01-12T13:46:41.0000000Z)"
    providers = ("COGNITIVESERVICES", "APIMANAGEMENT", "MACHINELEARNINGSERVICES")
    listed = ", ".join(f'"MICROSOFT.{one}"' for one in providers)
    assert text_of("AzureDiagnostics", window).splitlines() == [
        "AzureDiagnostics",
        f"| where ingestion_time() >= {times[0]} and ingestion_time() < {times[1]}",
        f"| where ResourceProvider in~ ({listed})",
        "| where hash(tostring(pack_all()), 16) == 3",
        "| extend aitrail_ingested = ingestion_time()",
    ]


@pytest.mark.parametrize("text", ["2026-11-23T09:14:05.4465902Z", "2026-11-23T09:14:05Z", "2026-11-23T09:14:05.1Z"])
def test_times_keep_seven_decimals(text):
    ticks = parse_ticks(text)
    assert parse_ticks(literal(ticks)[9:-1]) == ticks


# --- messages


def framed(message):
    return [(one.data, one.index, one.error) for one in records_of(message, 7, Caps(record_bytes=1_000))]


def test_messages_of_every_shape():
    assert framed(b'{"a":1}') == [(b'{"a":1}', 0, "")]
    assert framed(b'{"records":[{"a":1},{"a":2}]}') == [(b'{"a":1}', 0, ""), (b'{"a":2}', 1, "")]
    assert framed(b'[{"a":1},{"a":2}]') == [(b'{"a":1}', 0, ""), (b'{"a":2}', 1, "")]
    assert framed(b'{"a":1}\n{"a":2}\n') == [(b'{"a":1}', 0, ""), (b'{"a":2}', 1, "")]
    assert framed(gzip.compress(b'{"a":1}\n{"a":2}')) == [(b'{"a":1}', 0, ""), (b'{"a":2}', 1, "")]
    assert framed(b"hello") == [(b"hello", 0, "")]
    assert framed(b'{"torn":') == [(b'{"torn":', 0, "")]
    assert framed(b'{"a":1}\n{"torn":')[-1] == (b"", 1, "record_torn")
    assert framed(gzip.compress(b'{"a":1}\n')[:-9])[-1][2] == "gzip_truncated"
    assert framed(b"x" * 1_001) == [(b"", 0, "record_too_large")]
    assert framed(b" \n") == []
    assert {one.position for one in records_of(b"[{},{}]", 7, Caps())} == {7}


# --- errors of the SDK


class _Response:
    def __init__(self, status, headers=None):
        self.status_code = status
        self.headers = headers or {}
        self.reason = "made up"


def sdk_error(status, headers=None, code=""):
    from azure.core.exceptions import HttpResponseError

    error = HttpResponseError("secret words of a request", response=_Response(status, headers))
    error.error_code = code
    return error


@pytest.mark.parametrize(
    ("status", "kind", "calls"),
    [
        (401, AuthError, 2),
        (403, AuthError, 1),
        (400, TransientError, 3),
        (500, TransientError, 3),
        (503, TransientError, 3),
    ],
)
def test_calls_are_repeated_where_that_helps(status, kind, calls):
    clock, made = StillClock(), []
    renewed = []

    def call():
        made.append(1)
        raise sdk_error(status)

    with pytest.raises(kind) as caught:
        Calls(clock, "blobs", "grant it", lambda: renewed.append(1)).run("reading", call)
    assert len(made) == calls
    assert len(renewed) == (status == 401)
    assert "secret" not in str(caught.value)


def test_a_long_wait_is_left_to_the_caller():
    clock = StillClock()
    start = clock.time
    with pytest.raises(TransientError) as caught:
        Calls(clock, "blobs", "", lambda: None).run(
            "reading", lambda: (_ for _ in ()).throw(sdk_error(429, {"Retry-After": "60"}))
        )
    assert (caught.value.retry_after, clock.time) == (60.0, start)


def test_where_no_answer_came_the_way_there_is_named():
    from azure.core.exceptions import ServiceRequestError

    found = Calls(StillClock(), "blobs", "grant it", lambda: None).explain(ServiceRequestError("x"), "reading")
    assert "check the service's name" in found.hint
    assert "nothing is lost" in found.hint
    assert (
        "check the service's name" not in Calls(StillClock(), "b", "", lambda: None).explain(sdk_error(500), "r").hint
    )


def test_bugs_are_not_taken_for_errors_of_the_service():
    with pytest.raises(TypeError):
        Calls(StillClock(), "blobs", "", lambda: None).run("reading", lambda: len(3))  # type: ignore[arg-type]


# --- joins after a crash


class Objects:
    """Batches from lists; the cursor of an object is the number of the batch behind it."""

    name = "list"

    def __init__(self):
        self.objects = {}

    def fetch(self, cursors, budget):
        for name, batches in self.objects.items():
            for number, rows in enumerate(batches[int(cursors.get(name) or b"0") :], int(cursors.get(name) or b"0")):
                records = [RawRecord(raw, number * 1_000 + at, at) for at, raw in enumerate(rows)]
                yield RawBatch(name, records, name, str(number + 1).encode())


@pytest.fixture
def flow(tmp_path):
    source = Objects()
    made = Flow(tmp_path, lambda: source, StillClock())
    yield made
    made.close()


def numbers(flow):
    return [int(event.source_event_id[-2:]) for event in flow.delivered()]


def test_part_that_comes_again_without_its_sibling_is_no_second_event(flow):
    """Object ``who`` is held back by a part that waits; object ``what`` is not; then a crash."""
    flow.source.objects = {"who": [[gateway(1), gateway(2)]], "what": [[llm(1)]]}
    flow.run(flush_older_than=900.0)
    assert numbers(flow) == [1]
    assert flow.spool.cursors("list").get("who") is None
    assert flow.spool.cursors("list").get("what") == b"1"
    flow.restart()
    flow.source.objects["what"].append([llm(2)])
    totals = flow.run()
    assert numbers(flow) == [1, 2]
    assert all(event.flags == () and event.user_id and event.token_count for event in flow.report.events)
    assert totals.skipped["duplicate_part"] == 1
    assert flow.spool.cursors("list").get("who") == b"1"


def test_barrier_waits_for_everything_before_it(flow):
    """What a listing has seen completely may be said only when every object of it is durable."""
    flow.source.objects = {"who": [[gateway(1)]]}
    fetch = flow.source.fetch

    def swept(cursors, budget):
        yield from fetch(cursors, budget)
        yield RawBatch("list", (), "sweep", b"seen", barrier=True)

    flow.source.fetch = swept
    flow.run(flush_older_than=900.0)
    assert flow.spool.cursors("list").get("sweep") is None
    flow.source.objects["what"] = [[llm(1)]]
    flow.run(flush_older_than=900.0)
    assert flow.spool.cursors("list").get("sweep") == b"seen"
    assert numbers(flow) == [1]


def test_late_identity_is_kept_also_after_a_restart(flow):
    flow.source.objects = {"what": [[llm(1)]]}
    flow.run()
    assert [event.flags for event in flow.delivered()] == [("identity_missing",)]
    flow.restart()
    flow.source.objects = {"again": [[llm(1)]], "who": [[gateway(1)]]}
    flow.run()
    assert [bool(event.user_id) for event in flow.delivered()] == [False, True]
    assert len(flow.report.times) == 2


def test_identity_not_found_is_counted(flow):
    flow.source.objects = {"what": [[llm(1), llm(2)]], "who": [[gateway(2)]]}
    flow.run()
    assert flow.spool.counters()["list"]["identity_missing"] == 1
