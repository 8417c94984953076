"""Put the parts of one event together: a state machine without I/O and without a clock.

Promises: every token that goes in comes out exactly once; no part is dropped for being late or for differing from its
twin; the same fragments in the same order give the same events with the same ids; memory stays below both caps.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from sys import getsizeof
from typing import Any

import msgspec

from aitrail.event import FIELD_NAMES, AccessEvent, make_event_id
from aitrail.normalize.openai_chat import loads, read_response, request_messages
from aitrail.normalize.outcome import Content, Fragment, Message

# What an open part costs beside its texts: the event, the fragment and their place in the tables.
_PART_BYTES = 1_500


class Joined(msgspec.Struct, gc=False):
    """What became of a group.

    Attributes:
        event: the event; None when the parts only repeat what was already given out.
        content: its texts, None when no part holds any.
        unless_seen: an event_id: when the store already has that event, this one is a duplicate of it.
    """

    event: AccessEvent | None
    content: Content | None = None
    unless_seen: str = ""


class Rule(msgspec.Struct, frozen=True):
    """How parts of one kind become an event.

    Attributes:
        complete: whether nothing more is expected.
        merge: makes the event; the second argument says that the parts came after their event was given out.
        strength: how much a part tells; a part that comes after its event adds nothing unless it is stronger than
            all that were in it. None: every part that was not in the event adds something.
        keeps_twins: whether a part that differs from one of the same name joins the group under another name
            (True), or becomes an event of its own (False: it would garble the texts).
        per_tenant: whether equal groups of two tenants stay apart. False where the group is an id that the gateway
            itself gives, and only one of the parts may know the tenant.
        patience: which share of the longest wait is worth waiting for what these parts still lack.
    """

    complete: Callable[[Sequence[Fragment]], bool]
    merge: Callable[[Sequence[Fragment], bool], Joined]
    strength: Callable[[Fragment], int] | None = None
    keeps_twins: bool = True
    per_tenant: bool = True
    patience: Callable[[Sequence[Fragment]], float] = lambda parts: 1.0


Released = list[tuple[Joined, list[Any]]]
_Key = tuple[str, str, str]


class _Group(msgspec.Struct):
    parts: dict[str, Fragment]
    tokens: list[Any]
    newest: float = 0.0
    size: int = 0


class _Done(msgspec.Struct, frozen=True):
    """A group that was given out: its strongest part, or the names and digests of its parts, as the rule asks."""

    strength: int = 0
    names: frozenset[str] = frozenset()
    digests: frozenset[bytes] = frozenset()


_STRENGTHS = (_Done(0), _Done(1), _Done(2))  # by far most groups are one of these


class Joiner:
    """Holds parts until their event is complete, asked for by ``flush``, or pushed out by a cap (oldest first).

    Args:
        max_groups: how many groups may be open.
        max_bytes: how much the open parts may take, estimated.
        max_remembered: how many closed groups are remembered at most (at least half as many), to tell a late part
            from a new group.
        max_wait: how long before ``flush``'s limit a group may be given out whose rule has less patience; 0: every
            group waits equally long. For callers whose sender waits for the answer.
    """

    def __init__(
        self,
        max_groups: int = 50_000,
        max_bytes: int = 64 << 20,
        max_remembered: int = 16_384,
        max_wait: float = 0.0,
    ) -> None:
        self._max_wait = max_wait
        self._max_groups = max_groups
        self._max_bytes = max_bytes
        self._generation = max(1, max_remembered // 2)
        self._open: OrderedDict[_Key, _Group] = OrderedDict()  # a dict is slow at giving up its first entry
        self._done: dict[_Key, _Done] = {}  # two generations: the older one goes when the younger one is full
        self._done_before: dict[_Key, _Done] = {}
        self._bytes = 0

    def add(self, fragment: Fragment, token: Any, now: float = 0.0) -> Released:
        """Take one part; give back what became complete by it, or was pushed out, with the tokens of its parts.

        Args:
            fragment: the part; the joiner owns it from here on.
            token: comes back with the event that the part went into; never looked at.
            now: when the part came, in the caller's clock; only ``flush`` compares it.
        """
        rule = RULES[fragment.kind]
        key = (fragment.kind, fragment.event.tenant_id if rule.per_tenant else "", fragment.group)
        done = self._done.get(key) or self._done_before.get(key)
        if done is not None:
            return [(self._late(key, rule, done, fragment), [token])]
        group = self._open.get(key)
        if group is None:
            if rule.complete((fragment,)):
                return [(self._remember(key, rule, [fragment]), [token])]
            group = self._open[key] = _Group({}, [])
        known = group.parts.get(fragment.part)
        if known is not None:
            if known == fragment:
                # The same part again: settled when its group is, which it does not make wait longer. A queue gives
                # out again what was not let go of, and would put the group off for ever.
                group.tokens.append(token)
                return []
            fragment.part = _twin(fragment)
            if not rule.keeps_twins:
                return [(rule.merge((fragment,), True), [token])]
            if fragment.part in group.parts:
                group.tokens.append(token)
                return []
        group.parts[fragment.part] = fragment
        group.tokens.append(token)
        group.newest = max(group.newest, now)
        size = _size(fragment)
        group.size += size
        self._bytes += size
        out: Released = []
        if rule.complete(list(group.parts.values())):
            out.append(self._close(key))
        while self._open and (len(self._open) > self._max_groups or self._bytes > self._max_bytes):
            out.append(self._close(next(iter(self._open))))
        return out

    def flush(self, older_than: float | None = None) -> Released:
        """Give out open groups, oldest first: all, or those whose newest part came before ``older_than``."""
        keys = [
            key
            for key, group in self._open.items()
            if older_than is None or group.newest < self._limit(key, older_than)
        ]
        return [self._close(key) for key in keys]

    def _limit(self, key: _Key, older_than: float) -> float:
        """Up to when the newest part of this group must have come for the group to be given out."""
        if not self._max_wait:
            return older_than
        patience = RULES[key[0]].patience(list(self._open[key].parts.values()))
        return older_than + self._max_wait * (1.0 - patience)

    def open_tokens(self) -> list[Any]:
        """Tokens that are still held, oldest group first."""
        return [token for group in self._open.values() for token in group.tokens]

    def _close(self, key: _Key) -> tuple[Joined, list[Any]]:
        group = self._open.pop(key)
        self._bytes -= group.size
        parts = sorted(group.parts.values(), key=_place)
        return self._remember(key, RULES[key[0]], parts), group.tokens

    def _remember(self, key: _Key, rule: Rule, parts: list[Fragment]) -> Joined:
        if rule.strength is not None:
            done = _STRENGTHS[max([rule.strength(part) for part in parts])]
        else:  # digests come first: merging changes the parts
            done = _Done(0, frozenset(part.part for part in parts), frozenset(map(_digest, parts)))
        self._done[key] = done
        if len(self._done) >= self._generation:
            self._done_before, self._done = self._done, {}
        return rule.merge(parts, False)

    def _late(self, key: _Key, rule: Rule, done: _Done, part: Fragment) -> Joined:
        """A part whose event is out: nothing when it adds nothing, else an event of its own."""
        if rule.strength is not None:
            strength = rule.strength(part)
            if strength <= done.strength:
                return Joined(None)
            self._done[key] = _STRENGTHS[strength]
            return rule.merge((part,), True)
        digest = _digest(part)
        if digest in done.digests:
            return Joined(None)
        if part.part in done.names:
            part.part = _twin(part)
        self._done[key] = _Done(0, done.names | {part.part}, done.digests | {digest})
        return rule.merge((part,), True)


def part_id(part: Fragment, raw: bytes) -> str:
    """Identity of a part, the same whenever its record is read; empty where an event gives way to a fuller one itself.

    Args:
        part: before the joiner gets it: the joiner may give it another name.
        raw: the record that it was made from.
    """
    if RULES[part.kind].strength is not None:
        return ""
    place = f"{part.event.tenant_id}\x00{part.kind}\x00{part.group}\x00{part.part}\x00"
    return hashlib.blake2b(place.encode("utf-8", "surrogatepass") + raw, digest_size=16).hexdigest()


def _place(part: Fragment) -> tuple[int, str]:
    return part.order, part.part


def _base(part: Fragment) -> str:
    """The part's name as the normalizer gave it."""
    return part.part.partition("~")[0]


