"""``aitrail classify calibrate``, ``fingerprint`` and ``sessions``: what is made from an organisation's own traffic."""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from aitrail.classify import calibrate as calibration
from aitrail.classify import evaluate as evaluation
from aitrail.classify.contract import Text
from aitrail.clock import SystemClock, iso_ms
from aitrail.config import Config, StoreConfig, load
from aitrail.errors import ConfigError
from aitrail.runtime import fingerprints, sessions
from aitrail.runtime.cli.options import store_option
from aitrail.runtime.cli.reading import filter_options, make_filters, read, write_out
from aitrail.runtime.cli.render import Column, as_csv, as_json, clean, console, plural, table
from aitrail.runtime.judging import classifier
from aitrail.store.queries import Connection, Filters

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False)
_OUT = click.Path(dir_okay=False, path_type=Path)
_DAY = 86_400.0

CALIBRATE_EPILOG = """\b
Examples:
  aitrail classify calibrate --suspicious 400 --high 20 --last 30d --out thresholds.toml
  aitrail classify calibrate traffic.jsonl --per-day 200000 --suspicious 400 --high 20 --out thresholds.toml
Then, in aitrail.toml:  [classify] calibration = "thresholds.toml"
"""


@click.command(epilog=CALIBRATE_EPILOG)
@click.argument("file", type=_FILE, required=False)
@store_option
@filter_options
@click.option("--per-day", type=click.FloatRange(min=1), help="Judged calls in a day; from the store: counted.")
@click.option("--suspicious", type=click.FloatRange(min=0), required=True, help="Budget: suspicious calls in a day.")
@click.option("--high", type=click.FloatRange(min=0), required=True, help="Budget: high calls in a day.")
@click.option("--patterns", type=_FOLDER, help="Folder with pattern files of your own.")
@click.option("--out", type=_OUT, help="Write the thresholds to this file, for [classify] calibration.")
def calibrate(
    file: Path | None, store: Path, per_day: float | None, suspicious: float, high: float, patterns: str | None,
    out: Path | None, **chosen: Any,
) -> None:  # fmt: skip
    """Set the tiers' thresholds so that ordinary traffic stays within an alert budget.

    Traffic is what the store holds (with the options below), or FILE: one JSON object a line with text and role.
    Attacks among it make thresholds too high: take a quiet time.
    """
    if file is not None and per_day is None:
        raise ConfigError("how much traffic is there in a day?", where="--per-day", hint="calls that are judged a day")
    scores, counted, version = (
        _of_file(file, patterns or "") if file is not None else _of_store(store, make_filters(**chosen))
    )
    volume = per_day or counted
    result = calibration.calibrate(scores, per_day=volume, suspicious_budget=suspicious, high_budget=high)
    made = calibration.CalibrationFile(
        result.thresholds.suspicious,
        result.thresholds.high,
        calibration.Basis(
            written=iso_ms(SystemClock().now()), classifier=version, texts=result.texts, per_day=round(volume, 1),
            suspicious_budget=suspicious, high_budget=high, suspicious_per_day=result.suspicious_per_day,
            high_per_day=result.high_per_day, limited=result.limited,
        ),
    )  # fmt: skip
    click.echo(f"{plural(result.texts, 'judged call')}, {volume:,.0f} a day")
    rows = (
        ("suspicious", made.suspicious, result.suspicious_share, result.suspicious_per_day),
        ("high", made.high, result.high_share, result.high_per_day),
    )
    for name, threshold, percent, count in rows:
        click.echo(f"{name} = {threshold}   # {percent} % of calls, {count} a day")
    for tier in result.limited:
        over = {"suspicious": result.suspicious_per_day > suspicious, "high": result.high_per_day > high}[tier]
        said = "exceeded, and its threshold cannot be higher" if over else "not used up: its threshold is the lowest"
        click.echo(f"the budget for {tier} is {said}", err=True)
    if out is not None:
        write_out(calibration.as_toml(made), out)


def _of_file(file: Path, patterns: str) -> tuple[list[float], float, str]:
    judge = classifier(patterns)
    verdicts = (judge.classify([Text("prompt", row.role or "user", row.text)]) for row in evaluation.read_rows(file))
    found = [verdict.injection_score for verdict in verdicts if verdict.injection_score is not None]
    return found, 0.0, judge.version


