"""The tags of rules: ``attack.t1078.004``, ``attack.initial-access``, ``atlas.aml.t0051.000``, ``owasp.llm01-2025``.

Each must exist in ``content/taxonomy``, so that no coverage table and no annotation names what does not exist.
"""

import tomllib
from collections.abc import Iterable
from functools import cache
from typing import Any

from aitrail.contentdir import content_path


@cache
def taxonomy(name: str) -> dict[str, Any]:
    """A file of ``content/taxonomy``."""
    return tomllib.loads(content_path("taxonomy", name).read_text(encoding="utf-8"))


def wrong(tag: str) -> str:
    """Say what is wrong with ``tag``; empty when it exists."""
    namespace, _, rest = tag.partition(".")
    test = _NAMESPACES.get(namespace)
    if test is None:
        return f"unknown namespace {namespace!r}; known: {', '.join(_NAMESPACES)}"
    return "" if test(rest) else f"{tag!r} is not in content/taxonomy"


def editioned(tags: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The ATLAS and OWASP tags as events carry them: ``aml.t0051@5.6.0``, ``llm01:2025``."""
    version = taxonomy("atlas.toml")["version"]
    found: dict[str, list[str]] = {"atlas": [], "owasp": []}
    for tag in tags:
        namespace, _, rest = tag.partition(".")
        if namespace == "atlas":
            found["atlas"].append(f"{rest}@{version}")
        elif namespace == "owasp":
            found["owasp"].append(rest.replace("-", ":"))
    return {name: tuple(values) for name, values in found.items()}


def _attack(rest: str) -> bool:
    table = taxonomy("attack.toml")
    if rest.upper() in table["techniques"]:
        return True
    tactics = {tactic for entry in table["techniques"].values() for tactic in entry["tactics"]}
    return rest in {tactic.lower().replace(" ", "-") for tactic in tactics}


def _atlas(rest: str) -> bool:
    return rest.upper() in taxonomy("atlas.toml")["techniques"]


def _owasp(rest: str) -> bool:
    entry, _, edition = rest.partition("-")
    return entry.upper() in taxonomy("owasp_llm.toml")["editions"].get(edition, {})


_NAMESPACES = {"attack": _attack, "atlas": _atlas, "owasp": _owasp}
