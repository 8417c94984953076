"""``aitrail content``: lint, test and explain the rules that people write."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.text import Text

from aitrail.contentdir import content_path
from aitrail.errors import ConfigError
from aitrail.runtime.cli.render import clean, console, plural

if TYPE_CHECKING:
    from aitrail.compiler.load import Rules
    from aitrail.compiler.problems import Problem

EPILOG = """\b
Examples:
  aitrail content lint                         every rule: file, line, reason, fix; exits 1 when one is wrong
  aitrail content test --rules my-rules/       run the must-hit and must-not-hit events of your own rules
  aitrail content build                        compile them; --check says what is stale
  aitrail content explain bedrock_guardrail_weakened
"""

_rules_option = click.option(
    "--rules",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=lambda: content_path("detections"),
    show_default="the rules that come with aitrail",
    help="Folder of rules.",
)


@click.group(epilog=EPILOG)
def content() -> None:
    """Check and explain detection rules: Sigma over the fields of AccessEvent, one source for every SIEM."""
    try:
        import sigma  # noqa: F401, PLC0415
        import yaml  # noqa: F401, PLC0415
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed", hint="pip install 'aitrail[content]'") from None


def _load(rules: Path) -> "tuple[Rules, list[Problem]]":
    from aitrail.compiler.lint import lint  # noqa: PLC0415  (needs the extra)
    from aitrail.compiler.load import Rules, load  # noqa: PLC0415
    from aitrail.compiler.problems import ContentError  # noqa: PLC0415

    try:
        found = load(rules)
    except ContentError as error:
        return Rules({}), error.problems
    return found, lint(list(found.by_name.values()))


def _say(problems: "list[Problem]") -> int:
    for problem in problems:
        console(stderr=True).print(Text(clean(str(problem)), "red"), soft_wrap=True)
    return 1 if problems else 0


@content.command()
@_rules_option
def lint(rules: Path) -> int:
    """Say what is wrong with rules, by file and line, with the fix; exits 1 when something is."""
    found, problems = _load(rules)
    if not problems:
        console().print(f"{plural(len(found.by_name), 'rule')}: nothing is wrong")
    return _say(problems)


@content.command()
@_rules_option
def test(rules: Path) -> int:
    """Run the events that rules carry through DuckDB and through the reference; exits 1 when one disagrees."""
    from aitrail.compiler.examples import run  # noqa: PLC0415  (needs the extra)

    found, problems = _load(rules)
    if problems:
        return _say(problems)
    count = 0
    for rule in found.shipped():
        problems += run(rule)
        count += len(rule.meta.hits) + len(rule.meta.misses)
    if not problems:
        console().print(f"{plural(len(found.shipped()), 'rule')}, {plural(count, 'test')}: all as their authors say")
    return _say(problems)


@content.command()
@_rules_option
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=lambda: content_path("compiled"),
    show_default="content/compiled",
    help="Where to write.",
)
@click.option("--check", is_flag=True, help="Write nothing; exit 1 when what is there is not what the rules give.")
def build(rules: Path, out: Path, check: bool) -> int:
    """Compile the rules into what the platforms run. All or nothing: one wrong rule, and nothing is written."""
    from aitrail.compiler.build import artefacts  # noqa: PLC0415  (needs the extra)
    from aitrail.compiler.problems import ContentError  # noqa: PLC0415

    try:
        made = artefacts(rules)
    except ContentError as error:
        return _say(error.problems)
    stale = [name for name, data in made.items() if not (out / name).is_file() or (out / name).read_bytes() != data]
    if check:
        for name in stale:
            console(stderr=True).print(f"{out / name} is stale: run aitrail content build", soft_wrap=True)
        return 1 if stale else 0
    out.mkdir(parents=True, exist_ok=True)
    for name in stale:
        (out / name).write_bytes(made[name])
        console().print(f"wrote {out / name}", soft_wrap=True)
    return 0


@content.command()
@click.argument("name")
@_rules_option
def explain(name: str, rules: Path) -> int:
    """Show the rule NAME: what it means, what it needs, what to do, and its query."""
    from aitrail.compiler.dialects.duckdb import compile_rule  # noqa: PLC0415  (needs the extra)

    found, problems = _load(rules)
    if problems:
        return _say(problems)
    rule = found.by_name.get(name)
    if rule is None:
        import difflib  # noqa: PLC0415  (rare path)

        close = difflib.get_close_matches(name, found.by_name, 1)
        raise ConfigError(f"there is no rule {name!r}", hint=f"did you mean {close[0]!r}?" if close else "")
    meta = rule.meta
    screen = console()
    screen.print(Text(f"{meta.title} [{meta.severity}] {meta.name}", "bold"), soft_wrap=True)
    screen.print(Text(meta.description), soft_wrap=True)
    screen.print(Text("tags: " + ", ".join(meta.tags)), soft_wrap=True)
    screen.print(Text(f"needs: {', '.join(meta.needs.any_of)}. {meta.needs.without}"), soft_wrap=True)
    for reason in meta.false_positives:
        screen.print(Text(f"false positive: {reason}"), soft_wrap=True)
    for phase in ("validate", "contain", "investigate", "remediate"):
        for step in getattr(meta.response, phase):
            screen.print(Text(f"{phase}: {step}"), soft_wrap=True)
    query = compile_rule(rule)
    screen.print(Text(f"\nduckdb ({query.method})\n{query.text}"), soft_wrap=True)
    return 0
