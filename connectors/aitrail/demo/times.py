"""Time formats of the wire formats, fast: the day's text is cached, the rest is arithmetic."""

from datetime import UTC, datetime
from functools import lru_cache


@lru_cache(maxsize=4096)
def _minute(minute: int) -> str:
    return f"{datetime.fromtimestamp(minute * 60, UTC):%Y-%m-%dT%H:%M:}"


def iso_seconds(t: float) -> str:
    """``2026-11-20T09:14:05Z``, as CloudTrail writes it."""
    whole = int(t)
    return f"{_minute(whole // 60)}{whole % 60:02d}Z"


def iso_millis(t: float) -> str:
    """``2026-11-20T09:14:05.120Z``."""
    millis = round(t * 1000)
    return f"{_minute(millis // 60000)}{millis % 60000 // 1000:02d}.{millis % 1000:03d}Z"


def iso_ticks(t: float) -> str:
    """``2026-11-20T09:14:05.1200000Z``: seven decimals, as Azure Monitor writes it."""
    micros = round(t * 1_000_000)
    return f"{_minute(micros // 60_000_000)}{micros % 60_000_000 // 1_000_000:02d}.{micros % 1_000_000:06d}0Z"


def iso_ticks_ms(t: float) -> str:
    """The same with a clock of milliseconds (Azure OpenAI): ``2026-11-20T09:14:05.1200000Z``."""
    return f"{iso_millis(t)[:-1]}0000Z"


def plain_micros(t: float) -> str:
    """``2026-11-20 09:14:05.120000``: a database's text, without zone."""
    return iso_ticks(t)[:-2].replace("T", " ")


def dotnet_ticks(t: float) -> int:
    """.NET ticks: 100 ns since year 1."""
    return 621_355_968_000_000_000 + round(t * 1_000_000) * 10


def nanos(t: float) -> str:
    """Nanoseconds since the epoch, as the decimal text that OTLP/JSON uses."""
    return str(round(t * 1_000_000) * 1000)


def day_start(day: str) -> float:
    """Epoch seconds of midnight UTC of ``day`` (``2026-11-20``)."""
    return datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()


@lru_cache(maxsize=4096)
def hour_parts(hour: int) -> tuple[str, str, str, str]:
    """Year, month, day and hour of an hour number (epoch seconds // 3600)."""
    moment = datetime.fromtimestamp(hour * 3600, UTC)
    return f"{moment:%Y}", f"{moment:%m}", f"{moment:%d}", f"{moment:%H}"
