"""The flow without an outbox, for functions that a platform starts and ends: the source is the buffer.

``Outlet`` stands where the daemon has its spool: ``Pipeline.commit`` hands it what was taken, and it returns only when
every event has a final verdict of every destination (delivered, duplicate, or rejected and then a durable dead
letter), every rejected record is a durable dead letter, and the cursors are written. Otherwise it raises ``Unsettled``,
which names the batches that are not done, and no cursor moves: they come again, under the same event ids.

Time is asked for, never signalled: ``left()`` gives the seconds that may still be used. What is not settled by then is
given back, or, where the platform cannot take it back (``waiting``), kept durably as it would have been sent.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from msgspec import Struct, field

from aitrail.clock import Clock
from aitrail.errors import AitrailError, AuthError, TransientError
from aitrail.pipeline import Pipeline, Totals
from aitrail.ports import Budget, Cursors, EncodedEvent, RawBatch
from aitrail.routing.route import Route
from aitrail.routing.select import Selector
from aitrail.runtime.scheduled.sending import Sending, send_all
from aitrail.spool.deadletters import refused
from aitrail.spool.records import Committed, DeadLetter, Intake

Left = Callable[[], float]


class DeadLetterStore(Protocol):
    """Where dead letters are kept."""

    def keep(self, letters: Sequence[DeadLetter]) -> None:
        """Keep letters: durable on return; the same ones again change nothing. Raises ``AitrailError``."""
        ...


class DurableCursors(Cursors, Protocol):
    """The cursors of one source as this run has read them."""

    def commit(self, changed: dict[str, bytes]) -> None:
        """Write ``changed``; raises ``TransientError`` when that cannot be done, or another run has overtaken this."""
        ...


class Seen(Protocol):
    """Recognises events that are settled already."""

    def known(self, event_ids: Sequence[str]) -> list[bool]:
        """Say for each whether it is settled."""
        ...

    def add(self, event_ids: Sequence[str]) -> None:
        """Note events that are settled; durable on return."""
        ...


class Waiting(Protocol):
    """Keeps events that a destination could not take in time, for platforms that do not take anything back."""

    def keep(self, destination: str, events: Sequence[EncodedEvent]) -> None:
        """Keep events as they are sent: durable on return. Raises ``AitrailError``."""
        ...


class Trouble(Struct, frozen=True):
    """What went wrong: ``place`` is ``source``, ``state``, ``dead_letters`` or ``destination:NAME``."""

    place: str
    error: AitrailError


class Unsettled(TransientError):  # noqa: N818  (a verdict on an intake, and an error only for who asked for more)
    """Some events have no final verdict, or what is needed to be sure could not be written.

    Attributes:
        batches: numbers of the batches (``Intake.batches``) that are not done; None: none of the intake is.
        place: as ``Trouble.place``.
        cause: what went wrong.
    """

    def __init__(self, place: str, cause: AitrailError, batches: frozenset[int] | None = None) -> None:
        retry_after = cause.retry_after if isinstance(cause, TransientError) else None
        super().__init__(f"{place}: {cause}", retry_after=retry_after, hint=cause.hint)
        self.place = place
        self.cause = cause
        self.batches = batches


class GoesOn(TransientError):  # noqa: N818  (nothing went wrong)
    """An item was read as far as one run reads; it comes again, and goes on where it stopped."""


class _NoCursors:
    """For pushes: nothing is remembered between two runs."""

    def get(self, key: str) -> bytes | None:
        del key
        return None

    def items(self) -> Iterator[tuple[str, bytes]]:
        return iter(())

    def commit(self, changed: dict[str, bytes]) -> None:
        del changed


NO_CURSORS: DurableCursors = _NoCursors()


class Outlet:
    """What a pipeline commits to: destinations, dead letters and cursors themselves (``pipeline.Keeper``).

    Args:
        routes: the destinations; at least one.
        dead_letters: where rejected records and events go before anything is confirmed.
        cursors: of the one source that is read.
        clock: time.
        left: seconds that may still be used.
        seen: recognises what is settled; None: nobody does, the event ids alone tell.
        waiting: keeps what is not settled in time; None: it is given back.

    Attributes:
        counts: the pipeline's counters, added up.
        verdicts: events by destination and verdict (``NAME.delivered`` ...).
        dead: how many dead letters were kept.
        troubles: what went wrong with destinations so far, also where it went well in the end.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        dead_letters: DeadLetterStore,
        cursors: DurableCursors,
        clock: Clock,
        left: Left,
        *,
        seen: Seen | None = None,
        waiting: Waiting | None = None,
    ) -> None:
        self._routes = {route.name: route for route in routes}
        self._selector = Selector({route.name: route.rule for route in routes})
        self._dead_letters = dead_letters
        self._cursors = cursors
        self._clock = clock
        self._left = left
        self._seen = seen
        self._waiting = waiting
        self._failed: Unsettled | None = None
        self.counts: Counter[str] = Counter()
        self.verdicts: Counter[str] = Counter()
        self.dead = 0
        self.troubles: list[Trouble] = []

    def cursors(self, source: str) -> Cursors:
        """The committed cursors: there is one source."""
        del source
        return self._cursors

    def known_parts(self, ids: Sequence[str]) -> frozenset[str]:
        """Parts are joined within one run; nobody remembers them after it."""
        del ids
        return frozenset()

    def commit(self, intake: Intake) -> Committed:
        """Settle everything of ``intake``; see the module.

        Raises:
            Unsettled: and nothing is committed. The call may not be repeated: what was sent would be sent again, so
                it raises the same again.
        """
        if self._failed is not None:
            raise self._failed
        try:
            return self._commit(intake)
        except Unsettled as error:
            self._failed = error
            raise

    def _commit(self, intake: Intake) -> Committed:
        places = self._fresh(intake)
        events = [intake.events[place] for place in places]
        sent = self._send(events) if events else {}
        now = self._clock.now()
        letters = list(intake.dead)
        for name, one in sent.items():
            letters += [refused(events[place], intake.source, name, code, now) for place, code in one.rejected.items()]
        if letters:
            with _as_unsettled("dead_letters"):
                self._dead_letters.keep(letters)
            self.dead += len(letters)
        self._settle(events, places, sent, intake)
        if self._seen is not None and events:
            with _as_unsettled("state"):
                self._seen.add([event.event_id for event in events])
        if intake.cursors:
            with _as_unsettled("state"):
                self._cursors.commit(dict(intake.cursors))
        self.counts.update(intake.counts)
        return Committed(len(events), len(intake.events) - len(events), dead=len(letters))

    def _fresh(self, intake: Intake) -> list[int]:
        """Places of the events to send: each id once, and none whose counterpart is here or known already."""
        if not intake.events:
            return []
        ids = [event.event_id for event in intake.events]
        asked = [*ids, *intake.unless.values()]
        known = [False] * len(asked)
        if self._seen is not None:
            with _as_unsettled("state"):
                known = self._seen.known(asked)
        settled = {one for one, is_known in zip(asked, known, strict=True) if is_known}
        present = settled.union(ids)
        taken: set[str] = set()
        places = []
        for place, one in enumerate(ids):
            if one in settled or one in taken or (one in intake.unless and intake.unless[one] in present):
                continue
            taken.add(one)
            places.append(place)
        return places

    def _send(self, events: Sequence[EncodedEvent]) -> dict[str, Sending]:
        """Send to all destinations at once, each what it asks for."""
        chosen = self._selector.select(events, list(self._routes))
        work = {
            name: Sending(route, events, chosen.get(name, range(len(events))), self._clock, self._left)
            for name, route in self._routes.items()
        }
        send_all(list(work.values()))
        for name, one in work.items():
            self.verdicts.update({f"{name}.{status}": count for status, count in one.verdicts.items()})
            if one.error is not None:
                self.troubles.append(Trouble(f"destination:{name}", one.error))
        return work

    def _settle(
        self, events: Sequence[EncodedEvent], places: Sequence[int], sent: Mapping[str, Sending], intake: Intake
    ) -> None:
        """Keep, or give back, what is left; raises ``Unsettled`` for what is given back."""
        for name, one in sent.items():
            if one.open and self._waiting is not None:
                with _as_unsettled("waiting"):
                    self._waiting.keep(name, [events[place] for place in sorted(one.open)])
                self.verdicts[f"{name}.waiting"] += len(one.open)
                one.open.clear()
        undone = {place for one in sent.values() for place in one.open}
        if not undone:
            return
        name, first = next((name, one) for name, one in sent.items() if one.open)
        cause = first.error or TransientError("the time of this run is over")
        numbers = frozenset(intake.batches[places[place]] for place in undone) if intake.batches else None
        raise Unsettled(f"destination:{name}", cause, numbers)


