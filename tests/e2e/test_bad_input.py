"""Broken input never stops a run: a bad record is a dead letter with reason and place, every good one an event."""

import gzip
import io
import json
import os
from collections import Counter
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner

from aitrail.config import Config
from aitrail.runtime.cli import cli
from aitrail.runtime.collect import collect, one_off
from aitrail.store.reader import StoreReader

MARK = "do-not-log-this"


def trail(event_id: str = "11111111-2222-4333-8444-555555555555", **change: object) -> dict[str, object]:
    record: dict[str, object] = {
        "eventVersion": "1.11",
        "eventTime": "2026-11-20T10:00:00Z",
        "eventSource": "bedrock.amazonaws.com",
        "eventName": "InvokeModel",
        "awsRegion": "eu-west-1",
        "sourceIPAddress": "203.0.113.9",
        "userAgent": MARK,
        "requestParameters": {"modelId": "anthropic.claude-3-haiku-20240307-v1:0"},
        "responseElements": None,
        "requestID": "r1",
        "eventID": event_id,
        "readOnly": True,
        "eventType": "AwsApiCall",
        "managementEvent": True,
        "recipientAccountId": "111122223333",
        "eventCategory": "Management",
        "userIdentity": {
            "type": "IAMUser",
            "userName": "ines",
            "arn": "arn:aws:iam::111122223333:user/ines",
            "accountId": "111122223333",
            "accessKeyId": "AKIAIOSFODNN7EXAMPLE",
        },
    }
    record.update(change)
    return record


GOOD = json.dumps(trail())
BAD: dict[str, tuple[bytes, set[str]]] = {
    "broken json": (b'{"eventVersion": "1.11", "eventID": }\n', {"json_invalid"}),
    "torn in the middle": (GOOD[:200].encode() + b"\n", {"record_torn", "json_invalid"}),
    "invalid utf-8": (GOOD.encode().replace(b"ines", b"\xff\xfe") + b"\n", {"utf8_invalid"}),
    "raw nul": (GOOD.encode().replace(b"IAMUser", b"IAM\x00User") + b"\n", {"json_invalid"}),
    "lone surrogate": (GOOD.encode().replace(b"IAMUser", b"\\ud800") + b"\n", {"utf8_invalid"}),
    "deep nesting": (
        b'{"eventVersion":"1.11","eventSource":"bedrock.amazonaws.com","eventID":"x","requestParameters":'
        + b"[" * 100_000
        + b"]" * 100_000
        + b"}\n",
        {"json_too_deep"},
    ),
    "nan": (GOOD.encode().replace(b'"readOnly": true', b'"readOnly": NaN') + b"\n", {"json_invalid"}),
    "huge number": (GOOD.encode().replace(b'"1.11"', b"9" * 5000) + b"\n", {"number_out_of_range", "field_type"}),
    "duplicate key": (
        GOOD.encode().replace(b'"eventID"', b'"eventID": "x", "eventID"') + b"\n",
        {"json_duplicate_key"},
    ),
    "missing id": (
        json.dumps({k: v for k, v in trail().items() if k != "eventID"}).encode() + b"\n",
        {"field_missing"},
    ),
    "missing time": (
        json.dumps({k: v for k, v in trail().items() if k != "eventTime"}).encode() + b"\n",
        {"field_missing"},
    ),
    "wrong type": (json.dumps(trail(eventName=5)).encode() + b"\n", {"field_type"}),
    "identity is a text": (json.dumps(trail(userIdentity="root")).encode() + b"\n", {"field_type"}),
    "time without zone": (json.dumps(trail(eventTime="2026-11-20T10:00:00")).encode() + b"\n", {"time_no_zone"}),
    "time is no time": (json.dumps(trail(eventTime="yesterday")).encode() + b"\n", {"time_invalid"}),
    "unknown type": (json.dumps({"hello": MARK}).encode() + b"\n", {"type_unknown"}),
    "not an object": (b'"just text"\n', {"json_not_object", "json_invalid"}),
}


def gather(paths: list[Path], store: Path, content: str = "redacted") -> Counter[str]:
    config: Config = one_off(tuple(map(str, paths)), store, content=content, tenant="acme", record_type="", people="")
    return collect(config).totals.rejected


