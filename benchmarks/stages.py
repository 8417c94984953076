"""CPU time of each stage of the pipeline, by the project's own code, on records of the demo's generator.

Records are made outside the measured time, ``CHUNK`` at a time, so that memory and caches are those of a real run.
Everything is measured in CPU seconds of this process (user and system), which on one core is what counts.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any, cast

from msgspec import Struct, field

import ceiling
from aitrail.classify.contract import Text
from aitrail.classify.default import DefaultClassifier
from aitrail.clock import SystemClock
from aitrail.delivery import Courier
from aitrail.demo import bench
from aitrail.demo.writer import DAY, SEED
from aitrail.destinations.store import StoreDestination
from aitrail.enrich import Directory
from aitrail.event import AccessEvent, encode
from aitrail.normalize.detect import Detector
from aitrail.normalize.join import Joiner
from aitrail.normalize.outcome import Content, Context, Fragment, Normalized, Rejected
from aitrail.normalize.registry import NORMALIZERS
from aitrail.ports import EncodedEvent
from aitrail.privacy.keys import KeyRing
from aitrail.privacy.treat import Piece, Privacy
from aitrail.secrets import Secrets
from aitrail.spool import Intake, Spool
from aitrail.transform import TOGETHER, Transform, Unfinished, pieces_of

CHUNK = 2_000
MIX = ("cloudtrail", "azure_openai", "litellm")
STAGES = (
    "detect + normalize",
    "classify",
    "(classify, no text remembered)",
    "privacy + hash",
    "encode",
    "outbox commit",
    "store flush",
)
Pair = tuple[AccessEvent, Content | None]


class Figures(Struct):
    """CPU seconds by stage for ``records`` records of ``size`` bytes together; each becomes one event.

    ``core`` is detect, normalize, join, classify, content mode, hash and encode in one loop, as the pipeline runs it.
    ``typed`` and ``plain`` are the decode-only ceilings.
    """

    kind: str
    records: int = 0
    size: int = 0
    stages: dict[str, float] = field(default_factory=dict)
    core: float = 0.0
    typed: float = 0.0
    plain: float = 0.0

    def add(self, stage: str, seconds: float) -> None:
        """Add CPU seconds to a stage."""
        self.stages[stage] = self.stages.get(stage, 0.0) + seconds


class Parts(Struct):
    """The pipeline's parts, as ``runtime.assemble`` puts them together, on a store of their own."""

    spool: Spool
    courier: Courier
    privacy: Privacy
    classifier: DefaultClassifier
    forgetful: DefaultClassifier
    transform: Transform


@contextmanager
def parts() -> Iterator[Parts]:
    """Open a store in a temporary directory."""
    with TemporaryDirectory(prefix="aitrail-bench-") as name:
        directory = Path(name)
        clock = SystemClock()
        spool = Spool.open(directory, clock)
        privacy = Privacy(KeyRing(directory / "keys", {}, Secrets()))
        classifier = DefaultClassifier()
        destination = StoreDestination(spool, directory)
        try:
            transform = Transform(classifier, privacy, Directory(), lambda _: "redacted")
            courier = Courier(spool, destination, clock)
            yield Parts(spool, courier, privacy, classifier, DefaultClassifier(remembered=0), transform)
        finally:
            destination.close()
            spool.close()


def typed_decoder(kind: str) -> Callable[[bytes], Any]:
    """The typed decoder of one kind of records."""
    return ceiling.TYPED["litellm" if kind.startswith("litellm") else kind]


def chunks(kind: str, count: int, seed: int) -> Iterator[list[tuple[str, bytes]]]:
    """Records of ``kind`` as (kind, bytes) pairs in lists of ``CHUNK``; ``mix`` takes one of each in turn."""
    kinds = MIX if kind == "mix" else (kind,)
    sources = [bench.records(name, seed, DAY, count) for name in kinds]
    made = 0
    while made < count:
        size = min(CHUNK, count - made)
        rows: list[tuple[str, bytes]] = []
        while len(rows) < size:
            for name, source in zip(kinds, sources, strict=True):
                rows += [(name, raw) for raw in islice(source, 1)]
        yield rows[:size]
        made += size


