"""Whether every engine gives the same answer to every rule over single events: pairs compared, and disagreements.

    python benchmarks/engines.py [--events 2000] [--seed 1] [--markdown docs/parity-measured.md]

The events are those of the rules' own tests, and as many more as wanted made of these: fields dropped, emptied, taken
from other rules, spelt in another case, numbers moved by one, other addresses and times. The judge is the reference
evaluator (``aitrail.compiler.reference``). DuckDB is executed, KQL is executed by duckdb-kql, SPL and ES|QL run in the
tests' engines of their documented meaning, and the published SQLite backend of pySigma stands beside them. What an
executor cannot run is counted. Correlations are compared in tests/parity.
"""

import argparse
import os
import platform
import random
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from aitrail.compiler import reference  # noqa: E402
from aitrail.compiler.dialects import duckdb, esql, kql, spl  # noqa: E402
from aitrail.compiler.examples import ALL_TIME, connect, events_of  # noqa: E402
from aitrail.compiler.load import load  # noqa: E402
from aitrail.compiler.rule import Rule  # noqa: E402
from aitrail.contentdir import content_path  # noqa: E402
from aitrail.event import AccessEvent  # noqa: E402
from aitrail.schema.catalog import by_name  # noqa: E402
from parity import test_parity_kql, test_parity_spl, test_parity_sqlite  # noqa: E402
from parity.elastic_engine import esql as run_esql  # noqa: E402
from parity.splunk_engine import spl as run_spl  # noqa: E402
from parity.test_parity_esql import documents  # noqa: E402

Hits = Callable[[Rule], set[str] | None]
_ADDRESSES = ("", "10.0.0.1", "203.0.113.9", "2001:db8::1", "::ffff:10.0.0.1")


class Tally(msgspec.Struct):
    """What one engine did."""

    name: str
    how: str
    rules: int = 0
    pairs: int = 0
    differences: int = 0
    left_out: list[str] = msgspec.field(default_factory=list)
    seconds: float = 0.0


def pool(rules: list[Rule], count: int, seed: int) -> list[dict[str, Any]]:
    """The rules' own events, then ``count`` made of them."""
    rng = random.Random(seed)
    own = [event for rule in rules for one in (*rule.meta.hits, *rule.meta.misses) for event in events_of(one)]
    values: dict[str, list[Any]] = {}
    for event in own:
        for name, value in event.items():
            values.setdefault(name, []).append(value)
    made = [dict(event) for event in own]
    made += [_changed(rng, rng.choice(own), values) for _ in range(count)]
    for number, event in enumerate(made):
        event["event_id"] = f"{number:032x}"
    return [msgspec.to_builtins(msgspec.convert(event, AccessEvent)) for event in made]


def _changed(rng: random.Random, event: dict[str, Any], values: dict[str, list[Any]]) -> dict[str, Any]:
    made = dict(event)
    for _ in range(rng.randrange(1, 5)):
        name = rng.choice(list(values))
        if name in ("event_id", "timestamp"):
            continue
        made[name] = rng.choice(values[name])
        field, kind = made[name], by_name()[name]
        if kind.kind == "ip":
            made[name] = rng.choice(_ADDRESSES)
        elif isinstance(field, int | float) and not isinstance(field, bool):
            made[name] = field + rng.choice((-1, 0, 1))
        elif isinstance(field, str) and not kind.lower and not kind.enum:
            made[name] = rng.choice((field, field.upper(), field.swapcase(), f"x{field}y", field[:-1], ""))
        elif not kind.required and rng.random() < 0.3:
            made.pop(name)
    return made


