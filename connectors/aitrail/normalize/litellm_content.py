"""Texts of a LiteLLM call: the typed fast path for chat completions, ``openai_chat`` for every other shape."""

from typing import Any

from aitrail.normalize.litellm_types import ChatMessage, ChatResponse, Choice, Part, ToolCall
from aitrail.normalize.openai_chat import (
    ROLES,
    Answer,
    dumps,
    loads,
    messages_of,
    read_response,
    request_messages,
    text_of,
)
from aitrail.normalize.outcome import Message, Role

# What LiteLLM writes in place of content when message logging is turned off.
REDACTED = "redacted-by-litellm"
# Its mark inside a text that it cut for the log (``litellm/constants.py``).
TRUNCATED = "litellm_truncated"


def chat_messages(sent: Any) -> list[Message]:
    """Read ``messages``: typed chat messages, a prompt, a list of prompts or items, or a whole request body."""
    if isinstance(sent, str):
        body = loads(sent) if sent[:1] in ("{", "[") else None
        found = request_messages(body) if isinstance(body, dict | list) else []
        return found or (messages_of(sent) if sent not in ("{}", "[]", "None") else [])
    if not isinstance(sent, list) or not sent or not isinstance(sent[0], ChatMessage):
        return request_messages(sent)
    messages: list[Message] = []
    for item in sent:
        role = ROLES.get(item.role or "user", "user")
        content = item.content
        if type(content) is str:
            if content:
                messages.append(Message(role, content))
        elif content:
            _add_parts(messages, role, content)
        if item.tool_calls:
            for call in item.tool_calls:
                _, arguments = _call(call)
                if arguments:
                    messages.append(Message("assistant", arguments))
    return messages


def _add_parts(messages: list[Message], role: Role, parts: list[Part]) -> None:
    texts: list[str] = []
    for part in parts:
        if part.type == "tool_result":
            text = text_of(part.content)
            if text:
                messages.append(Message("tool", text))
        elif part.type == "tool_use":
            if part.input:
                messages.append(Message("assistant", dumps(part.input)))
        elif part.text:
            texts.append(part.text)
    if texts:
        messages.append(Message(role, "\n".join(texts)))


def chat_answer(response: Any) -> Answer:
    """Read ``response``: a typed chat completion, a text, or a body of another API."""
    if isinstance(response, str):
        body = loads(response) if response[:1] in ("{", "[") else None
        answer = read_response(body) if isinstance(body, dict | list) else Answer()
        return answer if answer.known or response in ("{}", "[]", "None") else Answer(text=response)
    if type(response) is ChatResponse and response.choices is not None:
        return _choices(response.choices)
    if isinstance(response, dict):
        plain = response.get("response") or response.get("text")
        return chat_answer(plain) if isinstance(plain, str) else read_response(response)
    if not isinstance(response, ChatResponse):
        return read_response(response) if response else Answer()
    plain = response.response or response.text  # pass-through, transcription, or taken out by the gateway
    if isinstance(plain, str):
        return chat_answer(plain)
    body = {"output": response.output, "response": response.response, "stop_reason": response.stop_reason}
    if response.content is not None:
        body["content"] = response.content
    return read_response(body)


def _choices(choices: list[Choice]) -> Answer:
    if len(choices) == 1:  # by far the most frequent: one text, no calls
        message = choices[0].message
        if message is not None and isinstance(message.content, str) and not message.tool_calls:
            return Answer(message.content, finish_reason=(choices[0].finish_reason or "").lower())
    answer = Answer(tool_calls=[], tools=[])
    texts: list[str] = []
    for choice in choices:
        answer.finish_reason = answer.finish_reason or (choice.finish_reason or "").lower()
        if choice.text:
            texts.append(choice.text)
        message = choice.message
        if message is None:
            continue
        content = message.content
        if isinstance(content, str):
            texts.append(content)
        elif content:
            texts.append("\n".join(part.text for part in content if part.text))
        for call in message.tool_calls or ():
            name, arguments = _call(call)
            if name:
                answer.tools.append(name)
            if arguments:
                answer.tool_calls.append(arguments)
    answer.text = texts[0] if len(texts) == 1 else "\n".join(text for text in texts if text)
    return answer


def _call(call: ToolCall) -> tuple[str, str]:
    """Name and arguments (as text) of one tool call."""
    if call.function is None:
        return "", ""
    arguments = call.function.arguments
    return call.function.name or "", arguments if isinstance(arguments, str) else dumps(arguments)
