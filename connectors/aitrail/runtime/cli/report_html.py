"""The report as one self-contained page: inline style, inline SVG, no script, nothing loaded from anywhere.

Every text passes ``clean`` and then ``html.escape``; the page also forbids scripts and loading by its own policy.
"""

from collections.abc import Mapping
from html import escape
from typing import Any

import msgspec

from aitrail import __version__
from aitrail.runtime.cli.render import Column, capped, clean, shown
from aitrail.runtime.cli.report_layout import Filled, Report

_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#59636e;--line:#d8dee4;--page:#fff;--card:#f6f8fa;
--ok:#2f81b7;--blocked:#c4820a;--failed:#c93c37;--other:#8c959f;--bar:#b6d7ec}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9198a1;--line:#30363d;--page:#0d1117;--card:#161b22;
--ok:#4a9fd4;--blocked:#d9a023;--failed:#e5605b;--other:#6e7681;--bar:#1f4b66}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:76rem;padding:1.5rem;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
h1{font-size:1.5rem;margin:0 0 .25rem}h2{font-size:1.1rem;margin:2.25rem 0 .5rem}
p{margin:.25rem 0}.soft{color:var(--soft)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.75rem;margin:1.25rem 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.6rem .8rem}
.tile b{display:block;font-size:1.35rem;font-variant-numeric:tabular-nums}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9rem}
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid var(--line);vertical-align:top;
overflow-wrap:anywhere}
th{color:var(--soft);font-weight:600;white-space:nowrap;overflow-wrap:normal}
.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums;overflow-wrap:normal}
.t,.i{white-space:nowrap;overflow-wrap:normal}.i{font-family:ui-monospace,monospace}
.warn{color:var(--blocked);font-weight:600}.bad{color:var(--failed);font-weight:600}
.bar{width:7rem;min-width:4rem}svg{display:block;max-width:100%}
.key span{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 1em;border-radius:2px}
@media print{body{max-width:none}h2{break-after:avoid}tr{break-inside:avoid}}
"""
_CELL = 300
# series of the time line: (field, label, style variable), bottom first
_SERIES = (
    ("success", "success", "--ok"),
    ("unknown", "unknown", "--other"),
    ("blocked", "blocked", "--blocked"),
    ("failed", "denied, throttled or error", "--failed"),
)
_CLASSES: Mapping[str, str] = {
    "blocked": "warn",
    "denied": "warn",
    "throttled": "warn",
    "suspicious": "warn",
    "error": "bad",
    "high": "bad",
}
_TILES = (
    ("events", "events", "count"),
    ("principals", "people, services, agents", "count"),
    ("departments", "departments", "count"),
    ("models", "models", "count"),
    ("tokens", "tokens", "count"),
    ("cost_usd", "cost in $", "usd"),
    ("notable", "findings", "count"),
    ("injection_high", "clear prompt injections", "count"),
    ("leaks", "events with leaks", "count"),
    ("blocked", "blocked", "count"),
    ("denied", "denied", "count"),
)


def text(value: str) -> str:
    """Make ``value`` harmless inside HTML text and attributes, invisible characters included."""
    return escape(clean(value), quote=True)


def as_html(report: Report) -> str:
    """The whole page."""
    overview = report.overview
    between = "no events"
    if overview["events"]:
        between = f"{shown(overview['first_seen'])} to {shown(overview['last_seen'])} UTC"
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        '<meta name="referrer" content="no-referrer">',
        f"<title>AI access report, {text(between)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
        f"<h1>AI access report</h1>\n<p>{text(between)}</p>",
        _filters(report),
        _tiles(overview),
        _timeline(report),
        *(_section(filled) for filled in report.sections),
        f'<p class="soft">aitrail {text(__version__)}</p>\n</body>\n</html>',
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _filters(report: Report) -> str:
    chosen = [f"{name}: {shown(value)}" for name, value in msgspec.structs.asdict(report.filters).items() if value]
    return f'<p class="soft">only {text("; ".join(chosen))}</p>' if chosen else ""


def _tiles(overview: Mapping[str, Any]) -> str:
    tiles = "\n".join(
        f'<div class="tile"><b>{text(shown(overview[name] or 0, kind))}</b>{text(label)}</div>'  # type: ignore[arg-type]
        for name, label, kind in _TILES
    )
    return f'<div class="tiles">\n{tiles}\n</div>'


def _timeline(report: Report) -> str:
    """Stacked bars of events over time; every number in the markup is computed here, none is text of an event."""
    rows = report.timeline
    if len(rows) < 2:
        return ""
    start = rows[0]["time"]
    slots = int((rows[-1]["time"] - start) / report.bucket) + 1
    most = max(row["events"] for row in rows)
    width, height = 1000, 160
    step = width / slots
    bars = []
    for row in rows:
        left = int((row["time"] - start) / report.bucket) * step
        base = float(height)
        label = f"{shown(row['time'])}: {row['events']:,} events"
        pieces = []
        for name, _, color in _SERIES:
            size = row[name] / most * height
            if size:
                base -= size
                pieces.append(
                    f'<rect x="{left:.1f}" y="{base:.1f}" width="{max(step - 1, 0.5):.1f}" height="{size:.1f}" '
                    f'style="fill:var({color})"/>'
                )
        bars.append(f"<g><title>{text(label)}</title>{''.join(pieces)}</g>")
    key = "".join(f'<span style="background:var({color})"></span>{label}' for _, label, color in _SERIES)
    return (
        f"<h2>Events over time</h2>\n"
        f'<svg viewBox="0 0 {width} {height}" width="100%" height="{height}" preserveAspectRatio="none" role="img" '
        f'aria-label="events over time, at most {most:,} in one bar">{"".join(bars)}</svg>\n'
        f'<p class="soft key">{text(shown(start))} to {text(shown(rows[-1]["time"]))}, '
        f"at most {most:,} in one bar{key}</p>"
    )


def _section(filled: Filled) -> str:
    section = filled.section
    title = f"<h2>{text(section.title)}</h2>"
    if not filled.rows:
        return f'{title}\n<p class="soft">{text(section.empty)}</p>'
    names = [column.name for column in section.columns]
    place = names.index(section.bar) if section.bar else -1
    most = max((row[place] for row in filled.rows), default=0) if section.bar else 0
    head = "".join(f'<th class="{_class(column)}">{text(column.label)}</th>' for column in section.columns)
    head += "<th></th>" if section.bar else ""
    body = []
    for row in filled.rows:
        cells = "".join(_cell(column, value) for column, value in zip(section.columns, row, strict=True))
        body.append(f"<tr>{cells}{_bar(row[place], most) if section.bar else ''}</tr>")
    rows = "\n".join(body)
    return (
        f'{title}\n<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>'
    )


def _class(column: Column) -> str:
    return {"text": "", "time": "t", "id": "i"}.get(column.kind, "n")


def _cell(column: Column, value: Any) -> str:
    found = capped(shown(value, column.kind), _CELL)
    classes = " ".join(filter(None, (_class(column), _CLASSES.get(found, ""))))
    return f'<td class="{classes}">{text(found)}</td>' if classes else f"<td>{text(found)}</td>"


def _bar(value: Any, most: Any) -> str:
    share = (value or 0) / most if most else 0.0
    return (
        '<td class="bar"><svg viewBox="0 0 100 10" width="100%" height="10" preserveAspectRatio="none" '
        f'aria-hidden="true"><rect width="{share * 100:.1f}" height="10" style="fill:var(--bar)"/></svg></td>'
    )