def _of_store(store: Path, filters: Filters) -> tuple[list[float], float, str]:
    from aitrail.store import queries  # noqa: PLC0415  (only with a store)

    def work(connection: Connection) -> list[tuple[Any, ...]]:
        return queries.run(connection, "injection_scores", filters).rows

    rows = read(store, work)
    if not rows:
        raise ConfigError("the store holds no judged prompt in this range", hint="give a wider range, or a FILE")
    versions = {str(row[2]) for row in rows}
    if len(versions) > 1:
        click.echo(
            f"judged by {plural(len(versions), 'version')} of the classifier: collect anew after a change", err=True
        )
    scores = [score for score, count, _, _, _ in rows for _ in range(count)]
    first: datetime = min(row[3] for row in rows)
    last: datetime = max(row[4] for row in rows)
    days = max(1.0, (last - first).total_seconds() / _DAY)
    return scores, len(scores) / days, max(versions)


FINGERPRINT_EPILOG = """\b
Examples:
  aitrail classify fingerprint --app retail-bot system-prompt.txt
  aitrail classify fingerprint --learn logs/gateway.jsonl --out fingerprints.json
Then, in aitrail.toml:  [classify] fingerprints = "fingerprints.json"
"""


@click.command(epilog=FINGERPRINT_EPILOG)
@click.argument("prompt", type=_FILE, required=False)
@click.option("--app", default="", help="Whose system prompt it is, as events name it (field app).")
@click.option("--learn", multiple=True, metavar="PATH", help="Take them from records: files, directories, globs.")
@click.option("--tenant", default="default", show_default=True, help="Tenant whose key is used.")
@click.option("-c", "--config", "config_path", type=_FILE, help="Configuration with the tenant's key and the store.")
@store_option
@click.option("--out", type=_OUT, default=Path("fingerprints.json"), show_default=True, help="File to add to.")
def fingerprint(
    prompt: Path | None, app: str, learn: tuple[str, ...], tenant: str, config_path: Path | None, store: Path, out: Path
) -> None:
    """Fingerprint system prompts, so that answers that repeat them are found in calls that do not carry them.

    The file holds keyed hashes of word runs, no text.
    """
    from aitrail.runtime.assemble import key_ring  # noqa: PLC0415  (loads DuckDB)

    if (prompt is None) == (not learn) or (prompt is not None and not app):
        raise ConfigError("give a file with a system prompt and --app, or --learn", hint="see --help for examples")
    config = load(config_path) if config_path else Config(store=StoreConfig(dir=str(store)))
    if prompt is not None:
        try:
            found = [(app.lower(), prompt.read_text(encoding="utf-8"))]
        except UnicodeDecodeError:
            raise ConfigError("not UTF-8 text", where=str(prompt)) from None
    else:
        found = list(fingerprints.system_prompts(learn, tenant))
        if not found:
            raise ConfigError("no call there names an application and carries a system prompt", where="--learn")
    made = fingerprints.add(out, found, key_ring(config, config.resolve(config.store.dir)), tenant)
    for name in sorted({name for name, _ in found}):
        click.echo(f"{clean(name)}: {plural(len(made.apps[name]), 'word run')}")
    click.echo(f"wrote {out}", err=True)


_SESSIONS = """\b
Examples:
  aitrail classify sessions --last 24h
  aitrail classify sessions --user ines.moreau --format json
"""


@click.command(epilog=_SESSIONS)
@store_option
@filter_options
@click.option("--newest", type=click.IntRange(1), default=200_000, show_default=True, help="Look at so many calls.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    show_default=True,
    help="How to print it.",
)
@click.option("--out", type=_OUT, help="Write to this file instead.")
def session_view(store: Path, newest: int, kind: str, out: Path | None, **chosen: Any) -> None:
    """Show what calls of one session show together: refusal then success, retry bursts, split payloads."""
    filters = make_filters(**chosen)

    def judge(text: str) -> float:
        return classifier().score(text)

    found = read(store, lambda connection: list(sessions.find(connection, filters, judge, newest=newest)))
    if kind == "json":
        write_out(as_json([msgspec.structs.asdict(one) for one in found]), out)
        return
    names = ("signals", "who", "session", "timestamp", "event_id")
    rows = [(", ".join(one.signals), one.who, one.session, one.timestamp, one.event_id) for one in found]
    write_out(as_csv(names, rows) if kind == "csv" else _as_table(names, rows), out)


def _as_table(names: Iterable[str], rows: list[tuple[Any, ...]]) -> str:
    screen = console()
    kinds: dict[str, Any] = {"timestamp": "time", "event_id": "id"}
    columns = [Column(name, name.replace("_", " "), kinds.get(name, "text")) for name in names]
    with screen.capture() as captured:
        if rows:
            screen.print(table(columns, rows, screen.width))
        screen.print(plural(len(rows), "finding"), style="dim")
    return captured.get()
