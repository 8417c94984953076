"""Bedrock model invocation log: one JSON line for each call, with the vendor's own request and response bodies."""

from typing import Any

import msgspec

from aitrail.demo.call import Call, Record
from aitrail.demo.org import ACCOUNT, Person
from aitrail.demo.times import iso_seconds
from aitrail.demo.wire_cloudtrail import operation

_encode = msgspec.json.Encoder().encode
_ERRORS = {"throttled": "ThrottlingException", "denied": "AccessDeniedException", "error": "InternalServerException"}


def identity_arn(call: Call) -> str:
    """The STS ARN that the log keeps of the caller."""
    role = call.actor.sso_role if isinstance(call.actor, Person) else call.actor.role
    return f"arn:aws:sts::{ACCOUNT}:assumed-role/{role}/{call.actor.user_id}"


def invocation(call: Call, *, arn: str = "", metadata: dict[str, str] | None = None) -> Record:
    """The invocation record of ``call``; failed calls have an ``errorCode`` and no output."""
    request, response = _BODIES[call.model.body](call)
    body: dict[str, Any] = {
        "schemaType": "ModelInvocationLog",
        "schemaVersion": "1.0",
        "timestamp": iso_seconds(call.start),
        "accountId": ACCOUNT,
        "identity": {"arn": arn or identity_arn(call)},
        "region": call.region,
        "requestId": call.request_id,
        "operation": operation(call),
        "modelId": call.model.model_id,
        "input": {
            "inputContentType": "application/json",
            "inputBodyJson": request,
            "inputTokenCount": call.prompt_tokens - call.cached_tokens,
        },
    }
    if call.cached_tokens:
        body["input"]["cacheReadInputTokenCount"] = call.cached_tokens
        body["input"]["cacheWriteInputTokenCount"] = 0
    if call.status in _ERRORS:
        body["errorCode"] = _ERRORS[call.status]
    else:
        body["output"] = {
            "outputContentType": "application/json",
            "outputBodyJson": response,
            "outputTokenCount": call.completion_tokens,
        }
    if call.model.model_id.startswith("eu."):
        body["inferenceRegion"] = "eu-central-1" if call.span_id[0] < "8" else "eu-north-1"
    if metadata:
        body["requestMetadata"] = metadata
    return Record(("bedrock", call.region), call.start, _encode(body), "bedrock_invocation", call.request_id)


def _trace(call: Call) -> dict[str, Any]:
    guard = call.guard
    if guard is None:
        return {}
    return {
        "guardrail": {
            "input": {
                guard.name: {
                    "contentPolicy": {
                        "filters": [
                            {
                                "type": guard.category.upper(),
                                "confidence": "HIGH",
                                "filterStrength": "HIGH",
                                "action": "BLOCKED" if guard.action == "blocked" else "NONE",
                            }
                        ]
                    }
                }
            }
        }
    }


def _anthropic(call: Call) -> tuple[Any, Any]:
    messages: list[dict[str, Any]] = []
    for asked, answered in call.history:
        messages.append({"role": "user", "content": [{"type": "text", "text": asked}]})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answered}]})
    messages.append({"role": "user", "content": [{"type": "text", "text": call.prompt}]})
    request = {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 2048,
        "temperature": 0.2,
        "system": call.app.system,
        "messages": messages,
    }
    usage = {"input_tokens": call.prompt_tokens - call.cached_tokens, "output_tokens": call.completion_tokens}
    message_id = f"msg_bdrk_{call.trace_id[:24]}"
    blocked = bool(call.guard and call.guard.by == "bedrock" and call.guard.action == "blocked")
    verdict = {"amazon-bedrock-guardrailAction": "INTERVENED" if blocked else "NONE"} if call.guard else {}
    if not call.streamed:
        response = {
            "id": message_id,
            "type": "message",
            "role": "assistant",
            "model": call.model.model_id.split(".", 1)[1].split(":")[0],
            "content": [{"type": "text", "text": call.answer}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": usage,
            **({"amazon-bedrock-trace": _trace(call)} if call.guard else {}),
            **verdict,
        }
        return request, response
    chunks: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": message_id, "type": "message", "role": "assistant",
         "model": "claude", "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    ]  # fmt: skip
    step = max(40, len(call.answer) // 6)
    for at in range(0, len(call.answer), step):
        text = call.answer[at : at + step]
        chunks.append({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}})
    chunks += [
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None},
         "usage": {"output_tokens": call.completion_tokens}},
        {"type": "message_stop", **verdict, "amazon-bedrock-invocationMetrics": {
            "inputTokenCount": call.prompt_tokens - call.cached_tokens, "outputTokenCount": call.completion_tokens,
            "invocationLatency": round(call.latency * 1000), "firstByteLatency": round(call.first_token * 1000)}},
    ]  # fmt: skip
    return request, chunks


def _llama(call: Call) -> tuple[Any, Any]:
    text = "<|begin_of_text|>"
    for role, part in [("system", call.app.system), *_flat(call), ("user", call.prompt)]:
        text += f"<|start_header_id|>{role}<|end_header_id|>\n\n{part}<|eot_id|>"
    text += "<|start_header_id|>assistant<|end_header_id|>\n\n"
    request = {"prompt": text, "max_gen_len": 1024, "temperature": 0.3}
    response = {
        "generation": call.answer,
        "prompt_token_count": call.prompt_tokens,
        "generation_token_count": call.completion_tokens,
        "stop_reason": "stop",
    }
    return request, response


def _flat(call: Call) -> list[tuple[str, str]]:
    return [(role, text) for pair in call.history for role, text in zip(("user", "assistant"), pair, strict=True)]


def _converse(call: Call) -> tuple[Any, Any]:
    messages = [{"role": role, "content": [{"text": text}]} for role, text in _flat(call)]
    messages.append({"role": "user", "content": [{"text": call.prompt}]})
    request = {
        "messages": messages,
        "system": [{"text": call.app.system}],
        "inferenceConfig": {"maxTokens": 1024, "temperature": 0.2},
    }
    blocked = bool(call.guard and call.guard.action == "blocked")
    response: dict[str, Any] = {
        "output": {"message": {"role": "assistant", "content": [{"text": call.answer}]}},
        "stopReason": "guardrail_intervened" if blocked else "end_turn",
        "usage": {
            "inputTokens": call.prompt_tokens,
            "outputTokens": call.completion_tokens,
            "totalTokens": call.prompt_tokens + call.completion_tokens,
        },
        "metrics": {"latencyMs": round(call.latency * 1000)},
    }
    if call.guard:
        response["trace"] = _trace(call)
    return request, response


_BODIES = {"anthropic": _anthropic, "llama": _llama, "converse": _converse}
