"""A real LiteLLM proxy posts its own payloads, in its three forms, to `aitrail serve`: what comes out is asserted.

The models answer from the proxy itself (``mock_response``) or from a server here. Every call's payload goes to three
receivers of three tenants: a JSON array, JSON lines and single objects must give the same events.
"""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from aitrail.store.reader import StoreReader
from aitrail.testing.served import Program, Served, free_port, wait_for

ROOT = Path(__file__).parents[2]
FORMS = ("array", "lines", "single")
MASTER = "sk-master-of-this-test"
SECRET = "s3cret-of-this-test"
SSN = "078-05-1120"
RECEIVERS = '[store]\ndir = "store"\n' + "".join(
    f"""
[tenants.{form}]
content = "full"
[receivers.{form}]
path = "/{form}"
tenant = "{form}"
record_type = "litellm"
tokens = ["env:AITRAIL_TEST_TOKEN"]
"""
    for form in FORMS
)
TOOLS = [{"type": "function", "function": {"name": "get_balance", "parameters": {"type": "object", "properties": {}}}}]


class Model(BaseHTTPRequestHandler):
    """Just enough of an OpenAI API: chat with tool calls, and embeddings."""

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        answer: dict[str, Any] = {"id": "chatcmpl-1", "model": "gpt-4o-mini-2024-07-18", "created": 1, "object": "x"}
        if self.path.endswith("/embeddings"):
            answer["data"] = [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}]
            answer["usage"] = {"prompt_tokens": 4, "total_tokens": 4}
        else:
            call = {"name": "get_balance", "arguments": '{"account": "ACC-7"}'}
            message = {"role": "assistant", "content": None}
            message["tool_calls"] = [{"id": "c", "type": "function", "function": call}] if body.get("tools") else None
            answer["choices"] = [{"index": 0, "message": message, "finish_reason": "tool_calls"}]
            answer["usage"] = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("x-request-id", "req-of-the-provider")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def proxy_config(served: str, model: int) -> str:
    formats = {"array": "json_array", "lines": "ndjson", "single": "single"}
    headers = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/json"}
    behind = {"api_key": "none", "api_base": f"http://127.0.0.1:{model}/v1"}
    config = {
        "model_list": [
            {
                "model_name": "assistant",
                "litellm_params": {
                    "model": "openai/gpt-4o-mini",
                    "api_key": "none",
                    "mock_response": "the balance is fine",
                },
            },
            {"model_name": "caller", "litellm_params": {"model": "openai/gpt-4o-mini", **behind}},
            {"model_name": "embedder", "litellm_params": {"model": "openai/text-embedding-3-small", **behind}},
        ],
        "guardrails": [
            {
                "guardrail_name": "no-ssn",
                "litellm_params": {
                    "guardrail": "litellm_content_filter",
                    "mode": "pre_call",
                    "default_on": True,
                    "patterns": [
                        {"pattern_type": "prebuilt", "pattern_name": "us_ssn", "action": "BLOCK"},
                        {"pattern_type": "prebuilt", "pattern_name": "visa", "action": "MASK"},
                    ],
                },
            }
        ],
        "callback_settings": {
            form: {
                "callback_type": "generic_api",
                "endpoint": f"{served}/{form}",
                "headers": headers,
                "log_format": formats[form],
                "max_retries": 3,
            }
            for form in FORMS
        },
        "litellm_settings": {"callbacks": list(FORMS)},
        "general_settings": {"master_key": MASTER},
    }
    return json.dumps(config)  # JSON is YAML


@pytest.fixture(scope="module")
def programs(gateways: Path) -> Path:
    return gateways / "litellm" / "bin"


@pytest.fixture(scope="module")
def model() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


