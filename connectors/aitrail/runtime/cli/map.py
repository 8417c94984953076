"""``aitrail map``: try a field map on real records, before anything is collected with it."""

import sys
from collections import Counter
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.text import Text

from aitrail.clock import SystemClock
from aitrail.event import AccessEvent
from aitrail.normalize.field_map import FieldMap, kinds
from aitrail.normalize.generic_access import normalize, value_at
from aitrail.normalize.outcome import REASONS, Content, Context, Normalized, Rejected
from aitrail.ports import Budget
from aitrail.runtime.cli.render import clean, console
from aitrail.runtime.dryrun import NoCursors
from aitrail.runtime.field_maps import read_map
from aitrail.sources.file import FileSource

EPILOG = """\b
Examples:
  aitrail map access.jsonl --map map.toml        one record mapped, and what stays empty
  aitrail map access.jsonl --map map.toml --json the mapped events, one a line
  aitrail map --fields                           the fields that a map may fill

\b
A map:
  service = "vllm"
  [fields]
  timestamp = { path = "time", unit = "s" }      # s, ms, us, ns, or text in ISO 8601
  user_id = ["headers.x-user", "user"]           # the first that is there
  model = "request.model"
  http_status = "status"
  action_kind = { value = "inference" }
  [content]
  request = "request"                            # JSON as OpenAI's API has it
  response = "response"

\b
Then: map = "map.toml" and record_type = "generic_access" in a [sources.NAME] or [receivers.NAME].
"""


@click.command("map", epilog=EPILOG)
@click.argument("file", type=click.Path(dir_okay=False, exists=True), required=False)
@click.option("--map", "map_file", type=click.Path(dir_okay=False, path_type=Path), help="The field map (TOML).")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="Records to look at.")
@click.option("--json", "json_out", is_flag=True, help="Print the mapped events, one a line, without their texts.")
@click.option("--fields", is_flag=True, help="List the fields that a map may fill.")
def map_command(file: str | None, map_file: Path | None, limit: int, json_out: bool, fields: bool) -> int:
    """Try a field map on the records of FILE; writes nothing."""
    if fields:
        for name, (kind, choices) in kinds().items():
            click.echo(f"{name:<24} {', '.join(sorted(choices)) or kind}")
        return 0
    if file is None or map_file is None:
        raise click.UsageError("name a FILE with records and a map: aitrail map access.jsonl --map map.toml")
    mapped = read_map(map_file)
    tried = _try(file, mapped, limit)
    if json_out:
        for event in tried.events:
            sys.stdout.write(msgspec.json.encode(event).decode() + "\n")
        return 0 if tried.events else 1
    screen = console()
    _show(screen, tried, mapped)
    return 0 if tried.events else 1


class _Tried:
    """What came of the records."""

    def __init__(self) -> None:
        self.records = 0
        self.events: list[AccessEvent] = []
        self.rejected: Counter[tuple[str, str]] = Counter()
        self.found: Counter[str] = Counter()
        self.with_texts = 0
        self.example: tuple[bytes, AccessEvent, Content | None] | None = None


def _try(file: str, mapped: FieldMap, limit: int) -> _Tried:
    tried = _Tried()
    source = FileSource("map", (file,), clock=SystemClock())
    context = Context(field_map=mapped)
    for batch in source.fetch(NoCursors(), Budget(records=limit)):
        for record in batch.records[: limit - tried.records]:
            tried.records += 1
            if record.error:
                tried.rejected[record.error, ""] += 1
                continue
            for outcome in normalize(record.data, context):
                if isinstance(outcome, Rejected):
                    tried.rejected[outcome.code, outcome.field] += 1
                elif isinstance(outcome, Normalized):
                    tried.events.append(outcome.event)
                    tried.with_texts += outcome.content is not None
                    tried.example = tried.example or (bytes(record.data), outcome.event, outcome.content)
        if tried.records >= limit:
            break
    for event in tried.events:
        tried.found.update(msgspec.to_builtins(event).keys())
    return tried


def _show(screen: Console, tried: _Tried, mapped: FieldMap) -> None:
    count = len(tried.events)
    screen.print(Text(f"{tried.records:,} records looked at, {count:,} mapped", "bold"))
    for (code, field), times in tried.rejected.most_common():
        where = f" (at {clean(field)})" if field else ""
        screen.print(Text(f"  {times:>7,}  {code}{where}: {REASONS[code]}", "yellow"), soft_wrap=True)
    if tried.example is None:
        screen.print(Text("nothing was mapped: no record had a time where the map says", "red"), soft_wrap=True)
        return
    raw, event, content = tried.example
    record = msgspec.json.decode(raw)
    screen.print(Text("\nthe first mapped record", "bold"))
    rules = {rule.target: rule for rule in (mapped.timestamp, *mapped.rules)}
    for name, value in msgspec.to_builtins(event).items():
        rule = rules.get(name)
        origin = ""
        if rule is not None:
            path = next((path for path in rule.paths if value_at(record, path) is not None), "")
            origin = f"  <- {path}" if path else "  <- the map"
        screen.print(
            Text.assemble(f"  {name:<20} ", (clean(str(value)), "green"), (clean(origin), "dim")), soft_wrap=True
        )
    if content is not None:
        told = f"{len(content.messages)} messages, {len(content.response):,} characters of answer"
        screen.print(Text(f"  {'texts':<20} {told}"))
    _say_empty(screen, tried, rules.keys(), mapped)


def _say_empty(screen: Console, tried: _Tried, targets: object, mapped: FieldMap) -> None:
    count = len(tried.events)
    never = [name for name in targets if not tried.found[name] and name != "outcome_status"]  # type: ignore[attr-defined]
    if never:
        told = ", ".join(never)
        screen.print(Text(f"\nmapped, but empty in all {count:,}: {told}", "yellow"), soft_wrap=True)
        screen.print(Text("  correct the paths, or leave these out"))
    if mapped.content and not tried.with_texts:
        screen.print(Text("\n[content] found no text in any record", "yellow"))
    unknown = sum(event.outcome_status == "unknown" for event in tried.events)
    if unknown:
        screen.print(Text(f"\n{unknown:,} of {count:,} have no outcome: map http_status or outcome_status", "yellow"))
    missing = sum("identity_missing" in event.flags for event in tried.events)
    if missing:
        screen.print(Text(f"{missing:,} of {count:,} name nobody: map user_id or credential_id", "yellow"))
    rest = [name for name in kinds() if not tried.found[name] and name not in targets]  # type: ignore[operator]
    screen.print(Text(f"\nnot mapped: {', '.join(rest)}", "dim"), soft_wrap=True)
