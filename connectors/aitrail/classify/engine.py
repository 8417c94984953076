r"""The multi-pattern matcher: many regular expressions, one pass, linear time.

Two engines stand behind one Protocol and give the same answer, which patterns occur in a buffer: Hyperscan where it has
wheels, google-re2 elsewhere. Both run in time linear in the buffer whatever the patterns (no back-tracking), and both
see bytes, so that the answer never depends on a locale or on Unicode tables. What is common to both dialects is the
dialect of the pattern files: literals, classes, groups, alternation, ``? * + {m,n}``, ``\\b``, ``^`` for the start
of the
text; no captures needed, no look-around, no back-references.
"""

import threading
from collections.abc import Sequence
from typing import Any, Protocol

import re2

from aitrail.errors import ConfigError

try:  # no wheels for every platform: see pyproject.toml
    import hyperscan
except ImportError:  # pragma: no cover - depends on the platform
    hyperscan = None  # type: ignore[assignment]

# RE2's automaton cache, in bytes: large enough for the whole pattern set, or the set falls back to slow searches.
_RE2_SET_MEMORY = 256 << 20


class PatternSet(Protocol):
    """Says which of its patterns occur in a buffer. Thread-safe."""

    engine: str

    def match(self, data: bytes) -> list[int]:
        """Return the indexes of the patterns that occur in ``data``, sorted, each once."""
        ...


def re2_options(*, memory: int = 2 << 20) -> Any:
    """Options under which RE2 reads bytes the way Hyperscan does: one byte, one character; ``.`` takes newlines."""
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.dot_nl = True
    options.max_mem = memory
    options.log_errors = False
    return options


class Re2Set:
    """A pattern set on google-re2."""

    engine = "re2"

    def __init__(self, patterns: Sequence[bytes]) -> None:
        self._set = re2.Set.SearchSet(re2_options(memory=_RE2_SET_MEMORY))
        for index, pattern in enumerate(patterns):
            if self._set.Add(pattern) != index:
                raise ConfigError(f"pattern {index} is not a valid expression", hint="run: aitrail classify lint")
        self._set.Compile()
        self._empty = not patterns

    def match(self, data: bytes) -> list[int]:
        """See ``PatternSet``."""
        if self._empty:
            return []
        return sorted(self._set.Match(data) or ())


def _collect(index: int, _start: int, _end: int, _flags: int, found: Any) -> None:
    found.append(index)


class HyperscanSet:
    """A pattern set on Hyperscan; every thread has its own scratch space, as the library demands."""

    engine = "hyperscan"

    def __init__(self, patterns: Sequence[bytes]) -> None:
        count = len(patterns)
        flags = hyperscan.HS_FLAG_SINGLEMATCH | hyperscan.HS_FLAG_DOTALL
        self._db = hyperscan.Database()
        self._empty = not patterns
        if self._empty:
            return
        try:
            self._db.compile(expressions=list(patterns), ids=list(range(count)), elements=count, flags=[flags] * count)
        except hyperscan.error as fault:
            raise ConfigError(f"the pattern set does not compile: {fault}", hint="run: aitrail classify lint") from None
        self._first = hyperscan.Scratch(self._db)
        self._local = threading.local()

    def match(self, data: bytes) -> list[int]:
        """See ``PatternSet``."""
        if self._empty:
            return []
        try:
            scratch = self._local.scratch
        except AttributeError:
            scratch = self._local.scratch = self._first.clone()
        found: list[int] = []
        self._db.scan(data, _collect, context=found, scratch=scratch)
        return sorted(set(found)) if len(found) > 1 else found


ENGINES: dict[str, type[Re2Set] | type[HyperscanSet]] = {"re2": Re2Set}
if hyperscan is not None:
    ENGINES["hyperscan"] = HyperscanSet


def compile_set(patterns: Sequence[bytes], engine: str = "auto") -> PatternSet:
    """Compile ``patterns`` for ``engine``: hyperscan, re2 or auto (Hyperscan where it is installed).

    Raises:
        ConfigError: the engine is not installed, or a pattern is outside the common dialect.
    """
    name = ("hyperscan" if "hyperscan" in ENGINES else "re2") if engine == "auto" else engine
    if name not in ENGINES:
        raise ConfigError(
            f"the matching engine {name!r} is not installed", hint=f"use one of {', '.join(sorted(ENGINES))}"
        )
    return ENGINES[name](patterns)
