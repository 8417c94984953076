"""OpenTelemetry's own GenAI instrumentation exports OTLP over HTTP (protobuf, gzip) to `aitrail serve`.

Two generations: the current one (`opentelemetry-instrumentation-genai-openai`, texts as attributes of the span) and the
legacy one (`opentelemetry-instrumentation-openai-v2`, texts in log records apart). The model is a server here.
"""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from aitrail.testing.served import Program, Served

HERE = Path(__file__).parent
CONFIG = """
[store]
dir = "store"
[tenants.current]
content = "full"
[tenants.legacy]
content = "full"
[receivers.current]
type = "otlp"
path = "/current"
tenant = "current"
tokens = ["env:AITRAIL_TEST_TOKEN"]
[receivers.legacy]
type = "otlp"
path = "/legacy"
tenant = "legacy"
tokens = ["env:AITRAIL_TEST_TOKEN"]
join_seconds = 16
"""
GENERATIONS = ("current", "legacy")
ENVIRONMENT = {
    "current": {
        "OTEL_SEMCONV_STABILITY_OPT_IN": "gen_ai_latest_experimental",
        "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY",
    },
    "legacy": {
        "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "true",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "60",
    },
}


class Model(BaseHTTPRequestHandler):
    """Just enough of an OpenAI API: chat, a stream, tool calls, embeddings, and a refusal."""

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if body["model"] == "throttled":
            self.answer(429, "application/json", b'{"error":{"message":"slow down","type":"rate_limit_exceeded"}}')
        elif body.get("stream"):
            self.answer(200, "text/event-stream", stream())
        else:
            self.answer(200, "application/json", json.dumps(whole(self.path, body)).encode())

    def answer(self, status: int, kind: str, data: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def whole(path: str, body: dict[str, Any]) -> dict[str, Any]:
    if path.endswith("/embeddings"):
        data = [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}]
        return {
            "object": "list",
            "model": body["model"],
            "data": data,
            "usage": {"prompt_tokens": 4, "total_tokens": 4},
        }
    message: dict[str, Any] = {"role": "assistant", "content": "the balance is fine"}
    if body.get("tools"):
        call = {"name": "get_balance", "arguments": '{"account": "ACC-7"}'}
        message = {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "type": "function", "function": call}],
        }
    reason = "tool_calls" if body.get("tools") else "stop"
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    }


def stream() -> bytes:
    base = {"id": "chatcmpl-2", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini-2024-07-18"}
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": "the "}, {"content": "end"}, {}]
    chunks = [
        {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}]}
        for delta in deltas
    ]
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"


@pytest.fixture(scope="module")
def model() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def events(gateways: Path, model: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("otel")
    with Served(folder, CONFIG, environment={"AITRAIL_TEST_TOKEN": "s3cret-of-this-test"}) as served:
        for generation in GENERATIONS:
            python = str(gateways / f"otel-{generation}" / "bin" / "python")
            command = [python, str(HERE / "otel_client.py"), generation, model, f"{served.url}/{generation}"]
            with Program(command, environment=ENVIRONMENT[generation], cwd=folder) as client:
                code = client.process.wait(300)
                assert code == 0, client.output
                assert client.said("exported")
                assert "rror exporting" not in client.output, client.output
        assert served.stop() == 0
        found = served.events()
    return {generation: [row for row in found if row["tenant_id"] == generation] for generation in GENERATIONS}


def one(events: dict[str, list[dict[str, Any]]], generation: str, text: str) -> dict[str, Any]:
    found = [row for row in events[generation] if text in row["prompt_text"]]
    assert len(found) == 1, [(row["action"], row["prompt_text"], row["flags"]) for row in events[generation]]
    return found[0]


@pytest.mark.parametrize("generation", GENERATIONS)
def test_chat(events: dict[str, list[dict[str, Any]]], generation: str) -> None:
    found = one(events, generation, "how is my balance?")
    assert (found["action"], found["outcome_status"]) == ("chat", "success")
    assert (found["model_provider"], found["model"]) == ("openai", "gpt-4o-mini")
    assert found["model_version"] == "gpt-4o-mini-2024-07-18"
    assert found["response_text"] == "the balance is fine"
    assert (found["prompt_tokens"], found["completion_tokens"], found["token_count"]) == (11, 7, 18)
    assert (found["app"], found["department"], found["cloud_region"]) == ("retail-bot", "retail", "eu-west-1")
    assert found["finish_reason"] == "stop"
    assert found["latency_ms"] > 0
    assert len(found["trace_id"]) == 32
    assert found["flags"] == ["identity_missing"]  # neither generation records who asked


@pytest.mark.parametrize("generation", GENERATIONS)
def test_tools(events: dict[str, list[dict[str, Any]]], generation: str) -> None:
    found = one(events, generation, "balance of ACC-7")
    assert found["tool"] == "get_balance"
    assert "ACC-7" in found["response_text"]


@pytest.mark.parametrize("generation", GENERATIONS)
def test_stream(events: dict[str, list[dict[str, Any]]], generation: str) -> None:
    found = one(events, generation, "piece by piece")
    assert found["response_text"] == "the end"
    assert found["outcome_status"] == "success"


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_refused_call(events: dict[str, list[dict[str, Any]]], generation: str) -> None:
    found = [row for row in events[generation] if row["model"] == "throttled"]
    assert [row["outcome_status"] for row in found] == ["throttled"]


def test_embeddings(events: dict[str, list[dict[str, Any]]]) -> None:
    found = [row for row in events["current"] if row["action"] == "embeddings"]
    assert [(row["model"], row["prompt_tokens"]) for row in found] == [("text-embedding-3-small", 4)]


def test_nothing_comes_twice_and_the_plain_span_is_no_access(events: dict[str, list[dict[str, Any]]]) -> None:
    # The legacy generation does not see embeddings.
    assert {generation: len(found) for generation, found in events.items()} == {"current": 5, "legacy": 4}
