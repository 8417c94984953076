"""What a collection would do: reads and normalizes, writes nothing anywhere."""

from collections import Counter
from collections.abc import Iterator

from msgspec.structs import replace

from aitrail.normalize.detect import Detector
from aitrail.normalize.outcome import Context, Rejected
from aitrail.normalize.registry import NORMALIZERS
from aitrail.normalize.undetected import why_unknown
from aitrail.pipeline import COUNTED_ONLY, Totals
from aitrail.ports import Budget, Source


class NoCursors:
    """Cursors of a source that was never read."""

    def get(self, key: str) -> bytes | None:
        """Nothing is committed."""
        del key
        return None

    def items(self) -> Iterator[tuple[str, bytes]]:
        """Nothing is committed."""
        return iter(())


def dry_run(source: Source, known: Context, record_type: str = "", budget: Budget | None = None) -> Totals:
    """Count what ``source`` holds, by record type and by reason; ``new`` is the number of events it would give.

    ``known`` is what the normalizers may know besides the record: the tenant, a field map.
    Parts that would be joined count as one event each, so ``new`` is an upper bound where records come in parts.
    """
    totals = Totals()
    detector = Detector()
    for batch in source.fetch(NoCursors(), budget or Budget()):
        context = replace(known, origin=batch.origin)
        for record in batch.records:
            totals.records += 1
            found = "" if record.error else batch.record_type or record_type or detector.detect(record.data)
            if record.error:
                totals.rejected[record.error] += 1
            elif not found:
                totals.rejected[why_unknown(record.data).code] += 1
            else:
                totals.by_type[found] += 1
                _count(totals, NORMALIZERS[found](record.data, context))
        totals.bytes += batch.bytes_read
        totals.objects += batch.settled
    return totals


def _count(totals: Totals, outcomes: object) -> None:
    for outcome in outcomes:  # type: ignore[attr-defined]
        if isinstance(outcome, Rejected):
            kind: Counter[str] = totals.skipped if outcome.code in COUNTED_ONLY else totals.rejected
            kind[outcome.code] += 1
        else:
            totals.new += 1
