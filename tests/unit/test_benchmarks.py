"""The benchmark's own arithmetic and its ceilings (how fast it is, is not tested here)."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from aitrail.demo.writer import iter_records

ROOT = Path(__file__).parents[2]


@pytest.fixture
def load(monkeypatch):
    """Imports a module of benchmarks/."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield importlib.import_module
    for name in ("pipeline", "stages", "ceiling", "files"):
        sys.modules.pop(name, None)


def report(load, **changes):
    pipeline = load("pipeline")
    figures = pipeline.Figures(
        kind="mix",
        records=1000,
        size=3_000_000,
        stages=dict.fromkeys(pipeline.STAGES, 0.002),
        core=0.02,
        typed=0.005,
        plain=0.04,
    )
    run = pipeline.Run(
        events=50_000, stored_bytes=9_000_000, cpu=1.0, wall=2.0, peak=200_000_000, imported=50_000_000, frame_cpu=0.1
    )
    found = pipeline.Report(
        date="2026-11-20", machine="m", python="3.11", libraries={}, load=0.0, stages=[figures], runs=[run]
    )
    for name, value in changes.items():
        setattr(figures if hasattr(figures, name) else run, name, value)
    return pipeline, found


def test_rates_ratios_and_targets(load) -> None:
    pipeline, found = report(load)
    [_, mix] = pipeline.core_table(found)
    assert mix == [
        "mix (1/3 each)", "3,000", "50,000", "150", "200,000", "25%", "25,000", "2.00", "MISSED: >= 60,000",
    ]  # fmt: skip
    assert pipeline.stage_table(found)[1] == ["detect + normalize", "2.00"]
    assert pipeline.file_table(found)[1] == [
        "50,000", "9", "50,000", "25,000", "500,000", "200", "50", ">= 30,000, < 300 MB",
    ]  # fmt: skip
    assert pipeline.missed(found) == ["mix (1/3 each): 50,000 events/s, target 60,000"]


def test_memory_and_store_targets(load) -> None:
    pipeline, found = report(load, core=0.01, cpu=10.0, peak=400_000_000)
    assert len(pipeline.missed(found)) == 2
    assert "MISSED: >= 30,000, MISSED: < 300 MB" in pipeline.as_text(found)


def test_markdown_replaces_only_the_figures(load, tmp_path) -> None:
    pipeline, found = report(load)
    page = tmp_path / "page.md"
    page.write_text(f"before\n{pipeline.BEGIN}\nold\n{pipeline.END}\nafter\n")
    pipeline.write_markdown(page, found)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| mix (1/3 each) | 3,000 |" in text
    pipeline.write_markdown(page, found)
    assert page.read_text() == text
    page.write_text("no markers")
    with pytest.raises(SystemExit):
        pipeline.write_markdown(page, found)


def test_the_page_has_the_markers(load) -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    pipeline = load("pipeline")
    assert text.count(pipeline.BEGIN) == text.count(pipeline.END) == 1


@pytest.mark.parametrize("kind", ["cloudtrail", "azure_openai", "litellm", "litellm_3k"])
def test_ceilings_decode_what_an_event_needs(load, kind: str) -> None:
    decoder = load("stages").typed_decoder(kind)
    for raw in iter_records(kind, count=50):
        typed, plain = decoder(raw), json.loads(raw)
        for name in typed.__struct_fields__:
            value = getattr(typed, name)
            if isinstance(value, str | int | float) and name in plain:
                assert value == plain[name], name
        if kind.startswith("litellm"):
            assert [message.content for message in typed.messages] == [item["content"] for item in plain["messages"]]


def test_the_mix_takes_turns(load) -> None:
    [rows] = load("stages").chunks("mix", 30, 1)
    assert [name for name, _ in rows] == ["cloudtrail", "azure_openai", "litellm"] * 10


def test_peak_memory_is_that_of_this_process(load) -> None:
    peak = load("files").peak_bytes()
    block = bytearray(120_000_000)
    assert load("files").peak_bytes() >= min(peak, 10**9)
    assert load("files").peak_bytes() > len(block) * 0.9
