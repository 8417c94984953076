"""``generate``: whole working days on disk, in the layouts of the real exporters; ``iter_records``: records alone."""

import csv
import io
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from aitrail.demo import bench
from aitrail.demo.call import Record
from aitrail.demo.day import ordinary
from aitrail.demo.incidents import LOGGING_OFF_SECOND, Traces, play
from aitrail.demo.layout import LAYOUTS, Stream, file_key, gzip
from aitrail.demo.lookalikes import LOOKALIKES
from aitrail.demo.org import REGION, directory_rows
from aitrail.demo.period import Day, one_day, period
from aitrail.demo.scene import Scene
from aitrail.demo.times import day_start

SEED = 1
DAY = "2026-11-20"
EVENTS = 6_000
DAY_EVENTS = 8_000  # more than this is spread over the working days before
Profile = Literal["day", "bench"]
Progress = Callable[[int, int], None]


class Manifest(Struct):
    """What was written, and what a collector must make of it.

    Attributes:
        logs: directory to collect; ``directory.csv`` and ``manifest.json`` lie beside it.
        days: the days, oldest first; the incidents are on the last one, or spread over the working days.
        files, bytes: number and size of the files below ``logs``.
        records: records on disk by record type (a span or one element of ``Records`` is one).
        events: events that a first collect adds, by record type; ``expected_events`` is their sum.
        foreign: records that are well formed but no access to an AI system, by reason code.
        incidents: the scripted incidents with the ids of their records; in a period of days each may come again.
    """

    logs: str
    seed: int
    days: list[str]
    files: int = 0
    bytes: int = 0
    records: dict[str, int] = {}
    events: dict[str, int] = {}
    foreign: dict[str, int] = {}
    incidents: list[Traces] = []

    @property
    def expected_events(self) -> int:
        """How many events a first collect adds."""
        return sum(self.events.values())


def generate(
    out_dir: Path,
    *,
    seed: int = SEED,
    day: str = DAY,
    events: int = EVENTS,
    days: int = 1,
    profile: Profile = "day",
    progress: Progress | None = None,
) -> Manifest:
    """Write about ``events`` events below ``out_dir``; the same arguments give the same bytes (after decompression).

    Args:
        out_dir: gets ``logs/``, ``directory.csv`` and ``manifest.json``. What an earlier run wrote there is removed
            first; a ``logs/`` that no manifest claims stays, and only files of the same names are replaced.
        seed: what the random values depend on.
        day: the last day, ``YYYY-MM-DD``; the incidents happen on it.
        events: how many; memory does not grow with it.
        days: 1: ``day`` with all incidents (much traffic is spread over the working days before); more: so many days
            of the calendar with quiet weekends, the incidents on some of the working days.
        profile: ``day`` (all sources, incidents) or ``bench`` (CloudTrail, Azure and LiteLLM in equal parts).
        progress: called with events done and their total now and then.

    Raises:
        ValueError: ``day`` is no date, or ``events`` or ``days`` is not positive.
        OSError: ``out_dir`` cannot be written.
    """
    if events < 1 or days < 1:
        raise ValueError("events and days must be positive")
    try:
        date.fromisoformat(day)
    except ValueError:
        raise ValueError(f"day must be a date like {DAY}, not {day!r}") from None
    logs = out_dir / "logs"
    _clear(out_dir)
    logs.mkdir(parents=True, exist_ok=True)
    if profile == "bench":
        manifest = Manifest(str(logs), seed, [day])
        for name, data, counts in bench.files(seed, day, events):
            _count_bench(manifest, counts)
            _write(manifest, logs / name, data)
            if progress is not None:
                progress(manifest.expected_events, events)
    else:
        plan = period(seed, day, days, events) if days > 1 else one_day(day, events, DAY_EVENTS)
        manifest = Manifest(str(logs), seed, [each.day for each in plan])
        for each in plan:
            _write_day(manifest, logs, _day_records(manifest, seed, each), level=9 if events < 2000 else 6)
            if progress is not None:
                progress(min(events, manifest.expected_events), events)
    (out_dir / "directory.csv").write_bytes(directory_csv())
    manifest.logs = "logs"
    (out_dir / "manifest.json").write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")
    manifest.logs = str(logs)
    return manifest


def _clear(out_dir: Path) -> None:
    """Remove the logs of an earlier run: another seed has other files, and both together are nobody's day."""
    try:
        msgspec.json.decode((out_dir / "manifest.json").read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError):
        return
    shutil.rmtree(out_dir / "logs", ignore_errors=True)


def _day_records(manifest: Manifest, seed: int, day: Day) -> Iterator[Record]:
    """All records of one day that reach a log, the incidents of that day among them."""
    off, events = float("inf"), day.events
    if day.incidents is None or day.incidents:
        scripted, traces = play(seed, day.day, day.incidents)
        manifest.incidents += traces
        if any(one.name == "guardrail-off" for one in traces):
            off = day_start(day.day) + LOGGING_OFF_SECOND
        yield from scripted
        events = max(1, events - sum(record.events for record in scripted))
    for name in day.lookalikes:
        scene = Scene(seed, day.day, name)
        LOOKALIKES[name](scene)
        yield from scene.records
    for record in ordinary(seed, day.day, events, day.rhythm):
        if record.stream == ("bedrock", REGION) and record.time >= off:
            continue  # invocation logging is switched off for the rest of the day
        yield record


def _write_day(manifest: Manifest, logs: Path, records: Iterable[Record], *, level: int) -> None:
    files: dict[tuple[Stream, int], list[tuple[float, bytes]]] = {}
    kinds: Counter[str] = Counter(manifest.records)
    made: Counter[str] = Counter(manifest.events)
    foreign: Counter[str] = Counter(manifest.foreign)
    for record in records:
        files.setdefault(file_key(record.stream, record.time), []).append((record.time, record.data))
        kinds[record.record_type] += 1
        made[record.record_type] += record.events
        if record.foreign:
            foreign[record.foreign] += 1
    manifest.records, manifest.events, manifest.foreign = _sorted(kinds), _sorted(made), _sorted(foreign)
    for (stream, hour), rows in sorted(files.items()):
        rows.sort(key=_time)  # stable: equal times stay in the order in which they were made
        layout = LAYOUTS[stream[0]]
        place = layout.place(stream, hour)
        data = layout.frame(stream, [row for _, row in rows])
        _write(manifest, logs / place.path, gzip(data, level) if place.compressed else data)


def _time(row: tuple[float, bytes]) -> float:
    return row[0]


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def _count_bench(manifest: Manifest, counts: tuple[str, int]) -> None:
    kind, count = counts
    manifest.records[kind] = manifest.records.get(kind, 0) + count
    manifest.events[kind] = manifest.events.get(kind, 0) + count


def _write(manifest: Manifest, path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    manifest.files += 1
    manifest.bytes += len(data)


def directory_csv() -> bytes:
    """The directory file: who works where, by every id that a source may know (``user`` column)."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(("user", "department", "name", "email", "type"))
    rows.writerows(directory_rows())
    return out.getvalue().encode()


def iter_records(record_type: str, *, seed: int = SEED, day: str = DAY, count: int = 100_000) -> Iterator[bytes]:
    """``count`` records of one type, one after the other, in constant memory (see ``bench.KINDS``)."""
    return bench.records(record_type, seed, day, count)
