"""Read OpenAI-style request and response bodies, as gateways log them: chat, completions, responses, embeddings.

Pure and total: any decoded JSON (or JSON text, or the text of a server-sent event stream) gives a result, nothing is
raised. The close relatives that gateways put in the same place (Anthropic messages, Responses API items) are read too.

Facts: OpenAI API reference (chat.completions, completions, embeddings, responses), Azure OpenAI "Content filtering"
(``content_filter_results``, ``prompt_filter_results``, ``innererror.code`` ``ResponsibleAIPolicyViolation``).
"""

from typing import Any

import msgspec

from aitrail.normalize.outcome import Content, Message, Role

# What is neither system, assistant nor tool is judged like user text: an unknown role must not escape judgement.
ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "tool": "tool",
    "function": "tool",
}
# Item and block types that stand for what a tool gave back, and for what the model asked a tool to do.
_TOOL_RESULTS = frozenset({"tool_result", "function_call_output", "computer_call_output", "mcp_call_output"})
_TOOL_CALLS = frozenset({"tool_use", "function_call", "tool_call", "server_tool_use", "mcp_call", "custom_tool_call"})
_TEXT_KEYS = ("text", "content", "refusal", "transcript", "input_text", "output_text")
_MAX_DEPTH = 8
_RAI_VIOLATION = "responsibleaipolicyviolation"
_FILTER_KEYS = ("content_filter_results", "content_filter_result", "content_filter_offsets_results")

_decoder = msgspec.json.Decoder()


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens of a call; None where the body does not say. ``prompt`` includes cached tokens."""

    prompt: int | None = None
    completion: int | None = None
    total: int | None = None
    cached: int | None = None


class Guardrail(msgspec.Struct, frozen=True, gc=False):
    """Verdict of the content filter: ``action`` as in ``AccessEvent.guardrail_action``, categories lower-case."""

    action: str = ""
    categories: tuple[str, ...] = ()


class Answer(msgspec.Struct, gc=False):
    """What a response body says.

    Attributes:
        text: all choices, joined by a newline.
        tool_calls: arguments of the tool calls that the model made, as text.
        tools: names of the tools, in order.
        error_code: code or type of ``error``, lower-case; the inner code when there is one.
        known: whether the body had any known shape at all.
    """

    text: str = ""
    tool_calls: list[str] = []
    tools: list[str] = []
    model: str = ""
    response_id: str = ""
    finish_reason: str = ""
    usage: Usage = Usage()
    guardrail: Guardrail = Guardrail()
    error_code: str = ""
    known: bool = False


def loads(value: Any) -> Any:
    """Decode JSON text or bytes; give other values back as they are, None for what is not JSON."""
    if isinstance(value, (bytes, str)):
        try:
            return _decoder.decode(value)
        except (msgspec.DecodeError, RecursionError, ValueError):
            return None
    return value


def integer(value: Any) -> int | None:
    """A count from a JSON value: an int, a whole float, or digits; None for everything else and for negatives."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        value = int(value) if len(value) < 19 and value.isascii() and value.isdigit() else None
    elif isinstance(value, float):
        value = int(value) if abs(value) < 2**63 else None
    return value if isinstance(value, int) and 0 <= value < 2**63 else None


# --- texts


def text_of(value: Any, depth: int = 0) -> str:
    """All text of a content value (string, list of parts, part); pictures and sound without transcript give none."""
    if isinstance(value, str):
        return value
    if depth > _MAX_DEPTH:
        return ""
    if isinstance(value, list):
        return "\n".join(part for part in (text_of(item, depth + 1) for item in value) if part)
    if isinstance(value, dict):
        for key in _TEXT_KEYS:
            found = value.get(key)
            if found:
                return text_of(found, depth + 1)
        if isinstance(value.get("input_audio"), dict):
            return text_of(value["input_audio"].get("transcript"), depth + 1)
    return ""


def _arguments(call: dict[str, Any]) -> tuple[str, str]:
    """Name and arguments (as text) of one tool call, in any of the shapes."""
    function = call.get("function")
    inner = function if isinstance(function, dict) else call
    name = inner.get("name")
    arguments = inner.get("arguments", inner.get("input", inner.get("partial_json", "")))
    return name if isinstance(name, str) else "", arguments if isinstance(arguments, str) else dumps(arguments)


def dumps(value: Any) -> str:
    """JSON text of a decoded value; empty for None."""
    if value is None:
        return ""
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError):
        return ""


