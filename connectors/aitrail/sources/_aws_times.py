"""Times in the settings of AWS sources."""

from datetime import UTC, datetime

from aitrail.errors import ConfigError


def parse_time(text: str, where: str) -> float:
    """Read ``2026-11-01`` or an RFC 3339 time as epoch seconds, 0 for empty text; raises ``ConfigError``."""
    if not text:
        return 0.0
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"{text!r} is no time", where=where, hint='write "2026-11-01" or "2026-11-01T08:00:00Z"'
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
