"""The cases of the conformance suite in which the events, this process or an operator make the trouble.

F1 and F3 (killed and stopped processes), F14, F25-F27 (what events and answers hold), F33 (replay).
"""

import contextlib
import inspect
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Any, cast

import msgspec

from aitrail.spool import Spool
from aitrail.testing.events import (
    HEAVY_BODIES,
    HOSTILE_TEXTS,
    POISON_BODIES,
    TEXT_FIELDS,
    hostile_events,
    make_event,
    make_events,
    raw_events,
)
from aitrail.testing.harness import Bench, peak_mb, reset_peak
from aitrail.testing.peer import Behaviour
from aitrail.testing.worker import BATCH, Spec

_GRACE_SECONDS = 10.0
# Ends of waiting, not promises: a machine may be busy with something else.
_KILLS_SECONDS = 180.0
_START_SECONDS = 60.0
_HEAVY_CPU_SECONDS = 10.0
_FLOOD_MB = 60.0
_CONTROLS = re.compile("[\x00-\x20\x7f-\x9f\u2028\u2029\ufffd]")


def killed(bench: Bench, kills: int) -> list[str]:
    """F1: kill -9 at random moments of taking in and shipping; the books are kept over all processes."""
    spec = _spec(bench, "kills", 0, kills=kills, pause=0.003)
    if spec is None:
        return []
    with _shipping(bench, spec) as process:
        output, _ = process.communicate(timeout=_KILLS_SECONDS + kills)
    wrong = [] if process.returncode == 0 else [f"the process ended with {process.returncode}"]
    landed = int(output.rpartition(" ")[2] or 0)
    arrived = bench.arrived()
    resent = len(arrived) - len(set(arrived))
    bench.note = f"{landed} kills landed, {resent / max(landed, 1):.1f} resent per kill"
    if landed < kills // 2:
        wrong.append(f"only {landed} of {kills} kills hit a process at work")
    if resent > landed * BATCH:
        wrong.append(f"{resent} events came again, more than {landed} kills can explain")
    return wrong + _undelivered(bench)


def stopped(bench: Bench) -> list[str]:
    """F3: SIGTERM in the middle: ends within the grace time with exit code 0, and the rest is still there."""
    spec = _spec(bench, "ship", 3_000, pause=0.02)
    if spec is None:
        return []
    wrong = []
    with _shipping(bench, spec) as process:
        deadline = time.monotonic() + _START_SECONDS
        while len(bench.arrived()) < 2 * BATCH and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        asked = time.monotonic()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            wrong.append(f"it did not end within {_GRACE_SECONDS:g} s")
        took = time.monotonic() - asked
        if process.returncode != 0:
            wrong.append(f"it ended with {process.returncode}")
        already = len(bench.arrived())
    bench.note = f"ended after {took:.2f} s with {bench.backlog} waiting, {already} delivered"
    return wrong + _undelivered(bench)


def poison(bench: Bench) -> list[str]:
    """F14: bytes that are no event are refused alone (or carried as they are); all others arrive."""
    bad = raw_events(POISON_BODIES, bench.label)
    good = bench.events(len(bad) + 1, "healthy")
    mixed = [good[0]]
    for one, other in zip(bad, good[1:], strict=True):
        mixed += [one, other]
    bench.put(mixed)
    wrong = _undelivered(bench)
    missing = {event.event_id for event in good} - set(bench.arrived())
    if missing:
        wrong.append(f"{len(missing)} healthy events did not arrive")
    bench.note = f"{len(bench.dead())} of {len(bad)} dead-lettered"
    return wrong


def hostile(bench: Bench) -> list[str]:
    """F25: texts that try to break out of a format arrive as they were sent, in whatever field."""
    events = hostile_events(bench.label)
    bench.put(events)
    wrong = _undelivered(bench)
    compared = 0
    for name, event in zip(HOSTILE_TEXTS, events, strict=True):
        sent = json.loads(event.body)
        for body in bench.peer.bodies(event.event_id):
            try:
                seen = _texts(json.loads(body), bench.marks_controls)
            except ValueError:
                wrong.append(f"{name}: what arrived is not JSON")
                continue
            changed = [field for field in TEXT_FIELDS if sent.get(field) and not _kept(sent[field], seen, bench)]
            compared += len(TEXT_FIELDS)
            wrong += [f"{name}: {', '.join(changed)} arrived changed"] if changed else []
    if bench.dead():
        wrong.append(f"{len(bench.dead())} well-formed events were dead-lettered")
    bench.note = f"{compared} texts compared"
    return wrong


def _kept(text: str, seen: AbstractSet[str], bench: Bench) -> bool:
    return (_marked(text) if bench.marks_controls else text) in seen


def _texts(value: Any, marked: bool) -> AbstractSet[str]:
    """Every text in a document, at whatever depth: where a field stands is not this case's business."""
    if isinstance(value, str):
        return {_marked(value) if marked else value}
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return {text for one in inner for text in _texts(one, marked)}


def _marked(text: str) -> str:
    """What is left of a text in a format that has no control characters: each is a mark, or a space."""
    return _CONTROLS.sub(" ", text)


