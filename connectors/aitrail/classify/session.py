"""The session view: what no single text shows. Refusal and then success, retry bursts, payloads split over turns.

``SessionView`` takes turns in the order of their time and says what each completes. What it says of a turn depends on
that turn and on earlier ones of the same session and on nothing else, so the same turns always give the same signals.
Two callers use it: ``call_signals`` gives it the history that one request carries (chat requests carry the whole
conversation), which is a function of that record alone and so becomes part of its event; ``aitrail.store.sessions``
gives it stored events in the order of their time, so that calls without a history are seen too.

Memory is bounded: at most ``capacity`` sessions, of each the last ``window`` turns, of each turn a sketch of at most 32
numbers and, for joining split payloads, the end of short prompts. Sessions quiet for longest are dropped first.
"""

import re
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from heapq import nsmallest
from typing import Final
from zlib import crc32

import msgspec

from aitrail.classify.contract import Text
from aitrail.classify.fold import fold

# Keys of content/taxonomy/signals.toml.
SIGNALS: Final = ("refusal_then_success", "retry_burst", "split_payload")

_SKETCH: Final = 32
# Share of three-word runs that two prompts have in common: from here on one is a copy, or at least a new attempt.
_COPY: Final = 0.6
_ATTEMPT: Final = 0.3
_BURST: Final = 4
_BURST_SECONDS: Final = 600.0
_TAIL: Final = 300
# Prompts further apart in time are not read as one, and the seam has to say at least this much by itself.
_JOIN_SECONDS: Final = 300.0
_SEAM: Final = 0.05
_SHORT: Final = 1200
_SKETCHED: Final = 8_000
_WINDOW: Final = 12
_WORDS = re.compile(rb"[0-9a-z\x80-\xff]+")

# Looked for first: hardly any answer holds one of these in its beginning, and the expression below is dear.
_HINTS: Final = (
    "can't", "cannot", "can not", "can\u2019t", "won't", "won\u2019t", "unable", "not able", "decline", "as an ai",
    "against", "not allowed", "kann", "darf", "peux pas", "puedo", "posso", "kan ik niet", "nie mog\u0119",
    "\u043d\u0435 \u043c\u043e\u0433\u0443", "\u65e0\u6cd5", "\u4e0d\u80fd", "\u3067\u304d\u307e\u305b\u3093",
)  # fmt: skip
_ASCII_HINTS: Final = tuple(hint for hint in _HINTS if hint.isascii())
# Unwilling, not unable: "I cannot find your order" is no refusal.
_UNWILLING = (
    r"(?:help|assist|comply|share|provide|disclose|reveal|discuss|do that|do this|fulfil|create|generate|write|engage|"
    r"support|continue with|answer that|give you|tell you|offer|participate|produce|repeat|ignore)"
)
_REFUSAL = re.compile(
    rf"\bi(?:'m| am|\u2019m)? ?(?:can(?:not|'t|\u2019t| not)|won(?:'t|\u2019t)|unable to|not able to|not allowed to) "
    rf"(?:\w+ ){{0,2}}{_UNWILLING}"
    r"|\b(?:i (?:must|have to|will have to) decline|i'm just an ai|as an ai(?: language)? model|"
    r"against (?:my|our|the) (?:guidelines|polic|rules|programming)|unable to (?:help|assist|comply|fulfil))"
    r"|\bich (?:kann|darf) (?:ihnen |dir |das |dabei |dazu |leider )*nicht\b|\bdabei kann ich .{0,20}nicht helfen"
    r"|\bje ne peux pas (?:\w+ ){0,2}(?:aider|r\u00e9pondre|fournir|partager|faire)"
    r"|\bno puedo (?:\w+ ){0,2}(?:ayudar|compartir|proporcionar|hacer|revelar|cumplir)"
    r"|\bn(?:\u00e3|a)o posso (?:\w+ ){0,2}(?:ajudar|compartilhar|fornecer|fazer|revelar)"
    r"|\bnon posso (?:\w+ ){0,2}(?:aiutar|condividere|fornire|fare|rivelare)"
    r"|\bdaar kan ik .{0,20}niet bij helpen|\bnie mog\u0119 (?:\w+ ){0,2}(?:pom\u00f3c|udost\u0119pni\u0107)"
    r"|\u043d\u0435 \u043c\u043e\u0433\u0443 (?:\w+ ){0,2}(?:\u043f\u043e\u043c\u043e\u0447\u044c|\u0432\u044b\u043f"
    r"\u043e\u043b\u043d\u0438\u0442\u044c)|(?:\u65e0\u6cd5|\u4e0d\u80fd)(?:\u63d0\u4f9b|\u5e2e\u52a9|\u534f\u52a9)"
    r"|\u304a\u624b\u4f1d\u3044(?:\u3059\u308b\u3053\u3068\u306f)?\u3067\u304d\u307e\u305b\u3093"
)
_REFUSAL_WITHIN: Final = 240


