"""Request bodies of the model vendors on Bedrock (and of SageMaker chat containers), as texts with roles.

Shapes: Converse; Anthropic messages and text completion; OpenAI chat, completions and responses (also Mistral chat,
Jamba, DeepSeek, Qwen, Writer, gpt-oss); Nova; Titan; Llama; Mistral instruct; Cohere Command and Command R; AI21 J2;
Stability, Titan and Nova image requests; embeddings; TGI/DJL ``inputs``. What came back: ``bedrock_answers``.
Sources: Bedrock user guide, "Inference request parameters and response fields"; Bedrock API reference, "Converse".

Of a raw ``prompt`` in a chat template ("Human:", "[INST]", "<|start_header_id|>") only the frame is taken off
(``prompt_template``); its turns are never split by role: whoever writes the prompt also writes the markers, and would
choose the role that is not judged.
"""

from collections.abc import Callable
from typing import Any

from aitrail.normalize.outcome import Message, Role
from aitrail.normalize.prompt_template import unwrap

_MAX_DEPTH = 12  # of nested content blocks; deeper is no conversation
_MAX_ITEMS = 100_000  # of one list, blocks or chunks

_NO_TEXT = frozenset({"bytes", "tooluseid", "tool_use_id", "status", "type", "format", "s3location", "uri"})

_OUTPUT_KINDS = frozenset({"function_call_output", "tool_result", "computer_call_output", "mcp_call"})
_RESULT_KINDS = frozenset({"tool_result", "web_search_tool_result", "search_result"})

ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "chatbot": "assistant",
    "bot": "assistant",
    "tool": "tool",
    "function": "tool",
    "ipython": "tool",
}


def read_request(body: Any) -> list[Message]:
    """The messages of a request body, in order; a shape that nobody documents gives none."""
    out: list[Message] = []
    if isinstance(body, str):
        _add(out, "user", body)
    elif isinstance(body, dict):
        for key, read in _REQUEST_KEYS:
            value = body.get(key)
            if value is not None:
                read(value, out)
        if not out:  # a vendor that nobody has described yet: better all of its texts than none
            _add(out, "user", "\n".join(leaves(body)))
    elif isinstance(body, list):
        _conversation(body, out)
    return out


def _add(out: list[Message], role: Role, text: str) -> None:
    if text:
        out.append(Message(role, text))


def _system(value: Any, out: list[Message]) -> None:
    _add(out, "system", "\n".join(texts_of(value)))


def _user(value: Any, out: list[Message]) -> None:
    _add(out, "user", "\n".join(texts_of(value)))


def _retrieved(value: Any, out: list[Message]) -> None:
    """Documents that a retriever put beside the question: text of others, like a tool's."""
    for item in value if isinstance(value, list) else [value]:
        text = "\n".join(leaves(item))
        _add(out, "tool", text)


def _prompt(value: Any, out: list[Message]) -> None:
    """``prompt`` is a text, or a prompt-management object whose variables are what the user typed."""
    if isinstance(value, dict):
        _add(out, "user", "\n".join(leaves(value)))
    elif isinstance(value, str):
        system, user = unwrap(value)
        _add(out, "system", system)
        _add(out, "user", user)
    else:
        _user(value, out)


def _conversation(value: Any, out: list[Message]) -> None:
    if not isinstance(value, list):
        _user(value, out)
        return
    for item in value[:_MAX_ITEMS]:
        if isinstance(item, str):
            _add(out, "user", item)
        elif isinstance(item, list):  # batches of conversations
            _conversation(item, out) if len(item) < _MAX_ITEMS and not any(isinstance(x, list) for x in item) else None
        elif isinstance(item, dict):
            _turn(item, out)


def _turn(item: dict[str, Any], out: list[Message]) -> None:
    """One message; results of tools inside a user's message are the tool's words, not the user's."""
    if is_kind(item, _OUTPUT_KINDS):
        _add(out, "tool", "\n".join(leaves(item.get("output", item.get("content")))))
        return
    name = item.get("role", item.get("author"))
    role = ROLES.get(name.lower(), "user") if isinstance(name, str) else "user"
    content = next((item[key] for key in ("content", "message", "text", "parts") if item.get(key) is not None), None)
    if isinstance(content, list):
        own: list[str] = []
        for block in content[:_MAX_ITEMS]:
            result = _tool_result(block)
            if result is None:
                own.extend(texts_of(block))
            else:
                _add(out, role, "\n".join(own))
                own = []
                _add(out, "tool", "\n".join(leaves(result)))
        _add(out, role, "\n".join(own))
    else:
        _add(out, role, "\n".join(texts_of(content)))


