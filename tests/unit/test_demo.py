"""The demo's generator: deterministic, believable, and every record means what happened."""

import functools
import json
import re
import zlib
from collections import Counter, defaultdict
from itertools import islice
from pathlib import Path

import msgspec
import pytest

from aitrail.classify.default import DefaultClassifier
from aitrail.clock import SystemClock
from aitrail.demo import bench, period, samples, text, writer
from aitrail.demo.call import Call, Record
from aitrail.demo.day import Traffic, ordinary, records_of
from aitrail.demo.incidents import INCIDENTS, LOGGING_OFF_SECOND, play
from aitrail.demo.layout import LAYOUTS
from aitrail.demo.org import APPS, DEPARTMENTS, PEOPLE, SERVICES, STAFF, App
from aitrail.demo.rng import Rng
from aitrail.demo.times import day_start, dotnet_ticks, iso_millis, iso_seconds, iso_ticks, iso_ticks_ms, nanos
from aitrail.enrich import Directory, load_directory
from aitrail.event import AccessEvent, decode
from aitrail.normalize.detect import Detector
from aitrail.normalize.join import Joiner
from aitrail.normalize.outcome import Content, Context, Fragment, Normalized, Rejected
from aitrail.normalize.registry import NORMALIZERS
from aitrail.ports import Budget
from aitrail.privacy.keys import KeyRing
from aitrail.privacy.treat import Privacy
from aitrail.secrets import Secrets
from aitrail.sources.file import FileSource
from aitrail.transform import Transform

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "samples"
DAY = "2026-11-20"
PINNED = [423, 9, "d", "01bd5596", "e266a637-2a71-4ae7-915c-5f592b374d6e", "Z73ACN"]


# --- reading back, independent of the writer's code


def raw_records(path: Path) -> list[bytes]:
    """The records of one file, framed by hand."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = zlib.decompress(data, 31)
    if data.startswith(b'{"Records":'):
        return [bytes(raw) for raw in msgspec.json.decode(data, type=dict[str, list[msgspec.Raw]])["Records"]]
    return data.splitlines()


TYPES = {
    "aws-cloudtrail": "cloudtrail",
    "aws-bedrock": "bedrock_invocation",
    "aws-sagemaker-capture": "sagemaker_capture",
    "litellm": "litellm",
    "litellm-spend": "litellm_spend",
    "otel": "otel_genai",
}


def type_of(path: Path, logs: Path) -> str:
    parts = path.relative_to(logs).parts
    if parts[0] == "azure":
        return "apim" if "gateway" in parts[1] else "azure_openai"
    return TYPES[parts[0]]


class Collected:
    """What the normalizers and the joiner make of a set of records."""

    def __init__(self) -> None:
        self.joiner = Joiner()
        self.events: list[tuple[AccessEvent, Content | None]] = []
        self.rejected: Counter[str] = Counter()

    def add(self, record_type: str, data: bytes, origin: str = "") -> None:
        for outcome in NORMALIZERS[record_type](data, Context(tenant_id="acme", origin=origin)):
            if isinstance(outcome, Normalized):
                self.events.append((outcome.event, outcome.content))
            elif isinstance(outcome, Fragment):
                self._joined(self.joiner.add(outcome, None))
            elif isinstance(outcome, Rejected):
                self.rejected[outcome.code] += 1

    def finish(self) -> "Collected":
        self._joined(self.joiner.flush())
        return self

    def _joined(self, released: list) -> None:
        self.events += [(joined.event, joined.content) for joined, _ in released if joined.event is not None]


def collect(logs: Path) -> Collected:
    found = Collected()
    for path in sorted(logs.rglob("*")):
        if path.is_file():
            for raw in raw_records(path):
                found.add(type_of(path, logs), raw, str(path))
    return found.finish()


def tree(root: Path) -> dict[str, bytes]:
    """All files; compressed ones by their content, because zlib's output differs between builds."""
    return {
        path.relative_to(root).as_posix(): zlib.decompress(path.read_bytes(), 31)
        if path.suffix == ".gz"
        else path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, writer.Manifest]:
    out = tmp_path_factory.mktemp("demo")
    return out, writer.generate(out, seed=3, day=DAY, events=1500)


@pytest.fixture(scope="module")
def collected(small) -> Collected:
    return collect(small[0] / "logs")


# --- determinism


def test_same_arguments_same_bytes(small, tmp_path) -> None:
    again = writer.generate(tmp_path, seed=3, day=DAY, events=1500)
    assert tree(tmp_path) == tree(small[0])
    assert again.events == small[1].events