@contextmanager
def _as_unsettled(place: str) -> Iterator[None]:
    """Turn an error of something that must be durable into ``Unsettled``."""
    try:
        yield
    except Unsettled:
        raise
    except AitrailError as error:
        raise Unsettled(place, error) from None


class Item(Struct):
    """Something that the platform handed over and will ask about: a message, a shard's record, the whole event.

    Attributes:
        key: what the platform calls it.
        batches: its records, read when it is its turn. Reading may raise ``AuthError`` or ``TransientError``.
    """

    key: str
    batches: Iterable[RawBatch]


class Report(Struct):
    """What a run did.

    Attributes:
        totals: as every run.
        done: keys of the items that are settled as a whole: the platform may forget them.
        given_back: keys of those that are not, in their order; they have to come again.
        troubles: what went wrong, the first thing first; empty when all went well.
        complete: everything that was there was read and settled.
    """

    totals: Totals = field(default_factory=Totals)
    done: list[str] = []
    given_back: list[str] = []
    troubles: list[Trouble] = []
    complete: bool = True


def poll(pipeline: Pipeline, left: Left) -> Report:
    """Read a polled source until it has nothing more or the time is over; its cursors say what is settled."""
    report = Report()
    totals = report.totals
    try:
        pipeline.run(Budget(seconds=max(left(), 0.0)), totals=totals)
    except (AuthError, TransientError) as error:
        report.troubles.append(_trouble(error))
        report.complete = False
    report.complete = report.complete and left() > 0
    return report


