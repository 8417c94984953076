"""What a rule found becomes an event in the index, once, in the shape of the collector's findings; nothing loops."""

import csv
import gzip
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
from splunk_support import Splunkd
from test_splunk_app import APP, RULES, SAVED, conf, definition
from test_splunk_cim import EVENTS, MODELS, extracted, prescribed, tagged

from aitrail.compiler.build import content
from aitrail.compiler.emit.packs import source_tree
from aitrail.compiler.emit.splunk_searches import columns, stanza, stanza_name
from aitrail.contentdir import content_path
from aitrail.ports import EncodedEvent
from aitrail.streams import Finding, decoded
from parity.splunk_display import shown
from parity.splunk_engine import indexed

BIN = (source_tree() or Path()) / "splunk_app" / "aitrail" / "bin"
NAME = "aitrail - A Bedrock API key was created - Rule"
RULE = RULES[NAME]["action.aitrail_finding.param.rule_id"]


@pytest.fixture
def splunk(monkeypatch: pytest.MonkeyPatch) -> Splunkd:
    peer, module = Splunkd(), ModuleType("splunk")
    module.rest = peer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "splunk", module)
    monkeypatch.syspath_prepend(str(BIN))
    return peer


def row(number: int, **changes: str) -> dict[str, str]:
    found = {"_time": f"1799999{number:03d}.125", "event_id": f"e{number}", "tenant_id": "acme", "user_id": "ines"}
    return {**found, "resource_id": "key-1", "src_ip": "203.0.113.9", "cloud_account": "111122223333", **changes}


def run(tmp_path: Path, results: list[dict[str, str]], **changes: Any) -> int:
    from aitrail_finding import main  # type: ignore[import-not-found]

    path = tmp_path / "results.csv.gz"
    names = list(dict.fromkeys(name for one in results for name in (*one, f"__mv_{next(iter(one))}")))
    with gzip.open(path, "wt", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, names)
        table.writeheader()
        table.writerows(results)
    payload = {"session_key": "s3ssion", "results_file": str(path), "search_name": NAME, "sid": "scheduler_1"}
    payload |= {"configuration": {"rule_id": RULE}, "result": results[0] if results else {}, **changes}
    code: int = main(["x", "--execute"], io.StringIO(json.dumps(payload)))
    return code


def kept(splunk: Splunkd) -> list[dict[str, Any]]:
    return [json.loads(line) for _, line in splunk.events]


def test_a_finding_is_written_once_however_often_the_search_runs(splunk: Splunkd, tmp_path: Path) -> None:
    results = [row(1), row(2), row(3, user_id="paul", resource_id="key-2")]
    assert run(tmp_path, results) == run(tmp_path, [*results, row(4)]) == 0
    first, second = sorted(kept(splunk), key=lambda one: str(one["user_id"]))
    where, _ = splunk.events[0]
    assert where == {"index": "ai_audit", "sourcetype": "ai:access:alert", "source": "aitrail"}
    assert (first["user_id"], second["user_id"]) == ("ines", "paul")
    assert first["evidence_ids"] == ["e1", "e2"]
    assert first["first_seen"] == "2027-01-15T07:43:21.125Z"
    assert first["timestamp"] == "2027-01-15T07:43:22.125Z"
    assert (
        first["summary"]
        == "A Bedrock API key was created: 2 events (user:ines, ip:203.0.113.9, resource:key-1 and more)"
    )
    assert {one["state"] for one in splunk.rows.values()} == {"done"}
    assert set(splunk.rows) == {first["event_id"], second["event_id"]}


