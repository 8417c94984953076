"""System-prompt leakage: does a response repeat what the application was told, or a canary planted in it?

A system prompt is kept as keyed hashes of its word runs (eight words each), never as text. Hashing is BLAKE2b under the
tenant's key, so a stolen fingerprint does not let anybody test guesses. A run of twenty repeated words always gives at
least one common run of eight, also when case, punctuation or line breaks changed.

Canaries are tokens that an application plants in its system prompt for this purpose; a response that holds one
repeats it.
"""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

import msgspec

from aitrail.classify.fold import fold

RUN: Final = 8
# Common runs from which on a response counts as repeating the system prompt, and the share of the prompt that counts
# alone.
MIN_RUNS: Final = 2
_MAX_WORDS: Final = 20_000
_MIN_CANARY: Final = 8
_WORDS = re.compile(rb"[0-9a-z\x80-\xff]+")


class Echo(msgspec.Struct, frozen=True, gc=False):
    """How much of a system prompt a response repeats: common runs, share of the prompt's runs, canaries found."""

    runs: int
    coverage: float
    canaries: int

    @property
    def is_leak(self) -> bool:
        """Whether this is a finding."""
        return self.canaries > 0 or self.runs >= MIN_RUNS


NO_ECHO: Final = Echo(0, 0.0, 0)


def _runs(text: str, key: bytes) -> set[bytes]:
    words = _WORDS.findall(fold(text).low)[:_MAX_WORDS]
    return {
        hashlib.blake2b(b" ".join(words[at : at + RUN]), key=key, digest_size=8).digest()
        for at in range(len(words) - RUN + 1)
    }


class PromptFingerprints:
    """The fingerprints of the system prompts of many applications, least recently used ones dropped. Not thread-safe.

    Args:
        key: the tenant's key, at most 64 bytes.
        capacity: how many system prompts are remembered.
        canaries: tokens planted in system prompts; kept as they are, so give only tokens made for this.
    """

    def __init__(self, key: bytes, *, capacity: int = 1000, canaries: Iterable[str] = ()) -> None:
        self._key = key[:64]
        self._capacity = capacity
        self._prompts: OrderedDict[bytes, frozenset[bytes]] = OrderedDict()
        self._canaries = tuple(token for token in canaries if len(token) >= _MIN_CANARY)

    def learn(self, app: str, system: str) -> None:
        """Remember the system prompt of ``app``; cheap when it is known already."""
        name = self._name(app, system)
        if name in self._prompts:
            self._prompts.move_to_end(name)
            return
        self._prompts[name] = frozenset(_runs(system, self._key))
        if len(self._prompts) > self._capacity:
            self._prompts.popitem(last=False)

    def check(self, app: str, system: str, response: str) -> Echo:
        """Compare ``response`` with the system prompt that it was made under."""
        planted = sum(1 for token in self._canaries if token in response)
        self.learn(app, system)
        known = self._prompts[self._name(app, system)]
        if not known:
            return Echo(0, 0.0, planted) if planted else NO_ECHO
        common = len(known & _runs(response, self._key))
        if not common and not planted:
            return NO_ECHO
        return Echo(common, round(common / len(known), 4), planted)

    def _name(self, app: str, system: str) -> bytes:
        state = hashlib.blake2b(key=self._key, digest_size=16)
        state.update(app.encode("utf-8", "surrogatepass") + b"\x00" + system.encode("utf-8", "surrogatepass"))
        return state.digest()
