"""``aitrail explain``: one event, why it was judged so, and the record that it came from."""

import re
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from aitrail.errors import ConfigError
from aitrail.event import AccessEvent
from aitrail.runtime import sessions
from aitrail.runtime.cli.explain_finding import find_finding, print_finding
from aitrail.runtime.cli.names import atlas_name, owasp_name
from aitrail.runtime.cli.options import store_option
from aitrail.runtime.cli.raw_origin import Origin, attested, find_origin
from aitrail.runtime.cli.reading import read, write_out
from aitrail.runtime.cli.render import as_json, clean, console, shown
from aitrail.runtime.cli.report import STYLES
from aitrail.runtime.judging import default_classifier
from aitrail.schema.catalog import fields
from aitrail.schema.views.documents import GROUPS
from aitrail.store import queries
from aitrail.verdicts import POINTS

EPILOG = """\b
Examples:
  aitrail report --section findings        find an event id
  aitrail explain 5f0c6a0e9d1b             a beginning of the id is enough
  aitrail explain 5f0c6a0e9d1b --raw       also read the record again from its file
  aitrail explain 5f0c6a0e9d1b --format json

\b
Texts are shown as the content mode stored them; the raw record never shows more than the event holds.
"""
_ID = re.compile(r"[0-9a-f]{4,32}")
_TEXTS = ("prompt_text", "response_text")
_MAX_TEXT = 1_500
_MAX_RAW_LINES = 120
_AROUND = 60


@click.command(epilog=EPILOG)
@click.argument("event_id")
@store_option
@click.option("--raw", is_flag=True, help="Read the raw record again and show it, masked by the content mode.")
@click.option("--full", is_flag=True, help="Do not cut long texts.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="How to print it.",
)
def explain(event_id: str, store: Path, raw: bool, full: bool, kind: str) -> None:
    """Explain one event (its fields, the evidence for its verdicts, its origin) or one finding of a rule."""
    prefix = event_id.strip().lower()
    if not _ID.fullmatch(prefix):
        raise ConfigError(
            f"{clean(event_id)!r} is not an event id", hint="give at least 4 of its 32 hexadecimal digits"
        )
    finding = read(store, lambda connection: find_finding(connection, prefix))
    if finding is not None:
        write_out(as_json(finding), None) if kind == "json" else print_finding(console(), finding)
        return
    event, together = read(store, lambda connection: _look(connection, prefix))
    origin = find_origin(event, read=raw)
    origin.integrity = attested(store, origin.place)
    if kind == "json":
        write_out(as_json({**_plain(event, origin), "session_signals": list(together)}), None)
        return
    screen = console()
    _print(screen, event, origin, full=full, together=together)


def _look(connection: queries.Connection, prefix: str) -> tuple[AccessEvent, tuple[str, ...]]:
    event = to_event(_find(connection, prefix))
    return event, sessions.of_event(connection, event, lambda text: default_classifier().score(text))


def _find(connection: queries.Connection, prefix: str) -> dict[str, Any]:
    found = queries.run(connection, "event", prefix=prefix).dicts()
    if not found:
        raise ConfigError(f"no event id begins with {prefix}", hint="aitrail report --section findings lists some")
    if len(found) > 1:
        some = ", ".join(str(row["event_id"])[: len(prefix) + 4] for row in found[:5])
        raise ConfigError(f"several event ids begin with {prefix}: {some} ...", hint="give more digits")
    return found[0]


def to_event(row: dict[str, Any]) -> AccessEvent:
    """Turn a row of the view ``events`` back into an event; unknown columns are left out."""
    known = {field.name: field for field in fields()}
    values: dict[str, Any] = {}
    for name, value in row.items():
        field = known.get(name)
        if field is None or value is None:
            continue
        values[name] = _stamp(value) if field.kind == "time" else value
    return msgspec.convert(values, AccessEvent, strict=False)


