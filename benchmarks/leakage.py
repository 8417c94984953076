"""How well secrets and identifiers are found, per kind: recall and precision on the labelled synthetic set.

    python benchmarks/leakage.py [--rounds 3] [--json] [--out LABELLED.jsonl]

The set is ``tests/fixtures/leakage/set.toml``: templates that are filled with seeded random characters, the same on
every machine. ``--out`` writes it as a file for ``aitrail classify evaluate``.
"""

import argparse
import json
import random
import re
import string
import sys
import tomllib
import uuid
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from aitrail.classify.contract import Text
from aitrail.classify.default import DefaultClassifier

SET = Path(__file__).resolve().parents[1] / "tests" / "fixtures" / "leakage" / "set.toml"
ALPHABETS = {
    "alnum": string.ascii_letters + string.digits,
    "alpha": string.ascii_letters,
    "word": string.ascii_letters + string.digits + "_-",
    "base64": string.ascii_letters + string.digits + "+/",
    "base64url": string.ascii_letters + string.digits,
    "hex": "0123456789abcdef",
    "digit": string.digits,
    "UPPER": string.ascii_uppercase + string.digits,
    "B32": string.ascii_uppercase + "234567",
}
HOLE = re.compile(
    r"\{(alnum|alpha|word|base64url|base64|hex|digit|UPPER|B32|pass):([0-9]+)\}|\{(uuid)\}|\{stdnum:([a-z_.]+):([^}]+)\}"
)
ATTEMPTS = 200_000


class Row(NamedTuple):
    """One labelled text: ``kind`` stands in it at ``start`` to ``end``, or nothing at all (``kind`` empty)."""

    text: str
    group: str
    kind: str
    start: int
    end: int


def run(rnd: random.Random, alphabet: str, size: int) -> str:
    """Return random characters that neither begin nor end with punctuation."""
    inner = "".join(rnd.choice(alphabet) for _ in range(size))
    edges = [char for char in alphabet if char.isalnum()]
    return rnd.choice(edges) + inner[1:-1] + rnd.choice(edges) if size > 1 else inner


def password(rnd: random.Random, size: int) -> str:
    """Return what people choose: letters, a mark, digits."""
    return run(rnd, string.ascii_letters, size - 4) + rnd.choice("!#-_.") + run(rnd, string.digits, 3)


def valid(rnd: random.Random, module: str, mask: str) -> str:
    """Fill ``mask`` until python-stdnum calls it valid."""
    check = import_module(f"stdnum.{module}").is_valid
    for _ in range(ATTEMPTS):
        value = re.sub("#", lambda _: rnd.choice(string.digits), mask)
        value = re.sub("@", lambda _: rnd.choice(string.ascii_uppercase), value)
        if check(value):
            return value
    raise ValueError(f"no valid number of {module} fits {mask}")


def fill(template: str, rnd: random.Random) -> str:
    """Fill the holes of one template."""

    def one(match: re.Match[str]) -> str:
        if match.group(1) == "pass":
            return password(rnd, int(match.group(2)))
        if match.group(1):
            return run(rnd, ALPHABETS[match.group(1)], int(match.group(2)))
        if match.group(3):
            return str(uuid.UUID(int=rnd.getrandbits(128), version=4))
        return valid(rnd, match.group(4), match.group(5))

    return HOLE.sub(one, template)


def rows(rounds: int) -> Iterator[Row]:
    """Yield the whole set, every template ``rounds`` times in every carrier in turn."""
    data = tomllib.loads(SET.read_text(encoding="utf-8"))
    for kind, templates in data["secrets"].items():
        rnd = random.Random(f"secret {kind}")
        for number in range(rounds * len(templates)):
            for carrier in data["secret_carriers"]:
                before, after = carrier.split("{}")
                value = fill(templates[number % len(templates)], rnd)
                yield Row(before + value + after, "secret", kind, len(before), len(before) + len(value))
    for kind, templates in data["identifiers"].items():
        rnd = random.Random(f"identifier {kind}")
        name = data["identifier_names"][kind]
        for number in range(rounds * len(templates)):
            for carrier in data["identifier_carriers"]:
                value = fill(templates[number % len(templates)], rnd)
                before, after = carrier.replace("{n}", name).replace("{{", "{").replace("}}", "}").split("{v}")
                yield Row(before + value + after, "identifier", kind, len(before), len(before) + len(value))
    for group in ("secret", "identifier"):
        rnd = random.Random(f"lookalikes {group}")
        for template in data[f"{group}_lookalikes"]:
            for number in range(rounds):
                carrier = data["lookalike_carriers"][number % len(data["lookalike_carriers"])]
                yield Row(carrier.replace("{}", fill(template, rnd)), group, "", 0, 0)


