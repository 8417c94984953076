"""Response bodies of the model vendors on Bedrock, whole or as the list of a stream's chunks: texts, tools, counts.

Shapes: Converse and ConverseStream; Anthropic messages and text completion; OpenAI chat, completions and responses
(also Mistral chat, Jamba, DeepSeek, Qwen, Writer, gpt-oss); Nova; Titan; Llama; Mistral instruct; Cohere Command and
Command R; AI21 J2; Stability; TGI/DJL. Sources: Bedrock user guide, "Inference request parameters and response fields";
Bedrock API reference, "Converse" and "InvokeModelWithResponseStream".
"""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from aitrail.normalize.bedrock_bodies import is_kind, texts_of

_MAX_ITEMS = 100_000  # of one list, blocks or chunks
_CALL_KINDS = frozenset({"tool_use", "function_call", "server_tool_use", "mcp_call"})
_THOUGHT_KINDS = frozenset({"reasoning", "thinking", "redacted_thinking"})
_PIECES = ("text", "generation", "outputText", "completion")


class Answer(msgspec.Struct, gc=False):
    """What came back, put together from one body or from all chunks of a stream."""

    texts: list[str] = []
    tools: list[str] = []
    arguments: list[str] = []
    finish: str = ""
    model: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    latency_ms: float | None = None
    first_token_ms: float | None = None
    filtered: bool = False


def read_response(body: Any) -> Answer:
    """What a response body, or the list of a stream's chunks, says."""
    answer = Answer()
    if isinstance(body, str):
        answer.texts.append(body)
    elif isinstance(body, list):
        _read_stream(body, answer)
    elif isinstance(body, dict):
        _read_body(body, answer)
    return answer


def _read_stream(chunks: list[Any], answer: Answer) -> None:
    """Text deltas are pieces of one text; arguments of tool calls come in pieces too, by content-block index."""
    whole: list[str] = []
    calls: dict[Any, list[str]] = {}
    for chunk in chunks[:_MAX_ITEMS]:
        if isinstance(chunk, dict):
            piece = _plain_piece(chunk)
            if piece is None:
                _read_chunk(chunk, answer, whole, calls)
            else:
                whole.append(piece)
        elif isinstance(chunk, str):
            whole.append(chunk)
    text = "".join(whole)
    if text:
        answer.texts.append(text)
    answer.arguments.extend(text for pieces in calls.values() if (text := "".join(pieces)))


def _plain_piece(chunk: dict[str, Any]) -> str | None:
    """The text of a chunk that holds nothing but a piece of text, as nearly all chunks do; None for any other."""
    event = chunk if chunk.get("type") == "content_block_delta" else chunk.get("contentBlockDelta")
    if event is None:
        choices = chunk.get("choices")
        if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict) or "usage" in chunk:
            return None
        event = choices[0]
        if event.get("finish_reason") is not None or event.get("stop_reason") is not None:
            return None
    delta = event.get("delta") if isinstance(event, dict) else None
    if not isinstance(delta, dict) or "tool_calls" in delta:
        return None
    for key in ("text", "content"):
        piece = delta.get(key)
        if isinstance(piece, str):
            return piece
    return None


def _read_chunk(chunk: dict[str, Any], answer: Answer, whole: list[str], calls: dict[Any, list[str]]) -> None:
    _read_head(chunk, answer)
    index = chunk.get("contentBlockIndex", chunk.get("index", 0))
    for key in ("contentBlockStart", "contentBlockDelta", "messageStop", "metadata"):
        event = chunk.get(key)
        if isinstance(event, dict):  # ConverseStream and Nova name the event by its key
            _read_chunk(event, answer, whole, calls)
    if isinstance(chunk.get("message"), dict) and chunk.get("type") == "message_start":
        _read_head(chunk["message"], answer)
    if isinstance(chunk.get("content_block"), dict):
        _start_call(chunk["content_block"], answer)
    if isinstance(chunk.get("start"), dict) and isinstance(chunk["start"].get("toolUse"), dict):
        _start_call(chunk["start"]["toolUse"], answer)
    delta = chunk.get("delta")
    if isinstance(delta, str):  # OpenAI responses
        arguments = "arguments" in str(chunk.get("type", ""))
        (calls.setdefault(str(chunk.get("item_id", index)), []) if arguments else whole).append(delta)
    elif isinstance(delta, dict):
        _read_head(delta, answer)
        _read_delta(delta, index, whole, calls)
    for choice in _dicts(chunk.get("choices")):
        _finish(choice.get("finish_reason", choice.get("stop_reason")), answer)
        piece = choice.get("delta", choice.get("message"))
        if isinstance(piece, dict):
            _read_delta(piece, choice.get("index", 0), whole, calls)
            for call in _dicts(piece.get("tool_calls")):
                _read_call_piece(call, answer, calls)
        elif isinstance(choice.get("text"), str):
            whole.append(choice["text"])
    for output in _dicts(chunk.get("outputs")):
        _finish(output.get("stop_reason"), answer)
        whole.extend(texts_of(output.get("text")))
    whole.extend(piece for key in _PIECES if isinstance(piece := chunk.get(key), str))


