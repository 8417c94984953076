"""The four GenAI dialects of OpenTelemetry as tables: which attribute carries which fact.

* ``legacy``: semantic conventions up to 1.36 (``gen_ai.system``; content in separate log records).
* ``current``: from 1.37, repository semantic-conventions-genai (``gen_ai.provider.name``; content in attributes or in
  the event ``gen_ai.client.inference.operation.details``).
* ``openinference``: Arize OpenInference, also what Envoy AI Gateway emits by default (``openinference.span.kind``).
* ``openllmetry``: Traceloop OpenLLMetry (``llm.request.type``, ``traceloop.*``, ``gen_ai.prompt.N``).

A span's own dialect is asked first and the others after it, because instrumentations mix them while they migrate.
"""

from typing import Any

from aitrail.event import ActionKind, OutcomeStatus

Table = dict[str, tuple[str, ...]]

# canonical fact -> attribute names, best first
_DIALECTS: dict[str, Table] = {
    "legacy": {
        "provider": ("gen_ai.system",),
        "operation": ("gen_ai.operation.name",),
        "model": ("gen_ai.request.model",),
        "response_model": ("gen_ai.response.model",),
        "prompt_tokens": ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
        "completion_tokens": ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
        "finish": ("gen_ai.response.finish_reasons",),
        "response_id": ("gen_ai.response.id",),
        "error": ("error.type",),
        "input": ("gen_ai.prompt",),
        "output": ("gen_ai.completion",),
    },
    "current": {
        "provider": ("gen_ai.provider.name",),
        "cache_read": ("gen_ai.usage.cache_read.input_tokens",),
        "cache_write": ("gen_ai.usage.cache_creation.input_tokens",),
        "session": ("gen_ai.conversation.id",),
        "agent": ("gen_ai.agent.name", "gen_ai.agent.id"),
        "tool": ("gen_ai.tool.name",),
        "data_source": ("gen_ai.data_source.id",),
        "first_token_s": ("gen_ai.response.time_to_first_chunk", "gen_ai.server.time_to_first_token"),
        "system": ("gen_ai.system_instructions",),
        "input": ("gen_ai.input.messages",),
        "output": ("gen_ai.output.messages",),
        "arguments": ("gen_ai.tool.call.arguments",),
        "result": ("gen_ai.tool.call.result",),
        "query": ("gen_ai.retrieval.query.text",),
        "cost": ("gen_ai.usage.cost",),
    },
    "openinference": {
        "provider": ("llm.provider", "llm.system"),
        "operation": ("openinference.span.kind",),
        "model": ("llm.model_name", "llm.request.model_name", "embedding.model_name", "reranker.model_name"),
        "response_model": ("llm.response.model_name",),
        "prompt_tokens": ("llm.token_count.prompt",),
        "completion_tokens": ("llm.token_count.completion",),
        "total_tokens": ("llm.token_count.total",),
        "cache_read": ("llm.token_count.prompt_details.cache_read",),
        "cache_write": ("llm.token_count.prompt_details.cache_write",),
        "finish": ("llm.finish_reason",),
        "session": ("session.id",),
        "agent": ("agent.name",),
        "tool": ("tool.name",),
        "input_value": ("input.value",),
        "output_value": ("output.value",),
        "cost": ("llm.cost.total",),
    },
    "openllmetry": {
        "provider": ("gen_ai.system",),
        "operation": ("llm.request.type", "traceloop.span.kind"),
        "total_tokens": ("llm.usage.total_tokens", "gen_ai.usage.total_tokens"),
        "cache_read": ("gen_ai.usage.cache_read_input_tokens",),
        "cache_write": ("gen_ai.usage.cache_creation_input_tokens",),
        "finish": ("gen_ai.response.finish_reason", "llm.response.finish_reason", "gen_ai.response.stop_reason"),
        "session": ("traceloop.association.properties.session_id",),
        "tool": ("traceloop.entity.name",),
        "input_value": ("traceloop.entity.input",),
        "output_value": ("traceloop.entity.output",),
    },
}
# Where the names of one fact differ by dialect and the dialects overlap, the own ones come first.
_ORDER = {
    "legacy": ("legacy", "current", "openllmetry", "openinference"),
    "current": ("current", "legacy", "openllmetry", "openinference"),
    "openinference": ("openinference", "current", "legacy", "openllmetry"),
    "openllmetry": ("openllmetry", "current", "legacy", "openinference"),
}
TABLES: dict[str, Table] = {
    name: {
        fact: tuple(dict.fromkeys(key for other in order for key in _DIALECTS[other].get(fact, ())))
        for fact in {fact for table in _DIALECTS.values() for fact in table}
    }
    for name, order in _ORDER.items()
}