def heavy(bench: Bench) -> list[str]:
    """F26: huge numbers, deep nesting, repeated keys: refused or carried, in bounded time; all others arrive."""
    good = bench.events(6, "light")
    bench.put([*good[:3], *raw_events(HEAVY_BODIES, bench.label), *good[3:]])
    started = time.process_time()
    wrong = _undelivered(bench)
    took = time.process_time() - started
    if took > _HEAVY_CPU_SECONDS:
        wrong.append(f"took {took:.1f} s of the processor")
    if {event.event_id for event in good} - set(bench.arrived()):
        wrong.append("light events did not arrive")
    bench.note = f"{len(bench.dead())} of {len(HEAVY_BODIES)} dead-lettered"
    return wrong


def flooded(bench: Bench) -> list[str]:
    """F27: an answer without an end, or a compressed bomb: memory stays bounded, and nothing is called delivered."""
    bench.put(bench.events(20, "flood"))
    bench.peer.script(Behaviour("flood", limit=64 << 20, times=2))
    reset_peak()
    before = peak_mb()
    wrong = _undelivered(bench)
    grown = peak_mb() - before
    # The peer in this process makes the bomb: one copy of it is its own.
    bench.note = f"memory grew by {grown:.0f} MB"
    if grown > _FLOOD_MB + 72:
        wrong.append(f"memory grew by {grown:.0f} MB")
    return wrong


def replayed(bench: Bench) -> list[str]:
    """F33: dead letters are replayed twice: each event arrives once."""
    events = bench.events(20, "replay")
    refused = tuple(event.event_id for event in events[5:9])
    bench.peer.script(Behaviour("refuse_items", times=0, ids=refused))
    bench.put(events)
    wrong = _undelivered(bench)
    letters = [letter.id for letter in bench.spool.deadletters()]
    if len(letters) != len(refused):
        wrong.append(f"{len(letters)} dead letters for {len(refused)} refused events")
    bench.peer.heal()
    first = bench.spool.requeue(letters)
    second = bench.spool.requeue(letters)
    if (first, second) != (len(letters), 0):
        wrong.append(f"the first replay moved {first}, the second {second}")
    wrong += _undelivered(bench)
    counts = [bench.arrived().count(one) for one in refused]
    if counts != [1] * len(refused):
        wrong.append(f"replayed events arrived {counts} times")
    return wrong


def healthy(bench: Bench) -> list[str]:
    """F0: with nothing wrong, everything arrives once, and ``check`` has nothing to say."""
    said = bench.watched.check()
    bench.put(bench.events(1_000, "calm"))
    wrong = [f"check() says: {'; '.join(said)[:200]}"] if said else []
    wrong += _undelivered(bench)
    arrived = bench.arrived()
    if len(arrived) != len(set(arrived)):
        wrong.append(f"{len(arrived) - len(set(arrived))} events came twice")
    unlike = 0
    for one in (make_event(number, f"{bench.label}calm") for number in range(0, 1_000, 97)):
        for body in bench.peer.bodies(one.event_id):
            seen = cast(dict[str, Any], msgspec.json.decode(body))
            sent = cast(dict[str, Any], msgspec.json.decode(one.body))
            unlike += "prompt_text" in seen and any(seen.get(name) != value for name, value in sent.items())
    return [*wrong, f"{unlike} events arrived changed"] if unlike else wrong


def _spec(bench: Bench, mode: str, events: int, *, kills: int = 0, pause: float = 0.0) -> Spec | None:
    """Describe a process that ships to this peer; None when ``make`` cannot be found by another process."""
    name = getattr(bench.make, "__qualname__", "<none>")
    if "<" in name:
        bench.note = "make is not a function at the top of its module"
        return None
    return Spec(
        file=inspect.getfile(cast(Any, bench.make)),
        make=name,
        peer=bench.peer.name,
        address=dict(bench.peer.address),
        directory=str(bench.directory / "spool"),
        mode=mode,
        events=events,
        label=f"{bench.label}{mode}",
        kills=kills,
        seed=20261123,
        pause=pause,
    )


@contextlib.contextmanager
def _shipping(bench: Bench, spec: Spec) -> Iterator["subprocess.Popen[str]"]:
    """Leave spool and peer to another process; takes the spool back behind it, whatever became of the process."""
    bench.watched.close()
    bench.spool.close()
    path = bench.directory / "spec.json"
    path.write_bytes(msgspec.json.encode(spec))
    command = [sys.executable, "-m", "aitrail.testing.worker", str(path)]
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own module
            try:
                assert process.stdout is not None
                if process.stdout.readline() != "ready\n":
                    process.wait()
                    raise RuntimeError(f"the worker ended at its start with {process.returncode}; see its output above")
                yield process
            finally:
                process.kill()
    finally:
        _adopt(bench, spec)


def _adopt(bench: Bench, spec: Spec) -> None:
    """Take the spool back, and count what the process had taken in as sent."""
    bench.spool = Spool.open(bench.directory / "spool", bench.clock)
    bench.reconnect()
    taken = int(bench.spool.cursors("conformance").get("n") or b"0")
    bench.sent = {event.event_id: event for event in make_events(taken, spec.label)}


def _undelivered(bench: Bench) -> list[str]:
    return [] if bench.drain() else [f"{bench.backlog} events are stuck: {'; '.join(bench.messages.values())[:300]}"]
