"""From evidence to a score: noisy-or over independent groups, and the tiers.

Concepts of one group say the same thing in other words, so of each group only the strongest counts; groups are taken as
independent, so the score is one minus the product of what each leaves open.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from aitrail.event import InjectionTier


class Thresholds(msgspec.Struct, frozen=True, gc=False):
    """From which score on a text is in a tier. The defaults aim at 1 % and 0.1 % of ordinary traffic."""

    suspicious: float = 0.45
    high: float = 0.85

    def tier(self, score: float) -> InjectionTier:
        """Name the tier of ``score``; empty below both."""
        if score >= self.high:
            return "high"
        return "suspicious" if score >= self.suspicious else ""


DEFAULT_THRESHOLDS: Final = Thresholds()


def noisy_or(weights: Iterable[tuple[str, float]]) -> float:
    """Combine (group, weight) pairs; 0 when there are none."""
    strongest: dict[str, float] = {}
    for group, weight in weights:
        if weight > strongest.get(group, 0.0):
            strongest[group] = weight
    open_part = 1.0
    for weight in strongest.values():
        open_part *= 1.0 - weight
    return round(1.0 - open_part, 4)