# Indexed content: (messages sent, messages that came back), in the spelling of each dialect.
INDEXED: tuple[tuple[str, str], ...] = (
    ("llm.input_messages.", "llm.output_messages."),
    ("gen_ai.prompt.", "gen_ai.completion."),
    ("llm.prompts.", "llm.choices."),
)
DETAILS_EVENT = "gen_ai.client.inference.operation.details"
# Events of the legacy dialect: name -> role of the message in the body ("" is the answer).
MESSAGE_EVENTS: dict[str, str] = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
    "gen_ai.choice": "",
}
PROPERTIES = "traceloop.association.properties."
_AI_PREFIXES = ("gen_ai.", "llm.", "openinference.", "traceloop.")

# Names of operations, to one vocabulary: that of the current conventions.
OPERATIONS: dict[str, str] = {
    "llm": "chat",
    "completion": "text_completion",
    "embedding": "embeddings",
    "agent": "invoke_agent",
    "tool": "execute_tool",
    "retriever": "retrieval",
    "reranker": "rerank",
}
# Wrappers around calls that have spans of their own: no access to a model by themselves.
WRAPPERS = frozenset({"chain", "workflow", "task", "evaluator", "unknown"})
KINDS: dict[str, ActionKind] = {"create_agent": "admin", "retrieval": "data"}
# Operations whose content may come in separate log records.
JOINED = frozenset({"chat", "text_completion", "generate_content"})

CLOUDS: tuple[tuple[str, str], ...] = (
    ("aws", "aws"), ("az.", "azure"), ("azure", "azure"), ("gcp", "gcp"), ("vertex", "gcp"), ("gemini", "gcp"),
)  # fmt: skip

# error.type (last part, lower-case), exception.type or HTTP status -> outcome; everything else is an error.
ERRORS: dict[str, OutcomeStatus] = {
    **dict.fromkeys(
        ("401", "403", "authenticationerror", "permissiondeniederror", "accessdeniedexception",
         "unauthorizedexception", "unauthenticated", "permission_denied", "permissiondenied", "forbidden"), "denied"),
    **dict.fromkeys(
        ("429", "ratelimiterror", "throttlingexception", "toomanyrequestsexception", "resourceexhausted",
         "resource_exhausted", "rate_limit_exceeded", "insufficient_quota"), "throttled"),
    **dict.fromkeys(
        ("446", "content_filter", "contentfilter", "contentpolicyviolationerror", "guardrail_intervened",
         "content_policy_violation", "responsibleaipolicyviolation"), "blocked"),
}  # fmt: skip
FILTERED = frozenset({"content_filter", "guardrail_intervened", "safety", "blocked"})


def dialect_of(attributes: dict[str, Any]) -> str:
    """Name of the dialect that ``attributes`` speak; empty when they say nothing about an AI system."""
    if "openinference.span.kind" in attributes:
        return "openinference"
    if "gen_ai.provider.name" in attributes or "gen_ai.input.messages" in attributes:
        return "current"
    ours = [key for key in attributes if key.startswith(_AI_PREFIXES)]
    if not ours:
        return ""
    if any(key.startswith(("traceloop.", "llm.request.type", "gen_ai.prompt.", "gen_ai.completion.")) for key in ours):
        return "openllmetry"
    if "gen_ai.system" in attributes:
        return "legacy"
    return "openinference" if all(key.startswith("llm.") for key in ours) else "current"


def first(attributes: dict[str, Any], names: tuple[str, ...]) -> Any:
    """The first value under one of ``names`` that is not empty."""
    for name in names:
        if name in attributes:
            value = attributes[name]
            if value is not None and value not in ("", []):
                return value
    return None
