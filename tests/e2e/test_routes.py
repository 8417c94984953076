"""Several destinations at once, each with its own events, fields and content; and what one refused is replayed.

Hashes to Splunk, sealed content to the lake: planted texts must be nowhere but where they belong.
"""

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.testing import CliRunner, Result

from aitrail.clock import SystemClock
from aitrail.config import Config, load
from aitrail.demo.writer import iter_records
from aitrail.runtime.assemble import open_runtime
from aitrail.runtime.cli import cli
from aitrail.runtime.daemon import Stop
from aitrail.runtime.daemon import run as run_daemon
from aitrail.spool import Spool
from aitrail.testing.hec_peer import HecPeer

CANARY = "CANARY-7f3a-umbrella"


@pytest.fixture
def peer():
    running = HecPeer()
    yield running
    running.close()


def records(directory: Path, count: int = 40) -> None:
    """LiteLLM records, every second one with a planted prompt."""
    lines = []
    for number, raw in enumerate(iter_records("litellm_3k", count=count)):
        record = json.loads(raw)
        if number % 2:
            record["messages"][-1]["content"] += f" {CANARY}" + " and so on" * 600
        lines.append(json.dumps(record))
    directory.mkdir()
    (directory / "gateway.jsonl").write_text("\n".join(lines) + "\n")


def configured(tmp_path: Path, peer: HecPeer, tenant: str, splunk: str, lake: str = "") -> Path:
    path = tmp_path / "aitrail.toml"
    path.write_text(
        f"""
[store]
dir = "store"
[tenants.default]
content = "{tenant}"
[sources.files]
paths = ["in"]
[destinations.splunk]
type = "splunk"
urls = ["{peer.address["url"]}"]
token = "file:{peer.address["token_file"]}"
index = "{peer.address["index"]}"
{splunk}
[destinations.lake]
type = "lake"
directory = "{tmp_path / "lake"}"
{lake}
"""
    )
    return path


