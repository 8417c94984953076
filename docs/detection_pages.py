"""The generated pages about rules: what there is, and which techniques and sources it covers - and which not."""

import tomllib
from collections import defaultdict

from aitrail.contentdir import content_path
from aitrail.detection.rules import CompiledRule, shipped
from aitrail.normalize.registry import NORMALIZERS
from aitrail.streams import SEVERITIES


def detections_page() -> str:
    """docs/detections.md: every rule."""
    rules = shipped()
    behaviors = [rule for rule in rules if rule.behavior]
    alerts = [rule for rule in rules if rule.kind == "detection" and not rule.behavior]
    hunts = [rule for rule in rules if rule.kind == "hunt" and not rule.behavior]
    parts = [
        "# Detection rules\n\n",
        f"{len(alerts)} detections and {len(hunts)} hunting queries, written once as Sigma in `content/detections`, ",
        f"and {len(behaviors)} behavior rules of `content/behaviors`, which compare an entity with its own past or ",
        "its peers; all compiled. `aitrail detect` runs the detections on the store, `--hunts` the queries too; ",
        "`aitrail content explain NAME` shows one whole. Every rule carries events that must and must not raise it.\n",
    ]
    for title, chosen in (("Detections", alerts), ("Hunting queries", hunts)):
        head = "| rule | severity | what | needs one of | window | ATLAS, OWASP |\n|---|---|---|---|---|---|\n"
        parts.append(f"\n## {title}\n\n{head}")
        parts += [_row(rule) for rule in sorted(chosen, key=_order)]
    parts.append("\n## Behavior rules\n\nThe window is the baseline with the bucket that is compared with it. ")
    parts.append("`impossible_travel` needs a table of places: [`content/behaviors/README.md`]")
    parts.append(
        "(../content/behaviors/README.md).\n\n| rule | severity | kind | what | needs one of | window | ATLAS, "
    )
    parts.append("OWASP |\n|---|---|---|---|---|---|---|\n")
    parts += [_row(rule, rule.behavior) for rule in sorted(behaviors, key=_order)]
    return "".join(parts)


def _order(rule: CompiledRule) -> tuple[int, str]:
    return -SEVERITIES.index(rule.severity), rule.name


def _row(rule: CompiledRule, *kind: str) -> str:
    tags = ", ".join([*(tag.partition("@")[0] for tag in rule.atlas), *rule.owasp])
    window = span(rule.lookback) if rule.lookback else "-"
    cells = (
        f"`{rule.name}`",
        rule.severity + (", hunt" if kind and rule.kind == "hunt" else ""),
        *kind,
        rule.title,
        ", ".join(rule.needs),
        window,
        tags,
    )
    return f"| {' | '.join(cells)} |\n"


def span(seconds: int) -> str:
    """A window in words."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


# What the collector itself reports.
OWN = ("aitrail_health", "aitrail_ledger")


def coverage_page() -> str:
    """docs/coverage.md: techniques and sources by rules, with the gaps named."""
    rules = shipped()
    atlas = tomllib.loads(content_path("taxonomy", "atlas.toml").read_text(encoding="utf-8"))
    owasp = tomllib.loads(content_path("taxonomy", "owasp_llm.toml").read_text(encoding="utf-8"))
    by_tag: dict[str, list[str]] = defaultdict(list)
    by_source: dict[str, list[str]] = defaultdict(list)
    for rule in rules:
        for tag in (*rule.atlas, *rule.owasp):
            by_tag[tag].append(rule.name)
        for source in rule.needs:
            by_source[source].append(rule.name)
    parts = ["# Coverage\n\nWhich rules stand for which technique, risk and source. A gap is said, not hidden.\n"]
    parts.append(f"\n## MITRE ATLAS {atlas['version']}\n\n| technique | name | rules |\n|---|---|---|\n")
    missing = []
    for technique, entry in atlas["techniques"].items():
        names = by_tag.get(f"{technique.lower()}@{atlas['version']}", [])
        if names:
            parts.append(f"| {technique} | {entry['name']} | {_listed(names)} |\n")
        elif "." not in technique.removeprefix("AML.") and not _children(technique, by_tag, atlas["version"]):
            missing.append(f"{technique} {entry['name']}")
    parts.append(f"\nWithout a rule: {'; '.join(missing)}.\n")
    for edition, entries in owasp["editions"].items():
        parts.append(f"\n## OWASP LLM Top 10, {edition}\n\n| risk | name | rules |\n|---|---|---|\n")
        for entry, name in entries.items():
            found = _owasp(entry.lower(), str(edition), by_tag, owasp)
            parts.append(f"| {entry} | {name} | {_listed(found) or 'none'} |\n")
    parts.append("\n## Sources\n\n| record type | rules that can use it |\n|---|---|\n")
    parts += [f"| `{source}` | {len(by_source.get(source, []))} |\n" for source in (*NORMALIZERS, *OWN)]
    return "".join(parts)


def _children(technique: str, by_tag: dict[str, list[str]], version: str) -> bool:
    return any(tag.startswith(f"{technique.lower()}.") and tag.endswith(version) for tag in by_tag)


def _owasp(entry: str, edition: str, by_tag: dict[str, list[str]], table: dict[str, object]) -> list[str]:
    """Rules tagged with the entry, or with the 2025 entry that became it."""
    found = list(by_tag.get(f"{entry}:{edition}", []))
    mapping = table["mapping"]["2025-2026"]  # type: ignore[index]
    if edition == "2026":
        for old, new in mapping.items():
            if new.lower() == entry:
                found += by_tag.get(f"{old.lower()}:2025", [])
    return sorted(set(found))


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