def _digest(part: Fragment) -> bytes:
    said = (_base(part), part.order, part.event, part.prompt, part.response, part.content)
    return hashlib.blake2b(msgspec.json.encode(said), digest_size=8).digest()


def _twin(part: Fragment) -> str:
    """Another name for a part that differs from one of the same name."""
    return f"{part.part}~{_digest(part).hex()}"


def _size(part: Fragment) -> int:
    size = _PART_BYTES + getsizeof(part.prompt) + getsizeof(part.response)
    if part.content is not None:
        size += getsizeof(part.content.response) + sum(getsizeof(call) for call in part.content.tool_calls)
        size += sum(100 + getsizeof(message.text) for message in part.content.messages)
    return size


# --- merging

_DEFAULTS = dict(
    zip(FIELD_NAMES[-len(AccessEvent.__struct_defaults__) :], AccessEvent.__struct_defaults__, strict=True)
)
_IDENTITY = frozenset({"event_id", "timestamp", "tenant_id", "source", "source_ref", "ingested_at", "flags"})
_FILLABLE = tuple(name for name in FIELD_NAMES if name not in _IDENTITY)
# What the other row of a RequestResponse pair can add.
_PAIR_FIELDS = ("user_id", "src_ip", "src_host", "user_agent", "model", "model_version", "model_provider", "latency_ms")