def test_it_is_a_finding_as_the_collector_ships_them(splunk: Splunkd, tmp_path: Path) -> None:
    run(tmp_path, [row(1)])
    (_, line), (made,) = splunk.events[0], kept(splunk)
    finding = decoded(EncodedEvent(made["event_id"], made["timestamp"], line.encode()))
    assert isinstance(finding, Finding)
    assert set(made) - {"stream"} <= {field.encode_name for field in msgspec.structs.fields(Finding)}
    with (APP / "lookups" / "aitrail_rules.csv").open(encoding="utf-8", newline="") as file:
        rule = next(one for one in csv.DictReader(file) if one["rule_id"] == RULE)
    assert (finding.severity, finding.rule_name, finding.atlas) == (
        rule["severity"],
        rule["title"],
        tuple(rule["atlas"].split()),
    )
    assert all(re.fullmatch(r"aml\.t[\d.]+@[\d.]+", one) for one in finding.atlas)
    assert all(re.fullmatch(r"llm\d\d:20\d\d", one) for one in finding.owasp)
    # The pages and the data models find it.
    seen = extracted(made, "ai:access:alert")
    assert "alert" in tagged(seen)
    prescribed(seen, frozenset({"Alerts"}))
    assert {name for name in MODELS["Alerts"][1].split() if not seen.get(name)} == set()
    assert seen["src"] == "203.0.113.9"
    assert EVENTS["Alerts"]["type"] == seen["type"]


def test_the_page_of_threats_shows_it(splunk: Splunkd, tmp_path: Path) -> None:
    run(tmp_path, [row(1)])
    (made,) = kept(splunk)
    held = [indexed(made, 1_799_999_001.125, "ai:access:alert")]
    sources = definition(APP / "default" / "data" / "ui" / "views" / "aitrail_threats.xml")["dataSources"]
    query = re.sub(r"\$[\w.]+\|s\$", '"*"', sources["ds_latest_findings"]["options"]["query"]).replace("$$", "$")
    (line,) = shown(query, held, (1_799_990_000.0, 1_800_000_000.0))
    assert (line["rule_name"], line["user_id"], line["summary"]) == (
        made["rule_name"], "ines", made["summary"])  # fmt: skip


def test_after_its_silence_a_rule_speaks_again(splunk: Splunkd, tmp_path: Path) -> None:
    hold = SAVED[NAME]["alert.suppress.period"]
    assert hold.endswith("m")
    later = row(1, _time=str(1_799_999_001 + 60 * int(hold[:-1])))
    run(tmp_path, [row(1), later])
    assert len(kept(splunk)) == 2


def test_what_could_not_be_written_the_next_run_writes(
    splunk: Splunkd, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splunk.failing = "receivers/simple"
    assert run(tmp_path, [row(1)]) == 3
    assert "splunkd answered 500" in capsys.readouterr().err
    assert (splunk.events, splunk.rows) == ([], {})
    splunk.failing = ""
    assert run(tmp_path, [row(1)]) == 0
    assert len(splunk.events) == 1


@pytest.mark.parametrize(("age", "written"), [(60, 0), (700, 1)])
def test_a_run_that_died_in_the_middle_is_made_up_for(
    splunk: Splunkd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: int, written: int
) -> None:
    import aitrail_finding

    monkeypatch.setattr(aitrail_finding.time, "time", lambda: 1_800_000_000.0)
    run(tmp_path, [row(1)])
    (key,) = splunk.rows
    splunk.rows[key] = {"_key": key, "state": "begun", "at": 1_800_000_000.0 - age}
    splunk.events.clear()
    run(tmp_path, [row(1)])
    assert len(splunk.events) == written


def test_old_marks_go(splunk: Splunkd, tmp_path: Path) -> None:
    splunk.rows["old"] = {"_key": "old", "state": "done", "at": 1.0}
    run(tmp_path, [row(1)])
    assert "old" not in splunk.rows


def test_what_was_too_much_for_one_run_the_next_takes(splunk: Splunkd, tmp_path: Path) -> None:
    splunk.conf["conf-aitrail/findings"]["max_per_run"] = "2"
    for total in (2, 4, 5, 5):
        assert run(tmp_path, [row(number, user_id=f"u{number}") for number in range(5)]) == 0
        assert len(splunk.events) == total


@pytest.mark.parametrize(
    ("settings", "count"), [({"least_severity": "critical"}, 0), ({"max_per_run": "2"}, 2), ({}, 5)]
)
def test_thresholds_are_kept(splunk: Splunkd, tmp_path: Path, settings: dict[str, str], count: int) -> None:
    splunk.conf["conf-aitrail/findings"] |= settings
    assert run(tmp_path, [row(number, user_id=f"u{number}") for number in range(5)]) == 0
    assert len(splunk.events) == count


@pytest.mark.parametrize(
    ("macro", "own", "index"),
    [
        ("index=ai_audit", "", "ai_audit"),
        ('index = "main"', "", "main"),
        ("(index=ai_audit OR index=b)", "main", "main"),
        ("index=ai_audit", "main", "main"),
    ],
)
def test_findings_go_to_the_index_of_the_macro(
    splunk: Splunkd, tmp_path: Path, macro: str, own: str, index: str
) -> None:
    splunk.conf["conf-macros/aitrail_index"]["definition"] = macro
    splunk.conf["conf-aitrail/findings"]["index"] = own
    assert run(tmp_path, [row(1)]) == 0
    assert splunk.events[0][0]["index"] == index


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"configuration": {"rule_id": "x"}}, "rule_id names no rule"),
        ({"configuration": None}, "rule_id names no rule"),
        ({"session_key": "other"}, "cannot read the settings"),
        ({"results_file": "/no/such/file.gz"}, "not an alert action's payload"),
    ],
)
def test_what_is_wrong_is_told(
    splunk: Splunkd, tmp_path: Path, change: dict[str, Any], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, [row(1)], **change) == 3
    error = capsys.readouterr().err
    assert told in error
    assert "ines" not in error
    assert splunk.events == []