def test_another_seed_is_another_day_with_the_same_people(tmp_path, small) -> None:
    writer.generate(tmp_path, seed=4, day=DAY, events=400)
    assert (tmp_path / "directory.csv").read_bytes() == (small[0] / "directory.csv").read_bytes()
    mine = {path: data for path, data in tree(tmp_path / "logs").items() if "spend" in path}
    theirs = tree(small[0] / "logs")
    assert mine
    assert all(theirs.get(path) != data for path, data in mine.items())


def test_a_second_run_in_the_same_place_leaves_nothing_of_the_first(tmp_path) -> None:
    writer.generate(tmp_path / "a", seed=4, events=300)
    writer.generate(tmp_path / "a", seed=5, events=300)
    writer.generate(tmp_path / "b", seed=5, events=300)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_logs_that_are_not_the_generators_are_kept(tmp_path) -> None:
    mine = tmp_path / "logs" / "mine.jsonl"
    mine.parent.mkdir()
    mine.write_text("{}\n")
    writer.generate(tmp_path, seed=5, events=300)
    assert mine.read_text() == "{}\n"


def test_random_values_are_pinned() -> None:
    """The same on every Python version: only what the language promises to keep is used."""
    rng = Rng(1, "2026-11-20", "pinned")
    values = [rng.below(1000), rng.between(5, 9), rng.pick("abcdef"), rng.hex(8), rng.uuid(), rng.letters(6)]
    assert values == PINNED
    assert rng.weighted(("a", "b"), (0.0, 1.0)) == "b"


def test_gzip_members_carry_no_time(small) -> None:
    for path in (small[0] / "logs").rglob("*.gz"):
        assert path.read_bytes()[4:8] == bytes(4), path.name


# --- the manifest tells the truth


def test_manifest_counts_what_is_on_disk(small) -> None:
    out, manifest = small
    counts: Counter[str] = Counter()
    files = size = 0
    for path in (out / "logs").rglob("*"):
        if not path.is_file():
            continue
        files += 1
        size += path.stat().st_size
        kind = type_of(path, out / "logs")
        for raw in raw_records(path):
            counts[kind] += len(otlp_items(json.loads(raw))) if kind == "otel_genai" else 1
    assert counts == manifest.records
    assert (files, size) == (manifest.files, manifest.bytes)
    stored = msgspec.json.decode((out / "manifest.json").read_bytes(), type=writer.Manifest)
    assert stored.events == manifest.events
    assert stored.logs == "logs"


def otlp_items(line: dict) -> list[dict]:
    found = []
    for outer, inner, items in (("resourceSpans", "scopeSpans", "spans"), ("resourceLogs", "scopeLogs", "logRecords")):
        for resource in line.get(outer, []):
            for scope in resource[inner]:
                found += scope[items]
    return found


def test_every_ai_record_becomes_the_events_that_the_manifest_promises(small, collected) -> None:
    manifest = small[1]
    by_source = Counter(event.source for event, _ in collected.events)
    assert dict(by_source) == manifest.events
    assert sum(by_source.values()) == manifest.expected_events
    assert dict(collected.rejected) == manifest.foreign
    assert manifest.foreign["not_ai_related"] > 0
    ids = Counter(event.event_id for event, _ in collected.events)
    assert max(ids.values()) == 1, "two records gave the same event"


class NoCursors:
    def get(self, key: str) -> None:
        return None

    def items(self):
        return iter(())


def test_the_file_source_and_the_detector_find_the_same(small) -> None:
    out, manifest = small
    found = Collected()
    detector = Detector()
    for batch in FileSource("demo", [str(out / "logs")], clock=SystemClock()).fetch(NoCursors(), Budget()):
        for record in batch.records:
            assert not record.error
            found.add(detector.detect(record.data), record.data, batch.origin)
    found.finish()
    assert Counter(event.source for event, _ in found.events) == manifest.events
    assert dict(found.rejected) == manifest.foreign


def test_the_number_of_events_is_about_what_was_asked(small) -> None:
    assert abs(small[1].expected_events - 1500) < 90


# --- every call means what happened


def normalized(records: list[Record]) -> Collected:
    found = Collected()
    for record in records:
        data = record.data
        if record.stream[0] == "otel":
            data = LAYOUTS["otel"].frame(record.stream, [data]).rstrip(b"\n")
        found.add(record.record_type, data, "logs/" + LAYOUTS[record.stream[0]].place(record.stream, 495000).path)
    return found.finish()