def measure(kind: str, count: int) -> Figures:
    """Measure all stages for ``count`` records of ``kind``."""
    figures = Figures(kind)
    with parts() as own:
        core = _Core(own.transform)
        for rows in chunks(kind, CHUNK, SEED + 1000):  # what is built once is not what a long run pays for
            _apart(Figures(kind), [raw for _, raw in rows], own, number=-1)
        # Two streams: what a stage remembers of the one (addresses, roles, times) must not speed up the other.
        apart, together = (chunks(kind, count, SEED + offset) for offset in (0, 1))
        for number, (one, other) in enumerate(zip(apart, together, strict=True)):
            figures.records += len(one)
            figures.size += sum(len(raw) for _, raw in one)
            _ceilings(figures, one)
            _apart(figures, [raw for _, raw in one], own, number=number)
            raws = [raw for _, raw in other]
            started = process_time()
            core.run(raws)
            figures.core += process_time() - started
        started = process_time()
        own.courier.drain()
        figures.add(STAGES[-1], process_time() - started)
    return figures


def _ceilings(figures: Figures, rows: Sequence[tuple[str, bytes]]) -> None:
    decoders = {name: typed_decoder(name) for name, _ in rows}
    started = process_time()
    for name, raw in rows:
        decoders[name](raw)
    middle = process_time()
    for _, raw in rows:
        ceiling.PLAIN(raw)
    figures.typed += middle - started
    figures.plain += process_time() - middle


class _Core:
    """The pipeline between framing and the outbox, in one loop."""

    def __init__(self, transform: Transform) -> None:
        self.transform = transform
        self.detector = Detector()
        self.joiner = Joiner()
        self.context = Context(tenant_id="acme", origin="bench")

    def run(self, raws: Sequence[bytes]) -> list[EncodedEvent]:
        """Turn raw records into encoded events, as many at a time as the pipeline."""
        out: list[EncodedEvent] = []
        events = normalized(raws, self.detector, self.joiner, self.context)
        while some := [Unfinished(*pair, "bench#offset=0&record=0") for pair in islice(events, TOGETHER)]:
            out += self.transform.finish_all(some, "2026-11-20T00:00:00.000Z")
        return out


def normalized(raws: Sequence[bytes], detector: Detector, joiner: Joiner, context: Context) -> Iterator[Pair]:
    """Detect, normalize and join, one record after the other; a rejected record stops the benchmark."""
    detect = detector.detect
    for raw in raws:
        for outcome in NORMALIZERS[detect(raw)](raw, context):
            if type(outcome) is Normalized:
                yield outcome.event, outcome.content
            elif type(outcome) is Fragment:
                for joined, _ in joiner.add(outcome, None):
                    if joined.event is not None:
                        yield joined.event, joined.content
            elif type(outcome) is Rejected:
                raise SystemExit(f"a generated record was rejected: {outcome.code} {outcome.field}")


def _apart(figures: Figures, raws: Sequence[bytes], own: Parts, *, number: int) -> None:
    """One chunk, stage by stage."""
    detector, joiner, context = Detector(), Joiner(), Context(tenant_id="acme", origin="bench")
    t0 = process_time()
    pairs = list(normalized(raws, detector, joiner, context))
    pairs += [(joined.event, joined.content) for joined, _ in joiner.flush() if joined.event is not None]
    t1 = process_time()
    pieces = [pieces_of(content) if content is not None else [] for _, content in pairs]
    _classify(own.classifier, pieces)
    t2 = process_time()
    _classify(own.forgetful, pieces)
    t2b = process_time()
    treat = own.privacy.treat
    for (event, _), group in zip(pairs, pieces, strict=True):
        if group:
            treat(event, group, "redacted")
    t3 = process_time()
    encoded = [EncodedEvent(event.event_id, event.timestamp, encode(event)) for event, _ in pairs]
    t4 = process_time()
    own.spool.commit(
        Intake(
            source="bench",
            destinations=("store",),
            events=encoded,
            cursors={"file": number.to_bytes(8, signed=True)},
            dead=[],
            unless={},
            counts={"records": len(raws)},
            resolved=[],
        )
    )
    t5 = process_time()
    own.courier.drain(at_least=own.courier.batch_events)
    t6 = process_time()
    spent = (t1 - t0, t2 - t1, t2b - t2, t3 - t2b, t4 - t3, t5 - t4, t6 - t5)
    for stage, seconds in zip(STAGES, spent, strict=True):
        figures.add(stage, seconds)


def _classify(classifier: DefaultClassifier, pieces: Sequence[Sequence[Piece]]) -> None:
    for group in pieces:
        if group:
            classifier.classify([Text(cast("Any", piece.place), piece.role, piece.text) for piece in group])
