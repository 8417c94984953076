"""Randomness that gives the same values on every Python version and machine.

Only ``random.Random.random`` and ``getrandbits`` are promised to be stable; ``choice``, ``shuffle`` and the
distributions are not, and ``math.exp`` differs between C libraries. So everything is made from those two and from
plain arithmetic.
"""

import random
from bisect import bisect
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import TypeVar

T = TypeVar("T")


class Rng:
    """A stream of random values; its own stream for every name, so that adding one never shifts another."""

    __slots__ = ("bits", "random")

    def __init__(self, *names: object) -> None:
        source = random.Random("/".join(str(name) for name in names))
        self.random = source.random
        self.bits = source.getrandbits

    def below(self, count: int) -> int:
        """An integer from 0 to ``count`` - 1."""
        return int(self.random() * count)

    def between(self, low: int, high: int) -> int:
        """An integer from ``low`` to ``high``, both included."""
        return low + int(self.random() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.random() < probability

    def pick(self, items: Sequence[T]) -> T:
        """One of ``items``, each equally likely."""
        return items[int(self.random() * len(items))]

    def weighted(self, items: tuple[T, ...], weights: tuple[float, ...]) -> T:
        """One of ``items``, by weight."""
        sums = _sums(weights)
        return items[min(bisect(sums, self.random() * sums[-1]), len(items) - 1)]

    def skewed(self, typical: float) -> float:
        """A duration-like value: mostly around ``typical``, now and then several times as much."""
        r = self.random()
        r3 = r * r * r
        return typical * (0.55 + 0.6 * r + 2.4 * r3 * r3 * r3)

    def hex(self, digits: int) -> str:
        """``digits`` lower-case hex digits."""
        return f"{self.bits(digits * 4):0{digits}x}"

    def uuid(self) -> str:
        """A random UUID (version 4)."""
        h = f"{self.bits(128):032x}"
        return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-{'89ab'[int(h[16], 16) & 3]}{h[17:20]}-{h[20:]}"

    def letters(self, count: int, alphabet: str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") -> str:
        """``count`` characters of ``alphabet``."""
        size = len(alphabet)
        return "".join(alphabet[int(self.random() * size)] for _ in range(count))


@lru_cache(maxsize=256)
def _sums(weights: tuple[float, ...]) -> list[float]:
    return list(accumulate(weights))
