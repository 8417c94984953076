"""``aitrail report`` on a real store: right numbers in every format, and nothing in it that acts on the reader."""

import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest
from cli_support import PAYLOAD, RAW, dead_letter, event, make_store, run, safe, some_events

from aitrail.errors import ConfigError
from aitrail.runtime.cli.render import clean
from aitrail.runtime.cli.report import span, sparkline
from aitrail.runtime.cli.report_layout import NAMES, SECTIONS, Report, bucket_for
from aitrail.store.queries import Filters


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    dead = [dead_letter(1), dead_letter(2), dead_letter(3, code="type_unknown", record_type="")]
    return make_store(tmp_path_factory.mktemp("report") / "store", some_events(), dead)


def report(store: Path, *arguments: object) -> dict:
    return json.loads(run("report", "--format", "json", *arguments, store=store).output)


def rows(found: dict, section: str) -> list:
    return found["sections"][section]


# --- numbers


def test_overview(store) -> None:
    found = report(store)["overview"]
    assert found["events"] == 12
    assert found["tokens"] == 1100
    assert found["cost_usd"] == pytest.approx(5.5)
    assert (found["blocked"], found["denied"], found["injection_high"], found["leaks"]) == (1, 1, 1, 2)
    assert found["models"] == 3
    assert found["sources"] == 2
    assert found["notable"] == 6


def test_who_what_and_which_model(store) -> None:
    found = report(store)
    users = {row["who"]: row for row in rows(found, "users")}
    assert users["ines.moreau"]["events"] == 7
    assert users["ines.moreau"]["department"] == "retail"
    assert users["ines.moreau"]["cost_usd"] == pytest.approx(3.5)
    assert users["arn:aws:iam::111122223333:role/Export"]["failed"] == 1  # named by its role
    assert users["svc-deploy"]["type"] == "service"
    models = {row["model"]: row for row in rows(found, "models")}
    assert models["gpt-4o"]["tokens"] == 700
    assert models["gpt-4o"]["p95_ms"] == 800
    assert "" not in models
    assert {(row["kind"], row["action"]): row["events"] for row in rows(found, "actions")}[
        "guardrail", "deleteguardrail"
    ] == 1
    departments = {row["department"]: row["events"] for row in rows(found, "departments")}
    assert departments["investment banking"] == 2
    assert departments["(not known)"] == 1
    prompts = {row["classification"]: row for row in rows(found, "prompts")}
    assert (prompts["clean"]["prompts"], prompts["prompt_injection"]["prompts"], prompts["financial"]["responses"]) == (
        9,
        1,
        1,
    )


def test_findings(store) -> None:
    found = report(store)
    findings = rows(found, "findings")
    assert [row["risk"] for row in findings] == sorted((row["risk"] for row in findings), reverse=True)
    assert findings[1]["why"] == "injection_high, attack_not_blocked"
    assert len(findings[1]["event_id"]) == 32
    assert rows(found, "injections") == [
        {"tier": "high", "events": 1, "principals": 1, "blocked": 0, "went_through": 1, "max_score": 0.93}
    ]
    leaks = {(row["place"], row["kind"]) for row in rows(found, "leaks")}
    assert ("response", "financial/card_number") in leaks
    guardrails = {row["guardrail"]: row for row in rows(found, "guardrails")}
    assert guardrails["azure-content-filter"]["categories"] == "jailbreak"
    plane = {row["kind"]: row for row in rows(found, "control_plane")}
    assert plane["guardrail"]["resource"].endswith("guardrail/g1")
    assert plane["weights"]["outcome"] == "denied"
    assert set(plane) == {"guardrail", "weights"}


def test_sources_and_dead_letters(store) -> None:
    found = report(store)
    assert {row["source"]: row["events"] for row in rows(found, "sources")} == {"litellm": 10, "cloudtrail": 2}
    assert {row["code"]: row["records"] for row in rows(found, "dead_letters")} == {
        "json_invalid": 2,
        "type_unknown": 1,
    }


