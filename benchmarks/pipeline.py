"""The pipeline's speed and memory: file -> normalized, classified, hashed, encoded -> store.

    python benchmarks/pipeline.py                 all figures (some minutes)
    python benchmarks/pipeline.py --quick         a rough look (under a minute)
    python benchmarks/pipeline.py --json out.json --markdown docs/benchmarks.md

Events per second are per CPU second (one core). Beside each stand the decode-only ceilings of the same run. README.md
says what each figure means.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

import stages
from aitrail.demo.writer import generate
from stages import STAGES, Figures

HERE = Path(__file__).parent
KINDS = ("cloudtrail", "azure_openai", "litellm", "litellm_3k", "mix")
LABELS = {
    "cloudtrail": "CloudTrail",
    "azure_openai": "Azure diagnostics",
    "litellm": "LiteLLM",
    "litellm_3k": "LiteLLM, prompt events",
    "mix": "mix (1/3 each)",
}
TARGETS = {"mix": 60_000, "litellm_3k": 25_000, "cloudtrail": 120_000}
STORE_TARGET = 30_000
PEAK_TARGET = 300_000_000
LIBRARIES = ("msgspec", "google-re2", "hyperscan", "isal", "duckdb", "zstandard")
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


class Run(msgspec.Struct):
    """One collection of ``events`` events from files; seconds and bytes. ``frame_cpu`` is reading and framing alone."""

    events: int
    stored_bytes: int
    cpu: float
    wall: float
    peak: int
    imported: int
    frame_cpu: float


class Report(msgspec.Struct):
    """Everything that one run of the benchmark found."""

    date: str
    machine: str
    python: str
    libraries: dict[str, str]
    load: float
    stages: list[Figures]
    runs: list[Run]


def best(kind: str, count: int, repeat: int) -> Figures:
    """The run with the least CPU: other processes can only make it slower."""
    return min((stages.measure(kind, count) for _ in range(repeat)), key=lambda figures: figures.core)


def collect_files(events: int) -> Run:
    """Write files of the mix, then read them in processes of their own."""
    with TemporaryDirectory(prefix="aitrail-bench-") as name:
        manifest = generate(Path(name), events=events, profile="bench")
        done = _child(manifest.logs)
        frame = _child(manifest.logs, "--frame")
        if done["events"] != manifest.expected_events:
            raise SystemExit(f"{manifest.expected_events:,} events were written and {done['events']:,} collected")
        return Run(
            events=int(done["events"]),
            stored_bytes=manifest.bytes,
            cpu=done["cpu"],
            wall=done["wall"],
            peak=int(done["peak"]),
            imported=int(done["imported"]),
            frame_cpu=frame["cpu"],
        )


def _child(*arguments: str) -> dict[str, float]:
    command = [sys.executable, str(HERE / "files.py"), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr.strip() or f"{command} failed")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def machine() -> str:
    """Processor and number of cores."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return f"{name}, {os.cpu_count()} cores, {platform.system()}"


# --- tables: rows of text, printed aligned or as Markdown


def _rate(count: float, seconds: float) -> str:
    return f"{count / seconds:,.0f}" if seconds > 0 else "-"


def _micros(seconds: float, count: int) -> str:
    return f"{seconds / count * 1e6:.2f}"


def core_table(report: Report) -> list[list[str]]:
    """Detect to encode, per kind, beside the ceilings."""
    return [
        [
            "records",
            "bytes",
            "events/s",
            "MB/s",
            "msgspec typed/s",
            "share of it",
            "json.loads/s",
            "times it",
            "target",
        ],
        *(
            [
                LABELS[found.kind],
                f"{found.size / found.records:,.0f}",
                _rate(found.records, found.core),
                f"{found.size / found.core / 1e6:,.0f}",
                _rate(found.records, found.typed),
                f"{found.typed / found.core:.0%}",
                _rate(found.records, found.plain),
                f"{found.plain / found.core:.2f}",
                _verdict(found.records / found.core, TARGETS.get(found.kind)),
            ]
            for found in report.stages
        ),
    ]


def stage_table(report: Report) -> list[list[str]]:
    """Microseconds of CPU per event, stage by stage."""

    def row(label: str, seconds: Callable[[Figures], float]) -> list[str]:
        return [label, *(_micros(seconds(found), found.records) for found in report.stages)]

    return [
        ["us per event", *(LABELS[found.kind] for found in report.stages)],
        *(row(stage, lambda found, stage=stage: found.stages[stage]) for stage in STAGES),
        row("detect to encode, one loop", lambda found: found.core),
        row("decode only, msgspec typed", lambda found: found.typed),
        row("decode only, json.loads", lambda found: found.plain),
    ]


