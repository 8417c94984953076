"""What of the content becomes a rule and what a hunting query, and the properties of the latter."""

from typing import Any

from aitrail.compiler.emit import Content
from aitrail.compiler.emit import sentinel_hunts as hunts
from aitrail.compiler.emit.sentinel_attack import attack
from aitrail.compiler.emit.sentinel_queries import told
from aitrail.compiler.emit.sentinel_rules import Rules, description, title


def kinds(content: Content) -> tuple[list[Rules], list[Rules]]:
    """Rules that are scheduled, and hunts, each by name."""
    every = sorted((*content.detections, *content.behaviors), key=lambda rule: rule.meta.name)
    return [one for one in every if one.meta.kind == "detection"], [one for one in every if one.meta.kind == "hunt"]


def hunt_properties(name: str, about: str, query: str, tactics: list[str], techniques: list[str]) -> dict[str, Any]:
    """The properties of the saved search that a hunting query is."""
    tags = {"description": about, "tactics": ",".join(tactics), "techniques": ",".join(techniques)}
    return {
        "eTag": "*",
        "displayName": name,
        "category": "Hunting Queries",
        "query": query,
        "version": 2,
        "tags": [{"name": key, "value": value} for key, value in tags.items() if value],
    }


def hunting(content: Content) -> list[tuple[str, dict[str, Any]]]:
    """Identity and properties of all hunting queries: those of rules, then those of this platform alone."""
    found = [
        (rule.meta.id, hunt_properties(title(rule), description(rule), told(rule).text, *attack(rule.meta)))
        for rule in kinds(content)[1]
    ]
    return found + [
        (
            one.id,
            hunt_properties(hunts.own_title(one), one.about, one.query, list(one.tactics), list(one.techniques)),
        )
        for one in hunts.HUNTS
    ]
