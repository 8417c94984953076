"""``aitrail content``: lint, test and explain the rules that people write."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
from rich.text import Text

from aitrail.contentdir import content_path
from aitrail.errors import ConfigError
from aitrail.runtime.cli.render import clean, console, plural

if TYPE_CHECKING:
    from aitrail.compiler.behavior import Behavior
    from aitrail.compiler.load import Rules
    from aitrail.compiler.problems import Problem

EPILOG = """\b
Examples:
  aitrail content lint                         rules and dashboards: file, line, reason, fix; exits 1 when one is wrong
  aitrail content test --rules my-rules/       run the must-hit and must-not-hit events of your own rules
  aitrail content build                        compile them; --check says what is stale
  aitrail content diff                         what a build would change, per rule and target; exits 1 when anything
  aitrail content explain bedrock_guardrail_weakened
"""

_NO_PACKS = (
    "no packs: this aitrail does not run from a source tree. In one: pip install -e '.[content]', then build again"
)

_rules_option = click.option(
    "--rules",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=lambda: content_path("detections"),
    show_default="the rules that come with aitrail",
    help="Folder of rules.",
)
_dashboards_option = click.option(
    "--dashboards",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=lambda: content_path("dashboards"),
    show_default="the dashboards that come with aitrail",
    help="Folder of dashboards.",
)


@click.group(epilog=EPILOG)
def content() -> None:
    """Check and explain rules and dashboards: made of the fields of AccessEvent, one source for every SIEM."""
    try:
        import sigma  # noqa: F401, PLC0415
        import yaml  # noqa: F401, PLC0415
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed", hint="pip install 'aitrail[content]'") from None


def _load(rules: Path) -> "tuple[Rules, list[Behavior], list[Problem]]":
    from aitrail.compiler.build import read_all  # noqa: PLC0415  (needs the extra)
    from aitrail.compiler.load import Rules  # noqa: PLC0415
    from aitrail.compiler.problems import ContentError  # noqa: PLC0415

    try:
        return *read_all(rules), []
    except ContentError as error:
        return Rules({}), [], error.problems


def _is_named(option: str) -> bool:
    source = click.get_current_context().get_parameter_source(option)
    return source is not None and source.name != "DEFAULT"


def _say(problems: "list[Problem]") -> int:
    for problem in problems:
        console(stderr=True).print(Text(clean(str(problem)), "red"), soft_wrap=True)
    return 1 if problems else 0


@content.command()
@_rules_option
@_dashboards_option
def lint(rules: Path, dashboards: Path) -> int:
    """Say what is wrong with rules and dashboards, by file and line, with the fix; exits 1 when something is.

    With only one of the two folders named, only that one is looked at.
    """
    from aitrail.compiler.dashboard_yaml import read_dashboards  # noqa: PLC0415  (needs the extra)

    named = {name for name in ("rules", "dashboards") if _is_named(name)} or {"rules", "dashboards"}
    problems: list[Problem] = []
    counted: list[str] = []
    if "rules" in named:
        found, behaviors, problems = _load(rules)
        counted.append(plural(len(found.by_name) + len(behaviors), "rule"))
    if "dashboards" in named:
        boards, more = read_dashboards(dashboards)
        problems = [*problems, *more]
        panels = plural(sum(len(board.panels) for board in boards), "panel")
        counted.append(f"{plural(len(boards), 'dashboard')} ({panels})")
    if not problems:
        console().print(f"{', '.join(counted)}: nothing is wrong")
    return _say(problems)


@content.command()
@_rules_option
def test(rules: Path) -> int:
    """Run the events that rules carry through DuckDB and through the reference; exits 1 when one disagrees."""
    from aitrail.compiler import behavior_examples, examples  # noqa: PLC0415  (needs the extra)

    found, behaviors, problems = _load(rules)
    if problems:
        return _say(problems)
    metas = [rule.meta for rule in (*found.shipped(), *behaviors)]
    problems += [problem for rule in found.shipped() for problem in examples.run(rule)]
    problems += [problem for rule in behaviors for problem in behavior_examples.run(rule)]
    count = sum(len(meta.hits) + len(meta.misses) for meta in metas)
    if not problems:
        console().print(f"{plural(len(metas), 'rule')}, {plural(count, 'test')}: all as their authors say")
    return _say(problems)


@content.command()
@_rules_option
@_dashboards_option
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=lambda: content_path("compiled"),
    show_default="content/compiled",
    help="Where to write.",
)
@click.option("--check", is_flag=True, help="Write nothing; exit 1 when what is there is not what the sources give.")
def build(rules: Path, dashboards: Path, out: Path, check: bool) -> int:
    """Compile rules and dashboards into what runs. All or nothing: one of them is wrong, and nothing is written.

    In a source tree the packs for Splunk, Sentinel and Elastic are written, too, and their archives into dist/, unless
    other rules, dashboards or another place are named.
    """
    from aitrail.compiler.build import compiled, write  # noqa: PLC0415  (needs the extra)
    from aitrail.compiler.build import content as read  # noqa: PLC0415
    from aitrail.compiler.emit import packs  # noqa: PLC0415
    from aitrail.compiler.problems import ContentError  # noqa: PLC0415

    try:
        of = read(rules, dashboards)
    except ContentError as error:
        return _say(error.problems)
    made = {out / name: data for name, data in compiled(of).items()}
    own = any(map(_is_named, ("rules", "dashboards", "out")))
    root = None if own else packs.source_tree()
    extra: list[Path] = []
    if root:
        given = packs.emitted(of)
        made |= {root / name: data for name, data in given.items()}
        extra = list(packs.left_over(root, given))
    stale = [path for path, data in made.items() if not path.is_file() or path.read_bytes() != data]
    if check:
        for path in (*stale, *extra):
            console(stderr=True).print(f"{path} is stale: run aitrail content build", soft_wrap=True)
        return 1 if stale or extra else 0
    try:
        write(Path("/"), {str(path.resolve())[1:]: made[path] for path in stale})
        for path in extra:
            path.unlink()
        if root:
            write(root / "dist", packs.archives(root))
    except OSError as error:
        where = str(root or out)
        raise ConfigError(f"cannot be written ({error.strerror})", where=where, hint="nothing was changed") from None
    for path in stale:
        console().print(f"wrote {path}", soft_wrap=True)
    if root:
        console().print(f"the packs' archives are in {root / 'dist'}", soft_wrap=True)
    elif not own:
        console(stderr=True).print(_NO_PACKS, soft_wrap=True)
    return 0


@content.command()
@_rules_option
@_dashboards_option
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=lambda: content_path("compiled"),
    show_default="content/compiled",
    help="The build to compare with.",
)
@click.option("--names", is_flag=True, help="Only say what changed, not how.")
def diff(rules: Path, dashboards: Path, out: Path, names: bool) -> int:
    """Say what a build would change, per rule and target: added, removed, or changed with the lines that differ.

    Exit codes: 0 nothing would change, 1 something would, 2 the content is wrong or the last build cannot be read.
    """
    from aitrail.compiler.build import artefacts  # noqa: PLC0415  (needs the extra)
    from aitrail.compiler.changes import changes  # noqa: PLC0415
    from aitrail.compiler.problems import ContentError  # noqa: PLC0415

    try:
        made = artefacts(rules, dashboards)
    except ContentError as error:
        _say(error.problems)
        return 2
    before = {path.name: path.read_bytes() for path in sorted(out.glob("*.json"))}
    try:
        found = list(changes(before, made))
    except msgspec.MsgspecError as error:
        raise ConfigError(f"no build: {error}", where=str(out), hint="write one with: aitrail content build") from None
    screen = console()
    for one in found:
        head = " ".join(part for part in (one.kind, one.what, one.target) if part)
        screen.print(Text(clean(head), "bold"), soft_wrap=True)
        for line in () if names else one.lines:
            style = {"+": "green", "-": "red"}.get(line[:1], "dim")
            screen.print(Text(f"  {clean(line)}", style), soft_wrap=True)
    return 1 if found else 0


@content.command()
@click.argument("name")
@_rules_option
def explain(name: str, rules: Path) -> int:
    """Show the rule NAME: what it means, what it needs, what to do, and its query and schedule on each platform."""
    from aitrail.compiler import behavior_targets, targets  # noqa: PLC0415  (needs the extra)

    found, behaviors, problems = _load(rules)
    if problems:
        return _say(problems)
    watched = {rule.meta.name: rule for rule in behaviors}
    rule = found.by_name.get(name) or watched.get(name)
    if rule is None:
        import difflib  # noqa: PLC0415  (rare path)

        close = difflib.get_close_matches(name, [*found.by_name, *watched], 1)
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
    for one in behavior_targets.running(watched[name]) if name in watched else targets.running(found.by_name[name]):
        screen.print(Text(f"\n{one.target}: {one.method}\n{one.schedule}\n", "bold"), soft_wrap=True)
        screen.print(Text(one.query), soft_wrap=True)
    return 0