def _calls(message: dict[str, Any]) -> list[tuple[str, str]]:
    """Tool calls of one message: ``tool_calls``, the older ``function_call``, and content blocks."""
    found = [_arguments(call) for call in _list(message.get("tool_calls")) if isinstance(call, dict)]
    older = message.get("function_call")
    if isinstance(older, dict):
        found.append(_arguments(older))
    found += [_arguments(block) for block in _list(message.get("content")) if _is(block, _TOOL_CALLS)]
    return found


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _is(item: Any, kinds: frozenset[str]) -> bool:
    """Whether ``item`` is an object whose ``type`` is one of ``kinds``; ``type`` may be anything, even unhashable."""
    kind = item.get("type") if isinstance(item, dict) else None
    return isinstance(kind, str) and kind in kinds


def _add(out: list[Message], role: Role, text: str) -> None:
    if text:
        out.append(Message(role, text))


def _message(item: dict[str, Any], out: list[Message]) -> None:
    """Add the messages that one item of ``messages`` or ``input`` stands for."""
    if _is(item, _TOOL_RESULTS):
        _add(out, "tool", text_of(item.get("output", item.get("content"))))
        return
    if _is(item, _TOOL_CALLS):
        _add(out, "assistant", _arguments(item)[1])
        return
    named = item.get("role")
    role = ROLES.get(named.lower(), "user") if isinstance(named, str) else "user"
    content = item.get("content", item.get("parts"))
    if isinstance(content, list):
        plain = []
        for block in content:
            if _is(block, _TOOL_RESULTS):
                # Anthropic: what a tool gave back comes inside a user message
                _add(out, "tool", text_of(block.get("content", block.get("output"))))
            elif not _is(block, _TOOL_CALLS):
                plain.append(block)
        _add(out, role, text_of(plain))
    else:
        _add(out, role, text_of(content) if content is not None else text_of(item))
    for _, arguments in _calls(item):
        _add(out, "assistant", arguments)


def messages_of(value: Any) -> list[Message]:
    """Messages of a ``messages`` / ``input`` / ``prompt`` value: a string, a message, or a list of either.

    Lists of token numbers (embeddings, completions) hold no text and give none.
    """
    out: list[Message] = []
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, str):
            _add(out, "user", item)
        elif isinstance(item, dict):
            _message(item, out)
    return out


def request_messages(body: Any) -> list[Message]:
    """All texts that a request body sends, roles kept apart; ``body`` is decoded JSON, JSON text, or messages."""
    if isinstance(body, (str, bytes)):
        body = loads(body)
    if isinstance(body, list):
        return messages_of(body)
    if not isinstance(body, dict):
        return []
    out: list[Message] = []
    _add(out, "system", text_of(body.get("system")))  # Anthropic
    _add(out, "system", text_of(body.get("instructions")))  # Responses API
    for key in ("messages", "input", "prompt", "contents", "query"):
        if body.get(key) is not None:
            out += messages_of(body[key])
    if not out and "role" in body:
        _message(body, out)
    return out


# --- usage and verdicts


def read_usage(usage: Any) -> Usage:
    """Tokens of a ``usage`` object: the chat names, the Responses names and Anthropic's (whose cache is apart)."""
    if not isinstance(usage, dict):
        return Usage()
    details = usage.get("prompt_tokens_details", usage.get("input_tokens_details"))
    cached = integer(details.get("cached_tokens")) if isinstance(details, dict) else None
    prompt = integer(usage.get("prompt_tokens", usage.get("input_tokens")))
    completion = integer(usage.get("completion_tokens", usage.get("output_tokens")))
    read, write = (integer(usage.get(f"cache_{way}_input_tokens")) for way in ("read", "creation"))
    if (read is not None or write is not None) and "prompt_tokens" not in usage:
        cached = (read or 0) + (write or 0)
        prompt = (prompt or 0) + cached
    total = integer(usage.get("total_tokens"))
    if total is None and (prompt is not None or completion is not None):
        total = (prompt or 0) + (completion or 0)
    return Usage(prompt, completion, total, cached)


_STRENGTH = {"": 0, "allowed": 1, "failed": 2, "flagged": 3, "masked": 4, "blocked": 5}


def merge_guardrail(first: Guardrail, second: Guardrail) -> Guardrail:
    """The stronger action and all categories, in order and once each."""
    action = max(first.action, second.action, key=lambda action: _STRENGTH.get(action, 0))
    return Guardrail(action, tuple(dict.fromkeys(first.categories + second.categories)))


