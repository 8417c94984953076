"""The cases of the conformance suite in which the receiver or the way to it is at fault: F5-F17 and F28-F30.

Each case hands events in, shows a fault, and gives sentences for what was wrong beyond the books that the suite keeps
(lost, false, duplicated); none means it passed.
"""

import itertools
import time
from typing import Any, cast

import msgspec

from aitrail.delivery import Courier
from aitrail.errors import TransientError
from aitrail.ports import Ack, Destination
from aitrail.spool import OutboxBatch, Spool
from aitrail.testing.events import oversize_event
from aitrail.testing.faults import http_date
from aitrail.testing.harness import Bench
from aitrail.testing.peer import Behaviour, Fault
from aitrail.testing.reference import MemoryPeer, ReferenceDestination

# Text of the waiting time -> (least, most) simulated seconds that a sender must wait for it.
_LONGEST_WAIT = 3_700.0
_SILENT_SECONDS = 4.0
_DATE = "in 20 seconds, as a date"
_WAITS: dict[str, tuple[float, float]] = {
    "2": (1.8, 30.0),
    "0": (0.0, 90.0),
    "999999999": (30.0, _LONGEST_WAIT),
    "-5": (0.0, 90.0),
    "soon": (0.0, 90.0),
    "nan": (0.0, 90.0),
    "1e400": (0.0, _LONGEST_WAIT),
    "Mon, 99 Foo 2026 25:61:00 GMT": (0.0, 90.0),
}


def throttled(bench: Bench) -> list[str]:
    """F5: waits as it is told (seconds, HTTP date), within a cap, and not at all by nonsense; never a storm."""
    wrong: list[str] = []
    for asked, (least, most) in {**_WAITS, _DATE: (15.0, 30.0)}.items():
        bench.put(bench.events(20, f"throttle{asked}"))
        calls, requests = len(bench.watched.sendings), bench.peer.traffic.requests
        # A date is of the moment: made beforehand it would be nearer by what the other waits took.
        text = http_date(time.time() + 20) if asked == _DATE else asked
        bench.peer.script(Behaviour("throttle", retry_after=text))
        if not bench.drain(skip=2.0 if least < 20 else 10.0):
            return [f"Retry-After {text!r}: not delivered any more"]
        seen = bench.watched.sendings[calls:]
        waited = seen[-1].at - seen[0].at if len(seen) > 1 else 0.0
        # What it is told is a least; a step of the simulated clock and its own pause may come on top.
        if not least <= waited <= most + 30.0:
            wrong.append(f"Retry-After {text!r}: waited {waited:.1f} s, not {least:g}-{most:g}")
        if bench.peer.traffic.requests - requests > 4:
            wrong.append(f"Retry-After {text!r}: {bench.peer.traffic.requests - requests} requests in that time")
    return wrong


def busy(bench: Bench) -> list[str]:
    """F6: every "not now" of the protocol is tried again, with pauses, and nothing is lost by it."""
    wrong: list[str] = []
    for code in bench.peer.busy_codes:
        bench.put(bench.events(20, f"busy{code}"))
        calls = len(bench.watched.sendings)
        bench.peer.script(Behaviour("busy", code=code, times=3))
        if not bench.drain():
            return [*wrong, f"code {code}: not delivered any more"]
        seen = bench.watched.sendings[calls:]
        if len(seen) > 12:
            wrong.append(f"code {code}: {len(seen)} calls for three refusals")
        pauses = [two.at - one.at for one, two in itertools.pairwise(seen) if one.error]
        if any(pause < 0.04 for pause in pauses):
            wrong.append(f"code {code}: came back after {min(pauses):.3f} s")
    return wrong


def silent(bench: Bench) -> list[str]:
    """F7: no answer, taken or not: sent again, at most that batch twice, and every call ends by its deadline."""
    wrong = []
    bench.watched.send_seconds = 1.0
    faults: tuple[Fault, ...] = ("silent", "silent_stored")
    for fault in faults:
        if fault not in bench.peer.faults:
            continue
        bench.put(bench.events(30, fault))
        bench.peer.script(Behaviour(fault, seconds=_SILENT_SECONDS))
        if not bench.drain():
            wrong.append(f"{fault}: not delivered any more")
    # One that waits for the peer instead of the clock ends as late as the peer is silent beyond the deadline.
    if bench.watched.late_seconds > _SILENT_SECONDS - bench.watched.send_seconds - 0.5:
        wrong.append(f"a call ended {bench.watched.late_seconds:.1f} s after its deadline")
    return wrong + _resent_within(bench, max(30, _failed_events(bench, but=1)))


