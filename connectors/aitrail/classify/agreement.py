"""Other judges beside ours: provider verdicts and optional scorers, merged and never overwritten.

A provider's verdict (Azure content filter, Bedrock guardrail, a gateway's guardrail, Defender for AI) and the score
of an
optional model are kept beside the own verdict; that they agree or disagree is itself worth recording, because a
disagreement is where either one has a gap.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from aitrail.classify.contract import Text, Verdict

Agreement = Literal["", "both", "only_own", "only_other", "neither"]


class Opinion(msgspec.Struct, frozen=True, gc=False):
    """What another judge said of the same call.

    Attributes:
        judge: its name, lower-case: azure-content-filter, bedrock-guardrail, prompt-guard ...
        attack: whether it saw prompt injection or a jailbreak; None when it does not look for that.
        leak: whether it saw secrets or personal data; None when it does not look for that.
        score: its score, 0 to 1, where it gives one.
    """

    judge: str
    attack: bool | None = None
    leak: bool | None = None
    score: float | None = None


class Scorer(Protocol):
    """An optional judge: a transformer (Prompt Guard class) or a provider's service. Off unless configured.

    It must not raise: a judge that cannot answer gives an opinion with None.
    """

    name: str

    def opinion(self, texts: Sequence[Text]) -> Opinion:
        """Judge the same texts that the classifier judged."""
        ...


class Merged(msgspec.Struct, frozen=True, gc=False):
    """All verdicts side by side; ``flags`` are bounded codes: ``disagree:azure-content-filter:attack`` ..."""

    attack: bool
    attack_agreement: Agreement
    leak_agreement: Agreement
    flags: tuple[str, ...]


_ATTACKS = frozenset(
    (
        "jailbreak",
        "prompt_injection",
        "prompt_attack",
        "indirect_attack",
        "prompt_shield",
        "jailbreak_detected",
        "userpromptattack",
        "documentattack",
    )
)
_LEAKS = frozenset(
    ("pii", "sensitive_information", "secrets", "secret", "personal_data", "protected_data", "credential_theft")
)


def opinion_of_guardrail(name: str, action: str, categories: Sequence[str]) -> Opinion | None:
    """Read a guardrail's verdict as an event carries it; None when none ran or it failed."""
    if not action or action == "failed":
        return None
    seen = {category.lower().replace(" ", "_").replace("-", "_") for category in categories}
    stopped = action in ("blocked", "flagged", "masked")
    attack = bool(seen & _ATTACKS) if seen else (None if stopped else False)
    leak = bool(seen & _LEAKS) if seen else (None if stopped else False)
    return Opinion(
        name or "guardrail", attack if stopped or attack is None else False, leak if stopped or leak is None else False
    )


def merge(verdict: Verdict, opinions: Sequence[Opinion]) -> Merged:
    """Put the own verdict and the others side by side."""
    own_attack = bool(verdict.injection_tier)
    own_leak = bool(verdict.leaks)
    flags = []
    for opinion in opinions:
        for what, own, other in (("attack", own_attack, opinion.attack), ("leak", own_leak, opinion.leak)):
            if other is not None and other is not own:
                flags.append(f"disagree:{opinion.judge}:{what}")
    others_attack = [opinion.attack for opinion in opinions if opinion.attack is not None]
    others_leak = [opinion.leak for opinion in opinions if opinion.leak is not None]
    return Merged(
        own_attack or any(others_attack),
        _agreement(own_attack, others_attack),
        _agreement(own_leak, others_leak),
        tuple(flags),
    )


def _agreement(own: bool, others: Sequence[bool]) -> Agreement:
    if not others:
        return ""
    if any(others):
        return "both" if own else "only_other"
    return "only_own" if own else "neither"
