"""The classifier that aitrail ships: patterns, decoders and validators; no model, no network, linear time.

Roles are kept apart: user and tool text is judged for injection, system text and the assistant's earlier answers are
not;
the response is judged on its own, for what leaves with it. Secrets and personal data are looked for everywhere.
"""

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Final

import msgspec

from aitrail.classify import taxonomy
from aitrail.classify.contract import Evidence, Leak, Text, Verdict
from aitrail.classify.fold import fold
from aitrail.classify.inject import NOTHING, Finding, Injection
from aitrail.classify.leaks import UNCHECKED, Found, Leaks
from aitrail.classify.scoring import DEFAULT_THRESHOLDS, Thresholds
from aitrail.contentdir import content_path
from aitrail.event import Classification

RULES_VERSION: Final = "1.0"
# Texts longer than this are judged up to here; the rest is reported as a finding, so that masking hides it.
MAX_TEXT: Final = 1_000_000
_CACHED_TEXTS: Final = 2_048
_CACHED_LENGTH: Final = 16_384
_MAX_EVIDENCE: Final = 24

_JUDGED_ROLES: Final = frozenset(("user", "tool"))
# What a response is judged for beside leaks: what acts where it is shown.
_RESPONSE_SIGNALS: Final = frozenset(("rendering_exfiltration",))


class _Single(msgspec.Struct, frozen=True, gc=False):
    """What one text shows by itself."""

    score: float = 0.0
    findings: tuple[Finding, ...] = ()
    leaks: tuple[Found, ...] = ()
    truncated: bool = False


_CLEAN: Final = _Single()


class DefaultClassifier:
    """See the module's text. Thread-safe; the same texts always give the same verdict.

    Args:
        thresholds: where the tiers begin (``aitrail classify calibrate`` finds them for a tenant).
        folder: a directory with pattern files of the user's own instead of the shipped ones.
        engine: hyperscan, re2 or auto.
    """

    def __init__(
        self, thresholds: Thresholds = DEFAULT_THRESHOLDS, folder: Path | None = None, engine: str = "auto"
    ) -> None:
        self.thresholds = thresholds
        self._leaks = Leaks(folder)
        self._injection = Injection(self._leaks.gates, folder, engine)
        self.engine = self._injection.gated.engine
        self.version = f"{RULES_VERSION}+{_digest(folder or content_path('patterns'))}"
        self._repeated = lru_cache(maxsize=_CACHED_TEXTS)(self._single)

    def classify(self, texts: list[Text]) -> Verdict:
        """Judge ``texts``; never raises."""
        verdict = Verdict()
        found = False
        for index, item in enumerate(texts):
            text = item.text
            if not text:
                continue
            if item.place == "response":
                role = "response"
                verdict.response_classification = "clean"
            else:
                role = item.role
                verdict.prompt_classification = "clean"
                if role in _JUDGED_ROLES and verdict.injection_score is None:
                    verdict.injection_score = 0.0
            # System prompts come again with every call: they are worth remembering.
            known = role == "system" and len(text) <= _CACHED_LENGTH
            single = self._repeated(role, text) if known else self._single(role, text)
            if single is not _CLEAN:
                found = True
                _add(verdict, single, index, item.place)
        return self._finish(verdict, texts) if found else verdict

    def score(self, text: str) -> float:
        """The injection score of one user text by itself."""
        return self._single("user", text).score

    def _single(self, role: str, text: str) -> _Single:
        length = len(text)
        cut = length > MAX_TEXT
        if cut:
            text = text[:MAX_TEXT]
        folded = fold(text)
        gated = self._injection.gated
        scanned = gated.scan(folded.low)
        if not cut and self._injection.is_plain(folded, scanned):
            return _CLEAN
        fired = self._injection.outside(scanned) if scanned else []
        leaks, short = self._leaks.find(folded, fired) if fired else ([], False)
        judged = NOTHING
        if role in _JUDGED_ROLES:
            judged = self._injection.judge(text, role, folded, scanned)
        elif role == "response":
            judged = self._injection.judge_response(folded, scanned, _RESPONSE_SIGNALS)
        if not leaks and not judged.findings and not cut and not judged.truncated:
            return _CLEAN
        if cut:
            leaks = [*leaks, Found(UNCHECKED, "pii", MAX_TEXT, length)]
        return _Single(judged.score, judged.findings, tuple(leaks), cut or short or judged.truncated)

    def _finish(self, verdict: Verdict, texts: list[Text]) -> Verdict:
        if verdict.injection_score is not None:
            verdict.injection_tier = self.thresholds.tier(verdict.injection_score)
        if verdict.prompt_classification:
            attack = _attack(verdict, texts) if verdict.injection_tier else ""
            verdict.prompt_classification = _classification(attack, _groups(verdict, texts, "prompt"))
        if verdict.response_classification:
            verdict.response_classification = _classification("", _groups(verdict, texts, "response"))
        tags = taxonomy.tags_of(_signals(verdict, texts))
        verdict.atlas, verdict.owasp = tags.atlas, tags.owasp
        return verdict


