"""The classifier that aitrail ships: patterns, decoders and validators; no model, no network, linear time.

Roles are kept apart: user and tool text is judged for injection, system text and the assistant's earlier answers are
not;
the response is judged on its own, for what leaves with it. Secrets and personal data are looked for everywhere.
"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from aitrail.classify import taxonomy
from aitrail.classify.contract import Evidence, Leak, Text, Verdict
from aitrail.classify.fold import fold
from aitrail.classify.inject import NOTHING, Finding, Injection
from aitrail.classify.leaks import UNCHECKED, Found, Leaks
from aitrail.classify.patterns import FIXED_FILES
from aitrail.classify.scoring import DEFAULT_THRESHOLDS, Thresholds
from aitrail.classify.unwrap import decoded_forms
from aitrail.contentdir import content_path
from aitrail.event import Classification

RULES_VERSION: Final = "1.2"
# Texts longer than this are judged up to here; the rest is reported as a finding, so that masking hides it.
MAX_TEXT: Final = 1_000_000
# Chat clients send the whole conversation with every call: verdicts of texts are kept, under digests of the texts. An
# entry counts one and one more for everything that was found; a few hundred bytes each.
_REMEMBERED: Final = 20_000
_REMEMBERED_LENGTH: Final = 65_536
_MAX_EVIDENCE: Final = 24

_JUDGED_ROLES: Final = frozenset(("user", "tool"))
# Roles in which the same text is judged differently.
_PERSON: Final = {"user": b"user", "tool": b"tool", "response": b"response"}
# What a response is judged for beside leaks: what acts where it is shown.
_RESPONSE_SIGNALS: Final = frozenset(("rendering_exfiltration",))


class _Single(msgspec.Struct, frozen=True, gc=False):
    """What one text shows by itself."""

    score: float = 0.0
    findings: tuple[Finding, ...] = ()
    leaks: tuple[Found, ...] = ()
    truncated: bool = False


_CLEAN: Final = _Single()


class Recent:
    """Verdicts of the texts that were judged last, bounded by what they hold.

    Two halves; when the younger one is full the older one is dropped. Threads may lose an entry to each other and never
    get a wrong one.
    """

    def __init__(self, limit: int) -> None:
        self._half = limit // 2
        self._size = 0
        self._young: dict[bytes, _Single] = {}
        self._old: dict[bytes, _Single] = {}

    @staticmethod
    def key(role: str, text: str) -> bytes:
        """Name a text in a role; nothing of the text can be read from it."""
        data = text.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(data, digest_size=16, person=_PERSON.get(role, b"")).digest()

    def get(self, key: bytes) -> _Single | None:
        """Give the verdict that was kept under ``key``, if any."""
        single = self._young.get(key)
        if single is None:
            single = self._old.get(key)
            if single is not None:
                self.put(key, single)
        return single

    def put(self, key: bytes, single: _Single) -> None:
        """Keep a verdict."""
        size = 1 + len(single.findings) + len(single.leaks)
        if size > self._half:
            return
        self._size += size
        if self._size > self._half:
            self._old, self._young, self._size = self._young, {}, size
        self._young[key] = single


class DefaultClassifier:
    """See the module's text. Thread-safe; the same texts always give the same verdict.

    Args:
        thresholds: where the tiers begin (``aitrail classify calibrate`` finds them for a tenant).
        folder: a directory with pattern files of the user's own instead of the shipped ones.
        engine: hyperscan, re2 or auto.
        remembered: about how many verdicts are kept for texts that come again; 0 judges every text anew.
    """

    def __init__(
        self,
        thresholds: Thresholds = DEFAULT_THRESHOLDS,
        folder: Path | None = None,
        engine: str = "auto",
        remembered: int = _REMEMBERED,
    ) -> None:
        self.thresholds = thresholds
        self._leaks = Leaks(folder, engine)
        self._injection = Injection(self._leaks.gates, folder, engine, _RESPONSE_SIGNALS)
        self.engine = self._injection.gated.engine
        self.version = f"{RULES_VERSION}+{_digest(folder or content_path('patterns'))}"
        self._recent = Recent(remembered)
        self._remembers = remembered > 0

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
            single = self._known(role, text)
            if single is not _CLEAN:
                found = True
                _add(verdict, single, index, item.place)
        return self._finish(verdict, texts) if found else verdict

    def score(self, text: str) -> float:
        """The injection score of one user text by itself."""
        return self._single("user", text).score

    def layers(self, text: str) -> Iterator[tuple[str, bytes]]:
        """What ``text`` says once decoded: name and folded bytes of every form."""
        return decoded_forms(self._injection, text)

    def _known(self, role: str, text: str) -> _Single:
        """Judge one text, or take the verdict of the same text in the same role from memory."""
        if not self._remembers or len(text) > _REMEMBERED_LENGTH:
            return self._single(role, text)
        key = Recent.key(role, text)
        single = self._recent.get(key)
        if single is None:
            single = self._single(role, text)
            self._recent.put(key, single)
        return single

    def _single(self, role: str, text: str) -> _Single:
        length = len(text)
        cut = length > MAX_TEXT
        if cut:
            text = text[:MAX_TEXT]
        folded = fold(text)
        gated = self._injection.gated
        scanned = gated.scan(folded.low) if role in _JUDGED_ROLES else gated.scan_answer(folded.low)
        if not scanned and not cut and role not in _JUDGED_ROLES:
            return _CLEAN
        fired = self._injection.outside(scanned) if scanned else []
        leaks: list[Found] = []
        short = False
        if fired:
            leaks, short = self._leaks.find(folded, fired, long_run=self._injection.has_long_run(scanned))
        judged = NOTHING
        if role in _JUDGED_ROLES:
            judged = self._injection.judge(text, role, folded, scanned)
        elif role == "response":
            judged = self._injection.judge_response(folded, scanned)
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
    files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    files |= {Path(name): content_path("patterns", name) for name in FIXED_FILES}
    for name, path in sorted(files.items()):
        state.update(name.as_posix().encode() + b"\x00" + path.read_bytes() + b"\x00")
    return state.hexdigest()
