"""The conformance suite: one promise, kept or not, for any destination and a peer that misbehaves.

    report = run_conformance(make, peer)
    print(report)
    assert report.ok, report.problems

``make(peer)`` gives a destination for ``peer.address``; it is a function at the top of a module, so that another
process can call it, too (F1, F3), and it chooses short time-outs. Every case has a spool, a courier and a destination
of its own; the books are kept by what the peer has, not by what the destination says:

* lost: handed in, not at the peer, not a dead letter, not waiting any more - must be 0;
* false: called delivered while the peer did not have it - must be 0;
* duplicated: two things at the peer that ``event_id`` does not make one (other bytes under an id, an id nobody sent,
  and for destinations that suppress repeats any repeat) - must be 0;
* resent: arrivals beyond the first, the price of at-least-once; each case has a bound for it.

The numbers F1-F34 are those of the project's list of fault tests (docs/destinations.md).
"""

import json
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path

import msgspec

from aitrail.testing import cases_content, cases_faults
from aitrail.testing.harness import Bench, Make, bench, peak_mb, reset_peak
from aitrail.testing.peer import Fault, Peer

Run = Callable[[Bench], list[str]]


class Case(msgspec.Struct, frozen=True):
    """One case: what it shows, and which faults the peer must have (one of ``any_of`` is enough)."""

    title: str
    run: Run
    needs: frozenset[Fault] = frozenset()
    any_of: frozenset[Fault] = frozenset()


def _way(fault: Fault, title: str) -> Case:
    return Case(title, partial(cases_faults.wrong_way, fault=fault), frozenset({fault}))


def _needs(*faults: Fault) -> frozenset[Fault]:
    return frozenset(faults)


KILLS = 20
CASES: Mapping[str, Case] = {
    "F0": Case("nothing wrong", cases_content.healthy),
    "F1": Case("kill -9", partial(cases_content.killed, kills=KILLS), _needs("kill")),
    "F3": Case("SIGTERM mid-batch", cases_content.stopped, _needs("kill")),
    "F5": Case("throttled, Retry-After", cases_faults.throttled, _needs("throttle")),
    "F6": Case("busy, every code", cases_faults.busy, _needs("busy")),
    "F7": Case("silence", cases_faults.silent, any_of=_needs("silent", "silent_stored")),
    "F7b": Case("slow answer", cases_faults.slow, _needs("slow")),
    "F8": Case("reset mid-request/answer", cases_faults.resets, any_of=_needs("reset_mid_body", "reset_mid_response")),
    "F9": Case("items to send again", cases_faults.retried_items, _needs("retry_items")),
    "F10": Case("items refused", cases_faults.refused_items, _needs("refuse_items")),
    "F11": Case("acknowledgements", cases_faults.acks, _needs("ack_never", "ack_slow", "ack_lost", "ack_error")),
    "F12": Case("request too large", cases_faults.split, _needs("too_large")),
    "F13": Case("event too large", cases_faults.oversize),
    "F14": Case("poison events", cases_content.poison),
    "F15": Case("down, another one up", cases_faults.one_down, _needs("down")),
    "F16": Case("down until it piles up", cases_faults.full, _needs("down")),
    "F17": Case("disk full at settling", cases_faults.disk_full),
    "F25": Case("hostile texts", cases_content.hostile),
    "F26": Case("heavy JSON", cases_content.heavy),
    "F27": Case("endless answer, bomb", cases_content.flooded, _needs("flood")),
    "F28": Case("credentials, permissions", cases_faults.credentials, any_of=_needs("unauthorized", "forbidden")),
    "F29a": _way("nxdomain", "host name unknown"),
    "F29b": _way("proxy_407", "proxy refuses"),
    "F30a": _way("tls_expired", "certificate expired"),
    "F30b": _way("tls_wrong_host", "certificate of another host"),
    "F30c": _way("tls_self_signed", "certificate self-signed"),
    "F30d": _way("tls_old", "TLS 1.1"),
    "F30e": Case("redirect elsewhere", cases_faults.redirected, _needs("redirect")),
    "F33": Case("dead letters replayed twice", cases_content.replayed, _needs("refuse_items")),
}


class Row(msgspec.Struct, frozen=True):
    """One line of the report. ``outcome`` is pass, fail or skip; ``peak_mb`` counts the peer in this process, too."""

    case: str
    title: str
    outcome: str
    lost: int = 0
    false: int = 0
    duplicated: int = 0
    dead: int = 0
    resent: int = 0
    recovery_seconds: float = 0.0
    peak_mb: float = 0.0
    note: str = ""
    problems: tuple[str, ...] = ()


