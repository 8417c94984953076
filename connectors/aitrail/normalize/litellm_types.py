"""LiteLLM's records as typed structs: only what becomes part of an event is materialised.

Source of the names: ``litellm/types/utils.py`` (StandardLoggingPayload, StandardAuditLogPayload) and
``litellm/proxy/_types.py`` (SpendLogsPayload) of 1.106 and 1.109. ``model_map_information``, more than half of each
record, is not declared and therefore skipped by the decoder without building an object.
"""

from typing import Any, Generic, TypeVar

import msgspec

M = TypeVar("M")
R = TypeVar("R")

Number = int | float | None


class Function(msgspec.Struct, gc=False):
    """Name and arguments of a tool call."""

    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class ToolCall(msgspec.Struct, gc=False):
    """One tool call of a chat completion."""

    function: Function | None = None


class Part(msgspec.Struct, gc=False):
    """One part of a message: text, or an Anthropic tool call or result; images are skipped."""

    type: str | None = None
    text: str | None = None
    content: Any = None
    name: str | None = None
    input: Any = None


class ChatMessage(msgspec.Struct, gc=False):
    """One message of the request or of a choice."""

    role: str | None = None
    content: str | list[Part] | None = None
    tool_calls: list[ToolCall] | None = None


class Choice(msgspec.Struct, gc=False):
    """One choice of a chat (``message``) or text (``text``) completion."""

    message: ChatMessage | None = None
    text: str | None = None
    finish_reason: str | None = None


class TokenDetails(msgspec.Struct, gc=False):
    """Details of the prompt's tokens."""

    cached_tokens: Number = None


class Usage(msgspec.Struct, gc=False):
    """Tokens as LiteLLM counts them (``prompt_tokens`` includes cached ones)."""

    prompt_tokens_details: TokenDetails | None = None
    cache_read_input_tokens: Number = None
    cache_creation_input_tokens: Number = None


class ChatResponse(msgspec.Struct, gc=False):
    """The response of a chat completion; other shapes go to ``openai_chat``."""

    model: str | None = None
    usage: Usage | None = None
    choices: list[Choice] | None = None
    output: Any = None  # Responses API
    content: Any = None  # Anthropic messages
    response: Any = None  # pass-through endpoints
    text: Any = None  # transcription, and redacted responses
    stop_reason: str | None = None


class McpCall(msgspec.Struct, gc=False):
    """A call of an MCP tool through the gateway."""

    name: str | None = None
    namespaced_tool_name: str | None = None
    mcp_server_name: str | None = None


class ErrorInformation(msgspec.Struct, gc=False):
    """What went wrong. Its message may quote the prompt: it is only compared with the proxy's own fixed words."""

    error_message: Any = None
    error_code: str | int | None = None
    error_class: str | None = None
    llm_provider: str | None = None
    error_rate_limit_type: str | None = None
    error_provider_request_id: str | None = None


class Guardrail(msgspec.Struct, gc=False):
    """One guardrail's run. Its request and response may quote the prompt: only names of patterns are read there."""

    guardrail_response: Any = None
    guardrail_name: str | None = None
    guardrail_provider: str | None = None
    guardrail_status: str | None = None
    guardrail_action: str | None = None
    violation_categories: list[str] | None = None
    masked_entity_count: dict[str, Number] | None = None


class Metadata(msgspec.Struct, gc=False):
    """Key, team and request metadata. SpendLogs keep status, errors and guardrails here as well."""

    user_api_key_hash: str | None = None
    user_api_key: str | None = None
    user_api_key_alias: str | None = None
    user_api_key_user_id: str | None = None
    user_api_key_user_email: str | None = None
    user_api_key_team_id: str | None = None
    user_api_key_team_alias: str | None = None
    user_api_key_org_id: str | None = None
    user_api_key_org_alias: str | None = None
    user_api_key_project_id: str | None = None
    user_api_key_project_alias: str | None = None
    user_api_key_end_user_id: str | None = None
    user_api_key_request_route: str | None = None
    user_api_key_auth_metadata: dict[str, Any] | None = None
    requester_metadata: dict[str, Any] | None = None
    spend_logs_metadata: dict[str, Any] | None = None
    requester_custom_headers: dict[str, str] | None = None
    requester_ip_address: str | None = None
    user_agent: str | None = None
    usage_object: Usage | None = None
    mcp_tool_call_metadata: McpCall | None = None
    status: str | None = None
    error_information: ErrorInformation | None = None
    guardrail_information: list[Guardrail] | Guardrail | None = None
    litellm_call_id: str | None = None


