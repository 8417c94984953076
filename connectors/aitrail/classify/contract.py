"""The classifier's interface: texts with roles in, one verdict out; pure, total, linear-time and capped.

``classify(content, hints) -> Verdict`` never raises. Offsets in evidence and findings are into the judged text itself
(before masking); ``privacy`` maps them when it masks.
"""

from typing import Literal, Protocol

import msgspec

from aitrail.event import Classification, InjectionTier

Place = Literal["prompt", "response"]


class Text(msgspec.Struct, frozen=True, gc=False):
    """One text to judge. ``role`` is system, user, tool or assistant; ``place`` says which side of the call it is."""

    place: Place
    role: str
    text: str


class Evidence(msgspec.Struct, frozen=True, gc=False):
    """One piece of evidence of injection: ``texts[text_index].text[start:end]`` on ``layer`` shows ``concept``.

    ``signal`` is its key in ``content/taxonomy/signals.toml``.
    """

    concept: str
    layer: str
    text_index: int
    start: int
    end: int
    weight: float = 0.0
    signal: str = ""


class Leak(msgspec.Struct, frozen=True, gc=False):
    """A secret or personal datum at ``texts[text_index].text[start:end]``; the value itself is not carried."""

    kind: str
    group: Literal["secret", "pii", "financial"]
    text_index: int
    start: int
    end: int


class Verdict(msgspec.Struct, gc=False):
    """What was found. ``leaks`` cover every span that masking must hide, in any order, possibly overlapping."""

    prompt_classification: Classification = ""
    response_classification: Classification = ""
    injection_score: float | None = None
    injection_tier: InjectionTier = ""
    evidence: tuple[Evidence, ...] = ()
    leaks: tuple[Leak, ...] = ()
    atlas: tuple[str, ...] = ()
    owasp: tuple[str, ...] = ()
    truncated: bool = False


class Classifier(Protocol):
    """Judges the texts of one call. Thread-safe; the same texts always give the same verdict."""

    version: str

    def classify(self, texts: list[Text]) -> Verdict:
        """Judge ``texts``; never raises."""
        ...
