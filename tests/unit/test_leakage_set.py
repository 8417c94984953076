"""The labelled synthetic set of leaks: floors for recall, precision and look-alikes."""

import importlib.util
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "leakage.py"


@pytest.fixture(scope="module")
def leakage():
    spec = importlib.util.spec_from_file_location("leakage_benchmark", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def report(leakage):
    return leakage.measure(1).report()


def test_every_kind_is_found(report):
    missed = {kind: figures for kind, figures in report["kinds"].items() if figures["recall"] < 98}
    assert not missed
    assert len(report["kinds"]) >= 75


def test_what_is_found_is_right(report):
    assert report["lookalikes_flagged"] == {"secret": 0.0, "identifier": 0.0}
    assert all(figures["precision"] >= 98 for figures in report["kinds"].values())


def test_the_set_is_the_same_everywhere_and_holds_no_secret(leakage):
    first, second = list(leakage.rows(1)), list(leakage.rows(1))
    assert first == second
    assert all(row.text[row.start : row.end] for row in first if row.kind)
    template = leakage.SET.read_text(encoding="utf-8")
    kinds = {
        leak.kind for leak in leakage.DefaultClassifier().classify([leakage.Text("prompt", "user", template)]).leaks
    }
    assert not kinds & {"aws_access_key_id", "github_token", "openai_api_key", "stripe_key", "slack_token"}
