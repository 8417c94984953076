"""Values as people read them. Every text passes ``clean`` here; the templates escape what comes out."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

from markupsafe import Markup, escape

from aitrail.event import AccessEvent
from aitrail.safetext import clean
from aitrail.web.console.explainer import Span

# Words that have a colour, wherever they stand.
TONES: Mapping[str, str] = {
    "success": "ok",
    "ok": "ok",
    "clean": "ok",
    "allowed": "ok",
    "blocked": "warn",
    "denied": "warn",
    "throttled": "warn",
    "suspicious": "warn",
    "medium": "warn",
    "late": "warn",
    "flagged": "warn",
    "masked": "warn",
    "error": "bad",
    "failing": "bad",
    "failed": "bad",
    "high": "bad",
    "critical": "bad",
    "prompt_injection": "bad",
    "jailbreak": "bad",
    "prompt_extraction": "bad",
    "secret": "bad",
    "pii": "warn",
    "financial": "bad",
    "mixed": "bad",
}


def tone(value: Any) -> str:
    """The colour of a word; empty for most."""
    return TONES.get(str(value), "")


def moment(value: Any) -> str:
    """A time to the second, UTC."""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return clean(str(value or ""))[:19].replace("T", " ")


def number(value: Any, unit: str = "") -> str:
    """A number with its unit; empty when it is missing."""
    if value is None or value == "":
        return ""
    figure = float(value) if isinstance(value, Decimal) else value
    if isinstance(figure, bool) or not isinstance(figure, int | float):
        return clean(str(value))
    if unit == "%":
        return f"{figure * 100:,.1f} %"
    if unit == "USD":
        return f"${figure:,.2f}" if abs(figure) >= 1 or figure == 0 else f"${figure:.4f}"
    text = f"{figure:,}" if isinstance(figure, int) else f"{figure:,.2f}".rstrip("0").rstrip(".")
    if unit == "ms" and abs(figure) >= 10:
        text = f"{figure:,.0f}"
    return f"{text} {unit}" if unit in ("ms", "s") else text


def text(value: Any) -> str:
    """Any value as one clean line."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, int | float | Decimal):
        return number(value)
    if isinstance(value, list | tuple):
        return clean(", ".join(map(str, value)))
    return clean(str(value))


def who(row: Mapping[str, Any]) -> str:
    """The best name of who acted."""
    for name in ("user_email", "user_id", "user_name", "agent", "app", "role", "credential_id"):
        if row.get(name):
            return text(row[name])
    return "(not named)"


def target(row: Mapping[str, Any]) -> str:
    """The model or resource that was touched."""
    return text(row.get("model") or row.get("resource_id") or "")


def after_title(summary: str, title: str) -> str:
    """What a finding's summary says beyond its title, which stands above it."""
    return clean(summary.removeprefix(f"{title}: "))


def lines(value: str) -> str:
    """A text with its line breaks, everything else invisible made visible."""
    return clean(value, lines=True)


def marked(event: AccessEvent, field: str, spans: Iterable[Span]) -> Markup:
    """A stored text as HTML: everything escaped, the spans of the evidence in ``<mark>`` with their numbers.

    Spans may overlap: the text is cut at every border, and each piece carries the numbers of all spans over it.
    """
    stored: str = getattr(event, field)
    mine = [span for span in spans if span.field == field]
    borders = sorted({0, len(stored), *(place for span in mine for place in (span.start, span.end))})
    pieces: list[Markup] = []
    for start, end in pairwise(borders):
        piece = escape(lines(stored[start:end]))
        over = [span.number for span in mine if span.start <= start and end <= span.end]
        if over:
            first = [number for number in over if any(s.number == number and s.start == start for s in mine)]
            label = Markup("").join(
                Markup('<a class="ref" href="#evidence-{0}" aria-label="evidence {0}">{0}</a>').format(one)
                for one in first
            )
            piece = Markup("<mark>{}{}</mark>").format(piece, label)
        pieces.append(piece)
    return Markup("").join(pieces)


def flat(value: str) -> str:
    """A text on one line, its white space joined: how lists show it."""
    return clean(" ".join(value.split()))


def snippet(value: str, words: str, around: int = 70) -> Markup:
    """The surroundings of the first place where ``words`` occur, these in ``<mark>``; the beginning without one."""
    value = " ".join(value.split())
    place = value.lower().find(words.lower()) if words else -1
    if place < 0:
        return escape(clean(value[: 2 * around]) + ("…" if len(value) > 2 * around else ""))
    start, end = max(0, place - around), min(len(value), place + len(words) + around)
    return Markup("{}{}<mark>{}</mark>{}{}").format(
        "…" if start else "",
        clean(value[start:place]),
        clean(value[place : place + len(words)]),
        clean(value[place + len(words) : end]),
        "…" if end < len(value) else "",
    )


FILTERS = {
    "tone": tone,
    "moment": moment,
    "number": number,
    "text": text,
    "who": who,
    "target": target,
    "lines": lines,
    "after_title": after_title,
}
