r"""Measuring a classifier on a labelled file: recall and false positives per kind, ranking, speed.

A file has one JSON object per line with ``text``, ``label`` (1 attack or leak, 0 harmless), ``kind`` and optionally
``role``
(user, tool, system, assistant) and ``source``. Lines end at ``\\n`` only: texts may hold U+2028 and other line
separators.

Every kind is reported in both senses: how often a tier of injection was reached, and how often a leak was found.
Which of
the two counts for a kind follows from its name: ``secret_*``, ``pii_*``, ``leak_*`` and ``financial_*`` are judged
by leaks.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from aitrail.classify.contract import Classifier, Text
from aitrail.classify.targets import Outcome, Target, families, flagged, macro, measure_of, share, targets
from aitrail.errors import ConfigError


class Row(msgspec.Struct, frozen=True, gc=False):
    """One labelled text."""

    text: str
    label: int
    kind: str = ""
    role: str = "user"
    source: str = ""


class KindReport(msgspec.Struct, gc=False):
    """What happened to the rows of one kind (or of one source of a kind). Shares are in percent.

    ``flagged`` and ``flagged_high`` are the columns that count for the kind: the tiers of injection, or leaks.
    """

    kind: str
    label: int
    measure: str
    rows: int = 0
    suspicious: float = 0.0
    high: float = 0.0
    leaks: float = 0.0
    flagged: float = 0.0
    flagged_high: float = 0.0
    source: str = ""


class Report(msgspec.Struct, gc=False):
    """The result of one evaluation.

    Times are milliseconds of processor time of one core, rates per second of it: what else the machine does at the time
    hardly changes them.

    Attributes:
        classifier: version of what was measured.
        recall, recall_high: share of attack rows in a tier, all rows alike.
        recall_macro: mean over families of attacks, the ``encoded_*`` kinds being one family and the hard ones left out
            (``aitrail.classify.targets``); ``families``: the recall of each.
        targets: the project's goals, as far as the file has rows for them.
        false_positives, false_positives_high: share of harmless rows, by the columns that count for their kinds.
        leak_recall, leak_false_positives: the same for rows whose kind is judged by leaks.
        auc: chance that an attack scores above a harmless text (rows judged by injection; ties count half).
    """

    file: str
    classifier: str
    rows: int
    kinds: list[KindReport]
    sources: list[KindReport]
    recall: float | None
    recall_high: float | None
    recall_macro: float | None
    families: dict[str, float]
    targets: list[Target]
    false_positives: float | None
    false_positives_high: float | None
    leak_recall: float | None
    leak_false_positives: float | None
    auc: float | None
    texts_per_second: float
    megabytes_per_second: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    truncated: int


def read_rows(path: Path) -> Iterator[Row]:
    """Read a labelled file; raises ``ConfigError`` that names the line when it is not one."""
    decoder = msgspec.json.Decoder(Row)
    try:
        data = path.read_bytes()
    except OSError as fault:
        raise ConfigError(f"cannot be read: {fault.strerror}", where=str(path)) from None
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            yield decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as fault:
            hint = "every line is one JSON object with text, label, kind and optionally role and source"
            raise ConfigError(f"line {number}: {fault}", where=str(path), hint=hint) from None


def evaluate(path: Path, classifier: Classifier) -> Report:
    """Judge every row of ``path`` by itself and report; raises ``ConfigError`` when the file is not readable."""
    rows = list(read_rows(path))
    outcomes = [_judge(classifier, row) for row in rows]
    kinds = _grouped(outcomes, by_source=False)
    injection = [one for one in outcomes if measure_of(one.kind) == "injection"]
    leaking = [one for one in outcomes if measure_of(one.kind) == "leaks"]
    attacks = [one for one in injection if one.label]
    harmless = [one for one in injection if not one.label]
    seconds = sorted(one.seconds for one in outcomes)
    total = sum(seconds)
    size = sum(one.size for one in outcomes)
    return Report(
        file=path.name,
        classifier=classifier.version,
        rows=len(rows),
        kinds=kinds,
        sources=_grouped(outcomes, by_source=True),
        recall=share(attacks, lambda one: bool(one.tier)),
        recall_high=share(attacks, lambda one: one.tier == "high"),
        recall_macro=macro(outcomes, flagged),
        families=families(outcomes, flagged),
        targets=targets(outcomes),
        false_positives=share(harmless, lambda one: bool(one.tier)),
        false_positives_high=share(harmless, lambda one: one.tier == "high"),
        leak_recall=share([one for one in leaking if one.label], lambda one: one.leaks),
        leak_false_positives=share([one for one in leaking if not one.label], lambda one: one.leaks),
        auc=auc([one.score for one in attacks], [one.score for one in harmless]),
        texts_per_second=round(len(rows) / total, 0) if total else 0.0,
        megabytes_per_second=round(size / total / 1e6, 2) if total else 0.0,
        p50_ms=_quantile(seconds, 0.5),
        p99_ms=_quantile(seconds, 0.99),
        max_ms=_quantile(seconds, 1.0),
        truncated=sum(one.truncated for one in outcomes),
    )


def _judge(classifier: Classifier, row: Row) -> Outcome:
    place = "response" if row.role == "assistant" else "prompt"
    text = Text("response" if place == "response" else "prompt", row.role or "user", row.text)
    started = time.thread_time()
    verdict = classifier.classify([text])
    seconds = time.thread_time() - started
    return Outcome(
        row.label, row.kind, row.source, verdict.injection_score or 0.0, verdict.injection_tier, bool(verdict.leaks),
        seconds, len(row.text.encode("utf-8", "replace")), verdict.truncated,
    )  # fmt: skip


def _grouped(outcomes: list[Outcome], *, by_source: bool) -> list[KindReport]:
    groups: dict[tuple[int, str, str], list[Outcome]] = {}
    for one in outcomes:
        if by_source and not one.source:
            continue
        groups.setdefault((one.label, one.kind, one.source if by_source else ""), []).append(one)
    reports = []
    for (label, kind, source), members in sorted(groups.items(), key=lambda item: (-item[0][0], item[0][1:])):
        suspicious = share(members, lambda one: bool(one.tier)) or 0.0
        high = share(members, lambda one: one.tier == "high") or 0.0
        leaks = share(members, lambda one: one.leaks) or 0.0
        measure = measure_of(kind)
        counts = (leaks, leaks) if measure == "leaks" else (suspicious, high)
        reports.append(KindReport(kind, label, measure, len(members), suspicious, high, leaks, *counts, source))
    return reports


def _quantile(ordered: list[float], share: float) -> float:
    if not ordered:
        return 0.0
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000, 3)


def auc(positive: list[float], negative: list[float]) -> float | None:
    """Area under the ROC curve by ranks; None when one side is empty."""
    if not positive or not negative:
        return None
    ordered = sorted([(score, 1) for score in positive] + [(score, 0) for score in negative])
    rank_sum = 0.0
    at = 0
    while at < len(ordered):
        end = at
        while end < len(ordered) and ordered[end][0] == ordered[at][0]:
            end += 1
        rank_sum += sum(label for _, label in ordered[at:end]) * (at + end + 1) / 2
        at = end
    count = len(positive)
    return round((rank_sum - count * (count + 1) / 2) / (count * len(negative)), 4)