class Turn(msgspec.Struct, frozen=True, gc=False):
    """One call of a session.

    Attributes:
        session: whose turns belong together; empty: not looked at.
        at: epoch seconds.
        prompt: what was asked in this turn, as far as it is known.
        answered: whether an answer came back.
        refused: the model declined, or a guardrail blocked it.
        score: the prompt's own injection score.
        same: names the prompt where its text is not known (a keyed hash).
    """

    session: str
    at: float
    prompt: str
    answered: bool = True
    refused: bool = False
    score: float = 0.0
    same: str = ""


class _Seen(msgspec.Struct, gc=False):
    at: float
    sketch: frozenset[int]
    same: str
    refused: bool
    score: float


class _Session(msgspec.Struct, gc=False):
    turns: deque[_Seen]
    tail: str = ""
    reported_burst: float = float("-inf")


def sketch(text: str) -> frozenset[int]:
    """The smallest hashes of the three-word runs of ``text`` (of its words when it is shorter); empty for no words."""
    words = _WORDS.findall(fold(text[:_SKETCHED]).low)
    runs = {crc32(b" ".join(words[at : at + 3])) for at in range(max(1, len(words) - 2))} if words else set()
    return frozenset(nsmallest(_SKETCH, runs))


def similarity(one: frozenset[int], other: frozenset[int]) -> float:
    """Estimate the Jaccard similarity of two sketched texts: the share of common runs among the smallest of both."""
    if not one or not other:
        return 0.0
    both = nsmallest(_SKETCH, one | other)
    return len(one.intersection(other).intersection(both)) / len(both)


def is_refusal(response: str) -> bool:
    """Whether an answer begins as refusals do (of a dozen languages)."""
    start = response[:_REFUSAL_WITHIN].lower()
    for hint in _ASCII_HINTS if start.isascii() else _HINTS:
        if hint in start:
            return _REFUSAL.search(start) is not None
    return False


class SessionView:
    """Remembers sessions and says what a new turn adds. Not thread-safe.

    Args:
        judge: gives the injection score of a text (``DefaultClassifier.score``); used on joined short prompts.
        suspicious: from which score on a text is noticed by itself.
        capacity: how many sessions are remembered at most.
        window: how many turns of each.
    """

    def __init__(
        self,
        judge: Callable[[str], float],
        *,
        suspicious: float = 0.45,
        capacity: int = 10_000,
        window: int = _WINDOW,
    ) -> None:
        self._judge = judge
        self._alone = suspicious
        self._capacity = capacity
        self._window = window
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def update(self, turn: Turn) -> list[str]:
        """Take one turn in; returns the signals (of ``SIGNALS``) that it completes."""
        if not turn.session:
            return []
        session = self._sessions.get(turn.session)
        if session is None:
            session = self._sessions[turn.session] = _Session(deque(maxlen=self._window))
            if len(self._sessions) > self._capacity:
                self._sessions.popitem(last=False)
        else:
            self._sessions.move_to_end(turn.session)
        seen = _Seen(turn.at, sketch(turn.prompt), turn.same, turn.refused, turn.score)
        signals = [
            name
            for name, holds in (
                ("refusal_then_success", _refusal_then_success(session, seen, turn)),
                ("retry_burst", _retry_burst(session, seen)),
                ("split_payload", self._split_payload(session, turn)),
            )
            if holds
        ]
        session.turns.append(seen)
        session.tail = f"{session.tail} {turn.prompt}"[-_TAIL:] if len(turn.prompt) <= _SHORT else ""
        return signals

    def _split_payload(self, session: _Session, turn: Turn) -> bool:
        """Neither part says much, together they do."""
        if not session.tail.strip() or not turn.prompt or len(turn.prompt) > _SHORT or turn.score >= self._alone:
            return False
        last = session.turns[-1]
        if turn.at - last.at > _JOIN_SECONDS:
            return False
        before = max(old.score for old in session.turns)
        return before < self._alone and joined_payload(self._judge, session.tail, turn.prompt, self._alone)


