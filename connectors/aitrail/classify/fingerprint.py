"""System-prompt leakage: does a response repeat what the application was told, or a canary planted in it?

Three things are compared with a response:

* the system prompt that its own call carries; its word runs are remembered in this process only, salted by it;
* the fingerprints of an application's system prompt, for calls that do not carry it: keyed hashes (BLAKE2b under the
  tenant's key) of its word runs, eight words each, in a file that ``aitrail classify fingerprint`` writes. A stolen
  file lets nobody test guesses, and no text of a prompt is ever written;
* canaries: tokens that an application plants in its system prompt for this purpose.

All three are looked for in the response as it is and in what it says once decoded (base64, hex, reversed, spaced out
...). What is found depends on the call and the configuration only: nothing is learned on the way, so that reading a
record again gives the same event. Paraphrases are not found, and of very long texts only the beginning is compared.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

import msgspec

from aitrail.classify.contract import Text
from aitrail.classify.fold import fold
from aitrail.errors import ConfigError

RUN: Final = 8
MIN_CANARY: Final = 8
ANY_APP: Final = "*"
# Words in a row that a response repeats to be a finding, unless configured; shorter overlaps are stock phrases.
WORDS: Final = 20
_MAX_WORDS: Final = 20_000
# What is compared of a system prompt and of an answer, in characters; and how many prompts are remembered.
_MAX_SYSTEM: Final = 60_000
_MAX_ANSWER: Final = 200_000
_REMEMBERED: Final = 64
_DIGEST: Final = 8

_SPACED = bytes(code if code >= 0x80 or chr(code).isalnum() else 0x20 for code in range(256))
_PUNCTUATION = bytes(code for code in range(0x80) if not chr(code).isalnum())


class Echo(msgspec.Struct, frozen=True, gc=False):
    """What one text of a response repeats.

    Attributes:
        signal: ``system_prompt_echo`` or ``canary_echo`` (keys of content/taxonomy/signals.toml).
        text_index: which text of the call.
        layer: ``plain`` or the decoder behind which it was found.
        start, end: where a canary stands in the text itself; both 0 when it cannot be told.
        coverage: share of the system prompt's word runs that were repeated.
    """

    signal: str
    text_index: int
    layer: str
    start: int = 0
    end: int = 0
    coverage: float = 0.0


class Fingerprints(msgspec.Struct, frozen=True):
    """The file of fingerprints: hashes (hex, 8 bytes each) of word runs per application, under one tenant's key."""

    tenant: str
    key_id: str
    apps: dict[str, list[str]] = {}


Layers = Callable[[str], Iterable[tuple[str, bytes]]]


def words_of(low: bytes) -> list[bytes]:
    """The words of a folded text, capped."""
    return low.translate(_SPACED).split()[:_MAX_WORDS]


def keyed_runs(text: str, key: bytes) -> list[str]:
    """The keyed hashes of the word runs of ``text``, in no telling order."""
    return sorted({run.hex() for run in _keyed(words_of(fold(text).low), key, 1)})


def _keyed(words: Sequence[bytes], key: bytes, step: int) -> list[bytes]:
    return [
        hashlib.blake2b(b" ".join(words[at : at + RUN]), key=key[:64], digest_size=_DIGEST).digest()
        for at in range(0, len(words) - RUN + 1, step)
    ]


def _salted(words: Sequence[bytes], step: int) -> list[int]:
    """The runs' hashes under the salt of this process: cheap, and worthless elsewhere."""
    return [hash(b" ".join(words[at : at + RUN])) for at in range(0, len(words) - RUN + 1, step)]


@lru_cache(maxsize=_REMEMBERED)
def _own_runs(system: str) -> frozenset[int]:
    return frozenset(_salted(words_of(fold(system).low), 1))


