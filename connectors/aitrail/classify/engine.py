r"""The multi-pattern matcher: many regular expressions, one pass, linear time.

Two engines stand behind one Protocol and give the same answer, which patterns occur in a buffer: Hyperscan where it has
wheels, google-re2 elsewhere. Both run in time linear in the buffer whatever the patterns (no back-tracking), and both
see bytes, so that the answer never depends on a locale or on Unicode tables. What is common to both dialects is the
dialect of the pattern files: literals, classes, groups, alternation, ``? * + {m,n}``, ``\\b``, ``^`` for the start
of the text; no captures needed, no look-around, no back-references.

A set may also hold gates: alternatives of conditions, each a list of expressions of which one must occur. They answer
like patterns. Hyperscan settles them while it scans, so a word that only counts together with others costs no call
back into Python.
"""

import threading
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Protocol

import re2

from aitrail.classify import prepared
from aitrail.errors import ConfigError

try:  # no wheels for every platform: see pyproject.toml
    import hyperscan
except ImportError:  # pragma: no cover - depends on the platform
    hyperscan = None  # type: ignore[assignment]

# RE2's automaton cache, in bytes: large enough for the whole pattern set, or the set falls back to slow searches.
_RE2_SET_MEMORY = 256 << 20

# One alternative of a gate is a list of conditions, a condition a list of expressions.
Gate = Sequence[Sequence[Sequence[bytes]]]


class PatternSet(Protocol):
    """Says which of its patterns and gates occur in a buffer. Thread-safe."""

    engine: str

    def match(self, data: bytes) -> list[int]:
        """Return the indexes of what occurs in ``data``, sorted, each once: patterns first, gates behind them."""
        ...


def re2_options(*, memory: int = 2 << 20) -> Any:
    """Options under which RE2 reads bytes the way Hyperscan does: one byte, one character; ``.`` takes newlines."""
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.dot_nl = True
    options.max_mem = memory
    options.log_errors = False
    return options


class _Conditions:
    """The conditions of some gates, each once: one expression per condition, numbered from 0."""

    def __init__(self, gates: Sequence[Gate]) -> None:
        numbers: dict[bytes, int] = {}
        self.gates = [
            sorted({tuple(sorted(numbers.setdefault(b"|".join(one), len(numbers)) for one in each)) for each in gate})
            for gate in gates
        ]
        self.expressions = list(numbers)


class Re2Set:
    """A pattern set on google-re2."""

    engine = "re2"

    def __init__(self, patterns: Sequence[bytes], gates: Sequence[Gate] = ()) -> None:
        self._set = re2.Set.SearchSet(re2_options(memory=_RE2_SET_MEMORY))
        self._count = len(patterns)
        conditions = _Conditions(gates)
        for index, pattern in enumerate([*patterns, *conditions.expressions]):
            if self._set.Add(pattern) != index:
                raise ConfigError(f"pattern {index} is not a valid expression", hint="run: aitrail classify lint")
        self._set.Compile()
        self._empty = not (patterns or gates)
        # Every gate by its conditions, as sets of the numbers that the set reports.
        self._gates = [
            [frozenset(self._count + number for number in each) for each in gate] for gate in conditions.gates
        ]

    def match(self, data: bytes) -> list[int]:
        """See ``PatternSet``."""
        if self._empty:
            return []
        found = sorted(self._set.Match(data) or ())
        if not self._gates:
            return found
        present = frozenset(found)
        out = [number for number in found if number < self._count]
        out += [
            self._count + number for number, gate in enumerate(self._gates) if any(needed <= present for needed in gate)
        ]
        return out


def _collect(index: int, _start: int, _end: int, _flags: int, found: Any) -> None:
    found.append(index)


class HyperscanSet:
    """A pattern set on Hyperscan; every thread has its own scratch space, as the library demands."""

    engine = "hyperscan"

    def __init__(self, patterns: Sequence[bytes], gates: Sequence[Gate] = ()) -> None:
        self._empty = not (patterns or gates)
        if self._empty:
            return
        self._db = _database(patterns, gates)
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


def _database(patterns: Sequence[bytes], gates: Sequence[Gate]) -> Any:
    """Compile, or take from the cache of compiled sets, which saves a second or two of every start."""
    conditions = _Conditions(gates)
    once = hyperscan.HS_FLAG_SINGLEMATCH
    count = len(patterns)
    expressions = [*patterns]
    flags = [once | hyperscan.HS_FLAG_DOTALL] * count
    expressions += [
        b"|".join(b"(" + _all_of(each, count + len(gates)) + b")" for each in gate) for gate in conditions.gates
    ]
    flags += [once | hyperscan.HS_FLAG_COMBINATION] * len(gates)
    expressions += conditions.expressions
    flags += [once | hyperscan.HS_FLAG_DOTALL | hyperscan.HS_FLAG_QUIET] * len(conditions.expressions)
    key = prepared.key_of("hyperscan", version("hyperscan"), *expressions, *(b"%d" % flag for flag in flags))
    known = prepared.load(key)
    if known is not None:
        try:
            return hyperscan.loadb(known, hyperscan.HS_MODE_BLOCK)
        except hyperscan.error:  # of another processor or version: compiled anew
            prepared.discard(key)
    database = hyperscan.Database()
    try:
        database.compile(
            expressions=expressions, ids=list(range(len(expressions))), elements=len(expressions), flags=flags
        )
    except hyperscan.error as fault:
        raise ConfigError(f"the pattern set does not compile: {fault}", hint="run: aitrail classify lint") from None
    prepared.store(key, hyperscan.dumpb(database))
    return database


def _all_of(numbers: Sequence[int], base: int) -> bytes:
    """A conjunction for Hyperscan, which knows none of a single term."""
    terms = numbers if len(numbers) > 1 else [*numbers, *numbers]
    return b"&".join(b"%d" % (base + number) for number in terms)


ENGINES: dict[str, type[Re2Set] | type[HyperscanSet]] = {"re2": Re2Set}
if hyperscan is not None:
    ENGINES["hyperscan"] = HyperscanSet


def compile_set(patterns: Sequence[bytes], engine: str = "auto", gates: Sequence[Gate] = ()) -> PatternSet:
    r"""Compile ``patterns`` and ``gates`` for ``engine``: hyperscan, re2 or auto (Hyperscan where it is installed).

    Every gate has an alternative, every alternative a condition; no expression in them ends with ``\b``.

    Raises:
        ConfigError: the engine is not installed, or a pattern is outside the common dialect.
    """
    name = ("hyperscan" if "hyperscan" in ENGINES else "re2") if engine == "auto" else engine
    if name not in ENGINES:
        raise ConfigError(
            f"the matching engine {name!r} is not installed", hint=f"use one of {', '.join(sorted(ENGINES))}"
        )
    return ENGINES[name](patterns, gates)
