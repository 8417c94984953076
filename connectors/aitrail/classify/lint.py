"""Checking pattern files: shape, dialect, both engines, and the examples that every concept carries."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import re2

from aitrail.classify import leaks, lexicon, patterns, taxonomy
from aitrail.classify.engine import re2_options
from aitrail.classify.fold import fold
from aitrail.contentdir import content_path
from aitrail.errors import ConfigError


class Problem(msgspec.Struct, frozen=True, gc=False):
    """One thing that is wrong: where (file or concept), what, and how to fix it."""

    where: str
    message: str
    hint: str = ""


def lint(folder: Path | None = None) -> list[Problem]:
    """Check the files of ``folder`` (the shipped ones when None) without running their examples."""
    try:
        macros = patterns.load_macros(folder)
        concepts = [*patterns.load_concepts(folder), *lexicon.lexicon_concepts(folder)]
        kinds: list[leaks.Secret | leaks.Pii] = [*leaks.load_secrets(folder), *leaks.load_pii(folder)]
    except ConfigError as fault:
        return [Problem("", str(fault), fault.hint)]
    for found, what in ((concepts, "injection"), (kinds, "leaks")):
        if not found:
            hint = "a folder of your own replaces the shipped one: aitrail classify lint --copy-to FOLDER"
            return [Problem(str(folder), f"has no patterns for {what}, so none would be found", hint)]
    problems = [problem for concept in concepts for problem in _concept(concept, macros)]
    for kind in kinds:
        problems += _expression(f"leaks: {kind.kind}", leaks.expression_bytes(kind.regex))
    return problems + (_unread(folder) if folder is not None else [])


def _unread(folder: Path) -> list[Problem]:
    """Files that somebody wrote or edited in vain: nothing reads them."""
    shipped = content_path("patterns")
    known = {path.relative_to(shipped) for path in shipped.rglob("*.toml")}  # with those that are named below
    hint = "concepts belong into injection/*.toml, secrets and personal data into leaks/secrets.toml and leaks/pii.toml"
    return [
        Problem(str(path), "is not read", hint)
        for path in sorted(folder.rglob("*.toml"))
        if path.parent != folder / "injection" and path.relative_to(folder) not in known
    ] + [
        Problem(str(folder / name), "is not read: it is the same for everybody", "take it out of the folder")
        for name in patterns.FIXED_FILES
        if (folder / name).exists()
    ]


def _concept(concept: patterns.Concept, macros: dict[str, str]) -> Iterator[Problem]:
    where = concept.name
    if not 0 < concept.weight < 1:
        yield Problem(where, f"weight {concept.weight} is not between 0 and 1")
    if concept.signal not in taxonomy.signals():
        yield Problem(where, f"unknown signal {concept.signal!r}", "use one of content/taxonomy/signals.toml")
    if not concept.lexical and not (concept.must_hit and concept.must_not_hit):
        yield Problem(where, "must_hit and must_not_hit need at least one line each")
    for pattern in (*concept.patterns, *concept.unless):
        if pattern != pattern.lower() and "\\" not in pattern:
            yield Problem(where, f"pattern has upper-case letters: {pattern}", "texts are matched in lower case")
        try:
            expression = patterns.expression_of(concept, pattern, macros)
        except ConfigError as fault:
            yield Problem(where, str(fault), fault.hint)
            continue
        yield from _expression(f"{where}: {pattern[:60]}", expression)


def _expression(where: str, expression: bytes) -> Iterator[Problem]:
    try:
        re2.compile(expression, re2_options())
    except re2.error as fault:
        reason = fault.args[0].decode() if fault.args and isinstance(fault.args[0], bytes) else str(fault)
        hint = "no look-around, no back-references, repeats up to 1000"
        yield Problem(where, f"not in RE2's dialect: {reason}", hint)


def run_examples(folder: Path | None = None, engine: str = "auto") -> list[Problem]:
    """Run the must-hit and must-not-hit lines of every concept and language with ``engine``."""
    # Imported late: the judge compiles everything, which linting a broken file must not need.
    from aitrail.classify.inject import Injection  # noqa: PLC0415
    from aitrail.classify.scoring import DEFAULT_THRESHOLDS  # noqa: PLC0415

    judge = Injection((), folder, engine)
    macros = patterns.load_macros(folder)
    problems: list[Problem] = []
    for concept in judge.concepts:
        numbers = [index for index, item in enumerate(judge.compiled) if item.concept is concept]
        problems += [
            Problem(concept.name, f"does not hit: {line}")
            for line in concept.must_hit
            if not any(judge.gated.search(number, fold(line).low) for number in numbers)
        ]
        for line in concept.must_not_hit:
            if any(judge.gated.search(number, fold(line).low) for number in numbers):
                wrong = _which(concept, macros, fold(line).low)
                problems.append(Problem(concept.name, f"hits, and must not: {line}", f"pattern: {wrong[:80]}"))
    for language in lexicon.load_lexicon(folder):
        for line, wanted in [
            *((line, True) for line in language.must_hit),
            *((line, False) for line in language.must_not_hit),
        ]:
            folded = fold(line)
            found = (
                judge.judge(line, "user", folded, judge.gated.scan(folded.low)).score >= DEFAULT_THRESHOLDS.suspicious
            )
            if found is not wanted:
                problems.append(
                    Problem(f"lexicon {language.code}", f"{'does not hit' if wanted else 'hits, and must not'}: {line}")
                )
    return problems


def _which(concept: patterns.Concept, macros: dict[str, str], data: bytes) -> str:
    """The pattern of ``concept`` that occurs in ``data``."""
    for pattern in concept.patterns:
        if re2.compile(patterns.expression_of(concept, pattern, macros), re2_options()).search(data):
            return pattern
    return ""


def copy_for_editing(target: Path) -> Path:
    """Copy the shipped pattern files to ``target`` so that a user can change them; returns the folder."""
    source = content_path("patterns")
    for path in source.rglob("*"):
        if path.is_file() and path.name not in patterns.FIXED_FILES:
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
    return target
