"""From a normalized event to the bytes that are shipped: enrich, classify, treat by content mode, score, encode.

It keeps no records and writes nothing, and it is pure but for the tenant's keys and for scorers, where some are
configured. The texts of a call live only here, between the normalizer and the content mode.
"""

import threading
from collections.abc import Callable, Sequence
from typing import cast

from msgspec import Struct

from aitrail.classify.contract import Classifier, Leak, Place, Text, Verdict
from aitrail.classify.fingerprint import Echo, SystemPromptGuard
from aitrail.classify.scorer import Panel
from aitrail.classify.scoring import DEFAULT_THRESHOLDS, Thresholds
from aitrail.classify.session import call_signals, is_refusal
from aitrail.enrich import Directory
from aitrail.event import AccessEvent, ContentMode, encode
from aitrail.normalize.outcome import Content
from aitrail.ports import EncodedEvent
from aitrail.privacy.masking import mask
from aitrail.privacy.treat import Piece, Privacy, Stored, this_turn
from aitrail.verdicts import NEW_IN_ANSWER, add_signals, compare, merge, score

_NO_VERDICT = Verdict()
# What an echo is called among the types of leakage: place:group/kind.
_ECHOES = {"system_prompt_echo": "response:context/system_prompt", "canary_echo": "response:context/canary"}
# How many events go through each step before the next step begins (``Transform.finish_all``).
TOGETHER = 256
# Content modes that keep no text: none of it is sent to a service either.
NO_TEXT_OUT = frozenset({"none", "hash"})


class Unfinished(Struct, gc=False):
    """An event as it leaves the normalizers, the texts of its call, and the coordinates of its record.

    ``number`` is the caller's own; it is not looked at.
    """

    event: AccessEvent
    content: Content | None
    ref: str
    number: int = 0


class _Call(Struct, gc=False):
    """A call whose texts are being judged."""

    event: AccessEvent
    pieces: list[Piece]
    texts: list[Text]
    verdict: Verdict
    echoes: Sequence[Echo] = ()
    signals: Sequence[str] = ()


class Transform:
    """Turns outcomes into encoded events: everything between the normalizers and the outbox. Keeps no records.

    Args:
        classifier: judges the texts of a call.
        privacy: applies the content mode.
        directory: who works where.
        mode_of: the content mode by tenant.
        guard: looks for system prompts and canaries in answers; None: nobody does.
        panel: further judges; None: none.
    """

    def __init__(
        self,
        classifier: Classifier,
        privacy: Privacy,
        directory: Directory,
        mode_of: Callable[[str], ContentMode],
        guard: SystemPromptGuard | None = None,
        panel: Panel | None = None,
    ) -> None:
        self._classifier = classifier
        self._privacy = privacy
        self._directory = directory
        self._mode_of = mode_of
        self._guard = guard
        self._panel = panel or None
        self._judge_text: Callable[[str], float] | None = getattr(classifier, "score", None)
        self._thresholds: Thresholds = getattr(classifier, "thresholds", DEFAULT_THRESHOLDS)
        # Receivers and sources of one process may both be at it; matchers have room for one text at a time.
        self._judging = threading.Lock()

    def finish(self, event: AccessEvent, content: Content | None, ref: str, ingested_at: str) -> EncodedEvent:
        """Complete one event in place and encode it."""
        return self.finish_all([Unfinished(event, content, ref)], ingested_at)[0]

    def finish_all(self, events: Sequence[Unfinished], ingested_at: str) -> list[EncodedEvent]:
        """Complete events in place and encode them, in their order; each as ``finish`` would.

        One step after the other for all of them: what a step reads (patterns, tables, its own code) then stays in the
        processor's caches, which makes it up to a fifth faster than event by event.
        """
        calls: list[_Call] = []
        for item in events:
            event = item.event
            event.source_ref = item.ref
            event.ingested_at = ingested_at
            self._directory.fill(event)
            pieces = pieces_of(item.content) if item.content is not None else []
            if pieces:
                texts = [Text(cast("Place", piece.place), piece.role, piece.text) for piece in pieces]
                calls.append(_Call(event, pieces, texts, _NO_VERDICT))
            elif event.guardrail_action or event.guardrail_categories:
                merge(event, _NO_VERDICT)
                compare(event, _NO_VERDICT, (), judged=False)
        if calls:
            self._judge_all(calls)
        for item in events:
            score(item.event)
        return [EncodedEvent(item.event.event_id, item.event.timestamp, encode(item.event)) for item in events]

    def _judge_all(self, calls: Sequence[_Call]) -> None:
        for call in calls:
            with self._judging:
                call.verdict = self._classifier.classify(call.texts)
        if self._guard is not None:
            for call in calls:
                with self._judging:
                    call.echoes = self._guard.check(call.event.tenant_id, call.event.app, call.texts)
        for call in calls:
            with self._judging:
                call.signals = self._together(call.event, call.texts, call.verdict)
        for call in calls:
            with self._judging:
                self._apply(call)

    def _apply(self, call: _Call) -> None:
        """Write on the event what was found in its texts, and treat them by the content mode."""
        event, pieces, verdict, echoes, signals = call.event, call.pieces, call.verdict, call.echoes, call.signals
        event.classifier_version = self._classifier.version
        kinds: dict[str, None] = {}
        values: set[str] = set()
        for leak in verdict.leaks:
            piece = pieces[leak.text_index]
            piece.spans.append((leak.start, leak.end, leak.kind))
            if piece.role != "system":
                kinds[f"{piece.place}:{leak.group}/{leak.kind}"] = None
                values.add(piece.text[leak.start : leak.end])
        news = new_in_answer(pieces, verdict) if verdict.leaks else None
        for echo in echoes:
            kinds[_ECHOES[echo.signal]] = None
            values.add(echo.signal)
            if echo.end:
                pieces[echo.text_index].spans.append((echo.start, echo.end, "canary"))
        if kinds:
            event.leakage_types = tuple(kinds)
            event.leakage_count = len(values)
        merge(event, verdict)
        if echoes or signals or news is not None:
            names = [*(echo.signal for echo in echoes), *signals, *([NEW_IN_ANSWER] if news is not None else [])]
            add_signals(event, names)
        mode = self._mode_of(event.tenant_id)
        self._compare(event, pieces, call.texts, verdict, mode)
        if verdict.truncated:
            event.flags = (*event.flags, "judged_in_part")
        stored = self._privacy.treat(event, pieces, mode)
        if verdict.evidence or echoes or signals or news is not None:
            event.evidence = _evidence(verdict, echoes, signals, pieces, stored)
            if news is not None:
                place = _range(stored.place(news.text_index, news.start, news.end))
                event.evidence = (*event.evidence, f"{NEW_IN_ANSWER}|plain|response|{place}")

    def _together(self, event: AccessEvent, texts: list[Text], verdict: Verdict) -> list[str]:
        """What the texts of this call show together; also notes whether the model refused."""
        answers = [text.text for text in texts if text.place == "response"]
        if answers:
            event.response_refused = is_refusal(answers[0])
        if self._judge_text is None or not any(text.role == "assistant" and text.place == "prompt" for text in texts):
            return []
        flagged = frozenset(item.text_index for item in verdict.evidence)
        return call_signals(
            texts, flagged, verdict.injection_score or 0.0, self._judge_text, self._thresholds.suspicious
        )

    def _compare(
        self, event: AccessEvent, pieces: Sequence[Piece], texts: list[Text], verdict: Verdict, mode: ContentMode
    ) -> None:
        """Put the verdicts of guardrail and scorers beside the own one."""
        opinions = []
        if self._panel is not None:
            turn = this_turn(pieces)

            def masked() -> list[Text]:
                return [Text("prompt", pieces[i].role, mask(pieces[i].text, pieces[i].spans).text) for i in turn]

            opinions = self._panel.opinions(
                [texts[i] for i in turn],
                None if mode in NO_TEXT_OUT else masked,
                verdict,
                high=self._thresholds.high,
            )
        if opinions or event.guardrail_action:
            compare(event, verdict, opinions, judged=True)


