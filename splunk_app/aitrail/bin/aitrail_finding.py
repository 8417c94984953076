"""Alert action: keep what a rule found as an event of sourcetype ``ai:access:alert``, each finding once.

Runs in Splunk's own Python (3.9 to 3.13), standard library only. A finding is a rule, a group (the rule's own fields,
e.g. tenant and user) and a stretch of time as long as the rule is silent after it spoke: its id follows from these, so
that runs which see the same rows find the same. The KV store's key makes sure that one of them writes it. No rule reads
``ai:access:alert``, so nothing comes of what is written here but what people see.
"""

# ruff: noqa: INP001  (Splunk runs the scripts of a folder, no package)
from __future__ import annotations

import csv
import gzip
import hashlib
import json
import re
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from aitrail_splunkd import APP, CONF, ActionError, Marks, read, say, write

RULES = Path(__file__).resolve().parent.parent / "lookups" / "aitrail_rules.csv"
SEVERITIES = ("informational", "low", "medium", "high", "critical")
SOURCETYPE = "ai:access:alert"
MOST_EVIDENCE, MOST_VALUES, LONGEST_VALUE = 100, 20, 200
# A run that began a finding this long ago and did not end it is gone.
_PATIENCE = 600.0
# Longer than any search looks back.
_REMEMBERED = 40 * 86_400.0
_INDEX = re.compile(r'\bindex\s*=\s*"?([A-Za-z0-9_][A-Za-z0-9_-]*)"?(?![\w*-])')

Row = dict[str, str]


def main(argv: list[str], stdin: TextIO) -> int:
    """Give the exit code that Splunk takes: 0 done, 2 not called by Splunk, 3 failed."""
    if len(argv) < 2 or argv[1] != "--execute":
        say("ERROR", "finding", "called without --execute: Splunk runs this, people do not")
        return 2
    try:
        payload = json.load(stdin)
        session = payload["session_key"]
        rule = rule_of(str((payload.get("configuration") or {}).get("rule_id") or ""))
        to = settings(session)
        if SEVERITIES.index(rule["severity"]) < SEVERITIES.index(to["least"]):
            say("INFO", "finding", "below the least severity that is kept")
            return 0
        found = findings(rule, rows(payload["results_file"]), time.time())
        written, left = keep(found, to["most"], to["index"], session)
    except ActionError as error:
        say("ERROR", "finding", str(error))
        return 3
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        say("ERROR", "finding", f"what Splunk handed over is not an alert action's payload ({type(error).__name__})")
        return 3
    more = "; the next run takes the rest (max_per_run)" if left else ""
    say("WARN" if more else "INFO", "finding", f"{written} of {len(found)} findings were new{more}")
    return 0


def rule_of(value: str, column: str = "rule_id") -> Row:
    """The rule as the app's lookup describes it; raises ``ActionError`` when there is none."""
    with RULES.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if value and row[column] == value:
                return row
    raise ActionError(f"{column} names no rule of lookups/aitrail_rules.csv")


def settings(session: str) -> dict[str, Any]:
    """Index, least severity and most findings of one run."""
    conf = read(CONF + "findings", session, "the settings of the app (aitrail.conf, [findings])")
    least = conf.get("least_severity") or "informational"
    if least not in SEVERITIES:
        raise ActionError(f"least_severity must be one of {', '.join(SEVERITIES)}")
    try:
        most = min(max(int(conf.get("max_per_run") or 200), 1), 5_000)
    except ValueError:
        raise ActionError("max_per_run is no whole number") from None
    index = (conf.get("index") or "").strip()
    if not index:
        macro = read(APP + "/configs/conf-macros/aitrail_index", session, "the macro aitrail_index")
        match = _INDEX.search(macro.get("definition") or "")
        if match is None:
            raise ActionError("the macro aitrail_index names no single index: set index in aitrail.conf, [findings]")
        index = match[1]
    return {"index": index, "least": least, "most": most}


