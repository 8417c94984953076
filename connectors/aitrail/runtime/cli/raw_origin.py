"""Where an event's record lies, whether it is still there, and the record itself, masked."""

import re
from pathlib import Path

import msgspec

from aitrail.classify.contract import Classifier, Text
from aitrail.clock import SystemClock, iso_ms
from aitrail.event import AccessEvent
from aitrail.normalize.outcome import Context, Normalized, Rejected
from aitrail.privacy.masking import mask
from aitrail.runtime.cli.raw_view import masked_json

_REF = re.compile(r"(?P<origin>.+)#offset=(?P<offset>\d+)&record=(?P<record>\d+)", re.DOTALL)


class Origin(msgspec.Struct, omit_defaults=True):
    """The place of a record.

    ``state`` says whether it can be read again, ``integrity`` what was found out about the object when it was read;
    ``record`` is its masked JSON text.
    """

    source: str = ""
    place: str = ""
    offset: int = 0
    index: int = 0
    state: str = ""
    integrity: str = ""
    record: str = ""

    def facts(self) -> list[tuple[str, object]]:
        """Label and value of each fact, for a table."""
        return [
            ("source", self.source),
            ("file or object", self.place),
            ("byte offset", f"{self.offset:,} in the decompressed text"),
            ("record number", f"{self.index:,}"),
            ("state", self.state),
            ("integrity", self.integrity),
        ]


def parse_ref(ref: str) -> tuple[str, int, int] | None:
    """``<origin>#offset=N&record=M`` -> origin, N, M; None when the text has another form."""
    found = _REF.fullmatch(ref)
    return (found["origin"], int(found["offset"]), int(found["record"])) if found else None


def find_origin(event: AccessEvent, *, read: bool) -> Origin:
    """Find the record of ``event``; with ``read`` also read it again, masked by the event's content mode."""
    place = parse_ref(event.source_ref)
    if place is None:
        return Origin(source=event.source, state="the event does not say where it came from")
    origin, offset, index = place
    found = Origin(source=event.source, place=origin, offset=offset, index=index)
    if not _is_file(origin):
        found.state = "not on this machine (moved, deleted or remote)"
        return found
    found.state = "the file is still there; --raw shows the record"
    if read:
        raw = _reread(origin, offset, index)
        if raw is None or not is_origin_of(raw, event, origin):
            found.state = "the file is there, but another record is at that place now (rotated or rewritten)"
        else:
            found.record = masked_json(raw, event, _leak_mask())
            found.state = f"read again: {len(raw):,} bytes, {_mode(event)}"
    return found


def attested(store: Path, origin: str) -> str:
    """What was found out about an object's integrity when it was read; empty when it was not checked."""
    from aitrail.spool import Spool, states  # noqa: PLC0415  (only when there is an origin)

    if not origin:
        return ""
    with Spool.open(store, SystemClock(), write=False) as spool:
        found = states.attestation(spool.database, origin)
    return f"{found.verdict}, noted {iso_ms(found.at)}" if found is not None else ""


def _is_file(origin: str) -> bool:
    from aitrail.sources.file import restored  # noqa: PLC0415  (only when there is an origin)

    try:
        return Path(restored(origin)).is_file()
    except (OSError, ValueError):
        return False


def is_origin_of(raw: bytes, event: AccessEvent, origin: str) -> bool:
    """Whether ``raw`` still becomes ``event`` (or a part of it): a rotated file may hold somebody else's record."""
    from aitrail.normalize.registry import NORMALIZERS  # noqa: PLC0415  (loads every normalizer)

    normalize = NORMALIZERS.get(event.source)
    if normalize is None:
        return False
    for outcome in normalize(raw, Context(tenant_id=event.tenant_id, origin=origin)):
        if isinstance(outcome, Rejected):
            continue
        part = outcome.event
        if part.event_id == event.event_id:
            return True
        # A part of a joined event has an id of its own; what joins the parts is the request.
        if not isinstance(outcome, Normalized) and part.request_id and part.request_id == event.request_id:
            return True
    return False


def _mode(event: AccessEvent) -> str:
    if event.content_mode == "full":
        return "shown whole (content mode full)"
    if not event.content_mode:
        return "shown without secrets and personal data (the record holds no content)"
    return f"only what the event holds is shown (content mode {event.content_mode})"


def _reread(origin: str, offset: int, index: int) -> bytes | None:
    from aitrail.sources.file import FileSource  # noqa: PLC0415  (only when asked for)

    return FileSource("explain", (origin,), clock=SystemClock()).reread(origin, offset, 0, index)


class _LeakMask:
    """Masks what the classifier finds in one text."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier

    def __call__(self, text: str) -> str:
        verdict = self._classifier.classify([Text("prompt", "user", text)])
        return mask(text, [(leak.start, leak.end, leak.kind) for leak in verdict.leaks]).text


def _leak_mask() -> _LeakMask:
    from aitrail.classify.default import DefaultClassifier  # noqa: PLC0415  (compiles patterns)

    return _LeakMask(DefaultClassifier())