def _read_delta(delta: dict[str, Any], index: Any, whole: list[str], calls: dict[Any, list[str]]) -> None:
    whole.extend(piece for key in ("text", "content") if isinstance(piece := delta.get(key), str))
    inner = delta.get("message")  # Cohere Command R, version 2
    if isinstance(inner, dict) and isinstance(inner.get("content"), dict):
        whole.extend(texts_of(inner["content"].get("text")))
    piece = delta.get("partial_json")
    if piece is None and isinstance(delta.get("toolUse"), dict):
        piece = delta["toolUse"].get("input")
    if isinstance(piece, str):
        calls.setdefault(str(index), []).append(piece)


def _read_call_piece(call: dict[str, Any], answer: Answer, calls: dict[Any, list[str]]) -> None:
    function = call.get("function")
    if isinstance(function, dict):
        if isinstance(function.get("name"), str) and function["name"]:
            answer.tools.append(function["name"])
        if isinstance(function.get("arguments"), str):
            calls.setdefault(f"call{call.get('index', 0)}", []).append(function["arguments"])


def _start_call(block: dict[str, Any], answer: Answer) -> None:
    if isinstance(block.get("name"), str):
        answer.tools.append(block["name"])


def _read_body(body: dict[str, Any], answer: Answer) -> None:
    _read_head(body, answer)
    output = body.get("output")
    if isinstance(output, dict):  # Converse, Nova
        _read_message(output.get("message"), answer)
        _texts_into(output.get("text"), answer)
    for item in _dicts(output):  # OpenAI responses
        _read_block(item, answer)
    if isinstance(output, str):
        answer.texts.append(output)
    _read_message(body.get("message"), answer)
    if isinstance(body.get("content"), list | str):
        _read_message(body, answer)
    for choice in _dicts(body.get("choices")):
        _finish(choice.get("finish_reason", choice.get("stop_reason")), answer)
        if isinstance(choice.get("message"), dict):
            _read_message(choice["message"], answer)
        else:
            _texts_into(choice.get("text"), answer)
    for key in ("results", "outputs", "generations", "completions", "predictions"):
        for item in body[key][:_MAX_ITEMS] if isinstance(body.get(key), list) else ():
            _read_candidate(item, answer)
    for key in (*_PIECES, "generated_text", "output_text"):
        value = body.get(key)
        if isinstance(value, str) and value not in answer.texts:
            answer.texts.append(value)
    for call in _dicts(body.get("tool_calls")):
        _read_call(call, answer)


def _read_candidate(item: Any, answer: Answer) -> None:
    """One of several answers: Titan results, Mistral outputs, Cohere generations, J2 completions, TGI predictions."""
    if isinstance(item, str):
        answer.texts.append(item)
        return
    if not isinstance(item, dict):
        return
    reason = item.get("finishReason")
    _finish(reason.get("reason") if isinstance(reason, dict) else reason, answer)
    _read_head(item, answer)
    for key in ("outputText", "text", "generated_text"):
        _texts_into(item.get(key), answer)
    if isinstance(item.get("data"), dict):
        _texts_into(item["data"].get("text"), answer)


def _read_message(message: Any, answer: Answer) -> None:
    if not isinstance(message, dict):
        return
    content = message.get("content")
    if isinstance(content, str):
        _texts_into(content, answer)
    for block in _dicts(content):
        _read_block(block, answer)
    for call in _dicts(message.get("tool_calls")):
        _read_call(call, answer)
    _texts_into(message.get("refusal"), answer)


def _read_block(block: dict[str, Any], answer: Answer) -> None:
    """One content block: text or a tool call; reasoning is no part of the answer."""
    if isinstance(block.get("toolUse"), dict):
        _read_call(block["toolUse"], answer)
    elif is_kind(block, _CALL_KINDS):
        _read_call(block, answer)
    elif is_kind(block, _THOUGHT_KINDS) or "reasoningContent" in block:
        return
    elif isinstance(block.get("content"), list):
        for inner in _dicts(block["content"]):
            _texts_into(inner.get("text"), answer)
    else:
        _texts_into(block.get("text"), answer)


