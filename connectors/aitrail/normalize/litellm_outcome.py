"""What became of a LiteLLM call: the guardrail's word first, then the gateway's status and error.

A blocked request is logged as ``status: failure`` with error code "400", so the status alone would call it an error
(measured on a 1.106 proxy). Guardrail states and their order of severity: ``_get_status_fields`` in LiteLLM's
``litellm_core_utils/litellm_logging.py``, with the older words ``blocked`` and ``failure``.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from aitrail.event import OutcomeStatus
from aitrail.normalize.litellm_types import ErrorInformation, Guardrail
from aitrail.normalize.vocabulary import filter_name

_INTERVENED, _FAILED, _FLAGGED, _PASSED, _NOT_RUN = 4, 3, 2, 1, 0
_SEVERITY: dict[str, int] = {
    "not_run": _NOT_RUN,
    "success": _PASSED,
    "guardrail_flagged": _FLAGGED,
    "guardrail_failed_to_respond": _FAILED,
    "failure": _FAILED,
    "guardrail_intervened": _INTERVENED,
    "blocked": _INTERVENED,
}
_ACTION: dict[int, str] = {_NOT_RUN: "", _PASSED: "allowed", _FLAGGED: "flagged", _FAILED: "failed"}

# Exception classes say more than the status: a budget or a content policy may come with 400. (litellm/exceptions.py)
_BY_CLASS: dict[str, OutcomeStatus] = {
    "authenticationerror": "denied",
    "permissiondeniederror": "denied",
    "ratelimiterror": "throttled",
    "budgetexceedederror": "throttled",
    "contentpolicyviolationerror": "blocked",
    "guardrailraisedexception": "blocked",
    "guardrailinterventionnormalstringerror": "blocked",
    "blockedpiientityerror": "blocked",
    "rejectedrequesterror": "blocked",
}
# What the proxy says when it cannot accept the key that was presented, where class and code do not tell: no key at all,
# and, without a database of keys, every key but the master key (measured on a 1.106 proxy: no code, and code 400).
_NOT_ADMITTED = frozenset({"no api key passed in.", "no connected db."})
_BY_CODE: dict[int, OutcomeStatus] = {401: "denied", 403: "denied", 429: "throttled", 446: "blocked"}


class Judgement(msgspec.Struct, frozen=True, gc=False):
    """Outcome, guardrail verdict and error of one call, in the event's words."""

    outcome: OutcomeStatus = "unknown"
    guardrail_action: str = ""
    guardrail_name: str = ""
    guardrail_categories: tuple[str, ...] = ()
    error_code: str = ""
    http_status: int | None = None
    flags: tuple[str, ...] = ()


PLAIN_SUCCESS = Judgement("success")


def judge(
    status: str | None,
    guardrail_status: str | None,
    guardrails: Sequence[Guardrail],
    error: ErrorInformation | None,
    *,
    finish_reason: str = "",
    provider: str = "",
) -> Judgement:
    """Decide from the guardrail's status, the call's status and its error; never raises, never guesses."""
    if status == "success" and not guardrails and guardrail_status in (None, "not_run"):
        if finish_reason != "content_filter":
            return PLAIN_SUCCESS
        return Judgement("blocked", "blocked", filter_name(provider))
    code, http_status, outcome = _error(status, error)
    worst, masked = _worst(guardrail_status, guardrails)
    action = _ACTION.get(worst, "")
    flags: tuple[str, ...] = ()
    if worst == _INTERVENED:
        # "Blocked or modified": a call that succeeded with the guardrail's own masks in it was let through.
        action = "masked" if masked and status == "success" else "blocked"
        outcome = "success" if action == "masked" else "blocked"
    elif worst == _FAILED:
        flags = ("guardrail_failed",)
    elif outcome == "blocked" or (status == "success" and finish_reason == "content_filter"):
        outcome = action = "blocked"
    elif masked:
        action = "masked"
    if guardrails:
        name = _name(guardrails)
    elif outcome == "blocked" and worst < _INTERVENED:
        name = filter_name(provider)
    else:
        name = ""
    return Judgement(outcome, action, name, _categories(guardrails), code, http_status, flags)


def _error(status: str | None, error: ErrorInformation | None) -> tuple[str, int | None, OutcomeStatus]:
    """Give error code, HTTP status and the outcome that they and the call's status stand for."""
    kind = (error.error_class or "").lower() if error else ""
    raw = str(error.error_code) if error and error.error_code is not None else ""
    number = int(raw) if len(raw) == 3 and raw.isascii() and raw.isdigit() else None
    if status == "success":
        return kind, number, "success"
    if status != "failure" and not kind and not raw:
        return "", None, "unknown"
    outcome = _BY_CLASS.get(kind) or _BY_CODE.get(number or 0) or "error"
    if outcome == "error" and error is not None and isinstance(error.error_message, str):
        said = error.error_message[:64].lower()
        if said in _NOT_ADMITTED or said.startswith("authentication error"):
            outcome = "denied"
    return kind or raw.lower()[:64], number, outcome


def _severity(rail: Guardrail) -> int:
    return _SEVERITY.get(rail.guardrail_status or "", _NOT_RUN)


def _masks(rail: Guardrail) -> bool:
    return bool(rail.masked_entity_count) and "block" not in (rail.guardrail_action or "").lower()


def _worst(guardrail_status: str | None, guardrails: Sequence[Guardrail]) -> tuple[int, bool]:
    """The most severe state, and whether text was masked: by any guardrail, or by every one that intervened."""
    worst = max(map(_severity, guardrails), default=_NOT_RUN)
    worst = max(worst, _SEVERITY.get(guardrail_status or "", _NOT_RUN))
    if worst < _INTERVENED:
        return worst, any(map(_masks, guardrails))
    acting = [rail for rail in guardrails if _severity(rail) == _INTERVENED]
    return worst, bool(acting) and all(map(_masks, acting))


def _name(guardrails: Sequence[Guardrail]) -> str:
    """Name of the (first) guardrail with the most severe state."""
    rail = max(guardrails, key=_severity)
    return (rail.guardrail_name or rail.guardrail_provider or "").lower()


def _categories(guardrails: Sequence[Guardrail]) -> tuple[str, ...]:
    """What the guardrails saw: violated policies, matched patterns, kinds of masked entities; each once, in order."""
    found: dict[str, None] = {}
    for rail in guardrails:
        for category in rail.violation_categories or ():
            found[category.lower()] = None
        for name in _patterns(rail.guardrail_response):
            found[name] = None
        for entity in rail.masked_entity_count or ():
            found[entity.lower()] = None
    return tuple(found)


def _patterns(response: Any) -> Iterator[str]:
    """Names of the patterns and categories that LiteLLM's own content filter matched; never the text that matched."""
    for item in response if isinstance(response, list) else ():
        if isinstance(item, dict):
            for key in ("pattern_name", "category"):
                name = item.get(key)
                if isinstance(name, str) and 0 < len(name) <= 64:
                    yield name.lower()
