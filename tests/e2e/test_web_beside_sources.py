"""`aitrail serve --with-sources`: what is pushed and what is collected comes into one store; maps make JSON fit."""

import json
from pathlib import Path

import httpx

from aitrail.store.reader import StoreReader
from aitrail.testing.served import Served, wait_for

CONFIG = """
[store]
dir = "store"
[sources.logs]
paths = ["logs/*.jsonl"]
interval = 0.2
[receivers.any]
path = "/any"
map = "map.toml"
open = true
[receivers.kong]
path = "/kong"
open = true
"""
MAP = '[fields]\ntimestamp = "when"\nuser_id = "who"\nhttp_status = "status"\n'
FIXTURES = Path(__file__).parents[1] / "fixtures"


def compact(kind: str, name: str) -> bytes:
    return json.dumps(json.loads((FIXTURES / kind / f"{name}.json").read_bytes())).encode()


def test_one_store_for_both(tmp_path: Path) -> None:
    (tmp_path / "map.toml").write_text(MAP)
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "a.jsonl").write_bytes(compact("litellm", "chat_success") + b"\n")
    with Served(tmp_path, CONFIG, options=("--with-sources",)) as served:
        pushed = {"when": "2026-11-23T09:14:05Z", "who": "tom", "status": 403}
        assert served.post("/any", json.dumps(pushed).encode()).json() == {"records": 1, "accepted": 1}
        assert served.post("/kong", compact("kong", "chat_with_payloads")).status_code == 202
        unknown = served.post("/kong", json.dumps(pushed).encode()).json()
        assert (unknown["rejected"], unknown["reasons"]) == (1, {"type_unknown": 1})
        (logs / "b.jsonl").write_bytes(compact("openai_audit", "login_failed") + b"\n")
        reader = StoreReader(tmp_path / "store")
        wanted = {"generic_access", "kong", "litellm", "openai_audit"}
        found = "SELECT DISTINCT source FROM events"
        wait_for("all four", lambda: {row[0] for row in reader.query(found).rows} == wanted, 180.0, 0.2)
        metrics = httpx.get(served.url + "/metrics", timeout=60).text
        assert 'aitrail_receiver_records_total{receiver="any"} 1' in metrics
        assert 'source="logs"' in metrics
        assert served.stop() == 0
    events = served.events()
    assert len(events) == 4
    mapped = next(row for row in events if row["source"] == "generic_access")
    assert (mapped["user_id"], mapped["outcome_status"]) == ("tom", "denied")