def _add(verdict: Verdict, single: _Single, index: int, place: str) -> None:
    if place == "prompt" and single.score > (verdict.injection_score or 0.0):
        verdict.injection_score = single.score
    verdict.truncated = verdict.truncated or single.truncated
    if single.findings and len(verdict.evidence) < _MAX_EVIDENCE:
        strongest = sorted(single.findings, key=lambda item: -item.weight)[:_MAX_EVIDENCE]
        verdict.evidence += tuple(
            Evidence(item.concept, item.layer, index, item.start, item.end, item.weight, item.signal)
            for item in strongest
        )
    if single.leaks:
        verdict.leaks += tuple(Leak(item.kind, item.group, index, item.start, item.end) for item in single.leaks)


def _groups(verdict: Verdict, texts: list[Text], place: str) -> set[str]:
    return {leak.group for leak in verdict.leaks if texts[leak.text_index].place == place}


def _attack(verdict: Verdict, texts: list[Text]) -> Classification:
    """The kind of attack that the strongest evidence of the prompt stands for."""
    weights: dict[str, float] = {}
    for item in verdict.evidence:
        if texts[item.text_index].place == "prompt" and item.signal != "obfuscation":
            weights[item.signal] = max(weights.get(item.signal, 0.0), item.weight)
    strongest = max(weights, key=lambda signal: (weights[signal], signal), default="")
    if strongest == "jailbreak":
        return "jailbreak"
    return "prompt_extraction" if strongest == "prompt_extraction" else "prompt_injection"


def _classification(attack: Classification, groups: Iterable[str]) -> Classification:
    kinds = sorted(groups)
    if attack:
        return "mixed" if kinds else attack
    if not kinds:
        return "clean"
    if len(kinds) > 1:
        return "mixed"
    return "secret" if kinds[0] == "secret" else "pii" if kinds[0] == "pii" else "financial"


def _signals(verdict: Verdict, texts: list[Text]) -> frozenset[str]:
    """The signals whose taxonomy ids the verdict carries: those of evidence in a tier, and of leaks."""
    names: set[str] = set()
    for item in verdict.evidence:
        if verdict.injection_tier or texts[item.text_index].place == "response":
            names.add(item.signal)
    for leak in verdict.leaks:
        if texts[leak.text_index].place == "response":
            names.add("leakage_response")
        else:
            names.add("secret_prompt" if leak.group == "secret" else "leakage_prompt")
    names.discard("")
    return frozenset(names)


def _digest(folder: Path) -> str:
    """Eight hex digits over all pattern files, so that a verdict says which patterns made it."""
    state = hashlib.blake2b(digest_size=4)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            state.update(path.relative_to(folder).as_posix().encode() + b"\x00" + path.read_bytes() + b"\x00")
    return state.hexdigest()