def events(store: Path) -> int:
    return int(StoreReader(store).connect().execute("SELECT count(*) FROM events").fetchone()[0])


@pytest.mark.parametrize("case", BAD)
def test_bad_record_is_a_dead_letter_and_its_neighbours_are_events(case: str, tmp_path: Path) -> None:
    raw, codes = BAD[case]
    path = tmp_path / "in.jsonl"
    before, after = json.dumps(trail("a" * 36)), json.dumps(trail("b" * 36))
    path.write_bytes(before.encode() + b"\n" + raw + after.encode() + b"\n")
    stream = io.StringIO()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(stream))
    rejected = gather([path], tmp_path / "store")
    assert events(tmp_path / "store") == 2
    assert sum(rejected.values()) == 1
    assert set(rejected) <= codes
    assert MARK not in stream.getvalue()
    row = (
        StoreReader(tmp_path / "store").connect().execute("SELECT origin, position, code FROM dead_letters").fetchone()
    )
    assert row[0].endswith("in.jsonl")
    assert row[1] == len(before) + 1
    assert row[2] in codes


def test_line_separators_inside_texts_do_not_split_records(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    record = json.dumps(trail(userAgent="a\u2028b\u0085c\u000bd"), ensure_ascii=False)
    path.write_text(record + "\r\n", encoding="utf-8")
    assert not gather([path], tmp_path / "store")
    agent = StoreReader(tmp_path / "store").connect().execute("SELECT user_agent FROM events").fetchone()[0]
    assert agent == "a\u2028b\u0085c\u000bd"


def test_escaped_nul_and_bad_address_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps(trail(userAgent="a\x00b", sourceIPAddress="035.249.253.232")) + "\n")
    assert not gather([path], tmp_path / "store")
    row = StoreReader(tmp_path / "store").connect().execute("SELECT src_ip, src_host, flags FROM events").fetchone()
    assert row[0] == ""
    assert row[1] == "035.249.253.232"
    assert "src_ip_invalid" in row[2]


def test_truncated_gzip_keeps_what_came_before(tmp_path: Path) -> None:
    lines = "".join(json.dumps(trail(f"{i:036d}", requestID=f"r{i * 7919 % 1000}")) + "\n" for i in range(3000))
    whole = gzip.compress(lines.encode())
    (tmp_path / "cut.json.gz").write_bytes(whole[: len(whole) // 2])
    os.utime(tmp_path / "cut.json.gz", (1_700_000_000, 1_700_000_000))  # not one that is still being written
    rejected = gather([tmp_path / "cut.json.gz"], tmp_path / "store")
    assert set(rejected) <= {"gzip_truncated", "record_torn"}
    assert rejected["gzip_truncated"] == 1
    assert events(tmp_path / "store") > 500


def test_gzip_bomb_is_stopped_and_the_next_file_is_read(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a-bomb.gz", "wb", compresslevel=9) as file:
        block = b"\0" * (1 << 20)
        for _ in range(256):
            file.write(block)
    (tmp_path / "b.jsonl").write_text(json.dumps(trail()) + "\n")
    rejected = gather([tmp_path / "a-bomb.gz", tmp_path / "b.jsonl"], tmp_path / "store")
    assert set(rejected) & {"bomb_ratio", "bomb_size", "record_too_large"}
    assert events(tmp_path / "store") == 1


def test_dead_letter_is_listed_shown_and_replayed_once_mended(tmp_path: Path) -> None:
    path, store = tmp_path / "in.jsonl", tmp_path / "store"
    good = json.dumps(trail())
    path.write_text(good.replace('"1.11"', "1.111x") + "\n")
    gather([path], store)
    runner = CliRunner()
    listed = runner.invoke(cli, ["deadletter", "list", "--store", str(store)], env={"COLUMNS": "200"})
    assert listed.exit_code == 0, listed.output
    assert "json_invalid" in listed.output
    assert MARK not in listed.output
    path.write_text(good + "\n")  # the producer mended its file in place
    replayed = runner.invoke(cli, ["deadletter", "replay", "--all", "--store", str(store)])
    assert replayed.exit_code == 0, replayed.output
    assert events(store) == 1
    again = runner.invoke(cli, ["deadletter", "replay", "--all", "--store", str(store)])
    assert again.exit_code == 0
    assert events(store) == 1