def push(pipeline: Pipeline, items: Sequence[Item], left: Left) -> Report:
    """Settle what the platform handed over, in its order; says for each item whether it is done.

    An item that cannot be read does not stand in the way of the others. Once a destination is out of time or refuses
    our credentials, nothing more is read. An item that was read in part keeps its place, when its source has one.
    """
    run = _Push(pipeline, left)
    for item in items:
        run.take(item)
    run.finish()
    report = run.report
    report.given_back = [item.key for item in items if item.key in run.back]
    report.done = [item.key for item in items if item.key not in run.back]
    report.complete = not run.back
    return report


class _Push:
    """One push under way.

    Attributes:
        back: keys of items that have to come again.
    """

    def __init__(self, pipeline: Pipeline, left: Left) -> None:
        self.report = Report()
        self.back: set[str] = set()
        self._pipeline = pipeline
        self._left = left
        self._owner: dict[int, str] = {}
        self._settled: set[int] = set()
        self._stopped = False

    def take(self, item: Item) -> None:
        """Read one item; commits when it is time to."""
        if self._stopped or self._left() <= 0:
            self.back.add(item.key)
            return
        batches = iter(item.batches)
        try:
            for batch in batches:
                self._pipeline.take(batch, self.report.totals)
                self._owner[self._pipeline.taken] = item.key
                if self._pipeline.due():
                    self._commit(self._pipeline.commit)
                if self._stopped or self._left() <= 0:
                    self.back.add(item.key)  # unless this was its end, which only its source knows
                    break
        except GoesOn:
            self.back.add(item.key)
        except (AuthError, TransientError) as error:
            self.report.troubles.append(_trouble(error))
            self.back.add(item.key)
        finally:
            getattr(batches, "close", lambda: None)()

    def finish(self) -> None:
        """Settle the rest."""
        if not self._stopped:
            self._commit(self._pipeline.finish)
        if self._stopped:
            # Parts of events that were still waiting for one another are nowhere.
            self.back.update(self._owner[number] for number in self._pipeline.open_batches())

    def _commit(self, commit: Callable[[Totals], object]) -> None:
        try:
            commit(self.report.totals)
        except Unsettled as error:
            self._stopped = True
            self.report.troubles.append(_trouble(error))
            numbers = self._owner.keys() - self._settled if error.batches is None else error.batches
            self.back.update(self._owner[number] for number in numbers)
        else:
            self._settled.update(self._owner)


def _trouble(error: AitrailError) -> Trouble:
    if isinstance(error, Unsettled):
        return Trouble(error.place, error.cause)
    return Trouble("source", error)


def deadline_of(seconds: float, monotonic: Callable[[], float] = time.monotonic) -> Left:
    """Seconds left of ``seconds`` from now."""
    end = monotonic() + seconds
    return lambda: end - monotonic()
