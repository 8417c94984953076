"""Setting the tiers from a tenant's own traffic: so many alerts a day, not a figure from somebody else's data."""

from collections.abc import Iterable
from typing import Annotated, Final

import msgspec

from aitrail.classify.scoring import DEFAULT_THRESHOLDS, Thresholds
from aitrail.errors import ConfigError

_FLOOR: Final = 0.3
_STEP: Final = 0.0001


class Calibration(msgspec.Struct, frozen=True, gc=False):
    """Thresholds and what they would have done to the traffic they were made from (shares in percent).

    ``limited`` names the tiers that could not be lowered or raised as far as the budget asked.
    """

    thresholds: Thresholds
    texts: int
    suspicious_share: float
    high_share: float
    suspicious_per_day: float
    high_per_day: float
    limited: tuple[str, ...] = ()


class Basis(msgspec.Struct, frozen=True):
    """What thresholds were made from: texts, the volume and the budgets (a day), what they would have raised."""

    written: str
    classifier: str
    texts: int
    per_day: float
    suspicious_budget: float
    high_budget: float
    suspicious_per_day: float
    high_per_day: float
    limited: tuple[str, ...] = ()


class CalibrationFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file that ``classify.calibration`` names: TOML, two thresholds and what they were made from."""

    suspicious: Annotated[float, msgspec.Meta(ge=0, le=1)]
    high: Annotated[float, msgspec.Meta(ge=0, le=1)]
    basis: Basis

    @property
    def thresholds(self) -> Thresholds:
        """Where the tiers begin."""
        return Thresholds(self.suspicious, self.high)


def as_toml(found: CalibrationFile) -> str:
    """The file's text; only numbers and texts of our own are in it."""
    basis = msgspec.to_builtins(found.basis)
    lines = [
        "# Thresholds of this organisation, written by `aitrail classify calibrate`.",
        '# aitrail.toml refers to this file: [classify] calibration = "..."',
        f"suspicious = {found.suspicious}",
        f"high = {found.high}",
        "",
        "[basis]",
        *(f"{name} = {msgspec.json.encode(value).decode()}" for name, value in basis.items()),
    ]
    return "\n".join(lines) + "\n"


def calibrate(scores: Iterable[float], *, per_day: float, suspicious_budget: float, high_budget: float) -> Calibration:
    """Choose the lowest thresholds that keep within the budgets.

    Args:
        scores: injection scores of ordinary traffic, one for each text that had something to judge.
        per_day: how many such texts there are in a day.
        suspicious_budget: how many of them may be suspicious or worse in a day.
        high_budget: how many may be high in a day.

    Raises:
        ConfigError: too few texts for the budgets to mean anything, or a budget that makes no sense.
    """
    ordered = sorted(scores, reverse=True)
    if per_day <= 0 or not 0 <= high_budget <= suspicious_budget:
        raise ConfigError("the budgets must be 0 <= high <= suspicious, and the volume above 0")
    needed = min(10_000, int(per_day / max(suspicious_budget, 1)) * 3)
    if len(ordered) < needed:
        raise ConfigError(
            f"{len(ordered)} texts are too few for this budget",
            hint=f"collect at least {needed} texts of ordinary traffic",
        )
    suspicious, low_limited = _threshold(ordered, suspicious_budget / per_day, _FLOOR)
    high, high_limited = _threshold(ordered, high_budget / per_day, max(suspicious, DEFAULT_THRESHOLDS.suspicious))
    thresholds = Thresholds(suspicious, high)
    count = len(ordered) or 1
    share_low = sum(1 for score in ordered if score >= suspicious) / count
    share_high = sum(1 for score in ordered if score >= high) / count
    limited = tuple(name for name, hit in (("suspicious", low_limited), ("high", high_limited)) if hit)
    return Calibration(
        thresholds, len(ordered), round(100 * share_low, 3), round(100 * share_high, 3),
        round(share_low * per_day, 1), round(share_high * per_day, 1), limited,
    )  # fmt: skip


def _threshold(ordered: list[float], share: float, floor: float) -> tuple[float, bool]:
    """The lowest threshold that at most ``share`` of the texts reach, not below ``floor``."""
    allowed = int(share * len(ordered))
    if allowed >= len(ordered):
        return floor, True
    wanted = round(ordered[allowed] + _STEP, 4)
    if wanted > 1.0:
        return 1.0, True
    return (floor, True) if wanted < floor else (wanted, False)
