"""The multilingual lexicon: for each language a few word lists, from which its concepts are made.

Word order and grammar differ too much for written patterns, so a concept is two or three lists that occur close to each
other, in any order. The words are folded like the texts: accents do not matter.
"""

from itertools import permutations
from pathlib import Path
from typing import Final

import msgspec

from aitrail.classify.patterns import Concept, read_toml
from aitrail.contentdir import content_path
from aitrail.errors import ConfigError

_NEAR: Final = 60
_MAX_CHARS: Final = 6000
# Concepts that everyday requests resemble.
_WITH_EVERYDAY: Final = frozenset(("extraction_secret", "override_short"))


class Language(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """The words of one language. Entries are patterns as in pattern files; ``words`` says whether spaces part them.

    Attributes:
        code: ISO 639-1.
        ignore: verbs for setting aside; prior: earlier, all, your; instructions: what is set aside.
        reveal: verbs for showing; own: the system prompt, your instructions; secret: the password.
        everyday: words beside which a password or a forgotten instruction is nothing but that: change, reset, e-mail.
        free: phrases for being without rules; turn: "from now on", "you are now"; phrases: whole attacks.
        must_hit, must_not_hit: texts that some concept of the language must, or must not, find.
        words: whether the script puts spaces between words.
    """

    code: str
    ignore: tuple[str, ...] = ()
    prior: tuple[str, ...] = ()
    instructions: tuple[str, ...] = ()
    reveal: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    secret: tuple[str, ...] = ()
    everyday: tuple[str, ...] = ()
    free: tuple[str, ...] = ()
    turn: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()
    must_hit: tuple[str, ...] = ()
    must_not_hit: tuple[str, ...] = ()
    words: bool = True


class LexiconFile(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """The shape of ``lexicon.toml``."""

    language: tuple[Language, ...]


def load_lexicon(folder: Path | None = None) -> tuple[Language, ...]:
    """Load the lexicon; raises ``ConfigError`` with file and field."""
    path = (folder or content_path("patterns")) / "lexicon.toml"
    if not path.exists():
        return ()
    try:
        return msgspec.convert(read_toml(path), LexiconFile).language
    except msgspec.ValidationError as fault:
        raise ConfigError(str(fault), where=str(path), hint="see docs/classification.md, lexicon") from None


def _any(entries: tuple[str, ...], *, words: bool) -> str:
    body = "|".join(entries)
    return rf"\b(?:{body})" if words else f"(?:{body})"


def _one(entries: tuple[str, ...], *, words: bool) -> tuple[str, ...]:
    return (_any(entries, words=words),) if entries else ()


def _orders(lists: tuple[tuple[str, ...], ...], *, words: bool) -> tuple[str, ...]:
    if not all(lists):
        return ()
    parts = [_any(entries, words=words) for entries in lists]
    gap = f"{{near{_NEAR}}}"
    return tuple(gap.join(order) for order in permutations(parts))


def _concepts(language: Language) -> list[Concept]:
    made: list[tuple[str, str, str, float, tuple[str, ...]]] = [
        ("override", "override", "direct_injection", 0.75, _orders((language.ignore, language.prior,
        language.instructions), words=language.words)),
        ("override_short", "override", "direct_injection", 0.55, _orders((language.ignore, language.instructions),
        words=language.words)),
        ("extraction", "extraction", "prompt_extraction", 0.6, _orders((language.reveal, language.own),
        words=language.words)),
        ("extraction_secret", "extraction", "prompt_extraction", 0.6, _orders((language.reveal, language.secret),
        words=language.words)),
        ("no_limits", "no_limits", "jailbreak", 0.5, _one(language.free, words=language.words)),
        ("switch", "switch", "direct_injection", 0.35, _one(language.turn, words=language.words)),
        ("phrase", "phrase", "direct_injection", 0.6, _one(language.phrases, words=language.words)),
    ]  # fmt: skip
    return [
        Concept(
            name=f"{name}_{language.code}",
            group=group,
            signal=signal,
            weight=weight,
            patterns=found,
            must_hit=(),
            must_not_hit=(),
            max_chars=_MAX_CHARS,
            raw=True,
            lexical=True,
            supporting=name == "switch",
            unless=_one(language.everyday, words=language.words) if name in _WITH_EVERYDAY else (),
        )
        for name, group, signal, weight, found in made
        if found
    ]


def lexicon_concepts(folder: Path | None = None) -> list[Concept]:
    """Make the concepts of every language."""
    return [concept for language in load_lexicon(folder) for concept in _concepts(language)]