class ProviderHeaders(msgspec.Struct, gc=False):
    """Response headers of the provider that hold its request id: the key into the provider's own logs."""

    apim: str | None = msgspec.field(default=None, name="llm_provider-apim-request-id")
    amzn: str | None = msgspec.field(default=None, name="llm_provider-x-amzn-requestid")
    plain: str | None = msgspec.field(default=None, name="llm_provider-x-request-id")
    anthropic: str | None = msgspec.field(default=None, name="llm_provider-request-id")


class HiddenParams(msgspec.Struct, gc=False):
    """What LiteLLM knows about the deployment that answered."""

    litellm_model_name: str | None = None
    additional_headers: ProviderHeaders | None = None


class StatusFields(msgspec.Struct, gc=False):
    """The gateway's own summary of the call."""

    llm_api_status: str | None = None
    guardrail_status: str | None = None


class Payload(msgspec.Struct, Generic[M, R], gc=False):
    """StandardLoggingPayload. ``M`` and ``R`` are the shapes of messages and response: typed first, then anything."""

    id: str | None = None
    litellm_call_id: str | None = None
    trace_id: str | None = None
    session_id: str | None = None
    call_type: str | None = None
    stream: bool | None = None
    cache_hit: bool | None = None
    status: str | None = None
    status_fields: StatusFields | None = None
    custom_llm_provider: str | None = None
    total_tokens: Number = None
    prompt_tokens: Number = None
    completion_tokens: Number = None
    response_cost: Number | str = None
    startTime: int | float | str | None = None
    endTime: int | float | str | None = None
    completionStartTime: int | float | str | None = None
    response_time: Number = None
    model: str | None = None
    model_group: str | None = None
    model_id: str | None = None
    api_base: str | None = None
    metadata: Metadata | None = None
    request_tags: list[Any] | None = None
    end_user: str | None = None
    requester_ip_address: str | None = None
    user_agent: str | None = None
    messages: M | None = None
    response: R | None = None
    error_information: ErrorInformation | None = None
    hidden_params: HiddenParams | None = None
    guardrail_information: list[Guardrail] | Guardrail | None = None
    table_name: str | None = None  # only the admin audit record has it


class Audit(msgspec.Struct, gc=False):
    """StandardAuditLogPayload: a changed key, team, model or setting; its values may hold secrets and are not read."""

    table_name: str
    action: str
    id: str | None = None
    updated_at: str | int | float | None = None
    changed_by: str | None = None
    changed_by_api_key: str | None = None
    object_id: str | None = None


class Spend(msgspec.Struct, gc=False):
    """SpendLogsPayload: one row of the proxy's database; metadata, tags and bodies are JSON inside strings."""

    request_id: str | None = None
    litellm_call_id: str | None = None
    call_type: str | None = None
    api_key: str | None = None
    spend: Number | str = None
    total_tokens: Number = None
    prompt_tokens: Number = None
    completion_tokens: Number = None
    startTime: str | int | float | None = None
    endTime: str | int | float | None = None
    completionStartTime: str | int | float | None = None
    request_duration_ms: Number = None
    model: str | None = None
    model_id: str | None = None
    model_group: str | None = None
    mcp_namespaced_tool_name: str | None = None
    agent_id: str | None = None
    api_base: str | None = None
    user: str | None = None
    metadata: str | dict[str, Any] | None = None
    cache_hit: str | bool | None = None
    request_tags: str | list[Any] | None = None
    team_id: str | None = None
    organization_id: str | None = None
    end_user: str | None = None
    requester_ip_address: str | None = None
    custom_llm_provider: str | None = None
    messages: Any = None
    response: Any = None
    proxy_server_request: Any = None
    session_id: str | None = None
    status: str | None = None