def _read_call(call: dict[str, Any], answer: Answer) -> None:
    function = call["function"] if isinstance(call.get("function"), dict) else call
    if isinstance(function.get("name"), str):
        answer.tools.append(function["name"])
    for key in ("arguments", "input", "parameters"):
        value = function.get(key)
        if value is not None:
            answer.arguments.append(as_json(value))
            return


def _read_head(body: dict[str, Any], answer: Answer) -> None:
    """Reason, model, tokens and latency; a stream says them in several chunks and the last word counts."""
    for key, value in body.items():
        read = _HEAD.get(key)
        if read is not None and value is not None:
            read(value, answer)


def _model(value: Any, answer: Answer) -> None:
    if isinstance(value, str):
        answer.model = value


def _withheld(reasons: Any, answer: Answer) -> None:
    """Stability's finish_reasons: null, or why the picture was withheld."""
    if isinstance(reasons, list) and any(isinstance(reason, str) and "filter" in reason.lower() for reason in reasons):
        answer.filtered = True
        answer.finish = "content_filtered"


def _usage(usage: Any, answer: Answer) -> None:
    """Token counts. Anthropic and Converse count cached tokens apart; OpenAI's prompt_tokens hold them already."""
    if not isinstance(usage, dict):
        return
    cached = fresh = None
    for key, value in usage.items():
        number = count(value) if key in _USAGE else None
        if number is None:
            continue
        if key in _CACHED:
            cached = (cached or 0) + number
        elif key in _COMPLETION:
            answer.completion_tokens = number
        else:
            answer.prompt_tokens = number
            fresh = number if key != "prompt_tokens" else None
    if cached is not None:
        answer.cached_tokens = cached
        if fresh is not None:
            answer.prompt_tokens = fresh + cached


def _prompt_count(value: Any, answer: Answer) -> None:
    number = count(value)
    answer.prompt_tokens = answer.prompt_tokens if number is None else number


def _completion_count(value: Any, answer: Answer) -> None:
    number = count(value)
    answer.completion_tokens = answer.completion_tokens if number is None else number


def _metrics(metrics: Any, answer: Answer) -> None:
    """Converse ``metrics`` and the ``amazon-bedrock-invocationMetrics`` of a stream's last chunk."""
    if not isinstance(metrics, dict):
        return
    _prompt_count(metrics.get("inputTokenCount"), answer)
    _completion_count(metrics.get("outputTokenCount"), answer)
    for key in ("latencyMs", "invocationLatency"):
        answer.latency_ms = milliseconds(metrics.get(key)) or answer.latency_ms
    answer.first_token_ms = milliseconds(metrics.get("firstByteLatency")) or answer.first_token_ms


def _finish(reason: Any, answer: Answer) -> None:
    if isinstance(reason, str) and reason:
        answer.finish = reason[:64].lower()


_COMPLETION = frozenset({"output_tokens", "outputTokens", "completion_tokens"})
_CACHED = frozenset({"cache_read_input_tokens", "cacheReadInputTokens", "cacheReadInputTokenCount",
                     "cache_creation_input_tokens", "cacheWriteInputTokens", "cacheWriteInputTokenCount"})  # fmt: skip
_USAGE = frozenset({"input_tokens", "inputTokens", "prompt_tokens"}) | _COMPLETION | _CACHED
_HEAD: dict[str, Callable[[Any, Answer], None]] = {
    "stop_reason": _finish,
    "stopReason": _finish,
    "finish_reason": _finish,
    "finishReason": _finish,
    "completionReason": _finish,
    "finish_reasons": _withheld,
    "model": _model,
    "usage": _usage,
    "inputTextTokenCount": _prompt_count,
    "prompt_token_count": _prompt_count,
    "generation_token_count": _completion_count,
    "totalOutputTextTokenCount": _completion_count,
    "tokenCount": _completion_count,
    "metrics": _metrics,
    "amazon-bedrock-invocationMetrics": _metrics,
}


def _texts_into(value: Any, answer: Answer) -> None:
    if isinstance(value, str) and value:
        answer.texts.append(value)


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        for item in value[:_MAX_ITEMS]:
            if isinstance(item, dict):
                yield item


def as_json(value: Any) -> str:
    """A tool call's arguments as text."""
    if isinstance(value, str):
        return value
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError, msgspec.EncodeError):
        return ""


def count(value: Any) -> int | None:
    """A token count: a whole number that is not negative."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1 << 53:
        return None
    return int(value)


def milliseconds(value: Any) -> float | None:
    """A latency in milliseconds; below ten days, or it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 864_000_000:
        return None
    return float(value)