def slow(bench: Bench) -> list[str]:
    """F7: a slow answer is waited for, and nothing is sent twice."""
    bench.watched.send_seconds = 20.0
    bench.put(bench.events(30, "slow"))
    bench.peer.script(Behaviour("slow", seconds=0.3))
    return (_undelivered(bench)) + _resent_within(bench, 0)


def resets(bench: Bench) -> list[str]:
    """F8: connections that die in the middle of the request or of the answer."""
    faults: tuple[Fault, ...] = ("reset_mid_body", "reset_mid_response")
    for fault in faults:
        if fault in bench.peer.faults:
            bench.put(bench.events(30, fault))
            bench.peer.script(Behaviour(fault, times=2))
            if not bench.drain():
                return [f"{fault}: not delivered any more"]
    return _resent_within(bench, 60)


def refused_items(bench: Bench) -> list[str]:
    """F9, F10: exactly the refused events become dead letters, wherever in the batch they are; the rest goes on."""
    events = bench.events(60, "refuse")
    poison = {events[place].event_id for place in (0, 1, 17, 40, 59)}
    bench.peer.script(Behaviour("refuse_items", times=0, ids=tuple(sorted(poison))))
    bench.put(events)
    wrong = _undelivered(bench)
    dead = set(bench.dead())
    if dead != poison:
        wrong.append(f"{len(dead - poison)} good events were dead-lettered, {len(poison - dead)} refused ones were not")
    bench.note = f"{bench.peer.traffic.requests} requests"
    # A receiver that does not say which event it refuses costs halvings; what it took before comes again.
    return wrong + _resent_within(bench, 2 * len(events))


def retried_items(bench: Bench) -> list[str]:
    """F9: items that are to come again come again, those that were taken do not."""
    bench.put(bench.events(30, "partial"))
    bench.peer.script(Behaviour("retry_items", every=4))
    return _undelivered(bench) + _resent_within(bench, 30)


def acks(bench: Bench) -> list[str]:
    """F11: never, slow, lost and failing acknowledgements, and a receiver that forgot them."""
    wrong = []
    faults: tuple[Fault, ...] = ("ack_slow", "ack_never", "ack_lost", "ack_error")
    for fault in faults:
        bench.put(bench.events(30, fault))
        standing = fault == "ack_error"
        for code in (404, 14, 500) if standing else (0,):
            bench.peer.script(Behaviour(fault, times=0 if standing else 1, seconds=0.3, code=code))
            if standing:
                bench.turns(20, skip=0.0)
                if not bench.backlog:
                    wrong.append(f"delivered although asking for the acknowledgement fails ({code})")
                bench.peer.heal()
        if not bench.drain():
            wrong.append(f"{fault}: not delivered any more")
    bench.put(bench.events(30, "restart"))
    bench.peer.script(Behaviour("ack_slow", seconds=30.0))
    bench.turns(2, skip=0.0)
    bench.peer.script(Behaviour("ack_restart"))
    wrong += _undelivered(bench)
    if not bench.watched.check():
        wrong.append("check() does not mention acknowledgements that never came")
    return wrong + _resent_within(bench, 120)