class SystemPromptGuard:
    """Looks for system prompts and canaries in responses. Thread-safe; the same call always gives the same echoes.

    Args:
        layers: gives the decoded forms of a text: name and folded bytes.
        canaries: tokens by application (lower-case); those of ``*`` count for all.
        prints: per tenant and application, the keyed runs of its system prompt.
        keys: per tenant, the key that ``prints`` were made with.
        words: how many repeated words are a finding.
    """

    def __init__(
        self,
        layers: Layers,
        *,
        canaries: Mapping[str, Sequence[str]] | None = None,
        prints: Mapping[tuple[str, str], frozenset[bytes]] | None = None,
        keys: Mapping[str, bytes] | None = None,
        words: int = WORDS,
    ) -> None:
        self._layers = layers
        self._canaries = {app: tuple(map(_Canary, tokens)) for app, tokens in (canaries or {}).items()}
        self._prints = prints or {}
        self._keys = keys or {}
        # A repetition of ``words`` words has this many runs in a row, so it is enough to look every so many runs.
        self._least = max(1, words - RUN + 1)

    def check(self, tenant: str, app: str, texts: Sequence[Text]) -> list[Echo]:
        """What the response among ``texts`` repeats; at most one finding of each kind."""
        system = [text.text for text in texts if text.role == "system" and text.place == "prompt"]
        known = self._prints.get((tenant, app))
        canaries = [*self._canaries.get(ANY_APP, ()), *self._canaries.get(app, ())] if self._canaries else []
        if not system and known is None and not canaries:
            return []
        own = _own_runs("\n".join(system)[:_MAX_SYSTEM]) if system else frozenset()
        echoes: dict[str, Echo] = {}
        for index, text in enumerate(texts):
            if text.place != "response" or not text.text:
                continue
            answer = text.text[:_MAX_ANSWER]
            for layer, low in (("plain", fold(answer).low), *self._layers(answer)):
                if "canary_echo" not in echoes:
                    hit = next((canary for canary in canaries if canary.within(low)), None)
                    if hit is not None:
                        span = hit.span(answer) if layer == "plain" else (0, 0)
                        echoes["canary_echo"] = Echo("canary_echo", index, layer, *span)
                if "system_prompt_echo" not in echoes:
                    coverage = self._coverage(words_of(low), own, known, tenant)
                    if coverage:
                        echoes["system_prompt_echo"] = Echo("system_prompt_echo", index, layer, coverage=coverage)
        return list(echoes.values())

    def _coverage(self, words: list[bytes], own: frozenset[int], known: frozenset[bytes] | None, tenant: str) -> float:
        """Which share of a system prompt is repeated; 0 when it is less than a finding."""
        least = self._least
        if len(words) < RUN:
            return 0.0
        if own and not own.isdisjoint(_salted(words, least)):
            common = own.intersection(_salted(words, 1))
            if len(common) >= min(least, len(own)):
                return round(len(common) / len(own), 4)
        if known:
            key = self._keys[tenant]
            if not known.isdisjoint(_keyed(words, key, least)):
                both = known.intersection(_keyed(words, key, 1))
                if len(both) >= min(least, len(known)):
                    return round(len(both) / len(known), 4)
        return 0.0


class _Canary:
    """One token, without what may be put between or around its characters."""

    def __init__(self, token: str) -> None:
        self._token = token.lower()
        self._bare = fold(token).low.translate(None, _PUNCTUATION)
        self._reversed = self._bare[::-1]

    def within(self, low: bytes) -> bool:
        bare = low.translate(None, _PUNCTUATION)
        return self._bare in bare or self._reversed in bare

    def span(self, text: str) -> tuple[int, int]:
        """Where it stands unchanged in ``text``, so that masking hides it; (0, 0) when it was changed."""
        lower = text.lower()
        at = lower.find(self._token) if len(lower) == len(text) else -1
        return (at, at + len(self._token)) if at >= 0 else (0, 0)


def check_canary(token: str) -> str:
    """Say what is wrong with a canary; empty when nothing is. Never repeats it."""
    if len(fold(token).low.translate(None, _PUNCTUATION)) < MIN_CANARY:
        return f"a canary needs at least {MIN_CANARY} letters or digits, or ordinary answers would hold it"
    return ""


def read_fingerprints(path: Path) -> Fingerprints:
    """Read a file of fingerprints; raises ``ConfigError`` that names it."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Fingerprints)
    except OSError as fault:
        raise ConfigError(f"cannot be read ({fault.strerror})", where=str(path)) from None
    except msgspec.MsgspecError as fault:
        hint = "write one with: aitrail classify fingerprint"
        raise ConfigError(f"not a file of fingerprints: {fault}", where=str(path), hint=hint) from None


def as_prints(found: Fingerprints) -> dict[tuple[str, str], frozenset[bytes]]:
    """The fingerprints by tenant and application; raises ``ValueError`` when a hash is none."""
    return {
        (found.tenant, app): frozenset(bytes.fromhex(run) for run in runs) for app, runs in found.apps.items() if runs
    }