def _stamp(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def _set_fields(event: AccessEvent) -> dict[str, Any]:
    """What the event carries: fields with their default are left out, but for the ones that say something then."""
    found: dict[str, Any] = msgspec.to_builtins(event)
    return {**found, "outcome_status": event.outcome_status, "principal_type": event.principal_type}


def _plain(event: AccessEvent, origin: Origin) -> dict[str, Any]:
    return {
        "event": msgspec.to_builtins(event),
        "evidence": [{"code": one.code, "text": _excerpt(event, one)} for one in evidence_of(event)],
        "risk": {reason: POINTS.get(reason, 0) for reason in event.risk_reasons},
        "atlas": {tag: atlas_name(tag) for tag in event.atlas},
        "owasp": {tag: owasp_name(tag) for tag in event.owasp},
        "origin": msgspec.to_builtins(origin),
    }


# --- terminal


def _print(screen: Console, event: AccessEvent, origin: Origin, *, full: bool, together: tuple[str, ...]) -> None:
    who = event.user_id or event.user_email or event.agent or event.app or event.role or "somebody not named"
    what = " ".join(filter(None, (event.action or "an access", "of", event.model or event.resource_id)))
    screen.print(Text(f"event {event.event_id}", style="bold"))
    screen.print(Text.assemble(
        clean(f"{event.timestamp}: {who} ({event.principal_type}): {what.removesuffix(' of')}: "),
        (event.outcome_status, STYLES.get(event.outcome_status, "green")),
    ))  # fmt: skip
    carried = _set_fields(event)
    for group, members in groupby(fields(), key=lambda field: field.group):
        names = [field.name for field in members if field.name in carried and field.name not in _TEXTS]
        if names:
            _heading(screen, GROUPS.get(group, group))
            _pairs(screen, [(name, shown(carried[name], "plain")) for name in names])
    for name in _TEXTS:
        text = getattr(event, name)
        if text:
            _heading(screen, f"{name} (content mode {event.content_mode})")
            _text(screen, text, full=full)
    _why(screen, event, together)
    _origin(screen, origin, full=full)


def _heading(screen: Console, title: str) -> None:
    screen.print()
    screen.print(Text(title, style="bold cyan"))


def _pairs(screen: Console, pairs: list[tuple[str, str]]) -> None:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(Text(name), Text(value, style=STYLES.get(value, "")))
    screen.print(Padding(grid, (0, 0, 0, 2)))


def _text(screen: Console, text: str, *, full: bool) -> None:
    kept = text if full else text[:_MAX_TEXT]
    body = Text(clean(kept, lines=True), overflow="fold")
    if len(kept) < len(text):
        body.append(f"\n... {len(text) - len(kept):,} more characters; --full shows them", style="dim")
    screen.print(Padding(body, (0, 0, 0, 2)))


def _why(screen: Console, event: AccessEvent, together: tuple[str, ...]) -> None:
    lines = _verdict_lines(event)
    lines += [Text(f"session: with the calls before it, this one completes {signal}") for signal in together]
    if not lines:
        return
    _heading(screen, "Why")
    for line in lines:
        screen.print(Padding(line, (0, 0, 0, 2)))


def _verdict_lines(event: AccessEvent) -> list[Text]:
    before, after = verdict_sentences(event)
    return [
        *(Text(clean(one)) for one in before),
        *(_evidence_line(one.code, _excerpt(event, one)) for one in evidence_of(event)),
        *(Text(clean(one)) for one in after),
    ]


def verdict_sentences(event: AccessEvent) -> tuple[list[str], list[str]]:
    """Why the event was judged so: what comes before the evidence, and what comes after it; not cleaned."""
    before = [
        f"{place}: {value}"
        for place, value in (("prompt", event.prompt_classification), ("answer", event.response_classification))
        if value
    ]
    if event.injection_score is not None:
        before.append(f"injection score {event.injection_score:g} of 1: {event.injection_tier or 'below the tiers'}")
    after = []
    if event.leakage_types:
        after.append(f"leaks: {', '.join(event.leakage_types)} ({event.leakage_count or 0} distinct values)")
    if event.guardrail_action:
        name = event.guardrail_name or "the provider's guardrail"
        seen = f" for {', '.join(event.guardrail_categories)}" if event.guardrail_categories else ""
        after.append(f"guardrail: {name} {event.guardrail_action} it{seen}")
    after += [_opinion(code) for code in event.verdict_opinions]
    after += [f"together: {_AGREEMENT.get(code, code)}" for code in event.verdict_agreement]
    if event.risk_score is not None:
        sums = " + ".join(f"{reason} {POINTS.get(reason, 0)}" for reason in event.risk_reasons)
        after.append(f"risk {event.risk_score} of 100 = {sums}")
    after += [f"ATLAS {tag}: {atlas_name(tag) or 'not in the taxonomy'}" for tag in event.atlas]
    after += [f"OWASP {tag}: {owasp_name(tag) or 'not in the taxonomy'}" for tag in event.owasp]
    return before, after


_AGREEMENT = {
    f"{what}:{how}": text.format(seen)
    for what, seen in (("attack", "an attack"), ("leak", "secrets or personal data"))
    for how, text in (
        ("both", "aitrail and others saw {}"),
        ("only_own", "only aitrail saw {}"),
        ("only_other", "aitrail did not see {}, another judge did"),
        ("neither", "nobody saw {}"),
    )
}


def _opinion(code: str) -> str:
    """``azure-content-filter|attack|yes|0.98`` in words."""
    judge, what, said, more = (*code.split("|"), "", "", "", "")[:4]
    if said == "none":
        return f"{judge} gave no verdict ({more})"
    return f"{judge} said: {what} {said}" + (f" (score {more})" if more else "")


class Evidence(msgspec.Struct, frozen=True):
    """One piece of evidence: its code, and where its span lies in a stored text (``field`` empty: not stored)."""

    code: str
    field: str = ""
    start: int = 0
    end: int = 0


def evidence_of(event: AccessEvent) -> list[Evidence]:
    """Each evidence code with its span in the stored text, as far as that is there."""
    found = []
    for code in event.evidence:
        parts = code.split("|")
        start, dash, end = parts[-1].partition("-")
        field = "response_text" if len(parts) == 4 and parts[2] == "response" else "prompt_text"
        known = len(parts) == 4 and bool(dash) and start.isdecimal() and end.isdecimal()
        if known and event.content_mode != "sealed" and 0 <= int(start) < int(end) <= len(getattr(event, field)):
            found.append(Evidence(code, field, int(start), int(end)))
        else:
            found.append(Evidence(code))
    return found


def _excerpt(event: AccessEvent, one: Evidence) -> tuple[str, str, str] | None:
    """The stored text around a span (before, marked, after); None when it is not stored."""
    if not one.field:
        return None
    text: str = getattr(event, one.field)
    first, last = one.start, one.end
    return text[max(0, first - _AROUND) : first], text[first:last], text[last : last + _AROUND]


def evidence_sentence(code: str) -> str:
    """``override_instructions|base64|user|0-36`` in words; not cleaned."""
    concept, _, rest = code.partition("|")
    layer, _, rest = rest.partition("|")
    role = rest.partition("|")[0]
    if layer == "history":
        return f"evidence: {concept}, in the conversation that this call carries"
    return f"evidence: {concept} in {role} text" + (f", found after {layer}" if layer != "plain" else "")


def _evidence_line(code: str, excerpt: tuple[str, str, str] | None) -> Text:
    line = Text(clean(evidence_sentence(code)))
    if code.split("|")[1:2] == ["history"]:
        return line
    if excerpt is None:
        line.append(" (its text is not stored)", style="dim")
        return line
    before, marked, after = map(clean, excerpt)
    line.append(f"\n    {before}", style="dim")
    line.append(f"»{marked}«", style="bold red")
    line.append(after, style="dim")
    return line


def _origin(screen: Console, origin: Origin, *, full: bool) -> None:
    _heading(screen, "Raw origin")
    _pairs(screen, [(name, clean(str(value))) for name, value in origin.facts() if value != ""])
    if origin.record:
        lines = origin.record.splitlines()
        kept = lines if full else lines[:_MAX_RAW_LINES]
        body = Text(clean("\n".join(kept), lines=True), overflow="fold")
        if len(kept) < len(lines):
            body.append(f"\n... {len(lines) - len(kept):,} more lines; --full shows them", style="dim")
        screen.print(Padding(body, (1, 0, 0, 2)))