def split(bench: Bench) -> list[str]:
    """F12: a request that is too large is cut until it fits; an event too large alone is cut short or dead-lettered."""
    events = bench.events(64, "split")
    size = sum(len(event.body) for event in events)
    bench.peer.script(Behaviour("too_large", times=0, limit=size // 6))
    bench.put(events)
    requests = bench.peer.traffic.requests
    wrong = _undelivered(bench)
    if bench.dead():
        wrong.append(f"{len(bench.dead())} events were dead-lettered because of their batch")
    bench.note = f"{bench.peer.traffic.requests - requests} requests"
    bench.peer.heal()
    bench.peer.script(Behaviour("too_large", times=0, limit=12_000))
    whole = bench.events(10, "small")
    bench.put([*whole[:5], oversize_event(1, 60_000, bench.label), *whole[5:]])
    requests = bench.peer.traffic.requests
    wrong += _undelivered(bench)
    if bench.peer.traffic.requests - requests > 40:
        wrong.append(f"{bench.peer.traffic.requests - requests} requests around one event that is too large")
    return wrong + _resent_within(bench, 0)


def oversize(bench: Bench) -> list[str]:
    """F13: an event above the limit is never sent whole: it arrives cut, marked and with its hash, or not at all."""
    limits = bench.watched.limits
    if limits.max_event_bytes > 16_000_000:
        bench.note = "no limit that an event could reach"
        return []
    large = oversize_event(0, limits.max_event_bytes + 1_000, bench.label)
    bench.put([*bench.events(5, "before"), large, *bench.events(5, "after")])
    wrong = _undelivered(bench)
    ceiling = int(max(limits.max_event_bytes, limits.max_batch_bytes) * 1.25) + 65_536
    if bench.peer.traffic.largest > ceiling:
        wrong.append(f"a request of {bench.peer.traffic.largest} bytes was sent")
    bodies = bench.peer.bodies(large.event_id)
    if bodies:
        seen = cast(dict[str, Any], msgspec.json.decode(bodies[-1]))
        sent = cast(dict[str, Any], msgspec.json.decode(large.body))
        if "prompt_text" in seen and seen["prompt_text"] != sent["prompt_text"] and seen.get("truncated") is not True:
            wrong.append("it was cut without being marked")
        if "prompt_text" in seen and seen.get("prompt_hash") != sent["prompt_hash"]:
            wrong.append("the hash of the whole text is gone")
        bench.note = "cut and marked"
    elif large.event_id in bench.dead():
        bench.note = f"dead letter {bench.dead()[large.event_id]}"
    return wrong


def one_down(bench: Bench) -> list[str]:
    """F15: while this destination is down another one goes on; afterwards everything comes, in order."""
    other = MemoryPeer()
    courier = Courier(bench.spool, cast(Destination, ReferenceDestination(other.address, "healthy")), bench.clock)
    try:
        bench.peer.script(Behaviour("down", times=0))
        sent = []
        started = time.monotonic()
        for step in range(8):
            events = bench.events(125, "down", step * 125)
            sent += [event.event_id for event in events]
            bench.put(events, also=("healthy",))
            bench.turn()
            courier.drain()
            bench.clock.skip(450.0)
        healthy = time.monotonic() - started
        wrong = []
        if len(other.received()) != len(sent):
            wrong.append(f"the healthy destination got {len(other.received())} of {len(sent)} meanwhile")
        if bench.backlog != len(sent):
            wrong.append(f"{len(sent) - bench.backlog} events left the outbox while it was down")
        bench.peer.heal()
        wrong += _undelivered(bench)
    finally:
        other.close()
    first_seen = list(dict.fromkeys(bench.arrived()))
    in_order = first_seen == sent
    bench.note = f"other went on ({healthy:.1f} s), {'in order' if in_order else 'another order'}"
    return wrong


def full(bench: Bench) -> list[str]:
    """F16: everything is down for long: nothing is dropped, the backlog is exact, and memory stays bounded."""
    bench.peer.script(Behaviour("down", times=0))
    for step in range(10):
        bench.put(bench.events(400, "full", step * 400))
        bench.turn()
    wrong = [] if bench.backlog == 4_000 else [f"the backlog says {bench.backlog}, not 4000"]
    bench.reopen()
    if bench.backlog != 4_000:
        wrong.append(f"after a restart the backlog says {bench.backlog}, not 4000")
    bench.peer.heal()
    return wrong + _undelivered(bench)


class _FullDisk:
    """A spool whose disk is full at the moment of settling, a few times."""

    def __init__(self, spool: Spool, times: int) -> None:
        self._spool = spool
        self.times = times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._spool, name)

    def settle(self, batch: OutboxBatch, ack: Ack, now: float) -> None:
        """Fail, or settle."""
        if self.times:
            self.times -= 1
            raise TransientError("the disk is full")
        self._spool.settle(batch, ack, now)


def disk_full(bench: Bench) -> list[str]:
    """F17: what was delivered cannot be noted: it is sent again, once space is back, and no more than that batch."""
    bench.put(bench.events(40, "disk"))
    disk = _FullDisk(bench.spool, 2)
    bench.courier = Courier(cast(Spool, disk), cast(Destination, bench.watched), bench.clock)
    wrong = _undelivered(bench)
    if disk.times:
        wrong.append("the verdicts were never written down")
    return wrong + _resent_within(bench, 80)


def credentials(bench: Bench) -> list[str]:
    """F28: rotated credentials are read anew without a loss; refused ones are an alarm that says what to do."""
    wrong = []
    if "rotate" in bench.peer.faults:
        bench.put(bench.events(20, "before"))
        wrong += _undelivered(bench)
        bench.peer.script(Behaviour("rotate"))
        bench.put(bench.events(20, "rotated"))
        wrong += _undelivered(bench)
        if bench.errors()["AuthError"]:
            wrong.append("a rotated credential was not read anew")
    faults: tuple[Fault, ...] = ("unauthorized", "forbidden")
    for fault in faults:
        if fault not in bench.peer.faults:
            continue
        bench.peer.script(Behaviour(fault, times=0))
        bench.put(bench.events(20, fault))
        bench.turns(4)
        if bench.backlog != 20 or bench.dead():
            wrong.append(f"{fault}: {20 - bench.backlog} events left the outbox, {len(bench.dead())} as dead letters")
        if not bench.errors()["AuthError"] and not bench.errors()["ConfigError"]:
            wrong.append(f"{fault}: no AuthError or ConfigError was raised")
        bench.peer.heal()
        wrong += _undelivered(bench)
    if any(not message.strip() for message in bench.messages.values()):
        wrong.append("an error says nothing")
    return wrong


def wrong_way(bench: Bench, fault: Fault) -> list[str]:
    """F29, F30: a name that does not resolve, a proxy that refuses, certificates that are wrong: nothing goes out."""
    other = bench.peer.elsewhere(fault)
    inner = bench.make(other)
    bench.watched.close()
    bench.watched._inner = inner  # noqa: SLF001 - the same observer, another destination
    bench.put(bench.events(10, fault))
    bench.turns(6, skip=1.0)
    bench.holds = True
    wrong = []
    if other.received() or other.traffic.bytes:
        wrong.append(f"{len(other.received())} events, {other.traffic.bytes} bytes went out")
    if bench.backlog != 10:
        wrong.append(f"{10 - bench.backlog} events left the outbox")
    if not bench.errors():
        wrong.append("no error was raised")
    if len(bench.watched.sendings) > 8:
        wrong.append(f"{len(bench.watched.sendings)} attempts in six seconds")
    if not inner.check():
        wrong.append("check() finds nothing wrong")
    bench.note = next(iter(bench.errors()), "")
    return wrong


def redirected(bench: Bench) -> list[str]:
    """SSRF: a redirect to another host is not followed; nothing is called delivered."""
    bench.peer.script(Behaviour("redirect", times=0))
    bench.put(bench.events(20, "redirect"))
    bench.turns(3)
    wrong = [] if bench.backlog == 20 and bench.errors() else ["a redirect was taken for an answer"]
    bench.peer.heal()
    return wrong + _undelivered(bench)


def _undelivered(bench: Bench) -> list[str]:
    return [] if bench.drain() else [f"{bench.backlog} events are stuck: {'; '.join(bench.messages.values())[:300]}"]


def _failed_events(bench: Bench, *, but: int) -> int:
    """How many events were in calls that failed, without the first ``but`` of these: so many may come again."""
    failed = [one.events for one in bench.watched.sendings if one.error]
    return sum(failed[but:])


def _resent_within(bench: Bench, most: int) -> list[str]:
    arrived = bench.arrived()
    resent = len(arrived) - len(set(arrived))
    return [f"{resent} events came again, at most {most} may"] if resent > most else []
