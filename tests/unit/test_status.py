"""What is stuck, and how it is told to people, programs and Prometheus."""

import json
import re
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from cli_support import run

from aitrail.errors import ConfigError
from aitrail.ports import EncodedEvent
from aitrail.runtime import monitor
from aitrail.runtime.cli.status import age
from aitrail.runtime.metrics import render_health, render_metrics
from aitrail.runtime.monitor import Address, listening, parse_address
from aitrail.runtime.status import Snapshot, take
from aitrail.spool import Intake, Spool, states
from aitrail.spool.leases import SqliteLeases
from aitrail.spool.states import CollectorState, DestinationState, SourceState

NOW = 1_795_000_000.0


class Clock:
    def __init__(self, time: float = NOW) -> None:
        self.time = time

    def now(self) -> float:
        return self.time

    monotonic = now

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def make_store(
    store: Path,
    *,
    collector: CollectorState | None = None,
    source: SourceState | None = None,
    destination: DestinationState | None = None,
    waiting_since: float = 0.0,
    clock: Clock | None = None,
) -> None:
    clock = clock or Clock()
    collector = collector or CollectorState(pid=7, host="box", version="1", started=NOW - 5000, heartbeat=NOW - 5)
    with Spool.open(store, clock) as spool:
        states.save(spool.database, [("collector", collector)])
        states.save(spool.database, [("trail", source or SourceState(last_success=NOW - 3, next_due=NOW + 7))])
        states.save(spool.database, [("store", destination or DestinationState(delivered=5))])
        if waiting_since:
            clock.time = waiting_since
            event = EncodedEvent("1" * 32, "2026-11-20T08:00:00.000Z", b"{}")
            counts = {"records": 9, "rejected.json_invalid": 2, "skipped.not_ai_related": 3, "gaps": 1}
            spool.commit(
                Intake(
                    source="trail",
                    destinations=("store",),
                    events=[event],
                    cursors={},
                    counts=counts,
                    attestations={"o": "valid"},
                )
            )
            clock.time = NOW
        SqliteLeases(spool.database, "box:7:aa").acquire("trail", 60.0)


def snapshot(store: Path, stuck_after: float = 900.0) -> Snapshot:
    return take(store, Clock(), stuck_after=stuck_after)


def test_a_healthy_collector_has_no_problems(tmp_path: Path) -> None:
    make_store(tmp_path, waiting_since=NOW - 60)
    found = snapshot(tmp_path)
    assert found.problems == []
    assert found.running
    source = found.sources[0]
    assert (source.name, source.lease_owner, source.attested) == ("trail", "box:7:aa", {"valid": 1})
    assert source.counts["events"] == 1
    assert source.due_in_seconds == pytest.approx(7.0)
    assert source.sum("rejected") == 2
    assert found.destinations[0].backlog_events == 1
    assert found.destinations[0].oldest_seconds == pytest.approx(60.0)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (
            {"source": SourceState(failures=3, last_error="503", last_success=NOW - 3)},
            "source trail: has failed 3 times",
        ),
        ({"source": SourceState(failures=1, last_error="503", last_success=NOW - 901)}, "source trail: has failed 1"),
        ({"source": SourceState(state="held", last_success=NOW - 3)}, "source trail: is not read: too much waits"),
        ({"source": SourceState(oldest_open=NOW - 4000)}, "source trail: a record has not been settled for 67 min"),
        ({"source": SourceState(interval=10, next_due=NOW - 901)}, "source trail: should have been read 15 min ago"),
        ({"waiting_since": NOW - 8000}, "destination store: 1 events wait, the oldest for 2 h"),
        ({"collector": CollectorState(pid=7, host="box", heartbeat=NOW - 61)}, "has said nothing for 61 s"),
    ],
)
def test_what_is_stuck_is_said(tmp_path: Path, made: dict[str, object], said: str) -> None:
    make_store(tmp_path, **made)  # type: ignore[arg-type]
    problems = snapshot(tmp_path).problems
    assert len(problems) == 1
    assert said in problems[0]


