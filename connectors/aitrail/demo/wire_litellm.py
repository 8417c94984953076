"""LiteLLM: StandardLoggingPayload (one JSON for each call) and rows of the SpendLogs table.

Names after ``litellm/types/utils.py``. ``model_map_information``, the price table entry of the model, is more than half
of each record, as it is in the real ones.
"""

from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Raw

from aitrail.demo.call import Call, Record, client, cost
from aitrail.demo.org import AZURE_TENANT, Model, Person, constant_uuid, digest
from aitrail.demo.times import plain_micros

_encode = msgspec.json.Encoder().encode
_PROVIDER = {"azure": "azure", "bedrock": "bedrock"}
_FAILURES: dict[str, tuple[str, str, str]] = {
    "throttled": ("429", "RateLimitError", "Rate limit reached for the deployment."),
    "error": ("500", "InternalServerError", "The provider answered with an internal error."),
    "denied": ("401", "AuthenticationError", "Authentication Error, Invalid proxy server token passed."),
}
_REQUEST_ID_HEADER = {"azure": "llm_provider-apim-request-id", "bedrock": "llm_provider-x-amzn-requestid"}
TEAMS = {
    "retail": "retail",
    "investment-banking": "investment-banking",
    "engineering": "engineering",
    "support": "support",
}


def payload(call: Call, *, prices: bool = True) -> Record:
    """The gateway's record of ``call``, with or without the entry of the price table."""
    end = call.start + call.latency
    provider = _PROVIDER[call.model.provider]
    agent = client(call)
    body: dict[str, Any] = {
        "id": f"chatcmpl-{call.trace_id[:24]}",
        "litellm_call_id": call.call_id,
        "trace_id": call.trace_id,
        "session_id": call.session,
        "call_type": "acompletion",
        "cache_hit": None,
        "stream": call.streamed,
        "status": "success" if call.status == "success" else "failure",
        "status_fields": {
            "llm_api_status": "success" if call.status == "success" else "failure",
            "guardrail_status": _guardrail_status(call),
        },
        "custom_llm_provider": provider,
        "saved_cache_cost": 0.0,
        "startTime": round(call.start, 6),
        "endTime": round(end, 6),
        "completionStartTime": round(call.start + call.first_token, 6),
        "response_time": round(call.first_token if call.streamed else call.latency, 6),
        "model": f"{provider}/{call.model.model_id}",
        "metadata": _metadata(call),
        "cache_key": None,
        "response_cost": cost(call) if call.status == "success" else 0.0,
        "cost_breakdown": {
            "input_cost": call.prompt_tokens * call.model.price_in / 1e6,
            "output_cost": call.completion_tokens * call.model.price_out / 1e6,
            "tool_usage_cost": 0.0,
        },
        "total_tokens": call.prompt_tokens + call.completion_tokens,
        "prompt_tokens": call.prompt_tokens,
        "completion_tokens": call.completion_tokens,
        "request_tags": [*_tags(call), f"User-Agent: {agent.partition('/')[0]}", f"User-Agent: {agent}"],
        "end_user": call.end_user,
        "api_base": _base(call.model),
        "model_group": call.model.alias,
        "model_id": _deployment(call.model),
        "requester_ip_address": call.ip,
        "user_agent": agent,
        "messages": _messages(call),
        "response": _response(call) if call.status == "success" else {},
        "model_parameters": {"temperature": 0.2, "max_tokens": 2048, "stream": call.streamed},
        "hidden_params": {
            "model_id": _deployment(call.model),
            "cache_key": None,
            "api_base": _base(call.model),
            "response_cost": cost(call) if call.status == "success" else None,
            "litellm_overhead_time_ms": 4.21,
            "additional_headers": {_REQUEST_ID_HEADER[call.model.provider]: call.request_id},
            "batch_models": None,
            "litellm_model_name": f"{provider}/{call.model.model_id}",
            "usage_object": None,
        },
        "model_map_information": _map_information(call.model) if prices else None,
        "error_str": None,
        "error_information": None,
        "response_cost_failure_debug_info": None,
        "guardrail_information": _guardrail_information(call),
        "standard_built_in_tools_params": {"web_search_options": None, "file_search": None},
    }
    if call.status != "success":
        _fail(body, call)
    name = "calls" if call.app.one_file_per_call else call.app.name
    return Record(("litellm", name, call.call_id), call.start, _encode(body), "litellm", call.call_id)