def _fill(event: AccessEvent, other: AccessEvent, names: Sequence[str] = _FILLABLE) -> None:
    """Take over what ``event`` does not know and ``other`` does."""
    for name in names:
        default = _DEFAULTS.get(name)
        if getattr(event, name) == default:
            value = getattr(other, name)
            if value != default:
                setattr(event, name, value)


def _flag(event: AccessEvent, *flags: str, without: Sequence[str] = ()) -> None:
    kept = [flag for flag in event.flags if flag not in without]
    event.flags = tuple(dict.fromkeys([*kept, *(flag for flag in flags if flag)]))


def _id_of_parts(parts: Sequence[Fragment], source: str, names: Sequence[str] = ()) -> str:
    """Identity of an event made of just these parts: another set of parts is another event."""
    names = ",".join(sorted(names or [part.part for part in parts]))
    return make_event_id(parts[0].event.tenant_id, source, f"{parts[0].group}\x00{names}")


# azure_rr: two rows for one request, the one with tokens is the event


def _rr_complete(parts: Sequence[Fragment]) -> bool:
    """The token row is there, or the request failed, so that there are no tokens to wait for."""
    for part in parts:
        if part.part == "tokens" or (part.part[:5] == "plain" and (part.event.http_status or 0) >= 400):
            return True
    return False


def _rr_merge(parts: Sequence[Fragment], late: bool) -> Joined:
    del late  # the ids say it: a row alone gives way to the whole event
    best = min(parts, key=_rr_rank) if len(parts) > 1 else parts[0]
    event = best.event
    for part in parts:
        if part is not best:
            _fill(event, part.event, _PAIR_FIELDS)
    if event.user_id and "identity_missing" in event.flags:
        _flag(event, without=("identity_missing",))
    whole = make_event_id(event.tenant_id, event.source, best.group)
    if best.part[:6] == "tokens":
        event.event_id = whole
        return Joined(event)
    event.event_id = make_event_id(event.tenant_id, event.source, f"{best.group}/alone")
    if event.outcome_status == "success":
        _flag(event, "tokens_missing")
    return Joined(event, None, whole)


def _rr_rank(part: Fragment) -> int:
    return ("tokens", "plain", "empty").index(_base(part))


def _rr_strength(part: Fragment) -> int:
    return 2 if part.part[:6] == "tokens" else 1


# apim: one gateway row (who, from where, how it ended) and the rows of the LLM log (what, in pieces)


def _apim_complete(parts: Sequence[Fragment]) -> bool:
    """The gateway row is there, no sequence number is missing, and both texts are whole JSON."""
    rows = sorted((part for part in parts if part.part != "gateway"), key=_place)
    if len(rows) == len(parts) or [row.order for row in rows] != list(range(len(rows))) or not rows:
        return False
    return all(_whole(pieces) is not None for pieces in ([r.prompt for r in rows], [r.response for r in rows]))


