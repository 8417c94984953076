"""Names of ATLAS techniques and OWASP entries, from the taxonomy tables."""

from aitrail.classify import taxonomy


def atlas_name(tag: str) -> str:
    """``aml.t0051.000@5.6.0`` -> ``LLM Prompt Injection: Direct``; empty when the taxonomy does not know it."""
    techniques = taxonomy.atlas()["techniques"]
    entry = techniques.get(tag.partition("@")[0].upper(), {})
    parent = techniques.get(entry.get("parent", ""), {})
    return ": ".join(filter(None, (parent.get("name"), entry.get("name"))))


def owasp_name(tag: str) -> str:
    """``llm01:2025`` -> ``Prompt Injection``; empty when the edition or the entry is not known."""
    entry, _, edition = tag.partition(":")
    tables = (taxonomy.owasp(), taxonomy.owasp_agentic())
    return next((str(name) for table in tables if (name := table["editions"].get(edition, {}).get(entry.upper()))), "")