def calls(app: App, sessions: int = 40) -> list[tuple[Call, list[Record]]]:
    traffic = Traffic(11, DAY, app.name)
    return [
        (call, records_of(call, traffic))
        for _ in range(sessions)
        for call in traffic.session(app, traffic.time(day_start(DAY), app.hours))
    ]


@pytest.mark.parametrize("app", APPS.values(), ids=lambda app: app.name)
def test_every_call_normalizes_to_what_happened(app: App) -> None:
    for call, records in calls(app):
        found = normalized(records)
        assert len(found.events) == sum(record.events for record in records), call.status
        assert not set(found.rejected) - {"not_ai_related"}
        assert {event.source for event, _ in found.events} == {r.record_type for r in records if r.events}
        for event, content in found.events:
            check_call(call, app, event, content)


def check_call(call: Call, app: App, event: AccessEvent, content: Content | None) -> None:
    at = (app.name, event.source, call.status)
    # The provider's log of a call through a gateway knows the gateway only; some logs know nobody.
    behind = app.gateway in ("litellm", "apim") and event.source in ("azure_openai", "cloudtrail", "bedrock_invocation")
    gateway = SERVICES["svc-litellm" if app.gateway == "litellm" else "svc-apim"]
    known = {gateway.user_id, gateway.object_id} if behind else {call.actor.user_id, call.actor.object_id}
    if event.source == "bedrock_invocation":
        known.add(call.actor.user_id)  # requestMetadata names the person behind the gateway
    if call.end_user:
        known.add(call.end_user)
    nobody = event.source in ("sagemaker_capture", "azure_openai") or (event.source == "otel_genai" and not app.users)
    assert event.user_id in known or (nobody and not event.user_id), (*at, event.user_id)
    assert event.model, at
    assert simple(event.model) in simple(f"{call.model.model_id} {call.model.alias}"), (*at, event.model)
    if event.source != "sagemaker_capture":
        outcome = "error" if call.status == "blocked" and event.source == "azure_openai" else call.status
        if event.source == "otel_genai" and call.status != "success":
            assert event.outcome_status != "success", at
        else:
            assert event.outcome_status == outcome, at
    tokens = {None} if call.status != "success" or call.model.provider == "sagemaker" else set()
    usage = event.source == "azure_openai"
    expected = tokens | {call.prompt_tokens} | ({None} if usage else set())
    assert event.prompt_tokens in expected, (*at, event.prompt_tokens, call.prompt_tokens)
    assert event.timestamp[:16] in {iso_seconds(t)[:16] for t in (call.start, call.start + call.latency)}, at
    if content is not None and call.status == "success":
        assert content.response.strip() in (call.answer, call.answer.strip()), at
        if content.messages:
            assert call.prompt in content.messages[-1].text, at


def simple(name: str) -> str:
    return name.lower().removeprefix("eu.")


def test_every_gateway_with_texts_hands_them_over() -> None:
    for name in ("retail-bot", "branch-copilot", "deal-desk", "notebooks", "support-assist", "research-rag",
                 "ticket-triage", "mail-digest", "credit-memo"):  # fmt: skip
        texts = [
            content
            for call, records in calls(APPS[name], 30)
            if call.status == "success"
            for _, content in normalized(records).events
            if content is not None and content.messages and content.response
        ]
        assert len(texts) >= 6, name


# --- incidents


@pytest.mark.parametrize("name", [incident.name for incident in INCIDENTS])
def test_records_of_an_incident_are_found_by_their_ids(name: str, small, collected) -> None:
    traces = next(trace for trace in small[1].incidents if trace.name == name)
    found = {(event.source, event.source_event_id) for event, _ in collected.events}
    assert traces.records
    assert set(traces.records) <= found
    assert day_start(DAY) <= traces.first <= traces.last < day_start(DAY) + 86400


def test_incidents_do_not_depend_on_the_amount_of_traffic(tmp_path, small) -> None:
    other = writer.generate(tmp_path, seed=3, day=DAY, events=300)
    assert other.incidents == small[1].incidents


