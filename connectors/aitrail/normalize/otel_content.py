"""Texts of a GenAI span or log record, from wherever its dialect keeps them."""

from typing import Any

from aitrail.normalize.openai_chat import ROLES, Answer, dumps, loads, messages_of, read_response, text_of
from aitrail.normalize.otel_dialects import INDEXED, MESSAGE_EVENTS, Table, first
from aitrail.normalize.outcome import Content, Message

_MAX_DEPTH = 16
_TEXT_PARTS = frozenset({"text", "reasoning", "refusal", "thinking", ""})
_TOOL_RESULTS = frozenset({"tool_call_response", "server_tool_call_response", "tool_result"})
_INDEXED = tuple(prefix for pair in INDEXED for prefix in pair)
_CHAT_KEYS = frozenset({"role", "parts", "content", "messages", "choices", "finish_reason", "tool_calls"})
_TOOL_CALLS = frozenset({"tool_call", "server_tool_call", "tool_use"})


class Texts:
    """What was sent and what came back, collected from several places of one record."""

    __slots__ = ("answer", "messages", "pieces")

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.pieces: list[str] = []
        self.answer = Answer(tool_calls=[], tools=[])

    def content(self) -> Content | None:
        """The texts together; None when there are none."""
        if not self.messages and not self.pieces and not self.answer.tool_calls:
            return None
        return Content(self.messages, "\n".join(self.pieces), self.answer.tool_calls)

    def sent(self, value: Any) -> None:
        """Add messages that were sent: a list of messages (with parts or content), a body, or a text."""
        if isinstance(value, dict) and "messages" in value:
            value = value["messages"]
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict) and isinstance(item.get("parts"), list):
                self._sent_parts(item)
            else:
                self.messages += messages_of(item)

    def _sent_parts(self, item: dict[str, Any]) -> None:
        named = item.get("role")
        role = ROLES.get(named.lower(), "user") if isinstance(named, str) else "user"
        plain: list[str] = []
        for part in item["parts"]:
            kind = _kind(part)
            if kind in _TOOL_RESULTS:
                result = first(part, ("response", "result", "content", "output"))
                self._add("tool", text_of(result) or dumps(result))
            elif kind in _TOOL_CALLS:
                self._add("assistant", _as_text(part.get("arguments", part.get("input"))))
            elif kind in _TEXT_PARTS:
                plain.append(text_of(part))
        self._add(role, "\n".join(text for text in plain if text))

    def _add(self, role: str, text: str) -> None:
        if text:
            self.messages.append(Message(ROLES.get(role, "user"), text))

    def system(self, value: Any) -> None:
        """Add system instructions: a text or a list of parts."""
        self._add("system", text_of(value))

    def came_back(self, value: Any) -> None:
        """Add what came back: a list of messages (with parts or content), a response body, or a text."""
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str):
                self.pieces.append(item)
            elif isinstance(item, dict) and isinstance(item.get("parts"), list):
                self._finish(item.get("finish_reason"))
                for part in item["parts"]:
                    self._part_back(part)
            elif isinstance(item, dict):
                self._finish(item.get("finish_reason"))
                self._read(item)

    def _part_back(self, part: Any) -> None:
        kind = _kind(part)
        if kind in _TOOL_CALLS:
            self.call(part.get("name"), part.get("arguments", part.get("input")))
        elif kind in _TEXT_PARTS:
            text = text_of(part)
            if text:
                self.pieces.append(text)

    def _read(self, body: dict[str, Any]) -> None:
        """A message or body of another shape, through the shared reader."""
        if "message" in body and "choices" not in body:
            body = {"choices": [body]}
        elif "choices" not in body and "content" not in body and "tool_calls" in body:
            body = {"choices": [{"message": body}]}
        read = read_response(body)
        if read.text:
            self.pieces.append(read.text)
        self.answer.tools += read.tools
        self.answer.tool_calls += [call for call in read.tool_calls if call]
        self._finish(read.finish_reason)

    def call(self, name: Any, arguments: Any) -> None:
        """Add one tool call."""
        if isinstance(name, str) and name:
            self.answer.tools.append(name)
        text = _as_text(arguments)
        if text:
            self.answer.tool_calls.append(text)

    def _finish(self, reason: Any) -> None:
        if isinstance(reason, str) and reason and not self.answer.finish_reason:
            self.answer.finish_reason = reason.lower()[:64]


def _kind(part: Any) -> str | None:
    if isinstance(part, str):
        return ""
    if not isinstance(part, dict):
        return None
    kind = part.get("type", "")
    return kind if isinstance(kind, str) else None


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else dumps(value)