def rows(path: str) -> list[Row]:
    """The search's results."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return [{key: value for key, value in row.items() if key and value} for row in csv.DictReader(file)]


def findings(rule: Row, results: list[Row], now: float) -> list[dict[str, Any]]:
    """One per group and stretch of time, oldest first."""
    group, hold = rule["grouped"].split(), max(int(rule["hold"]), 1)
    together: dict[tuple[str, ...], list[Row]] = {}
    for row in results:
        moment = float(row.get("_time") or now)
        key = (*(row.get(name, "") for name in group), str(int(moment // hold)))
        together.setdefault(key, []).append({**row, "_time": repr(moment)})
    made = [_finding(rule, group, key, held, now) for key, held in together.items()]
    return sorted(made, key=lambda one: (one["timestamp"], one["event_id"]))


def _finding(rule: Row, group: list[str], key: tuple[str, ...], held: list[Row], now: float) -> dict[str, Any]:
    names = dict(zip(group, key))  # noqa: B905  (Python 3.9 has no strict; key has the bucket as well)
    times = [float(row["_time"]) for row in held]
    starts = [float(row.get("window_start") or row["_time"]) for row in held]
    entities: list[str] = []
    users: list[str] = []
    for pair in rule["entities"].split():
        kind, _, field = pair.partition("=")
        values = list(dict.fromkeys(_printable(row[field]) for row in held if row.get(field)))[:MOST_VALUES]
        entities += [f"{kind}:{value}" for value in values]
        users += values if kind == "user" else []
    events = list(dict.fromkeys(row["event_id"] for row in held if row.get("event_id")))
    count = max(len(held), len(events))
    whom = ", ".join(entities[:3]) + (" and more" if len(entities) > 3 else "")
    made = {
        "stream": "finding",
        "event_id": identity(names.get("tenant_id", ""), rule["rule_id"], *key),
        "timestamp": _iso(max(times)),
        "tenant_id": names.get("tenant_id", ""),
        "rule_id": rule["rule_id"],
        "rule_name": rule["title"],
        "severity": rule["severity"],
        "first_seen": _iso(min(starts)),
        "detected_at": _iso(now),
        "user_id": users[0] if len(users) == 1 else names.get("user_id", ""),
        "entities": entities,
        "evidence_ids": events[:MOST_EVIDENCE],
        "evidence_count": count,
        "atlas": rule["atlas"].split(),
        "owasp": rule["owasp"].split(),
        "tags": [rule["name"], "splunk"],
        "risk_score": int(rule["risk_score"]),
        "summary": f"{rule['title']}: {count} event{'s' if count != 1 else ''}" + (f" ({whom})" if whom else ""),
    }
    always = ("tenant_id", "severity")
    return {name: value for name, value in made.items() if value not in ("", []) or name in always}


def identity(*parts: str) -> str:
    """The id of a finding: the same parts give the same; never that of an access or of a finding made elsewhere."""
    text = "\x00".join(f"{len(part)}:{part}" for part in ("aitrail-splunk-finding", *parts))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def keep(found: list[dict[str, Any]], most: int, index: str, session: str) -> tuple[int, bool]:
    """Write what is not kept yet; gives how many, and whether some were left because they were too many."""
    marks, written = Marks(session), 0
    for finding in found:
        if written == most:
            return written, True
        now = time.time()
        key = finding["event_id"]
        if not marks.begin(key, now, _PATIENCE):
            continue
        try:
            write(json.dumps(finding, ensure_ascii=False), index, SOURCETYPE, "aitrail", session)
        except ActionError:
            marks.forget(key)
            raise
        marks.done(key, now)
        written += 1
    if written:
        marks.forget_before(time.time() - _REMEMBERED)
    return written, False


def _printable(text: str) -> str:
    return "".join(char for char in text[:LONGEST_VALUE] if char.isprintable())


def _iso(moment: float) -> str:
    millis = round(moment * 1000)
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(millis // 1000))
    return f"{whole}.{millis % 1000:03d}Z"


if __name__ == "__main__":
    sys.exit(main(sys.argv, sys.stdin))