def _evidence(
    verdict: Verdict, echoes: Sequence[Echo], signals: Sequence[str], pieces: Sequence[Piece], stored: Stored
) -> tuple[str, ...]:
    """All evidence as codes ``concept|layer|role|start-end``, offsets into the stored text."""
    found = [
        f"{item.concept}|{item.layer}|{_role(pieces[item.text_index])}|"
        + _range(stored.place(item.text_index, item.start, item.end))
        for item in verdict.evidence
    ]
    for echo in echoes:
        span = stored.place(echo.text_index, echo.start, echo.end) if echo.end else None
        found.append(f"{echo.signal}|{echo.layer}|response|{_range(span)}")
    found += [f"{signal}|history|user|" for signal in signals]
    return tuple(found)


def _role(piece: Piece) -> str:
    return "response" if piece.place == "response" else piece.role


def _range(span: tuple[int, int] | None) -> str:
    return "" if span is None else f"{span[0]}-{span[1]}"


def new_in_answer(pieces: Sequence[Piece], verdict: Verdict) -> Leak | None:
    """The first secret or personal datum of the answer that nothing in the prompt holds, in whatever spelling."""
    answers = [leak for leak in verdict.leaks if pieces[leak.text_index].place == "response"]
    if not answers:
        return None
    known = {
        _bare(pieces[leak.text_index].text[leak.start : leak.end])
        for leak in verdict.leaks
        if pieces[leak.text_index].place == "prompt"
    }
    for leak in answers:
        value = pieces[leak.text_index].text[leak.start : leak.end]
        if _bare(value) in known or any(value in piece.text for piece in pieces if piece.place == "prompt"):
            continue
        return leak
    return None


def _bare(value: str) -> str:
    return "".join(char for char in value.lower() if char.isalnum())


def pieces_of(content: Content) -> list[Piece]:
    """The texts of a call in the order in which they are judged and stored."""
    pieces = [Piece("prompt", message.role, message.text) for message in content.messages if message.text]
    if content.response:
        pieces.append(Piece("response", "assistant", content.response))
    pieces += [Piece("response", "assistant", call) for call in content.tool_calls if call]
    return pieces