def lake_rows(tmp_path: Path, what: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as engine:
        return engine.execute(f"SELECT {what} FROM read_parquet('{tmp_path}/lake/**/*.parquet')").fetchall()


def everything_below(*places: Path) -> bytes:
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    return b"".join(path.read_bytes() for path in files)


def collect(config: Config) -> None:
    run_daemon(config, Stop(), once=True)


def test_hashes_to_splunk_and_sealed_content_to_the_lake(tmp_path: Path, peer: HecPeer) -> None:
    records(tmp_path / "in")
    path = configured(
        tmp_path, peer, "sealed", 'content = "hash"\nwhere = "action_kind = \'inference\'"', 'content = "sealed"'
    )
    collect(load(path))
    arrived = [json.loads(body) for one in set(peer.received()) for body in peer.bodies(one)]
    accesses = [one for one in arrived if "stream" not in one]
    assert len(accesses) == 40
    for one in accesses:
        assert one["content_mode"] == "hash"
        assert one["prompt_hash"].startswith("hmac-sha256:")
        assert "prompt_text" not in one
        assert "response_text" not in one
    sealed = lake_rows(tmp_path, "unmapped.prompt_text, unmapped.prompt_hash, metadata.uid")
    assert len(sealed) == 40
    assert all(text.startswith("sealed:v1:") for text, _, _ in sealed)
    # Both have the same events, and the same hash of each.
    assert {(one["event_id"], one["prompt_hash"]) for one in accesses} == {(uid, hashed) for _, hashed, uid in sealed}
    assert CANARY not in json.dumps(arrived)
    assert CANARY.encode() not in everything_below(tmp_path / "lake", tmp_path / "store")


def test_each_destination_gets_its_own_part(tmp_path: Path, peer: HecPeer) -> None:
    records(tmp_path / "in")
    path = configured(
        tmp_path,
        peer,
        "full",
        """where = "department = 'retail' or risk_score >= 50"
        fields = ["user_id", "department", "risk_score", "model"]
        streams = ["access"]""",
        'content = "redacted"',
    )
    config = load(path)
    collect(config)
    with Spool.open(tmp_path / "store", SystemClock(), write=False) as spool:
        counted = spool.counters()["files"]["filtered.splunk"]
    bodies = [json.loads(body) for one in set(peer.received()) for body in peer.bodies(one)]
    assert len(bodies) + counted == 40
    assert 0 < counted < 40
    fields = {"event_id", "timestamp", "tenant_id", "source", "user_id", "department", "risk_score", "model"}
    assert all(set(body) <= fields for body in bodies)
    assert all(body.get("department") == "retail" or body.get("risk_score", 0) >= 50 for body in bodies)
    # The lake has all of them; the text that the tenant keeps in full is masked there.
    rows = lake_rows(tmp_path, "unmapped.content_mode, unmapped.prompt_text")
    assert len(rows) == 40
    assert {mode for mode, _ in rows} == {"redacted"}
    assert sum(CANARY in text for _, text in rows) == 20
    # What was left out is to be seen by whoever looks after the store.
    result = CliRunner().invoke(cli, ["store", "stats", "--store", str(tmp_path / "store")], standalone_mode=False)
    assert f"{counted:,} for splunk" in result.output


def deadletter(path: Path, *arguments: str) -> Result:
    result = CliRunner().invoke(
        cli,
        ["deadletter", *arguments, "--store", str(path.parent / "store")],
        standalone_mode=False,
        env={"COLUMNS": "200"},
    )
    assert result.exception is None, result.exception
    return result


def test_what_one_destination_refused_is_listed_and_replayed(tmp_path: Path, peer: HecPeer) -> None:
    records(tmp_path / "in")
    path = configured(
        tmp_path, peer, "full", 'event_bytes = 4096\noversize = "reject"\nstreams = ["access"]', 'streams = ["access"]'
    )
    collect(load(path))
    listed = json.loads(deadletter(path, "list", "--destination", "splunk", "--format", "json").output)
    refused = len(listed)
    assert 0 < refused == 40 - len(set(peer.received()))
    assert {row["code"] for row in listed} == {"event_too_large"}
    assert json.loads(deadletter(path, "list", "--destination", "lake", "--format", "json").output) == []
    text = deadletter(path, "show", listed[0]["id"]).output
    assert "larger than the destination takes" in text
    assert "raise event_bytes" in text
    # Nothing has changed yet: it is refused again, and stays one dead letter.
    again = deadletter(path, "replay", "-c", str(path), "--destination", "splunk")
    assert again.return_value == 1
    assert f"{refused:,} put back for splunk, {refused:,} still dead" in again.output
    # Put right, all of them arrive - once, however often they are replayed.
    path.write_text(path.read_text().replace('oversize = "reject"', 'oversize = "truncate"'))
    done = deadletter(path, "replay", "-c", str(path), "--destination", "splunk")
    assert done.return_value == 0
    assert f"{refused:,} put back for splunk, 0 still dead" in done.output
    assert len(set(peer.received())) == len(peer.received()) == 40
    assert "no dead letters of that kind" in deadletter(path, "replay", "--destination", "splunk").output
    assert len(lake_rows(tmp_path, "metadata.uid")) == 40


def test_without_the_configuration_refused_events_wait_for_the_next_run(tmp_path: Path, peer: HecPeer) -> None:
    records(tmp_path / "in", count=6)
    path = configured(
        tmp_path, peer, "full", 'event_bytes = 4096\noversize = "reject"\nstreams = ["access"]', 'streams = ["access"]'
    )
    collect(load(path))
    [first, *_] = json.loads(deadletter(path, "list", "--format", "json").output)
    before = len(set(peer.received()))
    done = deadletter(path, "replay", first["id"])
    assert "1 wait for splunk" in done.output
    path.write_text(path.read_text().replace('oversize = "reject"', 'oversize = "truncate"'))
    with open_runtime(load(path)):
        pass  # shipping starts and what waits goes out
    assert len(set(peer.received())) == before + 1
