"""The ``aitrail`` command: a literal table of commands, loaded when they are called, so that ``--help`` is instant.

Exit codes (docs/cli.md): 0 done, 1 error, 2 configuration or usage, 3 credentials or permission, 4 try again later,
5 store cannot be used, 130 interrupted.
"""

import importlib
import os
import sys
from typing import Any

import click

from aitrail import __version__
from aitrail.errors import AitrailError
from aitrail.runtime.log import configure

# name -> (module, attribute, one line of help). The line stands here so that the list needs no import.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "demo": ("aitrail.runtime.cli.demo", "demo", "See it work: one day of a made-up company, collected and reported."),
    "collect": ("aitrail.runtime.cli.collect", "collect", "Read files or directories into the store, once."),
    "run": ("aitrail.runtime.cli.run", "run", "Collect as configured, again and again, until stopped."),
    "serve": ("aitrail.runtime.cli.serve", "serve", "Receive what gateways push over HTTP, until stopped."),
    "map": ("aitrail.runtime.cli.map", "map_command", "Try a field map for logs of no known type."),
    "status": ("aitrail.runtime.cli.status", "status", "How the collector, its sources and destinations are doing."),
    "backfill": ("aitrail.runtime.cli.backfill", "backfill", "Read a stretch of the past of one source."),
    "check": ("aitrail.runtime.cli.check", "check", "Say what is wrong with a configuration, changing nothing."),
    "init": ("aitrail.runtime.cli.init", "init", "Write a commented configuration to start from."),
    "report": ("aitrail.runtime.cli.report", "report", "Who uses which model, what they ask, what looks wrong."),
    "console": (
        "aitrail.runtime.cli.console",
        "console",
        "Look at the store in a browser: dashboards, events, findings.",
    ),
    "watch": ("aitrail.runtime.cli.watch", "watch", "Follow events and findings in a terminal as they come."),
    "query": ("aitrail.runtime.cli.query", "query", "Ask the store in SQL (read-only)."),
    "explain": (
        "aitrail.runtime.cli.explain",
        "explain",
        "One event: its fields, its raw origin, why it was judged so.",
    ),
    "schema": ("aitrail.runtime.cli.schema", "schema", "The event's fields and their names in other schemas."),
    "deadletter": ("aitrail.runtime.cli.deadletter", "deadletter", "Records that could not become events."),
    "store": (
        "aitrail.runtime.cli.store_cmd",
        "store",
        "Look after the store: stats, check, compact, retain, migrate.",
    ),
    "splunk": ("aitrail.runtime.cli.splunk", "splunk", "Set up Splunk, and count what arrived there."),
    "elastic": ("aitrail.runtime.cli.elastic", "elastic", "Set up Elasticsearch, and count what arrived there."),
    "sentinel": ("aitrail.runtime.cli.sentinel", "sentinel", "Count what arrived in Microsoft Sentinel."),
    "cloudtrail": (
        "aitrail.runtime.cli.cloudtrail",
        "cloudtrail",
        "Check CloudTrail's digests, signatures and log files.",
    ),
    "keys": ("aitrail.runtime.cli.keys", "keys", "Tenant keys: rotate, and erase a person's sealed content."),
    "classify": (
        "aitrail.runtime.cli.classify",
        "classify",
        "Evaluate, lint and test the classifier and its patterns.",
    ),
    "detect": ("aitrail.runtime.cli.detect", "detect", "Run the detection rules on the store; keep what they find."),
    "package": (
        "aitrail.runtime.cli.package",
        "package",
        "Package a function for AWS Lambda or Azure Functions, or the add-on for Splunk.",
    ),
    "content": ("aitrail.runtime.cli.content", "content", "Lint, test and explain detection rules."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All command names, in the order of the table."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command ``cmd_name``; None when there is none of that name."""
        del ctx
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(importlib.import_module(entry[0]), entry[1])
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a misspelt one gets a suggestion."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib  # noqa: PLC0415  (rare path)

            close = difflib.get_close_matches(args[0], COMMANDS, 1) if args else []
            if close:
                raise click.UsageError(f"{error.message} Did you mean {close[0]!r}?", ctx) from None
            raise

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a reader of our output that goes away (``aitrail query ... | head``) is no failure."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            pass
        except SystemExit as leaving:  # what rich makes of it
            if not isinstance(leaving.__context__, BrokenPipeError):
                raise
        _drop_output()
        return 0

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with their lines from the table."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry[2]) for name, entry in COMMANDS.items()])


EPILOG = """\b
Start here:
  aitrail demo                             see it on made-up data
  aitrail collect ./logs                   read your own: CloudTrail, Azure, LiteLLM ...
  aitrail report                           who, what, which model, what looks wrong
"""


@click.group(
    cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="aitrail")
@click.option("-v", "--verbose", count=True, help="Log more, to stderr (-v info, -vv debug).")
def cli(verbose: int) -> None:
    """Every access to an AI system as one normalized, classified and provable audit event."""
    configure(verbose)


def main() -> None:
    """Run the command; turns every expected error into one clear message and its exit code."""
    _open_closed_streams()
    try:
        result: Any = cli.main(standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.Abort:
        click.echo("interrupted; what was committed is kept, run the command again to go on", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except AitrailError as error:
        show_error(error)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # at the last flush
        _drop_output()
        sys.exit(0)
    except OSError as error:
        _drop_output()
        place = f"{error.filename}: " if error.filename else ""
        show_error(AitrailError(f"cannot go on: {place}{error.strerror or type(error).__name__}"))
        sys.exit(1)
    sys.exit(result if isinstance(result, int) else 0)


def _open_closed_streams() -> None:
    """Give a process that was started with closed streams (``>&-``) something to write to."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123  (open until exit)


def _drop_output() -> None:
    """Let what is still buffered go nowhere, so that the interpreter's last flush does not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def show_error(error: AitrailError) -> None:
    """Print what is wrong and how to fix it, to stderr."""
    from aitrail.runtime.cli.render import clean  # noqa: PLC0415  (rare path)

    click.echo(click.style("error: ", fg="red", bold=True) + clean(str(error)), err=True)
    if error.hint:
        click.echo(click.style("  fix: ", fg="green") + clean(error.hint), err=True)
