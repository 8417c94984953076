"""From a normalized event to the bytes that are shipped: enrich, classify, treat by content mode, score, encode.

Pure but for the tenant's keys: it keeps no records and writes nothing. The texts of a call live only here, between the
normalizer and the content mode.
"""

from collections.abc import Callable, Sequence
from typing import cast

from aitrail.classify.contract import Classifier, Place, Text, Verdict
from aitrail.enrich import Directory
from aitrail.event import AccessEvent, ContentMode, encode
from aitrail.normalize.outcome import Content
from aitrail.ports import EncodedEvent
from aitrail.privacy.treat import Piece, Privacy
from aitrail.verdicts import merge, score

_NO_VERDICT = Verdict()


class Transform:
    """Turns outcomes into encoded events: everything between the normalizers and the outbox. Keeps no records."""

    def __init__(
        self,
        classifier: Classifier,
        privacy: Privacy,
        directory: Directory,
        mode_of: Callable[[str], ContentMode],
    ) -> None:
        self._classifier = classifier
        self._privacy = privacy
        self._directory = directory
        self._mode_of = mode_of

    def finish(self, event: AccessEvent, content: Content | None, ref: str, ingested_at: str) -> EncodedEvent:
        """Complete one event in place and encode it."""
        event.source_ref = ref
        event.ingested_at = ingested_at
        self._directory.fill(event)
        pieces = pieces_of(content) if content is not None else []
        if pieces:
            self._judge(event, pieces)
        elif event.guardrail_categories:
            merge(event, _NO_VERDICT)
        score(event)
        return EncodedEvent(event.event_id, event.timestamp, encode(event))

    def _judge(self, event: AccessEvent, pieces: Sequence[Piece]) -> None:
        texts = [Text(cast("Place", piece.place), piece.role, piece.text) for piece in pieces]
        verdict = self._classifier.classify(texts)
        event.classifier_version = self._classifier.version
        kinds: dict[str, None] = {}
        values: set[str] = set()
        for leak in verdict.leaks:
            piece = pieces[leak.text_index]
            piece.spans.append((leak.start, leak.end, leak.kind))
            if piece.role != "system":
                kinds[f"{piece.place}:{leak.group}/{leak.kind}"] = None
                values.add(piece.text[leak.start : leak.end])
        if kinds:
            event.leakage_types = tuple(kinds)
            event.leakage_count = len(values)
        merge(event, verdict)
        if verdict.truncated:
            event.flags = (*event.flags, "judged_in_part")
        stored = self._privacy.treat(event, pieces, self._mode_of(event.tenant_id))
        if verdict.evidence:
            event.evidence = tuple(
                f"{item.concept}|{item.layer}|{_role(pieces[item.text_index])}|"
                + _range(stored.place(item.text_index, item.start, item.end))
                for item in verdict.evidence
            )


def _role(piece: Piece) -> str:
    return "response" if piece.place == "response" else piece.role


def _range(span: tuple[int, int] | None) -> str:
    return "" if span is None else f"{span[0]}-{span[1]}"


def pieces_of(content: Content) -> list[Piece]:
    """The texts of a call in the order in which they are judged and stored."""
    pieces = [Piece("prompt", message.role, message.text) for message in content.messages if message.text]
    if content.response:
        pieces.append(Piece("response", "assistant", content.response))
    pieces += [Piece("response", "assistant", call) for call in content.tool_calls if call]
    return pieces
