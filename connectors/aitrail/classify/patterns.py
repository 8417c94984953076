"""Pattern files: what a concept is, how its patterns are written, and how they become one compiled set.

A file of ``content/patterns/injection`` holds concepts. A pattern is written the way people read: lower case, one space
for whatever separates words, ``{name}`` for a macro of ``macros.toml``, ``{gap3}`` for up to three further words,
``{near40}`` for up to forty bytes of anything. Everything else is a regular expression in the dialect of ``engine``.
"""

import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from aitrail.classify import prepared
from aitrail.classify.fold import fold_pattern
from aitrail.classify.rarity import Sets, required
from aitrail.contentdir import content_path
from aitrail.errors import ConfigError

# Part of how texts are read, not of what is looked for: these do not come from a folder of one's own.
FIXED_FILES: Final = ("common_words.txt", "lookalikes.toml")
SEPARATOR: Final = r"[^0-9a-z\x80-\xff]{1,4}"
_WORD: Final = r"[0-9a-z'\x80-\xff]{1,24}"
_MACRO: Final = re.compile(r"\{([a-z][a-z0-9_]*)\}( ?)")
_GAP: Final = re.compile(r"gap([1-9][0-9]?)$")
_NEAR: Final = re.compile(r"near([1-9][0-9]{0,2})$")
_MAX_DEPTH: Final = 8
# How far around a match ``unless`` is looked for, in bytes.
NEAR_UNLESS: Final = 80
# Whether a pattern begins with a letter, and whether it ends with punctuation: where a word boundary belongs.
_FIRST_IS_WORD: Final = re.compile(r"(?:\(\?:)*[a-z0-9]")
_LAST_IS_MARK: Final = re.compile(r"(?:\]|[\"'`:=>-])(?:\{[0-9,]+\})?\??$")
# Occurrences in a million words above which a pattern is too common to be looked for everywhere.
MAX_FREQUENCY: Final = 100.0
# The same for texts of a few words.
MAX_FREQUENCY_SHORT: Final = 800.0
MAX_FREQUENCY_LEXICON: Final = 8000.0
# Of what a match must contain, how many sets are looked for, and up to which frequency beyond the rarest one: in the
# pass over every text, and in the second one.
_SETS_PRIMARY: Final = (2, 3_000.0)
_SETS_OTHER: Final = (3, 8_000.0)
# Marks a gap inside an expanded pattern; the character behind it is its size.
_CUT: Final = "\x00"
_CUT_WORDS: Final = 0x100
_CUT_BYTES: Final = 0x1000


class Concept(msgspec.Struct, frozen=True, gc=False):
    """One idea that the classifier looks for.

    Attributes:
        name: lower_snake_case, unique over all files; what ``aitrail explain`` shows.
        group: concepts of one group are one piece of evidence: the strongest counts.
        signal: key of ``taxonomy/signals.toml``: which ATLAS and OWASP ids it stands for.
        weight: probability that a text with this evidence alone is an attack, 0 to 1.
        patterns: see the module's text.
        must_hit: texts that the concept must find, must_not_hit: texts that it must not find.
        roles: in texts of which roles it counts.
        max_chars: longer texts do not count (0: no limit): for weak words that only matter in short prompts.
        unless: patterns beside which (``NEAR_UNLESS`` bytes around) the concept does not count; written like patterns.
        raw: patterns get no word boundaries at their ends, and a space in them is a space or tab: for signs of markup.
        lexical: made from the lexicon: words, although ``raw``.
        supporting: looked for only in texts where another concept was found: weak evidence in everyday words.
    """

    name: str
    group: str
    signal: str
    weight: float
    patterns: tuple[str, ...]
    must_hit: tuple[str, ...]
    must_not_hit: tuple[str, ...]
    roles: tuple[str, ...] = ("user", "tool")
    max_chars: int = 0
    raw: bool = False
    supporting: bool = False
    lexical: bool = False
    unless: tuple[str, ...] = ()


