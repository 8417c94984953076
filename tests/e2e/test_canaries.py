"""Canaries planted in prompts, answers, tool calls, system prompts and headers: no file of a run holds them in clear.

One canary is a secret and one personal datum (masked in mode ``redacted``), one is ordinary text (absent in modes
``none``, ``hash`` and ``sealed``). Everything that a run leaves behind is searched: database with its journal, Parquet
(decompressed through DuckDB), key files, and everything that was printed.
"""

import contextlib
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from aitrail.store.reader import StoreReader

CARD = "4539578763621486"
SECRET = "AKIAQYLPMN5HFIQR7XYA"  # the shape of an AWS access key id, made up
WORD = "zanzibar-canary-4711"
BROKEN = "broken-canary-0815"


def chat(text: str, answer: str) -> dict[str, object]:
    return {
        "id": "chatcmpl-1",
        "litellm_call_id": f"call-{abs(hash(text))}",
        "call_type": "acompletion",
        "status": "success",
        "startTime": 1700000000.5,
        "endTime": 1700000001.5,
        "response_time": 1.0,
        "model": "gpt-4o",
        "model_group": "gpt-4o",
        "custom_llm_provider": "openai",
        "metadata": {"user_api_key_user_id": "ines"},
        "total_tokens": 10,
        "prompt_tokens": 5,
        "completion_tokens": 5,
        "response_cost": 0.1,
        "stream": False,
        "messages": [{"role": "system", "content": f"system {WORD} {SECRET}"}, {"role": "user", "content": text}],
        "response": {
            "choices": [
                {
                    "message": {
                        "content": answer,
                        "role": "assistant",
                        "tool_calls": [
                            {"function": {"name": "send", "arguments": json.dumps({"to": WORD, "key": SECRET})}}
                        ],
                    }
                }
            ]
        },
        "error_str": f"{WORD} {SECRET}",
        "requester_ip_address": "203.0.113.5",
        "status_fields": {"guardrail_status": "not_run", "llm_api_status": "success"},
    }


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    records = [
        chat(f"my card {CARD} and key {SECRET} {WORD}", f"answer {WORD} {CARD}"),
        chat(f"{WORD} second", f"key {SECRET}"),
    ]
    lines = [json.dumps(record) for record in records]
    lines.append(f'{{"litellm_call_id": "{BROKEN} {WORD} {SECRET}", "messages": ')
    lines.append(json.dumps({**records[0], "startTime": f"{WORD}"}))
    lines.append(json.dumps({"unknown": f"{WORD} {SECRET}"}))
    (folder / "gateway.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def everything(folder: Path, printed: str) -> bytes:
    """All bytes that the run left, with compressed parts opened."""
    parts = [printed.encode()]
    for path in folder.rglob("*"):
        if path.is_file():
            raw = path.read_bytes()
            parts.append(raw)
            parts += inflated(raw)
    connection = StoreReader(folder).connect()
    parts.append(repr(connection.execute("SELECT * FROM events").fetchall()).encode())
    parts.append(repr(connection.execute("SELECT * FROM dead_letters").fetchall()).encode())
    return b"\n".join(parts)


def inflated(raw: bytes) -> list[bytes]:
    """Whatever gzip, zlib or zstd streams lie inside: the outbox keeps its bodies compressed."""
    import zstandard

    found = []
    for magic, open_ in (
        (b"\x1f\x8b\x08", lambda d: zlib.decompressobj(31).decompress(d)),
        (b"\x28\xb5\x2f\xfd", lambda d: zstandard.ZstdDecompressor().decompressobj().decompress(d)),
        (b"\x78", lambda d: zlib.decompressobj().decompress(d)),
    ):
        at = raw.find(magic)
        while at >= 0:
            with contextlib.suppress(zlib.error, zstandard.ZstdError):
                found.append(open_(raw[at:]))
            at = raw.find(magic, at + 1)
    return found


@pytest.mark.parametrize("mode", ["none", "hash", "redacted", "sealed"])
@pytest.mark.parametrize("crash", [False, True], ids=["whole run", "killed before delivery"])
def test_no_canary_in_any_file(mode: str, crash: bool, data: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    code = "from aitrail.runtime.cli import main; main()"
    if crash:  # leave the outbox full: die between the commit and the delivery
        code = "import os, aitrail.delivery as d; d.Courier.drain = lambda self, **k: os._exit(9); " + code
    done = subprocess.run(
        [sys.executable, "-c", code, "-vv", "collect", str(data), "--store", str(store), "--content", mode],
        capture_output=True,
        text=True,
        env={**os.environ, "AITRAIL_STORE": str(store)},
    )
    assert done.returncode == (9 if crash else 0), done.stderr
    left = everything(store, done.stdout + done.stderr)
    for canary in (CARD, SECRET, BROKEN):
        assert canary.encode() not in left, f"{canary} left in the clear in mode {mode}"
    if mode != "redacted":
        assert WORD.encode() not in left, f"ordinary text left in mode {mode}"
    else:
        assert crash or WORD.encode() in left, "mode redacted keeps ordinary text; else this test proves nothing"


def test_mode_full_keeps_everything_it_should(data: Path, tmp_path: Path) -> None:
    """The search of the other tests works: in mode full it finds the canaries."""
    store = tmp_path / "store"
    subprocess.run(
        [sys.executable, "-m", "aitrail", "collect", str(data), "--store", str(store), "--content", "full"],
        check=True,
        capture_output=True,
    )
    left = everything(store, "")
    assert CARD.encode() in left
    assert SECRET.encode() in left
    assert BROKEN.encode() not in left, "a broken record's content is kept nowhere"