def test_timeline_counts_every_event_once(store) -> None:
    found = report(store)
    buckets = found["timeline"]["buckets"]
    assert sum(bucket["events"] for bucket in buckets) == 12
    for bucket in buckets:
        assert bucket["events"] == sum(bucket[name] for name in ("success", "blocked", "failed", "unknown"))


def test_repeated_findings_are_one_row(tmp_path) -> None:
    same = [event(n, risk_score=80, injection_tier="high", risk_reasons=("injection_high",)) for n in range(5)]
    found = report(make_store(tmp_path / "s", same))
    (row,) = rows(found, "findings")
    assert row["events"] == 5
    assert row["event_id"] == max(same, key=lambda one: one.timestamp).event_id


# --- filters


@pytest.mark.parametrize(
    ("arguments", "events"),
    [
        (["--department", "Investment Banking"], 2),
        (["--user", "PAUL.KELLER"], 2),
        (["--model", "gpt-4o"], 7),
        (["--tenant", "acme"], 12),
        (["--tenant", "other"], 0),
        (["--since", "2026-11-23T16:00Z"], 1),
        (["--since", "2026-11-23T17:00+01:00"], 1),
        (["--until", "2026-11-23T09:01"], 1),
        (["--since", "2026-11-24"], 0),
        (["--user", "' OR 1=1 --"], 0),
        (["--model", PAYLOAD], 1),
    ],
)
def test_filters(store, arguments, events) -> None:
    assert report(store, *arguments)["overview"]["events"] == events


def test_last_counts_back_from_now(tmp_path) -> None:
    now = datetime.now(UTC)
    stamps = [f"{now - timedelta(hours=hours):%Y-%m-%dT%H:%M:%S}.000Z" for hours in (1, 30)]
    store = make_store(tmp_path / "s", [event(n, timestamp=stamp) for n, stamp in enumerate(stamps)])
    assert report(store, "--last", "24h")["overview"]["events"] == 1
    assert report(store, "--last", "2d")["overview"]["events"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--last", "3x"], "not a length of time"),
        (["--last", "0h"], "not a length of time"),
        (["--since", "yesterday"], "not a date or time"),
        (["--since", "2026-11-23", "--last", "1h"], "exclude each other"),
        (["--since", "2026-11-23", "--until", "2026-11-22"], "not after the start"),
    ],
)
def test_filters_that_make_no_sense(store, arguments, message) -> None:
    result = run("report", *arguments, store=store)
    assert isinstance(result.exception, ConfigError)
    assert message in str(result.exception)
    assert result.exception.hint


def test_no_store(tmp_path) -> None:
    result = run("report", store=tmp_path / "nothing")
    assert isinstance(result.exception, ConfigError)
    assert "aitrail collect" in result.exception.hint


# --- terminal


@pytest.mark.parametrize("width", [80, 100, 140])
def test_table_fits_and_is_harmless(store, width) -> None:
    text = run("report", store=store, width=width).output
    safe(text)
    assert max(len(line) for line in text.splitlines()) <= width
    for section in SECTIONS:
        assert section.title in text
    assert "ines.moreau" in text
    assert "[red]markup[/red]" in re.sub(r"\s+", "", text)
    assert "12 events from 2 sources" in text


def test_empty_store(tmp_path) -> None:
    store = make_store(tmp_path / "s")
    assert run("report", store=store).output == "the store holds no events\n"
    assert run("report", "--user", "x", store=store).output == "no events in this range\n"
    assert "no events" in run("report", "--format", "html", store=store).output
    assert report(store)["overview"]["events"] == 0


def test_sections_can_be_chosen(store) -> None:
    found = report(store, "--section", "users", "--section", "models", "--top", "1")
    assert list(found["sections"]) == ["users", "models"]
    assert len(rows(found, "users")) == 1
    result = run("report", "--section", "nope", store=store)
    assert result.exception is not None


def test_timeline_buckets() -> None:
    assert bucket_for(timedelta(minutes=30)) == timedelta(minutes=1)
    assert bucket_for(timedelta(hours=9)) == timedelta(minutes=15)
    assert bucket_for(timedelta(days=30)) == timedelta(hours=12)
    assert timedelta(days=36500) / bucket_for(timedelta(days=36500)) <= 60
    assert [span(timedelta(**width)) for width in ({"minutes": 1}, {"minutes": 15}, {"hours": 1}, {"days": 7})] == [
        "1 minute",
        "15 minutes",
        "1 hour",
        "7 days",
    ]