@pytest.mark.parametrize(
    "made",
    [
        {"source": SourceState(failures=2, last_error="503", last_success=NOW - 60)},
        {"source": SourceState(oldest_open=NOW - 850)},
        {"source": SourceState(interval=86_400, next_due=NOW - 901)},
        {"collector": CollectorState(heartbeat=NOW - 90_000, stopped=NOW - 90_000)},
        {
            "collector": CollectorState(heartbeat=NOW - 9e4, stopped=NOW - 9e4),
            "source": SourceState(next_due=NOW - 9e4),
        },
    ],
)
def test_what_mends_itself_or_ended_in_order_is_not_stuck(tmp_path: Path, made: dict[str, object]) -> None:
    make_store(tmp_path, **made)  # type: ignore[arg-type]
    assert snapshot(tmp_path).problems == []


def test_a_store_that_nothing_collects_into_has_nothing_to_say(tmp_path: Path) -> None:
    Spool.open(tmp_path, Clock()).close()
    found = snapshot(tmp_path)
    assert (found.running, found.sources, found.destinations, found.problems) == (False, [], [], [])


SAMPLE = re.compile(r'[a-z_]+(\{[a-z]+="(?:[^"\\\n]|\\["\\n])*"(,[a-z]+="(?:[^"\\\n]|\\["\\n])*")*\})? -?\d+(\.\d+)?')


def parsed(text: str) -> dict[str, str]:
    """Samples by name and labels; asserts the rules of the format: HELP and TYPE before the samples, once each."""
    assert text.endswith("\n")
    samples, family, families = {}, "", []
    for line in text.splitlines():
        if line.startswith("# HELP "):
            family = line.split(" ")[2]
            families.append(family)
            continue
        if line.startswith("# TYPE "):
            assert line.split(" ")[2] == family
            assert line.split(" ")[3] in ("counter", "gauge")
            assert line.endswith("counter") == family.endswith("_total")
            continue
        assert SAMPLE.fullmatch(line), line
        name, _, value = line.rpartition(" ")
        assert re.split(r"[ {]", name)[0] == family
        assert name not in samples
        samples[name] = value
    assert len(families) == len(set(families))
    return samples


def test_metrics_are_in_the_format_of_prometheus(tmp_path: Path) -> None:
    make_store(tmp_path, waiting_since=NOW - 60, source=SourceState(newest_event=NOW - 30, failures=2))
    samples = parsed(render_metrics(snapshot(tmp_path)))
    assert samples["aitrail_up"] == "1"
    assert samples['aitrail_source_records_total{source="trail"}'] == "9"
    assert samples['aitrail_source_lag_seconds{source="trail"}'] == "30"
    assert samples['aitrail_source_failures{source="trail"}'] == "2"
    assert samples['aitrail_source_rejected_total{source="trail",reason="json_invalid"}'] == "2"
    assert samples['aitrail_source_attested_objects{source="trail",verdict="valid"}'] == "1"
    assert samples['aitrail_destination_backlog_events{destination="store"}'] == "1"
    assert samples['aitrail_destination_verdicts_total{destination="store",verdict="delivered"}'] == "5"


def test_labels_cannot_forge_lines(tmp_path: Path) -> None:
    make_store(tmp_path, waiting_since=NOW - 60)
    found = snapshot(tmp_path)
    found.sources[0].name = 'a"} 1\naitrail_up 0\\'
    samples = parsed(render_metrics(found))
    assert samples["aitrail_up"] == "1"
    assert 'aitrail_source_records_total{source="a\\"} 1\\naitrail_up 0\\\\"}' in samples


