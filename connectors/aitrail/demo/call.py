"""``Call``: one use of a model as it happened, before any log wrote it down; and where records go."""

from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from aitrail.demo.org import Actor, App, Model

Status = Literal["success", "blocked", "throttled", "denied", "error"]


class Guard(Struct, frozen=True, gc=False):
    """What a guardrail said: who (``azure``, ``litellm`` or ``bedrock``), which category, and what it did."""

    by: Literal["azure", "litellm", "bedrock"]
    name: str
    category: str
    action: Literal["blocked", "flagged", "masked"]


class ToolUse(Struct, frozen=True, gc=False):
    """One tool call of an agent: its name, its arguments (JSON text) and what the tool gave back."""

    name: str
    arguments: str
    result: str


class Call(Struct, gc=False):
    """One call of a model.

    Attributes:
        start: epoch seconds.
        end_user: customer behind a bot, when there is one.
        history, prompt, answer: the texts; history is (user, assistant) pairs of earlier turns. The system prompt is
            the application's.
        status: how it ended for the caller.
        request_id, call_id, trace_id, span_id: its id at the provider, at the gateway or trail, in the trace.
        tools: tool calls between the prompt and the answer.
        asked: name of a tool that the answer asks for, with its arguments, instead of text.
    """

    start: float
    latency: float
    actor: Actor
    app: App
    model: Model
    session: str
    prompt: str
    answer: str
    request_id: str
    call_id: str
    trace_id: str
    span_id: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    history: tuple[tuple[str, str], ...] = ()
    end_user: str = ""
    ip: str = ""
    purpose: str = ""
    ticket: str = ""
    status: Status = "success"
    guard: Guard | None = None
    tools: tuple[ToolUse, ...] = ()
    asked: ToolUse | None = None
    streamed: bool = False
    region: str = "eu-west-1"
    first_token: float = 0.0


class Record(Struct, gc=False):
    """One line, document or span of a log.

    Attributes:
        stream: which file it belongs to: (layout, detail...), see ``writer.LAYOUTS``.
        time: epoch seconds, for the order in the file and the file's hour.
        data: the record's JSON.
        record_type: name of the normalizer that reads it.
        upstream_id: the id that the source gave the event.
        events: how many events it adds (0: it is a further part of one that is counted already).
        foreign: reason code when it is well formed but no AI access.
    """

    stream: tuple[str, ...]
    time: float
    data: bytes
    record_type: str
    upstream_id: str
    events: int = 1
    foreign: str = ""


Wire = Callable[[Call], list[Record]]


def client(call: Call) -> str:
    """The user agent at an OpenAI-compatible gateway: people's browsers as they are, programs as the OpenAI SDK."""
    agent = call.actor.agent
    return agent if agent.startswith(("Mozilla", "AzureAPIM")) else "OpenAI/Python 2.8.0"


def cost(call: Call) -> float:
    """What the call cost, in USD."""
    return (call.prompt_tokens * call.model.price_in + call.completion_tokens * call.model.price_out) / 1e6