def older(call: Call) -> Record:
    """The record as builds of 2024 wrote it: times as text without zone, fewer fields, no guardrail block."""
    end = call.start + call.latency
    done = call.status == "success"
    provider = _PROVIDER[call.model.provider]
    person = call.actor if isinstance(call.actor, Person) else None
    body: dict[str, Any] = {
        "id": f"chatcmpl-{call.trace_id[:24]}",
        "litellm_call_id": call.call_id,
        "trace_id": call.trace_id,
        "call_type": "acompletion",
        "cache_hit": None,
        "status": "success" if done else "failure",
        "startTime": plain_micros(call.start),
        "endTime": plain_micros(end),
        "completionStartTime": plain_micros(call.start + call.first_token),
        "model": call.model.model_id,
        "custom_llm_provider": provider,
        "metadata": {
            "user_api_key_hash": _key(call.actor.user_id, call.app.name),
            "user_api_key_alias": call.app.name,
            "user_api_key_team_alias": TEAMS[call.app.department],
            "user_api_key_user_id": person.user_id if person else None,
            "requester_metadata": {"session_id": call.session},
            "requester_ip_address": call.ip,
        },
        "response_cost": cost(call) if done else 0.0,
        "total_tokens": call.prompt_tokens + call.completion_tokens,
        "prompt_tokens": call.prompt_tokens,
        "completion_tokens": call.completion_tokens,
        "request_tags": _tags(call),
        "end_user": call.end_user,
        "api_base": _base(call.model),
        "model_group": call.model.alias,
        "requester_ip_address": call.ip,
        "messages": _messages(call),
        "response": _response(call) if done else {},
        "error_str": None if done else "The provider answered with an error.",
        "error_information": None,
    }
    if not done:
        code, kind, _ = _FAILURES.get(call.status, ("400", "BadRequestError", ""))
        body["error_information"] = {"error_code": code, "error_class": kind, "llm_provider": provider}
    name = "calls" if call.app.one_file_per_call else call.app.name
    return Record(("litellm", name, call.call_id), call.start, _encode(body), "litellm", call.call_id)


def _guardrail_status(call: Call) -> str:
    guard = call.guard
    if guard is None or guard.by != "litellm":
        return "not_run"
    return "guardrail_flagged" if guard.action == "flagged" else "guardrail_intervened"


def _guardrail_information(call: Call) -> list[dict[str, Any]] | None:
    guard = call.guard
    if guard is None or guard.by != "litellm":
        return None
    return [
        {
            "guardrail_name": guard.name,
            "guardrail_provider": "lakera_v2",
            "guardrail_mode": "pre_call",
            "guardrail_status": _guardrail_status(call),
            "guardrail_action": guard.action,
            "violation_categories": [guard.category],
            "guardrail_request": None,
            "guardrail_response": None,
            "start_time": round(call.start, 6),
            "end_time": round(call.start + 0.12, 6),
            "duration": 0.12,
            "masked_entity_count": None,
        }
    ]


def _fail(body: dict[str, Any], call: Call) -> None:
    guard = call.guard
    code, kind, message = _FAILURES.get(call.status, ("400", "BadRequestError", "Request refused."))
    if guard is not None and call.status == "blocked":
        if guard.by == "azure":
            kind = "ContentPolicyViolationError"
            message = (
                "litellm.ContentPolicyViolationError: The response was filtered due to the prompt triggering Azure "
                "OpenAI's content management policy. innererror.code ResponsibleAIPolicyViolation"
            )
        else:
            kind, message = "HTTPException", f"Violated guardrail policy: {guard.name}"
    body["error_str"] = message
    body["error_information"] = {
        "error_code": code,
        "error_class": kind,
        "llm_provider": _PROVIDER[call.model.provider],
        "traceback": "",
        "error_message": message,
    }


@lru_cache(maxsize=4096)
def _key(user_id: str, app: str) -> str:
    return digest(f"virtual-key/{app}/{user_id}", 64)