def test_health_says_what_starting_again_would_mend(tmp_path: Path) -> None:
    make_store(tmp_path)
    found = snapshot(tmp_path)
    assert json.loads(render_health(found)[1])["status"] == "ok"
    found.problems = ["source trail: x"]
    code, body = render_health(found)
    assert (code, json.loads(body)["status"], json.loads(body)["problems"]) == (200, "degraded", ["source trail: x"])
    found.running = False
    assert render_health(found)[0] == 503


def fetch(address: Address, path: str) -> tuple[int, str, str]:
    try:
        with urllib.request.urlopen(f"http://{address.host}:{address.port}{path}", timeout=30) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def test_the_monitor_answers_beside_a_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor.status, "take", lambda store: take(store, Clock()))
    with listening(Address("127.0.0.1", 0), tmp_path / "store") as address:
        assert fetch(address, "/metrics")[0] == 503, "no store yet"
        make_store(tmp_path / "store")
        with Spool.open(tmp_path / "store", Clock()):
            code, kind, text = fetch(address, "/metrics?x=1")
            assert (code, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
            assert parsed(text)["aitrail_up"] == "1"
            code, kind, text = fetch(address, "/health")
            assert (code, kind, json.loads(text)["status"]) == (200, "application/json", "ok")
        assert fetch(address, "/")[0] == 404
        assert fetch(address, "/../etc/passwd")[0] == 404
        with pytest.raises(ConfigError, match="cannot listen on"), listening(address, tmp_path):
            pass


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9464", Address("127.0.0.1", 9464)),
        (":9464", Address("127.0.0.1", 9464)),
        ("[::1]:1", Address("::1", 1)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["9464", "localhost", "localhost:", "x:70000", "x:-1", "x:٣"])
def test_no_addresses(text: str) -> None:
    with pytest.raises(ConfigError, match="is no address"):
        parse_address(text)


def test_the_command_shows_it_and_fails_when_something_is_stuck(tmp_path: Path) -> None:
    make_store(tmp_path / "store")
    result = run("status", "--format", "json", store=tmp_path / "store")
    told = json.loads(result.output)
    assert told["sources"][0]["name"] == "trail"
    assert result.return_value == 1, "the heartbeat of the fixture is old by the real clock"
    assert "has said nothing" in told["problems"][0]
    result = run("status", store=tmp_path / "store")
    assert result.return_value == 1
    assert "trail" in result.output
    assert "stuck: the collector" in result.output
    prometheus = run("status", "--format", "prometheus", store=tmp_path / "store").output
    assert parsed(prometheus)["aitrail_up"] == "0"
    assert "there is no store" in str(run("status", store=tmp_path / "nowhere").exception)


def test_the_command_is_content_with_an_ended_collector(tmp_path: Path) -> None:
    make_store(tmp_path / "store", collector=CollectorState(pid=7, heartbeat=NOW, stopped=NOW), source=SourceState())
    config = tmp_path / "aitrail.toml"
    config.write_text('[store]\ndir = "store"\n[sources.trail]\npaths = ["x"]\n')
    result = run("status", "-c", config)
    assert result.return_value == 0
    assert "nothing is stuck" in result.output


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-"), (0.2, "0s"), (75, "1m 15s"), (-7_300, "-2h 1m"), (90_061, "1d 1h"), (59.6, "1m")]
)
def test_ages(seconds: float | None, text: str) -> None:
    assert age(seconds) == text


def test_explain_says_what_is_known_of_the_objects_integrity(tmp_path: Path) -> None:
    import cli_support

    event = cli_support.event(1, source_ref="s3://bucket/key.json.gz#offset=0&record=0")
    store = cli_support.make_store(tmp_path / "store", [event])
    assert "integrity" not in run("explain", event.event_id, store=store).output
    with Spool.open(store, Clock()) as spool:
        verdicts = {"s3://bucket/key.json.gz": "mismatch"}
        spool.commit(
            Intake(source="s", destinations=(), events=[], cursors={}, attestations=verdicts, counts={"records": 1})
        )
    assert "mismatch, noted 2026-11-1" in run("explain", event.event_id, store=store).output