def test_after_logging_is_switched_off_there_is_no_invocation_record(small) -> None:
    off = day_start(DAY) + LOGGING_OFF_SECOND
    records, _ = play(3, DAY)
    assert any(b'"DeleteModelInvocationLoggingConfiguration"' in record.data for record in records)
    times = [
        json.loads(raw)["timestamp"]
        for path in (small[0] / "logs" / "aws-bedrock").rglob("*.gz")
        if "/eu-west-1/" in path.as_posix()
        for raw in raw_records(path)
    ]
    assert times
    assert max(times) < iso_seconds(off)
    late = [record for record in ordinary(3, DAY, 6000) if record.stream == ("bedrock", "eu-west-1")]
    assert any(record.time >= off for record in late), "the day has no such call: the test shows nothing"


classifier = functools.cache(DefaultClassifier)  # compiling the patterns takes a while


def finish(events: list[tuple[AccessEvent, Content | None]], directory: Path) -> list[AccessEvent]:
    """The events as they are stored: classified, masked, scored."""
    privacy = Privacy(KeyRing(directory / "keys", {}, Secrets()))
    transform = Transform(classifier(), privacy, Directory(), lambda _: "redacted")
    return [
        decode(transform.finish(event, content, "test", "2026-11-20T00:00:00.000Z").body) for event, content in events
    ]


def shows(event: AccessEvent, expectation: str) -> bool:
    """Whether ``event`` meets ``field=value`` or ``field~part``."""
    name, sign, value = re.fullmatch(r"(\w+)([=~])(.+)", expectation).groups()
    found = getattr(event, name)
    if isinstance(found, tuple):
        return any(value in item for item in found)
    text_form = str(found).lower() if isinstance(found, bool) else str(found)
    return value == text_form if sign == "=" else value in text_form


@pytest.mark.parametrize("name", [incident.name for incident in INCIDENTS])
def test_what_an_incident_should_show_is_found(name: str, tmp_path) -> None:
    records, traces = play(3, DAY)
    trace = next(trace for trace in traces if trace.name == name)
    found = normalized([record for record in records if (record.record_type, record.upstream_id) in trace.records])
    events = finish(found.events, tmp_path)
    for expectation in trace.expected:
        assert any(shows(event, expectation) for event in events), expectation


def test_secrets_of_the_incidents_are_masked(tmp_path) -> None:
    records, _ = play(3, DAY)
    stored = finish(normalized(records).events, tmp_path)
    kept = "\n".join(event.prompt_text + event.response_text for event in stored)
    assert "Check the articles of association" in kept
    for secret in ("4111 1111 1111 1111", "5555 5555 5555 4444", "BEGIN RSA PRIVATE KEY-----\n"):
        assert any(secret in (content.response + "".join(m.text for m in content.messages))
                   for _, content in normalized(records).events if content), "the test shows nothing"  # fmt: skip
        assert secret not in kept


def test_ordinary_traffic_is_quiet(tmp_path) -> None:
    calls_with_text = [
        (event, content)
        for name in ("retail-bot", "branch-copilot", "deal-desk", "code-helper", "support-assist", "ticket-triage")
        for _, records in calls(APPS[name], 60)
        for event, content in normalized(records).events
        if content is not None
    ]
    stored = finish(calls_with_text, tmp_path)
    high = [event for event in stored if event.injection_tier == "high"]
    leaks = [event for event in stored if any("secret" in kind or "card" in kind for kind in event.leakage_types)]
    assert len(stored) > 400
    assert len(high) <= len(stored) // 200, {event.evidence for event in high}
    assert not leaks, {event.leakage_types for event in leaks}


# --- believable


def test_people_and_departments() -> None:
    assert 55 <= len(PEOPLE) <= 65
    assert all(len(STAFF[department]) >= 10 for department in DEPARTMENTS)
    assert len({person.user_id for person in PEOPLE}) == len(PEOPLE)
    assert len({person.office_ip for person in PEOPLE}) == len(PEOPLE)


def test_prompts_are_many_and_fit_the_department() -> None:
    rng = Rng("prompts")
    for name, least in (("bot", 250), ("retail", 300), ("banking", 300), ("engineering", 150), ("support", 200)):
        prompts = {prompt for _ in range(600) for prompt, _ in text.conversation(rng, name)}
        assert len(prompts) >= least, name
        assert not any(re.search(r"\{(doc|note|amount|ref)\}", prompt) for prompt in prompts), name
    assert len({len(text.conversation(rng, "bot")) for _ in range(200)}) >= 3, "no multi-turn sessions"


def test_directory_knows_every_person_by_every_id(small, collected) -> None:
    directory = load_directory(small[0] / "directory.csv")
    unknown = defaultdict(set)
    for event, _ in collected.events:
        customer = event.user_id.startswith("cust-")
        if event.user_id and not customer and not event.department:
            directory.fill(event)
            if not event.department:
                unknown[event.source].add(event.user_id)
    assert {name for names in unknown.values() for name in names} <= {"ci-deploy"}