class Proxy:
    """The calls of a few users."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def chat(self, text: str, model: str = "assistant", key: str = MASTER, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
        return self._client.post("/v1/chat/completions", json=body, headers=headers)

    def embed(self, text: str) -> httpx.Response:
        body = {"model": "embedder", "input": text}
        return self._client.post("/v1/embeddings", json=body, headers={"Authorization": f"Bearer {MASTER}"})


def call_everything(proxy: Proxy) -> None:
    about = {"department": "retail", "session_id": "conv-1", "ticket": "INC-1"}
    assert proxy.chat("how is my balance?", user="ines.moreau", metadata=about).status_code == 200
    with proxy._client.stream(
        "POST",
        "/v1/chat/completions",
        json={
            "model": "assistant",
            "stream": True,
            "user": "ines.moreau",
            "messages": [{"role": "user", "content": "piece by piece"}],
        },
        headers={"Authorization": f"Bearer {MASTER}"},
    ) as stream:
        assert "[DONE]" in "".join(stream.iter_text())
    assert proxy.chat(f"my number is {SSN}", user="mallory").status_code == 400
    assert proxy.chat("charge 4111 1111 1111 1111", user="ines.moreau").status_code == 200
    assert proxy.chat("no key", key="").status_code >= 400
    assert proxy.chat("wrong key", key="sk-nobody-has-this").status_code >= 400
    assert proxy.chat("odd key", key="plain-words-as-key").status_code >= 400
    assert proxy.chat("balance of ACC-7", model="caller", tools=TOOLS).status_code == 200
    assert proxy.embed("a text to embed").status_code == 200
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: proxy.chat(f"at once {number}").status_code, range(24)))
    assert answers == [200] * 24


CALLS = 9 + 24


@pytest.fixture(scope="module")
def events(
    programs: Path, model: int, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, dict[str, Any]]]:
    """tenant -> prompt -> event."""
    folder = tmp_path_factory.mktemp("litellm")
    port = free_port()
    with Served(folder, RECEIVERS, environment={"AITRAIL_TEST_TOKEN": SECRET}) as served:
        (folder / "proxy.yaml").write_text(proxy_config(served.url, model))
        environment = {
            # One payload a request: the proxy empties its queue after a send, also of what came meanwhile.
            "DEFAULT_BATCH_SIZE": "1",
            "DEFAULT_FLUSH_INTERVAL_SECONDS": "1",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_TELEMETRY": "False",
            "NO_PROXY": "127.0.0.1",
        }
        command = [str(programs / "litellm"), "--config", "proxy.yaml", "--host", "127.0.0.1", "--port", str(port)]
        with Program(command, environment=environment, cwd=folder) as proxy:
            url = f"http://127.0.0.1:{port}"
            wait_for("the LiteLLM proxy", lambda: alive(proxy, url), 420.0, 0.3)
            with httpx.Client(base_url=url, timeout=240.0) as client:
                call_everything(Proxy(client))
            wait_for("all payloads", lambda: everything_is_stored(served), 240.0, 0.5)
        assert served.stop() == 0
        found = served.events()
    return {form: {row["prompt_text"]: row for row in found if row["tenant_id"] == form} for form in FORMS}


def alive(proxy: Program, url: str) -> bool:
    proxy.said("never")
    try:
        return httpx.get(url + "/health/liveliness", timeout=30.0).status_code == 200
    except httpx.HTTPError:
        return False


def everything_is_stored(served: Served) -> bool:
    """Payloads come more than once, so only the store can say which are there."""
    served.said("never")
    found = StoreReader(served.folder / "store").query("SELECT tenant_id, count(*) FROM events GROUP BY ALL")
    return dict(found.rows) == dict.fromkeys(FORMS, CALLS)


def test_the_three_forms_give_the_same_events(events: dict[str, dict[str, dict[str, Any]]]) -> None:
    assert {form: len(found) for form, found in events.items()} == dict.fromkeys(FORMS, CALLS)
    ids = [{row["source_event_id"] for row in found.values()} for found in events.values()]
    assert ids[0] == ids[1] == ids[2]


@pytest.mark.parametrize("form", FORMS)
def test_success_with_what_the_caller_said(events: dict[str, dict[str, dict[str, Any]]], form: str) -> None:
    found = events[form]["how is my balance?"]
    assert found["outcome_status"] == "success"
    assert found["response_text"] == "the balance is fine"
    assert (found["user_id"], found["department"], found["session_id"]) == ("ines.moreau", "retail", "conv-1")
    assert found["ticket"] == "inc-1"
    assert (found["model"], found["model_provider"], found["resource_id"]) == ("gpt-4o-mini", "openai", "assistant")
    assert found["token_count"] == found["prompt_tokens"] + found["completion_tokens"] > 0
    assert found["latency_ms"] > 0
    assert found["src_ip"] == "127.0.0.1"
    assert found["credential_id"] == "litellm_proxy_master_key"
    assert found["guardrail_action"] == "allowed"


def test_stream(events: dict[str, dict[str, dict[str, Any]]]) -> None:
    found = events["array"]["piece by piece"]
    assert found["response_text"] == "the balance is fine"
    assert 0 < found["first_token_ms"] <= found["latency_ms"]


def test_a_block_is_no_error(events: dict[str, dict[str, dict[str, Any]]]) -> None:
    found = events["array"][f"my number is {SSN}"]
    assert (found["outcome_status"], found["guardrail_action"], found["guardrail_name"]) == (
        "blocked",
        "blocked",
        "no-ssn",
    )
    assert found["guardrail_categories"] == ["us_ssn"]
    assert (found["user_id"], found["http_status"]) == ("mallory", 400)
    assert found["response_text"] == ""


def test_a_masked_text_was_let_through(events: dict[str, dict[str, dict[str, Any]]]) -> None:
    found = events["array"]["charge [VISA_REDACTED]"]
    assert (found["outcome_status"], found["guardrail_action"]) == ("success", "masked")
    assert found["guardrail_categories"] == ["visa"]


@pytest.mark.parametrize("text", ["no key", "wrong key", "odd key"])
def test_who_has_no_right_key_is_denied(events: dict[str, dict[str, dict[str, Any]]], text: str) -> None:
    found = events["array"][text]
    assert found["outcome_status"] == "denied"
    assert found["user_id"] == ""
    # The proxy writes a key that does not begin with sk- in the clear: it must not come out of here.
    assert "plain-words" not in found["credential_id"]
    assert len(found["credential_id"]) in (0, 64)


def test_tools(events: dict[str, dict[str, dict[str, Any]]]) -> None:
    found = events["array"]["balance of ACC-7"]
    assert found["tool"] == "get_balance"
    assert "ACC-7" in found["response_text"]
    assert found["finish_reason"] == "tool_calls"
    assert found["token_count"] == 18


def test_embeddings(events: dict[str, dict[str, dict[str, Any]]]) -> None:
    found = events["array"]["a text to embed"]
    assert (found["action"], found["model"], found["token_count"]) == ("aembedding", "text-embedding-3-small", 4)
    assert found["request_id"] == "req-of-the-provider"
    assert found["response_text"] == ""