class PatternFile(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """The shape of one pattern file."""

    concept: tuple[Concept, ...]


class Compiled(msgspec.Struct, frozen=True, gc=False):
    """The patterns of a concept as one expression for the engine.

    ``gates`` are alternatives: of each set of one of them a text must contain an expression, or nothing can match; no
    alternative at all says that anything may. What is ``primary`` (made of rare words) is looked for in every text,
    what is ``brief`` (less rare ones) in every short text, the rest only where a primary pattern or an anchor was
    found. A concept with patterns of several sorts becomes several.
    """

    concept: Concept
    sources: tuple[str, ...]
    expression: bytes
    gates: tuple[tuple[tuple[bytes, ...], ...], ...]
    primary: bool
    brief: bool = False


def read_toml(path: Path) -> dict[str, Any]:
    """Read one TOML file; raises ``ConfigError`` that names the file and the place."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise ConfigError(f"cannot be read: {fault}", where=str(path), hint="it must be TOML in UTF-8") from None


def load_macros(folder: Path | None = None) -> dict[str, str]:
    """Load the macros: a list of alternatives or one expression for each name."""
    path = (folder or content_path("patterns")) / "macros.toml"
    if not path.exists():
        path = content_path("patterns", "macros.toml")
    macros: dict[str, str] = {}
    for name, value in read_toml(path).items():
        macros[name] = "(?:" + "|".join(value) + ")" if isinstance(value, list) else str(value)
    return macros


def load_anchors(folder: Path | None = None) -> list[str]:
    """Load the words and phrases that make a text worth a second, deeper pass."""
    path = (folder or content_path("patterns")) / "anchors.toml"
    if not path.exists():
        path = content_path("patterns", "anchors.toml")
    return [str(word) for word in read_toml(path)["anchors"]]


def compile_anchors(anchors: Sequence[str]) -> list[bytes]:
    """Make the anchors' expressions."""
    return [_to_bytes(anchor, raw=False) for anchor in anchors]


def load_concepts(folder: Path | None = None) -> list[Concept]:
    """Load every concept of ``folder``/injection (the shipped files when None), in file order.

    Raises:
        ConfigError: a file is not readable, has a wrong field, or repeats a name.
    """
    base = (folder or content_path("patterns")) / "injection"
    concepts: list[Concept] = []
    names: set[str] = set()
    for path in sorted(base.glob("*.toml")):
        concepts.extend(load_file(path))
    for concept in concepts:
        if concept.name in names:
            raise ConfigError(f"the concept {concept.name!r} is defined twice", where=str(base), hint="rename one")
        names.add(concept.name)
    return concepts


def load_file(path: Path) -> tuple[Concept, ...]:
    """Load one pattern file; raises ``ConfigError`` with file and field."""
    try:
        return msgspec.convert(read_toml(path), PatternFile).concept
    except msgspec.ValidationError as fault:
        raise ConfigError(str(fault), where=str(path), hint="see docs/classification.md, pattern files") from None


def expand(pattern: str, macros: Mapping[str, str], depth: int = 0) -> str:
    """Replace macros; gaps become ``_CUT`` and their number. Raises ``ConfigError`` for an unknown or endless macro."""
    if depth > _MAX_DEPTH:
        raise ConfigError(f"macros are nested too deeply in {pattern!r}", hint="a macro must not contain itself")

    def replace(match: re.Match[str]) -> str:
        name, space = match.group(1), match.group(2)
        gap = _GAP.match(name)
        if gap:
            return _CUT + chr(_CUT_WORDS + int(gap.group(1)))
        near = _NEAR.match(name)
        if near:
            return _CUT + chr(_CUT_BYTES + int(near.group(1))) + space
        if name not in macros:
            raise ConfigError(f"unknown macro {{{name}}} in {pattern!r}", hint="define it in macros.toml")
        return expand(macros[name], macros, depth + 1) + space

    return _MACRO.sub(replace, pattern)


def _gap_expression(code: int) -> str:
    if code >= _CUT_BYTES:
        return f".{{0,{code - _CUT_BYTES}}}"
    return f"(?:{_WORD}{SEPARATOR}){{0,{code - _CUT_WORDS}}}"


def _folded(char: str, *, alone: bool) -> str:
    """Fold a letter beyond ASCII; ``alone``: a quantifier or a class holds it, so it must stay one item."""
    folded = fold_pattern(char)
    if folded.isascii():
        return folded if len(folded) < 2 or not alone else f"(?:{folded})"
    escaped = "".join(f"\\x{byte:02x}" for byte in folded.encode())
    return f"(?:{escaped})" if alone else escaped


def _to_bytes(text: str, raw: bool, *, spaced: bool = True) -> bytes:
    """Turn a written expression into the engine's bytes; letters are folded as texts are folded."""
    pieces: list[str] = []
    escaped = in_class = cut = False
    for index, char in enumerate(text):
        if cut:
            pieces.append(_gap_expression(ord(char)))
            cut = False
            continue
        cut = char == _CUT
        if cut:
            continue
        if char == " " and not in_class and not escaped:
            optional = text[index + 1 : index + 2] in ("?", "*")
            space = SEPARATOR if spaced else r"[ \t]"
            pieces.append(f"(?:{space})" if optional else space)
        elif char.isascii():
            pieces.append(char)
        else:
            pieces.append(_folded(char, alone=in_class or text[index + 1 : index + 2] in ("?", "*", "+", "{")))
        if not escaped:
            in_class = (in_class or char == "[") and char != "]"
        escaped = char == "\\" and not escaped
    body = "".join(pieces)
    if not raw:
        left = r"\b" if _FIRST_IS_WORD.match(text) else ""
        right = "" if _LAST_IS_MARK.search(text) else r"\b"
        body = f"{left}(?:{body}){right}"
    return body.encode("ascii")


def compile_concepts(concepts: Sequence[Concept], macros: Mapping[str, str]) -> list[Compiled]:
    """Make the flat list of expressions whose order gives their indexes."""
    out: list[Compiled] = []
    for concept in concepts:
        single = [_compile(concept, pattern, macros) for pattern in concept.patterns]
        for sort in ((True, False), (False, True), (False, False)):
            same = [item for item in single if (item.primary, item.brief) == sort]
            if same:
                out.append(_merged(same))
    return out


class _Kept(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A ``Compiled`` as it is cached: the concept by its place."""

    concept: int
    sources: tuple[str, ...]
    expression: bytes
    gates: tuple[tuple[tuple[bytes, ...], ...], ...]
    primary: bool
    brief: bool


def prepare_concepts(concepts: Sequence[Concept], macros: Mapping[str, str]) -> list[Compiled]:
    """``compile_concepts`` from the cache, where there is one: taking expressions apart costs most of a second."""
    try:
        code = [Path(__file__).with_name(f"{name}.py").read_bytes() for name in ("patterns", "rarity", "fold")]
        data = [content_path("patterns", name).read_bytes() for name in FIXED_FILES]
    except OSError:  # not installed as files
        return compile_concepts(concepts, macros)
    key = prepared.key_of("concepts", *code, *data, msgspec.msgpack.encode([list(concepts), dict(macros)]))
    known = prepared.load(key)
    if known is not None:
        try:
            kept = msgspec.msgpack.decode(known, type=list[_Kept])
            return [
                Compiled(concepts[one.concept], one.sources, one.expression, one.gates, one.primary, one.brief)
                for one in kept
            ]
        except (msgspec.DecodeError, IndexError):
            prepared.discard(key)
    compiled = compile_concepts(concepts, macros)
    places = {id(concept): place for place, concept in enumerate(concepts)}
    kept = [
        _Kept(places[id(one.concept)], one.sources, one.expression, one.gates, one.primary, one.brief)
        for one in compiled
    ]
    prepared.store(key, msgspec.msgpack.encode(kept))
    return compiled


def expression_of(concept: Concept, pattern: str, macros: Mapping[str, str]) -> bytes:
    """Make one pattern's expression for the engine; raises ``ConfigError`` for a macro that is unknown or endless."""
    return _to_bytes(expand(pattern, macros), concept.raw, spaced=concept.lexical or not concept.raw)


def exception_of(concept: Concept, macros: Mapping[str, str]) -> bytes:
    """Make the expression of what a concept does not count beside; empty when there is none."""
    return b"|".join(b"(?:" + expression_of(concept, pattern, macros) + b")" for pattern in concept.unless)


def _compile(concept: Concept, pattern: str, macros: Mapping[str, str]) -> Compiled:
    expression = expression_of(concept, pattern, macros)
    alternatives = required(expression)
    limit = MAX_FREQUENCY_LEXICON if concept.lexical else MAX_FREQUENCY
    known = all(alternatives)
    frequency = sum(sets[0][0] for sets in alternatives) if known and not concept.supporting else math.inf
    primary = frequency <= limit
    brief = not primary and not concept.lexical and frequency <= MAX_FREQUENCY_SHORT
    gates = _gates(alternatives, *(_SETS_PRIMARY if primary else _SETS_OTHER)) if known else ()
    return Compiled(concept, (pattern,), expression, gates, primary, brief)


def _gates(alternatives: Sequence[Sets], count: int, common: float) -> tuple[tuple[tuple[bytes, ...], ...], ...]:
    """Of each alternative the rarest sets; alternatives of one set become one of their union."""
    gates: set[tuple[tuple[bytes, ...], ...]] = set()
    single: set[bytes] = set()
    for sets in alternatives:
        chosen = [found for rare, found in [*sets[:1], *(item for item in sets[1:] if item[0] <= common)][:count]]
        if len(chosen) == 1:
            single.update(chosen[0])
        else:
            gates.add(tuple(sorted(chosen)))
    if single:
        gates.add((tuple(sorted(single)),))
    return tuple(sorted(gates))


def _merged(items: Sequence[Compiled]) -> Compiled:
    if len(items) == 1:
        return items[0]
    gates = sorted({gate for item in items for gate in item.gates})
    return Compiled(
        items[0].concept,
        tuple(source for item in items for source in item.sources),
        b"|".join(b"(?:" + item.expression + b")" for item in items),
        tuple(gates) if all(item.gates for item in items) else (),
        items[0].primary,
        items[0].brief,
    )