def _metadata(call: Call) -> dict[str, Any]:
    actor, app = call.actor, call.app
    person = actor if isinstance(actor, Person) else None
    requester: dict[str, str] = {"department": app.department, "app": app.name}
    if call.purpose:
        requester["purpose"] = call.purpose
    if call.ticket:
        requester["ticket"] = call.ticket
    return {
        "user_api_key_hash": _key(actor.user_id, app.name),
        "user_api_key_alias": app.name,
        "user_api_key_spend": 0.0,
        "user_api_key_max_budget": None,
        "user_api_key_budget_reset_at": None,
        "user_api_key_team_id": constant_uuid(f"team/{app.department}"),
        "user_api_key_org_id": "example-bank",
        "user_api_key_project_id": None,
        "user_api_key_user_id": person.user_id if person else None,
        "user_api_key_team_alias": TEAMS[app.department],
        "user_api_key_user_email": person.email if person else None,
        "user_api_key_end_user_id": call.end_user or None,
        "user_api_key_request_route": "/v1/chat/completions",
        "user_api_key_auth_metadata": {"department": app.department, **_account(call)},
        "spend_logs_metadata": None,
        "requester_ip_address": call.ip,
        "requester_metadata": requester,
        "requester_custom_headers": {"x-tenant": AZURE_TENANT[:8]},
        "prompt_management_metadata": None,
        "applied_guardrails": [call.guard.name] if call.guard and call.guard.by == "litellm" else [],
        "mcp_tool_call_metadata": None,
        "vector_store_request_metadata": None,
        "usage_object": None,
        "cold_storage_object_key": None,
    }


def _account(call: Call) -> dict[str, str]:
    """Keys of services are marked as such; the bot's key is shared by its customers."""
    return {} if isinstance(call.actor, Person) or call.end_user else {"service_account_id": call.actor.user_id}


def _tags(call: Call) -> list[str]:
    return [f"app:{call.app.name}", f"department:{call.app.department}"]


def _messages(call: Call) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [{"role": "system", "content": call.app.system}]
    for asked, answered in call.history:
        messages.append({"role": "user", "content": asked})
        messages.append({"role": "assistant", "content": answered})
    messages.append({"role": "user", "content": call.prompt})
    return messages


def _usage(call: Call) -> dict[str, Any]:
    return {
        "prompt_tokens": call.prompt_tokens,
        "completion_tokens": call.completion_tokens,
        "total_tokens": call.prompt_tokens + call.completion_tokens,
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        "prompt_tokens_details": {"cached_tokens": call.cached_tokens, "audio_tokens": 0},
    }


def _response(call: Call) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{call.trace_id[:24]}",
        "created": int(call.start),
        "model": _answered(call.model),
        "object": "chat.completion",
        "system_fingerprint": "fp_b54fe76834",
        "choices": [
            {
                "finish_reason": "stop",
                "index": 0,
                "message": {"content": call.answer, "role": "assistant", "tool_calls": None, "function_call": None},
            }
        ],
        "usage": _usage(call),
        "service_tier": "default",
    }


@lru_cache(maxsize=64)
def _answered(model: Model) -> str:
    return f"{model.model_id}-{model.version}" if model.provider == "azure" else model.model_id


@lru_cache(maxsize=64)
def _base(model: Model) -> str:
    if model.provider == "azure":
        return "https://oai-example-bot.openai.azure.com/"
    return "https://bedrock-runtime.eu-west-1.amazonaws.com/"


@lru_cache(maxsize=64)
def _deployment(model: Model) -> str:
    return digest(f"deployment/{model.alias}", 64)


_FLAGS = (
    "system_messages", "response_schema", "vision", "function_calling", "tool_choice", "assistant_prefill",
    "prompt_caching", "audio_input", "audio_output", "embedding_image_input", "native_streaming", "pdf_input",
    "web_search", "url_context", "reasoning", "computer_use", "parallel_function_calling",
)  # fmt: skip
_COSTS = (
    "cache_creation_input_token_cost", "cache_read_input_token_cost", "input_cost_per_character",
    "input_cost_per_token_above_128k_tokens", "input_cost_per_token_above_200k_tokens", "input_cost_per_query",
    "input_cost_per_second", "input_cost_per_audio_token", "input_cost_per_token_batches",
    "output_cost_per_token_batches", "output_cost_per_audio_token", "output_cost_per_character",
    "output_cost_per_reasoning_token", "output_cost_per_token_above_128k_tokens",
    "output_cost_per_character_above_128k_tokens", "output_cost_per_token_above_200k_tokens",
    "output_cost_per_second", "output_cost_per_image", "output_vector_size", "citation_cost_per_token", "tpm", "rpm",
    "regional_processing_uplift_multiplier_eu", "tiered_pricing", "input_cost_per_token_flex",
    "input_cost_per_token_priority", "output_cost_per_token_flex", "output_cost_per_token_priority",
    "cache_read_input_token_cost_flex", "cache_read_input_token_cost_priority", "search_context_cost_per_query",
)  # fmt: skip
_PARAMS = (
    "frequency_penalty", "logit_bias", "logprobs", "top_logprobs", "max_tokens", "max_completion_tokens", "modalities",
    "prediction", "n", "presence_penalty", "seed", "stop", "stream", "stream_options", "temperature", "top_p", "tools",
    "tool_choice", "function_call", "functions", "max_retries", "extra_headers", "parallel_tool_calls", "audio",
    "web_search_options", "service_tier", "safety_identifier", "prompt_cache_key", "store", "response_format", "user",
    "reasoning_effort", "verbosity", "thinking", "context_management", "include_server_side_tool_invocations",
)  # fmt: skip


