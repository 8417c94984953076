"""The arithmetic of the destinations' benchmark (how fast it is, is not tested here)."""

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield importlib.import_module("destinations")
    for name in ("destinations", "pipeline", "stages", "ceiling"):
        sys.modules.pop(name, None)


def row(bench, **changes):
    usual = {
        "destination": "splunk",
        "kind": "cloudtrail",
        "threads": 1,
        "events": 10_000,
        "size": 11_100_000,
        "wall": 2.0,
        "cpu": 0.1,
        "wire": 1_280_000,
        "loads": 1 / 217_000,
    }
    return bench.Row(**{**usual, **changes})


def test_rates_and_the_ratio_to_json(bench):
    [line] = bench.table([row(bench)])
    assert line == ["splunk", "CloudTrail", "1,110", "1", "5,000", "6", "10.0", "100,000", "0.46", "128", ""]


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({}, []),
        ({"cpu": 0.2}, ["MISSED: >= 60,000 per core"]),
        # A machine that is half as fast at json.loads has half the target.
        ({"cpu": 0.3, "loads": 2 / 217_000}, []),
        ({"cpu": 0.4, "loads": 2 / 217_000}, ["MISSED: >= 60,000 per core"]),
        # A faster machine is not asked for more.
        ({"cpu": 0.15, "loads": 0.5 / 217_000}, []),
        ({"threads": 8}, ["MISSED: >= 50,000/s"]),
        ({"threads": 8, "wall": 0.2}, []),
        ({"threads": 8, "kind": "litellm_3k"}, []),
        ({"destination": "fluentd", "cpu": 1.0}, []),
    ],
)
def test_targets_follow_the_machine(bench, changes, missed):
    assert row(bench, **changes).missed == missed


def test_the_page_takes_the_table_and_nothing_else_changes(bench, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{bench.BEGIN}\nold\n{bench.END}\nafter\n")
    bench.write_markdown(page, [row(bench)])
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| splunk | CloudTrail | 1,110 | 1 |" in text
    real = (ROOT / "docs" / "benchmarks.md").read_text()
    assert real.count(bench.BEGIN) == real.count(bench.END) == 1
    (tmp_path / "rows").write_bytes(bench.msgspec.json.encode([row(bench)]))
    assert bench.kept(tmp_path / "rows") == [row(bench)]
