"""Readers work while a writer runs: every look is a consistent snapshot, and none fails."""

import json
import subprocess
import sys
import time
from pathlib import Path

from aitrail.demo.writer import generate
from aitrail.store.reader import StoreReader

CONFIG = """
[store]
dir = "store"
[sources.day]
paths = ["data"]
interval = 0.2
"""
# As the program, but what was taken in is in the store at once, not after seconds.
WRITER = """
from aitrail.__main__ import main
from aitrail.runtime import daemon
daemon.FLUSH_SECONDS = 0.2
main()
"""


def test_report_and_query_while_run_writes(tmp_path: Path) -> None:
    generate(tmp_path / "data", seed=3, events=800)
    (tmp_path / "aitrail.toml").write_text(CONFIG)
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, "run", "-c", str(tmp_path / "aitrail.toml")],
        stderr=subprocess.PIPE,
        text=True,
    )
    seen: list[int] = []
    try:
        deadline = time.monotonic() + 60
        number = 0
        while time.monotonic() < deadline and len({*seen}) < 8:
            with (tmp_path / "data" / "extra.jsonl").open("a") as feed:
                for _ in range(50):
                    number += 1
                    feed.write(json.dumps(call(number)) + "\n")
            if (tmp_path / "store" / "aitrail.db").exists():
                rows = (
                    StoreReader(tmp_path / "store")
                    .connect()
                    .execute("SELECT count(*), count(DISTINCT event_id) FROM events")
                    .fetchone()
                )
                assert rows[0] == rows[1]
                assert not seen or rows[0] >= seen[-1], "a later snapshot never holds less"
                seen.append(rows[0])
            time.sleep(0.1)
        assert len({*seen}) >= 8, f"the table never grew while readers looked: {seen}"
        done = subprocess.run(
            [sys.executable, "-m", "aitrail", "report", "--store", str(tmp_path / "store"), "--format", "json"],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)
        second = subprocess.run(
            [sys.executable, "-m", "aitrail", "collect", str(tmp_path / "data"), "--store", str(tmp_path / "store")],
            capture_output=True,
            text=True,
        )
        assert second.returncode == 5, "a second writer is refused"
        assert "being written by pid" in second.stderr
    finally:
        writer.terminate()
        _, said = writer.communicate(timeout=15)
        assert writer.returncode == 0, said
    total = (
        StoreReader(tmp_path / "store")
        .connect()
        .execute("SELECT count(*) FROM events WHERE source_event_id LIKE 'live-%'")
        .fetchone()[0]
    )
    assert 0 < total <= number


def call(number: int) -> dict[str, object]:
    return {
        "id": f"c{number}",
        "litellm_call_id": f"live-{number}",
        "call_type": "acompletion",
        "status": "success",
        "startTime": 1763632800.0 + number,
        "endTime": 1763632801.0 + number,
        "response_time": 1.0,
        "model": "gpt-4o",
        "model_group": "gpt-4o",
        "custom_llm_provider": "openai",
        "stream": False,
        "metadata": {"user_api_key_user_id": "ines"},
        "messages": [{"role": "user", "content": f"hello {number}"}],
        "response": {"choices": [{"message": {"content": "hi", "role": "assistant"}}]},
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "total_tokens": 5,
        "response_cost": 0.001,
        "status_fields": {"guardrail_status": "not_run", "llm_api_status": "success"},
    }