def engines(events: list[dict[str, Any]]) -> dict[str, tuple[str, Hits]]:
    """Each engine with how it runs; None where it cannot run a rule."""
    database, sentinel = connect(events), test_parity_kql.table(events)
    splunk, elastic, lite = test_parity_spl.rows(events), documents(events), test_parity_sqlite.table(events)

    def in_duckdb(rule: Rule) -> set[str]:
        return {row[0] for row in database.execute(duckdb.compile_rule(rule).text, ALL_TIME).fetchall()}

    def in_kql(rule: Rule) -> set[str] | None:
        text = kql.compile_rule(rule).text
        return None if "is_in_range" in text else test_parity_kql.run(sentinel, text)

    def in_sqlite(rule: Rule) -> set[str] | None:
        detection = rule.meta.raw["detection"]
        return None if test_parity_sqlite.reads_lists(detection) else test_parity_sqlite.hits(lite, detection)

    return {
        "DuckDB": ("executed", in_duckdb),
        "KQL": ("executed by duckdb-kql", in_kql),
        "SPL": (
            "run by an engine of its documented meaning",
            lambda rule: test_parity_spl.ids(run_spl(spl.compile_rule(rule).text, splunk)),
        ),
        "ES|QL": (
            "run by an engine of its documented meaning",
            lambda rule: {row["event.id"] for row in run_esql(esql.compile_rule(rule).text, elastic)},
        ),
        "SQLite (pySigma's backend)": ("executed", in_sqlite),
    }


def measure(count: int, seed: int) -> tuple[list[Tally], int, int, float]:
    """The tallies; then the events, the rules, and the milliseconds to convert one rule to all four languages."""
    shipped = load(content_path("detections")).shipped()
    rules = [rule for rule in shipped if isinstance(rule, Rule) and rule.dataset == "access"]
    events = pool(rules, count, seed)
    started = time.process_time()
    for rule in shipped:
        for dialect in (duckdb, spl, kql, esql):
            dialect.compile_rule(rule)
    converted = (time.process_time() - started) / len(shipped) * 1000
    judged = {
        rule.meta.name: {event["event_id"] for event in events if reference.matches(rule.meta.raw, event)}
        for rule in rules
    }
    tallies = []
    for name, (how, hits) in engines(events).items():
        tally = Tally(name, how)
        began = time.process_time()
        for rule in rules:
            found = hits(rule)
            if found is None:
                tally.left_out.append(rule.meta.name)
                continue
            tally.rules += 1
            tally.pairs += len(events)
            tally.differences += len(found ^ judged[rule.meta.name])
        tally.seconds = time.process_time() - began
        print(f"{time.strftime('%H:%M:%S')} {name}: {tally.differences} of {tally.pairs:,} differ", file=sys.stderr)
        tallies.append(tally)
    return tallies, len(events), len(rules), converted


def markdown(tallies: list[Tally], events: int, rules: int, converted: float) -> str:
    """The report as a page."""
    why = {"KQL": "networks of addresses", "SQLite (pySigma's backend)": "rules over lists, which it does not know"}
    lines = [
        "<!-- Written by benchmarks/engines.py; do not edit. -->\n\n# The same answer everywhere\n\n",
        f"Measured on {datetime.now(UTC):%Y-%m-%d} with Python {platform.python_version()} on {os.cpu_count()} cores ",
        f"({platform.machine()}) by `python benchmarks/engines.py`: the {rules} rules over single events, each with ",
        f"{events:,} events (those of the rules' own tests, and changed ones), judged by an evaluator that is written ",
        "from the Sigma specification. A pair is one rule and one event. Random rules and correlations: ",
        "`tests/parity`; every KQL query binds in Microsoft's analyser, every SPL command is in Splunk's table.\n\n",
        "| engine | how | rules | pairs | disagreements | not run | CPU seconds |\n|---|---|---|---|---|---|---|\n",
    ]
    for one in tallies:
        left = f"{len(one.left_out)} ({why.get(one.name, '')})" if one.left_out else "0"
        cells = (
            one.name.replace("|", "\\|"),
            one.how,
            one.rules,
            f"{one.pairs:,}",
            one.differences,
            left,
            f"{one.seconds:.1f}",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |\n")
    lines.append(f"\nOne rule is converted to all four languages in {converted:.2f} ms.\n")
    return "".join(lines)


def main() -> int:
    """Command line; 1 when an engine of ours disagrees."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--markdown", type=Path, help="write the report to this file")
    arguments = parser.parse_args()
    page = markdown(*(found := measure(arguments.events, arguments.seed)))
    if arguments.markdown:
        arguments.markdown.write_text(page, encoding="utf-8")
    print(page)
    return int(any(one.differences for one in found[0]))


if __name__ == "__main__":
    sys.exit(main())