class Report(msgspec.Struct, frozen=True):
    """All rows for one destination; ``str`` gives the table."""

    destination: str
    peer: str
    rows: tuple[Row, ...]

    @property
    def ok(self) -> bool:
        """Whether no case failed."""
        return not self.problems

    @property
    def problems(self) -> list[str]:
        """Every sentence of every failed case."""
        return [f"{row.case} {row.title}: {one}" for row in self.rows for one in row.problems]

    def __str__(self) -> str:
        head = f"{self.destination} against {self.peer}"
        columns = ("lost", "false", "dup", "dead", "resent", "rec. s", "RSS MB")
        lines = [head, f"{'case':6}{'':30}{'':6}" + "".join(f"{one:>8}" for one in columns) + "  note"]
        for row in self.rows:
            start = f"{row.case:6}{row.title:30.30}{row.outcome:6}"
            if row.outcome == "skip":
                lines.append(f"{start}  {row.note}")
                continue
            counts = (row.lost, row.false, row.duplicated, row.dead, row.resent)
            numbers = "".join(f"{one:8d}" for one in counts) + f"{row.recovery_seconds:8.2f}{row.peak_mb:8.0f}"
            lines.append(f"{start}{numbers}  {row.note}")
            lines += [f"      ! {one}" for one in row.problems]
        return "\n".join(lines)


def run_conformance(
    make: Make,
    peer: Peer,
    only: Collection[str] | None = None,
    *,
    kills: int = KILLS,
    show: bool = True,
    marks_controls: bool = False,
) -> Report:
    """Run every case that the peer can show.

    Args:
        make: gives a destination for a peer, made from ``peer.address`` alone.
        peer: healed before and after each case; not closed.
        only: names of cases, all of ``CASES`` unless given.
        kills: how many processes F1 kills (200 for a release).
        show: print the table.
        marks_controls: the format has no control characters (CEF, LEEF): F25 lets each become a mark or a space.

    Returns:
        The report; the caller asserts ``report.ok``.
    """
    rows = []
    name = ""
    for case, what in CASES.items():
        if only is not None and case not in only:
            continue
        missing = what.needs - peer.faults
        if missing or (what.any_of and not what.any_of & peer.faults):
            rows.append(Row(case, what.title, "skip", note=f"the protocol has no {', '.join(missing or what.any_of)}"))
            continue
        run = partial(cases_content.killed, kills=kills) if case == "F1" else what.run
        with tempfile.TemporaryDirectory(prefix="aitrail-conformance-") as directory:
            row, name = _run(case, what.title, run, make, peer, Path(directory), marks_controls)
        rows.append(row)
    report = Report(name, peer.name, tuple(rows))
    if show:
        print(f"\n{report}")  # noqa: T201 - the table is what the suite is for
    return report


def _run(
    case: str, title: str, run: Run, make: Make, peer: Peer, directory: Path, marks_controls: bool
) -> tuple[Row, str]:
    reset_peak()
    with bench(make, peer, directory) as world:
        world.marks_controls = marks_controls
        try:
            problems = run(world)
        except Exception as error:  # noqa: BLE001 - one broken case must not hide the others
            problems = [f"{type(error).__name__}: {error} ({_place(error)})"[:400]]
        row = _books(case, title, world, problems)
        return row, world.watched.name


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return " < ".join(f"{Path(one.filename).name}:{one.lineno}" for one in reversed(frames[-4:]))


def _books(case: str, title: str, world: Bench, problems: list[str]) -> Row:
    """Keep the books of one case: what was handed in against what the peer has."""
    arrived = world.arrived()
    there, dead, waiting = set(arrived), world.dead(), world.backlog
    lost = len(world.sent.keys() - there - dead.keys()) - waiting
    twice = len(arrived) - len(there)
    repeated = [one for one, times in Counter(arrived).items() if times > 1]
    duplicated = len(there - world.sent.keys()) + sum(_differ(world.peer.bodies(one)) for one in repeated)
    if world.watched.dedupe == "by_id":
        duplicated += twice
    false = len(world.watched.false_delivered)
    both = len(dead.keys() & there)
    books = {
        f"{lost} events are lost": lost > 0,
        f"{false} events were called delivered that the peer did not have": false > 0,
        f"{duplicated} events are there twice, not to be told by event_id": duplicated > 0,
        f"{both} events are both delivered and dead-lettered": both > 0,
        f"{waiting} events are stuck": waiting > 0 and not world.holds,
    }
    problems = problems + [text for text, wrong in books.items() if wrong]
    return Row(
        case=case,
        title=title,
        outcome="fail" if problems else "pass",
        lost=max(lost, 0),
        false=false,
        duplicated=duplicated,
        dead=len(dead),
        resent=twice,
        recovery_seconds=world.recovery_seconds,
        peak_mb=peak_mb(),
        note=world.note,
        problems=tuple(problems),
    )


def _differ(bodies: list[bytes]) -> bool:
    """Whether bodies under one id are not the same JSON value."""
    if len(set(bodies)) < 2:
        return False
    return len({json.dumps(json.loads(body), sort_keys=True) for body in bodies}) > 1
