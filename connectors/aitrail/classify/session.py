"""The session view: what no single text shows. Refusal and then success, retry bursts, payloads split over turns.

Memory is bounded: at most ``capacity`` sessions, of each the last ``window`` turns, of each turn a sketch of 32
numbers and,
for joining split payloads, the last part of short prompts. Sessions that have been quiet for longest are dropped first.
"""

import re
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final
from zlib import crc32

import msgspec

from aitrail.classify.fold import fold

SIGNALS: Final = ("refusal_then_success", "retry_burst", "split_payload")

_SKETCH: Final = 32
_SIMILAR: Final = 0.6
_BURST: Final = 4
_BURST_SECONDS: Final = 600.0
# Score from which a prompt is noticed by itself.
_ALONE: Final = 0.5
_TAIL: Final = 600
_SHORT: Final = 1200
_PRIME: Final = (1 << 61) - 1
_SEEDS: Final = tuple(
    (0x9E3779B97F4A7C15 * (number + 1) % _PRIME, 0xC2B2AE3D27D4EB4F * (number + 3) % _PRIME)
    for number in range(_SKETCH)
)
_WORDS = re.compile(rb"[0-9a-z\x80-\xff]+")
_REFUSAL = re.compile(
    r"(?i)^.{0,80}?\b(?:i(?:'|\u2019)?m (?:sorry|unable|not able)|i am (?:sorry|unable|not able)|i can(?:not|'t|"
    r"\u2019t)|i won(?:'t|\u2019t)|"
    r"i (?:must|have to) decline|sorry,|as an ai|i(?:'|\u2019)m just an ai|it(?:'|\u2019)?s against|unable to "
    r"(?:help|assist|comply)|"
    r"ich kann (?:ihnen |dir )?(?:dabei |das )?(?:leider )?nicht|je ne peux pas|no puedo|nao posso|n\u00e3o posso|"
    r"non posso|tut mir leid)"
)


class Turn(msgspec.Struct, frozen=True, gc=False):
    """One call of a session: epoch seconds, what was asked and answered, the prompt's score, whether it was blocked."""

    session: str
    at: float
    prompt: str
    response: str = ""
    score: float = 0.0
    blocked: bool = False


class _Seen(msgspec.Struct, gc=False):
    at: float
    sketch: tuple[int, ...]
    refused: bool
    score: float


class _Session(msgspec.Struct, gc=False):
    turns: deque[_Seen]
    tail: str = ""
    reported_burst: float = float("-inf")


def sketch(text: str) -> tuple[int, ...]:
    """MinHash of the three-word runs of ``text`` (of its words when it is shorter); empty for an empty text."""
    words = _WORDS.findall(fold(text[:20_000]).low)
    runs = {b" ".join(words[at : at + 3]) for at in range(max(1, len(words) - 2))} if words else set()
    hashes = [crc32(run) for run in list(runs)[:2000]]
    if not hashes:
        return ()
    return tuple(min((a * value + b) % _PRIME for value in hashes) for a, b in _SEEDS)


def similarity(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """Estimate the Jaccard similarity of two sketched texts."""
    if not one or not other:
        return 0.0
    return sum(a == b for a, b in zip(one, other, strict=True)) / _SKETCH


def is_refusal(response: str) -> bool:
    """Whether an answer begins as refusals do."""
    return _REFUSAL.search(response[:300]) is not None


class SessionView:
    """Remembers sessions and says what a new turn adds. Not thread-safe.

    Args:
        judge: gives the injection score of a text (``DefaultClassifier.score``); used on joined short prompts.
        capacity: how many sessions are remembered at most.
        window: how many turns of each.
    """

    def __init__(self, judge: Callable[[str], float], *, capacity: int = 10_000, window: int = 12) -> None:
        self._judge = judge
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
        seen = _Seen(turn.at, sketch(turn.prompt), turn.blocked or is_refusal(turn.response), turn.score)
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
        session.tail = (session.tail + " " + turn.prompt)[-_TAIL:] if len(turn.prompt) <= _SHORT else ""
        return signals

    def _split_payload(self, session: _Session, turn: Turn) -> bool:
        """Neither part says much, together they do."""
        if not session.tail or len(turn.prompt) > _SHORT or turn.score >= _ALONE:
            return False
        before = session.turns[-1].score if session.turns else 0.0
        joined = self._judge(f"{session.tail} {turn.prompt}")
        return before < _ALONE <= joined and joined > max(before, turn.score)


def _refusal_then_success(session: _Session, seen: _Seen, turn: Turn) -> bool:
    """An earlier, similar or suspicious prompt was refused, and this one was answered."""
    if seen.refused or not turn.response:
        return False
    return any(
        old.refused and (similarity(old.sketch, seen.sketch) >= _SIMILAR / 2 or min(old.score, seen.score) > 0)
        for old in session.turns
    )


def _retry_burst(session: _Session, seen: _Seen) -> bool:
    """Several near-copies of one prompt within minutes; reported once for each burst."""
    near = sum(
        1
        for old in session.turns
        if seen.at - old.at <= _BURST_SECONDS
        and similarity(old.sketch, seen.sketch) >= _SIMILAR
        and old.sketch != seen.sketch
    )
    if near < _BURST - 1 or seen.at - session.reported_burst <= _BURST_SECONDS:
        return False
    session.reported_burst = seen.at
    return True
