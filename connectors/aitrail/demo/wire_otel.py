"""OTLP/JSON spans of applications and of an Envoy AI Gateway, in the four dialects of GenAI instrumentation.

* ``current``: OpenTelemetry GenAI conventions 1.37 and later, messages as JSON text in span attributes;
* ``legacy``: 1.30, messages as log records joined by trace and span id;
* ``openinference``: flattened ``llm.input_messages.N...`` (Envoy AI Gateway's default);
* ``openllmetry``: ``gen_ai.prompt.N...`` and ``llm.usage.total_tokens``.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec
from msgspec import Raw

from aitrail.demo.call import Call, Record
from aitrail.demo.org import App, Person
from aitrail.demo.times import nanos

_encode = msgspec.json.Encoder().encode
_FAILURES = {"throttled": "rate_limit_exceeded", "error": "timeout", "blocked": "content_filter", "denied": "401"}
SCOPES = {
    "current": ("opentelemetry.instrumentation.genai.openai", "1.3b0", "https://opentelemetry.io/schemas/1.37.0"),
    "legacy": ("opentelemetry.instrumentation.openai_v2", "2.1b0", "https://opentelemetry.io/schemas/1.30.0"),
    "openinference": ("envoyproxy/ai-gateway", "0.4.0", ""),
    "openllmetry": ("opentelemetry.instrumentation.openai.v1", "0.62.0", ""),
}


def _value(value: object) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_value(item) for item in value]}}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": attributes(value)}}
    return {"stringValue": str(value)}


def attributes(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Key-value pairs as OTLP writes them."""
    return [{"key": key, "value": _value(value)} for key, value in values.items()]


@cache
def resource(app: App) -> Raw:
    """The OTLP resource of ``app``."""
    return Raw(
        _encode(
            {
                "attributes": attributes(
                    {
                        "service.name": app.name,
                        "service.namespace": "example-bank",
                        "deployment.environment.name": "production",
                        "department": app.department,
                        "telemetry.sdk.language": "go" if app.dialect == "openinference" else "python",
                    }
                )
            }
        )
    )


def spans(call: Call) -> list[Record]:
    """The span of ``call`` and, in the legacy dialect, its log records."""
    values = _DIALECTS[call.app.dialect](call)
    person = call.actor if isinstance(call.actor, Person) else None
    if person is not None:
        values["user.id"] = person.user_id
    if call.ip:
        values["client.address"] = call.ip
    if call.status != "success":
        values["error.type"] = _FAILURES[call.status]
    body = {
        "traceId": call.trace_id,
        "spanId": call.span_id,
        "parentSpanId": call.trace_id[16:],
        "name": f"chat {call.model.model_id}",
        "kind": 3,
        "startTimeUnixNano": nanos(call.start),
        "endTimeUnixNano": nanos(call.start + call.latency),
        "attributes": attributes(values),
        "status": {} if call.status == "success" else {"code": 2, "message": _FAILURES[call.status]},
    }
    stream = ("otel", "traces", call.app.name, call.app.dialect)
    found = [Record(stream, call.start + call.latency, _encode(body), "otel_genai", _identity(call))]
    if call.app.dialect == "legacy":
        found += _logs(call)
    return found


def _identity(call: Call) -> str:
    return f"{call.trace_id}:{call.span_id}"


def _common(call: Call) -> dict[str, Any]:
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": call.model.model_id,
        "gen_ai.response.model": f"{call.model.model_id}-{call.model.version}",
        "gen_ai.response.id": f"chatcmpl-{call.trace_id[:24]}",
        "gen_ai.response.finish_reasons": ["stop"] if call.asked is None else ["tool_calls"],
        "gen_ai.usage.input_tokens": call.prompt_tokens,
        "gen_ai.usage.output_tokens": call.completion_tokens,
        "server.address": "oai-example-weu.openai.azure.com",
    }


def _current(call: Call) -> dict[str, Any]:
    said: list[dict[str, Any]] = []
    for asked, answered in call.history:
        said.append({"role": "user", "parts": [{"type": "text", "content": asked}]})
        said.append({"role": "assistant", "parts": [{"type": "text", "content": answered}]})
    said.append({"role": "user", "parts": [{"type": "text", "content": call.prompt}]})
    for number, tool in enumerate(call.tools):
        key = f"call_{call.span_id[:8]}{number}"
        arguments = msgspec.json.decode(tool.arguments)
        said.append(
            {"role": "assistant", "parts": [
                {"type": "tool_call", "id": key, "name": tool.name, "arguments": arguments}]}
        )  # fmt: skip
        said.append({"role": "tool", "parts": [{"type": "tool_call_response", "id": key, "response": tool.result}]})
    values = _common(call)
    values["gen_ai.provider.name"] = "azure.ai.openai"
    values["gen_ai.conversation.id"] = call.session
    values["gen_ai.response.time_to_first_chunk"] = round(call.first_token, 4)
    if call.cached_tokens:
        values["gen_ai.usage.cache_read.input_tokens"] = call.cached_tokens
    values["gen_ai.system_instructions"] = _encode([{"type": "text", "content": call.app.system}]).decode()
    values["gen_ai.input.messages"] = _encode(said).decode()
    if call.asked is not None:
        parts: list[dict[str, Any]] = [
            {"type": "tool_call", "id": f"call_{call.span_id[:8]}x", "name": call.asked.name,
             "arguments": msgspec.json.decode(call.asked.arguments)}
        ]  # fmt: skip
        reason = "tool_call"
    else:
        parts, reason = [{"type": "text", "content": call.answer}], "stop"
    if call.status == "success":
        answer = [{"role": "assistant", "parts": parts, "finish_reason": reason}]
        values["gen_ai.output.messages"] = _encode(answer).decode()
    if call.app.name == "kyc-agent":
        values["gen_ai.agent.name"] = "kyc-agent"
        values["gen_ai.agent.id"] = "agent-kyc-01"
    return values