def _json(value: Any) -> Any:
    """A value that may be JSON in a string; text that is not JSON stays text."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        decoded = loads(value)
        return value if decoded is None else decoded
    return value


def _parts(content: Any) -> Any:
    """Content that may be a list of parts in a string (OpenLLMetry); any other JSON is what somebody typed."""
    if isinstance(content, str) and content[:2] in ("[{", "[ "):
        decoded = loads(content)
        if isinstance(decoded, list) and all(isinstance(part, dict) and "type" in part for part in decoded):
            return decoded
    return content


def read_attributes(attributes: dict[str, Any], table: Table, texts: Texts) -> None:
    """Collect texts: whole messages, indexed ones, tool and retrieval text, then raw input and output."""
    system = first(attributes, table["system"])
    if system is not None:
        texts.system(_json(system))
    _sent(first(attributes, table["input"]), texts)
    _came_back(first(attributes, table["output"]), texts)
    indexed = {key: value for key, value in attributes.items() if key.startswith(_INDEXED)}
    if indexed:
        for prompt, completion in INDEXED:
            texts.sent([_as_message(item) for item in _relisted(indexed, prompt)])
            texts.came_back([_as_message(item) for item in _relisted(indexed, completion)])
    arguments, result = first(attributes, table["arguments"]), first(attributes, table["result"])
    if arguments is not None:
        texts.call(None, arguments)
    if result is not None:
        texts.sent([{"role": "tool", "content": text_of(_json(result)) or _as_text(result)}])
    query = first(attributes, table["query"])
    if query is not None:
        texts.sent(query)
    if not texts.messages:
        _sent(first(attributes, table["input_value"]), texts)
    if not texts.pieces and not texts.answer.tool_calls:
        _came_back(first(attributes, table["output_value"]), texts)


def _sent(value: Any, texts: Texts) -> None:
    """Messages, or a body, or a text; JSON that holds no text in any known place is taken as it stands."""
    if value is None:
        return
    before = len(texts.messages)
    decoded = _json(value)
    _raw_input(decoded, texts)
    if len(texts.messages) == before and not _is_chat(decoded):
        texts.sent(_as_text(value))


def _came_back(value: Any, texts: Texts) -> None:
    if value is None:
        return
    before = len(texts.pieces), len(texts.answer.tool_calls), len(texts.answer.tools)
    decoded = _json(value)
    texts.came_back(decoded)
    after = len(texts.pieces), len(texts.answer.tool_calls), len(texts.answer.tools)
    if after == before and not _is_chat(decoded):
        texts.came_back(_as_text(value))


def _is_chat(value: Any) -> bool:
    """Whether ``value`` has the shape of messages or of a body, so that finding no text in it means there is none."""
    item = value[0] if isinstance(value, list) and value else value
    return not item if not isinstance(item, dict) else bool(_CHAT_KEYS & item.keys())


def _raw_input(value: Any, texts: Texts) -> None:
    """Messages; or a request body under another key (OpenInference ``input.value``, Traceloop ``entity.input``)."""
    if isinstance(value, dict) and not ({"messages", "role", "content"} & value.keys()):
        inner = first(value, ("input", "prompt", "query", "question", "inputs"))
        if inner is not None:
            texts.sent(inner)
    else:
        texts.sent(value)


def read_message_event(name: str, body: Any, texts: Texts) -> None:
    """Collect the text of one legacy event (``gen_ai.user.message`` ...) from its body."""
    role = MESSAGE_EVENTS[name]
    if isinstance(body, str):
        decoded = _json(body)
        shaped = isinstance(decoded, dict) and bool({"content", "message", "tool_calls"} & decoded.keys())
        body = decoded if shaped else {"content": body}
    if not isinstance(body, dict):
        return
    if role:
        texts.sent([{**body, "role": body.get("role") or role}])
    else:
        message = body.get("message")
        if isinstance(message, dict | str):
            inner = message if isinstance(message, dict) else {"content": message}
            texts.came_back([{"message": inner, "finish_reason": body.get("finish_reason")}])
        else:
            texts.came_back([body])


def _relisted(attributes: dict[str, Any], prefix: str) -> list[Any]:
    """Rebuild a list from attributes like ``gen_ai.prompt.0.role``, in the order of the index."""
    root: dict[str, Any] = {}
    for key, value in attributes.items():
        if key.startswith(prefix):
            _plant(root, key[len(prefix) :].split(".", _MAX_DEPTH), value)
    found = _relist(root) if root else []
    return found if isinstance(found, list) else []


def _plant(node: dict[str, Any], path: list[str], value: Any) -> None:
    for step in path[:-1]:
        below = node.get(step)
        if not isinstance(below, dict):
            below = node[step] = {}
        node = below
    node[path[-1]] = value


def _relist(node: Any) -> Any:
    """Turn dicts whose keys are numbers into lists, in the numbers' order."""
    if not isinstance(node, dict):
        return node
    inner = {key: _relist(value) for key, value in node.items()}
    if inner and all(key.isascii() and key.isdigit() and len(key) < 8 for key in inner):
        return [inner[key] for key in sorted(inner, key=int)]
    return inner


def _as_message(item: Any) -> Any:
    """One indexed message in the shape of a chat API."""
    if not isinstance(item, dict):
        return item
    message = item.get("message", item.get("prompt", item.get("completion", item)))
    if not isinstance(message, dict):
        return message
    content = message.get("content", message.get("text"))
    if isinstance(message.get("contents"), list):
        content = [part.get("message_content", part) for part in message["contents"] if isinstance(part, dict)]
    calls = message.get("tool_calls")
    calls = [call.get("tool_call", call) for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    return {
        "role": message.get("role", "user"),
        "content": _parts(content),
        "tool_calls": calls,
        "finish_reason": message.get("finish_reason"),
    }