_ADDRESS = re.compile(rb'"(\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3})"')
_SAFE = re.compile(rb"(203\.0\.113|198\.51\.100|192\.0\.2|10\.\d+\.\d+)\.\d+")
_MAIL = re.compile(rb"[\w.+-]+@([\w-]+(?:\.[\w-]+)+)")


def test_only_documentation_values(small) -> None:
    for path, data in tree(small[0]).items():
        for address in _ADDRESS.findall(data):
            assert _SAFE.fullmatch(address), (path, address)
        for host in _MAIL.findall(data):
            assert host.endswith((b"example.com", b".test")) or b"db-ledger" in host, (path, host)
        for key in re.findall(rb"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b", data):
            assert key.endswith(b"EXAMPLE"), path
        for account in re.findall(rb"arn:aws:[a-z0-9]+:[a-z0-9-]*:(\d{12}):", data):
            assert account in (b"111122223333", b"999988887777"), path


# --- large inputs


def test_more_events_are_spread_over_the_working_days_before(tmp_path) -> None:
    assert period.working_days("2026-11-23", 3) == ["2026-11-19", "2026-11-20", "2026-11-23"]
    manifest = writer.generate(tmp_path, events=writer.DAY_EVENTS + 1000)
    assert manifest.days == ["2026-11-19", "2026-11-20"]
    assert abs(manifest.expected_events - 9000) < 400


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [("cloudtrail", 1200, 1700), ("azure_openai", 900, 1200), ("litellm", 5000, 9000), ("litellm_3k", 3000, 3800)],
)
def test_benchmark_records_have_the_sizes_that_were_measured(kind: str, low: int, high: int) -> None:
    sizes = [len(record) for record in writer.iter_records(kind, count=400)]
    assert len(sizes) == 400
    assert low <= sum(sizes) / len(sizes) <= high
    if kind == "litellm":
        assert min(sizes) >= 3000
        assert max(sizes) <= 13500


def test_benchmark_records_are_made_one_by_one() -> None:
    endless = bench.records("cloudtrail", 1, DAY, 1 << 60)
    assert len(list(islice(endless, 5))) == 5


@pytest.mark.parametrize("kind", list(bench.KINDS))
def test_benchmark_records_normalize(kind: str) -> None:
    record_type = "litellm" if kind == "litellm_3k" else kind
    found = Collected()
    for record in writer.iter_records(kind, count=300):
        found.add(record_type, record)
    found.finish()
    assert not found.rejected
    assert len({event.event_id for event, _ in found.events}) == 300


def test_benchmark_profile_writes_equal_parts(tmp_path) -> None:
    manifest = writer.generate(tmp_path, events=601, profile="bench")
    assert manifest.records == {"cloudtrail": 201, "azure_openai": 200, "litellm": 200}
    found = collect(tmp_path / "logs")
    assert len(found.events) == 601 == manifest.expected_events
    assert not found.rejected


def test_bad_arguments(tmp_path) -> None:
    with pytest.raises(ValueError, match="positive"):
        writer.generate(tmp_path, events=0)
    with pytest.raises(ValueError, match="2026-13-01"):
        writer.generate(tmp_path, day="2026-13-01")
    with pytest.raises(KeyError):
        next(writer.iter_records("nonsense", count=1))


def test_times() -> None:
    t = 1_795_165_445.1205
    assert iso_seconds(t) == "2026-11-20T09:04:05Z"
    assert iso_millis(t)[:22] == "2026-11-20T09:04:05.12"
    assert iso_ticks(t) == "2026-11-20T09:04:05.1205000Z"
    assert iso_ticks_ms(t)[:22] == "2026-11-20T09:04:05.12"
    assert iso_ticks_ms(t).endswith("0000Z")
    assert nanos(t) == "1795165445120500000"
    assert dotnet_ticks(0.0) == 621_355_968_000_000_000


# --- samples/


def test_samples_are_what_the_generator_writes(tmp_path) -> None:
    samples.write(tmp_path)
    committed = {path: data for path, data in tree(SAMPLES).items() if path != "README.md"}
    assert committed == tree(tmp_path), "run: python -m aitrail.demo.samples"
    assert sum(path.stat().st_size for path in SAMPLES.rglob("*") if path.is_file()) < 1_000_000