@lru_cache(maxsize=64)
def _map_information(model: Model) -> Raw:
    """The entry of the price table: prices, limits, supported parameters; the same for every call of a model."""
    provider = _PROVIDER[model.provider]
    value: dict[str, Any] = {
        "key": f"{provider}/{model.model_id}",
        "max_tokens": 16384,
        "max_input_tokens": 128000 if model.provider == "azure" else 200000,
        "max_output_tokens": 16384,
        "input_cost_per_token": model.price_in / 1e6,
        "output_cost_per_token": model.price_out / 1e6,
        "litellm_provider": provider,
        "mode": "chat",
    }
    value.update(dict.fromkeys(_COSTS))
    value.update({f"supports_{flag}": index % 3 != 1 for index, flag in enumerate(_FLAGS)})
    value["supported_openai_params"] = list(_PARAMS)
    value["supported_endpoints"] = ["/v1/chat/completions", "/v1/batch", "/v1/responses", "/v1/completions"]
    value["supported_modalities"] = ["text", "image"]
    value["supported_output_modalities"] = ["text"]
    value["supported_regions"] = [f"{area}-{side}-{n}" for area in ("us", "eu", "ap") for side in ("east", "west", "north", "south", "central") for n in (1, 2)]  # fmt: skip  # noqa: E501
    value["metadata"] = {"notes": "Prices of the list of October; the contract's discount is applied on the invoice."}
    return Raw(_encode({"model_map_key": f"{provider}/{model.model_id}", "model_map_value": value}))


def spend(call: Call) -> Record:
    """The row of ``call`` in the proxy's SpendLogs table: objects are JSON in strings, times have no zone."""
    end = call.start + call.latency
    metadata = _metadata(call)
    metadata["status"] = "success" if call.status == "success" else "failure"
    if call.status != "success":
        code, kind, message = _FAILURES.get(call.status, ("400", "BadRequestError", ""))
        metadata["error_information"] = {"error_code": code, "error_class": kind, "error_message": message}
    body = {
        "request_id": call.call_id,
        "call_type": "aembedding",
        "api_key": _key(call.actor.user_id, call.app.name),
        "spend": cost(call) if call.status == "success" else 0.0,
        "total_tokens": call.prompt_tokens,
        "prompt_tokens": call.prompt_tokens,
        "completion_tokens": 0,
        "startTime": plain_micros(call.start),
        "endTime": plain_micros(end),
        "completionStartTime": plain_micros(end),
        "request_duration_ms": round(call.latency * 1000),
        "model": f"azure/{call.model.model_id}",
        "model_id": _deployment(call.model),
        "model_group": call.model.alias,
        "custom_llm_provider": "azure",
        "api_base": _base(call.model),
        "user": call.actor.user_id,
        "metadata": _encode(metadata).decode(),
        "cache_hit": "None",
        "cache_key": "Cache OFF",
        "request_tags": _encode(_tags(call)).decode(),
        "team_id": constant_uuid(f"team/{call.app.department}"),
        "organization_id": "example-bank",
        "end_user": "",
        "requester_ip_address": call.ip,
        "messages": "{}",
        "response": "{}",
        "proxy_server_request": "{}",
        "session_id": call.session,
        "status": "success" if call.status == "success" else "failure",
    }
    return Record(("litellm_spend",), call.start, _encode(body), "litellm_spend", call.call_id)
