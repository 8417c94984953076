"""One ``send`` under way: what each event became so far, and the loop that every batch protocol shares."""

from collections.abc import Callable, Iterable, Sequence

import msgspec

from aitrail.destinations._batching import OVERSIZE_CODE, Oversize, fit, halves
from aitrail.destinations._raw_fields import UNENCODABLE_CODE
from aitrail.errors import AuthError, ConfigError, TransientError
from aitrail.ports import DELIVERED, Ack, EncodedEvent, Verdict

Run = tuple[int, int]

# So many events refused one by one, and not one ever taken: then the target is wrong, not the events.
_SUSPICIOUS = 10
_SMALLEST_CUT = 4_096
_LATER = "interrupted"


class Work(msgspec.Struct):
    """The events of one ``send``, their encoded forms, and their verdicts.

    Attributes:
        batch: what was asked to be sent.
        deadline: monotonic seconds.
        verdicts: one per event of ``batch``, None while it is open.
        places: for each encoded form, which event it is of.
        lines: the encoded forms.
        refused: how many encoded forms the receiver refused for good.
        accepted: how many it took, or had already.
    """

    batch: Sequence[EncodedEvent]
    deadline: float
    verdicts: list[Verdict | None]
    places: list[int] = []
    lines: list[bytes] = []
    refused: int = 0
    accepted: int = 0

    @classmethod
    def of(cls, batch: Sequence[EncodedEvent], deadline: float) -> "Work":
        """Begin; nothing is judged yet."""
        return cls(batch, deadline, [None] * len(batch))

    def judge(self, line: int, verdict: Verdict) -> None:
        """Set the verdict of one encoded form, as the receiver gave it."""
        self.verdicts[self.places[line]] = verdict
        self._count(verdict, 1)

    def judge_all(self, first: int, behind: int, verdict: Verdict) -> None:
        """Set the same verdict for encoded forms [first, behind)."""
        for place in self.places[first:behind]:
            self.verdicts[place] = verdict
        self._count(verdict, behind - first)

    def _count(self, verdict: Verdict, lines: int) -> None:
        if verdict.status in ("delivered", "duplicate"):
            self.accepted += lines
        elif verdict.status == "rejected" and verdict.code != OVERSIZE_CODE:
            self.refused += lines


def encode_all(
    work: Work, make: Callable[[EncodedEvent], bytes], event_bytes: int, line_bytes: int, policy: Oversize
) -> None:
    """Encode the events of ``work``; one that cannot be encoded, or is too large, is judged alone.

    Args:
        work: filled with places and lines.
        make: gives the encoded form; raises ``Unencodable``.
        event_bytes: cap on an event's canonical bytes.
        line_bytes: cap on an encoded form.
        policy: cut the texts of an event above the cap, or reject it.
    """
    for place, event in enumerate(work.batch):
        try:
            fitting = event if len(event.body) <= event_bytes else fit(event, event_bytes, policy)
            line = make(fitting) if fitting is not None else b""
            if len(line) > line_bytes:
                fitting = fit(event, len(event.body) * line_bytes // (len(line) + 1) - 256, policy)
                line = make(fitting) if fitting is not None else b""
        except ValueError:  # Unencodable, or bytes above the cap that are no UTF-8
            work.verdicts[place] = Verdict("rejected", code=UNENCODABLE_CODE)
            continue
        if not line or len(line) > line_bytes:
            work.verdicts[place] = Verdict("rejected", code=OVERSIZE_CODE)
            continue
        work.places.append(place)
        work.lines.append(line)


def judged_apart(
    batch: Sequence[EncodedEvent], make: Callable[[EncodedEvent], bytes | Verdict]
) -> tuple[list[Verdict], list[bytes]]:
    """Encode for a protocol that takes a batch whole: one that cannot be encoded is judged, all others will be
    ``delivered`` once the batch is.
    """  # noqa: D205 - the summary needs two lines
    verdicts: list[Verdict] = [DELIVERED] * len(batch)
    encoded: list[bytes] = []
    for place, event in enumerate(batch):
        one = make(event)
        if isinstance(one, Verdict):
            verdicts[place] = one
        else:
            encoded.append(one)
    return verdicts, encoded


def deliver(work: Work, runs: Iterable[Run], step: Callable[[int, int], list[Run]]) -> Ack:
    """Send run after run; ``step`` sends one and gives those that are to be sent instead or behind it.

    Raises:
        ConfigError, AuthError, TransientError: from ``step``, when no event of the batch is judged yet. Otherwise the
            open events are asked for again, and the error comes with the next send.
    """
    try:
        for run in runs:
            open_runs = [run]
            while open_runs:
                open_runs += step(*open_runs.pop())[::-1]
    except (TransientError, AuthError, ConfigError) as error:
        if all(verdict is None for verdict in work.verdicts):
            raise
        later = Verdict("retry", code=_LATER, retry_after=getattr(error, "retry_after", None))
        return Ack([verdict or later for verdict in work.verdicts])
    return Ack([verdict or Verdict("retry", code=_LATER) for verdict in work.verdicts])


def smaller(work: Work, first: int, behind: int, make: Callable[[EncodedEvent], bytes], policy: Oversize) -> list[Run]:
    """What to send instead of a request that the receiver finds too large: halves, or the one event with cut texts."""
    if behind - first > 1:
        return list(halves(first, behind))
    event = work.batch[work.places[first]]
    room = len(event.body) // 2
    cut = fit(event, room, policy) if room >= _SMALLEST_CUT else None
    line = make(cut) if cut is not None else b""
    if not line or len(line) >= len(work.lines[first]):
        work.judge(first, Verdict("rejected", code=OVERSIZE_CODE))
        return []
    work.batch = [*work.batch[: work.places[first]], cut or event, *work.batch[work.places[first] + 1 :]]
    work.lines[first] = line
    return [(first, behind)]


def isolate(work: Work, first: int, behind: int, code: str) -> list[Run]:
    """What to send when a request is refused without a word on which event is at fault: halves, down to the one."""
    if behind - first > 1:
        return list(halves(first, behind))
    work.judge(first, Verdict("rejected", code=code))
    return []


def all_refused(work: Work) -> bool:
    """Whether the receiver refused so many events, and took none, that something else must be wrong."""
    return work.refused >= _SUSPICIOUS and work.accepted == 0 and work.refused == len(work.lines)