def file_table(report: Report) -> list[list[str]]:
    """Whole collections of the mix."""
    rows = [
        ["events", "MB on disk", "events/s per core", "events/s wall", "inflate + frame/s", "peak MB", "of it imports",
         "target"]
    ]  # fmt: skip
    for run in report.runs:
        rate = _verdict(run.events / run.cpu, STORE_TARGET)
        peak = "<" if run.peak < PEAK_TARGET else "MISSED: <"
        rows.append(
            [
                f"{run.events:,}",
                f"{run.stored_bytes / 1e6:,.0f}",
                _rate(run.events, run.cpu),
                _rate(run.events, run.wall),
                _rate(run.events, run.frame_cpu),
                f"{run.peak / 1e6:,.0f}",
                f"{run.imported / 1e6:,.0f}",
                f"{rate}, {peak} {PEAK_TARGET // 1_000_000} MB",
            ]
        )
    return rows


def _verdict(rate: float, target: int | None) -> str:
    if target is None:
        return ""
    return f">= {target:,}" if rate >= target else f"MISSED: >= {target:,}"


TABLES: tuple[tuple[str, Callable[[Report], list[list[str]]]], ...] = (
    ("Detect, normalize, classify, mask, hash, encode: per core, in one loop", core_table),
    ("Where the time goes: CPU microseconds per event, each stage alone", stage_table),
    (
        "File to store, in a process of its own (gzip CloudTrail documents of 20,000 records, PT1H.json, .jsonl)",
        file_table,
    ),
)


def as_text(report: Report) -> str:
    """The tables for a terminal."""
    parts = [_head(report)]
    for title, make in TABLES:
        rows = make(report)
        if len(rows) < 2:
            continue
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [
            "  ".join(
                cell.ljust(width) if column == 0 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        parts.append("\n".join([title, "", *lines]))
    return "\n\n".join(parts) + "\n"


def as_markdown(report: Report) -> str:
    """The tables for docs/benchmarks.md."""
    parts = [_head(report)]
    for title, make in TABLES:
        rows = make(report)
        if len(rows) < 2:
            continue
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        lines.insert(1, "|" + "---|" + "---:|" * (len(rows[0]) - 1))
        parts.append("\n".join([f"### {title}", "", *lines]))
    return "\n\n".join(parts) + "\n"


def _head(report: Report) -> str:
    libraries = ", ".join(f"{name} {number}" for name, number in report.libraries.items())
    return (
        f"{report.date}. {report.machine}. Python {report.python}; {libraries}. "
        f"Load average at the start: {report.load:.1f}."
    )


def write_markdown(path: Path, report: Report) -> None:
    """Replace the block between the markers of ``path``."""
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{path} has no {BEGIN} ... {END}")
    path.write_text(f"{before}{BEGIN}\n\n{as_markdown(report)}\n{END}{after}", encoding="utf-8")


def missed(report: Report) -> list[str]:
    """The targets that were not reached."""
    found = [
        f"{LABELS[item.kind]}: {item.records / item.core:,.0f} events/s, target {TARGETS[item.kind]:,}"
        for item in report.stages
        if item.kind in TARGETS and item.records / item.core < TARGETS[item.kind]
    ]
    for run in report.runs:
        if run.events / run.cpu < STORE_TARGET:
            found.append(
                f"file to store, {run.events:,}: {run.events / run.cpu:,.0f} events/s, target {STORE_TARGET:,}"
            )
        if run.peak > PEAK_TARGET:
            found.append(
                f"file to store, {run.events:,}: peak {run.peak / 1e6:,.0f} MB, target {PEAK_TARGET / 1e6:,.0f}"
            )
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=60_000, help="records of each kind for the stages (60,000)")
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"which kinds, of {', '.join(KINDS)}")
    parser.add_argument(
        "--files", default="100000,1000000", help="sizes of the collections from files, in events; 0: none"
    )
    parser.add_argument("--repeat", type=int, default=3, help="measure the stages so often and keep the best (3)")
    parser.add_argument("--quick", action="store_true", help="6,000 records of each kind, files of 12,000, once")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--markdown", type=Path, help="replace the figures in this file (docs/benchmarks.md)")
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    options = parser.parse_args()
    if options.quick:
        options.events, options.files, options.repeat = 6_000, "12000", 1
    unknown = set(options.kinds.split(",")) - set(KINDS)
    if unknown:
        parser.error(f"unknown kind {', '.join(sorted(unknown))}; known: {', '.join(KINDS)}")
    return options


def main() -> int:
    options = _arguments()
    report = Report(
        date=time.strftime("%Y-%m-%d"),
        machine=machine(),
        python=platform.python_version(),
        libraries={name: version(name) for name in LIBRARIES},
        load=os.getloadavg()[0],
        stages=[],
        runs=[],
    )
    for kind in options.kinds.split(","):
        print(f"measuring {LABELS[kind]} ...", file=sys.stderr)
        report.stages.append(best(kind, options.events, options.repeat))
    for size in map(int, options.files.split(",")):
        if size:
            print(f"collecting {size:,} events from files ...", file=sys.stderr)
            report.runs.append(collect_files(size))
    print(as_text(report))
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    if options.markdown:
        write_markdown(options.markdown, report)
    short = missed(report)
    for line in short:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if short and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
