"""Where reading begins when nothing was read before: said in the configuration, never guessed."""

from datetime import datetime

EARLIEST, LATEST = "earliest", "latest"
START_HELP = 'Where to begin when nothing was read yet: earliest, latest, or a time such as "2026-11-01T00:00:00Z".'


def check_start(start: str) -> None:
    """Refuse what is no start; raises ``ValueError`` with the fix."""
    if start not in (EARLIEST, LATEST):
        start_epoch(start, 0.0)


def start_epoch(start: str, now: float) -> float:
    """Epoch seconds of a start: 0 for the earliest, ``now`` for the latest; raises ``ValueError``."""
    if start == EARLIEST:
        return 0.0
    if start == LATEST:
        return now
    try:
        moment = datetime.fromisoformat(start)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError('start must be earliest, latest or a time with its zone, e.g. "2026-11-01T00:00:00Z"')
    return moment.timestamp()
