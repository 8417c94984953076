"""Try a configured destination: what is wrong, one sentence each, with the permission or setting that is missing.

``check`` of a destination sends no event, so it cannot see what a receiver says only of events: an index that the token
may not write to, a role that can describe but not write, a quota. A probe is one ``health`` event, marked as one; it
stays at the receiver.
"""

import socket
import time

from aitrail.clock import Clock, SystemClock, iso_ms
from aitrail.config import Config
from aitrail.errors import AitrailError, AuthError, ConfigError
from aitrail.event import AccessEvent
from aitrail.ports import Destination, EncodedEvent, Verdict
from aitrail.registry import make_route
from aitrail.routing.codes import delivery_reason
from aitrail.routing.route import Route
from aitrail.secrets import Secrets
from aitrail.streams import Health, encoded, make_id

_PROBE_SECONDS = 15.0
_TRIES = 5


def examine(config: Config, name: str, *, probe: bool = False, clock: Clock | None = None) -> list[str]:
    """Say what is wrong with ``[destinations.NAME]``; empty when all is well.

    Args:
        config: the configuration.
        name: which destination.
        probe: also send one health event, where the type takes them.
        clock: stamps the probe.
    """
    try:
        route = make_route(name, config, Secrets(), _masks_nothing)
    except AitrailError as error:
        return [error.sentence]
    try:
        found = _checked(route.destination)
        if probe and not found:
            found = _probed(route, clock or SystemClock())
    finally:
        route.destination.close()
    return [_without_name(problem, name) for problem in found]


def _checked(destination: Destination) -> list[str]:
    try:
        return destination.check()
    except AitrailError as error:
        return [error.sentence]


def _probed(route: Route, clock: Clock) -> list[str]:
    if "health" not in route.rule.streams:
        return []
    event = probe_event(clock)
    deadline = clock.monotonic() + _PROBE_SECONDS
    for _ in range(_TRIES):
        try:
            [verdict] = route.destination.send([event], time.monotonic() + _PROBE_SECONDS).verdicts
        except (AuthError, ConfigError) as error:
            return [error.sentence]
        except AitrailError as error:
            return [f"{error.sentence}; nothing is lost: events wait in the outbox"]
        trouble = str(getattr(route.destination, "trouble", ""))
        if trouble:
            return [trouble]
        if verdict.status != "retry" or clock.monotonic() >= deadline:
            break
        clock.sleep(min(verdict.retry_after or 0.2, 2.0))
    return _judged(verdict)


def _judged(verdict: Verdict) -> list[str]:
    if verdict.status == "rejected":
        reason = delivery_reason(verdict.code)
        return [f"it refuses a health event ({verdict.code}): {reason.meaning} ({reason.fix})"]
    if verdict.status == "retry":
        return [f"it does not take a health event now ({verdict.code or 'no reason given'})"]
    return []


def probe_event(clock: Clock) -> EncodedEvent:
    """One health event that says that it is a check."""
    at = iso_ms(clock.now())
    host = socket.gethostname().lower()
    one = make_id("check", host, at)
    return encoded(Health(event_id=one, timestamp=at, collector=host, kind="check", name="aitrail check"))


def _without_name(problem: str, name: str) -> str:
    """Drop the destination's name in front: whoever prints the sentence says it once."""
    short = problem
    while True:
        for prefix in (f"destinations.{name}: ", f"{name}: "):
            if short.startswith(prefix):
                short = short.removeprefix(prefix)
                break
        else:
            return short


def _masks_nothing(event: AccessEvent) -> None:
    """A check sends no event that has a text."""
    raise AssertionError(event.event_id)