def test_sparkline_shows_gaps_and_the_peak() -> None:
    start, hour = datetime(2026, 11, 23), timedelta(hours=1)  # noqa: DTZ001
    timeline = [{"time": start, "events": 1}, {"time": start + 2 * hour, "events": 8}]
    assert sparkline(Report(Filters(), {}, hour, timeline, [])) == "▂ █"


# --- CSV


def test_csv_of_one_section_is_a_plain_table(store) -> None:
    text = run("report", "--section", "users", "--format", "csv", store=store).output
    safe(text)
    found = list(csv.DictReader(io.StringIO(text)))
    assert {row["who"]: row["events"] for row in found}["ines.moreau"] == "7"
    evil = next(row for row in found if "calc" in row["who"])
    assert evil["who"].startswith("'=cmd|")
    assert evil["who"][1:] == clean(PAYLOAD)


def test_csv_of_everything_has_no_live_formula(store) -> None:
    text = run("report", "--format", "csv", store=store).output
    safe(text)
    for line in csv.reader(io.StringIO(text)):
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in line), line
    assert text.count("\n# ") == len(NAMES) - 1


# --- HTML


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data) -> None:
        self.text += data


def test_html_is_one_harmless_page(store, tmp_path) -> None:
    out = tmp_path / "report.html"
    result = run("report", "--format", "html", "--out", out, store=store)
    assert result.exception is None
    text = out.read_text(encoding="utf-8")
    assert not any(char in text for char in RAW)
    page = _Page()
    page.feed(text)
    assert page.tags <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "div", "b", "span", "svg", "g", "rect"),
        *("table", "thead", "tbody", "tr", "th", "td"),
    }
    names = {name for name, _ in page.attributes}
    assert not {name for name in names if name.startswith("on")}
    assert not names & {"href", "src", "srcset", "xlink:href", "action", "background"}
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text
    assert "prefers-color-scheme" in text
    shown = clean(PAYLOAD)
    assert shown[:250] in page.text  # the payload is there, as text
    assert "<script>" not in text
    assert "<img" not in text


def test_html_shows_the_numbers_and_bars(store) -> None:
    text = run("report", "--format", "html", store=store).output
    page = _Page()
    page.feed(text)
    assert "ines.moreau" in page.text
    assert "deleteguardrail" in page.text
    widths = [float(value) for value in re.findall(r'<rect width="([\d.]+)" height="10"', text)]
    assert max(widths) == 100.0
    assert all(0 <= width <= 100 for width in widths)
    heights = [
        float(value) for value in re.findall(r'<rect x="[\d.]+" y="[\d.]+" width="[\d.]+" height="([\d.]+)"', text)
    ]
    assert len(heights) >= 9
    assert max(heights) <= 160


def test_html_filters_are_escaped(store) -> None:
    text = run("report", "--format", "html", "--user", "<b>x</b>\u202e", store=store).output
    assert "&lt;b&gt;x&lt;/b&gt;\\u202e" in text
    assert "<b>x" not in text


def test_out_that_cannot_be_written(store, tmp_path) -> None:
    result = run("report", "--out", tmp_path / "no" / "dir.html", "--format", "html", store=store)
    assert isinstance(result.exception, ConfigError)
    assert "cannot be written" in str(result.exception)


def test_a_file_gets_no_colors(store, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    out = tmp_path / "report.txt"
    assert run("report", "--out", out, store=store).exception is None
    safe(out.read_text(encoding="utf-8"))


def test_json_is_harmless(store) -> None:
    text = run("report", "--format", "json", store=store).output
    safe(text)
    assert any(row["who"] == PAYLOAD for row in json.loads(text)["sections"]["users"])


def test_help_teaches() -> None:
    text = run("report", "--help").output
    assert text.count("aitrail report") >= 4
    assert "--section" in text
    assert all(name in text for name in NAMES)