class Tally:
    """Hits and false alarms by kind."""

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()
        self.found: Counter[str] = Counter()
        self.named: Counter[str] = Counter()
        self.alarms: Counter[str] = Counter()
        self.lookalikes: Counter[str] = Counter()
        self.flagged: Counter[str] = Counter()
        self.missed: list[tuple[str, str]] = []
        self.false: list[tuple[str, str]] = []

    def add(self, row: Row, judge: DefaultClassifier) -> None:
        """Judge one row."""
        leaks = judge.classify([Text("prompt", "user", row.text)]).leaks
        if not row.kind:
            self.lookalikes[row.group] += 1
            self.flagged[row.group] += bool(leaks)
            for leak in leaks:
                self.alarms[leak.kind] += 1
                self.false.append((leak.kind, row.text))
            return
        self.rows[row.kind] += 1
        there = [leak for leak in leaks if leak.start < row.end and leak.end > row.start]
        self.found[row.kind] += bool(there)
        if not there:
            self.missed.append((row.kind, row.text))
        self.named[row.kind] += any(leak.kind == row.kind for leak in there)
        for leak in leaks:
            if leak not in there:
                self.alarms[leak.kind] += 1
                self.false.append((leak.kind, row.text))

    def report(self) -> dict[str, Any]:
        """Give percentages: found at all, found under its own name, and how many findings of the kind are right."""
        kinds = {
            kind: {
                "rows": count,
                "recall": round(100 * self.found[kind] / count, 1),
                "named": round(100 * self.named[kind] / count, 1),
                "precision": round(100 * self.named[kind] / max(1, self.named[kind] + self.alarms[kind]), 1),
            }
            for kind, count in self.rows.items()
        }
        flagged = {name: round(100 * self.flagged[name] / count, 1) for name, count in self.lookalikes.items()}
        return {"kinds": kinds, "lookalikes_flagged": flagged, "false_alarms": dict(sorted(self.alarms.items()))}


def measure(rounds: int) -> Tally:
    """Judge the whole set."""
    judge = DefaultClassifier(remembered=0)
    tally = Tally()
    for row in rows(rounds):
        tally.add(row, judge)
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description="recall and precision of leak detection per kind")
    parser.add_argument("--rounds", type=int, default=3, help="how often every template is filled")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--misses", type=int, default=0, help="show so many misses and false alarms")
    parser.add_argument("--out", type=Path, help="write the set as JSONL for aitrail classify evaluate")
    options = parser.parse_args()
    if options.out:
        with options.out.open("w", encoding="utf-8") as file:
            for row in rows(options.rounds):
                kind = f"{'secret' if row.group == 'secret' else 'pii'}_{row.kind or 'lookalike'}"
                file.write(json.dumps({"text": row.text, "label": int(bool(row.kind)), "kind": kind}) + "\n")
    tally = measure(options.rounds)
    report = tally.report()
    if options.json:
        json.dump(report, sys.stdout, indent=1)
        return
    print(f"{'kind':28} rows  recall %  named %  precision %")
    for kind, figures in report["kinds"].items():
        print(f"{kind:28} {figures['rows']:4}  {figures['recall']:8}  {figures['named']:7}  {figures['precision']:11}")
    print("look-alikes flagged, %:", report["lookalikes_flagged"], "false alarms:", report["false_alarms"])
    for kind, text in tally.missed[: options.misses]:
        print("missed", kind, repr(text[:120]))
    for kind, text in tally.false[: options.misses]:
        print("false", kind, repr(text[:120]))


if __name__ == "__main__":
    main()
