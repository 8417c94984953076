"""Bedrock guardrail verdicts, as Converse, InvokeModel and their streams carry them.

* Converse: ``stopReason`` is ``guardrail_intervened``, details in ``trace.guardrail``;
* InvokeModel: ``amazon-bedrock-guardrailAction`` and ``amazon-bedrock-trace.guardrail``; in a stream inside one chunk.

Sources: Bedrock API reference ("GuardrailAssessment"), Bedrock user guide ("Use a guardrail with inference").
What matched (``match``) is content and is never read.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

_MAX_DEPTH = 8
_MAX_ITEMS = 1000
_INTERVENED = frozenset({"intervened", "guardrail_intervened"})
# policy -> its lists -> (prefix of the category, key that names it)
_POLICIES: dict[str, dict[str, tuple[str, str]]] = {
    "contentPolicy": {"filters": ("", "type")},
    "topicPolicy": {"topics": ("topic:", "name")},
    "wordPolicy": {"customWords": ("custom_word", ""), "managedWordLists": ("", "type")},
    "sensitiveInformationPolicy": {"piiEntities": ("pii:", "type"), "regexes": ("regex:", "name")},
    "contextualGroundingPolicy": {"filters": ("", "type")},
    "automatedReasoningPolicy": {"findings": ("automated_reasoning", "")},
}


class Verdict(msgspec.Struct, gc=False):
    """What the guardrail did: ``action`` blocked, masked, flagged, allowed or empty (none ran)."""

    action: str = ""
    name: str = ""
    categories: tuple[str, ...] = ()


class _Found(msgspec.Struct, gc=False):
    intervened: bool = False
    ran: bool = False
    name: str = ""
    actions: set[str] = set()
    categories: dict[str, None] = {}


def read_verdict(body: Any, finish: str) -> Verdict:
    """The verdict in a response body or in a stream's chunks; ``finish`` is the reason why generation ended."""
    found = _Found(intervened=finish in _INTERVENED, ran=finish in _INTERVENED)
    for part in body[:100_000] if isinstance(body, list) else (body,):
        if isinstance(part, dict):
            _read_part(part, found)
            if isinstance(part.get("metadata"), dict):  # last event of ConverseStream
                _read_part(part["metadata"], found)
    return Verdict(_action(found), found.name.lower(), tuple(found.categories))


def _action(found: _Found) -> str:
    """An intervention whose every finding was anonymized let the answer through with parts masked."""
    if found.intervened:
        return "masked" if "anonymized" in found.actions and "blocked" not in found.actions else "blocked"
    if not found.ran:
        return ""
    return "flagged" if found.categories else "allowed"


def _read_part(part: dict[str, Any], found: _Found) -> None:
    action = part.get("amazon-bedrock-guardrailAction")
    if isinstance(action, str):
        found.ran = True
        found.intervened = found.intervened or action.lower() in _INTERVENED
    for key in ("trace", "amazon-bedrock-trace"):
        trace = part.get(key)
        if isinstance(trace, dict):
            for name in ("guardrail", "guardrails"):
                if isinstance(trace.get(name), dict):
                    found.ran = True
                    _assessments(trace[name], found)


def _assessments(trace: dict[str, Any], found: _Found) -> None:
    """``input``/``inputAssessment`` and ``outputs``/``outputAssessments`` map guardrail ids to assessments."""
    for key in ("input", "inputAssessment", "outputs", "output", "outputAssessments"):
        holder = trace.get(key)
        for by_id in holder[:_MAX_ITEMS] if isinstance(holder, list) else (holder,):
            for name, value in by_id.items() if isinstance(by_id, dict) else ():
                if not found.name:
                    found.name = str(name)[:256]
                for assessment in value[:_MAX_ITEMS] if isinstance(value, list) else (value,):
                    if isinstance(assessment, dict):
                        _assessment(assessment, found)


def _assessment(assessment: dict[str, Any], found: _Found) -> None:
    for policy, lists in _POLICIES.items():
        holder = assessment.get(policy)
        if not isinstance(holder, dict):
            continue
        for key, (prefix, name_key) in lists.items():
            for item in _dicts(holder.get(key)):
                _finding(item, prefix, name_key, found)


def _finding(item: dict[str, Any], prefix: str, name_key: str, found: _Found) -> None:
    detected, action = item.get("detected"), item.get("action")
    if detected is False or ("score" in item and action == "NONE" and detected is not True):
        return  # looked for and not found; a grounding score on the right side of its threshold
    if isinstance(action, str):
        found.actions.add(action.lower())
    name = item.get(name_key) if name_key else ""
    category = f"{prefix}{name}"[:128].lower() if isinstance(name, str) else prefix.rstrip(":")
    if category:
        found.categories[category] = None


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        for item in value[:_MAX_ITEMS]:
            if isinstance(item, dict):
                yield item
