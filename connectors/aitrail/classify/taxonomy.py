"""The taxonomies: ATLAS and OWASP ids with their editions, from ``content/taxonomy``. The one place for these ids."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import msgspec

from aitrail.classify.patterns import read_toml
from aitrail.contentdir import content_path
from aitrail.errors import ConfigError


class Tags(msgspec.Struct, frozen=True, gc=False):
    """The ids of one signal, as events carry them."""

    atlas: tuple[str, ...] = ()
    owasp: tuple[str, ...] = ()


@lru_cache(maxsize=1)
def atlas() -> dict[str, Any]:
    """The ATLAS table: version, tactics, techniques by id (``AML.T0051.000``)."""
    return read_toml(content_path("taxonomy", "atlas.toml"))


@lru_cache(maxsize=1)
def owasp() -> dict[str, Any]:
    """The OWASP LLM table: editions and the mapping from 2025 to 2026."""
    return read_toml(content_path("taxonomy", "owasp_llm.toml"))


@lru_cache(maxsize=1)
def owasp_agentic() -> dict[str, Any]:
    """The OWASP table for agentic applications: editions."""
    return read_toml(content_path("taxonomy", "owasp_agentic.toml"))


def agentic_id(entry: str) -> str:
    """Give an agentic entry's id with the edition: ``asi01:2026``; raises ``ConfigError`` when it is unknown."""
    for edition, entries in owasp_agentic()["editions"].items():
        if entry in entries:
            return f"{entry.lower()}:{edition}"
    raise ConfigError(f"unknown OWASP agentic entry {entry!r}", where="content/taxonomy/signals.toml")


def atlas_id(technique: str) -> str:
    """Give a technique's id with the edition: ``aml.t0051.000@5.6.0``; raises ``ConfigError`` when it is unknown."""
    table = atlas()
    if technique not in table["techniques"]:
        raise ConfigError(f"unknown ATLAS technique {technique!r}", where="content/taxonomy/signals.toml")
    return f"{technique.lower()}@{table['version']}"


def owasp_ids(entry: str) -> tuple[str, ...]:
    """Give a 2025 entry's ids in both editions: ``llm07:2025``, ``llm08:2026``."""
    table = owasp()
    if entry not in table["editions"]["2025"]:
        raise ConfigError(f"unknown OWASP entry {entry!r}", where="content/taxonomy/signals.toml")
    return f"{entry.lower()}:2025", f"{table['mapping']['2025-2026'][entry].lower()}:2026"


@lru_cache(maxsize=1)
def signals() -> dict[str, Tags]:
    """Every signal that a finding can stand for, with its tags."""
    table = read_toml(content_path("taxonomy", "signals.toml"))["signals"]
    return {
        name: Tags(
            tuple(atlas_id(technique) for technique in entry["atlas"]),
            (
                *(tag for item in entry["owasp"] for tag in owasp_ids(item)),
                *(agentic_id(item) for item in entry.get("agentic", ())),
            ),
        )
        for name, entry in table.items()
    }


@lru_cache(maxsize=1024)
def tags_of(names: frozenset[str]) -> Tags:
    """Join the tags of several signals, sorted, each once."""
    return join(signals()[name] for name in names)


def join(tags: Iterable[Tags]) -> Tags:
    """Join tags, sorted, each once."""
    first: set[str] = set()
    second: set[str] = set()
    for item in tags:
        first.update(item.atlas)
        second.update(item.owasp)
    return Tags(tuple(sorted(first)), tuple(sorted(second)))