@pytest.mark.parametrize(
    ("section", "change", "told"),
    [
        ("conf-aitrail/findings", {"least_severity": "bad"}, "least_severity must be one of"),
        ("conf-aitrail/findings", {"max_per_run": "many"}, "max_per_run"),
        ("conf-aitrail/findings", {"index": "gone"}, "is the index gone there?"),
        ("conf-macros/aitrail_index", {"definition": "index=ai_*"}, "names no single index"),
    ],
)
def test_a_setting_that_will_not_do_is_told(
    splunk: Splunkd, tmp_path: Path, section: str, change: dict[str, str], told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    splunk.conf[section] |= change
    assert run(tmp_path, [row(1)]) == 3
    assert told in capsys.readouterr().err


def test_without_the_capability_the_error_names_it(
    splunk: Splunkd, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splunk.forbidden = "receivers/simple"
    assert run(tmp_path, [row(1)]) == 3
    assert "edit_tcp" in capsys.readouterr().err
    assert splunk.rows == {}


def test_nothing_that_a_rule_reads_is_what_it_writes() -> None:
    """No loop: findings are read by pages and people only."""
    for name, keys in RULES.items():
        assert "ai:access:alert" not in keys["search"], name
        assert re.findall(r'sourcetype="([^"]+)"', keys["search"]), name


def test_every_detection_keeps_its_findings_and_its_row_has_what_that_needs() -> None:
    of = content(content_path("detections"))
    with (APP / "lookups" / "aitrail_rules.csv").open(encoding="utf-8", newline="") as file:
        known = {one["rule_id"]: one for one in csv.DictReader(file)}
    for rule in (*of.detections, *of.behaviors):
        keys, line = RULES[stanza_name(rule)], known[rule.meta.id]
        assert (
            ("action.aitrail_finding" in keys) is (rule.meta.kind == "detection") is ("cron_schedule" in stanza(rule))
        )
        if rule.meta.kind != "detection":
            continue
        assert keys["action.aitrail_finding.param.rule_id"] == rule.meta.id
        there = set(columns(rule))
        assert set(line["grouped"].split()) <= there
        assert line["grouped"]
        assert {pair.split("=")[1] for pair in line["entities"].split()} <= there
        assert int(line["hold"]) == 60 * int(keys["alert.suppress.period"].removesuffix("m"))
    assert "aitrail_findings" in conf("collections")


def test_the_script_runs_alone() -> None:
    for arguments, code in (([], 2), (["--execute"], 3)):
        done = subprocess.run(
            [sys.executable, "-B", str(BIN / "aitrail_finding.py"), *arguments],
            input=b"no payload", capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == code
        assert done.stderr.startswith(b"ERROR aitrail_finding")