def _verdict(detail: Any) -> str:
    """Action that one category's result stands for; empty when it saw nothing."""
    if isinstance(detail, list):  # custom_blocklists, older form
        found = {_verdict(item) for item in detail}
        return max(found, key=lambda action: _STRENGTH.get(action, 0), default="")
    if not isinstance(detail, dict):
        return ""
    if detail.get("filtered") is True:
        return "blocked"
    if detail.get("detected") is True or detail.get("severity") in ("medium", "high"):
        return "flagged"
    return ""


def read_filter(results: Any) -> Guardrail:
    """Verdict of one ``content_filter_results`` object: categories that were filtered, detected or severe."""
    if not isinstance(results, dict) or not results:
        return Guardrail()
    verdict = Guardrail("allowed")
    for name, detail in results.items():
        if name == "error":
            verdict = merge_guardrail(verdict, Guardrail("failed"))
            continue
        action = _verdict(detail)
        if action:
            verdict = merge_guardrail(verdict, Guardrail(action, (name.lower()[:64],)))
    return verdict


def _filters_in(holder: Any) -> Guardrail:
    verdict = Guardrail()
    if isinstance(holder, dict):
        for key in _FILTER_KEYS:
            if key in holder:
                verdict = merge_guardrail(verdict, read_filter(holder[key]))
    return verdict


def _read_error(error: Any, answer: Answer) -> None:
    """Error code and, when a filter stopped the call, its verdict."""
    if isinstance(error, str):
        error = loads(error) if error.startswith("{") else {"code": error}
    if not isinstance(error, dict):
        return
    inner = error.get("innererror")
    code = error.get("code") or error.get("type") or ""
    answer.error_code = str(code).lower()[:128] if isinstance(code, (str, int)) else ""
    inner_code = inner.get("code") if isinstance(inner, dict) else None
    rai = isinstance(inner_code, str) and inner_code.lower() == _RAI_VIOLATION
    if rai:
        answer.error_code = _RAI_VIOLATION
    if rai or answer.error_code in ("content_filter", "content_policy_violation"):
        answer.guardrail = merge_guardrail(answer.guardrail, Guardrail("blocked"))
    for holder in (error, inner):
        answer.guardrail = merge_guardrail(answer.guardrail, _filters_in(holder))


# --- responses


def _stream(text: str) -> list[Any]:
    """Decoded ``data:`` lines of a server-sent event stream; what is torn at the end is left out."""
    chunks = []
    for line in text.splitlines():
        if line.startswith("data:") and "[DONE]" not in line[:14]:
            chunk = loads(line[5:].strip())
            if isinstance(chunk, dict):
                chunks.append(chunk)
    return chunks


def read_response(body: Any) -> Answer:
    """Read a response body: decoded JSON, JSON text, an SSE stream's text, or a list of chunks or messages."""
    answer = Answer()
    if isinstance(body, bytes):
        body = body.decode("utf-8", "replace")
    if isinstance(body, str):
        decoded = loads(body)
        body = decoded if decoded is not None else _stream(body)
    texts: dict[Any, list[str]] = {}
    for chunk in body if isinstance(body, list) else [body]:
        if isinstance(chunk, dict):
            _read_chunk(chunk, answer, texts)
    answer.text = "\n".join(joined for joined in ("".join(parts) for parts in texts.values()) if joined)
    return answer


def _read_chunk(chunk: dict[str, Any], answer: Answer, texts: dict[Any, list[str]]) -> None:
    """Add what one body or one chunk of a stream says; text pieces of one choice stay together."""
    if isinstance(chunk.get("response"), dict) and "choices" not in chunk:  # Responses stream: response.completed
        chunk = chunk["response"]
        texts.clear()
    answer.known = answer.known or bool({"choices", "output", "content", "error", "data", "role"} & chunk.keys())
    _read_head(chunk, answer)
    for index, choice in enumerate(_list(chunk.get("choices"))):
        if isinstance(choice, dict):
            _read_choice(choice, integer(choice.get("index")) or index, answer, texts)
    for item in _list(chunk.get("output")):  # Responses API
        if isinstance(item, dict):
            _read_item(item, answer, texts)
    kind, delta = chunk.get("type"), chunk.get("delta")
    if isinstance(delta, str) and kind == "response.output_text.delta":
        texts.setdefault(0, []).append(delta)
    elif isinstance(delta, dict) and kind in ("content_block_delta", "message_delta"):  # Anthropic stream
        texts.setdefault(0, []).append(text_of(delta.get("text")))
        piece = delta.get("partial_json")
        if isinstance(piece, str) and answer.tool_calls:
            answer.tool_calls[-1] += piece
        _finish(delta.get("stop_reason"), answer)
    elif _is(chunk.get("content_block"), _TOOL_CALLS):  # Anthropic content_block_start: the arguments follow
        name = chunk["content_block"].get("name")
        answer.tools.append(name if isinstance(name, str) else "")
        answer.tool_calls.append("")
    elif "content" in chunk:  # Anthropic message, or a bare assistant message as APIM logs it
        _read_item(chunk, answer, texts)