def _tool_result(block: Any) -> Any:
    """The content of a tool_result (Anthropic) or toolResult (Converse) block, else None."""
    if not isinstance(block, dict):
        return None
    if isinstance(block.get("toolResult"), dict):
        return block["toolResult"].get("content", "")
    if is_kind(block, _RESULT_KINDS):
        return block.get("content", "")
    return None


def is_kind(block: dict[str, Any], kinds: frozenset[str]) -> bool:
    """Whether the block's ``type`` is one of ``kinds``; a type that is no text is none of them."""
    kind = block.get("type")
    return isinstance(kind, str) and kind in kinds


def texts_of(value: Any, depth: int = 0) -> list[str]:
    """The texts of a content value: a string, a block, or a list of them; images and audio have none."""
    if isinstance(value, str):
        return [value] if value else []
    if depth > _MAX_DEPTH:
        return []
    if isinstance(value, list):
        return [text for item in value[:_MAX_ITEMS] for text in texts_of(item, depth + 1)]
    if not isinstance(value, dict):
        return []
    for key in ("text", "guardContent", "content", "document", "source", "input_text", "snippet", "searchResult"):
        inner = value.get(key)
        if key == "source" and isinstance(inner, dict) and inner.get("type") == "text":
            inner = inner.get("data")
        if inner is not None and (found := texts_of(inner, depth + 1)):
            return found
    return []


def leaves(value: Any, depth: int = 0) -> list[str]:
    """Every string below ``value``, for results and documents of any shape; pictures, sound and ids are left out."""
    if isinstance(value, str):
        return [value] if value else []
    if depth > _MAX_DEPTH:
        return []
    if isinstance(value, list):
        return [text for item in value[:_MAX_ITEMS] for text in leaves(item, depth + 1)]
    if isinstance(value, dict):
        return [text for key, item in value.items() if not _is_payload(key) for text in leaves(item, depth + 1)]
    return []


def _is_payload(key: str) -> bool:
    name = key.lower()
    return name in _NO_TEXT or any(medium in name for medium in ("image", "video", "audio"))


def _legacy_history(value: Any, out: list[Message]) -> None:
    """Cohere's chat_history: ``{"role": "CHATBOT", "message": ...}``."""
    _conversation(value, out)


def _image_request(value: Any, out: list[Message]) -> None:
    """Titan and Nova image and video requests: ``textToImageParams.text`` and its like."""
    if isinstance(value, dict):
        for key in ("text", "negativeText", "prompt", "value"):
            _user(value.get(key), out)


def _embedding_request(value: Any, out: list[Message]) -> None:
    if isinstance(value, dict):
        _user(value.get("text", {}).get("value") if isinstance(value.get("text"), dict) else value.get("text"), out)


# Every key that holds sent text, system texts first, then history, then the question. A body has few of them.
_REQUEST_KEYS: tuple[tuple[str, Callable[[Any, list[Message]], None]], ...] = (
    ("system", _system),
    ("instructions", _system),
    ("preamble", _system),
    ("documents", _retrieved),
    ("chat_history", _legacy_history),
    ("messages", _conversation),
    ("inputs", _conversation),
    ("input", _conversation),
    ("prompt", _prompt),
    ("promptVariables", _prompt),
    ("message", _user),
    ("query", _user),
    ("queries", _user),
    ("tool_results", _retrieved),
    ("inputText", _user),
    ("texts", _user),
    ("text_inputs", _user),
    ("instances", _conversation),
    ("text_prompts", _user),
    ("negative_prompt", _user),
    ("textToImageParams", _image_request),
    ("imageVariationParams", _image_request),
    ("inPaintingParams", _image_request),
    ("outPaintingParams", _image_request),
    ("colorGuidedGenerationParams", _image_request),
    ("backgroundRemovalParams", _image_request),
    ("textToVideoParams", _image_request),
    ("singleEmbeddingParams", _embedding_request),
)
