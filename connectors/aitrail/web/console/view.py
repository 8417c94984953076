"""What a page looks at: a range of time, values of dimensions, words; read from and written to the query of a URL.

Nothing here becomes SQL: names are checked against the field catalog, values are bound.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from msgspec import Struct
from msgspec.structs import replace

from aitrail.errors import ConfigError
from aitrail.schema.catalog import by_name

# What the filter bar offers, on every page.
BAR = ("tenant_id", "department", "model", "user_id")
RANGES: Mapping[str, tuple[str, int]] = {
    "1h": ("Last hour", 3600),
    "24h": ("Last 24 hours", 86_400),
    "7d": ("Last 7 days", 7 * 86_400),
    "30d": ("Last 30 days", 30 * 86_400),
    "90d": ("Last 90 days", 90 * 86_400),
    "all": ("Everything", 0),
}
_MAX_VALUES = 20
_MAX_LENGTH = 2_000
# Folded time, of a heat map's column: 0-23, and 1 (Monday) - 7.
FOLDS: Mapping[str, tuple[str, range]] = {
    "hour_of_day": ("extract(hour FROM timestamp)", range(24)),
    "day_of_week": ("extract(isodow FROM timestamp)", range(1, 8)),
}
# ``(none)`` in a chart: the field is missing.
NONE = "(none)"
# Texts are searched with ``q``, and compared for equality by nobody.
_NOT_COMPARED = frozenset({"prompt_text", "response_text", "timestamp", "ingested_at"})


class View(Struct, frozen=True):
    """What is looked at.

    Attributes:
        range: a key of ``RANGES``, or ``custom``.
        since, until: half-open, naive UTC; None: no bound.
        equal: field -> values of which it has one; ``""`` stands for a missing one.
        folds: hour of the day, day of the week.
        words: searched in texts and ids.
        panel, value: only what is behind this panel (``board/panel``), and behind this number of it.
        finding: only the evidence of this finding.
        anchored: the range ends at the newest event, because that is older than the range.
    """

    range: str = "7d"
    since: datetime | None = None
    until: datetime | None = None
    equal: tuple[tuple[str, tuple[str, ...]], ...] = ()
    folds: tuple[tuple[str, int], ...] = ()
    words: str = ""
    panel: str = ""
    value: str = ""
    finding: str = ""
    anchored: bool = False

    def value_of(self, name: str) -> str:
        """The first value that ``name`` is narrowed to; empty when it is not."""
        return next((values[0] for field, values in self.equal if field == name), "")

    @property
    def bar(self) -> "View":
        """Only what the filter bar says: what dashboards are narrowed by."""
        return replace(
            self,
            equal=tuple((name, values) for name, values in self.equal if name in BAR),
            folds=(),
            words="",
            panel="",
            value="",
            finding="",
        )

    @property
    def beside_bar(self) -> list[tuple[str, str]]:
        """What the filter bar has no field for and must carry along."""
        return [
            (name, value)
            for name, value in self.pairs()
            if name not in BAR and name not in ("range", "since", "until", "q")
        ]

    def pairs(self) -> list[tuple[str, str]]:
        """The query of a URL that gives this view again."""
        found: list[tuple[str, str]] = []
        if self.range == "custom":
            found += [("since", _written(self.since))] if self.since else []
            found += [("until", _written(self.until))] if self.until else []
            found += [] if found else [("range", "custom")]
        else:
            found.append(("range", self.range))
        found += [(name, value or NONE) for name, values in self.equal for value in values]
        found += [(name, str(number)) for name, number in self.folds]
        named = (("q", self.words), ("panel", self.panel), ("value", self.value), ("finding", self.finding))
        return found + [(name, value) for name, value in named if value]

    def written(self, name: str) -> str:
        """``since`` or ``until`` as a form's field takes it; empty without one."""
        return _written(self.since if name == "since" else self.until)

    def query(self, **more: Any) -> str:
        """``?name=value&...`` with ``more`` in place of what is there; None takes a name out."""
        pairs = [(name, value) for name, value in self.pairs() if name not in more]
        pairs += [(name, str(value)) for name, value in more.items() if value is not None]
        return f"?{urlencode(pairs)}" if pairs else ""

    def fixed(self) -> "View":
        """The same range as absolute times, so that every panel of a page looks at the same one."""
        return replace(self, range="custom") if self.since or self.until else self

    def without(self, name: str, value: str | None = None) -> "View":
        """This view without one narrowing (or one value of it)."""
        if name in ("q", "panel", "finding"):
            field = {"q": "words"}.get(name, name)
            return replace(self, **{field: "", **({"value": ""} if name == "panel" else {})})
        equal = tuple(
            (field, tuple(one for one in values if field != name or (value is not None and one != value)))
            for field, values in self.equal
        )
        return replace(
            self,
            equal=tuple((field, values) for field, values in equal if values),
            folds=tuple(fold for fold in self.folds if fold[0] != name),
        )

    def narrowed(self, **values: str) -> "View":
        """This view with fields set to one value each."""
        kept = tuple((field, old) for field, old in self.equal if field not in values)
        return replace(self, equal=(*kept, *((name, (value,)) for name, value in values.items())))