def _read_head(chunk: dict[str, Any], answer: Answer) -> None:
    holder = chunk["message"] if isinstance(chunk.get("message"), dict) else chunk  # Anthropic message_start
    for attribute, key in (("model", "model"), ("response_id", "id")):
        value = holder.get(key)
        if isinstance(value, str) and value and not getattr(answer, attribute):
            setattr(answer, attribute, value)
    if isinstance(holder.get("usage"), dict):
        answer.usage = _later(answer.usage, read_usage(holder["usage"]))
    if chunk.get("error") is not None:
        _read_error(chunk["error"], answer)
    _finish(chunk.get("stop_reason"), answer)
    for result in _list(chunk.get("prompt_filter_results")) + _list(chunk.get("prompt_annotations")):
        answer.guardrail = merge_guardrail(answer.guardrail, _filters_in(result))
    for result in _list(chunk.get("content_filters")):  # Responses API on Azure
        answer.guardrail = merge_guardrail(answer.guardrail, _filters_in(result))
        if isinstance(result, dict) and result.get("blocked") is True:
            answer.guardrail = merge_guardrail(answer.guardrail, Guardrail("blocked"))
    if chunk.get("object") == "response" and isinstance(chunk.get("status"), str):
        _finish(chunk["status"], answer)
        reason = chunk.get("incomplete_details")
        _finish(reason.get("reason") if isinstance(reason, dict) else None, answer)


def _later(first: Usage, second: Usage) -> Usage:
    """Usage of a stream: the later chunk corrects the earlier one where it says something."""
    prompt = second.prompt if second.prompt is not None else first.prompt
    completion = second.completion if second.completion is not None else first.completion
    cached = second.cached if second.cached is not None else first.cached
    if second.prompt is not None or first.prompt is None:
        return Usage(prompt, completion, second.total if second.total is not None else first.total, cached)
    return Usage(prompt, completion, (prompt or 0) + (completion or 0), cached)


def _finish(reason: Any, answer: Answer) -> None:
    if isinstance(reason, str) and reason:
        answer.finish_reason = reason.lower()[:64]
        if answer.finish_reason == "content_filter":
            answer.guardrail = merge_guardrail(answer.guardrail, Guardrail("blocked"))


def _read_choice(choice: dict[str, Any], index: int, answer: Answer, texts: dict[Any, list[str]]) -> None:
    message = choice.get("message", choice.get("delta"))
    if isinstance(message, dict):
        _read_item(message, answer, texts, index)
    elif isinstance(choice.get("text"), str):  # completions
        texts.setdefault(index, []).append(choice["text"])
    _finish(choice.get("finish_reason"), answer)
    answer.guardrail = merge_guardrail(answer.guardrail, _filters_in(choice))


def _read_item(item: dict[str, Any], answer: Answer, texts: dict[Any, list[str]], index: Any = None) -> None:
    """One message, delta or output item: its text and its tool calls."""
    if _is(item, _TOOL_CALLS):
        calls = [_arguments(item)]
    else:
        blocks = item.get("content")
        if isinstance(blocks, list):
            blocks = [block for block in blocks if not _is(block, _TOOL_CALLS)]
        text = text_of(blocks) or text_of(item.get("refusal"))
        texts.setdefault(len(texts) if index is None else index, []).append(text)
        calls = _calls(item)
    for name, arguments in calls:
        if name:
            answer.tools.append(name)
        if arguments and not name and answer.tool_calls:
            answer.tool_calls[-1] += arguments  # a further piece of a streamed call
        elif arguments or name:
            answer.tool_calls.append(arguments)


def content_of(request: Any, answer: Answer) -> Content:
    """The texts of one call: ``request`` as in ``request_messages``, the response from ``read_response``."""
    return Content(request_messages(request), answer.text, [call for call in answer.tool_calls if call])