def _legacy(call: Call) -> dict[str, Any]:
    values = _common(call)
    values["gen_ai.system"] = "az.ai.openai"
    return values


def _openinference(call: Call) -> dict[str, Any]:
    values: dict[str, Any] = {
        "openinference.span.kind": "LLM",
        "llm.system": "anthropic",
        "llm.provider": "aws",
        "llm.model_name": call.model.model_id,
        "llm.token_count.prompt": call.prompt_tokens,
        "llm.token_count.completion": call.completion_tokens,
        "llm.token_count.total": call.prompt_tokens + call.completion_tokens,
        "session.id": call.session,
        "llm.input_messages.0.message.role": "system",
        "llm.input_messages.0.message.content": call.app.system,
    }
    index = 1
    for asked, answered in [*call.history, (call.prompt, "")]:
        values[f"llm.input_messages.{index}.message.role"] = "user"
        values[f"llm.input_messages.{index}.message.content"] = asked
        index += 1
        if answered:
            values[f"llm.input_messages.{index}.message.role"] = "assistant"
            values[f"llm.input_messages.{index}.message.content"] = answered
            index += 1
    if call.status == "success":
        values["llm.output_messages.0.message.role"] = "assistant"
        values["llm.output_messages.0.message.content"] = call.answer
    return values


def _openllmetry(call: Call) -> dict[str, Any]:
    values: dict[str, Any] = {
        "llm.request.type": "chat",
        "gen_ai.system": "Azure",
        "gen_ai.request.model": call.model.model_id,
        "gen_ai.response.model": f"{call.model.model_id}-{call.model.version}",
        "gen_ai.usage.input_tokens": call.prompt_tokens,
        "gen_ai.usage.output_tokens": call.completion_tokens,
        "llm.usage.total_tokens": call.prompt_tokens + call.completion_tokens,
        "gen_ai.prompt.0.role": "system",
        "gen_ai.prompt.0.content": call.app.system,
        "gen_ai.prompt.1.role": "user",
        "gen_ai.prompt.1.content": call.prompt,
        "traceloop.association.properties.session_id": call.session,
    }
    if call.status == "success":
        values["gen_ai.completion.0.role"] = "assistant"
        values["gen_ai.completion.0.content"] = call.answer
        values["gen_ai.completion.0.finish_reason"] = "stop"
    return values


_DIALECTS: dict[str, Callable[[Call], dict[str, Any]]] = {
    "current": _current,
    "legacy": _legacy,
    "openinference": _openinference,
    "openllmetry": _openllmetry,
}


def _logs(call: Call) -> list[Record]:
    """The messages of a legacy span as log records."""
    found: list[Record] = []
    parts: list[tuple[str, dict[str, Any]]] = [
        ("gen_ai.system.message", {"content": call.app.system}),
        ("gen_ai.user.message", {"content": call.prompt}),
    ]
    if call.status == "success":
        message = {"role": "assistant", "content": call.answer}
        parts.append(("gen_ai.choice", {"index": 0, "finish_reason": "stop", "message": message}))
    for number, (name, value) in enumerate(parts):
        t = call.start + number * 0.0001
        body = {
            "timeUnixNano": nanos(t),
            "observedTimeUnixNano": nanos(t + 0.002),
            "severityNumber": 9,
            "eventName": name,
            "body": _value(value),
            "attributes": attributes({"event.name": name, "gen_ai.system": "az.ai.openai"}),
            "traceId": call.trace_id,
            "spanId": call.span_id,
        }
        stream = ("otel", "logs", call.app.name, call.app.dialect)
        found.append(Record(stream, t, _encode(body), "otel_genai", _identity(call), 0))
    return found


def plain_span(call: Call, name: str, values: dict[str, Any]) -> Record:
    """A span of the same application that is no model call (HTTP, database): foreign to AI."""
    span_id = call.span_id[:-1] + ("0" if call.span_id[-1] != "0" else "1")
    body = {
        "traceId": call.trace_id,
        "spanId": span_id,
        "name": name,
        "kind": 3,
        "startTimeUnixNano": nanos(call.start - 0.02),
        "endTimeUnixNano": nanos(call.start - 0.004),
        "attributes": attributes(values),
        "status": {},
    }
    stream = ("otel", "traces", call.app.name, call.app.dialect)
    return Record(stream, call.start - 0.004, _encode(body), "otel_genai", span_id, 0, "not_ai_related")