def _whole(pieces: Sequence[str]) -> Any:
    """The JSON value that ``pieces`` are: cut text put together again, or one array a piece; None when neither."""
    pieces = [piece for piece in pieces if piece]
    if not pieces or pieces[-1].rstrip()[-1:] not in ("]", "}", '"'):
        return None
    value = loads("".join(pieces))
    if value is None and len(pieces) > 1:
        arrays = [loads(piece) for piece in pieces]
        if all(isinstance(array, list) for array in arrays):
            return [item for array in arrays for item in array]
    return value


def _apim_merge(parts: Sequence[Fragment], late: bool) -> Joined:
    gateway = next((part for part in parts if _base(part) == "gateway"), None)
    rows = sorted((part for part in parts if part is not gateway), key=_place)
    content = gateway.content if gateway is not None else None
    unparsed = False
    if any(row.prompt or row.response for row in rows):
        content, unparsed = _apim_content(rows, content)
    base = (gateway or rows[0]).event
    event_id = _id_of_parts(parts, base.source)
    for row in rows:
        if row.event is not base:
            _fill(base, row.event)
            _flag(base, *(flag for flag in row.event.flags if flag != "identity_missing"))
    # the log names the model that answered, the gateway's row perhaps only the deployment of its URL
    base.model = next((row.event.model for row in rows if row.event.model_version), base.model)
    base.event_id = event_id
    _flag(
        base,
        "late_part" if late else "",
        "" if gateway is not None else "identity_missing",
        "body_unparsed" if unparsed else "",
    )
    return Joined(base, content)


def _apim_content(rows: Sequence[Fragment], logged: Content | None) -> tuple[Content, bool]:
    """Texts of the LLM log; where it has none, those of the gateway's body logging stay.

    What does not parse (a piece is missing) is kept as one text, so that it is still judged.
    """
    content = Content(list(logged.messages), logged.response, list(logged.tool_calls)) if logged else Content()
    prompts, responses = [row.prompt for row in rows], [row.response for row in rows]
    unparsed = False
    if any(prompts):
        value = _whole(prompts)
        if value is None:
            content.messages, unparsed = [Message("user", "".join(prompts))], True
        else:
            content.messages = request_messages(value) or content.messages
    if any(responses):
        value = _whole(responses)
        if value is None:
            content.response, unparsed = "".join(responses), True
        else:
            answer = read_response(value)
            content.response = answer.text or (value if isinstance(value, str) else content.response)
            content.tool_calls = answer.tool_calls or content.tool_calls
    return content, unparsed


# otel_content: a span and separate log records with its texts


def _otel_merge(parts: Sequence[Fragment], late: bool) -> Joined:
    span = next((part for part in parts if _base(part) == "span"), None)
    ordered = sorted(parts, key=lambda part: (part is not span, _place(part)))
    base = ordered[0].event
    only_span = span is not None and len(parts) == 1
    # log records are numbered per payload, so two may bear one number: what they say is part of the identity
    names = [f"{_base(part)}~{_digest(part).hex()}" for part in parts]
    event_id = base.event_id if only_span and base.event_id else _id_of_parts(parts, base.source, names)
    content = Content()
    for part in ordered:
        if part.event is not base:
            _fill(base, part.event)
            _flag(base, *part.event.flags)
        if part.content is not None:
            content.messages = content.messages + part.content.messages
            content.response = "\n".join(text for text in (content.response, part.content.response) if text)
            content.tool_calls = content.tool_calls + part.content.tool_calls
    base.event_id = event_id
    _flag(base, "late_part" if late or span is None else "")
    return Joined(base, content if content.messages or content.response or content.tool_calls else None)


def _never(parts: Sequence[Fragment]) -> bool:
    del parts  # a span does not say how many log records belong to it
    return False


def _otel_patience(parts: Sequence[Fragment]) -> float:
    """A log record says that there is a span; a span alone may have no log records at all.

    Log records of a call come in their order, the answer (``choice``) last.
    """
    names = [_base(part) for part in parts]
    if "span" not in names:
        return 1.0
    return 0.02 if any(name.endswith(".choice") for name in names) else 0.25


RULES: dict[str, Rule] = {
    "azure_rr": Rule(_rr_complete, _rr_merge, _rr_strength),
    "apim": Rule(_apim_complete, _apim_merge, keeps_twins=False, per_tenant=False),
    "otel_content": Rule(_never, _otel_merge, patience=_otel_patience),
}