def read_view(query: Sequence[tuple[str, str]], *, now: datetime, newest: datetime | None, default: str = "7d") -> View:
    """Read the query of a URL; names that mean nothing here are left alone.

    Args:
        query: names and values.
        now: naive UTC.
        newest: time of the newest event: a relative range that would hold none ends there.
        default: the range when none is named.

    Raises:
        ConfigError: a value makes no sense; the message says which.
    """
    given: dict[str, list[str]] = {}
    for name, value in query:
        if len(value) > _MAX_LENGTH:
            raise ConfigError("this value is too long", where=_named(name))
        if value.strip():
            given.setdefault(name, []).append(value.strip().replace("\x00", ""))
    first = {name: values[0] for name, values in given.items()}
    name = first.get("range", "custom" if "since" in first or "until" in first else default)
    since = _moment(first["since"], "since") if "since" in first else None
    until = _moment(first["until"], "until") if "until" in first else None
    if name not in RANGES and name != "custom":
        raise ConfigError("there is no such range", where="range", hint=f"one of {', '.join(RANGES)}")
    anchored = False
    if name != "custom":
        since, until, anchored = _relative(name, now, newest)
    if since and until and since >= until:
        raise ConfigError("the range ends before it begins", where="until", hint="choose a later end")
    return View(
        range=name,
        since=since,
        until=until,
        equal=_equal(given),
        folds=_folds(first),
        words=first.get("q", ""),
        panel=first.get("panel", ""),
        value=first.get("value", ""),
        finding=first.get("finding", ""),
        anchored=anchored,
    )


def _relative(name: str, now: datetime, newest: datetime | None) -> tuple[datetime | None, datetime | None, bool]:
    span = RANGES[name][1]
    if not span:
        return None, None, False
    anchored = newest is not None and newest < now - timedelta(seconds=span)
    end = newest if anchored and newest is not None else now
    # Up to the next full minute: the pages of one minute ask the same questions.
    end = end.replace(second=0, microsecond=0) + timedelta(minutes=1)
    return end - timedelta(seconds=span), end, anchored


def _equal(given: Mapping[str, Iterable[str]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    known = by_name()
    found = []
    for name, values in given.items():
        field = known.get(name)
        if field is None or name in _NOT_COMPARED:
            continue
        unique = list(dict.fromkeys("" if one == NONE else one.lower() if field.lower else one for one in values))
        if len(unique) > _MAX_VALUES:
            raise ConfigError(f"more than {_MAX_VALUES} values", where=name)
        found.append((name, tuple(unique)))
    return tuple(found)


def _folds(first: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    found = []
    for name, (_, allowed) in FOLDS.items():
        if name in first:
            text = first[name]
            number = int(text) if text.isascii() and text.isdecimal() and len(text) < 4 else -1
            if number not in allowed:
                raise ConfigError(f"a number from {allowed.start} to {allowed.stop - 1} is expected", where=name)
            found.append((name, number))
    return tuple(found)


def _moment(text: str, name: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    except (ValueError, OverflowError):
        raise ConfigError("this is no time", where=name, hint="for example 2026-11-20T10:00 (UTC)") from None


def _written(moment: datetime | None) -> str:
    return moment.isoformat(timespec="milliseconds" if moment.microsecond else "seconds") if moment else ""


def _named(name: str) -> str:
    return name if name.isidentifier() and len(name) < 40 else "a parameter"
