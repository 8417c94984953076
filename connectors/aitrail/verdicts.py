"""Join what the classifier found with what others said, and score the event.

Verdicts of others are merged, never overwritten: ``verdict_opinions`` keeps each, ``verdict_agreement`` says how they
compare, and the flag ``verdict_disagreement`` stands where somebody contradicts somebody. The risk score is a plain sum
of the points below: a reader can check it by hand.
"""

from collections.abc import Mapping, Sequence

from aitrail.classify import agreement
from aitrail.classify.agreement import Opinion, opinion_of_guardrail
from aitrail.classify.contract import Verdict
from aitrail.classify.session import SIGNALS
from aitrail.classify.taxonomy import Tags, join, signals, tags_of
from aitrail.event import AccessEvent, Classification

# Guardrail categories (lower-case, as the normalizers write them) that mean an attack on the model's instructions:
# Azure OpenAI content filter `jailbreak` / `indirect_attack`, Bedrock guardrail content filter `prompt_attack`, the
# names that gateway guardrails use, and alert types of Defender for AI; with the classification and the signal of
# content/taxonomy that they stand for.
PROVIDER_ATTACKS: Mapping[str, tuple[Classification, str]] = {
    "jailbreak": ("jailbreak", "jailbreak"),
    "prompt_attack": ("prompt_injection", "direct_injection"),
    "prompt_injection": ("prompt_injection", "direct_injection"),
    "promptinjection": ("prompt_injection", "direct_injection"),
    "indirect_attack": ("prompt_injection", "indirect_injection"),
    "ai.azure_jailbreak.contentfiltering.blockedattempt": ("jailbreak", "jailbreak"),
    "ai.azure_jailbreak.contentfiltering.detectedattempt": ("jailbreak", "jailbreak"),
    "ai.azure_asciismuggling": ("prompt_injection", "obfuscation"),
}
# A secret or personal datum that the answer holds and nothing in the prompt does.
NEW_IN_ANSWER = "leak_new_in_answer"

# Points per reason; capped at 100. Kept small and readable on purpose: a baseline per entity comes on top later.
POINTS: Mapping[str, int] = {
    "injection_high": 60,
    "injection_suspicious": 25,
    "provider_attack": 40,
    "scorer_attack": 25,
    "attack_not_blocked": 20,
    "refusal_then_success": 20,
    "retry_burst": 10,
    "split_payload": 25,
    "leak_new_in_answer": 10,
    "leak_context_response": 60,
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
    """Write the classifier's verdict on ``event`` and merge the attack that the record's guardrail names."""
    event.prompt_classification = verdict.prompt_classification
    event.response_classification = verdict.response_classification
    event.injection_score = verdict.injection_score
    event.injection_tier = verdict.injection_tier
    atlas, owasp = verdict.atlas, verdict.owasp
    attack = provider_attack(event)
    if attack is not None:
        provider, signal = attack
        if verdict.prompt_classification in ("", "clean"):
            event.prompt_classification = provider
        both = join((Tags(atlas, owasp), signals()[signal]))
        atlas, owasp = both.atlas, both.owasp
    event.atlas, event.owasp = atlas, owasp


def add_signals(event: AccessEvent, names: Sequence[str]) -> None:
    """Add findings beside those of single texts: their tags, and what they make of an answer that looked clean."""
    both = join((Tags(event.atlas, event.owasp), tags_of(frozenset(names))))
    event.atlas, event.owasp = both.atlas, both.owasp
    if any(name.endswith("_echo") for name in names):
        found = event.response_classification
        event.response_classification = "prompt_extraction" if found in ("", "clean") else "mixed"


def compare(event: AccessEvent, verdict: Verdict, opinions: Sequence[Opinion], *, judged: bool) -> None:
    """Put the guardrail's verdict and those of scorers beside the own one.

    Args:
        event: the event, with the classifier's verdict written on it.
        verdict: the own verdict.
        opinions: what scorers said.
        judged: whether there was a text to judge; without one aitrail has no opinion to disagree with.
    """
    guardrail = opinion_of_guardrail(event.guardrail_name, event.guardrail_action, event.guardrail_categories)
    everybody = [*([guardrail] if guardrail is not None else []), *opinions]
    merged = agreement.merge(
        attack=bool(verdict.injection_tier),
        leak=bool(event.leakage_types),
        sure=verdict.injection_tier == "high",
        opinions=everybody,
    )
    event.verdict_opinions = merged.opinions
    if judged:
        event.verdict_agreement = merged.agreement
        if merged.disagree:
            event.flags = (*event.flags, "verdict_disagreement")
    if any(opinion.attack for opinion in opinions) and event.prompt_classification in ("", "clean"):
        event.prompt_classification = "prompt_injection"
        add_signals(event, ["direct_injection"])


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
    if event.verdict_opinions and _scorer_attack(event):
        reasons.append("scorer_attack")
    if event.evidence:
        concepts = {code.partition("|")[0] for code in event.evidence}
        reasons += [signal for signal in (*SIGNALS, NEW_IN_ANSWER) if signal in concepts]
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


def _scorer_attack(event: AccessEvent) -> bool:
    """Whether a judge other than the record's own guardrail, whose word has points of its own, saw an attack."""
    own = (event.guardrail_name or "guardrail").lower() if event.guardrail_action else ""
    return any(
        parts[1:3] == ["attack", "yes"] and parts[0] != own
        for parts in (code.split("|") for code in event.verdict_opinions)
    )


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
