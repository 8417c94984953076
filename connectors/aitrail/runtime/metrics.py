"""A snapshot for machines: the Prometheus text format, and a small JSON for health checks.

Format: "Exposition formats", Prometheus documentation, text format 0.0.4. Base units (seconds, bytes), counters end in
``_total``; label values are escaped. Names of sources and destinations are the only labels besides bounded codes.
"""

from collections.abc import Callable, Iterable, Sequence

import msgspec

from aitrail import __version__
from aitrail.runtime.status import DestinationStatus, Snapshot, SourceStatus
from aitrail.spool.states import VERDICTS

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})
_HELP_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n"})

Labels = Sequence[tuple[str, str]]
Sample = tuple[Labels, float]


def _time(value: float) -> float | None:
    return value or None


# name, type, help, value of a source (None: no sample).
_SOURCES: Sequence[tuple[str, str, str, Callable[[SourceStatus], float | None]]] = (
    ("records_total", "counter", "Records read.", lambda s: s.counts.get("records", 0)),
    ("events_total", "counter", "New events taken in.", lambda s: s.counts.get("events", 0)),
    ("duplicates_total", "counter", "Events dropped because they were known.", lambda s: s.counts.get("duplicates", 0)),
    (
        "gaps_total",
        "counter",
        "How often the source found that something is missing.",
        lambda s: s.counts.get("gaps", 0),
    ),
    ("time_ahead_total", "counter", "Events ahead of this machine's clock.", lambda s: s.counts.get("time_ahead", 0)),
    ("acknowledged_total", "counter", "Batches given back as durable.", lambda s: s.counts.get("acknowledged", 0)),
    (
        "unacknowledged_total",
        "counter",
        "Batches that are durable but could not be given back; they come again.",
        lambda s: s.counts.get("unacknowledged", 0),
    ),
    ("newest_event_timestamp_seconds", "gauge", "Time of the newest event.", lambda s: _time(s.state.newest_event)),
    ("newest_object_timestamp_seconds", "gauge", "Time of the newest object.", lambda s: _time(s.state.newest_object)),
    ("lag_seconds", "gauge", "Age of the newest event.", lambda s: s.lag_seconds),
    (
        "oldest_unacknowledged_seconds",
        "gauge",
        "How long the oldest record that is not settled has been here.",
        lambda s: s.oldest_open_seconds or 0.0,
    ),
    ("last_success_timestamp_seconds", "gauge", "End of the last good turn.", lambda s: _time(s.state.last_success)),
    ("last_error_timestamp_seconds", "gauge", "Time of the last failure.", lambda s: _time(s.state.error_at)),
    ("next_due_timestamp_seconds", "gauge", "When it is read again.", lambda s: _time(s.state.next_due)),
    ("failures", "gauge", "How many turns in a row have failed.", lambda s: s.state.failures),
)
_DESTINATIONS: Sequence[tuple[str, str, str, Callable[[DestinationStatus], float | None]]] = (
    ("backlog_events", "gauge", "Events that wait.", lambda d: d.backlog_events),
    ("backlog_bytes", "gauge", "Bytes of the events that wait.", lambda d: d.backlog_bytes),
    ("oldest_waiting_seconds", "gauge", "How long the oldest of them waits.", lambda d: d.oldest_seconds),
    ("last_error_timestamp_seconds", "gauge", "Time of the last failure.", lambda d: _time(d.state.error_at)),
    ("failing", "gauge", "1 while it cannot be reached.", lambda d: 1.0 if d.state.last_error else 0.0),
)


def render_metrics(snapshot: Snapshot) -> str:
    """Give the snapshot in the Prometheus text format; serve it as ``CONTENT_TYPE``."""
    text = _Text()
    collector = snapshot.collector
    text.family("aitrail_build_info", "gauge", "Version.", [((("version", __version__),), 1.0)])
    text.family("aitrail_up", "gauge", "1 while the collector is at work.", [((), float(snapshot.running))])
    text.family("aitrail_heartbeat_timestamp_seconds", "gauge", "Last sign of life.", [((), collector.heartbeat)])
    text.family("aitrail_problems", "gauge", "How many things are stuck.", [((), len(snapshot.problems))])
    text.family("aitrail_dead_letters", "gauge", "Open dead letters.", [((), snapshot.dead_letters)])
    for name, kind, help_text, value in _SOURCES:
        samples = [((("source", one.name),), value(one)) for one in snapshot.sources]
        text.family(f"aitrail_source_{name}", kind, help_text, samples)
    for name, help_text in (("rejected", "Dead letters by reason."), ("skipped", "Records that are no access.")):
        text.family(f"aitrail_source_{name}_total", "counter", help_text, _by_code(snapshot.sources, name, "reason"))
    attested = [
        ((("source", one.name), ("verdict", verdict)), float(count))
        for one in snapshot.sources
        for verdict, count in sorted(one.attested.items())
    ]
    text.family("aitrail_source_attested_objects", "gauge", "Objects by what is known of their integrity.", attested)
    for name, kind, help_text, of in _DESTINATIONS:
        samples = [((("destination", one.name),), of(one)) for one in snapshot.destinations]
        text.family(f"aitrail_destination_{name}", kind, help_text, samples)
    verdicts = [
        ((("destination", one.name), ("verdict", verdict)), float(getattr(one.state, verdict)))
        for one in snapshot.destinations
        for verdict in VERDICTS
    ]
    text.family("aitrail_destination_verdicts_total", "counter", "Events by verdict.", verdicts)
    return text.text()


def render_health(snapshot: Snapshot) -> tuple[int, bytes]:
    """Give an HTTP status and a JSON body.

    200 ``ok``: nothing is stuck; 200 ``degraded``: something is, and starting again would not mend it; 503 ``down``: no
    collector is at work on this store.
    """
    status = "down" if not snapshot.running else "degraded" if snapshot.problems else "ok"
    body = {"status": status, "version": __version__, "at": snapshot.at, "problems": snapshot.problems}
    return (503 if status == "down" else 200), msgspec.json.encode(body)


class _Text:
    """Collects families; one without samples is left out."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def family(self, name: str, kind: str, help_text: str, samples: Iterable[tuple[Labels, float | None]]) -> None:
        """Add one metric."""
        rows = [f"{name}{_labels(labels)} {_number(value)}" for labels, value in samples if value is not None]
        if rows:
            self._lines += [f"# HELP {name} {help_text.translate(_HELP_ESCAPES)}", f"# TYPE {name} {kind}", *rows]

    def text(self) -> str:
        """All of it."""
        return "\n".join(self._lines) + "\n"


def _by_code(sources: Sequence[SourceStatus], prefix: str, label: str) -> list[Sample]:
    return [
        ((("source", one.name), (label, name.partition(".")[2])), float(count))
        for one in sources
        for name, count in sorted(one.counts.items())
        if name.startswith(prefix + ".")
    ]


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels) + "}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.3f}"
