"""Other judges beside ours: verdicts of providers and optional scorers, merged and never overwritten.

A provider's verdict (Azure content filter, Bedrock guardrail, a gateway's guardrail, Defender for AI) and that of a
scorer are kept beside the own verdict. That they agree or disagree is itself recorded: a disagreement is where either
one has a gap.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec

Agreement = Literal["", "both", "only_own", "only_other", "neither"]
ATTACK: Final = "attack"
LEAK: Final = "leak"


class Opinion(msgspec.Struct, frozen=True, gc=False):
    """What another judge said of the same call.

    Attributes:
        judge: its name, lower-case: azure-content-filter, gr-7f3a, prompt-guard ...
        attack: whether it saw prompt injection or a jailbreak; None when it does not look for that or did not say.
        leak: whether it saw secrets or personal data; None likewise.
        score: its score for an attack, 0 to 1, where it gives one.
        failure: why it gave no answer, a bounded code; empty when it answered.
    """

    judge: str
    attack: bool | None = None
    leak: bool | None = None
    score: float | None = None
    failure: str = ""


class Merged(msgspec.Struct, frozen=True, gc=False):
    """All verdicts side by side, as events carry them.

    Attributes:
        opinions: ``judge|attack|yes|0.98``, ``judge|leak|no``, ``judge|attack|none|timeout``.
        agreement: ``attack:both``, ``leak:only_other`` ...; nothing where no other judge said anything.
        disagree: whether anybody contradicts anybody.
    """

    opinions: tuple[str, ...]
    agreement: tuple[str, ...]
    disagree: bool


# What judges call an attack on the model's instructions. Azure OpenAI content filter: `jailbreak`, `indirect_attack`
# (also with `detected` behind it); Bedrock guardrail: `prompt_attack`; Prompt Shields: userPrompt and document attacks;
# Defender for AI: alert types `AI.Azure_Jailbreak...`, `AI.Azure_ASCIISmuggling`; the rest are names of gateways.
_ATTACKS: Final = frozenset(
    (
        "jailbreak", "jailbreak_detected", "prompt_injection", "promptinjection", "prompt_attack", "indirect_attack",
        "prompt_shield", "userpromptattack", "documentattack", "injection", "prompt_leakage", "prompt_leak",
        "ai.azure_jailbreak.contentfiltering.blockedattempt", "ai.azure_jailbreak.contentfiltering.detectedattempt",
        "ai.azure_asciismuggling",
    )
)  # fmt: skip
# The same for secrets and personal data; entity names are Presidio's, as gateways write them.
_LEAKS: Final = frozenset(
    (
        "pii", "sensitive_information", "secrets", "secret", "personal_data", "protected_data", "credential_theft",
        "credit_card", "crypto", "email_address", "iban_code", "phone_number", "us_ssn", "us_bank_number",
        "us_driver_license", "us_itin", "us_passport", "uk_nhs", "person", "location", "ip_address", "medical_license",
        "api_key", "password", "aws_access_key", "ai.azure_credentialtheftattempt",
    )
)  # fmt: skip
_LEAK_PREFIXES: Final = ("pii:", "regex:")
# What a judge looks for even when it names nothing: (attack, leak). Others are only taken at what they name.
_LOOKS_FOR: Final[Mapping[str, tuple[bool, bool]]] = {
    "azure-content-filter": (True, False),
}


def opinion_of_guardrail(name: str, action: str, categories: Sequence[str]) -> Opinion | None:
    """Read a guardrail's verdict as an event carries it; None when none ran.

    What it names it saw. What it does not name it only denies when it is known to look for it: a guardrail that is set
    up for personal data and lets a call pass has said nothing about injection.
    """
    if not action:
        return None
    judge = name or "guardrail"
    if action == "failed":
        return Opinion(judge, failure="failed")
    seen = [category.lower().replace(" ", "_").replace("-", "_") for category in categories]
    looks = _LOOKS_FOR.get(judge, (False, False))
    attack = True if any(item in _ATTACKS for item in seen) else (False if looks[0] else None)
    leak = (
        True
        if any(item in _LEAKS or item.startswith(_LEAK_PREFIXES) for item in seen)
        else (False if looks[1] else None)
    )
    return Opinion(judge, attack, leak)


def merge(*, attack: bool, leak: bool, sure: bool, opinions: Sequence[Opinion]) -> Merged:
    """Put the own verdict and the others side by side.

    Args:
        attack: whether aitrail's own verdict is in a tier of injection.
        leak: whether it found secrets or personal data.
        sure: whether its tier is ``high``; a merely suspicious prompt that others let pass is no disagreement.
        opinions: what the others said.
    """
    agreement = []
    disagree = False
    for what, own in ((ATTACK, attack), (LEAK, leak)):
        others = [said for said in (getattr(opinion, what) for opinion in opinions) if said is not None]
        if not others:
            continue
        together = _agreement(own=own, others=others)
        agreement.append(f"{what}:{together}")
        disagree = (
            disagree
            or together == "only_other"
            or (together == "only_own" and what == ATTACK and sure)
            or len(set(others)) > 1
        )
    return Merged(tuple(code for opinion in opinions for code in codes(opinion)), tuple(agreement), disagree)


def codes(opinion: Opinion) -> list[str]:
    """An opinion as events carry it; the name of the judge cannot break the form."""
    judge = opinion.judge.lower().replace("|", "_")[:128]
    if opinion.failure:
        return [f"{judge}|{ATTACK}|none|{opinion.failure}"]
    score = "" if opinion.score is None else f"|{opinion.score:.4g}"
    found = []
    for what, said in ((ATTACK, opinion.attack), (LEAK, opinion.leak)):
        if said is not None:
            found.append(f"{judge}|{what}|{'yes' if said else 'no'}" + (score if what == ATTACK else ""))
    return found


def _agreement(*, own: bool, others: Sequence[bool]) -> Agreement:
    if any(others):
        return "both" if own else "only_other"
    return "only_own" if own else "neither"