def joined_payload(judge: Callable[[str], float], before: str, now: str, alone: float) -> bool:
    """Whether two texts are an attack only together: what is told by the seam, and not the sum of both sides."""
    head, tail = now[:_TAIL], before[-_TAIL:]
    joined = judge(f"{tail} {head}")
    if joined < alone:
        return False
    first, second = judge(tail), judge(head)
    return first < alone and second < alone and joined > 1 - (1 - first) * (1 - second) + _SEAM


def _refusal_then_success(session: _Session, seen: _Seen, turn: Turn) -> bool:
    """An earlier attempt at the same thing was refused, or one as suspicious as this, and this one was answered."""
    if seen.refused or not turn.answered:
        return False
    return any(
        old.refused and (_alike(old, seen) >= _ATTEMPT or min(old.score, seen.score) > 0) for old in session.turns
    )


def _alike(old: _Seen, seen: _Seen) -> float:
    return 1.0 if old.same and old.same == seen.same else similarity(old.sketch, seen.sketch)


def _retry_burst(session: _Session, seen: _Seen) -> bool:
    """Several near-copies of one prompt within minutes; reported once for each burst. An equal prompt is none."""
    near = sum(
        1
        for old in session.turns
        if seen.at - old.at <= _BURST_SECONDS
        and old.sketch != seen.sketch
        and similarity(old.sketch, seen.sketch) >= _COPY
    )
    if near < _BURST - 1 or seen.at - session.reported_burst <= _BURST_SECONDS:
        return False
    session.reported_burst = seen.at
    return True


def call_signals(
    texts: Sequence[Text], flagged: frozenset[int], score: float, judge: Callable[[str], float], suspicious: float
) -> list[str]:
    """What the last turn of the conversation that one request carries completes; a function of these texts alone.

    Args:
        texts: all texts of the call in their order: history, this turn, then the answer.
        flagged: indexes of texts with evidence of injection.
        score: the injection score of the whole call.
        judge: the injection score of a text.
        suspicious: from which score on a text is noticed by itself.
    """
    turns = _history(texts, flagged)
    if len(turns) < 2:
        return []
    found: list[str] = []
    *earlier, last = turns
    if (last.answered and not last.refused and any(turn.refused for turn in earlier)) or len(turns) >= _BURST:
        view = SessionView(lambda _text: 0.0, suspicious=suspicious, capacity=1)
        for turn in turns:
            found = view.update(turn)
    if score < suspicious and 0 < len(last.prompt) <= _SHORT:
        before = " ".join(turn.prompt for turn in earlier if len(turn.prompt) <= _SHORT)
        if before and joined_payload(judge, before, last.prompt, suspicious):
            found.append("split_payload")
    return found


def _history(texts: Sequence[Text], flagged: frozenset[int]) -> list[Turn]:
    """The turns of one call: what users said until the assistant answered. The last ones, the newest at the end."""
    turns: list[Turn] = []
    asked: list[str] = []
    answers: list[str] = []
    score = 0.0
    for index, text in enumerate(texts):
        if text.role == "assistant" or text.place == "response":
            answers.append(text.text)
        elif text.role == "user":
            if answers:
                turns.append(_turn(len(turns), asked, answers, score))
                asked, answers, score = [], [], 0.0
            asked.append(text.text)
            score = max(score, 1.0 if index in flagged else 0.0)
    turns.append(_turn(len(turns), asked, answers, score))
    return turns[-_WINDOW:]


def _turn(number: int, asked: list[str], answers: list[str], score: float) -> Turn:
    refused = any(map(is_refusal, answers))
    return Turn("call", float(number), "\n".join(asked), bool(answers), refused, score)
