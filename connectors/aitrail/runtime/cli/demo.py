"""``aitrail demo``: one day of a made-up company, written in real wire formats, collected and reported."""

import os
import shlex
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.text import Text

from aitrail.config import Config, DirectoryConfig, SourceConfig, StoreConfig
from aitrail.demo.writer import DAY, EVENTS, Manifest, Profile, generate
from aitrail.errors import ConfigError
from aitrail.runtime.cli.detect import run_rules
from aitrail.runtime.cli.progress import progress_bar
from aitrail.runtime.cli.reading import read
from aitrail.runtime.cli.render import clean
from aitrail.runtime.cli.render import console as make_console
from aitrail.runtime.cli.report import print_report
from aitrail.runtime.cli.report_layout import make_report
from aitrail.runtime.cli.summary import print_summary
from aitrail.runtime.collect import collect
from aitrail.store.queries import Filters

EPILOG = """\b
Examples:
  aitrail demo                                  generate, collect, report (a few seconds)
  aitrail demo --seed 2 --date 2026-11-18       another day
  aitrail demo --days 30 --dir month            a month: quiet weekends, incidents on some of the days
  aitrail demo --console                        end in the local console, in the browser
  aitrail demo --events 1000000 --out big       only write files, as many as you like
"""
_ROWS = 6
# In double quotes on a command line: no $, ` or ".
_QUERY = "select event_id, user_id, model, prompt_text from events where injection_tier = 'high' limit 5"


@click.command(epilog=EPILOG)
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("aitrail-demo"),
    show_default=True,
    help="Where the demo's files and its store go.",
)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Only write the input files to this directory."
)
@click.option(
    "--events",
    type=click.IntRange(min=100),
    show_default=f"{EVENTS}, for each of --days",
    help="About how many records to make.",
)
@click.option(
    "--days",
    type=click.IntRange(min=1, max=366),
    default=1,
    show_default=True,
    help="So many days up to --date, with quiet weekends and every incident once in two weeks.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Another seed, another day at the same company.")
@click.option("--date", "day", default=DAY, show_default=True, help="The day it plays on.")
@click.option(
    "--profile",
    type=click.Choice(["day", "bench"]),
    default="day",
    show_default=True,
    help="With --out: a believable day, or the benchmark's mix of a third each CloudTrail, Azure and LiteLLM.",
)
@click.option("--console", "show", is_flag=True, help="Open the local console at the end.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, show_default="any free one", help="With --console: its port."
)
def demo(
    folder: Path,
    out: Path | None,
    events: int | None,
    days: int,
    seed: int,
    day: str,
    profile: Profile,
    show: bool,
    port: int,
) -> None:
    """See aitrail work on one day of an invented company: 60 people, two clouds, three gateways, some incidents."""
    console = make_console()
    events = events or EVENTS * days
    if out is not None:
        made = _write(console, out, events, days, seed, day, profile)
        count = sum(made.records.values())
        where = clean(str(made.logs))
        console.print(Text(f"wrote {count:,} records in {made.files:,} files to {where}"), soft_wrap=True)
        again = f"aitrail collect {shlex.quote(where)}"
        console.print(Text.assemble("next: ", (again, "bold")), soft_wrap=True)
        return
    _refuse_mixture(folder, seed, day)
    made = _write(console, folder, events, days, seed, day, "day")
    span = "one day" if days == 1 else f"{days} days"
    _say(console, "1.", f" wrote {span} of logs in their real formats to {clean(str(made.logs))}:")
    for name, count in made.records.items():
        console.print(Text(f"   {count:>7,}  {name}"))
    started = time.monotonic()
    with progress_bar(quiet=False) as callbacks:
        outcome = collect(_config(folder), callbacks)
    _say(console, "\n2.", " collected them, as `aitrail collect` would yours:")
    # The notes would say that a second demo wrote the same files again: true, and of no interest here.
    print_summary(console, outcome.totals, [], time.monotonic() - started)
    store = folder / "store"
    found = run_rules(store)
    _say(
        console,
        "\n3.",
        f" ran {found.rules} detection rules: {len(found.findings)} findings, as `aitrail detect` would",
    )
    _say(console, "\n4.", f" what happened {'that day' if days == 1 else 'in that time'}:\n")
    print_report(console, read(store, lambda connection: make_report(connection, Filters(), _ROWS)))
    _close(console, store, made)
    if show:
        _show(console, store, port, days)


def _show(console: Console, store: Path, port: int, days: int) -> None:
    """Serve the console over the demo's store; the browser opens only where somebody can see it."""
    from aitrail.runtime.cli.console import show_store  # noqa: PLC0415  (the extra web)
    from aitrail.web.console.settings import ConsoleSettings  # noqa: PLC0415

    _say(console, "\nThe same in the console")
    visible = sys.stdout.isatty() and (sys.platform == "darwin" or bool(os.environ.get("DISPLAY")))
    span = "24h" if days == 1 else "30d"
    show_store(store, ConsoleSettings(port=port), browser=visible, page=f"board/usage?range={span}")


def _refuse_mixture(folder: Path, seed: int, day: str) -> None:
    """A store that holds another demo would report two days as one."""
    if not (folder / "store" / "aitrail.db").exists():
        return
    try:
        before = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError):
        return
    if (before.seed, before.days[-1:]) != (seed, [day]):
        raise ConfigError(
            f"{folder} holds the demo of another day (--seed {before.seed} --date {' '.join(before.days[-1:])})",
            hint="name another directory with --dir, or delete that one",
        )


def _say(console: Console, head: str, text: str = "") -> None:
    console.print(Text.assemble((head, "bold"), text), soft_wrap=True)


def _write(console: Console, out: Path, events: int, days: int, seed: int, day: str, profile: Profile) -> Manifest:
    try:
        with console.status(f"writing {events:,} records") as status:
            return generate(
                out,
                seed=seed,
                day=day,
                events=events,
                days=days,
                profile=profile,
                progress=lambda done, total: status.update(f"writing {done:,} of {total:,} records"),
            )
    except ValueError:
        raise ConfigError(f"{day!r} is not a date", where="--date", hint="for example 2026-11-20") from None
    except OSError as error:
        raise ConfigError(f"{out} cannot be written ({error.strerror})") from None


def _config(folder: Path) -> Config:
    return Config(
        store=StoreConfig(dir=str(folder / "store")),
        sources={"demo": SourceConfig(tenant="acme", options={"paths": (str(folder / "logs"),)})},
        directory=DirectoryConfig(file=str(folder / "directory.csv")),
    )


def _close(console: Console, store: Path, made: Manifest) -> None:
    _say(console, "\nHidden in that day", " (compare with what the rules found):")
    for incident in made.incidents:
        console.print(Text(f"  - {incident.title}: {incident.story}"), soft_wrap=True)
    _say(console, "\nTry next")
    where = shlex.quote(str(store))
    # What is suggested works when it is typed, also after an installation without extras.
    first = "" if find_spec("starlette") else "pip install 'aitrail[web]' && "
    for line in (
        f"aitrail report --store {where} --format html --out day.html",
        f'aitrail query --store {where} "{_QUERY}"',
        f"aitrail explain --store {where} EVENT_OR_FINDING_ID",
        f"{first}aitrail console --store {where}",
        "aitrail collect YOUR_LOGS && aitrail report",
    ):
        console.print(Text(f"  {line}"), soft_wrap=True)
