"""Join what the classifier found with what the provider's guardrail said, and score the event.

Provider verdicts are merged, never overwritten: when only one of the two saw an attack, the flag
``verdict_disagreement`` says so. The risk score is a plain sum of the points below: a reader can check it by hand.
"""

from collections.abc import Mapping

from aitrail.classify.contract import Verdict
from aitrail.classify.taxonomy import Tags, join, signals
from aitrail.event import AccessEvent, Classification

# Guardrail categories (lower-case, as the normalizers write them) that mean an attack on the model's instructions:
# Azure OpenAI content filter `jailbreak` / `indirect_attack`, Bedrock guardrail content filter `prompt_attack`,
# and the names that gateway guardrails use. With the classification and the signal of content/taxonomy they stand for.
PROVIDER_ATTACKS: Mapping[str, tuple[Classification, str]] = {
    "jailbreak": ("jailbreak", "jailbreak"),
    "prompt_attack": ("prompt_injection", "direct_injection"),
    "prompt_injection": ("prompt_injection", "direct_injection"),
    "promptinjection": ("prompt_injection", "direct_injection"),
    "indirect_attack": ("prompt_injection", "indirect_injection"),
}
_ATTACK_CLASSES = frozenset({"prompt_injection", "jailbreak", "prompt_extraction"})

# Points per reason; capped at 100. Kept small and readable on purpose: a baseline per entity comes on top later.
POINTS: Mapping[str, int] = {
    "injection_high": 60,
    "injection_suspicious": 25,
    "provider_attack": 40,
    "attack_not_blocked": 20,
    "leak_secret_prompt": 40,
    "leak_secret_response": 70,
    "leak_financial_prompt": 20,
    "leak_financial_response": 60,
    "leak_pii_prompt": 10,
    "leak_pii_response": 30,
    "guardrail_blocked": 20,
    "guardrail_changed": 60,
    "credentials_changed": 30,
    "weights_access": 30,
    "model_or_data_changed": 10,
    "denied": 15,
}


def merge(event: AccessEvent, verdict: Verdict) -> None:
    """Write the classifier's verdict on ``event`` and merge the guardrail verdict that the record carries."""
    event.prompt_classification = verdict.prompt_classification
    event.response_classification = verdict.response_classification
    event.injection_score = verdict.injection_score
    event.injection_tier = verdict.injection_tier
    atlas, owasp = verdict.atlas, verdict.owasp
    attack = provider_attack(event)
    if attack is not None:
        provider, signal = attack
        mine = verdict.prompt_classification in _ATTACK_CLASSES
        if not mine:
            event.flags = (*event.flags, "verdict_disagreement")
            if verdict.prompt_classification in ("", "clean"):
                event.prompt_classification = provider
        both = join((Tags(atlas, owasp), signals()[signal]))
        atlas, owasp = both.atlas, both.owasp
    event.atlas, event.owasp = atlas, owasp


def provider_attack(event: AccessEvent) -> tuple[Classification, str] | None:
    """The attack that the provider's guardrail saw, as classification and signal; None when it saw none."""
    for category in event.guardrail_categories:
        found = PROVIDER_ATTACKS.get(category)
        if found:
            return found
    return None


def score(event: AccessEvent) -> None:
    """Set ``risk_score`` and ``risk_reasons``; events without a reason keep both empty."""
    reasons: list[str] = []
    attack = event.injection_tier == "high"
    if event.injection_tier:
        reasons.append(f"injection_{event.injection_tier}")
    if event.guardrail_categories and provider_attack(event) is not None:
        reasons.append("provider_attack")
        attack = True
    if attack and event.outcome_status == "success":
        reasons.append("attack_not_blocked")
    if event.outcome_status == "blocked":
        reasons.append("guardrail_blocked")
    elif event.outcome_status == "denied":
        reasons.append("denied")
    if event.leakage_types:
        reasons += _leak_reasons(event.leakage_types)
    if event.outcome_status == "success":
        change = _CHANGES.get(event.action_kind)
        if change and (event.read_only is False or event.action_kind == "weights"):
            reasons.append(change)
    if reasons:
        event.risk_reasons = tuple(reasons)
        event.risk_score = min(100, sum(POINTS[reason] for reason in reasons))


_CHANGES: Mapping[str, str] = {
    "guardrail": "guardrail_changed",
    "auth": "credentials_changed",
    "weights": "weights_access",
    "data": "model_or_data_changed",
    "admin": "model_or_data_changed",
}


def _leak_reasons(leakage_types: tuple[str, ...]) -> list[str]:
    """``place:group/kind`` entries to reasons, one per place and group."""
    found: dict[str, None] = {}
    for entry in leakage_types:
        place, _, kind = entry.partition(":")
        group, slash, _ = kind.partition("/")
        found[f"leak_{group if slash else 'pii'}_{place}"] = None
    return [reason for reason in found if reason in POINTS]
